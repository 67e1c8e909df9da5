"""Every example of the documentation runs, and prints what it says; `documents.py` says how."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from documents import (
    README,
    REDIS,
    Block,
    anchors,
    blocks,
    blocks_in,
    chains,
    file_of,
    links,
    marked,
    name_of,
    pages,
    text_of,
)
from loopback import Requests, serving
from redis_server import RedisServer

from opero import clear_cache, get_logger, opero
from opero.stores import secret
from opero.testing import skip_waits

PRINTED = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)


def examples() -> list[Any]:
    """The chains of all pages as parameters of a test; those that need a Redis are marked."""
    return [
        pytest.param(
            chain,
            id=f"{name_of(path)}:{chain[0].line}",
            marks=[pytest.mark.redis] if chain[0].mark == "with redis" else [],
        )
        for path in pages()
        for chain in chains(blocks(path))
    ]


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
    for name in ("OPERO_REQUIRE_COMPILED", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", secret.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("opero.limits.shared_place.directory", lambda: tmp_path)
    return dict(os.environ)


@pytest.fixture(autouse=True)
def modules_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the modules that an example has written and imported, and their folder."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = set(sys.modules)
    installed = (sys.prefix, str(Path(secret.__file__).parents[2]))  # may be temporary too
    yield
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(tempfile.gettempdir()) and not file.startswith(installed):
            del sys.modules[name]


def run(chain: list[Block], names: dict[str, Any], url: str) -> str:
    """Run the blocks of an example; return what they have to print."""
    expected = ""
    for block in chain:
        if block.language == "python":
            padding = "\n" * block.line  # so that a traceback names the page's own lines
            code = compile(
                padding + block.text.replace(REDIS, url), str(block.path), "exec", dont_inherit=True
            )
            with skip_waits():
                exec(code, names)
            expected += "".join(f"{line}\n" for line in PRINTED.findall(block.text))
        else:
            expected += block.text
    return expected


@pytest.mark.parametrize("chain", examples())
def test_examples_run_and_print_what_they_say(
    chain: list[Block],
    request: pytest.FixtureRequest,
    at_home: dict[str, str],
    requests: Requests,
    logger: logging.Logger,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each example runs as it is printed, and prints what the comments on its `print` calls say."""
    names: dict[str, Any] = {"__name__": "example", "__file__": str(chain[0].path)}
    url = REDIS
    if chain[0].mark == "with redis":
        url = request.getfixturevalue("server").url
        assert REDIS in chain[0].text
    else:
        assert not any(REDIS in block.text for block in chain), "it lacks the mark `with redis`"

    expected = run(chain, names, url)
    assert capsys.readouterr().out == expected

    for name, value in names.items():
        if name.startswith("test_"):
            result = value()
            if inspect.iscoroutine(result):
                asyncio.run(result)


@pytest.mark.once
def test_every_python_block_of_every_page_is_run_by_some_test() -> None:
    """It is part of an example, or has the mark of one that has a test of its own."""
    written = [block for path in pages() for block in blocks(path) if block.language == "python"]
    run_here = [
        block
        for path in pages()
        for chain in chains(blocks(path))
        for block in chain
        if block.language == "python"
    ]
    elsewhere = [block for block in written if block.elsewhere]

    assert len(run_here) > 30
    assert sorted(map(hash, written)) == sorted(map(hash, [*run_here, *elsewhere]))
    assert {block.mark.partition(":")[0] for block in elsewhere} <= {
        *("before", "after"),  # test_migration.py
        "on a cluster",  # test_dask.py
        "file",  # below
        "opero 2",  # test_opero_2.py
        *("script", "today"),  # test_why.py
        "from",  # examples/test_recipes.py
    }
    files = {block.mark for block in elsewhere if block.mark.startswith("file: ")}
    assert files == {"file: batch.py"}


@pytest.mark.once
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```py\nprint(1)\n```\n", "language 'py'"),
        ("```\nprint(1)\n```\n", "language ''"),
        ("```pycon\n>>> 1\n```\n", "language 'pycon'"),
        ("- so:\n\n    ```python\n    print(1)\n    ```\n", "indented, quoted"),
        ("> ```python\n> print(1)\n> ```\n", "indented, quoted"),
        ("~~~python\nprint(1)\n~~~\n", "indented, quoted"),
        ("```python title='x'\nprint(1)\n```\n", "indented, quoted"),
        ("```python\nprint(1)\n", "indented, quoted"),
        ("<!-- not run -->\n```python\nprint(1)\n```\n", "mark 'not run'"),
        ('```python\nif __name__ == "__main__":\n    print(1)\n```\n', "a script"),
        ("<!-- continues -->\n```python\nprint(1)\n```\n", "goes on from nothing"),
    ],
)
def test_a_page_with_python_that_no_test_runs_is_red(text: str, complaint: str) -> None:
    """However it is hidden: by another name, another fence, an indent, a mark that nobody knows."""
    with pytest.raises(AssertionError, match=re.escape(complaint)):
        chains(blocks_in(Path("page.md"), text))


@pytest.mark.once
def test_the_example_of_a_wrong_claim_is_red(capsys: pytest.CaptureFixture[str]) -> None:
    """What a page says that is printed is compared with what is."""
    [chain] = chains(blocks_in(README, "```python\nprint(1 + 1)  # 3\n```\n"))
    expected = run(chain, {}, REDIS)
    assert (expected, capsys.readouterr().out) == ("3\n", "2\n")


@pytest.mark.once
@pytest.mark.checkout
def test_links_between_files_lead_to_files_and_headings_that_exist() -> None:
    """In the README, which no site checks, and on every page, as they are read in the repository."""
    broken = []
    for path in pages():
        for target in links(text_of(name_of(path))):
            file, _, anchor = target.partition("#")
            goal = (path.parent / file).resolve() if file else path
            if not goal.is_file():
                broken.append(f"{name_of(path)}: {target}")
            elif anchor and goal.suffix == ".md":
                page = file_of(text_of(name_of(goal))) or name_of(goal)
                if anchor not in anchors(text_of(page)):
                    broken.append(f"{name_of(path)}: {target}")
    assert broken == []


@pytest.mark.once
@pytest.mark.checkout
def test_code_fits_on_a_screen() -> None:
    """Without scrolling sideways: 100 columns at most."""
    wide = [
        f"{name_of(path)}: {line}"
        for path in pages()
        for block in blocks(path)
        if block.language in ("python", "sh", "toml", "yaml")
        for line in block.text.splitlines()
        if len(line) > 100
    ]
    assert wide == []


@pytest.mark.once
@pytest.mark.checkout
def test_the_head_of_every_table_is_as_wide_as_the_line_below_it() -> None:
    """A script that writes tables can put the head of one above another."""
    wrong = []
    for page in pages():
        lines = text_of(name_of(page)).splitlines()
        for head, line in pairwise(lines):
            if re.fullmatch(r"\|(:?-+:?\|)+", line) and head.count(" | ") + 2 != line.count("|"):
                wrong.append(f"{name_of(page)}: {head}")
    assert wrong == []


@pytest.mark.once
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the example ends itself by a signal")
def test_the_batch_that_is_killed_goes_on_where_it_was(
    tmp_path: Path, at_home: dict[str, str]
) -> None:
    """The script runs twice, as the text says, and computes nothing again that was handed on."""
    block = marked("file: batch.py")
    script = tmp_path / "batch.py"
    script.write_text(block.text, encoding="utf-8")
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
    assert re.search(pattern, text_of(name_of(block.path)))


class TooMany(Exception):
    """What a server says that is asked too often."""

    retry_after = 0.01


@pytest.mark.once
@pytest.mark.redis
def test_a_user_of_redis_who_may_no_more_than_the_text_says_is_enough(
    at_home: dict[str, str],
) -> None:
    """A cache, a map, limits and a breaker never ask for what that user may not."""
    from opero import Breaker, RateLimiter, opmap

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
        adaptive = RateLimiter(1000.0, adaptive=True, scope="redis", name="acl", url=url)
        with pytest.raises(TooMany), adaptive:
            raise TooMany
        adaptive.acquire_sync()
        breaker = Breaker("acl", minimum=1, open_for=0.05, scope="redis", url=url)
        answers = iter([OSError("down"), OSError("down"), 1, 1])

        @opero(retries=1, timeout=60, breaker=breaker)
        def guarded() -> int:
            answer = next(answers)
            if isinstance(answer, OSError):
                raise answer
            return answer

        for _ in range(2):  # the second one is a probe
            with pytest.raises(OSError, match="down"):
                guarded()
            while breaker.state == "closed":  # the server is asked beside the attempts
                time.sleep(0.001)
        assert (guarded(), guarded(), breaker.state) == (1, 1, "closed")
        breaker.trip()
        breaker.reset()
        assert breaker.state == "closed"
        assert server.command("ACL", "LOG") == []
