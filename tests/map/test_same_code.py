"""What runs in a worker is what the program has: after a reload, an edit, and in warm workers."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from crowd import until

from opero import OperoError, opmap
from opero.map.engines.processes import pool, start
from opero.map.serialization.loaded_modules import loaded_modules

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="they take long without a fork server"),
]

METHODS = start.METHODS

LOWER = """\
import functools

RATE = 1
TEXT = "old"
KEEPS = []


class Price:
    kind = "old"

    def __init__(self, amount):
        self.amount = amount

    def total(self):
        return self.amount, "old"


def helper(item):
    return item, "old"


def direct(item):
    return item, "old"


def with_default(item, how="old"):
    return how


def by_keyword(item, *, how="old"):
    return how


def constant(item):
    return RATE, TEXT


def method(item):
    return Price(item).total(), Price.kind


def calls(item):
    return helper(item)


def priced(price):
    return price.total(), isinstance(price, Price), type(price).__name__


def makes(item):
    return Price(item)


def remembers(item):
    KEEPS.append(item)
    return len(KEEPS)


@functools.lru_cache
def cached(item):
    return item, "old"


def made(how):
    def inner(item):
        return item, how, TEXT

    return inner


closure = made("old")
"""

UPPER = """\
import {lower}
from {lower} import RATE, helper as imported


def by_module(item):
    return {lower}.helper(item), {lower}.RATE


def by_name(item):
    return imported(item), RATE


def inside(item):
    import {lower}

    return {lower}.helper(item)
"""

NEW = (("old", "new"), ("RATE = 1", "RATE = 2"))


@pytest.fixture(scope="module", autouse=True)
def no_process_left():
    """End the warm workers after the last test."""
    yield
    pool.shut()
    assert not pool._all


class Modules:
    """A folder on the path, and the modules that were imported from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []

    def write(self, name: str, text: str) -> Path:
        """Write or overwrite a module's file."""
        path = self.folder / f"{name}.py"
        path.write_text(text)
        importlib.invalidate_caches()
        return path

    def load(self, name: str, text: str) -> Any:
        """Write a module and import it."""
        self.write(name, text)
        self.names.append(name)
        return importlib.import_module(name)


@pytest.fixture
def modules(tmp_path, monkeypatch) -> Iterator[Modules]:
    """Return an empty folder on the path; forget its modules afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    # files are looked at each time, however many modules the tests before have loaded
    monkeypatch.setattr("opero.map.serialization.loaded_modules._PAUSE", 0.0)
    monkeypatch.setattr(loaded_modules, "_due", 0.0)
    made = Modules(tmp_path)
    yield made
    for name in made.names:
        sys.modules.pop(name, None)


def edited(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes or NEW:
        text = text.replace(old, new)
    return text


def mapped(function: Any, items: Any = (5,), method: str | None = None, **options: Any) -> Any:
    """Map in one worker process."""
    given = {"workers": 1, "retries": 1, "progress": False, "start_method": method, **options}
    return list(opmap(mode="process", **given)(function)(items))


def who(_: Any) -> int:
    return os.getpid()


FUNCTIONS = (
    "direct",
    "with_default",
    "by_keyword",
    "constant",
    "method",
    "calls",
    "cached",
    "closure",
)

# --- what was read again --------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_reloaded_module_is_reloaded_in_warm_workers(modules, method):
    """That covers code, defaults, constants, classes, caches and new closures."""
    lower = modules.load("reloaded_low", LOWER)
    for name in FUNCTIONS:
        assert mapped(getattr(lower, name), method=method) == [getattr(lower, name)(5)]
    modules.write("reloaded_low", edited(LOWER))
    importlib.reload(lower)
    assert lower.direct(5) == (5, "new")
    for name in FUNCTIONS:
        assert mapped(getattr(lower, name), method=method) == [getattr(lower, name)(5)]


@pytest.mark.parametrize("name", ["by_module", "by_name", "inside"])
def test_what_another_module_uses_is_reloaded_too(modules, name):
    """It may use the module itself, a name from it, or an import at run time."""
    lower = modules.load("used_low", LOWER)
    upper = modules.load("used_up", UPPER.format(lower="used_low"))
    assert mapped(getattr(upper, name)) == [getattr(upper, name)(5)]
    modules.write("used_low", edited(LOWER))
    importlib.reload(lower)
    assert mapped(upper.by_module) == [((5, "new"), 2)]
    importlib.reload(upper)
    assert mapped(getattr(upper, name)) == [getattr(upper, name)(5)]


def test_a_module_that_is_imported_anew_is_another_one(modules):
    """Functions of the old one continue unchanged."""
    before = modules.load("renewed_low", LOWER)
    assert mapped(before.calls) == [(5, "old")]
    del sys.modules["renewed_low"]
    after = modules.load("renewed_low", edited(LOWER))
    assert after is not before
    assert mapped(after.calls) == [(5, "new")]
    assert mapped(before.calls) == [(5, "old")]
    assert mapped(lambda item: (before.constant(item), after.constant(item))) == [
        ((1, "old"), (2, "new"))
    ]
    assert mapped(after.priced, [before.Price(1), after.Price(2)]) == [
        ((1, "old"), False, "Price"),
        ((2, "new"), True, "Price"),
    ]


def test_a_reload_in_a_package_is_seen(modules):
    """The module is deep in a package that is not reloaded."""
    folder = modules.folder / "reloaded_package" / "inner"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("from .inner import deep\n\nuse = deep.helper\n")
    (folder / "__init__.py").write_text("")
    (folder / "deep.py").write_text(LOWER)
    reloaded_package = importlib.import_module("reloaded_package")
    deep = importlib.import_module("reloaded_package.inner.deep")
    modules.names += [name for name in sys.modules if name.startswith("reloaded_package")]
    assert mapped(deep.calls) == [(5, "old")]
    (folder / "deep.py").write_text(edited(LOWER))
    importlib.reload(deep)
    assert mapped(deep.calls) == [(5, "new")]
    assert mapped(reloaded_package.use) == [(5, "old")]


def test_items_shared_arguments_and_results_have_the_classes_of_the_program(modules):
    """They have the old classes before a reload, and the new ones after it."""
    lower = modules.load("classes_low", LOWER)

    def with_shared(item, price):
        return price.total(), isinstance(price, lower.Price)

    for how in ("old", "new"):
        assert mapped(lower.priced, [lower.Price(1)]) == [((1, how), True, "Price")]
        (result,) = mapped(lower.makes, [3])
        assert type(result) is lower.Price
        shared = opmap(mode="process", workers=1, progress=False)(with_shared)
        assert shared([1], price=lower.Price(2)) == [((2, how), True)]
        modules.write("classes_low", edited(LOWER))
        importlib.reload(lower)


def test_a_coroutine_of_a_reloaded_module_is_the_new_one(modules):
    """The mode runs loops in processes."""
    text = "import reloaded_by_loop\n\nasync def ask(item):\n    return reloaded_by_loop.helper(item)\n"
    lower = modules.load("reloaded_by_loop", LOWER)
    upper = modules.load("coroutines", text)
    options = {"mode": "async_process", "workers": 1, "progress": False}
    assert opmap(**options)(upper.ask)([5]) == [(5, "old")]
    modules.write("reloaded_by_loop", edited(LOWER))
    importlib.reload(lower)
    assert opmap(**options)(upper.ask)([5]) == [(5, "new")]


# --- what was not read again ----------------------------------------------------------------------


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_a_file_that_has_changed_since_does_not_matter(modules, method, warm):
    """Its functions then travel by value, to warm and new workers."""
    lower = modules.load("edited_low", LOWER)
    if warm:
        assert mapped(lower.calls, method=method) == [(5, "old")]
    else:
        loaded_modules.look()
    modules.write("edited_low", edited(LOWER) + "\n\nraise SystemExit\n")
    if not warm:
        pool.shut()
    for name in FUNCTIONS:
        assert mapped(getattr(lower, name), method=method) == [getattr(lower, name)(5)]
    (result,) = mapped(lower.makes, [3], method=method)
    assert type(result) is lower.Price
    assert mapped(lower.priced, [result], method=method) == [((3, "old"), True, "Price")]


@pytest.mark.parametrize("name", ["by_module", "by_name"])
def test_what_uses_a_module_whose_file_has_changed_goes_by_value(modules, name):
    """That holds for any kind of use; the file is not even read."""
    modules.load("changed_low", LOWER)
    upper = modules.load("changed_up", UPPER.format(lower="changed_low"))
    loaded_modules.look()
    modules.write("changed_low", "raise SystemExit('it is not to be imported')\n")
    pool.shut()
    assert mapped(getattr(upper, name)) == [getattr(upper, name)(5)]
    assert mapped(lambda item: getattr(upper, name)(item)) == [getattr(upper, name)(5)]


HOLDS = """\
import sqlite3
import threading

CONNECTION = sqlite3.connect(":memory:")
LOCK = threading.Lock()
COUNT = 0


def helper(item):
    with LOCK:
        return item, "old"


def counts(item):
    global COUNT
    COUNT += item
    return COUNT


def asks(item):
    return CONNECTION.execute("select 1")
"""


def test_a_changed_module_goes_by_value_without_what_cannot_travel(modules):
    """Only its users miss that; all functions of the module share one namespace."""
    holds = modules.load("holding_low", HOLDS)
    loaded_modules.look()
    modules.write("holding_low", edited(HOLDS))

    def uses(item):
        before = holds.COUNT
        return holds.helper(item), before, holds.counts(item), holds.COUNT

    def asks(item):
        return holds.CONNECTION

    assert mapped(uses, [1, 2]) == [((1, "old"), 0, 1, 1), ((2, "old"), 1, 3, 3)]
    (error,) = mapped(asks)
    assert isinstance(error, AttributeError)
    assert "holding_low.CONNECTION was not sent" in str(error)
    assert "sqlite3.Connection" in str(error)
    assert "Reload" in str(error)
    (error,) = mapped(lambda item: holds.asks)
    assert "holding_low.asks was not sent" in str(error)
    with pytest.raises(TypeError, match=r"CONNECTION.*file has changed .*reload it"):
        mapped(holds.asks)
    holds.CONNECTION.close()


def test_a_changed_module_that_is_imported_by_an_attempt_is_refused(modules):
    """The error names the change and the remedy; the program's state stays as it is."""
    modules.load("inside_low", LOWER)
    upper = modules.load("inside_up", UPPER.format(lower="inside_low"))
    loaded_modules.look()
    modules.write("inside_low", edited(LOWER, *NEW, ("item", "items")))
    pool.shut()
    # the function itself is by name, and nothing at the top of its module imports the other
    modules.write(
        "inside_up", "def inside(item):\n    import inside_low\n\n    return inside_low\n"
    )
    importlib.reload(upper)
    (error,) = mapped(upper.inside)
    assert isinstance(error, OperoError)
    assert "a worker cannot import inside_low" in str(error)
    assert "Reload" in str(error)


def test_a_file_that_changes_back_is_imported_again(modules):
    """It is imported by name, as before."""
    lower = modules.load("returning_low", LOWER)
    assert mapped(lower.remembers, [1, 2]) == [1, 2]
    modules.write("returning_low", edited(LOWER))
    assert mapped(lower.calls) == [(5, "old")]
    assert "returning_low" in loaded_modules.look().apart
    modules.write("returning_low", LOWER)
    assert mapped(lower.calls) == [(5, "old")]
    until(lambda: "returning_low" not in loaded_modules.look().apart)  # it looks now and then only


CONSTANTS = """\
import collections

TABLE = {{"low": [{number}], "high": 2}}
STEPS = [{number}, (2, 3)]
KINDS = {{"a", {number}}}
SECONDS = 60 * {number}
LIMIT = {limit}
SEEN = []
NAMES = ["constants"]
NAMES.append("more")
ORDER = collections.OrderedDict()
ORDER["first"] = 1


class Price:
    table = {{"low": {number}}}
    __hidden = 5

    def hidden(self):
        return self.__hidden


def found(item):
    return TABLE, STEPS, KINDS, SECONDS, LIMIT, Price.table, Price().hidden(), NAMES, ORDER
"""

OLD = CONSTANTS.format(number=1, limit=None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"low": [1]', '"low": [300]'),
        ('"high": 2', '"high": 2, "higher": 3'),
        ("[1, (2, 3)]", "[1, (2, 4)]"),
        ('{"a", 1}', '{"a", "b", 1}'),
        ("60 * 1", "60 * 5"),
        ("LIMIT = None", "LIMIT = 5"),
        ("LIMIT = 5", "LIMIT = None"),
        ('{"low": 1}', '{"low": 300}'),
    ],
)
def test_a_constant_in_a_file_that_was_not_read_again_is_not_seen(modules, old, new):
    """Whatever it is made of; by the function's own name, and from one that travels by value."""
    text = CONSTANTS.format(number=1, limit=5) if old == "LIMIT = 5" else OLD
    low = modules.load("constants_low", text)
    before = low.found(1)
    assert mapped(low.found) == mapped(lambda item: low.found(item)) == [before]
    modules.write("constants_low", edited(text, (old, new)))
    assert mapped(low.found) == mapped(lambda item: low.found(item)) == [before]
    assert "constants_low" in loaded_modules.look().apart
    importlib.reload(low)
    after = low.found(1)
    assert mapped(low.found) == mapped(lambda item: low.found(item)) == [after]
    assert after != before
    until(lambda: "constants_low" not in loaded_modules.look().apart)


def test_what_a_module_fills_itself_is_no_sign_of_another_file(modules):
    """A list that is empty in the file, or that the module appends to, is not compared."""
    low = modules.load("filled_low", OLD)
    low.SEEN.append(object())
    assert mapped(low.found) == [low.found(1)]
    modules.write("filled_low", OLD + "# no more than a comment\n")
    assert mapped(low.found) == [low.found(1)]
    until(lambda: "filled_low" not in loaded_modules.look().apart)


@pytest.mark.parametrize("others", [0, 1, 2])
def test_a_module_that_was_patched_after_its_file_is_imported_again(modules, others):
    """`%autoreload` does so: it patches old functions, and imports some modules."""
    lower = modules.load("patched_low", LOWER)
    upper = modules.load("patched_up", UPPER.format(lower="patched_low"))
    assert mapped(upper.by_name) == [((5, "old"), 1)]
    text = edited(LOWER, ("old", "new"))
    modules.write("patched_low", text)
    for number in range(others):
        modules.load(f"patched_other_{number}", LOWER)
    anew: dict[str, Any] = {"__name__": "patched_low"}
    exec(compile(text, lower.__file__, "exec"), anew)
    for name, thing in anew.items():
        function = getattr(thing, "__wrapped__", thing)
        if isinstance(function, types.FunctionType) and name != "closure":
            old = getattr(lower, name)
            for part in ("__code__", "__defaults__", "__kwdefaults__"):
                setattr(getattr(old, "__wrapped__", old), part, getattr(function, part))
    lower.TEXT = "new"
    lower.Price.total.__code__ = anew["Price"].total.__code__
    lower.Price.kind = "new"
    assert mapped(lambda item: upper.by_name(item)) == [((5, "new"), 1)]
    assert mapped(upper.by_name) == [((5, "new"), 1)]
    assert mapped(lower.constant) == [(1, "new")]
    assert mapped(lower.method) == [((5, "new"), "new")]
    until(lambda: "patched_low" not in loaded_modules.look().apart)


@pytest.mark.parametrize(
    "patch", [("__defaults__", ("new",)), ("__code__", (lambda item, how="": "new").__code__)]
)
def test_a_function_that_was_patched_itself_goes_by_value(modules, patch):
    """Its name leads to the function in the file."""
    lower = modules.load("patched_alone", LOWER)
    setattr(lower.with_default, *patch)
    assert mapped(lower.with_default) == ["new"]


def test_what_was_compiled_within_the_same_second_is_not_run(modules, monkeypatch):
    """Python compares whole seconds and file sizes, which are the same here."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = modules.write("same_second", LOWER)
    long_ago = path.stat().st_mtime_ns // 10**9 * 10**9 - 3600 * 10**9
    os.utime(path, ns=(long_ago, long_ago + 1000))
    lower = modules.load("same_second", LOWER)
    os.utime(path, ns=(long_ago, long_ago + 1000))
    importlib.reload(lower)
    assert mapped(lower.calls) == [(5, "old")]
    modules.write("same_second", LOWER.replace("old", "new"))
    compiled = Path(importlib.util.cache_from_source(str(path)))
    os.utime(compiled, ns=(long_ago, long_ago + 2000))
    os.utime(path, ns=(long_ago, long_ago + 3000))
    exec(compile(path.read_text(), str(path), "exec"), vars(lower))
    pool.shut()
    assert lower.calls(5) == (5, "new")
    assert mapped(lower.calls) == [(5, "new")]


# --- warm workers ---------------------------------------------------------------------------------


def test_workers_stay_warm_as_long_as_nothing_that_they_have_is_read_again(modules):
    """New modules, and reloads of modules that no worker has, change nothing."""
    lower = modules.load("warm_low", LOWER)
    other = modules.load("warm_other", LOWER)
    assert mapped(lower.remembers, [1, 2]) == [1, 2]
    (worker,) = mapped(who)
    modules.load("warm_third", LOWER)
    assert mapped(who) == [worker]
    importlib.reload(other)
    assert mapped(who) == [worker]
    assert mapped(lower.remembers, [3]) == [3]
    assert mapped(other.calls) == [(5, "old")]
    assert mapped(who) == [worker]
    importlib.reload(other)
    (successor,) = mapped(who)
    assert successor != worker
    assert mapped(who) == [successor]


def test_a_worker_that_imported_a_module_first_stays(modules):
    """The program may import later what an attempt has imported long ago."""
    modules.write("first_there", LOWER)
    upper = modules.load("first_up", "def inside(item):\n    import first_there\n\n    return 1\n")
    long_ago = 10**18
    os.utime(modules.folder / "first_there.py", ns=(long_ago, long_ago))
    assert mapped(upper.inside) == [1]
    (worker,) = mapped(who)
    modules.names.append("first_there")
    importlib.import_module("first_there")
    assert mapped(who) == [worker]


def test_to_look_again_costs_no_more_than_a_few_comparisons(modules, monkeypatch):
    """Known modules are not read again, and files are checked only sometimes."""
    modules.load("looked_at", LOWER)
    loaded_modules.look()
    looks: list[str] = []
    monkeypatch.setattr(type(loaded_modules), "_read", lambda _: looks.append("modules"))
    monkeypatch.setattr(loaded_modules, "_due", float("inf"))
    first = loaded_modules.look()
    assert loaded_modules.look() is first
    assert looks == []


# --- executors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_an_executor_gets_what_was_read_again_by_value(modules, method):
    """Its workers cannot be renewed, so what uses a reloaded module goes by value."""
    lower = modules.load("executor_low", LOWER)
    upper = modules.load("executor_up", UPPER.format(lower="executor_low"))
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as executor:

        def in_executor(function: Callable[[Any], Any], item: Any = 5) -> Any:
            return opmap(executor=executor, retries=1, progress=False)(function)([item])[0]

        def check() -> None:
            for name in FUNCTIONS:
                function = getattr(lower, name)
                assert in_executor(function) == function(5)
            for name in ("by_module", "by_name"):
                function = getattr(upper, name)
                assert in_executor(function) == function(5)
            price = lower.Price(3)
            assert in_executor(lower.priced, price) == lower.priced(price)
            assert type(in_executor(lower.makes)) is lower.Price

        check()
        modules.write("executor_low", edited(LOWER))
        check()
        importlib.reload(lower)
        check()
        importlib.reload(upper)
        check()
