"""The deadlines of what is awaited in its caller's own task: of calls, and of single attempts.

    TimeLimit       how long each call of one function may take, or each of its attempts
    Deadline        of one of them; it joins the queue when what is awaited suspends
    DeadlineQueue   those of one limit in one loop, in order, with one timer for the first

What never suspends cannot be cut, and pays for no timer. What does is cancelled when its deadline
passes, as by `asyncio.timeout`; when it ends, the request to cancel its task is taken back. What
comes of it then is judged in `opero.runners.deadlines`.
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
    """How long something that is awaited again and again may take each time.

    Attributes:
        length: Nanoseconds.
        clock: Tells the time.
        times: The module `opero.runners.loop_time`.
        queue: Refers weakly to the queue of its deadlines; None before the first.
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
        limit: The limit that it comes of.
        task: The task in which something is awaited.
        deadline: When that must be over, in nanoseconds.
        cancelling: How many requests to cancel the task were there before it.
        attempts: The state of the call's attempts, once one has failed.
        stopping: Whether the deadline has passed, and the task was cancelled for that.
        queue: Where it waits to pass; None before what is awaited suspends, and after its end.
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
        """Let it pass at another time: what it bounds has begun earlier."""
        self.deadline = deadline

    def join(self) -> None:
        """Join the limit's queue in the task's loop."""
        limit = self.limit
        loop = self.task.get_loop()
        queue: Any = None if limit.queue is None else limit.queue()
        # a call that awaits itself may suspend after the inner one: then it comes out of order
        if queue is None or queue.loop is not loop or self.deadline < queue.latest:
            queue = DeadlineQueue(limit, loop)
            limit.queue = ref(queue)
        queue.add(self)
        self.queue = queue

    def cut(self) -> None:
        """Cut what is awaited: its deadline has passed."""
        self.stopping = True
        self.task.cancel()

    def leave(self) -> None:
        """End it: leave the queue, and take the request to cancel the task back."""
        queue = self.queue
        if queue is not None:
            self.queue = None
            queue.remove(self)
            if self.stopping:
                self.task.uncancel()


class DeadlineQueue:
    """The deadlines of one limit in one loop, the next one first.

    All are equally far away, so they pass in the order in which they come.

    Attributes:
        loop: The event loop.
        latest: The deadline that came last, in nanoseconds.
        clock: The clock of the deadlines.
        times: The module `opero.runners.loop_time`.
        thread: The thread of the loop.
        timer: What rings next; None while nothing waits.
        due: When it is to ring, in nanoseconds.
        left: How many nanoseconds were left when it was set.
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
            limit: What the deadlines come of.
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
        # ordered by a list, not by a table: taking many out one by one at its front is cheap
        self.waiting: Any = OrderedDict()

    def add(self, deadline: Deadline) -> None:
        """Take a deadline in that is none before the latest."""
        if self.timer is None:
            self.arm(deadline.deadline)
        self.waiting[deadline] = None
        self.latest = deadline.deadline

    def remove(self, deadline: Deadline) -> None:
        """Leave a deadline out, wherever it is; without any there is no timer.

        A coroutine that nobody awaits any more may be closed in another thread, where the timers of
        the loop must be left alone.
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
        # in a context of its own: that of the caller would be kept alive
        self.timer = self.times.call_later(self.loop, left / 1e9, self.ring, Context())

    def ring(self) -> None:
        """Cut what is due, and set the timer for what is next."""
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
        """Return the deadline that passes next; None if none waits."""
        while True:
            try:
                return next(iter(self.waiting), None)
            except RecursionError:
                raise
            except RuntimeError:  # a coroutine was closed in another thread at this moment
                continue
