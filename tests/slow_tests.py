"""Leaves the slow tests out of a plain run, and says so.

A test marked `slow` endures, loads the machine, or builds. `pytest` alone leaves such tests out and
ends with a line that says how many; `pytest --everything` runs them with the others, and
`pytest -m slow` runs nothing else. A test named by its id, such as `tests/test_a.py::test_b`, runs.
"""

from __future__ import annotations

from typing import Any

import pytest

LEFT_OUT = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that runs every test."""
    parser.addoption(
        "--everything",
        action="store_true",
        help="run the tests marked slow too: those that endure, load the machine, or build",
    )


def pytest_report_header(config: pytest.Config) -> str:
    """Say whether the slow tests run."""
    if _wanted(config):
        return "opero slow tests: as chosen"
    return "opero slow tests: LEFT OUT of this run; pytest --everything runs them too"


def _wanted(config: pytest.Config) -> bool:
    """Return whether slow tests run if nothing else excludes them."""
    return config.getoption("everything") or "slow" in config.getoption("markexpr")


def _is_named(item: pytest.Item, config: pytest.Config) -> bool:
    """Return whether the command line names this test, and not only its file or folder."""
    name = item.nodeid.partition("::")[2]
    for word in config.args:
        path, _, wanted = word.partition("::")
        if (
            wanted
            and (name == wanted or name.startswith((f"{wanted}[", f"{wanted}::")))
            and (config.invocation_params.dir / path).resolve() == item.path
        ):
            return True
    return False


@pytest.hookimpl(trylast=True)  # what -k and -m leave out is not counted
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests."""
    if _wanted(config):
        slow = set[pytest.Item]()
    else:
        slow = {
            item
            for item in items
            if item.get_closest_marker("slow") and not _is_named(item, config)
        }
    config.stash[LEFT_OUT] = len(slow)
    if slow:
        config.hook.pytest_deselected(items=list(slow))
        items[:] = [item for item in items if item not in slow]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the controller of pytest-xdist, which collects nothing itself, how many are left out."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["slow"] = session.config.stash.get(LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the number from a worker; all of them collect the same tests."""
    output = getattr(node, "workeroutput", None)
    if output:
        node.config.stash[LEFT_OUT] = output["slow"]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say at the end how many tests are left out, and how to run them."""
    number = config.stash.get(LEFT_OUT, 0)
    if number:
        terminalreporter.write_line(
            f"opero: {number} slow tests were LEFT OUT; pytest --everything runs them too",
            yellow=True,
        )
