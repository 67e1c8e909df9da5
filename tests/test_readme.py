"""The README says what is so: its examples run and print what they say, its tables are complete."""

from __future__ import annotations

import inspect
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from loopback import Requests, serving
from redis_server import RedisServer

import opero as package
from opero import clear_cache, get_logger, opero, switches
from opero.caching import secret
from opero.figures import CacheInfo, Stats
from opero.testing import skip_waits

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
URL = "redis://localhost:6379/0"
"""What the examples call a Redis; in the tests it is another one."""
ELSEWHERE = ("on a cluster", "file: batch.py")
"""Marks of examples that have tests of their own; the cluster's is in test_dask.py."""
PRINTED = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        mark: What the comment before it says; empty without one.
        language: Behind the fence.
        text: What is in it.
        line: The line of its fence, counted from 1.
    """

    mark: str
    language: str
    text: str
    line: int


BLOCKS = [
    Block(
        found["mark"] or "",
        found["language"],
        found["text"],
        TEXT.count("\n", 0, found.start("text")),
    )
    for found in FENCE.finditer(TEXT)
]


def chains() -> list[list[Block]]:
    """The examples; one marked `continues` goes on where the one before it ended."""
    found: list[list[Block]] = []
    for block in BLOCKS:
        if block.mark in {"continues", "prints"}:
            found[-1].append(block)
        elif block.language == "python" and block.mark not in ELSEWHERE:
            found.append([block])
    return found


def examples() -> list[Any]:
    """The chains as parameters of a test; those that need a Redis are marked."""
    return [
        pytest.param(
            chain,
            id=f"line_{chain[0].line}",
            marks=[pytest.mark.redis] if chain[0].mark == "with redis" else [],
        )
        for chain in chains()
    ]


def marked(mark: str) -> Block:
    """The block with this mark."""
    [found] = [block for block in BLOCKS if block.mark == mark]
    return found


def table(heading: str) -> list[list[str]]:
    """The cells of the first table behind `heading`, without its head."""
    lines = TEXT.partition(heading)[2].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows[2:]


def quoted(cell: str) -> str:
    """What stands between backticks at the beginning of a cell."""
    found = re.match(r"`([^`]*)`", cell)
    assert found, cell
    return found[1]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[Requests]:
    """What the examples import under this name."""
    with serving() as (_, module):
        monkeypatch.setitem(sys.modules, "requests", module)
        yield module


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The opero logger, which afterwards is what it was."""
    found = get_logger()
    handlers, level = list(found.handlers), found.level
    yield found
    found.handlers[:] = handlers
    found.setLevel(level)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """Run a Redis for the examples that need one."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Give the examples a home of their own; return the environment that says so."""
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", secret.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("opero.limiting.machine.directory", lambda: tmp_path)
    return dict(os.environ)


@pytest.mark.parametrize("chain", examples())
def test_examples_run_and_print_what_they_say(
    chain: list[Block],
    request: pytest.FixtureRequest,
    at_home: dict[str, str],
    requests: Requests,
    logger: logging.Logger,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each example runs as it is printed, and prints what stands behind its `print` calls."""
    names: dict[str, Any] = {"__name__": "example"}
    expected = ""
    url = URL
    if chain[0].mark == "with redis":
        url = request.getfixturevalue("server").url
        assert URL in chain[0].text
    for block in chain:
        if block.language == "python":
            padding = "\n" * block.line  # so that a traceback names the README's own lines
            code = compile(
                padding + block.text.replace(URL, url), str(README), "exec", dont_inherit=True
            )
            with skip_waits():
                exec(code, names)
            expected += "".join(f"{line}\n" for line in PRINTED.findall(block.text))
        else:
            expected += block.text

    assert capsys.readouterr().out == expected

    for name, value in names.items():
        if name.startswith("test_"):
            value()


@pytest.mark.once
def test_examples_are_found() -> None:
    """There are many examples, and every fence has been understood."""
    assert len(chains()) > 10
    assert TEXT.count("\n```") == 2 * len(BLOCKS)
    assert {block.language for block in BLOCKS} == {"python", "sh", "text"}


@pytest.mark.once
def test_the_table_of_options_is_the_signature() -> None:
    """Names, order and defaults of the options in the table are those of `@opero`."""
    table_says = [(quoted(name), quoted(default)) for name, default, _ in table("## Options")]
    parameters = inspect.signature(opero).parameters.values()
    signature_says = [
        (parameter.name, "(Exception,)")
        if parameter.default == (Exception,)
        else (parameter.name, repr(parameter.default).replace("'", '"'))
        for parameter in parameters
        if parameter.kind is not parameter.VAR_KEYWORD
    ]

    assert table_says == signature_says
    assert all(meaning for _, _, meaning in table("## Options"))


@pytest.mark.once
def test_the_decorators_of_one_mechanism_take_the_options_in_their_table() -> None:
    """Each of the four takes its options, and none of the others that `@opero` has."""
    every = inspect.signature(opero).parameters
    given: dict[str, Any] = {
        name: parameter.default for name, parameter in every.items() if name != "kwargs"
    }
    needed = {"rate_limit": 5.0, "arg_fallback": "values"}
    rows = {quoted(name): re.findall(r"`(\w+)`", own) for name, own in table("Four decorators")}
    assert set(rows) == {name for name in package.__all__ if name.endswith("_decorator")}
    for name, cell in rows.items():
        make = getattr(package, name)
        own = {option for option in cell if option in given}
        required = {option: needed[option] for option in own & needed.keys()}
        assert {option for option in cell if option not in given} <= {"True"}
        for option in own:
            assert callable(make(**{option: given[option], **required}))
        for option in given.keys() - own:
            with pytest.raises(TypeError, match=option):
                make(**{option: given[option], **required})


@pytest.mark.once
def test_the_table_of_backends_options_is_what_each_of_them_reads() -> None:
    """The others are an error that names the option and the backend."""
    from opero.options import BACKENDS, STORED_OPTIONS, CacheConfig, check_cache

    rows = {quoted(name): readers for name, readers, _, _ in table("have\noptions of their own")}
    assert set(rows) == set(STORED_OPTIONS)
    values = {"cache_stale": 1, "cache_pickle": False, "cache_size_limit": 1}
    for option, readers in rows.items():
        given = {option.removeprefix("cache_"): values.get(option, "x")}
        for backend in BACKENDS:
            config = CacheConfig(True, ttl=1, backend=backend, backend_options=given)
            if backend in readers.split(", "):
                check_cache(config)
            else:
                with pytest.raises(ValueError, match=f"{option}.*{backend}"):
                    check_cache(config)


@pytest.mark.once
def test_the_defaults_of_the_backends_options_are_true() -> None:
    """As the table has them."""
    from opero.options import CacheConfig, check_cache

    defaults = {quoted(name): cell for name, _, cell, _ in table("have\noptions of their own")}
    disk = check_cache(CacheConfig(True, backend="disk"))
    redis = check_cache(CacheConfig(True, backend="redis"))
    assert defaults == {
        "cache_secret": f"`{disk.secret}`",
        "cache_stale": "`None`" if disk.stale == 0 else disk.stale,
        "cache_version": f'`"{disk.version}"`',
        "cache_pickle": f"`{disk.pickles}`",
        "cache_dir": f"`{disk.directory}`",
        "cache_size_limit": "1 GiB" if disk.size_limit == 2**30 else disk.size_limit,
        "cache_url": f'`"{redis.url}"`',
    }
    assert redis.url == URL


@pytest.mark.once
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the example ends itself by a signal")
def test_the_batch_that_is_killed_goes_on_where_it_was(
    tmp_path: Path, at_home: dict[str, str]
) -> None:
    """The script runs twice, as the text says, and computes nothing again that was handed on."""
    script = tmp_path / "batch.py"
    script.write_text(marked("file: batch.py").text, encoding="utf-8")
    first, second = (
        subprocess.run(
            [sys.executable, str(script)],
            env=at_home,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        for _ in range(2)
    )
    assert first.returncode == -signal.SIGKILL, first.stderr
    pattern = r"100 results: (\d+) were stored, (\d+) computed\n"
    found = re.fullmatch(pattern, second.stdout)
    assert found, second.stdout + second.stderr
    stored, computed = map(int, found.groups())
    assert stored >= 50
    assert stored + computed == 100
    assert re.search(pattern, TEXT)


@pytest.mark.once
@pytest.mark.redis
def test_a_user_of_redis_who_may_no_more_than_the_text_says_is_enough(
    at_home: dict[str, str],
) -> None:
    """A cache, a map and a limit never ask for what that user may not."""
    from opero import RateLimiter, opmap

    word, name, *rules = marked("acl").text.split()
    assert word == "user"
    with RedisServer() as server:
        server.command("ACL", "SETUSER", name, *rules)
        password = next(rule[1:] for rule in rules if rule.startswith(">"))
        url = f"redis://{name}:{password}@127.0.0.1:{server.port}/0"

        def same(item: int) -> int:
            return item

        stored: dict[str, Any] = {"cache_backend": "redis", "cache_url": url}
        stored["cache_namespace"] = "acl"
        call = opero(cache=True, cache_ttl=60, **stored)(same)
        items = opmap(mode="thread", progress=False, cache=True, **stored)(same)
        for _ in range(2):
            assert (call(1), items(range(3))) == (1, [0, 1, 2])
        assert (call.cache_info().currsize, call.cache_invalidate(1)) == (3, True)
        call.cache_clear()
        clear_cache("acl")
        assert (call.stats().store_failures, items.stats().store_failures) == (0, 0)
        limiter = RateLimiter(
            1000.0, burst=2, scope="redis", name="acl", url=url, windows=[(1000, 1.0)]
        )
        for _ in range(5):
            limiter.acquire_sync(2)
        limiter.pause(0.01)
        limiter.acquire_sync()
        assert server.command("ACL", "LOG") == []


def test_the_table_of_attributes_is_complete() -> None:
    """The decorated function has what its table says, and nothing public beside its figures."""

    @opero(cache=True)
    def function() -> None:
        """Has attributes."""

    rows = table("## What the decorated function offers")
    named = {re.sub(r"^f\.|\(.*", "", quoted(name)) for name, _ in rows}
    assert named == {"__wrapped__", "cache_info", "cache_clear", "cache_invalidate", "stats"}
    assert all(hasattr(function, name) for name in named)


@pytest.mark.once
def test_the_fields_of_the_figures_are_named() -> None:
    """`cache_info` and `stats` have the fields that the text names."""
    text = TEXT.partition("## What the decorated function offers")[2].partition("```")[0]
    info = next(line for line in text.splitlines() if line.startswith("| `f.cache_info"))
    stats = text.partition("`stats()` has the fields")[2]

    assert tuple(re.findall(r"`(\w+)`", info)) == CacheInfo._fields
    assert tuple(re.findall(r"`(\w+)`", stats)) == Stats._fields


@pytest.mark.once
def test_switches_are_the_real_ones() -> None:
    """The environment variables and build settings in the text exist, and none is left out."""
    assert set(re.findall(r"OPERO_[A-Z_]+", TEXT)) == {
        switches.BUILD,
        switches.REQUIRE_COMPILED,
        switches.PURE_PYTHON,
        secret.VARIABLE,
    }
    assert set(re.findall(r"-C (\w+)=(\w+)", TEXT)) == {
        (switches.SETTING, choice) for choice in switches.CHOICES
    }


@pytest.mark.once
def test_the_two_commands_are_marked() -> None:
    """The commands for the demo and the tests stand alone in blocks that a script can find."""
    commands = {block.mark: block for block in BLOCKS if block.mark.startswith("command: ")}

    assert set(commands) == {"command: demo", "command: test"}
    for block in commands.values():
        assert block.language == "sh"
        assert block.text.count("\n") == 1
    assert commands["command: demo"].text.endswith("-m opero demo\n")
    assert commands["command: test"].text.endswith("-m pytest -n auto\n")


@pytest.mark.once
def test_measured_figures_have_their_place() -> None:
    """A measured table goes between two markers, each on a line of its own."""
    for what in ("measured", "measured maps", "measured stores"):
        begin, end = f"\n<!-- {what}:begin -->\n", f"\n<!-- {what}:end -->\n"
        assert TEXT.count(begin) == TEXT.count(end) == 1
        assert TEXT.index(begin) < TEXT.index(end)


@pytest.mark.once
def test_links_within_the_page_lead_somewhere() -> None:
    """Every link to a heading has one."""
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    }

    assert set(re.findall(r"\]\(#([^)]*)\)", TEXT)) <= headings


@pytest.mark.once
@pytest.mark.checkout
def test_links_to_files_lead_somewhere() -> None:
    """Every file that the README points at is there."""
    files = re.findall(r"\]\(([^)#:]+)\)", TEXT)

    assert files
    assert [name for name in files if not (README.parent / name).is_file()] == []


@pytest.mark.once
def test_every_public_name_is_mentioned() -> None:
    """No public name is left for readers to find in the source."""
    assert [name for name in package.__all__ if name not in TEXT and name != "__version__"] == []


@pytest.mark.once
def test_the_times_that_a_failing_store_costs_are_those_of_the_code() -> None:
    """The table says them in words."""
    from opero.caching import clients, disk, leases, outages

    words = {0.5: "half a second", 1.0: "a second at most", 2.0: "two seconds", 5.0: "five seconds"}
    text = README.read_text(encoding="utf-8")
    section = text[text.index("### When the store fails") :].split("\n##")[0]
    for seconds in (disk.WAIT, disk.LONGEST, clients.LIMIT, outages.FIRST):
        assert words[seconds] in section, seconds
    assert outages.LAST == 10.0
    assert "ten seconds" in section
    assert leases.SECONDS == 5.0
