"""Stored keys: one encoding per value, the same everywhere, and an error where there is none."""

from __future__ import annotations

import array
import collections
import datetime as dt
import decimal
import enum
import fractions
import functools
import importlib.util
import ipaddress
import itertools
import json
import os
import pathlib
import struct
import subprocess
import sys
import textwrap
import types
import uuid
import zoneinfo
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opero import CacheKeyError, hotpath

GOLDEN = Path(__file__).parent / "golden"


def load_golden_classes() -> types.ModuleType:
    """Load the classes of the vectors as the module that their encodings name."""
    name = "golden_classes"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, GOLDEN / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


golden_classes = load_golden_classes()

NAMES = {
    **{
        module.__name__: module
        for module in (
            array,
            collections,
            dt,
            decimal,
            fractions,
            golden_classes,
            ipaddress,
            pathlib,
            struct,
            types,
            uuid,
            zoneinfo,
        )
    },
    "numpy": np,
}

VECTORS = json.loads((GOLDEN / "vectors.json").read_text(encoding="utf-8"))


@dataclass
class Box:
    """Holds any value."""

    content: Any


@dataclass
class Recorded(Exception):
    """A dataclass with a base that holds more than the fields."""

    code: int


class Plain:
    """A class that does not show what its instances consist of."""


class Half(enum.Enum):
    """An enumeration with the same names as another."""

    RED = 1


def run(*arguments: str, cwd: Path, **environ: str) -> str:
    """Run Python and return what it prints."""
    source = Path(hotpath.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(source), **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["value"] for vector in VECTORS])
def test_golden_vectors_are_what_they_always_were(
    core: hotpath.Core, vector: dict[str, str]
) -> None:
    """On every machine, Python version and implementation."""
    canonical = core.Canonical()
    encoding = canonical.encode(eval(vector["value"], dict(NAMES)))
    actual = {
        "value": vector["value"],
        "encoding": encoding.hex(),
        "digest": canonical.digest(encoding),
    }
    assert json.dumps(actual) == json.dumps(vector)


def test_golden_vectors_of_different_values_differ() -> None:
    """The only exception is an array in Fortran order, which is the same as another one."""
    encodings = collections.Counter(vector["encoding"] for vector in VECTORS)
    assert len(VECTORS) >= 60
    assert sorted(encodings.values()) == [1] * (len(VECTORS) - 2) + [2]


class TestJson:
    """The values that orjson writes."""

    @pytest.mark.parametrize(
        "value",
        [None, True, 0, -(2**63), 2**64 - 1, "é", [], {}, {"a": [1, {"b": None}]}, {"é": ["\x00"]}],
    )
    def test_what_is_all_json_is_encoded_as_json(self, core: hotpath.Core, value: Any) -> None:
        """Sorted, without spaces, after a byte that begins no other encoding."""
        encoding = core.Canonical().encode(value)
        assert encoding[:1] == b"J"
        assert json.loads(encoding[1:]) == value

    @pytest.mark.parametrize(
        "value",
        [
            1.0,
            (1,),
            2**64,
            -(2**63) - 1,
            "\ud800",
            {"\ud800": 1},
            {1: 1},
            [1, [1.0]],
            {"a": {"b": (1,)}},
            golden_classes.Text("a"),
            {golden_classes.Text("a"): 1},
            golden_classes.Level.LOW,
            [golden_classes.Words()],
        ],
    )
    def test_what_is_not_all_json_is_not(self, core: hotpath.Core, value: Any) -> None:
        """Whatever orjson would write for it."""
        assert core.Canonical().encode(value)[:1] != b"J"

    def test_there_is_one_encoding_with_and_without_orjson(
        self, core: hotpath.Core, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """PyPy has no orjson."""
        value = {"z": [1, 'é\U0001f600\x00\x1f\x7f"\\/'], "é": None, "\U0001f600": True, "￿": {}}
        with_orjson = core.Canonical().encode(value)
        monkeypatch.setitem(sys.modules, "orjson", None)
        assert core.Canonical().encode(value) == with_orjson


class TestRefusals:
    """Values that cannot be encoded faithfully."""

    @pytest.mark.parametrize(
        ("value", "type_name"),
        [
            (len, "builtin_function_or_method"),
            (lambda: None, "function"),
            (json, "module"),
            (Plain().__init__, "method-wrapper"),
            (Plain(), f"{__name__}.Plain"),
            (object(), "object"),
            (iter([]), "list_iterator"),
            (functools.partial(len), "functools.partial"),
            (sys.stdout, type(sys.stdout).__qualname__),
            (Recorded(1), f"{__name__}.Recorded"),
            (zoneinfo.ZoneInfo.no_cache("UTC"), "zoneinfo.ZoneInfo"),
            (np.ma.array([1]), "numpy.ma"),
            (np.array([1], dtype=np.longdouble), str(np.dtype(np.longdouble))),
            (np.dtype("f8"), "Float64DType"),
        ],
    )
    def test_a_value_that_is_not_data_is_refused_by_the_name_of_its_type(
        self, core: hotpath.Core, value: Any, type_name: str
    ) -> None:
        """The message also says what to do."""
        if np.dtype(np.longdouble).itemsize == 8 and "longdouble" in repr(value):
            return  # here it is a double
        with pytest.raises(CacheKeyError) as caught:
            core.Canonical().encode(value)
        assert type_name in str(caught.value)
        assert "cache_key=" in str(caught.value)

    @pytest.mark.parametrize(
        ("value", "path"),
        [
            ({"a": [1, 2, 3, len]}, "['a'][3]: "),
            ([Box({"b": len})], "[0].content['b']: "),
            ({1: {(1, 2): len}}, "[1][a tuple]: "),
            ((0, {len}), "[1]: "),
            ([np.array([len], dtype=object)], "[0][0]: "),
            (len, ""),
        ],
    )
    def test_the_error_says_where(self, core: hotpath.Core, value: Any, path: str) -> None:
        """It writes the path as Python code would."""
        with pytest.raises(CacheKeyError) as caught:
            core.Canonical().encode(value)
        assert str(caught.value).startswith(f"{path}no stored cache key can be made of ")

    def test_a_value_that_contains_itself_is_refused(self, core: hotpath.Core) -> None:
        """Whatever its type; the message names the argument."""
        items: list[Any] = []
        items.append(items)
        table: dict[str, Any] = {}
        table["a"] = [table]
        box = Box(None)
        box.content = (box,)
        deep: Any = 1.5
        for _ in range(100_000):
            deep = [deep]
        for value in (items, table, box, deep):
            with pytest.raises(CacheKeyError, match="contains itself, or is nested more than 200"):
                core.Canonical().encode(value)
            with pytest.raises(CacheKeyError, match=r"^first: no stored cache key"):
                core.Canonical().stored_key("n", ("m", "f"), "", (value,), ("first",))
        while deep != 1.5:  # taken down by hand, as a destructor would recurse
            deep = deep[0]

    def test_a_class_that_is_not_where_its_name_says_is_refused(self, core: hotpath.Core) -> None:
        """Another process, or another value, could have another class there."""

        @dataclass
        class Local:
            content: Any = None

        other = type("Box", (Box,), {})
        renamed = type("Plain", (list,), {"__module__": "no.such.module"})
        for value in (Local(), Local, other(1), other, renamed(), [renamed()]):
            with pytest.raises(CacheKeyError, match="not found under its module and name"):
                core.Canonical().encode(value)

    def test_classes_are_told_apart_by_module_and_qualified_name(self, core: hotpath.Core) -> None:
        """Even if an enum member, or a class inside another class, has the same name."""
        encode = core.Canonical().encode
        values = [Half.RED, golden_classes.Colour.RED, Half, golden_classes.Colour, Box, Box(1)]
        assert len({encode(value) for value in values}) == len(values)


class TestNumpy:
    """The properties of arrays that count, and those that do not."""

    def test_memory_layout_does_not_count(self, core: hotpath.Core) -> None:
        """Only dtype, shape and content count."""
        encode = core.Canonical().encode
        wide = np.arange(12, dtype="<i4").reshape(3, 4)
        for other in (np.asfortranarray(wide), np.vstack([wide, wide])[:3], wide.copy("K")):
            assert encode(other) == encode(wide)
        assert encode(wide.T) != encode(wide)
        assert encode(wide.reshape(4, 3)) != encode(wide)
        assert encode(wide.astype(">i4")) != encode(wide)
        assert encode(wide.view("<f4")) != encode(wide)

    def test_padding_does_not_count(self, core: hotpath.Core) -> None:
        """It holds whatever was in that memory before."""
        dtype = np.dtype([("a", "u1"), ("b", "<i8")], align=True)
        clean = np.zeros(1, dtype)
        dirty = np.frombuffer(b"\0" + b"\xff" * 7 + b"\0" * 8, dtype)
        assert core.Canonical().encode(dirty) == core.Canonical().encode(clean)

    def test_structure_counts(self, core: hotpath.Core) -> None:
        """The names, offsets, titles, shapes and notes of fields."""
        kinds: list[Any] = [
            [("a", "<i4"), ("b", "<i4")],
            [("b", "<i4"), ("a", "<i4")],
            [("a", "<i4", (1,)), ("b", "<i4")],
            [(("title", "a"), "<i4"), ("b", "<i4")],
            {"names": ["a", "b"], "formats": ["<i4", "<i4"], "offsets": [4, 0]},
            {"names": ["a", "b"], "formats": ["<i4", "<i4"], "itemsize": 12},
            np.dtype([("a", "<i4"), ("b", "<i4")], metadata={"unit": "m"}),
            np.dtype((np.record, [("a", "<i4"), ("b", "<i4")])),
        ]
        encode = core.Canonical().encode
        assert len({encode(np.zeros(2, kind)) for kind in kinds}) == len(kinds)


class TestOwner:
    """The owner of a result."""

    def test_a_function_of_a_module_goes_by_module_and_qualified_name(
        self, core: hotpath.Core
    ) -> None:
        """So does a method."""
        owner_of = core.Canonical().owner_of
        assert owner_of(run) == (__name__, "run")
        assert owner_of(TestOwner.function_in) == (__name__, "TestOwner.function_in")

    def test_what_has_no_name_is_a_value_error(self, core: hotpath.Core) -> None:
        """A partial could wrap any function."""
        with pytest.raises(ValueError, match=r"not a functools\.partial"):
            core.Canonical().owner_of(functools.partial(run))

    def function_in(self, tmp_path: Path, name: str, half: str, *command: str) -> list[str]:
        """Return the owner of a function in a script that is started in one of several ways."""
        (tmp_path / "pack").mkdir(exist_ok=True)
        (tmp_path / "pack" / name).write_text(
            textwrap.dedent(
                f"""
                from dataclasses import dataclass
                from opero import hotpath

                @dataclass
                class Local:
                    a: int

                def work(a):
                    return a

                if __name__ in ("__main__", "__mp_main__"):
                    canonical = hotpath.load({half!r}).Canonical()
                    print(*canonical.owner_of(work), canonical.encode(Local(1)), sep="\\n")
                """
            )
        )
        return run(*command, cwd=tmp_path).splitlines()

    def test_a_script_goes_by_its_resolved_path(self, core: hotpath.Core, tmp_path: Path) -> None:
        """From any working directory; so do its classes."""
        path = os.path.realpath(tmp_path / "pack" / "job.py")
        for given in ("pack/job.py", "pack/../pack/job.py", path):
            module, name, encoding = self.function_in(tmp_path, "job.py", core.name, given)
            assert (module, name) == (path, "work")
            assert f"{path}S5:Local" in encoding

    def test_a_module_run_by_name_goes_by_that_name(
        self, core: hotpath.Core, tmp_path: Path
    ) -> None:
        """As when another module imports it."""
        told = self.function_in(tmp_path, "job.py", core.name, "-m", "pack.job")
        assert told[:2] == ["pack.job", "work"]
        assert "S8:pack.jobS5:Local" in told[2]
        told = self.function_in(tmp_path, "__main__.py", core.name, "-m", "pack")
        assert told[:2] == ["pack.__main__", "work"]

    def test_a_folder_run_as_a_script_goes_by_the_path_of_what_is_run(
        self, core: hotpath.Core, tmp_path: Path
    ) -> None:
        """Its specification has no name except `__main__`."""
        told = self.function_in(tmp_path, "__main__.py", core.name, "pack")
        assert told[:2] == [os.path.realpath(tmp_path / "pack" / "__main__.py"), "work"]

    def test_a_spawned_process_calls_its_main_module_the_same(
        self, core: hotpath.Core, tmp_path: Path
    ) -> None:
        """It runs the script again, under another name."""
        (tmp_path / "job.py").write_text(
            textwrap.dedent(
                f"""
                import multiprocessing
                from opero import hotpath

                def work(pipe):
                    pipe.send(hotpath.load({core.name!r}).Canonical().owner_of(work))

                if __name__ == "__main__":
                    spawn = multiprocessing.get_context("spawn")
                    mine, theirs = spawn.Pipe()
                    child = spawn.Process(target=work, args=(theirs,))
                    child.start()
                    told = mine.recv()
                    child.join()
                    assert told == hotpath.load({core.name!r}).Canonical().owner_of(work), told
                    print(told[0])
                """
            )
        )
        assert run("job.py", cwd=tmp_path).strip() == os.path.realpath(tmp_path / "job.py")

    NOTEBOOK = """
        import linecache, sys
        from opero import hotpath
        canonical = hotpath.load({half!r}).Canonical()
        def cell(number, text, seen):
            name = f"<cell {{number}}>"
            linecache.clearcache()
            if seen:
                linecache.cache[name] = (len(text), None, text.splitlines(True), name)
            exec(compile(text, name, "exec"), globals())
            return canonical.owner_of(work)
        one = "def work(a):\\n    return a + 1\\n"
        two = "def work(a):\\n    return a + 2\\n"
        for seen in (True, False):
            first, second = cell(1, one, seen), cell(2, two, seen)
            again = cell(3, one, seen)
            assert first == again, (first, again)
            assert first != second
            assert first[1] == second[1] == "work"
            print(first[0])
        from dataclasses import dataclass
        from opero import CacheKeyError
        @dataclass
        class Local: a: int
        try:
            canonical.encode([Local(1)])
        except CacheKeyError as error:
            print(error)
        """

    def test_a_notebook_goes_by_the_source_of_the_function(
        self, core: hotpath.Core, tmp_path: Path
    ) -> None:
        """Or by its compiled code; its classes have no lasting name."""
        command = textwrap.dedent(self.NOTEBOOK).format(half=core.name)
        source, code, refusal = run("-c", command, cwd=tmp_path).splitlines()
        assert source.startswith("source:")
        assert code.startswith("code:")
        assert refusal.startswith("[0]: no stored cache key can be made of __main__.Local: ")


class TestStoredKey:
    """The whole key."""

    def test_its_name_is_printable_and_says_whose_it_is(self, core: hotpath.Core) -> None:
        """The digest covers everything."""
        canonical = core.Canonical()
        key = canonical.stored_key("ns", ("pack.job", "Job.work"), "2", (1, "a", (), {}))
        assert key.name == f"opero1:ns:pack.job:Job.work:2:{canonical.digest(key.full)}"
        assert key.full == (b'opero1S2:nsS8:pack.jobS8:Job.workS1:2U4:2:J14:J"a"3:U0:3:J{}')

    def test_its_parts_are_told_apart(self, core: hotpath.Core) -> None:
        """Whatever the parts contain."""
        canonical = core.Canonical()
        parts = ["", ":", "a", "a:", ":a", "%3A", "a b", "é", "\ud800", "\n"]
        scopes = list(itertools.product(parts, repeat=4))
        names = set()
        for namespace, module, name, version in scopes:
            key = canonical.stored_key(namespace, (module, name), version, ())
            words = key.name.split(":")
            assert len(words) == 6
            assert key.name.isascii()
            assert key.name.isprintable()
            assert " " not in key.name
            names.add(":".join(words[:-1]))
        assert len(names) == len(scopes)

    def test_arguments_count_by_place_and_type(self, core: hotpath.Core) -> None:
        """No two of these calls are the same."""
        canonical = core.Canonical()
        calls: list[tuple[Any, ...]] = [
            (),
            (None,),
            (1,),
            (1.0,),
            (True,),
            ("1",),
            ((1,),),
            ([1],),
            (1, 1),
            ((1, 1),),
            ([1, 1],),
            (1, (1,)),
            ("11", ""),
            ("1", "1"),
            ("", "11"),
        ]
        full = {canonical.stored_key("n", ("m", "f"), "", call).full for call in calls}
        assert len(full) == len(calls)

    def test_an_argument_that_cannot_be_encoded_is_named(self, core: hotpath.Core) -> None:
        """By its parameter, or by its position if the parameter is unknown."""
        key = core.Canonical().stored_key
        with pytest.raises(CacheKeyError, match=r"^urls\['a'\]\[0\]: "):
            key("n", ("m", "f"), "", (1, {"a": [len]}), ("count", "urls"))
        with pytest.raises(CacheKeyError, match=r"^argument 2\[0\]: "):
            key("n", ("m", "f"), "", (1, [len]))

    def test_without_xxhash_the_error_says_what_to_install(
        self, core: hotpath.Core, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing else needs xxhash."""
        monkeypatch.setitem(sys.modules, "xxhash", None)
        with pytest.raises(ImportError, match="pip install xxhash"):
            core.Canonical().digest(b"")

    def test_it_is_the_same_in_every_process(self, core: hotpath.Core, tmp_path: Path) -> None:
        """Even if another process hashes strings, and so orders sets, differently."""
        command = textwrap.dedent(
            f"""
            from opero import hotpath
            words = [f"word {{number}}" for number in range(50)]
            value = {{"set": set(words), "dict": dict.fromkeys(words), 1: frozenset(words)}}
            canonical = hotpath.load({core.name!r}).Canonical()
            print(canonical.stored_key("n", ("m", "f"), "", (value, set(words))).name)
            """
        )
        told = {run("-c", command, cwd=tmp_path, PYTHONHASHSEED=seed) for seed in ("0", "1", "2")}
        assert len(told) == 1

    def test_compiled_and_plain_make_the_same(self, core: hotpath.Core) -> None:
        """One finds what the other has stored."""
        plain = hotpath.load("plain").Canonical()
        arguments = [eval(vector["value"], dict(NAMES)) for vector in VECTORS]
        owner = core.Canonical().owner_of(run)
        assert owner == plain.owner_of(run)
        mine = core.Canonical().stored_key("n", owner, "1", arguments)
        other = plain.stored_key("n", owner, "1", arguments)
        assert (mine.name, mine.full) == (other.name, other.full)
