"""The queue of waiters, both threads and tasks, in front of one token bucket.

If a permit is free and nobody is waiting, a caller takes it and goes. All others join the queue.
Any waiter that is awake hands out permits in the order of the queue (`_serve`): usually the head,
whose timer is set for the next permit. Every other waiter has a timer for its own turn, so a head
with a stuck event loop cannot block the others forever. Waiters do not own a permit until they get
it, so one that leaves returns nothing; one that leaves just as it gets a permit gives it back.

The lock is reentrant, because a finalizer may leave or join the queue in the middle of any step.
For the same reason, each step checks the current state instead of trusting the previous step.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice

from opero.core.clock import NEVER
from opero.locks import Lock
from opero.runners.effects import BELL, REST

from .waiting import Standby

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from opero.core.clock import Clock
    from opero.core.gate import Gate
    from opero.runners.effects import Steps

_SECOND = 1_000_000_000

_FAR = 64
"""How many places of the queue a waiter counts to tell when it is served."""


class _Waiter:
    """A waiter in the queue.

    Attributes:
        wake: Makes the waiter look again; returns false if it is gone.
        granted: Whether the waiter has its permit.
        gone: Whether it has stopped waiting.
        receipt: Gives its permit back.
        weight: How many permits it wants at once.
        told: If it is the head, when it should look again, in nanoseconds.
        overtaken: How often in a row another process got the permit that it waited for as the head.
    """

    __slots__ = ("gone", "granted", "overtaken", "receipt", "told", "wake", "weight")

    def __init__(self, weight: int) -> None:
        self.wake: Callable[[], bool] = bool
        self.granted = False
        self.gone = False
        self.receipt: Any = None
        self.weight = weight
        self.told = NEVER
        self.overtaken = 0

    def is_granted(self) -> bool:
        """Return whether the waiter has its permit."""
        return self.granted

    def is_settled(self) -> bool:
        """Return whether the waiter no longer belongs in the queue."""
        return self.granted or self.gone


class WaitQueue:
    """Waiters in front of a bucket.

    Attributes:
        bucket: Hands out the permits.
        gate: The same object, for code that uses it as a gate.
        awaited: What callers wait for, in messages.
        clock: The clock.
        called: The limit, in words.
        tells: Whether it reports cuts of its rate.
        spare: How long a waiter waits beyond its own due time, in nanoseconds for each waiter
            before it, so that those can hand out permits.
    """

    awaited = "its rate-limit permit"
    called = "a rate limit"
    tells = True
    spare = 0
    by_value = False

    def __init__(self, bucket: Any, clock: Clock) -> None:
        """Begin with nobody in the queue.

        Args:
            bucket: Hands out the permits.
            clock: Tells the time.
        """
        self.bucket = bucket
        self.gate: Gate = bucket
        self.clock = clock
        self._lock = Lock() if bucket.lock is None else bucket.lock
        self._waiters: OrderedDict[_Waiter, bool] = OrderedDict()  # anybody leaves in one step
        self._extra = 0  # permits that the waiters want beyond one each
        self._free = 0  # when the head might be served
        self._said = -_SECOND  # when a cut of the rate was last reported
        if bucket.observes:
            bucket.watcher = _weakly(self._adapt)

    def __len__(self) -> int:
        return len(self._waiters)

    def try_take(self, weight: int) -> bool:
        """Take permits if they are free now and nobody waits for them; return whether they were."""
        now = self.clock.now()
        if self.bucket.take_many(now, weight) == 0:
            return True
        if not self.bucket.queued:
            return False
        with self._lock:
            self._serve(now)  # the waiters may not be awake to do it
            return not self._waiters and self.bucket.admit_many(now, weight) == 0

    def pause(self, length: int) -> None:
        """Hand out nothing for some nanoseconds."""
        with self._lock:
            self.bucket.pause(self.clock.now(), length)

    def pause_soon(self, length: int) -> None:
        """Do the same, because a server asked for it."""
        with self._lock:
            self.bucket.pause_as_asked(self.clock.now(), length)

    def rate(self) -> float:
        """Return the rate of an adaptive limit, in permits per second."""
        return float(self.bucket.rate())

    def report(self, outcome: int, entered: int) -> None:
        """Tell an adaptive limit how an attempt with a permit ended.

        Args:
            outcome: One of the outcomes in `core.gate`.
            entered: When the attempt began, in nanoseconds of the queue's clock.
        """
        self.bucket.leave(self.clock.now(), outcome, entered, 0)

    def _adapt(self, cut: bool) -> None:
        """React to a changed rate: report a cut, or make the head look at the time."""
        if not cut:
            if self.bucket.queued:
                with self._lock:
                    self._serve(self.clock.now())
                    self._wake_head()
            return
        if self.tells:
            self.tell_cut(self.called, self.rate())

    def tell_cut(self, called: str, rate: float) -> None:
        """Report a cut of the rate, once a second at most, because a busy server causes many.

        Args:
            called: The limit, in words.
            rate: The new rate.
        """
        now = self.clock.now()
        if now - self._said >= _SECOND:
            from opero.events import tell

            self._said = now
            tell("rate_cut", store=called, rate=rate)

    def standby(self) -> Standby:
        """Return an unused place in the queue."""
        return QueueStandby(self)

    def standby_alone(self) -> Standby:
        """Return a place before a separate bucket with the same rate and burst."""
        return Standby(self.bucket.fresh(None if self.bucket.lock is None else Lock()))

    # --- waiting --------------------------------------------------------------------------------

    def steps(self, deadline: int, weight: int) -> Steps:
        """Wait for permits, unless they would come too late.

        Args:
            deadline: The latest time for them, in nanoseconds of the queue's clock.
            weight: How many permits to get at once.

        Returns:
            Nanoseconds waited, or -1 if they would come after `deadline`.
        """
        clock = self.clock
        start = clock.now()
        if self.bucket.take_many(start, weight) == 0:
            return 0
        waiter = _Waiter(weight)
        bell = yield BELL, waiter.is_granted
        waiter.wake = bell.ring
        due = self._join(waiter, start, deadline)
        if due < 0:
            return -1
        try:
            while not bell.is_through():
                yield REST, clock, bell, NEVER if waiter.granted else due
                if not bell.is_through():
                    due = self._look(waiter, deadline)
                    if due < 0:
                        return -1
        except BaseException:
            self._leave(waiter)
            raise
        finally:
            waiter.wake = bool  # the bell knows the waiter
        return max(0, clock.now() - start)

    # --- the queue ------------------------------------------------------------------------------

    def _join(self, waiter: _Waiter, now: int, deadline: int) -> int:
        """Join the queue.

        Returns:
            When the waiter is served if nobody leaves, in nanoseconds; -1 if that is later than
            `deadline`, in which case the waiter has not joined.
        """
        waiters = self._waiters
        with self._lock:
            self._serve(now)
            if not waiters:
                self._extra = 0
            due: int = self.bucket.due(now, waiter.weight, len(waiters) + self._extra)
            if due > deadline:
                return -1
            waiters[waiter] = True
            self._extra += waiter.weight - 1
            self._serve(now)
            if self._head() is waiter:
                due = self._note(waiter, now, max(due, self._free))
            else:
                due = max(due, now + min(len(waiters), _FAR) * self.spare)
        return min(due, deadline)

    def _look(self, waiter: _Waiter, deadline: int) -> int:
        """Hand out what is due.

        Returns:
            When `waiter` should look again, in nanoseconds; -1 if its permit would come after
            `deadline`, in which case it has left the queue.
        """
        now = self.clock.now()
        with self._lock:
            self._serve(now)
            if waiter.granted:
                return now
            due = self._free
            late = due > deadline
            if self._head() is waiter:
                due = self._note(waiter, now, due)
            else:
                before = self._count_before(waiter)
                due += before * self.bucket.interval
                late = due > deadline
                due = max(due, now + before * self.spare)
        if late:
            self._leave(waiter)
            return -1
        return min(due, deadline)

    def _note(self, head: _Waiter, now: int, due: int) -> int:  # noqa: ARG002
        """Note when the head of the queue looks again, and return it."""
        head.told = due
        return due

    def _count_before(self, waiter: _Waiter) -> int:
        """Count the waiters before one, up to a limit beyond which the number does not matter."""
        for place, other in enumerate(self._some(iter, _FAR)):
            if other is waiter:
                return place
        return _FAR

    def _leave(self, waiter: _Waiter) -> None:
        """Leave the queue, or give the permit back."""
        with self._lock:
            if waiter.gone:
                return
            waiter.gone = True
            awaited = waiter.granted or self._head() is waiter
            if waiter.granted:
                self.bucket.undo(waiter.receipt, waiter.weight)
            self._drop(waiter)
            self._serve(self.clock.now())
            if awaited:  # nobody else waits for what it had
                self._wake_head()

    def _serve(self, now: int) -> None:
        """Hand out the permits that are due, and make a new head set its timer."""
        waiters, bucket = self._waiters, self.bucket
        moved = False
        while (head := self._head()) is not None:
            if not head.is_settled():
                wait = bucket.admit_many(now, head.weight)
                if wait > 0:
                    self._free = now + wait
                    break
                receipt = bucket.receipt()
                if head.is_settled():  # a finalizer has been here meanwhile
                    bucket.undo(receipt, head.weight)
                else:
                    head.receipt = receipt
                    head.granted = True
                    if not head.wake():
                        head.gone = True
                        bucket.undo(receipt, head.weight)
            self._drop(head)
            moved = True
        bucket.queued = len(waiters)
        if moved:
            self._wake_head()

    def _head(self) -> _Waiter | None:
        """Return the first in the queue; None if nobody is there."""
        found = self._some(iter, 1)
        return found[0] if found else None

    def _some(self, walk: Callable[[Any], Iterator[_Waiter]], most: int) -> list[_Waiter]:
        """Return the first `most` that `walk`, `iter` or `reversed`, finds in the queue."""
        while True:
            try:
                return list(islice(walk(self._waiters), most))
            except RecursionError:
                raise
            except RuntimeError:  # a signal handler has changed the queue meanwhile
                continue

    def _drop(self, waiter: _Waiter) -> None:
        """Take `waiter` out of the queue, if it is there."""
        if self._waiters.pop(waiter, False):
            self._extra -= waiter.weight - 1

    def _wake_head(self) -> None:
        """Let the head of the queue look at the time, unless it has gone."""
        head = self._head()
        if head is not None and not head.wake():
            head.gone = True

    def after_fork(self) -> None:
        """Remove the waiters in a child process: they exist only in the parent."""
        self._lock = Lock()
        if self.bucket.lock is not None:
            self.bucket.lock = self._lock
        self._waiters.clear()
        self._extra = 0
        self.bucket.queued = 0


class QueueStandby(Standby):
    """A place in a queue for a caller that does not wait but checks again later.

    It is in the queue from an `enter` that found no permit until the one that gets it, or until
    `withdraw`. A permit handed to it in between is its own.
    """

    def __init__(self, queue: WaitQueue) -> None:
        """Do not join the queue yet.

        Args:
            queue: The queue.
        """
        super().__init__(queue.gate)
        self._queue = queue
        self._waiter: _Waiter | None = None

    def enter(self, now: int) -> int:
        """Take a permit, if one is available.

        Args:
            now: The time in nanoseconds.

        Returns:
            0 if it got one, else nanoseconds until it might.
        """
        queue = self._queue
        waiter = self._waiter
        if waiter is None:
            now = queue.clock.now()
            if queue.bucket.enter(now) == 0:
                return 0
            waiter = self._waiter = _Waiter(1)
            waiter.wake = _always
            due = queue._join(waiter, now, NEVER)
        else:
            due = queue._look(waiter, NEVER)
        if waiter.granted:
            self._waiter = None
            return 0
        return max(1, due - queue.clock.now())

    def withdraw(self) -> None:
        """Leave the queue, or give the permit back."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._queue._leave(waiter)


def _translated(deadline: int, caller: Clock, clock: Clock) -> int:
    """Convert a deadline from the caller's clock to another clock."""
    return NEVER if deadline == NEVER else int(deadline - caller.now() + clock.now())


def _always() -> bool:
    return True


def _weakly(method: Callable[[bool], None]) -> Callable[[bool], None]:
    """Return a function that calls a method while its object exists, without a cycle."""
    found = weakref.WeakMethod(method)

    def call(cut: bool) -> None:
        known = found()
        if known is not None:
            known(cut)

    return call
