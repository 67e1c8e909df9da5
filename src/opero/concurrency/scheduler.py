"""What runs next: the logic of a map, with no thread, process, event loop or clock of its own.

    feed -> answered from the cache -> results
         -> waiting in line -> assign -> (an engine runs it) -> report -> results
                                 ^                                | failed
                                 |                                v
                                 '--- due --- waiting in a heap --'

The driver pulls the input and keeps the time; engines run jobs and say what came of each. In
between, everything that makes a map a map is decided here: how far the input is read ahead, which
items share one run, when a failed one is tried again, whose turn a permit is, in which order
results are handed on.

A million items that neither fail nor are cached cost no object each: what is counted, timed, sent
and handed on is a `Span` of neighbouring items.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Any

from opero.core.clock import NEVER
from opero.shells.verdicts import judge, misfits, too_late

NOTHING: Any = object()
"""Stands in a list of results where there is none."""


class Span:
    """Neighbouring items, from their arrival until their results are handed on.

    Attributes:
        values: The items.
        results: What came of each, `NOTHING` where that is not known; None before any is.
        missing: How many results are not known.
    """

    __slots__ = ("missing", "results", "values")

    def __init__(self, values: list[Any]) -> None:
        self.values = values
        self.results: list[Any] | None = None
        self.missing = len(values)


class Trial:
    """An item that has failed and will be tried again.

    Attributes:
        attempts: The account of its failures.
        deadline: When its last attempt has to have begun, in nanoseconds.
    """

    __slots__ = ("attempts", "deadline")

    def __init__(self, attempts: Any, deadline: int) -> None:
        self.attempts = attempts
        self.deadline = deadline


class Job:
    """Attempts for one worker to make, one after the other.

    Attributes:
        span: Where the items stand.
        offsets: Their places in it.
        values: The items: each is called as `function(value, **shared)`.
        call: The arguments of the one attempt instead, if a fallback value takes a place in them.
        trial: The account of the one item, if it has failed before.
        started: When it was handed out, in nanoseconds.
    """

    __slots__ = ("call", "offsets", "span", "started", "trial", "values")

    def __init__(self, span: Span, offsets: Any, values: list[Any], trial: Trial | None) -> None:
        self.span = span
        self.offsets = offsets
        self.values = values
        self.trial = trial
        self.call: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.started = 0


class Scheduler:
    """One map over one input.

    Attributes:
        call: The decorated function of one item: its options, its cache, its figures.
        shared: The keyword arguments that every item's call gets.
        sizer: Says how many items to hand out at once, and is told how long they took.
        window: How many items may have been read and not handed on, if four chunks for each worker
            are not more; 0 for no bound.
        ordered: Whether results are handed on in the order of the input.
        buckets: The permits, of each slot or of all; None without a rate limit.
        alike: Whether what one slot does not get, no other gets.
        read: How many items have been fed.
        settled: How many have their final result.
        handed: How many results have been collected.
        failed: How many final results are failures.
        retried: How many attempts were made because another failed.
        first_failure: The first final failure, if any.
        closed: Whether the input has ended.
    """

    def __init__(
        self,
        call: Any,
        shared: dict[str, Any],
        sizer: Any,
        window: int,
        ordered: bool,
        buckets: list[Any] | None = None,
    ) -> None:
        self.call = call
        self.shared = shared
        self.sizer = sizer
        self.window = window
        self.ordered = ordered
        self.buckets = buckets
        self.alike = buckets is None or len(buckets) == 1
        self.read = self.settled = self.handed = self.failed = self.retried = 0
        self.first_failure: BaseException | None = None
        self.closed = False
        self._careful = call.store is not None or call.fallback is not None
        self._line: deque[Job] = deque()
        self._heap: list[tuple[int, int, Job]] = []
        self._serial = 0
        self._order: deque[Span] = deque()
        self._ready: list[Any] = []
        self._running: dict[Any, list[tuple[Span, int]]] = {}
        self._keys: dict[tuple[int, int], Any] = {}
        self._permits: dict[int, int] = {}

    # --- the input ------------------------------------------------------------------------------

    def demand(self) -> int:
        """Return how many more items to feed now; 0 while there is work in line, or no room."""
        if self.closed or self._line:
            return 0
        size: int = self.sizer.size()
        if self.buckets is not None or self.call.timeout:
            size = 1  # each is to start when it is handed out
        if not self.window:
            return size
        window = max(self.window, 4 * self.sizer.workers * size)
        room: int = window - (self.read - self.handed)
        return max(0, min(size, room))

    def feed(self, values: list[Any]) -> None:
        """Take items in: the next ones of the input, in order.

        Raises:
            CacheKeyError: If the arguments of one make no key.
        """
        if not values:
            return
        span = Span(values)
        self.read += len(values)
        self.sizer.fed(len(values))
        self.call.calls += len(values)
        if self.ordered:
            self._order.append(span)
        if not self._careful:
            self._line.append(Job(span, range(len(values)), values, None))
            return
        span.results = [NOTHING] * len(values)
        offsets = [offset for offset in range(len(values)) if self._needs_a_run(span, offset)]
        if offsets:
            self._line.append(Job(span, offsets, [values[offset] for offset in offsets], None))

    def close(self) -> None:
        """Take note that the input has ended."""
        self.closed = True

    def _needs_a_run(self, span: Span, offset: int) -> bool:
        """Look for an item's result in the cache and among the runs under way."""
        call = self.call
        args = (span.values[offset],)
        if call.fallback is not None:
            try:
                call.fallback.check(call.fallback.given(args, self.shared))
            except ValueError as error:
                self._settle(span, offset, error, True)
                return False
        if call.store is None:
            return True
        store, key = call._locate(args, self.shared)
        entry = store.find(key)
        if entry is not None:
            call.hits += 1
            self._settle(span, offset, entry.value, False)
            return False
        call.misses += 1
        key = call.binding.freezer.keep(key)
        followers = self._running.get(key)
        if followers is not None:
            followers.append((span, offset))
            return False
        self._running[key] = []
        self._keys[id(span), offset] = key
        return True

    # --- work out ---------------------------------------------------------------------------------

    def assign(self, slot: int, now: int) -> Job | None:
        """Return what the idle worker `slot` is to do, or None if there is nothing for it yet.

        Args:
            slot: Which worker asks, counted from 0.
            now: The time in nanoseconds.
        """
        self._permits.pop(slot, None)
        job = None
        while job is None:
            due = bool(self._heap) and self._heap[0][0] <= now
            if not due and not self._line:
                return None
            job = self._heap[0][2] if due else self._line[0]
            wait = 0
            if self.buckets is not None and not (job.trial and now >= job.trial.deadline):
                wait = self.buckets[slot % len(self.buckets)].take(now)
            late = self._is_too_late(job, now + wait)
            if wait and not late:
                self._permits[slot] = now + wait
                return None
            self._leave(due)
            if late:
                job = None
        if self.buckets is not None and len(job.values) > 1:
            rest = _part(job, range(1, len(job.values)))
            job = _part(job, range(1))
            self._line.appendleft(rest)
        job.started = now
        self.call.attempted += len(job.values)
        return job

    def _leave(self, due: bool) -> None:
        """Take the first job out of the heap, or out of the line."""
        if due:
            heappop(self._heap)
        else:
            self._line.popleft()

    def _is_too_late(self, job: Job, then: int) -> bool:
        """Settle an item whose deadline passes before it can have a worker and its permit."""
        if job.trial is None or then < job.trial.deadline:
            return False
        what = "no worker, or no rate-limit permit, was free in time"
        self._settle(job.span, job.offsets[0], too_late(self.call, job.trial.attempts, what), True)
        return True

    def wake(self, now: int) -> int:
        """Return when an idle worker may get something that it does not get now.

        Args:
            now: The time in nanoseconds.

        Returns:
            Nanoseconds; `NEVER` if only a report or more input can change that.
        """
        retry = self._heap[0][0] if self._heap else NEVER
        if self._permits and (self._line or retry <= now):
            return min(self._permits.values())
        return retry

    # --- outcomes in ------------------------------------------------------------------------------

    def report(
        self, job: Job, results: list[Any], failures: list[tuple[int, BaseException]], elapsed: int
    ) -> None:
        """Take in what came of a job.

        Args:
            job: The job.
            results: What each attempt returned; anything where one failed.
            failures: The failed ones: the place in the job, and what was raised.
            elapsed: How long the job ran, in nanoseconds.
        """
        self.sizer.observe(len(job.values), elapsed)
        self._take_in(job, results, failures)

    def crash(
        self,
        job: Job,
        results: list[Any],
        failures: list[tuple[int, BaseException]],
        at: int | None,
        error: BaseException,
    ) -> None:
        """Take in that a worker has died in the middle of a job.

        Args:
            job: The job.
            results: What the first attempts returned, as far as it is known.
            failures: The failed ones among them.
            at: The place of the attempt that was under way; None if it died between two.
            error: What became of the worker. It counts as the failure of that attempt.
        """
        known = len(results)
        again = [place for place in range(known, len(job.values)) if place != at]
        self._take_in(_part(job, range(known)), results, failures)
        if at is not None:
            self._take_in(_part(job, [at]), [NOTHING], [(0, error)])
        if again:
            self._line.appendleft(_part(job, again))

    def _take_in(
        self, job: Job, results: list[Any], failures: list[tuple[int, BaseException]]
    ) -> None:
        span = job.span
        if span.results is None and len(job.values) == len(span.values) and not failures:
            span.results = results  # the way of nearly all items
            span.missing = 0
            self.settled += len(results)
            if not self.ordered:
                self._ready += results
            return
        if span.results is None:
            span.results = [NOTHING] * len(span.values)
        failed = dict(failures)
        for place, offset in enumerate(job.offsets):
            if place in failed:
                self._fail(job, span, offset, failed[place])
            else:
                self._settle(span, offset, results[place], False)

    def _fail(self, job: Job, span: Span, offset: int, error: BaseException) -> None:
        """Try an item again later, or settle its failure."""
        call = self.call
        args: tuple[Any, ...] = (span.values[offset],)
        kwargs = self.shared
        if misfits(call, error, args, kwargs) or getattr(error, "beyond_retry", False):
            self._settle(span, offset, error, True)
            return
        given: Any = None
        trial = job.trial
        if trial is None:
            width = 1
            if call.fallback is not None:
                given = call.fallback.given(args, kwargs)
                width = call.fallback.check(given)
            deadline = job.started + call.timeout if call.timeout else NEVER
            trial = Trial(call.policy.attempts(width), deadline)
        failure = judge(call, trial.attempts, error, trial.deadline)
        if failure is not None:
            self._settle(span, offset, failure, True)
            return
        self.retried += 1
        again = Job(span, [offset], [span.values[offset]], trial)
        if call.fallback is not None:
            given = call.fallback.given(args, kwargs)
            value = call.fallback.choice(given, trial.attempts.value)
            again.call = call.fallback.place(args, kwargs, value)
        self._serial += 1
        due = call.clock.now() + trial.attempts.delay
        heappush(self._heap, (due, self._serial, again))

    def _settle(self, span: Span, offset: int, outcome: Any, failed: bool) -> None:
        """Make an item's outcome final, and that of all that wait for it."""
        self._place(span, offset, outcome, failed)
        key = self._keys.pop((id(span), offset), NOTHING)
        if key is NOTHING:
            return
        if not failed:
            store = self.call.store
            entry = self.call.reserve(store, key)
            if entry is not None:
                store.fill(entry, outcome)
        for other, place in self._running.pop(key):
            self._place(other, place, outcome, failed)

    def _place(self, span: Span, offset: int, outcome: Any, failed: bool) -> None:
        assert span.results is not None
        assert span.results[offset] is NOTHING
        span.results[offset] = outcome
        span.missing -= 1
        self.settled += 1
        if failed:
            self.failed += 1
            if self.first_failure is None:
                self.first_failure = outcome
        if not self.ordered:
            self._ready.append(outcome)

    # --- results ----------------------------------------------------------------------------------

    def collect(self) -> list[Any]:
        """Return the results that can be handed on now; each is returned once."""
        if self.ordered:
            ready: list[Any] = []
            while self._order and self._order[0].missing == 0:
                done = self._order.popleft()
                assert done.results is not None
                ready += done.results
        else:
            ready, self._ready = self._ready, []
        self.handed += len(ready)
        return ready

    @property
    def over(self) -> bool:
        """Whether the input has ended and every item has its final result."""
        return self.closed and self.settled == self.read


def _part(job: Job, places: Any) -> Job:
    """Return a job of some of a job's items."""
    part = Job(
        job.span,
        [job.offsets[place] for place in places],
        [job.values[place] for place in places],
        job.trial,
    )
    part.call = job.call
    part.started = job.started
    return part
