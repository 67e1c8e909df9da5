"""What runs next: the logic of a map, with no thread, process, event loop or clock of its own.

    feed -> answered from the cache -> results
         -> queued -> assign -> (an engine runs it) -> report -> results
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
from typing import Any, Final, cast

from opero.core.clock import NEVER
from opero.core.gate import FAILED, NEUTRAL, SUCCEEDED, WITHDRAWN
from opero.core.outcomes import conclude, judge, misfits, outcome_of, pause_after, too_late
from opero.exceptions import AttemptTimeout, NotRun, OperoError
from opero.logs import warn
from opero.once_only import error_of, is_once_only
from opero.tracebacks import without_top

from .error_limit import ErrorLimit
from .gates import MapGates
from .invocation import Arguments
from .item_history import ItemHistory, history_of
from .output import NOTHING, Output, Span
from .sharing import SharedRun, SharedRuns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.fallback import Fallback
    from opero.core.state import State
    from opero.core.store import MemoryStore
    from opero.stores.stored_cache import StoredCache

_STRIDE = 1024

AHEAD: Final = 16
"""How many items for each worker are read ahead, if chunks are small."""

LIMIT: Final = 64 << 20
"""How many bytes of items stand between the input and the consumer, unless `exact`."""

FOR_EVER: Final = 1 << 62
"""More bytes than there are."""


class Trial:
    """An item that has failed and will be tried again.

    Attributes:
        attempts: The account of its failures.
        deadline: When its last attempt must have begun, in nanoseconds.
        history: What is told of it at its end; None if nobody listens.
    """

    __slots__ = ("attempts", "deadline", "history")

    def __init__(self, attempts: Any, deadline: int, history: ItemHistory | None) -> None:
        self.attempts: Any = attempts
        self.deadline: int = deadline
        self.history: ItemHistory | None = history

    def over(self, error: BaseException | None) -> None:
        """Tell that the item has its final result, or has failed for good."""
        if self.history is not None:
            self.history.end(self.attempts, error)


class PredicateError(Exception):
    """Carries what `retry_on_result` has raised: it is final, whatever `retry_on` says.

    Attributes:
        error: What it has raised.
    """

    def __init__(self, error: BaseException) -> None:
        """Carry `error`."""
        super().__init__(error)
        self.error = error


class Job:
    """Attempts for one worker to make, one after the other.

    Attributes:
        span: Where the items stand.
        offsets: Their places in it.
        values: What to call the function with: the items, or an `Invocation` for each.
        invoked: Whether they are invocations.
        trial: The account of the one item, if it has failed before.
        deadline: When an attempt that can be cut must be over, in nanoseconds.
        entered: Which slot passed the gates, when, and with which tickets, if a gate wants to know
            what comes of it; it is a single item then.
        began: When it was handed out, in nanoseconds.
        waited: Nanoseconds that it had to wait at the gates.
    """

    __slots__ = (
        "began",
        "deadline",
        "entered",
        "invoked",
        "offsets",
        "span",
        "trial",
        "values",
        "waited",
    )

    def __init__(self, span: Span, offsets: Any, values: list[Any], trial: Trial | None) -> None:
        self.span: Span = span
        self.offsets: Any = offsets
        self.values: list[Any] = values
        self.trial: Trial | None = trial
        self.invoked: bool = False
        self.deadline: int = NEVER
        self.entered: tuple[int, int, list[int]] | None = None
        self.began: int = 0
        self.waited: int = 0


class Scheduler:
    """One map over one input.

    Attributes:
        call: The decorated function of one item: its options, its cache, its figures.
        shared: The keyword arguments that every item's call gets.
        sizer: Says how many items to hand out at once, and is told how long they took.
        window: How many items may stand between the input and the consumer, if four chunks for each
            worker are not more; 0 for no bound.
        exact: Whether there may not be more for the sake of chunks, but any number of bytes.
        output: Where the results go.
        gates: What items pass before they are handed out; None without.
        leading: What the calls get before the item: the instance of a method, or its class.
        unpack: Whether an item holds the arguments of its call.
        alike: Whether what one slot does not get, no other gets.
        width: How many items of a job begin at once.
        read: How many items have been fed.
        attempts: How many attempts were made.
        retried: How many attempts were made because another failed.
        closed: Whether the input has ended.
        stopped: Whether too many items have failed, so that nothing more is handed out.
        unread: Whether that has cut the input off.
        elapsed: How long the map took, in nanoseconds, once it is over.
    """

    def __init__(
        self,
        call: State,
        shared: dict[str, Any],
        sizer: Any,
        window: int,
        ordered: bool,
        gates: MapGates | None = None,
        width: int = 1,
        leading: tuple[Any, ...] = (),
        unpack: bool = False,
        pairs: bool = False,
        max_errors: float | None = None,
        exact: bool = False,
        streamed: bool = True,
    ) -> None:
        self.call = call
        self.shared = shared
        self.sizer = sizer
        self.window = window
        self.exact = exact
        self.output: Output = Output(call.name, ordered, pairs, streamed)
        self.gates = gates
        self.leading = leading
        self.unpack = unpack
        self._arguments = Arguments(leading, shared, unpack)
        self.alike: bool = gates is None or gates.alike
        self.width = width
        self.read: int = 0
        self.attempts: int = 0
        self.retried: int = 0
        self.closed: bool = False
        self.stopped: bool = False
        self.unread: bool = False
        self.elapsed: int = 0
        self._limit: ErrorLimit | None = None
        if max_errors is not None:
            self._limit = ErrorLimit(max_errors, call.name, self.output)
        self._finite: bool = sizer.left >= 0
        self._stored = call.stored_cache is not None
        cached = self._stored or call.store is not None
        self._plain = not cached and call.fallback is None
        # an attempt gets a copy of the list that holds its fallback values: the item, or another
        fallback = call.fallback
        named = fallback is not None and fallback.listed is None
        placed = fallback is not None and fallback.position == len(leading)
        self._copies = named and placed and not unpack
        self._fallback = cast("Fallback", fallback)  # looked at only if there is one
        self._values = cast("StoredCache", call.stored_cache)  # as this is
        self._lends = named and not self._copies
        self._rejects: bool = call.policy.rejects is not None
        self._runs = SharedRuns(call) if cached else None
        self._leaders: dict[tuple[int, int], SharedRun] = {}
        self._queue: deque[Job] = deque()
        self._heap: list[tuple[int, int, Job]] = []
        self._serial = 0
        self._stride = 1  # how many items to look up at once: more and more while all are known
        self._permits: dict[int, int] = {}
        self._refused: dict[int, int] = {}

    # --- the input ------------------------------------------------------------------------------

    def demand(self) -> int:
        """Return how many more items to feed now; 0 while there is work queued, or no room."""
        if self.closed or self._queue:
            return 0
        size = _STRIDE if self.stopped else max(self._chunk(), self._stride)
        if not self.window:
            return size
        if self.exact:
            size = min(size, max(1, self.window // (2 * self.sizer.workers)))
        return max(0, min(size, self.output.passed + self._width_of(size) - self.read))

    def reach(self) -> tuple[int, int]:
        """Return how many items, and how many bytes of items, may have been read by now in all.

        Those that are read and not fed yet count, too.
        """
        size = _STRIDE if self.stopped else max(self._chunk(), self._stride)
        items = self.output.passed if self.window else self.read
        return items + self._width_of(size), FOR_EVER if self.exact else self.output.gone + LIMIT

    def _width_of(self, size: int) -> int:
        """Return how many items may stand in between, with chunks of a size."""
        if self.exact:
            return self.window
        workers: int = self.sizer.workers
        return max(self.window or AHEAD * workers, 4 * workers * size)

    def arguments(self, item: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of an item's call; see `Arguments.of`."""
        return self._arguments.of(item)

    def _checked_arguments(self, span: Span, offset: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of an item's call; if it has none, the error says which it is."""
        try:
            return self.arguments(span.values[offset])
        except TypeError as error:
            raise TypeError(f"{self.call.name}: item {span.first + offset}: {error}") from None

    def _chunk(self) -> int:
        """Return how many items to hand out at once."""
        if self.gates is not None:
            return 1  # as each passes them
        size: int = self.sizer.size()
        if self.call.timeout:
            size = min(size, self.width)  # their time begins when they are handed out
        return size

    def feed(
        self,
        values: list[Any],
        weight: int = 0,
        known: list[tuple[Any, Any]] | None = None,
        landed: int = 0,
    ) -> None:
        """Take items in: the next ones of the input, in order.

        Args:
            values: The items.
            weight: How many bytes they take up.
            known: If values are stored outside the process, what `StoredItems.look` found out.
            landed: How many values of this map had been stored before that.
        """
        if not values:
            return
        span = Span(values, self.read, weight)
        self.read += len(values)
        self.sizer.fed(len(values))
        self.output.expect(span)
        if self.stopped:
            span.results = [NOTHING] * len(values)
            for offset in range(len(values)):
                self._leave_out(span, offset)
            return
        self.call.add("calls", len(values))
        if self._plain and self._queue_whole(span):
            return
        span.results = [NOTHING] * len(values)
        offsets = [
            offset for offset in range(len(values)) if self._needs_a_run(span, offset, known)
        ]
        if self._stored:
            assert self._runs is not None
            self._runs.forget(landed)
        self._stride = 1 if offsets else min(2 * len(values), _STRIDE)
        if self._lends:
            offsets = [offset for offset in offsets if not self._lend(span, offset)]
        size = self._chunk()
        for first in range(0, len(offsets), size):
            job = self._job(span, offsets[first : first + size])
            if self._copies:
                job.values = [self._fallback.choice(item, 0) for item in job.values]
            self._queue.append(job)

    def _queue_whole(self, span: Span) -> bool:
        """Queue the items of a span as one job, if nothing is wrong with any."""
        if not self.unpack:
            self._queue.append(Job(span, range(len(span.values)), span.values, None))
            return True
        try:
            self._queue.append(self._job(span, range(len(span.values))))
        except Exception:  # noqa: BLE001 - a row, or a mapping, of the user's may raise anything
            return False
        return True

    def _job(self, span: Span, offsets: Any, trial: Trial | None = None) -> Job:
        """Return a job of some of a span's items."""
        job = Job(span, offsets, [span.values[offset] for offset in offsets], trial)
        if self.unpack:
            arguments = self._arguments
            job.values = [arguments.invocation(*arguments.of(item)) for item in job.values]
            job.invoked = True
        return job

    def _lend(self, span: Span, offset: int) -> bool:
        """Queue an item with a copy of the list that holds its values, if there is one."""
        fallback = self._fallback
        given = fallback.given(*self.arguments(span.values[offset]))
        first = fallback.choice(given, 0)
        if first is given:
            return False
        self._queue.append(self._job_with(span, offset, first))
        return True

    def _job_with(self, span: Span, offset: int, value: Any, trial: Trial | None = None) -> Job:
        """Return a job of one item that is called with a fallback value."""
        arguments = self.arguments(span.values[offset])
        args, named = self._fallback.place(*arguments, value)
        behind = len(self.leading)
        job = Job(span, [offset], [args[behind]] if args[behind:] else [], trial)
        if self.unpack or len(args) > behind + 1 or named is not self.shared:
            job.values = [self._arguments.invocation(args, named)]
            job.invoked = True
        return job

    def close(self) -> None:
        """Take note that the input has ended."""
        self.closed = True

    def end(self) -> None:
        """Leave nothing behind, whether the map is over or not."""
        self.closed = True
        if self._runs is not None:
            self._runs.close()
        self._withdraw()
        for held in (self._queue, self._heap, self._leaders, self.output):
            held.clear()

    def _needs_a_run(self, span: Span, offset: int, known: Any) -> bool:
        """Return whether an item has to run; one without a key or fallback values fails alone."""
        try:
            return self._is_new(span, offset, known)
        except Exception as error:  # noqa: BLE001 - keys, and `cache_key`, may raise anything
            self._settle(span, offset, without_top(error), True)
            return False

    def _is_new(self, span: Span, offset: int, known: Any) -> bool:
        """Look for an item's result in the cache and among the runs under way."""
        call = self.call
        args, kwargs = self._checked_arguments(span, offset)
        if call.fallback is not None:
            call.fallback.check(call.fallback.given(args, kwargs))
        if self._runs is None:
            return True
        stored = None
        store: StoredCache | MemoryStore
        if self._stored:
            store = self._values
            stored, entry = known[offset]
            if isinstance(stored, Exception):
                raise stored
            key = stored.full
            fresh = entry is not None and store.is_fresh(entry, call.clock)
        else:
            store, key = call.locate(args, kwargs)
            entry = store.find(key)
            fresh = entry is not None
        if fresh:
            call.add("hits", 1)
            if call.events.heeded:
                call.events.hit(call)
            self._settle(span, offset, entry.value, False)
            return False
        run = self._runs.find(key) if self._stored else None
        if run is not None and run.landed:  # the look was too early to find it
            call.add("hits", 1)
            if call.events.heeded:
                call.events.hit(call)
            self._settle(span, offset, run.value, False)
            return False
        call.add("misses", 1)
        if call.events.heeded:
            call.events.miss(call)
        if not self._stored:
            key = call.lasting(key)
            run = self._runs.find(key)
        if run is not None:
            run.followers.append((span, offset))
            return False
        self._leaders[id(span), offset] = self._runs.begin(store, key, stored, entry)
        return True

    def to_store(self) -> list[tuple[Any, Any]]:
        """Return the stored keys and values that have come up since this was asked last."""
        if self._runs is None or not self._runs.kept:
            return []
        kept, self._runs.kept = self._runs.kept, []
        return kept

    # --- work out ---------------------------------------------------------------------------------

    def assign(self, slot: int, now: int) -> Job | None:
        """Return what the idle worker `slot` is to do, or None if there is nothing for it yet.

        Args:
            slot: Which worker asks, counted from 0.
            now: The time in nanoseconds.
        """
        self._permits.pop(slot, None)
        if self._limit is not None and self._has_stopped(self._limit):
            return None
        job = None
        while job is None:
            due = bool(self._heap) and self._heap[0][0] <= now
            if not due and not self._queue:
                self._refused.pop(slot, None)
                self._withdraw()
                return None
            job = self._heap[0][2] if due else self._queue[0]
            wait = 0
            if self.gates is not None and not (job.trial and now >= job.trial.deadline):
                wait = self.gates.enter(slot, now)
            late = self._is_too_late(job, now + wait)
            if wait and not late:
                self._permits[slot] = now + wait
                self._refused.setdefault(slot, now)
                return None
            self._take_out(due)
            if late:
                job = None
        call = self.call
        if self.gates is not None:
            waited = now - self._refused.pop(slot, now)
            call.add("permit_wait", waited)
            if call.events.heeded:
                call.events.permit(call, waited / 1e9)
            if len(job.values) > 1:  # the gates have let in one
                self._queue.appendleft(_part(job, range(1, len(job.values))))
                job = _part(job, range(1))
            job.waited = waited
            if self.gates.observed:
                job.entered = slot, now, self.gates.tickets(slot)
        if job.trial is not None:
            job.deadline = job.trial.deadline
        elif call.timeout:
            job.deadline = now + call.timeout
        job.began = now
        call.add("attempts", len(job.values))
        self.attempts += len(job.values)
        return job

    def _take_out(self, due: bool) -> None:
        """Take the first job out of the heap, or out of the queue."""
        if due:
            job = heappop(self._heap)[2]
            assert job.trial is not None
            self.call.add("backoff_wait", job.trial.attempts.delay)
        else:
            self._queue.popleft()

    def _withdraw(self) -> None:
        """Let others pass the gates at which nobody here waits any more."""
        if self.gates is not None:
            self.gates.withdraw()

    def _is_too_late(self, job: Job, then: int) -> bool:
        """Settle an item whose deadline passes before it can have a worker and its permit."""
        if job.trial is None or then < job.trial.deadline:
            return False
        what = "no worker, or no rate-limit permit, was free in time"
        late = too_late(self.call, job.trial.attempts, what)
        job.trial.over(late)
        self._settle(job.span, job.offsets[0], late, True)
        return True

    def wake(self, now: int) -> int:
        """Return when an idle worker may get something that it does not get now.

        Args:
            now: The time in nanoseconds.

        Returns:
            Nanoseconds; `NEVER` if only a report or more input can change that.
        """
        retry = self._heap[0][0] if self._heap else NEVER
        if self._permits and (self._queue or retry <= now):
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
        if self._rejects:
            failures = self._with_rejected(results, failures)
        if job.entered is not None and not failures:
            self._leave_gates(job, SUCCEEDED)
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
        if self._rejects:
            failures = self._with_rejected(results, failures)
        if job.entered is not None and not failures:
            if known:
                self._leave_gates(job, SUCCEEDED)
            elif at is None:
                self._leave_gates(job, WITHDRAWN)
        again = [place for place in range(known, len(job.values)) if place != at]
        first = known if at is None else at + 1
        unbegun = len(job.values) - first
        self.call.add("attempts", -unbegun)
        self.attempts -= unbegun
        self._take_in(_part(job, range(known)), results, failures)
        if at is not None:
            self._take_in(_part(job, [at]), [NOTHING], [(0, error)])
        if again:
            self._queue.appendleft(_part(job, again))

    def _leave_gates(self, job: Job, outcome: int) -> None:
        """Tell the gates how an attempt has ended, if they want to know and do not know yet."""
        if job.entered is not None:
            assert self.gates is not None
            slot, entered, tickets = job.entered
            job.entered = None
            self.gates.leave(slot, outcome, entered, tickets)

    def _with_rejected(
        self, results: list[Any], failures: list[tuple[int, BaseException]]
    ) -> list[tuple[int, BaseException]]:
        """Return the failures of a job, with those of values that `retry_on_result` rejects."""
        failed = dict(failures)
        for place, value in enumerate(results):
            if place not in failed:
                error: BaseException | None
                try:
                    error = self.call.policy.rejection(value)
                except Exception as broken:  # noqa: BLE001 - the user's; it is this item's alone
                    error = PredicateError(without_top(broken))
                if error is not None:
                    failed[place] = error
        return list(failed.items())

    def _take_in(
        self, job: Job, results: list[Any], failures: list[tuple[int, BaseException]]
    ) -> None:
        span = job.span
        if span.results is None and len(job.values) == len(span.values) and not failures:
            self.output.take(span, results)  # the way of nearly all items
            return
        if span.results is None:
            span.results = [NOTHING] * len(span.values)
        failed = dict(failures)
        for place, offset in enumerate(job.offsets):
            if place in failed:
                self._fail(job, span, offset, failed[place])
            else:
                if job.trial is not None:
                    self._note(job, job.trial, None)
                    job.trial.over(None)
                self._settle(span, offset, results[place], False)

    def _note(self, job: Job, trial: Trial, error: BaseException | None) -> None:
        """Note an attempt of an item whose history is wanted."""
        if trial.history is not None:
            trial.history.note(job.began, job.waited, trial.attempts.delay, error)

    def _fail(self, job: Job, span: Span, offset: int, error: BaseException) -> None:
        """Try an item again later, or settle its failure."""
        failure: BaseException | None
        try:
            failure = self._judge(job, span, offset, error)
        except Exception as broken:  # noqa: BLE001 - `retry_on`, say; it is this item's alone
            failure = without_top(broken)
            if failure is not error and failure.__context__ is None:
                BaseException.__setattr__(failure, "__context__", error)  # it may be frozen
        finally:
            self._leave_gates(job, NEUTRAL)
        if failure is not None:
            if job.trial is not None:
                job.trial.over(failure)
            self._settle(span, offset, failure, True)

    def _judge(
        self, job: Job, span: Span, offset: int, error: BaseException
    ) -> BaseException | None:
        """Put an item in the heap for another attempt, or return its final failure."""
        call = self.call
        args, kwargs = self.arguments(span.values[offset])
        if misfits(call, error, args, kwargs):
            return error
        if isinstance(error, PredicateError):
            return error.error
        given: Any = None
        width = 1
        if call.fallback is not None:
            given = call.fallback.given(args, kwargs)
            width = call.fallback.check(given)
        if vars(error).get("beyond_retry", False) and (width == 1 or isinstance(error, OperoError)):
            call.add("failures", 1)  # an item with another fallback value may do, an executor not
            return error
        trial = job.trial
        if trial is None:
            history = history_of(call, job.began)
            trial = Trial(call.policy.attempts(width), job.deadline, history)
            trial.attempts.index = span.first + offset
        self._note(job, trial, error)
        if isinstance(error, AttemptTimeout) and call.clock.now() >= job.deadline:
            self._leave_gates(job, FAILED)
            return too_late(call, trial.attempts, "an attempt was still running then")
        verdict = judge(call, trial.attempts, error, trial.deadline)
        if job.entered is not None:
            self._leave_gates(job, outcome_of(trial.attempts, error))
        failure = conclude(call, trial.attempts, error, verdict)
        if self.gates is not None:
            pause = pause_after(call, trial.attempts)
            if pause:
                self.gates.pause(pause)
        if failure is not None:
            return failure
        if call.fallback is None:
            again = self._job(span, [offset], trial)
        else:
            value = call.fallback.choice(given, trial.attempts.value)
            again = self._job_with(span, offset, value, trial)
        self.retried += 1
        self._serial += 1
        due = call.clock.now() + trial.attempts.delay
        heappush(self._heap, (due, self._serial, again))
        return None

    def _settle(self, span: Span, offset: int, outcome: Any, failed: bool) -> None:
        """Make an item's outcome final, and that of all that wait for it."""
        run = self._leaders.pop((id(span), offset), None)
        served = False
        if failed and run is not None and run.stale is not None:
            served = self._values.serves_stale(self.call, run.stale, outcome)
            if served:
                outcome, failed = run.stale.value, False
        if run is not None and not failed and is_once_only(outcome):
            outcome, failed = error_of(self.call.name, outcome), True
        equal = 0 if run is None else len(run.followers)
        if failed:
            self.output.fail(span, offset, outcome, equal)
        else:
            self.output.place(span, offset, outcome)
        if run is None:
            return
        assert self._runs is not None
        if not failed and not served:
            self._runs.store(run, outcome)
        followers, run.followers = run.followers, []
        if not run.landed:
            self._runs.end(run)
        for other, place in followers:
            if failed:
                self.output.fail(other, place, outcome, None)
            else:
                self.output.place(other, place, outcome)

    # --- too many failures ------------------------------------------------------------------------

    def _has_stopped(self, limit: ErrorLimit) -> bool:
        """Return whether nothing more is handed out; the items that wait are left out then."""
        if not self.stopped:
            nothing_waits = self.closed and not (self._queue or self._heap)
            if nothing_waits or not limit.is_reached():
                return False
            self.stopped = True
            warn("%s: %s, which ends the map", self.call.name, limit.failed)
            if not (self.closed or self._finite):
                self.closed = self.unread = True  # it may be endless
        while self._queue or self._heap:
            job = self._queue.popleft() if self._queue else heappop(self._heap)[2]
            if job.span.results is None:
                job.span.results = [NOTHING] * len(job.span.values)
            for offset in job.offsets:
                self._leave_out(job.span, offset, job.trial)
        self._withdraw()
        return True

    def _leave_out(self, span: Span, offset: int, trial: Trial | None = None) -> None:
        """Let an item stand as one that did not run, or was not tried again."""
        run = self._leaders.pop((id(span), offset), None)
        followers = [] if run is None else run.followers
        if run is not None:
            assert self._runs is not None
            self._runs.end(run)
        assert self._limit is not None
        error = None if trial is None else trial.attempts.errors[-1]
        for each, place in [(span, offset), *followers]:
            self.output.leave_out(each, place, self._limit.not_run(each.first + place, error))

    def rest(self) -> NotRun:
        """Return what stands for the input that was cut off."""
        assert self._limit is not None
        return self._limit.not_run(self.read)

    # --- results ----------------------------------------------------------------------------------

    def collect(self) -> list[Any]:
        """Return the results that can be handed on now; each is returned once."""
        return self.output.collect()

    @property
    def settled(self) -> int:
        """How many items have their final result."""
        return self.output.settled

    @property
    def handed(self) -> int:
        """How many results have been collected."""
        return self.output.handed

    @property
    def over(self) -> bool:
        """Whether the input has ended and every item has its final result."""
        return self.closed and self.output.settled == self.read


def _part(job: Job, places: Any) -> Job:
    """Return a job of some of a job's items."""
    part = Job(
        job.span,
        [job.offsets[place] for place in places],
        [job.values[place] for place in places],
        job.trial,
    )
    part.invoked = job.invoked
    part.deadline = job.deadline
    part.entered = job.entered
    part.began = job.began
    part.waited = job.waited
    return part
