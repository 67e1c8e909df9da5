"""How the workers of pytest-xdist share the tests, where `-n` asks for workers.

- `-n auto` starts two for each processor, because many tests wait; it starts no more than eight
  because of that.
- Each worker takes a row of neighbours, so a file's server starts once or twice, not in every worker.
  A worker that has finished takes tests from one that has not.
- Each worker begins to collect with another file. Pytest compiles a file of tests when it is
  collected for the first time, so in a fresh checkout each worker compiles a part of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

MOST = 8
"""Where two workers for each processor would be more than this, there is one for each."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Return how many workers `-n auto` starts, unless the environment says it."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    affinity = getattr(os, "sched_getaffinity", None)
    processors = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(processors, min(2 * processors, MOST))


def pytest_configure(config: pytest.Config) -> None:
    """Let workers take tests from each other, if the command line does not choose another way."""
    if getattr(config.option, "dist", None) == "load":
        config.option.dist = "worksteal"


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Iterator[None]:
    """Begin each folder elsewhere in each worker."""
    report: Any = yield
    worker = getattr(collector.config, "workerinput", None)
    if worker and report.result and isinstance(collector, pytest.Directory):
        begin = len(report.result) * int(worker["workerid"][2:]) // worker["workercount"]
        report.result[:] = [*report.result[begin:], *report.result[:begin]]
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests into one order: all workers must have the same."""
    items.sort(key=lambda item: item.path)
