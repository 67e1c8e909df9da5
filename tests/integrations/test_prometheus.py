"""Prometheus: the real registry of prometheus_client, its text, and several processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from opero import hotpath, opero, roster
from opero.integrations import prometheus
from opero.testing import manual_clock, skip_waits


@pytest.fixture
def registry() -> CollectorRegistry:
    """Make a registry of its own."""
    return CollectorRegistry()


@pytest.fixture
def instrumented(registry: CollectorRegistry) -> Iterator[Callable[..., Any]]:
    """Let the registry have opero's metrics until the end of the test."""
    ends = []

    def begin(**options: Any) -> Callable[[], None]:
        ends.append(prometheus.instrument(registry, **options))
        return ends[-1]

    yield begin
    for end in ends:
        end()
    assert not roster.keeping
    assert not roster.tracing


def samples(text: str) -> dict[str, float]:
    """Return the samples of this module's functions by name and labels, as PromQL writes them."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            if __name__ in labels.get("code_function_name", ""):
                labels = {**labels, "code_function_name": "fetch"}
                inside = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
                found[f"{sample.name}{{{inside}}}"] = sample.value
    return found


def flaky(failures: int, **options: Any) -> Any:
    """Make a function that fails so often before it succeeds."""
    left = [failures]

    @opero(**options)
    def fetch(key: object = None) -> object:
        left[0] -= 1
        if left[0] >= 0:
            raise TimeoutError("a secret")
        return key

    return fetch


def test_a_scrape_has_the_figures_of_the_moment(
    core: hotpath.Core, registry: CollectorRegistry, instrumented: Any
) -> None:
    """In the text that a Prometheus reads."""
    instrumented()
    fetch = flaky(2, cache=True)
    with skip_waits():
        for _ in range(4):
            fetch("an argument")
    text = generate_latest(registry).decode()
    found = samples(text)
    assert found["opero_calls_total{code_function_name=fetch}"] == 4
    assert found["opero_cache_hits_total{code_function_name=fetch}"] == 3
    assert found["opero_retries_total{code_function_name=fetch}"] == 2
    assert found["opero_failures_total{code_function_name=fetch}"] == 0
    name = "opero_attempt_errors_total{code_function_name=fetch,error_type=TimeoutError}"
    assert found[name] == 2
    assert found["opero_backoff_wait_seconds_total{code_function_name=fetch}"] >= 0.2
    assert "a secret" not in text
    assert "an argument" not in text
    fetch("an argument")
    found = samples(generate_latest(registry).decode())
    assert found["opero_calls_total{code_function_name=fetch}"] == 5


def test_openmetrics_has_the_same(
    core: hotpath.Core, registry: CollectorRegistry, instrumented: Any
) -> None:
    """It is stricter about names and units."""
    instrumented(durations=True)
    flaky(0)()
    text = generate_openmetrics(registry).decode()
    assert text.endswith("# EOF\n")
    assert "opero_calls_total{" in text


def test_waits_and_durations_are_histograms_if_they_are_wanted(
    core: hotpath.Core, registry: CollectorRegistry, instrumented: Any
) -> None:
    """Of calls that were retried or had to wait."""
    instrumented(durations=True)
    fetch = flaky(1, rate_limit=1, min_delay=3, jitter=False)
    with manual_clock():
        fetch()
        fetch()
    found = samples(generate_latest(registry).decode())
    call = "opero_call_duration_seconds"
    where = "{code_function_name=fetch,error_type=}"
    assert found[f"{call}_count{where}"] == 2
    assert found[f"{call}_sum{where}"] == 4.0
    buckets = {
        float(name.partition("le=")[2].rstrip("}")): value
        for name, value in found.items()
        if name.startswith(f"{call}_bucket")
    }
    bounds = (*prometheus.BOUNDARIES, float("inf"))
    assert buckets == {bound: (bound >= 3) + (bound >= 1) for bound in bounds}
    permit = "opero_permit_duration_seconds_sum{code_function_name=fetch}"
    assert found[permit] == 1.0


def test_nothing_is_left_when_it_ends(
    core: hotpath.Core, registry: CollectorRegistry, instrumented: Any
) -> None:
    """It can be ended twice, and begun again."""
    end = instrumented(durations=True)
    with pytest.raises(ValueError, match="metrics already"):
        prometheus.instrument(registry)
    assert roster.keeping == 1
    end()
    end()
    assert generate_latest(registry) == b""
    assert not roster.keeping
    instrumented()
    assert b"opero_calls_total" in generate_latest(registry)


def test_scrapes_in_threads_while_functions_come_and_go(
    core: hotpath.Core, registry: CollectorRegistry, instrumented: Any
) -> None:
    """No scrape fails."""
    instrumented(durations=True)
    over = threading.Event()
    scraped = []

    def scrape() -> None:
        while not over.is_set():
            scraped.append(generate_latest(registry))

    threads = [threading.Thread(target=scrape) for _ in range(2)]
    for thread in threads:
        thread.start()
    with skip_waits():
        for _ in range(100):
            flaky(1)()
    over.set()
    for thread in threads:
        thread.join()
    found = samples(generate_latest(registry).decode())
    assert found["opero_calls_total{code_function_name=fetch}"] == 100


@pytest.mark.once
def test_an_interval_has_to_be_positive() -> None:
    """Else a thread would never rest."""
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="interval="):
            prometheus.instrument(interval=wrong)


# --- several processes ----------------------------------------------------------------------------

PROCESS = """
import os, sys, time
from opero import opero, roster
from opero.integrations import prometheus
from opero.testing import skip_waits

end = prometheus.instrument(interval=0.02, durations=True)
left = [2]

@opero(retries=3)
def fetch(key):
    left[0] -= 1
    if left[0] >= 0:
        raise TimeoutError
    return key

def call(times):
    with skip_waits():
        for key in range(times):
            fetch(key)

call(3)
"""

READ = """
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

registry = CollectorRegistry()
MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


def run(code: str, directory: Path) -> str:
    """Run a program in the multi-process mode of prometheus_client; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", code],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("attempt") == done.stderr.count("\n"), done.stderr
    return done.stdout


def values(text: str) -> dict[str, float]:
    """Return the samples by their names, added up."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


@pytest.mark.once
def test_several_processes_add_up(tmp_path: Path) -> None:
    """Each writes when it ends, and every few seconds before."""
    for _ in range(2):
        run(PROCESS, tmp_path)
    found = values(run(READ, tmp_path))
    assert found["opero_calls_total"] == 6
    assert found["opero_retries_total"] == 4
    assert found["opero_attempt_errors_total"] == 4
    assert found["opero_call_duration_seconds_count"] == 2


@pytest.mark.once
def test_a_process_writes_while_it_runs_and_until_it_is_ended(tmp_path: Path) -> None:
    """Another process sees it; afterwards there is no thread."""
    code = PROCESS + (
        "import threading\n"
        "time.sleep(0.3)\n"
        f"exec({READ!r})\n"
        "call(1); end(); end()\n"
        "assert threading.active_count() == 1 and not roster.keeping\n"
        "call(1)\n"
        f"exec({READ!r})\n"
    )
    first, _, second = run(code, tmp_path).partition("\n\n")
    assert values(first)["opero_calls_total"] == 3
    assert values(second)["opero_calls_total"] == 4


@pytest.mark.once
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_process_adds_only_its_own(tmp_path: Path) -> None:
    """It goes on with a thread of its own; what the parent counted before the fork is the parent's."""
    code = PROCESS + (
        "child = os.fork()\n"
        "call(4)\n"
        "if not child:\n"
        "    time.sleep(0.2); call(1); end(); os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    run(code, tmp_path)
    found = values(run(READ, tmp_path))
    assert found["opero_calls_total"] == 3 + 4 + 4 + 1


@pytest.mark.once
def test_what_is_written_is_not_written_again(tmp_path: Path) -> None:
    """Switched off and on, it goes on where it was; two at once would write over each other."""
    code = PROCESS + (
        "end(); end = prometheus.instrument(interval=60)\n"
        "try:\n"
        "    prometheus.instrument()\n"
        "except ValueError as error:\n"
        "    assert 'already' in str(error)\n"
        "else:\n"
        "    raise AssertionError\n"
        "left[0] = 1; call(2); end()\n"
        "end = prometheus.instrument(interval=60); end()\n"
    )
    run(code, tmp_path)
    found = values(run(READ, tmp_path))
    assert found["opero_calls_total"] == 3 + 2
    assert found["opero_retries_total"] == 2 + 1
    assert found["opero_attempt_errors_total"] == 2 + 1


@pytest.mark.once
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_children_of_multiprocessing_write_at_their_end(tmp_path: Path) -> None:
    """They run no `atexit`, and may be over before the interval is."""
    code = PROCESS.replace("0.02", "60") + (
        "import multiprocessing\n"
        "context = multiprocessing.get_context('fork')\n"
        "children = [context.Process(target=call, args=(2,)) for _ in range(2)]\n"
        "for child in children: child.start()\n"
        "for child in children: child.join()\n"
        "assert [child.exitcode for child in children] == [0, 0]\n"
        "end()\n"
        "child = context.Process(target=call, args=(2,))\n"
        "child.start(); child.join()\n"
    )
    run(code, tmp_path)
    assert values(run(READ, tmp_path))["opero_calls_total"] == 3 + 2 * 2
