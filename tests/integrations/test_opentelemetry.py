"""OpenTelemetry: the real SDK, with exporters in memory."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
from opentelemetry import context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from opero import (
    AllFailedError,
    Breaker,
    DeadlineExceeded,
    events,
    hotpath,
    opero,
    opmap,
    roster,
)
from opero.integrations import opentelemetry
from opero.integrations.measures import METRICS
from opero.testing import skip_waits

MODES = ["thread", "process", "async", "async_process", "executor"]


class Telemetry(NamedTuple):
    """What opero has given to the SDK."""

    tracers: TracerProvider
    meters: MeterProvider
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    def spans(self) -> list[ReadableSpan]:
        """Return the spans that are over, but for those of the test."""
        return [span for span in self.exporter.get_finished_spans() if span.name != "caller"]

    def instrument(self, **options: Any) -> Any:
        """Switch it on."""
        return opentelemetry.instrument(
            tracer_provider=self.tracers, meter_provider=self.meters, **options
        )

    def points(self) -> dict[str, dict[str, Any]]:
        """Return the values of each metric, by the values of its attributes."""
        data = self.reader.get_metrics_data()
        found: dict[str, dict[str, Any]] = {}
        for resource in [] if data is None else data.resource_metrics:
            for scope in resource.scope_metrics:
                assert scope.scope.name == "opero"
                for metric in scope.metrics:
                    values = found.setdefault(metric.name, {})
                    for point in metric.data.data_points:
                        name = point.attributes.get("code.function.name", __name__)
                        if __name__ in name:
                            labels = [text.rpartition(".")[2] for text in point.attributes.values()]
                            values[" ".join(labels)] = point
        return found


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Make providers of its own for a test."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader], shutdown_on_exit=False)
    yield Telemetry(tracers, meters, exporter, reader)
    tracers.shutdown()
    meters.shutdown()


@pytest.fixture
def on(telemetry: Telemetry) -> Iterator[Telemetry]:
    """Switch it on for a test."""
    end = telemetry.instrument()
    yield telemetry
    end()
    assert events._listeners == {}
    assert not roster.keeping
    assert not roster.tracing


def test_who_switches_on_twice_gets_each_span_once(
    core: hotpath.Core, telemetry: Telemetry
) -> None:
    """Until the last has ended it; another tracer provider gets spans of its own."""
    exporter = InMemorySpanExporter()
    other = TracerProvider(shutdown_on_exit=False)
    other.add_span_processor(SimpleSpanProcessor(exporter))
    first, second = telemetry.instrument(), telemetry.instrument()
    third = opentelemetry.instrument(tracer_provider=other, metrics=False)
    attempts = itertools.count()

    @opero(retries=2, min_delay=0)
    def fetch() -> None:
        if next(attempts) % 2 == 0:
            raise OSError

    fetch()
    assert len(telemetry.spans()) == len(exporter.get_finished_spans()) == 1
    (duration,) = telemetry.points()["opero.call.duration"].values()
    assert duration.count == 1
    first()
    first()
    fetch()
    assert len(telemetry.spans()) == 2
    second()
    fetch()
    assert len(telemetry.spans()) == 2
    third()
    assert events._listeners == {}
    other.shutdown()


def flaky(*errors: BaseException, **options: Any) -> Any:
    """Make a function that raises these one after the other, and then returns."""
    left = list(errors)

    @opero(**options)
    def fetch(key: object = None) -> object:
        if left:
            raise left.pop(0)
        return key

    return fetch


def names(span: ReadableSpan) -> list[str]:
    """Return the names of a span's events."""
    return [event.name for event in span.events]


def test_a_call_that_was_retried_is_a_span(core: hotpath.Core, on: Telemetry) -> None:
    """A child of the caller's span, as long as the call, with an event for each attempt."""
    fetch = flaky(TimeoutError("a secret"), ConnectionError(), min_delay=0.02, jitter=False)
    tracer = on.tracers.get_tracer("test")
    with tracer.start_as_current_span("caller") as caller:
        before = time.time_ns()
        fetch("an argument")
        after = time.time_ns()
    (span,) = on.spans()
    assert span.name.endswith("fetch")
    assert span.parent is not None
    assert span.parent.span_id == caller.get_span_context().span_id
    assert span.start_time is not None
    assert span.end_time is not None
    assert before - 10_000_000 <= span.start_time
    assert span.end_time <= after + 10_000_000
    assert span.end_time - span.start_time >= 50_000_000
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes is not None
    assert span.attributes["code.function.name"] == f"{__name__}.{span.name}"
    assert span.attributes["opero.attempts"] == 3
    waited = span.attributes["opero.backoff.wait"]
    assert isinstance(waited, float)
    assert 0.05 <= waited <= (span.end_time - span.start_time) / 1e9
    assert names(span) == ["opero.attempt"] * 3
    told = [dict(event.attributes or {}) for event in span.events]
    assert [each["opero.attempt.number"] for each in told] == [1, 2, 3]
    errors = ["TimeoutError", "ConnectionError", None]
    assert [each.get("error.type") for each in told] == errors
    times = [event.timestamp for event in span.events]
    assert times == sorted(times)
    assert span.start_time <= times[0]
    assert times[-1] <= span.end_time
    assert "a secret" not in span.to_json()
    assert "an argument" not in span.to_json()


def test_a_call_that_fails_for_good_is_an_error(core: hotpath.Core, on: Telemetry) -> None:
    """Its status says so, and its type."""
    with skip_waits(), pytest.raises(AllFailedError):
        flaky(*[TimeoutError("a secret")] * 9)()
    (span,) = on.spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is None
    assert span.attributes is not None
    assert span.attributes["error.type"] == "opero.exceptions.AllFailedError"


def test_a_call_that_waited_for_a_permit_is_a_span(core: hotpath.Core, on: Telemetry) -> None:
    """The first, which did not, is none."""
    fetch = flaky(rate_limit=0.5)
    with skip_waits():
        fetch()
        assert on.spans() == []
        fetch()
    (span,) = on.spans()
    assert span.attributes is not None
    assert span.attributes["opero.permit.wait"] == pytest.approx(2, abs=0.1)
    assert names(span) == ["opero.attempt"]


def test_calls_that_succeed_at_once_are_no_spans(core: hotpath.Core, on: Telemetry) -> None:
    """Nor hits."""
    for options in ({}, {"cache": True}, {"rate_limit": 1e9}):
        fetch = flaky(**options)
        fetch()
        fetch()
    assert on.spans() == []


@pytest.mark.parametrize("options", [{}, {"cache": True}, {"timeout": 60}], ids=str)
def test_awaited_calls_are_children_of_their_own_callers(
    core: hotpath.Core, on: Telemetry, options: dict[str, Any]
) -> None:
    """Though they run at the same time, some in a task of their own."""
    tracer = on.tracers.get_tracer("test")
    failed: set[int] = set()

    @opero(min_delay=0.001, **options)
    async def fetch(key: int) -> int:
        await asyncio.sleep(0)
        if key not in failed:
            failed.add(key)
            raise TimeoutError
        return key

    async def one(key: int) -> tuple[int, int]:
        with tracer.start_as_current_span("caller") as caller:
            await fetch(key)
            return caller.get_span_context().span_id, caller.get_span_context().trace_id

    async def main() -> list[tuple[int, int]]:
        return await asyncio.gather(*[one(key) for key in range(5)])

    callers = asyncio.run(main())
    spans = on.spans()
    assert sorted((span.parent.span_id, span.context.trace_id) for span in spans) == sorted(callers)  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", MODES)
def test_a_map_is_a_span_and_so_is_each_item_that_was_retried(
    core: hotpath.Core, on: Telemetry, mode: str
) -> None:
    """Both are children of the span in which the map was called."""
    pool = ThreadPoolExecutor(2) if mode == "executor" else None

    def work(item: int) -> int:
        return 1 // item

    async def awaited(item: int) -> int:
        return 1 // item

    options: dict[str, Any] = {"executor": pool} if pool else {"mode": mode, "workers": 2}
    mapped: Any = opmap(retries=2, min_delay=0.001, **options)(awaited if "async" in mode else work)
    with on.tracers.get_tracer("test").start_as_current_span("caller") as caller:
        mapped([1, 0, 2])
    if pool:
        pool.shutdown()
    item, whole = on.spans()
    for span in (item, whole):
        assert span.parent is not None
        assert span.parent.span_id == caller.get_span_context().span_id
    assert item.attributes is not None
    assert whole.attributes is not None
    assert item.attributes["opero.map.index"] == 1
    assert names(item) == ["opero.attempt"] * 2
    found = {name: whole.attributes[f"opero.map.{name}"] for name in ("items", "failed", "retried")}
    assert found == {"items": 3, "failed": 1, "retried": 1}


def test_what_happens_to_the_current_span_is_an_event_of_it(
    core: hotpath.Core, on: Telemetry
) -> None:
    """A breaker that opens, for example; without a span that records, nothing is told."""
    with on.tracers.get_tracer("test").start_as_current_span("caller"):
        Breaker("prices").trip()
        with skip_waits(), pytest.raises(DeadlineExceeded):
            flaky(*[TimeoutError("a secret")] * 3, min_delay=2, timeout=1)()
    Breaker("prices").trip()
    (caller,) = [span for span in on.exporter.get_finished_spans() if span.name == "caller"]
    breaker, deadline = caller.events
    assert (breaker.name, deadline.name) == ("opero.breaker", "opero.deadline")
    assert breaker.attributes == {
        "opero.breaker.name": "prices",
        "opero.breaker.state": "open",
    }
    assert deadline.attributes is not None
    assert deadline.attributes["error.type"] == "TimeoutError"
    assert "a secret" not in caller.to_json()


def test_what_an_exporter_calls_is_no_span(core: hotpath.Core, on: Telemetry) -> None:
    """It would have to be exported, too."""
    fetch = flaky(TimeoutError(), min_delay=0)
    token = context.attach(context.set_value("suppress_instrumentation", True))
    try:
        fetch()
    finally:
        context.detach(token)
    assert on.spans() == []


def test_metrics_are_read_when_they_are_collected(core: hotpath.Core, on: Telemetry) -> None:
    """With the attributes of the conventions; sums are whole numbers, times are not."""
    fetch = flaky(TimeoutError(), TimeoutError(), cache=True)
    with skip_waits():
        fetch(1)
        fetch(1)
    points = on.points()
    assert points["opero.calls"]["fetch"].value == 2
    assert points["opero.cache.hits"]["fetch"].value == 1
    assert points["opero.retries"]["fetch"].value == 2
    assert points["opero.attempt.errors"]["fetch TimeoutError"].value == 2
    assert points["opero.failures"]["fetch"].value == 0
    assert type(points["opero.calls"]["fetch"].value) is int
    assert points["opero.backoff.wait"]["fetch"].value >= 0.2
    duration = points["opero.call.duration"]["fetch"]
    assert duration.count == 1
    assert duration.explicit_bounds == opentelemetry.BOUNDARIES
    fetch(1)
    assert on.points()["opero.calls"]["fetch"].value == 3


def test_metrics_have_names_units_and_kinds(core: hotpath.Core, on: Telemetry) -> None:
    """Those of the table."""
    flaky(TimeoutError(), min_delay=0)()
    expected = {metric.name: metric for metric in METRICS}
    data = on.reader.get_metrics_data()
    assert data is not None
    metrics = data.resource_metrics[0].scope_metrics[0].metrics
    assert len(metrics) > 3
    for metric in metrics:
        if metric.name != "opero.call.duration":
            assert (metric.unit, metric.description) == (
                expected[metric.name].unit,
                expected[metric.name].text,
            )
            assert getattr(metric.data, "is_monotonic", False) != expected[metric.name].gauge


def test_either_can_be_left_out(core: hotpath.Core, telemetry: Telemetry) -> None:
    """Without spans, first attempts go the usual way; without metrics, nobody reads figures."""
    end = telemetry.instrument(spans=False)
    assert not roster.tracing
    flaky(TimeoutError(), min_delay=0)()
    assert telemetry.spans() == []
    assert "opero.calls" in telemetry.points()
    end()
    end = telemetry.instrument(metrics=False)
    assert not roster.keeping
    flaky(TimeoutError(), min_delay=0)()
    assert len(telemetry.spans()) == 1
    end()


def test_it_ends_and_begins_again(core: hotpath.Core, telemetry: Telemetry, caplog: Any) -> None:
    """The SDK keeps instruments for ever, so they are the same ones."""
    for _ in range(2):
        end = telemetry.instrument()
        flaky(TimeoutError(), min_delay=0)()
        assert "opero.calls" in telemetry.points()
        end()
        end()
        flaky(TimeoutError(), min_delay=0)()
        assert not telemetry.points().get("opero.calls")
    assert len(telemetry.spans()) == 2
    assert [record for record in caplog.records if record.name != "opero"] == []


def test_threads_have_spans_of_their_own_callers(core: hotpath.Core, on: Telemetry) -> None:
    """The context is the thread's."""
    tracer = on.tracers.get_tracer("test")
    callers = []

    def work() -> None:
        with tracer.start_as_current_span("caller") as caller:
            callers.append(caller.get_span_context().span_id)
            flaky(TimeoutError(), min_delay=0.001)()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(span.parent.span_id for span in on.spans() if span.parent) == sorted(callers)


@pytest.mark.once
def test_the_global_providers_are_the_default() -> None:
    """In a program of its own, since they can be set only once."""
    code = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opero import opero
from opero.integrations import opentelemetry

opentelemetry.instrument()  # before the provider is set
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
errors = [ValueError()]

@opero(min_delay=0)
def fetch():
    if errors:
        raise errors.pop()

fetch()
print([span.name for span in exporter.get_finished_spans()])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['fetch']\n"
