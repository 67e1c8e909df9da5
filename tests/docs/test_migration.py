"""The pages on migration say what is so: before and after do the same, and no option is missing.

A page holds pairs of blocks, marked `<!-- before: NAME -->` and `<!-- after: NAME -->`. Both print
what comes of the same work, once done by the peer and once by opero; what they print is compared.
That each block prints what the comments on its `print` calls say is the business of the test that runs
every example of the documentation.

A page says which release of the peer it was checked against. A newer one that is installed is a warning
in the summary of the tests, not a failure, so that a release does not turn an old commit red: then
read what has changed in it, bring the page up to date, and change its line.
"""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import aiolimiter
import backoff
import cachetools.func
import joblib
import pybreaker
import pytest
import stamina
import tenacity
from documents import SINCE

import opero as opero_package
from opero import opero, opmap
from opero.options import read_by
from opero.stores import secret
from opero.testing import skip_waits

FOLDER = Path(__file__).parents[2] / "docs" / "migration"
PAIR = re.compile(
    r"^<!-- (?P<role>before|after): (?P<name>[^\n]+) -->\n```python\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
CHECKED = re.compile(
    r"^Checked against (?P<name>[\w-]+) (?P<first>[\d.]+\d)(?: to (?P<last>[\d.]+\d))?[.,]",
    re.MULTILINE,
)
MARK = re.compile(r"^<!--\s*(?:before|after)\b", re.MULTILINE)
GUARD = 'if __name__ == "__main__":'
"""A block that has this line is a script, and is run as one."""


@dataclass(frozen=True)
class Peer:
    """What a page is about.

    Attributes:
        module: What its `before` blocks import.
        entries: Its entry points, whose parameters the page names.
        names: Further names that the page has something to say about.
        distribution: What it is installed as; empty if it is a part of Python.
    """

    module: str
    entries: tuple[Callable[..., Any], ...]
    names: tuple[str, ...] = field(default=())
    distribution: str = ""


def exported(module: Any, pattern: str) -> tuple[str, ...]:
    """The public names of a module that match a pattern."""
    return tuple(name for name in module.__all__ if re.match(pattern, name))


def pyarallel_peer() -> Peer:
    """What is known of pyarallel on this Python, which may be too old for it."""
    if sys.version_info < SINCE["pyarallel"]:
        return Peer("pyarallel", (), (), "pyarallel")
    import pyarallel

    entries = (
        *(pyarallel.parallel_map, pyarallel.parallel_starmap, pyarallel.parallel_iter),
        *(pyarallel.async_parallel_map, pyarallel.async_parallel_starmap),
        *(pyarallel.async_parallel_iter, pyarallel.parallel, pyarallel.async_parallel),
        *(pyarallel.Retry, pyarallel.Retry.for_http, pyarallel.RateLimit),
    )
    methods = (
        name
        for kind in (pyarallel.ParallelResult, pyarallel.Limiter)
        for name in vars(kind)
        if not name.startswith("_")
    )
    return Peer("pyarallel", entries, (*pyarallel.__all__, *methods), "pyarallel")


PEERS = {
    "tenacity": Peer(
        "tenacity",
        (tenacity.BaseRetrying.__init__,),
        exported(tenacity, "(stop|wait|retry)_(?!base)|TryAgain|(Async)?Retrying$"),
        "tenacity",
    ),
    "stamina": Peer(
        "stamina", (stamina.retry, stamina.set_testing), tuple(stamina.__all__), "stamina"
    ),
    "backoff": Peer(
        "backoff",
        (backoff.on_exception, backoff.on_predicate),
        tuple(backoff.__all__),
        "python-backoff",
    ),
    "cachetools": Peer(
        "cachetools",
        (
            cachetools.cached,
            cachetools.cachedmethod,
            cachetools.func.ttl_cache,
            cachetools.TTLCache,
        ),
        (*exported(cachetools, ".*Cache$"), *cachetools.func.__all__, *cachetools.keys.__all__),
        "cachetools",
    ),
    "lru_cache": Peer(
        "functools",
        (),  # `functools.lru_cache` tells its signature from Python 3.13 on only
        ("maxsize", "typed", "cache", "cache_info", "cache_clear", "cache_parameters"),
    ),
    "joblib": Peer(
        "joblib",
        (joblib.Parallel.__init__, joblib.Memory.__init__, joblib.Memory.cache),
        (
            "call_and_shelve",
            "check_call_in_cache",
            "clear",
            "reduce_size",
            "eval",
            "parallel_config",
        ),
        "joblib",
    ),
    "pyarallel": pyarallel_peer(),
    "aiolimiter": Peer(
        "aiolimiter",
        (
            aiolimiter.AsyncLimiter,
            aiolimiter.AsyncLimiter.acquire,
            aiolimiter.AsyncLimiter.has_capacity,
        ),
        (*aiolimiter.__all__, "acquire", "has_capacity"),
        "aiolimiter",
    ),
    "pybreaker": Peer(
        "pybreaker",
        (pybreaker.CircuitBreaker,),
        (
            *pybreaker.__all__,
            *(name for name in vars(pybreaker.CircuitBreaker) if not name.startswith("_")),
            *(name for name in vars(pybreaker.CircuitBreakerListener) if not name.startswith("_")),
        ),
        "pybreaker",
    ),
    "concurrent_futures": Peer(
        "concurrent.futures",
        (),  # what they take grows with each Python
        (
            *("max_workers", "thread_name_prefix", "initializer", "initargs", "mp_context"),
            *("max_tasks_per_child", "submit", "map", "timeout", "chunksize", "buffersize"),
            *("as_completed", "wait", "shutdown", "cancel", "add_done_callback"),
        ),
    ),
}
"""The pages, by their names."""


PRINTED: dict[tuple[str, str], str] = {}
"""What the peers have printed, by page and pair: once for both halves of opero."""


@dataclass(frozen=True)
class Block:
    """One half of a pair.

    Attributes:
        text: The code.
        line: The line of its fence, counted from 1.
    """

    text: str
    line: int


def text_of(page: str) -> str:
    return (FOLDER / f"{page}.md").read_text(encoding="utf-8")


def pairs(page: str) -> dict[str, dict[str, Block]]:
    """The pairs of a page by name; each has its halves by role."""
    text = text_of(page)
    found: dict[str, dict[str, Block]] = {}
    for match in PAIR.finditer(text):
        halves = found.setdefault(match["name"], {})
        assert match["role"] not in halves, f"{page}: {match['role']} twice: {match['name']}"
        halves[match["role"]] = Block(match["text"], text.count("\n", 0, match.start("text")))
    return found


def rows(page: str) -> list[list[str]]:
    """The rows of the tables on options: theirs, ours, a remark."""
    lines = [line for line in text_of(page).splitlines() if line.startswith("| `")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return [[cell.strip() for cell in row] for row in cells]


UNKNOWN: Any = object()


def literal(value: str) -> Any:
    """The value that an option has in a table, if it is one and no name."""
    try:
        return ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return UNKNOWN


def checked(page: str) -> re.Match[str]:
    """What the page says that it was checked against."""
    [found] = CHECKED.finditer(text_of(page))
    return found


def minor(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))


def newer(page: str) -> str:
    """The release that is installed, if it is a newer minor one than the page was checked against."""
    distribution = PEERS[page].distribution
    try:
        installed = metadata.version(distribution) if distribution else ""
    except (
        metadata.PackageNotFoundError
    ):  # this Python is too old for it, or an older fork is there
        return ""
    return installed if installed and minor(installed) > minor(checked(page)["first"]) else ""


def imports(text: str) -> set[str]:
    """The modules that a block imports from."""
    return set(re.findall(r"^(?:from|import) ([\w.]+)", text, re.MULTILINE))


def of(module: str, found: set[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for name in found)


def printed(page: str, block: Block, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a block in a namespace of its own, or in a process of its own, and return what it prints."""
    if GUARD in block.text:
        return as_script(block.text)
    padding = "\n" * block.line  # so that a traceback names the page's own lines
    code = compile(padding + block.text, str(FOLDER / f"{page}.md"), "exec", dont_inherit=True)
    with skip_waits():
        exec(code, {"__name__": "example", "__file__": f"{page}.py"})
    return capsys.readouterr().out


def as_script(text: str) -> str:
    script = Path.home() / "script.py"
    script.write_text(text, encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True
    ).stdout


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the blocks a home of their own, for caches and the key they are signed with."""
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", secret.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("page", "name"), [(page, name) for page in PEERS for name in sorted(pairs(page))]
)
def test_before_and_after_print_the_same(
    page: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The work that is moved to opero comes out as it did before."""
    halves = pairs(page)[name]
    if sys.version_info < SINCE.get(PEERS[page].module, (3,)):
        pytest.skip("this Python is too old for the library")
    if (page, name) not in PRINTED:
        PRINTED[page, name] = printed(page, halves["before"], capsys)
    assert PRINTED[page, name].strip()
    assert printed(page, halves["after"], capsys) == PRINTED[page, name]


@pytest.mark.once
@pytest.mark.parametrize("page", PEERS)
def test_every_page_has_pairs_and_each_has_both_halves(page: str) -> None:
    """A page without them, or with one half of a pair, promises what nobody has checked."""
    found = pairs(page)
    assert len(found) >= 3
    for name, halves in found.items():
        assert set(halves) == {"before", "after"}, name
        assert of(PEERS[page].module, imports(halves["before"].text)), name
        assert not of("opero", imports(halves["before"].text)), name
        assert of("opero", imports(halves["after"].text)), name
        assert not of(PEERS[page].module, imports(halves["after"].text)) or page == "lru_cache", (
            name
        )
    marks = len(MARK.findall(text_of(page)))
    assert marks == 2 * len(found), "a mark is not understood"


@pytest.mark.once
@pytest.mark.filterwarnings("always:docs/migration")
@pytest.mark.parametrize("page", [page for page in PEERS if PEERS[page].distribution])
def test_a_page_says_which_release_it_was_checked_against(page: str) -> None:
    """A newer one is a warning."""
    said = checked(page)
    assert (said["name"], said["last"]) == (PEERS[page].distribution, None)
    if installed := newer(page):
        warnings.warn(
            f"docs/migration/{page}.md was checked against {said['first']}, and {installed} is out",
            stacklevel=1,
        )


@pytest.mark.once
@pytest.mark.parametrize("page", [page for page in PEERS if not PEERS[page].distribution])
def test_a_page_on_python_itself_was_checked_on_those_that_opero_supports(page: str) -> None:
    """As its metadata names them."""
    classifiers = metadata.metadata("opero").get_all("Classifier") or []
    versions = [each.rpartition(" ")[2] for each in classifiers if re.search(r":: 3\.\d+$", each)]
    said = checked(page)
    assert (said["name"], said["first"], said["last"]) == ("Python", versions[0], versions[-1])


@pytest.mark.once
@pytest.mark.filterwarnings("always:docs/migration")
@pytest.mark.parametrize("page", PEERS)
def test_every_option_of_a_peer_has_its_line(page: str) -> None:
    """Each page's table has all options of the peer that is installed, with what becomes of it."""
    peer = PEERS[page]
    told = {word for row in rows(page) for word in re.findall(r"\w+", row[0])}
    options = {
        parameter.name
        for entry in peer.entries
        for parameter in inspect.signature(entry).parameters.values()
        if parameter.name != "self" and parameter.kind is not parameter.VAR_KEYWORD
    }
    missing = (options | set(peer.names)) - told
    if missing and (installed := newer(page)):
        warnings.warn(f"docs/migration/{page}.md lacks {missing} of {installed}", stacklevel=1)
    else:
        assert missing == set()
    assert all(counterpart or remark for _, counterpart, remark in rows(page))


@pytest.mark.once
@pytest.mark.parametrize("page", PEERS)
def test_the_options_in_place_of_theirs_are_allowed(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in the middle column, with its value, can be given to `@opero` or to `@opmap`."""
    monkeypatch.chdir(tmp_path)
    stored = {option.name for option in read_by("opero") if option.backends}
    ours, of_maps = ({*inspect.signature(each).parameters} for each in (opero, opmap))
    tried = 0
    for _, counterpart, _ in rows(page):
        found = dict(re.findall(r"`(\w+)=([^`]*)`", counterpart))
        assert found.keys() <= ours | of_maps | stored
        given = {name: literal(value) for name, value in found.items()}
        given = {name: value for name, value in given.items() if value is not UNKNOWN}
        if "executor" not in found and "cache_backend" not in found.keys() - given.keys():
            decorator = opero if given.keys() <= ours | stored else opmap
            if any(name.startswith("cache_") for name in given):
                given["cache"] = True
            assert callable(decorator(**given))
            tried += bool(given)
    assert tried


@pytest.mark.once
def test_the_index_leads_to_every_page() -> None:
    """And there is no page that the tests do not know."""
    files = {path.stem for path in FOLDER.glob("*.md")}
    assert files == {"index", "opero-2", *PEERS}
    index = text_of("index")
    assert {name for name in PEERS if f"({name}.md)" in index} == set(PEERS)


@pytest.mark.once
def test_what_the_index_says_to_write_is_allowed() -> None:
    """Its table has a line for libraries without a page, too."""
    written = re.findall(r"`@?((?:opero|opmap|get_\w+|RateLimiter)\([^`]*\))` \|", text_of("index"))
    assert len(written) >= 10
    names = {name: getattr(opero_package, name) for name in opero_package.__all__}
    for expression in written:
        assert eval(expression, dict(names)) is not None, expression


@pytest.mark.once
@pytest.mark.parametrize("page", PEERS)
def test_every_page_says_when_not_to_move(page: str) -> None:
    """An honest page has both."""
    headings = re.findall(r"^## (.*)$", text_of(page), re.MULTILINE)
    assert headings[:2] == ["When to move", "When to stay"]
    assert "Differences that may bite" in headings
