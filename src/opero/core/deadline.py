"""Deadlines of calls, and of single attempts, that are awaited in the caller's own task.

    TimeLimit       how long each call of one function may take, or each of its attempts
    Deadline        of one call or attempt; it joins the queue when the awaitable suspends
    DeadlineQueue   the deadlines of one limit in one loop, in order, with one timer for the first

An awaitable that never suspends cannot be cancelled, and costs no timer. One that does is cancelled
when its deadline passes, as by `asyncio.timeout`; when it ends, the task is uncancelled.
`opero.runners.deadlines` judges the outcome.
"""

from __future__ import annotations

from _thread import get_ident
from collections import OrderedDict
from contextvars import Context
from weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class TimeLimit:
    """How long each call of one function, or each attempt, may take.

    Attributes:
        length: Nanoseconds.
        clock: Gives the time.
        times: The module `opero.runners.loop_time`.
        queue: A weak reference to the queue of its deadlines; None before the first.
    """

    __slots__ = ("clock", "length", "queue", "times")

    def __init__(self, length: int, clock: Any, times: Any) -> None:
        self.length: int = length
        self.clock: Any = clock
        self.times: Any = times
        self.queue: Any = None


class Deadline:
    """The deadline of one call, or of one attempt.

    Attributes:
        limit: Its time limit.
        task: The task that awaits.
        deadline: When the call or attempt must be over, in nanoseconds.
        cancelling: How many requests to cancel the task existed before.
        attempts: The state of the call's attempts, once one has failed.
        stopping: Whether the deadline has passed and has cancelled the task.
        queue: Its queue; None before the awaitable suspends, and after its end.
    """

    __slots__ = ("attempts", "cancelling", "deadline", "limit", "queue", "stopping", "task")

    def begin(self, limit: TimeLimit, task: Any) -> None:
        """Begin a call or an attempt.

        Args:
            limit: How long it may take.
            task: The task that it runs in.
        """
        self.limit: TimeLimit = limit
        self.task: Any = task
        self.deadline: int = limit.clock.now() + limit.length
        self.cancelling: int = task.cancelling()
        self.attempts: Any = None
        self.stopping: bool = False
        self.queue: DeadlineQueue | None = None

    def move_to(self, deadline: int) -> None:
        """Set another time: the call has begun earlier."""
        self.deadline = deadline

    def join(self) -> None:
        """Join the limit's queue in the task's loop."""
        limit = self.limit
        loop = self.task.get_loop()
        queue: Any = None if limit.queue is None else limit.queue()
        # a call that awaits itself may suspend after the inner one, and so come out of order
        if queue is None or queue.loop is not loop or self.deadline < queue.latest:
            queue = DeadlineQueue(limit, loop)
            limit.queue = ref(queue)
        queue.add(self)
        self.queue = queue

    def cut(self) -> None:
        """Cancel the task: the deadline has passed."""
        self.stopping = True
        self.task.cancel()

    def leave(self) -> None:
        """End it: leave the queue, and uncancel the task."""
        queue = self.queue
        if queue is not None:
            self.queue = None
            queue.remove(self)
            if self.stopping:
                self.task.uncancel()


class DeadlineQueue:
    """The deadlines of one limit in one loop, the next one first.

    All have the same length, so they pass in the order in which they join.

    Attributes:
        loop: The event loop.
        latest: The deadline that joined last, in nanoseconds.
        clock: The clock of the deadlines.
        times: The module `opero.runners.loop_time`.
        thread: The thread of the loop.
        timer: The next timer; None while nothing waits.
        due: When the timer fires, in nanoseconds.
        left: How many nanoseconds were left when the timer was set.
        waiting: The deadlines, in order.
    """

    __slots__ = (
        "__weakref__",
        "clock",
        "due",
        "latest",
        "left",
        "loop",
        "thread",
        "timer",
        "times",
        "waiting",
    )

    def __init__(self, limit: TimeLimit, loop: Any) -> None:
        """Make an empty queue.

        Args:
            limit: The limit of the deadlines.
            loop: The event loop, which runs in this thread.
        """
        self.loop: Any = loop
        self.latest: int = 0
        self.clock: Any = limit.clock
        self.times: Any = limit.times
        self.thread: int = get_ident()
        self.timer: Any = None
        self.due: int = 0
        self.left: int = 0
        # ordered by a linked list, not a table: removing many from the front is cheap
        self.waiting: Any = OrderedDict()

    def add(self, deadline: Deadline) -> None:
        """Add a deadline, not earlier than the latest."""
        if self.timer is None:
            self.arm(deadline.deadline)
        self.waiting[deadline] = None
        self.latest = deadline.deadline

    def remove(self, deadline: Deadline) -> None:
        """Remove a deadline; cancel the timer if it was the last.

        A coroutine that nobody awaits any more may be closed in another thread, which must not
        touch the timers of the loop.
        """
        self.waiting.pop(deadline, None)
        timer = self.timer
        if timer is not None and not self.waiting and self.thread == get_ident():
            self.timer = None
            timer.cancel()

    def arm(self, due: int) -> None:
        """Set the timer."""
        left = due - self.clock.now()
        if left < 0:
            left = 0
        self.due = due
        self.left = left
        # in a new context: the timer would keep the caller's alive
        self.timer = self.times.call_later(self.loop, left / 1e9, self.ring, Context())

    def ring(self) -> None:
        """Cancel what is due, and set the timer for the next deadline."""
        self.timer = None
        if self.clock.skipping:
            self.clock.move_to(self.due)
        else:
            self.times.catch_up(self.clock, self.due, self.left)
        try:
            while True:
                first = self.first()
                if first is None or first.deadline > self.clock.now():
                    break
                self.waiting.pop(first, None)
                first.cut()
        finally:
            first = self.first()
            if first is not None:
                self.arm(first.deadline)

    def first(self) -> Deadline | None:
        """Return the next deadline; None if none waits."""
        while True:
            try:
                return next(iter(self.waiting), None)
            except RecursionError:
                raise
            except RuntimeError:  # another thread has closed a coroutine at this moment
                continue
