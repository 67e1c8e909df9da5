"""What runs next: the logic of a map, without its own thread, process, event loop or clock.

    feed -> answered from the cache -> results
         -> queued -> assign -> (an engine runs it) -> report -> results
                                 ^                                | failed
                                 |                                v
                    ^            '--- due --- waiting in a heap --'
                    '-- refused by a breaker: held until that lets it in --'

The driver pulls the input and keeps the time; engines run jobs and report their outcomes. The
scheduler decides everything else: how far to read ahead, which items share one run, when to retry a
failed one, who gets the next permit, and in which order to hand results on.

Items that neither fail nor are cached need no object each: the scheduler counts, times, sends and
hands on a `Span` of neighbouring items.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Any, Final, cast

from opero.core.attempts import AGAIN, OPEN
from opero.core.clock import NEVER
from opero.core.gate import FAILED, NEUTRAL, SUCCEEDED, WITHDRAWN
from opero.core.outcomes import (
    conclude,
    judge,
    misfits,
    no_entry,
    outcome_of,
    pause_after,
    pause_queues,
    too_late,
)
from opero.exceptions import AttemptTimeout, NotRun, OperoError
from opero.logs import warn
from opero.once_only import error_of, is_once_only
from opero.runners.lingering import is_due
from opero.runners.refreshes import MemoryRefresh
from opero.stores.stored_refresh import StoredRefresh
from opero.tracebacks import without_top

from .error_limit import ErrorLimit
from .gates import Admission, MapGates
from .item_history import history_of
from .item_jobs import ItemJobs
from .jobs import Job, Trial, part_of
from .output import NOTHING, Output, Span
from .refused import RefusedJobs
from .renewals import Renewals, RenewedItem
from .sharing import SharedRun, SharedRuns
from .spares import MemorySpare, StoredSpare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.gate import GateQueue
    from opero.core.state import State
    from opero.core.store import MemoryStore
    from opero.stores.stored_cache import StoredCache

_STRIDE = 1024

AHEAD: Final = 16
"""How many items to read ahead for each worker, if chunks are small."""

LIMIT: Final = 64 << 20
"""The most bytes of items between the input and the consumer, unless `exact`."""

FOR_EVER: Final = 1 << 62
"""More bytes than there can be: no limit."""

PATIENCE: Final = 20_000_000
"""Nanoseconds after which a failure ends a chunk, if gates observe and the last did not count."""

HELD: Final = 10_000
"""How many refused items to hold before reading stops."""

HEAP, QUEUE, LATER = range(3)
"""Where a job waits that no gate holds: `LATER` is for jobs that renew a value."""


class PredicateError(Exception):
    """Carries what `retry_on_result` raised: it is final, whatever `retry_on` says.

    Attributes:
        error: The exception.
    """

    def __init__(self, error: BaseException) -> None:
        """Carry `error`."""
        super().__init__(error)
        self.error = error


class Scheduler:
    """One map over one input.

    Attributes:
        call: The decorated function of one item: its options, its cache, its figures.
        sizer: Decides how many items to hand out at once, by how long earlier ones took.
        window: The most items between the input and the consumer, or four chunks for each worker
            if that is more; 0 for no limit.
        exact: Whether `window` is exact: no more items, but any number of bytes.
        output: Where the results go.
        gates: What items pass before they are handed out, or None.
        alike: Whether a job that one slot cannot get is not available to any other slot.
        width: How many items of a job begin at once.
        read: How many items have been fed.
        attempts: How many attempts were made.
        retried: How many attempts followed a failed one.
        closed: Whether the input has ended.
        stopped: Whether too many items failed, so that nothing more is handed out.
        unread: Whether that cut the input off.
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
        self.sizer = sizer
        self.window = window
        self.exact = exact
        self.output: Output = Output(call.name, ordered, pairs, streamed)
        self.gates = gates
        self._jobs = ItemJobs(call.fallback, leading, shared, unpack)
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
        breaker = None if gates is None else gates.breaker
        self._observed = gates is not None and gates.observed
        self._apart = breaker is not None and breaker.by_value and not self._jobs.same
        self._values = cast("StoredCache", call.stored_cache)  # used only if there is one
        self._rejects: bool = call.policy.rejects is not None
        self._runs = SharedRuns(call) if cached else None
        self._leaders: dict[tuple[int, int], SharedRun] = {}
        self._doubted: list[tuple[Span, int, Any]] = []  # failed items that may have a stale value
        self._queue: deque[Job] = deque()
        self._heap: list[tuple[int, int, Job]] = []
        self._serial = 0
        self._stride = 1  # how many items to look up at once; grows while all are known
        self._permits: dict[int, int] = {}
        self._refused: dict[int, int] = {}
        self._held = RefusedJobs()
        self._renewals = Renewals()
        self._shut = 0  # until when the first in the queue is refused, and the rest with it
        self._patience = 1  # nanoseconds after which a failure ends a chunk
        self._admitted: dict[int, Job] = {}  # the jobs whose end a gate wants to know

    # --- the input ------------------------------------------------------------------------------

    def demand(self) -> int:
        """Return how many more items to feed now; 0 if work is queued or there is no room."""
        if self.closed or self._queue or self._held.items > HELD:
            return 0
        size = _STRIDE if self.stopped else max(self._chunk(), self._stride)
        if not self.window:
            return size
        if self.exact:
            size = min(size, max(1, self.window // (2 * self.sizer.workers)))
        return max(0, min(size, self.output.passed + self._width_of(size) - self.read))

    def reach(self) -> tuple[int, int]:
        """Return how many items and bytes of items may have been read in total by now.

        Items that were read but not fed yet also count.
        """
        size = _STRIDE if self.stopped else max(self._chunk(), self._stride)
        items = self.output.passed if self.window else self.read
        return items + self._width_of(size), FOR_EVER if self.exact else self.output.gone + LIMIT

    def _width_of(self, size: int) -> int:
        """Return how many items may be between input and consumer, for chunks of a size."""
        if self.exact:
            return self.window
        workers: int = self.sizer.workers
        return max(self.window or AHEAD * workers, 4 * workers * size)

    def arguments(self, item: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of an item's call; see `Arguments.of`."""
        return self._jobs.arguments.of(item)

    def _checked_arguments(self, span: Span, offset: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of an item's call; an error says which item it is."""
        try:
            return self.arguments(span.values[offset])
        except TypeError as error:
            raise TypeError(f"{self.call.name}: item {span.first + offset}: {error}") from None

    def _chunk(self) -> int:
        """Return how many items to hand out at once."""
        if self.gates is not None and (self.gates.counted or self._apart):
            return 1  # as each passes them
        size: int = self.sizer.size()
        if self.call.timeout:
            size = min(size, self.width)  # their timeout starts when they are handed out
        return size

    def feed(
        self,
        values: list[Any],
        weight: int = 0,
        known: list[tuple[Any, Any]] | None = None,
        landed: int = 0,
    ) -> None:
        """Take the next items of the input, in order.

        Args:
            values: The items.
            weight: Their size in bytes.
            known: With a stored cache, what `StoredItems.look` returned.
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
        whole = self._jobs.whole(span) if self._plain else None
        if whole is not None:
            self._queue.append(whole)
            return
        span.results = [NOTHING] * len(values)
        offsets = [
            offset for offset in range(len(values)) if self._needs_a_run(span, offset, known)
        ]
        if self._stored:
            assert self._runs is not None
            self._runs.forget(landed)
        self._stride = 1 if offsets else min(2 * len(values), _STRIDE)
        if self._jobs.lends:
            offsets = [offset for offset in offsets if not self._lend(span, offset)]
        size = self._chunk()
        for first in range(0, len(offsets), size):
            self._queue.append(self._jobs.of(span, offsets[first : first + size]))

    def _lend(self, span: Span, offset: int) -> bool:
        """Queue an item with a copy of the list that holds its values, if there is one."""
        job = self._jobs.lent(span, offset)
        if job is None:
            return False
        self._queue.append(job)
        return True

    def close(self) -> None:
        """Record that the input has ended."""
        self.closed = True

    def end(self) -> None:
        """Clean up, whether the map is over or not."""
        self.closed = True
        if self._runs is not None:
            self._runs.close()
        self._withdraw()
        for job in self._admitted.values():  # they do not come back
            assert self.gates is not None
            assert job.admission is not None
            self.gates.leave(job.admission, NEUTRAL)
        if self.gates is not None:
            self.gates.ignore()
        for held in (
            self._renewals,
            self._queue,
            self._heap,
            self._held,
            self._leaders,
            self._doubted,
            self._admitted,
            self.output,
        ):
            held.clear()

    def _needs_a_run(self, span: Span, offset: int, known: Any) -> bool:
        """Return whether an item must run; one without a key or fallback values fails alone."""
        try:
            return self._is_new(span, offset, known)
        except Exception as error:  # noqa: BLE001 - keys, and `cache_key`, may raise anything
            self._settle(span, offset, without_top(error), True)
            return False

    def _is_new(self, span: Span, offset: int, known: Any) -> bool:
        """Look for an item's result in the cache and among the current runs."""
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
            if not fresh and store.lingers:
                entry = store.look_closer(key)
                fresh = entry is not None and store.is_fresh(entry)
        if fresh:
            call.add("hits", 1)
            if call.events.heeded:
                call.events.hit(call)
            value = entry.value
            self._renew(span, offset, store, key, stored, entry)
            self._settle(span, offset, value, False)
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
        spare: Any = None
        if entry is not None and self._stored:
            spare = StoredSpare(call, self._values, entry)
        elif entry is not None:
            spare = MemorySpare(call, cast("MemoryStore", store), entry)
        self._leaders[id(span), offset] = self._runs.begin(store, key, stored, spare)
        return True

    def _renew(
        self, span: Span, offset: int, store: Any, key: Any, stored: Any, entry: Any
    ) -> None:
        """Schedule another run of an item, later, if its value is about to expire."""
        call = self.call
        if self._stored:
            if not store.is_early(entry, call.clock):
                return
        elif not (store.lingers and is_due(store, entry)):
            return
        assert self._runs is not None
        key = key if self._stored else call.lasting(key)
        if self.stopped or self._runs.find(key) is not None:
            return
        args, kwargs = self.arguments(span.values[offset])
        renewal: Any
        if self._stored:
            renewal = StoredRefresh(store, call, stored, entry, args, kwargs)
        else:
            renewal = MemoryRefresh(call, store, entry, args, kwargs)
        if not self._renewals.claim(renewal):
            return
        item = RenewedItem(span.values[offset], span.first + offset, renewal)
        try:
            job = self._jobs.first(item, 0)
            self._leaders[id(item), 0] = self._runs.begin(store, key, stored)
        except BaseException:
            self._renewals.drop(renewal)
            raise
        self._renewals.waiting.append(job)

    def to_store(self) -> list[tuple[Any, Any]]:
        """Return the keys and values to store since the last call."""
        if self._runs is None or not self._runs.kept:
            return []
        kept, self._runs.kept = self._runs.kept, []
        return kept

    def in_doubt(self) -> list[tuple[Any, Any]]:
        """Return the stored keys and the stale entries of failed items.

        `confirm` settles them with what the store has now.
        """
        runs = [self._leaders[id(span), offset] for span, offset, _ in self._doubted]
        return [(run.stored, run.stale.entry) for run in runs]

    def confirm(self, entries: list[Any]) -> None:
        """Settle the items that were in doubt.

        Args:
            entries: The entry to serve for each; None if it was deleted.
        """
        doubted, self._doubted = self._doubted, []
        for (span, offset, failure), entry in zip(doubted, entries, strict=True):
            run = self._leaders[id(span), offset]
            run.stale = entry and StoredSpare(self.call, self._values, entry, in_doubt=False)
            self._settle(span, offset, failure, True)

    # --- work out ---------------------------------------------------------------------------------

    def assign(self, slot: int, now: int) -> Job | None:
        """Return the next job of the idle worker `slot`, or None if there is none yet.

        Args:
            slot: The worker, counted from 0.
            now: The time in nanoseconds.
        """
        self._permits.pop(slot, None)
        if self._limit is not None and self._has_stopped(self._limit):
            return None
        gates = self.gates
        if gates is not None and gates.changed:
            gates.changed = False
            self._look_again()
        while True:
            place, job = self._next(now)
            if job is None:
                self._refused.pop(slot, None)
                self._withdraw()
                return None
            if self._is_too_late(job, now):
                self._take_out(place)
                continue
            if place == LATER and job.span.renewal.begin() is None:
                self._take_out(place)
                self._let_go(job.span)
                continue
            if gates is None:
                self._take_out(place)
                break
            admitted = self._admit(place, job, now)
            if admitted is None:
                continue
            job, queue = admitted
            wait, tickets = gates.enter(slot, now)
            if wait:
                if not self._is_too_late(job, now + wait):
                    self._permits[slot] = now + wait
                    self._refused.setdefault(slot, now)
                    return None
                self._take_out(place)
                continue
            # ask the breaker last, so that no probe holds the breaker while it waits for a permit
            answer = 0 if queue is None else queue.gate.enter(now)
            if queue is None or answer <= 0:
                self._take_out(place)
                gate = None if queue is None else queue.gate
                admission = gates.admission(slot, now, tickets, gate, -answer)
                job = self._pass(slot, now, job, place, admission)
                break
            gates.keep(slot, tickets)  # another caller was faster
            self._hold(place, job, queue, now, answer)
        call = self.call
        if place == LATER:
            call.add("refreshes", 1)
        trial = job.trial
        if trial is not None and trial.deadline != NEVER:
            job.deadline = trial.deadline
        elif call.timeout:
            job.deadline = now + call.timeout
            if trial is not None:
                trial.deadline = job.deadline
        job.began = now
        call.add("attempts", len(job.values))
        self.attempts += len(job.values)
        return job

    def _next(self, now: int) -> tuple[Any, Job | None]:
        """Return the next job and where it waits; None if there is none now.

        Failed items go before new ones, but not as probes: an item sent to an open breaker again
        and again would use up its attempts while others have not been tried.
        """
        fresh = self._queue and self._shut <= now
        if fresh and self._plain and self.gates is not None and self.gates.is_probing(now):
            return QUEUE, self._queue[0]
        if self._held:
            found = self._held.first(now)
            if found is not None:
                return found
        if self._heap and self._heap[0][0] <= now:
            return HEAP, self._heap[0][2]
        if fresh:
            return QUEUE, self._queue[0]
        if self._renewals.waiting:
            return LATER, self._renewals.waiting[0]
        return None, None

    def _let_go(self, item: Span) -> None:
        """Drop the renewal of a value."""
        assert self._runs is not None
        run = self._leaders.pop((id(item), 0), None)
        if run is not None:
            self._runs.end(run)
            if run.followers:  # their value expired meanwhile
                (span, offset), *others = run.followers
                leader = self._runs.begin(run.store, run.key, run.stored)
                leader.followers = others
                self._leaders[id(span), offset] = leader
                self._queue.append(self._jobs.first(span, offset))
        self._renewals.drop(item.renewal)

    def _pass(self, slot: int, now: int, job: Job, place: Any, admission: Admission) -> Job:
        """Return the part of a job that a slot gets once all gates have let the job in."""
        gates, call = self.gates, self.call
        assert gates is not None
        waited = 0
        if job.refused:
            waited = now - job.refused
            call.add("breaker_wait", waited)
        if gates.counted:
            queued = now - self._refused.pop(slot, now)
            waited += queued
            call.add("permit_wait", queued)
            if call.events.heeded:
                call.events.permit(call, queued / 1e9)
        if len(job.values) > 1 and not admission.many:  # one was let in
            rest = part_of(job, range(1, len(job.values)))
            if place == QUEUE:
                self._queue.appendleft(rest)
            else:
                self._held.hold(place, rest, first=True)
            job = part_of(job, range(1))
        job.refused = 0
        job.waited = waited
        if gates.observed:
            job.admission = admission
            job.patience = self._patience
            self._admitted[id(job)] = job
        return job

    # --- breakers ---------------------------------------------------------------------------------

    def _admit(self, place: Any, job: Job, now: int) -> tuple[Job, GateQueue | None] | None:
        """Ask the breaker for a job; with fallback values, ask the breaker of each in turn.

        Args:
            place: Where the job waits.
            job: The job.
            now: The time in nanoseconds.

        Returns:
            The job, with the value that its breaker lets through, and the queue of that breaker.
            None if the job is refused, and so held, or has ended.
        """
        assert self.gates is not None
        breaker = self.gates.breaker
        if breaker is None:
            return job, None
        if breaker.by_value:
            return self._admit_value(place, job, now)
        wait = breaker.gate.opens_in(now)
        if wait <= 0:
            return job, breaker
        self._hold(place, job, breaker, now, wait)
        return None

    def _admit_value(self, place: Any, job: Job, now: int) -> tuple[Job, GateQueue] | None:
        """Find a fallback value of an item whose breaker lets it through."""
        call, span, offset = self.call, job.span, job.offsets[0]
        if len(job.values) > 1:
            first = self._breaker_of(self._jobs.given(span, offset)[0], 0)
            if first.gate.opens_in(now) <= 0:
                return job, first
            self._take_out(place)
            self._queue.appendleft(part_of(job, range(1, len(job.values))))
            self._queue.appendleft(part_of(job, range(1)))
            return None
        trial = job.trial or self._trial(span, offset, self._jobs.given(span, offset)[1], NEVER)
        attempts = trial.attempts
        queue, wait, verdict = self._ask_values(span, offset, trial, now)
        if wait <= 0:
            if attempts.value != job.number:
                refused, job = job.refused, self._jobs.again(span, offset, trial)
                job.refused = refused
            return job, queue
        if verdict == OPEN:
            job.trial = trial
            self._hold(place, job, queue, now, attempts.opens - now)
            return None
        self._take_out(place)
        failure = conclude(call, attempts, attempts.errors[-1], verdict)
        if failure is None:
            self._try_again(span, offset, trial)
        else:
            trial.over(failure)
            self._settle(span, offset, failure, True)
        return None

    def _ask_values(
        self, span: Span, offset: int, trial: Trial, now: int
    ) -> tuple[GateQueue, int, int]:
        """Ask the breakers of an item's fallback values, from its current one on.

        Returns:
            The queue of the value that may go through now or first; for how many nanoseconds to
            wait; and, if that is above 0, what follows, as `Attempts.refused` returns it.
        """
        attempts = trial.attempts
        given, _ = self._jobs.given(span, offset)
        if attempts.refusals and attempts.value in attempts.refusals:
            attempts.reconsider()
        while True:
            queue = self._breaker_of(given, attempts.value)
            wait = queue.gate.opens_in(now)
            if wait <= 0:
                return queue, wait, AGAIN
            before = attempts.round
            verdict: int = attempts.refused(now + wait, now, trial.deadline)
            if verdict == OPEN and attempts.opens > now:
                return self._breaker_of(given, attempts.value), wait, OPEN
            if verdict not in {AGAIN, OPEN} or attempts.round != before:
                return queue, wait, verdict

    def _breaker_of(self, given: Any, value: int) -> GateQueue:
        """Return the queue of a fallback value's breaker."""
        assert self.gates is not None
        queue: GateQueue = self.gates.breaker.of(self._jobs.plain(given, value), value)
        return queue

    def _hold(self, place: Any, job: Job, queue: GateQueue, now: int, wait: int) -> None:
        """Make a job wait for a breaker, unless it has a stale value or cannot begin in time."""
        breaker: Any = queue
        if breaker.gate.consults(now):
            breaker.inquire()
        if not job.refused:
            job.refused = now
            self.call.add("refused", 1)
            assert self.gates is not None
            self.gates.heed(queue)
        if job.span.renewal is not None:
            self._take_out(place)
            trial = job.trial or self._trial(job.span, 0, 1, NEVER)
            failure = no_entry(self.call, trial.attempts, queue.awaited, wait)
            self._settle(job.span, 0, failure, True)
            return
        if place == QUEUE and self._plain:
            self._shut = now + wait  # the others wait only for the same breaker
            return
        if place is not queue:
            self._take_out(place)
            if self._runs is not None:
                job = self._without_stale(job, queue, wait)
            if job.values:
                self._held.hold(queue, job, NEVER if job.trial is None else job.trial.deadline)
        for late in self._held.put_off(queue, now + wait):
            assert late.trial is not None
            failure = no_entry(self.call, late.trial.attempts, queue.awaited, wait)
            late.trial.over(failure)
            self._settle(late.span, late.offsets[0], failure, True)

    def _without_stale(self, job: Job, queue: GateQueue, wait: int) -> Job:
        """Answer the items of a refused job that have a stale value."""
        call, leaders, left = self.call, self._leaders, []
        for place, offset in enumerate(job.offsets):
            run = leaders[id(job.span), offset]
            if run.stale is None or not run.stale.is_usable():
                left.append(place)
                continue
            trial = job.trial or self._trial(job.span, offset, 1, NEVER)
            failure = no_entry(call, trial.attempts, queue.awaited, wait)
            self._settle(job.span, offset, failure, True)
        return job if len(left) == len(job.values) else part_of(job, left)

    def _look_again(self) -> None:
        """Ask breakers again, because an attempt that ended may have closed one."""
        self._shut = 0
        self._held.look_again()

    def _take_out(self, place: Any) -> None:
        """Remove the first job from the heap, the queue, or those before a gate."""
        if place == HEAP:
            self.call.add("backoff_wait", heappop(self._heap)[2].delay)
        elif place == QUEUE:
            self._queue.popleft()
        elif place == LATER:
            self._renewals.waiting.popleft()
        else:
            self._held.take(place)

    def _withdraw(self) -> None:
        """Let others pass the gates at which no job of this map waits anymore."""
        if self.gates is not None:
            self.gates.withdraw()

    def _is_too_late(self, job: Job, then: int) -> bool:
        """Settle an item whose deadline passes before it can get a worker and a permit."""
        if job.trial is None or then < job.trial.deadline:
            return False
        what = "no worker, or no rate-limit permit, was free in time"
        late = too_late(self.call, job.trial.attempts, what)
        job.trial.over(late)
        self._settle(job.span, job.offsets[0], late, True)
        return True

    def wake(self, now: int) -> int:
        """Return when an idle worker may get a job that it cannot get now.

        Args:
            now: The time in nanoseconds.

        Returns:
            Nanoseconds; `NEVER` if only a report or more input can change that.
        """
        soonest = min(self._heap[0][0] if self._heap else NEVER, self._held.soonest())
        if self._queue and self._shut > now:
            soonest = min(soonest, self._shut)
        elif (self._queue or self._renewals.waiting) and self._permits:
            soonest = now
        if self._permits and soonest <= now:
            return min(self._permits.values())
        return soonest

    # --- outcomes in ------------------------------------------------------------------------------

    def report(
        self, job: Job, results: list[Any], failures: list[tuple[int, BaseException]], elapsed: int
    ) -> None:
        """Process the outcome of a job.

        Args:
            job: The job.
            results: What each attempt returned; anything for a failed one. If there are fewer than
                the job has items, a failure ended it, and the rest goes to the next worker.
            failures: The failed attempts: the position in the job, and the exception.
            elapsed: How long the job ran, in nanoseconds.
        """
        self.sizer.observe(len(results), elapsed)
        if self._rejects:
            failures = self._with_rejected(results, failures)
        admission = self._is_back(job)
        if len(results) < len(job.values):
            job = self._give_back(job, len(results))
        self._take_in(job, results, failures, admission)

    def crash(
        self,
        job: Job,
        results: list[Any],
        failures: list[tuple[int, BaseException]],
        at: int | None,
        error: BaseException,
    ) -> None:
        """Process the death of a worker in the middle of a job.

        Args:
            job: The job.
            results: What the first attempts returned, as far as is known.
            failures: The failed ones among them.
            at: The position of the current attempt; None if the worker died between two.
            error: What happened to the worker. It counts as the failure of that attempt.
        """
        known = len(results)
        if self._rejects:
            failures = self._with_rejected(results, failures)
        admission = self._is_back(job)
        if admission is not None and at is None and not known:
            assert self.gates is not None
            self.gates.leave(admission, WITHDRAWN)
        again = [place for place in range(known, len(job.values)) if place != at]
        first = known if at is None else at + 1
        unbegun = len(job.values) - first
        self.call.add("attempts", -unbegun)
        self.attempts -= unbegun
        if known:
            self._take_in(part_of(job, range(known)), results, failures, admission)
        if at is not None:
            self._take_in(part_of(job, [at]), [NOTHING], [(0, error)], admission)
        if again:
            self._queue.appendleft(part_of(job, again))

    def _give_back(self, job: Job, known: int) -> Job:
        """Queue the attempts of a job that were not made; return a job of those that were."""
        unbegun = len(job.values) - known
        self.call.add("attempts", -unbegun)
        self.attempts -= unbegun
        self._queue.appendleft(part_of(job, range(known, len(job.values))))
        return part_of(job, range(known))

    def _is_back(self, job: Job) -> Admission | None:
        """Record that a job has ended; return its admission, if gates want to know the outcome."""
        admission, job.admission = job.admission, None
        if admission is not None:
            del self._admitted[id(job)]
            self._look_again()
        return admission

    def _with_rejected(
        self, results: list[Any], failures: list[tuple[int, BaseException]]
    ) -> list[tuple[int, BaseException]]:
        """Return the failures of a job, including values that `retry_on_result` rejects."""
        failed = dict(failures)
        for place, value in enumerate(results):
            if place not in failed:
                error: BaseException | None
                try:
                    error = self.call.policy.rejection(value)
                except Exception as broken:  # noqa: BLE001 - user code failed; only this item fails
                    error = PredicateError(without_top(broken))
                if error is not None:
                    failed[place] = error
        return list(failed.items())

    def _take_in(
        self,
        job: Job,
        results: list[Any],
        failures: list[tuple[int, BaseException]],
        admission: Admission | None,
    ) -> None:
        span = job.span
        if admission is not None and len(failures) < len(job.values):
            assert self.gates is not None
            self.gates.leave(admission, SUCCEEDED, len(job.values) - len(failures))
        if span.results is None and len(job.values) == len(span.values) and not failures:
            self.output.take(span, results)  # the path of nearly all items
            return
        if span.results is None:
            span.results = [NOTHING] * len(span.values)
        failed = dict(failures)
        for place, offset in enumerate(job.offsets):
            if place in failed:
                self._fail(job, span, offset, failed[place], admission)
            else:
                if job.trial is not None:
                    self._note(job, job.trial, None)
                    job.trial.over(None)
                self._settle(span, offset, results[place], False)

    def _note(self, job: Job, trial: Trial, error: BaseException | None) -> None:
        """Record an attempt of an item whose history is wanted."""
        if trial.history is not None:
            trial.history.note(job.began, job.waited, job.delay, error)

    def _fail(
        self,
        job: Job,
        span: Span,
        offset: int,
        error: BaseException,
        admission: Admission | None,
    ) -> None:
        """Try an item again later, or settle its failure."""
        failure: BaseException | None
        outcome, pause = NEUTRAL, 0
        try:
            failure, outcome, pause = self._judge(job, span, offset, error)
        except Exception as broken:  # noqa: BLE001 - user code such as `retry_on` failed; only this item fails
            failure = without_top(broken)
            if failure is not error and failure.__context__ is None:
                BaseException.__setattr__(failure, "__context__", error)  # the class may be frozen
        if admission is not None:
            assert self.gates is not None
            self.gates.leave(admission, outcome)
            self._patience = PATIENCE if outcome == NEUTRAL else 1
        if pause:
            pause_queues(self.call, pause)
            if self.gates is not None:
                self.gates.pause(pause)
        if failure is not None:
            if job.trial is not None:
                job.trial.over(failure)
            self._settle(span, offset, failure, True)

    def _judge(
        self, job: Job, span: Span, offset: int, error: BaseException
    ) -> tuple[BaseException | None, int, int]:
        """Schedule another attempt of an item, or return its final failure.

        Returns:
            The failure, or None; the outcome for the gates; and for how many nanoseconds the
            server asks to pause the rate limit.
        """
        call = self.call
        args, kwargs = self.arguments(span.values[offset])
        if misfits(call, error, args, kwargs):
            return error, NEUTRAL, 0
        if isinstance(error, PredicateError):
            return error.error, NEUTRAL, 0
        _, width = self._jobs.given(span, offset)
        if vars(error).get("beyond_retry", False) and (width == 1 or isinstance(error, OperoError)):
            call.add("failures", 1)  # an item with another fallback value may do, an executor not
            return error, NEUTRAL, 0
        trial = job.trial or self._trial(span, offset, width, job.deadline)
        attempts = trial.attempts
        if not attempts.errors:
            trial.history = history_of(call, job.began)
        self._note(job, trial, error)
        if isinstance(error, AttemptTimeout) and call.clock.now() >= job.deadline:
            return too_late(call, attempts, "an attempt was still running then"), FAILED, 0
        verdict = judge(call, attempts, error, trial.deadline)
        outcome = outcome_of(attempts, error) if self._observed else NEUTRAL
        failure = conclude(call, attempts, error, AGAIN if verdict == OPEN else verdict)
        if failure is None:
            self.retried += 1
            if verdict == OPEN:
                self._wait_for_probe(span, offset, trial)
            else:
                self._try_again(span, offset, trial)
        return failure, outcome, pause_after(call, attempts)

    def _trial(self, span: Span, offset: int, width: int, deadline: int) -> Trial:
        """Start the record of an item's attempts."""
        trial = Trial(self.call.policy.attempts(width), deadline)
        trial.attempts.index = span.first + offset
        return trial

    def _try_again(self, span: Span, offset: int, trial: Trial) -> None:
        """Put an item in the heap for another attempt."""
        self._serial += 1
        job = self._jobs.again(span, offset, trial)
        job.delay = trial.attempts.delay
        heappush(self._heap, (self.call.clock.now() + job.delay, self._serial, job))

    def _wait_for_probe(self, span: Span, offset: int, trial: Trial) -> None:
        """Make an item wait for the breaker of its last remaining value."""
        given, _ = self._jobs.given(span, offset)
        queue = self._breaker_of(given, trial.attempts.value)
        self._held.hold(queue, self._jobs.again(span, offset, trial), trial.deadline)

    def _settle(self, span: Span, offset: int, outcome: Any, failed: bool) -> None:
        """Make the outcome of an item final, and of all items that wait for it."""
        run = self._leaders.pop((id(span), offset), None)
        served = False
        if failed and run is not None and run.stale is not None:
            if run.stale.in_doubt and run.stale.stands_in(outcome):
                self._leaders[id(span), offset] = run
                self._doubted.append((span, offset, outcome))
                return
            served = run.stale.serves(outcome)
            if served:
                outcome, failed = run.stale.value, False
        if run is not None and not failed and is_once_only(outcome):
            outcome, failed = error_of(self.call.name, outcome), True
        equal = 0 if run is None else len(run.followers)
        if span.renewal is not None:
            self._renewals.end(span.renewal, outcome if failed else None)
        elif failed:
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
        """Return whether nothing more is handed out; if so, settle waiting items as not run."""
        if not self.stopped:
            nothing_waits = self.closed and not (self._queue or self._heap or self._held)
            if nothing_waits or not limit.is_reached():
                return False
            self.stopped = True
            warn("%s: %s, which ends the map", self.call.name, limit.failed)
            if not (self.closed or self._finite):
                self.closed = self.unread = True  # it may be endless
        waiting = [*self._queue, *[job for _, _, job in sorted(self._heap)], *self._held.drain()]
        self._queue.clear()
        self._heap.clear()
        waiting += self._renewals.waiting
        self._renewals.waiting.clear()
        for job in waiting:
            if job.span.results is None:
                job.span.results = [NOTHING] * len(job.span.values)
            for offset in job.offsets:
                self._leave_out(job.span, offset, job.trial)
        self._withdraw()
        return True

    def _leave_out(self, span: Span, offset: int, trial: Trial | None = None) -> None:
        """Settle an item as one that did not run, or was not tried again."""
        run = self._leaders.pop((id(span), offset), None)
        followers = [] if run is None else run.followers
        if run is not None:
            assert self._runs is not None
            self._runs.end(run)
        assert self._limit is not None
        errors = [] if trial is None else trial.attempts.errors
        error = errors[-1] if errors else None
        places = [(span, offset), *followers]
        if span.renewal is not None:
            self._renewals.drop(span.renewal)
            places = followers
        for each, place in places:
            self.output.leave_out(each, place, self._limit.not_run(each.first + place, error))

    def rest(self) -> NotRun:
        """Return the error for the input that was cut off."""
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
        return self.closed and self.output.settled == self.read and not self._renewals
