"""The metrics of opero, and their values at one moment.

Frequent events, such as hits and attempts, are read from `stats()` of all functions at collection
time, at no cost to calls. Failures are counted by a listener.

Names, units and attributes follow the semantic conventions of OpenTelemetry
(https://opentelemetry.io/docs/specs/semconv/general/metrics/). These have nothing for retries,
limits and breakers except the attributes `code.function.name` and `error.type`. The number of
values of a label is limited: beyond it, further values count as `OTHER`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from opero import forks, roster
from opero.event import Event
from opero.events import subscribe
from opero.locks import Lock

FUNCTION: Final = "code.function.name"
ERROR: Final = "error.type"
OTHER: Final = "_OTHER"
"""Replaces the values of a label beyond the first `MOST`, as in `error.type`."""

MOST: Final = 1000
"""How many functions, stores, limits, breakers and error types have their own label, each."""

BOUNDARIES: Final = tuple(0.01 * 2**power for power in range(15))
"""The boundaries of histograms in seconds, as in the GenAI conventions, for slow calls."""


class Metric(NamedTuple):
    """One metric.

    Attributes:
        name: Its name in OpenTelemetry.
        unit: Its unit in UCUM, in braces if it counts things.
        text: A one-line description.
        labels: The names of its attributes.
        gauge: Whether it may fall.
    """

    name: str
    unit: str
    text: str
    labels: tuple[str, ...]
    gauge: bool = False


_OF_FUNCTIONS: Final = (FUNCTION,)

COUNTED: Final = {
    "calls": Metric("opero.calls", "{call}", "Calls of decorated functions", _OF_FUNCTIONS),
    "hits": Metric("opero.cache.hits", "{call}", "Calls answered from the cache", _OF_FUNCTIONS),
    "misses": Metric(
        "opero.cache.misses", "{call}", "Calls that found no value in the cache", _OF_FUNCTIONS
    ),
    "attempts": Metric(
        "opero.attempts", "{attempt}", "Times that a decorated function was started", _OF_FUNCTIONS
    ),
    "retries": Metric(
        "opero.retries", "{attempt}", "Attempts that began another round", _OF_FUNCTIONS
    ),
    "fallbacks": Metric(
        "opero.fallbacks", "{attempt}", "Attempts with the next fallback value", _OF_FUNCTIONS
    ),
    "failures": Metric(
        "opero.failures", "{call}", "Runs that ended in an exception", _OF_FUNCTIONS
    ),
    "permit_wait": Metric(
        "opero.permit.wait", "s", "Time that calls waited for permits", _OF_FUNCTIONS
    ),
    "backoff_wait": Metric(
        "opero.backoff.wait", "s", "Time that calls waited between rounds", _OF_FUNCTIONS
    ),
    "stale": Metric(
        "opero.cache.stale", "{call}", "Calls answered with an outdated value", _OF_FUNCTIONS
    ),
    "refreshes": Metric(
        "opero.cache.refreshes",
        "{run}",
        "Runs in the background that began to renew a value",
        _OF_FUNCTIONS,
    ),
    "store_failures": Metric(
        "opero.store.failures",
        "{operation}",
        "Times that a store could not be used and a call went on without",
        _OF_FUNCTIONS,
    ),
    "rejected": Metric(
        "opero.store.rejected", "{entry}", "Stored entries that opero did not accept", _OF_FUNCTIONS
    ),
    "refused": Metric(
        "opero.breaker.refused",
        "{attempt}",
        "Attempts that a circuit breaker refused",
        _OF_FUNCTIONS,
    ),
    "breaker_wait": Metric(
        "opero.breaker.wait", "s", "Time that calls waited for a circuit breaker", _OF_FUNCTIONS
    ),
}
"""Metrics read from the counters of a function (see `opero.stats.Stats`)."""

_TOGETHER: Final = (("calls", "attempts", "retries", "failures"), ("hits", "misses"))
"""Counters reported even as 0 once one of them is not 0: a rate needs a first value."""

ERRORS: Final = Metric(
    "opero.attempt.errors",
    "{attempt}",
    "Failed attempts that another one could have followed",
    (FUNCTION, ERROR),
)
GIVE_UPS: Final = Metric(
    "opero.give_ups", "{call}", "Calls that failed in their last attempt", (FUNCTION, ERROR)
)
DEADLINES: Final = Metric("opero.deadlines", "{call}", "Calls that ran out of time", _OF_FUNCTIONS)
REFRESH_ERRORS: Final = Metric(
    "opero.cache.refresh_errors",
    "{run}",
    "Runs in the background that failed to renew a value",
    (FUNCTION, ERROR),
)
CRASHES: Final = Metric(
    "opero.worker.crashes", "{crash}", "Worker processes that died", _OF_FUNCTIONS
)
MAPS: Final = Metric("opero.maps", "{map}", "Maps that have ended", _OF_FUNCTIONS)
MAPS_RUNNING: Final = Metric(
    "opero.map.running", "{map}", "Maps that are running", _OF_FUNCTIONS, gauge=True
)
ITEMS: Final = Metric(
    "opero.map.items",
    "{item}",
    "Items of maps that have their final result",
    (FUNCTION, "opero.outcome"),
)
ITEMS_LEFT: Final = Metric(
    "opero.map.items_left",
    "{item}",
    "Items still to come in running maps whose input has a length",
    _OF_FUNCTIONS,
    gauge=True,
)
STORE_UP: Final = Metric(
    "opero.store.up",
    "1",
    "Whether a store that was once down works",
    ("opero.store.name",),
    gauge=True,
)
OUTAGES: Final = Metric(
    "opero.store.outages",
    "{outage}",
    "Outages of a store or of a shared limit",
    ("opero.store.name",),
)
RATE_CUTS: Final = Metric(
    "opero.limit.cuts",
    "{cut}",
    "Cuts of the rate of an adaptive limit, counted once a second at most",
    ("opero.limit.name",),
)
BREAKER_STATE: Final = Metric(
    "opero.breaker.state",
    "1",
    "The state of each circuit breaker that has ever opened",
    ("opero.breaker.name", "opero.breaker.state"),
    gauge=True,
)
TRANSITIONS: Final = Metric(
    "opero.breaker.transitions",
    "{transition}",
    "Changes of a circuit breaker to a state",
    ("opero.breaker.name", "opero.breaker.state"),
)

METRICS: Final = (
    *COUNTED.values(),
    ERRORS,
    GIVE_UPS,
    DEADLINES,
    REFRESH_ERRORS,
    CRASHES,
    MAPS,
    MAPS_RUNNING,
    ITEMS,
    ITEMS_LEFT,
    STORE_UP,
    OUTAGES,
    RATE_CUTS,
    BREAKER_STATE,
    TRANSITIONS,
)
"""All metrics except the histograms."""

STATES: Final = ("closed", "half_open", "open")
_KINDS: Final = (
    "retry",
    "fallback",
    "give_up",
    "deadline",
    "refresh",
    "worker_crash",
    "map_end",
    "store_down",
    "store_up",
    "breaker",
    "rate_cut",
)

Labels = tuple[str, ...]


class Few:
    """Keeps the first `MOST` values of a label, and replaces further ones."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def of(self, value: str) -> str:
        """Return a value of a label, or its replacement."""
        if value not in self._known:
            if len(self._known) >= MOST:
                return OTHER
            self._known.add(value)
        return value


def function_name(module: str | None, name: str | None) -> str:
    """Return the full name of a function, for `code.function.name`."""
    return f"{module}.{name}" if module else name or ""


def error_type(error: BaseException | None) -> str:
    """Return the full name of an exception's type, for `error.type`; "" for None."""
    if error is None:
        return ""
    kind = type(error)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


class Measures:
    """Counts events, and reads what was counted elsewhere."""

    def __init__(self) -> None:
        """Begin to count."""
        self._few: dict[str, Few] = {}
        self._counts: dict[Metric, dict[Labels, float]] = {metric: {} for metric in METRICS}
        self._seen: dict[int, tuple[str, int, int]] = {}
        self._highest: dict[Metric, dict[Labels, float]] = {m: {} for m in COUNTED.values()}
        self._lock: Any = Lock()
        self._endings = [roster.read_figures(), subscribe(self._hear, *_KINDS)]
        _all[id(self)] = self

    def close(self) -> None:
        """Stop counting."""
        _all.pop(id(self), None)
        for end in self._endings:
            end()

    def after_fork(self) -> None:
        """Replace the lock in a child process, and forget the parent's maps."""
        self._lock = Lock()
        self._seen.clear()

    # --- what happens ---------------------------------------------------------------------------

    def _hear(self, event: Event) -> None:
        with self._lock:
            self._count(event)

    def _count(self, event: Event) -> None:
        kind = event.kind
        if kind in {"store_down", "store_up"}:
            store = self._short("store", event.store or "")
            self._counts[STORE_UP][(store,)] = 1.0 if kind == "store_up" else 0.0
            if kind == "store_down":
                self._add(OUTAGES, (store,))
            return
        if kind == "breaker":
            self._change(event)
            return
        if kind == "rate_cut":
            self._add(RATE_CUTS, (self._short("limit", event.store or ""),))
            return
        name = self.function(event.module, event.function)
        if kind == "map_end":
            self._end_map(event, name)
            return
        error = self.error(event.error)
        match kind:
            case "retry" | "fallback":
                self._add(ERRORS, (name, error))
            case "give_up":
                self._add(ERRORS, (name, error))
                self._add(GIVE_UPS, (name, error))
            case "deadline":
                self._add(DEADLINES, (name,))
            case "refresh":
                if event.error is not None:
                    self._add(REFRESH_ERRORS, (name, error))
            case _:
                self._add(CRASHES, (name,))

    def _change(self, event: Event) -> None:
        """Record the new state of a breaker."""
        breaker = self._short("breaker", event.breaker or "")
        self._add(TRANSITIONS, (breaker, event.state or ""))
        for state in STATES:
            self._counts[BREAKER_STATE][breaker, state] = 1.0 if state == event.state else 0.0

    def _end_map(self, event: Event, name: str) -> None:
        """Record a finished map, which replaces what was recorded while it ran."""
        self._seen.pop(event.call or 0, None)
        failed = event.failed or 0
        self._add(MAPS, (name,))
        self._add(ITEMS, (name, "succeeded"), (event.items or 0) - failed)
        self._add(ITEMS, (name, "failed"), failed)

    def _add(self, metric: Metric, labels: Labels, amount: float = 1.0) -> None:
        counts = self._counts[metric]
        counts[labels] = counts.get(labels, 0.0) + amount

    def function(self, module: str | None, name: str | None) -> str:
        """Return the label of a function."""
        return self._short("function", function_name(module, name))

    def error(self, error: BaseException | None) -> str:
        """Return the label of an exception."""
        return self._short("error", error_type(error))

    def _short(self, label: str, value: str) -> str:
        return self._few.setdefault(label, Few()).of(value)

    # --- at one moment --------------------------------------------------------------------------

    def read(self) -> Iterator[tuple[Metric, dict[Labels, float]]]:
        """Yield each metric with its values by its labels."""
        counters = _of_functions(self.function)
        maps = self._maps()
        with self._lock:
            for metric, values in counters.items():
                self._rise(metric, values)
            noted = {metric: counts.copy() for metric, counts in self._counts.items()}
            for name, done, failed in self._seen.values():
                for outcome, items in (("succeeded", done - failed), ("failed", failed)):
                    labels = (name, outcome)
                    noted[ITEMS][labels] = noted[ITEMS].get(labels, 0.0) + items
        for metric in METRICS:
            yield metric, counters.get(metric) or maps.get(metric) or noted[metric]

    def _rise(self, metric: Metric, values: dict[Labels, float]) -> None:
        """Keep values from falling: the counts of a function being deleted may be missing."""
        highest = self._highest[metric]
        for labels in highest.keys() | values.keys():
            value = max(highest.get(labels, 0.0), values.get(labels, 0.0))
            highest[labels] = values[labels] = value

    def values(self, metric: Metric) -> dict[Labels, float]:
        """Return the values of one metric by its labels."""
        return next(values for each, values in self.read() if each is metric)

    def _maps(self) -> dict[Metric, dict[Labels, float]]:
        """Read the progress of the running maps."""
        running: dict[Labels, float] = {}
        left: dict[Labels, float] = {}
        with self._lock:  # so that a map cannot report its end meanwhile
            for loop in roster.maps():
                scheduler, origin = loop.scheduler, loop.scheduler.call.origin
                name = self.function(origin.module, origin.function)
                done = scheduler.settled - scheduler.output.not_run
                self._seen[id(loop)] = (name, done, scheduler.output.failed)
                labels = (name,)
                running[labels] = running.get(labels, 0.0) + 1
                if loop.total is not None:
                    left[labels] = left.get(labels, 0.0) + max(0, loop.total - done)
        return {MAPS_RUNNING: running, ITEMS_LEFT: left}


def _of_functions(
    label: Callable[[str | None, str | None], str],
) -> dict[Metric, dict[Labels, float]]:
    """Return the counts of the decorated functions."""
    found: dict[Metric, dict[Labels, float]] = {metric: {} for metric in COUNTED.values()}
    for (module, name), stats in roster.figures().items():
        labels = (label(module, name),)
        told = {counter for counter in COUNTED if getattr(stats, counter)}
        for group in _TOGETHER:
            if not told.isdisjoint(group):
                told.update(group)
        for counter in told:
            values = found[COUNTED[counter]]
            values[labels] = values.get(labels, 0.0) + getattr(stats, counter)
    return found


_all: dict[int, Measures] = {}


def _after_fork() -> None:
    for measures in list(_all.values()):
        measures.after_fork()


forks.register("readers", after_in_child=_after_fork)
