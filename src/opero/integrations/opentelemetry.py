"""Spans and metrics for OpenTelemetry.

    from opero.integrations import opentelemetry

    opentelemetry.instrument()  # with the global providers

A call that was retried, or waited for a permit, becomes a span: a child of the caller's current
span, with the call's own start and end, and an event for each attempt. Calls that succeed
immediately, and hits, become no spans. Metrics are read from the functions' counters when they are
exported (`measures`). Neither contains arguments, results or error messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

from opero import events
from opero.event import Event

from .measures import (
    BOUNDARIES,
    ERROR,
    FUNCTION,
    METRICS,
    Measures,
    Metric,
    error_type,
    function_name,
)

_SPANS: Final = ("call_end", "map_end", "breaker", "stale", "deadline")


def instrument(
    *,
    tracer_provider: Any = None,
    meter_provider: Any = None,
    spans: bool = True,
    metrics: bool = True,
) -> Callable[[], None]:
    """Send opero's spans and metrics to OpenTelemetry.

    You may call it more than once: each provider gets each span and each metric once, until you
    have called all the functions that it returned.

    Args:
        tracer_provider: Where spans go; None for the global provider.
        meter_provider: Where metrics go; None for the global provider.
        spans: Whether to create spans, and the histogram of how long those calls took. This slows
            first attempts down, but not hits.
        metrics: Whether to send metrics.

    Returns:
        A function that switches it off. You may call it more than once.

    Raises:
        ImportError: If opentelemetry-api is not installed.
    """
    try:
        from opentelemetry import metrics as metrics_api
        from opentelemetry import trace
    except ImportError as error:
        raise ImportError(
            "opero's spans and metrics need OpenTelemetry's API: "
            "pip install 'opentelemetry-api>=1.30'",
            name="opentelemetry",
        ) from error
    from opero import __version__

    endings: list[Callable[[], None]] = []
    instruments = None
    if metrics:
        meters = metrics_api.get_meter_provider() if meter_provider is None else meter_provider
        instruments = _instruments_of(meters, __version__)
        endings.append(instruments.switch_on())
    if spans:
        tracers = trace.get_tracer_provider() if tracer_provider is None else tracer_provider
        endings.append(_spans_of(tracers, __version__).switch_on(instruments))

    def end() -> None:
        while endings:
            endings.pop()()

    return end


# --- spans ----------------------------------------------------------------------------------------


class _Spans:
    """Creates a span for each event that ends a call or a map, once for each provider."""

    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer
        self._users: list[_Instruments | None] = []
        self._unsubscribe: Callable[[], None] | None = None

    def switch_on(self, instruments: _Instruments | None) -> Callable[[], None]:
        """Create spans from now on, until you call the returned function.

        Args:
            instruments: The instruments that record how long the calls took.
        """
        self._users.append(instruments)
        if self._unsubscribe is None:
            self._unsubscribe = events.subscribe(self.hear, *_SPANS)

        def end() -> None:
            self._users.remove(instruments)
            if not self._users and self._unsubscribe is not None:
                unsubscribe, self._unsubscribe = self._unsubscribe, None
                unsubscribe()

        return end

    def hear(self, event: Event) -> None:
        """Create a span, or add an event to the current one."""
        from opentelemetry import context, trace

        if context.get_value("suppress_instrumentation"):  # an exporter's own calls
            return
        match event.kind:
            case "call_end":
                self._call(event)
                for instruments in dict.fromkeys(self._users):
                    if instruments is not None:
                        instruments.observe(event)
            case "map_end":
                self._map(event)
            case _:
                current = trace.get_current_span()
                if current.is_recording():
                    current.add_event(
                        f"opero.{event.kind}", _attributes_of(event), round(event.time * 1e9)
                    )

    def _call(self, event: Event) -> None:
        history = event.history or ()
        attributes = _attributes_of(event)
        attributes["opero.attempts"] = len(history)
        attributes["opero.permit.wait"] = sum(attempt.waited for attempt in history)
        attributes["opero.backoff.wait"] = sum(attempt.delay for attempt in history)
        end = round(event.time * 1e9)
        begin = end - round((event.seconds or 0.0) * 1e9)
        span = self._begin(event, attributes, begin)
        if span.is_recording():
            for attempt in history:
                told: dict[str, Any] = {
                    "opero.attempt.number": attempt.number,
                    "opero.attempt.duration": attempt.seconds,
                    "opero.attempt.permit.wait": attempt.waited,
                    "opero.attempt.backoff.wait": attempt.delay,
                }
                if attempt.error is not None:
                    told[ERROR] = error_type(attempt.error)
                over = begin + round((attempt.began + attempt.seconds) * 1e9)
                span.add_event("opero.attempt", told, min(over, end))
        self._end(span, event, end)

    def _map(self, event: Event) -> None:
        attributes = _attributes_of(event)
        for field in ("items", "failed", "attempts", "retried", "workers"):
            value = getattr(event, field)
            if value is not None:
                attributes[f"opero.map.{field}"] = value
        if event.reason is not None:
            attributes["opero.map.ended_early"] = event.reason
        end = round(event.time * 1e9)
        begin = end - round((event.seconds or 0.0) * 1e9)
        self._end(self._begin(event, attributes, begin), event, end)

    def _begin(self, event: Event, attributes: dict[str, Any], begin: int) -> Any:
        name = event.function or "opero"
        return self._tracer.start_span(name, attributes=attributes, start_time=begin)

    def _end(self, span: Any, event: Event, end: int) -> None:
        from opentelemetry.trace import Status, StatusCode

        if event.error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=end)


_spans: WeakKeyDictionary[Any, _Spans] = WeakKeyDictionary()


def _spans_of(provider: Any, version: str) -> _Spans:
    """Return the one object that creates a provider's spans: two would create each span twice."""
    found = _spans.get(provider)
    if found is None:
        found = _spans[provider] = _Spans(provider.get_tracer("opero", version))
    return found


def _attributes_of(event: Event) -> dict[str, Any]:
    """Return attributes that say where an event comes from and how the call ended."""
    attributes: dict[str, Any] = {}
    if event.function is not None:
        attributes[FUNCTION] = function_name(event.module, event.function)
    if event.error is not None:
        attributes[ERROR] = error_type(event.error)
    for field, name in _ATTRIBUTES.items():
        value = getattr(event, field)
        if value is not None:
            attributes[name] = value
    return attributes


_ATTRIBUTES: Final = {
    "mode": "opero.mode",
    "namespace": "opero.cache.namespace",
    "index": "opero.map.index",
    "breaker": "opero.breaker.name",
    "state": "opero.breaker.state",
}


# --- metrics --------------------------------------------------------------------------------------


class _Instruments:
    """The instruments of one provider, created once because the provider never drops them.

    Attributes:
        measures: The values that they report; None while switched off.
    """

    def __init__(self, meter: Any) -> None:
        self._users = 0
        self.measures: Measures | None = None
        for metric in METRICS:
            make = (
                meter.create_observable_gauge if metric.gauge else meter.create_observable_counter
            )
            make(metric.name, [self._callback(metric)], metric.unit, metric.text)
        self._duration = meter.create_histogram(
            "opero.call.duration",
            "s",
            "Duration of calls that were retried or had to wait",
            explicit_bucket_boundaries_advisory=BOUNDARIES,
        )

    def switch_on(self) -> Callable[[], None]:
        """Report values from now on, until you call the returned function."""
        self._users += 1
        if self.measures is None:
            self.measures = Measures()

        def end() -> None:
            self._users -= 1
            if not self._users and self.measures is not None:
                measures, self.measures = self.measures, None
                measures.close()

        return end

    def observe(self, event: Event) -> None:
        """Record how long a call took."""
        measures = self.measures
        if measures is not None:
            attributes = {FUNCTION: measures.function(event.module, event.function)}
            if event.error is not None:
                attributes[ERROR] = measures.error(event.error)
            self._duration.record(event.seconds or 0.0, attributes)

    def _callback(self, metric: Metric) -> Callable[[Any], list[Any]]:
        def observe(_: Any) -> list[Any]:
            from opentelemetry.metrics import Observation

            measures = self.measures
            if measures is None:
                return []
            whole = metric.unit != "s"
            return [
                Observation(
                    int(value) if whole else value,
                    {
                        label: text
                        for label, text in zip(metric.labels, labels, strict=True)
                        if text
                    },
                )
                for labels, value in measures.values(metric).items()
            ]

        return observe


_instruments: WeakKeyDictionary[Any, _Instruments] = WeakKeyDictionary()


def _instruments_of(provider: Any, version: str) -> _Instruments:
    """Return a provider's instruments; it would reject a second set with the same names."""
    found = _instruments.get(provider)
    if found is None:
        found = _instruments[provider] = _Instruments(provider.get_meter("opero", version))
    return found
