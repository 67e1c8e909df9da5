"""For test suites: skip delays, move time, switch opero off, and assert on attempts.

    from opero.testing import disabled, manual_clock, record_attempts, skip_waits

    def test_recovers():
        with skip_waits() as clock:  # backoff and rate limits take no time
            assert fetch() == "value"
        assert clock.waited > 0

    def test_expires():
        with manual_clock() as clock:  # time stands still ...
            price("A")
            clock.advance(61)  # ... until the test moves it
            price("A")

Both act on every decorated function and `RateLimiter` of the process. Time never goes back: after
the test it continues from where the test moved it. As a pytest fixture:

    @pytest.fixture(autouse=True)
    def no_waiting():
        with skip_waits():
            yield

    def test_parses():
        with disabled():  # each call is one attempt, and nothing is cached
            assert fetch() == "value"

    def test_tries_again():
        with skip_waits(), record_attempts(fetch) as record:
            fetch()
        record.assert_attempts(3, errors=[TimeoutError, TimeoutError])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from . import hotpath, off_switch, roster
from .event import Event
from .events import subscribe
from .exceptions import describe
from .locks import Lock
from .stats import Stats

__all__ = [
    "AttemptsRecord",
    "MovableClock",
    "disabled",
    "enabled",
    "manual_clock",
    "record_attempts",
    "skip_waits",
]


_switching = Lock()
"""Guards changes that affect the whole process."""


class MovableClock:
    """The time that decorated functions see.

    Attributes:
        started: The time at which the test began to use it, in seconds.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self.started: float = self.now()

    def now(self) -> float:
        """Return the time in seconds."""
        return float(self._clock.now() / 1e9)

    @property
    def waited(self) -> float:
        """Seconds that have passed for decorated functions since the test began."""
        return self.now() - self.started

    def advance(self, seconds: float | timedelta) -> None:
        """Move time forward.

        Args:
            seconds: How far, in seconds or as a `timedelta`.

        Raises:
            ValueError: If `seconds` is negative.
        """
        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        if seconds < 0:
            raise ValueError(
                f"seconds={seconds!r} is not allowed: time cannot go back; use 0 or more"
            )
        self._clock.advance(round(seconds * 1e9))


@contextmanager
def skip_waits() -> Iterator[MovableClock]:
    """End every wait immediately, and move time to its end."""
    with _moved(False) as clock:
        yield clock


@contextmanager
def manual_clock() -> Iterator[MovableClock]:
    """Stop time. Only the test moves it, and waits, which end immediately."""
    with _moved(True) as clock:
        yield clock


class _Use:
    """What one `with` does to a clock.

    Attributes:
        clock: The clock.
        freezes: Whether it stops the clock.
        frozen: Whether the clock was stopped before.
        skipping: Whether waits were skipped before.
    """

    def __init__(self, clock: Any, freezes: bool) -> None:
        self.clock = clock
        self.freezes = freezes
        self.frozen: bool = clock.frozen
        self.skipping: bool = clock.skipping


_uses: list[_Use] = []
"""The uses of all `with` blocks in progress.

Blocks in threads and tasks overlap, and may not end in the order in which they began.
"""


@contextmanager
def _moved(freezes: bool) -> Iterator[MovableClock]:
    use = _Use(hotpath.core.clock, freezes)
    try:
        with _switching:
            for other in _uses:
                if other.clock is use.clock:  # keep how it was before the first use
                    use.frozen, use.skipping = other.frozen, other.skipping
            _uses.append(use)
            if freezes and not use.clock.frozen:
                use.clock.freeze()
            use.clock.skipping = True
        yield MovableClock(use.clock)
    finally:
        with _switching:
            if use in _uses:
                _uses.remove(use)
            left = [other for other in _uses if other.clock is use.clock]
            if not left:
                use.clock.skipping = use.skipping
            if not use.frozen and not any(other.freezes for other in left):
                use.clock.thaw()


# --- off and on -----------------------------------------------------------------------------------


@contextmanager
def disabled() -> Iterator[None]:
    """Make every decorated function behave as if it were not decorated.

    Nothing is cached, retried, limited or counted; no fallback, breaker or deadline applies. This
    covers all threads and tasks, and functions of every kind, including those decorated meanwhile.
    A map calls its function once for each item, one after the other, in the caller's thread.
    """
    with _switched(True):
        yield


@contextmanager
def enabled() -> Iterator[None]:
    """Undo `disabled`, for a test of retries where a fixture has switched opero off."""
    with _switched(False):
        yield


class _Wish:
    """What one `with` asks for: opero off, or on."""

    def __init__(self, off: bool) -> None:
        self.off = off


_wishes: list[_Wish] = []
"""The wishes of all `with` blocks in progress; the latest applies.

Blocks in threads and tasks overlap, and may not end in the order in which they began.
"""


@contextmanager
def _switched(off: bool) -> Iterator[None]:
    wish = _Wish(off)
    try:
        with _switching:
            _wishes.append(wish)
            _switch()
        yield
    finally:
        with _switching:
            if wish in _wishes:
                _wishes.remove(wish)
            _switch()


def _switch() -> None:
    """Apply the latest wish."""
    off = bool(_wishes) and _wishes[-1].off
    off_switch.switch(off)
    for core in hotpath.loaded():
        core.bypass(off)


# --- attempts -------------------------------------------------------------------------------------


class AttemptsRecord:
    """What some decorated functions did during a `with record_attempts(...)` block.

    Attributes:
        events: The failed attempts, as `retry`, `fallback`, `give_up` and `deadline` events.
    """

    def __init__(self, functions: Sequence[Any]) -> None:
        self._sources = [_source_of(function) for function in functions]
        self._names = {name for name, _ in self._sources}
        self._before = self._read()
        self._after: list[Stats] | None = None
        self.events: list[Event] = []

    def _hear(self, event: Event) -> None:
        if roster.name_of(event) in self._names:
            self.events.append(event)

    def _read(self) -> list[Stats]:
        sums = roster.figures()
        return [
            sums.get(name, Stats()) if state is None else state.stats()
            for name, state in self._sources
        ]

    def _close(self) -> None:
        self._after = self._read()

    def _count(self, counter: str) -> int:
        now = self._after or self._read()
        return sum(
            getattr(after, counter) - getattr(before, counter)
            for after, before in zip(now, self._before, strict=True)
        )

    @property
    def calls(self) -> int:
        """How often the functions were called."""
        return self._count("calls")

    @property
    def hits(self) -> int:
        """How many calls were answered from the cache."""
        return self._count("hits")

    @property
    def attempts(self) -> int:
        """How many attempts were made: how often the undecorated functions ran."""
        return self._count("attempts")

    @property
    def retries(self) -> int:
        """How many attempts began another round."""
        return self._count("retries")

    @property
    def fallbacks(self) -> int:
        """How many attempts took the next fallback value."""
        return self._count("fallbacks")

    @property
    def delays(self) -> list[float]:
        """The delays between rounds, in seconds, in order."""
        return [event.delay or 0.0 for event in self.events if event.kind == "retry"]

    @property
    def errors(self) -> list[BaseException]:
        """What the failed attempts raised, in order.

        Errors that the call raises unchanged are not here: those that `retry_on` does not match,
        and those of functions with a single attempt.
        """
        errors: list[BaseException] = []
        for event in self.events:
            known = event.kind == "deadline" and errors and errors[-1] is event.error
            if event.error is not None and not known:
                errors.append(event.error)
        return errors

    def assert_attempts(
        self,
        attempts: int,
        *,
        errors: Sequence[type[BaseException] | BaseException] | None = None,
        delays: Sequence[float] | None = None,
    ) -> None:
        """Assert how many attempts were made, and how they failed.

        Args:
            attempts: How many attempts all functions made together.
            errors: What the failed attempts raised, in order: exceptions, compared by type and
                text, or types, which subclasses match. None skips this check.
            delays: The delays between rounds, in seconds, compared to the millisecond. None skips
                this check.

        Raises:
            AssertionError: If anything differs; the message says what happened.
        """
        wrong = []
        if self.attempts != attempts:
            wrong.append(f"expected {attempts} attempts, but {self.attempts} were made")
        if errors is not None and not _alike(self.errors, errors, _is_like):
            expected = ", ".join(
                each.__name__ if isinstance(each, type) else describe(each) for each in errors
            )
            wrong.append(f"expected errors: {expected or 'none'}")
        if delays is not None and not _alike(self.delays, delays, _is_near):
            expected = ", ".join(f"{each:g} s" for each in delays)
            wrong.append(f"expected delays: {expected or 'none'}")
        if wrong:
            raise AssertionError("; ".join(wrong) + self._story())

    def _story(self) -> str:
        """Return what happened, with a line for each failed attempt."""
        names = ", ".join(sorted(name for _, name in self._names))
        lines = [f"{names}: calls: {self.calls}, hits: {self.hits}, attempts: {self.attempts}"]
        for event in self.events:
            what = {
                "retry": f"retrying in {event.delay or 0.0:g} s",
                "fallback": "trying the next fallback value",
                "give_up": "giving up",
                "deadline": f"out of time: {event.reason}",
            }[event.kind]
            error = "" if event.error is None else f" failed with {describe(event.error)}"
            lines.append(f"attempt {event.attempt} of {event.of}{error}; {what}")
        return "".join(f"\n  {line}" for line in lines)


@contextmanager
def record_attempts(*functions: Callable[..., Any]) -> Iterator[AttemptsRecord]:
    """Record the attempts of some decorated functions.

    Args:
        *functions: Decorated functions, methods and maps, and functions that contain blocks of
            `opero.attempts`. Calls in all threads count. Failures and blocks are matched by the
            functions' names.

    Raises:
        TypeError: If you pass no function, or something that is not one.
    """
    if not functions:
        raise TypeError("record_attempts() needs at least one decorated function")
    stop = roster.read_figures()
    try:
        record = AttemptsRecord(functions)
        end = subscribe(record._hear, "retry", "fallback", "give_up", "deadline")
        try:
            yield record
        finally:
            end()
            record._close()
    finally:
        stop()


def _source_of(function: Any) -> tuple[tuple[str, str], Any]:
    """Return a function's name in events, and its state if it is decorated."""
    held: Any = getattr(function, "__opero__", None)
    if held is not None:
        state = getattr(held, "call", held)  # a map counts in the state of its item function
        return roster.name_of(state.origin), state
    if not hasattr(function, "__code__"):
        raise TypeError(f"record_attempts() needs functions, not {function!r}")
    return (function.__module__ or "", function.__qualname__), None


def _alike(
    found: Sequence[Any], expected: Sequence[Any], is_like: Callable[[Any, Any], bool]
) -> bool:
    return len(found) == len(expected) and all(map(is_like, found, expected))


def _is_like(error: BaseException, expected: type[BaseException] | BaseException) -> bool:
    if isinstance(expected, type):
        return isinstance(error, expected)
    return type(error) is type(expected) and str(error) == str(expected)


def _is_near(delay: float, expected: float) -> bool:
    return abs(delay - expected) < 0.001
