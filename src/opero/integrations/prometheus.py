"""Metrics for Prometheus, by prometheus_client.

    from opero.integrations import prometheus

    prometheus.instrument()  # in the registry that prometheus_client exposes by default

What happens often is read from the functions' own figures when Prometheus scrapes. Names and labels
are those that OpenTelemetry's metrics (`opero.integrations.opentelemetry`) have in Prometheus, so
that one dashboard serves both.

With several processes behind one endpoint (`PROMETHEUS_MULTIPROC_DIR`) prometheus_client reads
files, and asks no process. Then a thread of each process writes its values there every few seconds.
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
    """Show opero's metrics to Prometheus.

    Args:
        registry: The registry of prometheus_client that gets them; None means the default one.
        durations: Whether to have histograms of how long calls took that were retried or had to
            wait, and of the waits for permits. While they are on, first attempts take a longer way;
            hits do not.
        interval: Seconds between two times that the values are written, in the multi-process mode
            of prometheus_client; nothing reads it otherwise.

    Returns:
        A function that ends it. You may call it more than once.

    Raises:
        ImportError: If prometheus_client is not installed.
        ValueError: If the registry has opero's metrics already, or `interval` is not positive.
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
    "opero's metrics already: call instrument() once, or end the earlier one by the function "
    "that it has returned"
)


def prometheus_name(metric: Metric) -> str:
    """Return the name of a metric in Prometheus, without the `_total` of a counter."""
    return metric.name.replace(".", "_") + ("_seconds" if metric.unit == "s" else "")


def _label_names(metric: Metric) -> list[str]:
    return [label.replace(".", "_") for label in metric.labels]


class _Histogram:
    """How many values fell between which boundaries, by labels."""

    def __init__(self) -> None:
        self.rows: dict[Labels, list[float]] = {}

    def observe(self, labels: Labels, value: float) -> None:
        """Note a value."""
        row = self.rows.setdefault(labels, [0.0] * (len(BOUNDARIES) + 2))
        row[bisect_left(BOUNDARIES, value)] += 1
        row[-1] += value

    def buckets(self, labels: Labels) -> tuple[list[tuple[str, float]], float]:
        """Return how many values were at most as great as each boundary, and the sum of all."""
        row = self.rows[labels]
        total = 0.0
        found = []
        for boundary, count in zip((*BOUNDARIES, "+Inf"), row, strict=False):
            total += count
            found.append((str(boundary), total))
        return found, row[-1]


class _Durations:
    """Tells how long calls took, and waited, from the events of their ends."""

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
    """Gives a registry the values of the moment."""

    def __init__(self, durations: bool) -> None:
        self._measures: Measures | None = Measures()
        self._lock: Any = Lock()
        self._histograms = {metric: _Histogram() for metric in _histograms(durations)}
        self._durations = _Durations(self._measures, self._observe) if durations else None

    def _observe(self, metric: Metric, labels: Labels, value: float) -> None:
        with self._lock:
            self._histograms[metric].observe(labels, value)

    def close(self) -> bool:
        """End it; return whether it was on."""
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
        """Yield the metrics with the values of the moment."""
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
    """Writes the values of this process where those of all processes are read from."""

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
        """Return what an earlier one has written of the counts of functions: it is in the files."""
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
        """Write a last time in a child of multiprocessing, too, which runs no `atexit`."""
        from multiprocessing import util

        util.Finalize(self, self._publish_last, exitpriority=0)

    def _publish_last(self) -> None:
        if not self._over.is_set():
            self.publish()

    def close(self) -> None:
        """Write a last time, and end it."""
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
        """Write nothing during a fork, with a lock of prometheus_client's taken."""
        self._lock.acquire()

    def go_on(self) -> None:
        """Write again, after a fork."""
        self._lock.release()

    def after_fork(self) -> None:
        """Go on in a child process: what the parent has counted so far is not the child's."""
        self._lock = Lock()
        self._over = threading.Event()
        self._written = {
            metric: values for metric, values in self._measures.read() if not metric.gauge
        }
        self._start()


_publishers: dict[int, _Publisher] = {}

_left: dict[Metric, dict[Labels, float]] = {}
"""What the publishers that have ended had written."""

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
