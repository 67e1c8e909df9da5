"""Metrics for Prometheus, through prometheus_client.

    from opero.integrations import prometheus

    prometheus.instrument()  # in the registry that prometheus_client exposes by default

Counts of frequent events are read from the functions' counters when Prometheus scrapes. Names and
labels are the same as those of OpenTelemetry's metrics (`opero.integrations.opentelemetry`) in
Prometheus, so one dashboard serves both.

If several processes share one endpoint (`PROMETHEUS_MULTIPROC_DIR`), prometheus_client reads files
instead of asking processes. In each process, a thread writes the values there every few seconds.
"""

from __future__ import annotations

import atexit
import os
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Any, Final

from opero import forks
from opero.event import Event
from opero.events import subscribe
from opero.locks import Lock

from .measures import (
    BOUNDARIES,
    ERROR,
    FUNCTION,
    METRICS,
    STORE_UP,
    Labels,
    Measures,
    Metric,
)

DURATION: Final = Metric(
    "opero.call.duration",
    "s",
    "Duration of calls that were retried or had to wait",
    (FUNCTION, ERROR),
)
PERMIT_DURATION: Final = Metric(
    "opero.permit.duration",
    "s",
    "Time that an attempt waited for its permit, if it had to",
    (FUNCTION,),
)
"""The histograms; they need `call_end` events."""


def instrument(
    registry: Any = None, *, durations: bool = False, interval: float = 5.0
) -> Callable[[], None]:
    """Expose opero's metrics to Prometheus.

    Args:
        registry: The registry of prometheus_client; None for the default one.
        durations: Whether to add histograms of the duration of calls that were retried or had to
            wait, and of the waits for permits. This slows first attempts down, but not hits.
        interval: Seconds between two writes of the values. Only the multi-process mode of
            prometheus_client uses it.

    Returns:
        A function that switches it off. You may call it more than once.

    Raises:
        ImportError: If prometheus_client is not installed.
        ValueError: If the registry already has opero's metrics, or `interval` is not positive.
    """
    try:
        import prometheus_client as client
    except ImportError as error:
        raise ImportError(
            "opero's metrics for Prometheus need prometheus_client: "
            "pip install 'prometheus_client>=0.20'",
            name="prometheus_client",
        ) from error
    if not interval > 0:
        raise ValueError(f"interval={interval!r} is not allowed: use a number of seconds above 0")
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        if _publishers:
            raise ValueError(f"this process has {_TWICE}")
        return _Publisher(client, durations, interval).close
    chosen = client.REGISTRY if registry is None else registry
    collector = _Collector(durations)
    try:
        chosen.register(collector)
    except ValueError as error:
        collector.close()
        raise ValueError(f"the registry has {_TWICE}") from error
    except BaseException:
        collector.close()
        raise

    def end() -> None:
        if collector.close():
            chosen.unregister(collector)

    return end


_TWICE: Final = (
    "opero's metrics already: call instrument() only once, or first call the function that it "
    "returned"
)


def prometheus_name(metric: Metric) -> str:
    """Return the name of a metric in Prometheus, without the `_total` of a counter."""
    return metric.name.replace(".", "_") + ("_seconds" if metric.unit == "s" else "")


def _label_names(metric: Metric) -> list[str]:
    return [label.replace(".", "_") for label in metric.labels]


class _Histogram:
    """Counts how many values fell between the boundaries, by labels."""

    def __init__(self) -> None:
        self.rows: dict[Labels, list[float]] = {}

    def observe(self, labels: Labels, value: float) -> None:
        """Record a value."""
        row = self.rows.setdefault(labels, [0.0] * (len(BOUNDARIES) + 2))
        row[bisect_left(BOUNDARIES, value)] += 1
        row[-1] += value

    def buckets(self, labels: Labels) -> tuple[list[tuple[str, float]], float]:
        """Return how many values were at most each boundary, and the sum of all values."""
        row = self.rows[labels]
        total = 0.0
        found = []
        for boundary, count in zip((*BOUNDARIES, "+Inf"), row, strict=False):
            total += count
            found.append((str(boundary), total))
        return found, row[-1]


class _Durations:
    """Reports how long calls took and waited, from `call_end` events."""

    def __init__(
        self, measures: Measures, observe: Callable[[Metric, Labels, float], None]
    ) -> None:
        self._measures = measures
        self._observe = observe
        self.close = subscribe(self._hear, "call_end")

    def _hear(self, event: Event) -> None:
        function = self._measures.function(event.module, event.function)
        error = self._measures.error(event.error)
        self._observe(DURATION, (function, error), event.seconds or 0.0)
        for attempt in event.history or ():
            if attempt.waited:
                self._observe(PERMIT_DURATION, (function,), attempt.waited)


class _Collector:
    """Gives a registry the current values."""

    def __init__(self, durations: bool) -> None:
        self._measures: Measures | None = Measures()
        self._lock: Any = Lock()
        self._histograms = {metric: _Histogram() for metric in _histograms(durations)}
        self._durations = _Durations(self._measures, self._observe) if durations else None

    def _observe(self, metric: Metric, labels: Labels, value: float) -> None:
        with self._lock:
            self._histograms[metric].observe(labels, value)

    def close(self) -> bool:
        """Switch it off; return whether it was on."""
        measures, self._measures = self._measures, None
        if measures is None:
            return False
        if self._durations is not None:
            self._durations.close()
        measures.close()
        return True

    def describe(self) -> Iterator[Any]:
        """Yield the metrics without values."""
        for metric in METRICS:
            yield _family(metric)
        for metric in self._histograms:
            yield _histogram_family(metric)

    def collect(self) -> Iterator[Any]:
        """Yield the metrics with their current values."""
        measures = self._measures
        if measures is None:
            return
        for metric, values in measures.read():
            family = _family(metric)
            for labels, value in sorted(values.items()):
                family.add_metric(labels, value)
            yield family
        for metric, histogram in self._histograms.items():
            family = _histogram_family(metric)
            with self._lock:
                for labels in sorted(histogram.rows):
                    family.add_metric(labels, *histogram.buckets(labels))
            yield family


def _histograms(durations: bool) -> tuple[Metric, ...]:
    return (DURATION, PERMIT_DURATION) if durations else ()


def _family(metric: Metric) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    kind = GaugeMetricFamily if metric.gauge else CounterMetricFamily
    return kind(prometheus_name(metric), f"{metric.text}.", labels=_label_names(metric))


def _histogram_family(metric: Metric) -> Any:
    from prometheus_client.core import HistogramMetricFamily

    name = prometheus_name(metric)
    return HistogramMetricFamily(name, f"{metric.text}.", labels=_label_names(metric))


class _Publisher:
    """Writes the values of this process to the files that the endpoint reads."""

    def __init__(self, client: Any, durations: bool, interval: float) -> None:
        self._interval = interval
        self._measures = Measures()
        self._metrics: dict[Metric, Any] = {}
        for metric in METRICS:
            name, text, labels = prometheus_name(metric), f"{metric.text}.", _label_names(metric)
            if metric.gauge:
                mode = "livemin" if metric is STORE_UP else "livesum"
                made = client.Gauge(name, text, labels, registry=None, multiprocess_mode=mode)
            else:
                made = client.Counter(name, text, labels, registry=None)
            self._metrics[metric] = made
        for metric in _histograms(durations):
            name, text, labels = prometheus_name(metric), f"{metric.text}.", _label_names(metric)
            self._metrics[metric] = client.Histogram(
                name, text, labels, registry=None, buckets=BOUNDARIES
            )
        self._durations = _Durations(self._measures, self._observe) if durations else None
        self._written: dict[Metric, dict[Labels, float]] = self._go_on()
        self._lock: Any = Lock()
        self._over = threading.Event()
        from multiprocessing import util

        self._start()
        atexit.register(self.publish)
        util.register_after_fork(self, _Publisher._at_end_of_child)
        _publishers[id(self)] = self

    def _observe(self, metric: Metric, labels: Labels, value: float) -> None:
        self._metrics[metric].labels(*labels).observe(value)

    def _go_on(self) -> dict[Metric, dict[Labels, float]]:
        """Return the functions' counts that an earlier publisher wrote to the files."""
        return {
            metric: {
                labels: min(value, _left[metric][labels])
                for labels, value in values.items()
                if labels in _left[metric]
            }
            for metric, values in self._measures.read()
            if metric in _left
        }

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="opero-prometheus", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(self._interval):
            self.publish()

    def publish(self) -> None:
        """Write what has changed."""
        with self._lock:
            for metric, values in self._measures.read():
                written = self._written.setdefault(metric, {})
                for labels, value in values.items():
                    before = written.get(labels)
                    if value != before:
                        self._write(metric, labels, value, before or 0.0)
                        written[labels] = value
                if metric.gauge:
                    for labels in written.keys() - values.keys():
                        self._write(metric, labels, 0.0, 0.0)
                        del written[labels]

    def _write(self, metric: Metric, labels: Labels, value: float, before: float) -> None:
        held = self._metrics[metric].labels(*labels)
        if metric.gauge:
            held.set(value)
        else:
            held.inc(max(0.0, value - before))

    def _at_end_of_child(self) -> None:
        """Write a last time in a child of multiprocessing too, which does not run `atexit`."""
        from multiprocessing import util

        util.Finalize(self, self._publish_last, exitpriority=0)

    def _publish_last(self) -> None:
        if not self._over.is_set():
            self.publish()

    def close(self) -> None:
        """Write a last time, then stop."""
        if self._over.is_set():
            return
        self._over.set()
        _publishers.pop(id(self), None)
        atexit.unregister(self.publish)
        self._thread.join()
        self.publish()
        _left.update({m: written for m, written in self._written.items() if not m.gauge})
        if self._durations is not None:
            self._durations.close()
        self._measures.close()

    def hold(self) -> None:
        """Stop writing during a fork, so that no lock of prometheus_client is held."""
        self._lock.acquire()

    def go_on(self) -> None:
        """Write again, after a fork."""
        self._lock.release()

    def after_fork(self) -> None:
        """Continue in a child process, without what the parent counted so far."""
        self._lock = Lock()
        self._over = threading.Event()
        self._written = {
            metric: values for metric, values in self._measures.read() if not metric.gauge
        }
        self._start()


_publishers: dict[int, _Publisher] = {}

_left: dict[Metric, dict[Labels, float]] = {}
"""What publishers had written when they ended."""

_held: list[_Publisher] = []


def _before_fork() -> None:
    _held.extend(_publishers.values())
    for publisher in _held:
        publisher.hold()


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().go_on()


def _after_fork_in_child() -> None:
    while _held:
        _held.pop().after_fork()


forks.register(
    "readers",
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
