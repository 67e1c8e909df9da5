"""Limits shared through Redis: the waiters of a process form one queue, and processes take turns.

    waiters of this process -> WaitQueue -> Purse: permits that the server has granted, each with
                                   |               the time from which it may be used
                                   `-> one of them asks for more, for all waiters

One Lua script decides, by the server's clock. It grants permits at most `HORIZON` ahead: as many as
there are waiters and, if permits are used fast, also those of the next `AHEAD`. A permit that a
waiter leaves unused goes to the next waiter of this process. The last one to leave gives its permit
back if nobody has a later one. So a cancelled waiter wastes at most very little.

A process that gets less than it wants waits in line at the server, in the order of arrival. The
server says when to ask again; if the process does not, because it died, the others pass it. Waiting
processes get equal parts of what the horizon has room for.

A local bucket also counts what the process has taken. It limits the process whatever the server
says, and takes over while the server fails; see `clients.outages`. Each request contains what this
process knew last. So if the server loses, flushes or evicts a record, the processes that use it
restore it, and the log says so once.

A wait yields effects (`runners/effects.py`), so threads and tasks wait alike.
"""

from __future__ import annotations

import math
import os
import threading
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from opero.core.adaptive_bucket import PROMPT
from opero.core.clock import NEVER
from opero.runners.effects import ASK, BELL, REST

from .redis_contact import RedisContact
from .redis_permits import Grant, Purse
from .redis_rate import SharedRate, listening
from .redis_scripts import GIVE_BACK, GRANT, GRANT_ADAPTED, HORIZON, LEARN, NAP, PAUSE
from .wait_queue import QueueStandby, WaitQueue, _translated, _Waiter
from .waiting import Standby
from .windows import Windows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from opero.runners.effects import Steps

_asking: set[Any] = set()
"""Tasks that ask the server; the event loop itself keeps no strong reference to them."""

_TRIES = 10
"""How often to report a rejection again, if other processes are faster."""
_SILENCE = 2_000_000_000
"""Nanoseconds without a reply after which another waiter may ask: the event loop is stuck."""


class _Question:
    """A request of one waiter to the server, on behalf of all waiters of its process.

    If its task is cancelled meanwhile, another task that nobody cancels continues, because the
    reply is for others as well.

    Attributes:
        number: Its number in this process.
        began: When it was made, in nanoseconds.
        weight: How many permits the waiter wants at a time.
        request: The script, its keys and its arguments.
        aside: Whether a separate task asks it.
    """

    __slots__ = ("_orphan", "_queue", "aside", "began", "number", "request", "weight")

    def __init__(
        self, queue: RedisWaitQueue, number: int, weight: int, request: tuple[Any, ...]
    ) -> None:
        self._queue = queue
        self.number = number
        self.began = queue.clock.now()
        self.weight = weight
        self.request = request
        self.aside = False
        self._orphan = False

    def ask(self, *request: Any) -> None:
        """Ask, and pass the reply to the queue."""
        self._queue._heard(self, self._queue.server.ask(*request))

    async def ask_async(self, *request: Any) -> None:
        """Do the same for a task."""
        import asyncio

        self.aside = True
        task = asyncio.ensure_future(self._ask_aside(request))
        _asking.add(task)
        task.add_done_callback(_asking.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            self._orphan = True
            raise

    async def _ask_aside(self, request: tuple[Any, ...]) -> None:
        queue = self._queue
        try:
            reply = await queue.server.ask_async(*request)
        except BaseException:
            queue._left_behind(self)  # so that another waiter may ask
            raise
        queue._heard(self, reply)
        left = queue._left_behind(None) if self._orphan else None
        if left is not None:
            await queue.server.ask_async("script", *left)


class RedisWaitQueue(WaitQueue):
    """The callers of this process who wait for permits of a limit in Redis.

    Attributes:
        gate: A gate that never hands anything out, and so sends every caller into the queue.
        server: The server that keeps the limit.
    """

    called = "a rate limit in Redis"
    spare = 10_000_000  # permits come in batches, most of them due immediately
    bucket: Purse

    def __init__(self, core: Any, url: Any, name: Any, local: Any, windows: Windows) -> None:
        """Set the queue up, without asking the server yet.

        Args:
            core: The active half of opero.
            url: The URL of the server.
            name: The name of the limit there.
            local: The same limit for this process alone.
            windows: Further limits, as the user gave them.

        Raises:
            ValueError: If the URL is not a Redis URL.
        """
        super().__init__(Purse(local), core.Clock())
        self.server: RedisContact = RedisContact(
            url, f"the rate limit {name!r}", "each process applies the limit alone"
        )
        key = f"opero:limit:{{{quote(name, safe='', errors='surrogatepass')}}}"
        self._keys: tuple[str, ...] = (key,)
        self._limits: list[tuple[str, float, float]] = []
        for cell, field in zip(
            self.bucket.cells(), ("rate", *map("{0[0]}/{0[1]!r}".format, windows)), strict=True
        ):
            interval = _eighths(cell.interval)
            self._limits.append((field, interval, interval * (cell.tolerance // cell.interval)))
        self._rate: SharedRate | None = None
        self.gate: Any
        if local.observes:
            control = local.control
            self._keys = (key, f"{key}:rate")
            self._rate = SharedRate(core, control.given, control.floor, local.burst, self.clock)
            self.gate = listening(core, control.given, self._learn)
        else:
            self.gate = core.TokenBucket(1e9 / local.interval, 1, core.new_lock())
        self.gate.queued = 1
        self._caller = core.clock
        self._told_lost = False
        self._paused_until = 0
        self._begin()

    def _begin(self) -> None:
        self._me = f"@{os.urandom(6).hex()}"  # this process's name in the line
        self._serial = 0  # the number of the last question,
        self._overtaken = 0  # and of the last one that a pause has overtaken: its grant is void
        self._asking = 0  # until when a question is taken to be under way,
        self._asker = 0  # and its number
        self._called_until = 0  # until when the last in the queue should ask
        self._come = 0  # when to ask again
        self._in_line = ""  # since when this process waits, in the server's time; "" if not in line
        self._born = ""  # what this process knows of the record: when it was made,
        self._halt = "0"  # the end of a pause,
        self._known = ["0"] * len(self._limits)  # and the arrival times

    def try_take(self, weight: int) -> bool:
        """Take permits if they are free now and nobody waits for them; return whether they were."""
        now = self.clock.now()
        bucket = self.bucket
        with self._lock:
            self._serve(now)
            if self._waiters:
                return False
            question = self._probe(weight)
            if question is None:
                if bucket.admit_many(now, weight) == 0:
                    return True
                if bucket.alone or bucket.room(now) < weight:
                    return False
                if self.server.blocks():
                    bucket.alone = True
                    return bucket.admit_many(now, weight) == 0
                question = self._asked(weight, 0, 0, 0, -1)
        question.ask("script", *question.request)
        with self._lock:
            return bucket.admit_many(self.clock.now(), weight) == 0

    def pause(self, length: int) -> None:
        """Hand out nothing for `length` nanoseconds, in any process."""
        self._pause_here(length)
        self._pause_elsewhere(length)

    def pause_soon(self, length: int) -> None:
        """Hand out nothing for `length` nanoseconds, here immediately and elsewhere soon after.

        If many attempts are refused together, one report is enough.
        """
        if self._rate is not None and not self._rate.series and length <= PROMPT:
            return  # a lower rate may be enough
        self._pause_here(length)
        until = self.clock.now() + length
        if until - length // 10 <= self._paused_until:
            return
        self._paused_until = until
        self._aside(self._pause_elsewhere, length)

    def _pause_here(self, length: int) -> None:
        self._overtaken = self._serial
        super().pause(length)

    def _pause_elsewhere(self, length: int) -> None:
        if not self.server.blocks():
            arguments = [math.ceil(length / 1e6), *self._limits[0]]
            reply = self.server.ask("script", PAUSE, self._keys, arguments)
            if reply is not None:
                with self._lock:  # also void questions asked before the server knew
                    self._overtaken = self._serial
                    self.bucket.grants.clear()
                    self._born, self._halt = map(_text, reply)

    def standby(self) -> Standby:
        """Return a place in the queue that is still free."""
        return RedisStandby(self)

    def after_fork(self) -> None:
        """Forget the waiters: they do not exist in the child process."""
        super().after_fork()
        if self._rate is not None:
            self._rate.after_fork()
        self.bucket.clear()
        for bucket in (self.bucket.local, self.gate):
            if bucket.lock is not None:
                bucket.lock = self._lock
        self._begin()

    def steps(self, deadline: int, weight: int) -> Steps:
        """Wait for permits (see `WaitQueue`); `deadline` is a time of the caller's clock."""
        clock, bucket = self.clock, self.bucket
        start = clock.now()
        latest = _translated(deadline, self._caller, clock)
        if bucket.take_many(start, weight) == 0:
            return 0
        waiter = _Waiter(weight)
        bell = yield BELL, waiter.is_granted
        waiter.wake = bell.ring
        question = None
        try:
            question = self._probe(weight)
            if question is not None:
                yield ASK, question, "script", question.request
                question = None
            due = self._join(waiter, start, latest)
            if due < 0:
                return -1
            while not bell.is_through():
                question = self._question(waiter, latest)
                if question is not None:
                    yield ASK, question, "script", question.request
                    question = None
                else:
                    yield REST, clock, bell, NEVER if waiter.granted else due
                if not bell.is_through():
                    due = self._look(waiter, latest)
                    if due < 0:
                        return -1
        except BaseException as interrupt:
            self._leave(waiter)
            cut = None if question is None or question.aside else question
            left = self._left_behind(cut)
            if left is None or isinstance(interrupt, GeneratorExit):
                raise
            if cut is None:
                yield ASK, self.server, "script", left
            else:  # a server that has not answered yet may be slow to answer this too
                self._aside(self.server.ask, "script", *left)
            raise
        finally:
            waiter.wake = bool  # the bell knows the waiter
        return max(0, clock.now() - start)

    def _note(self, head: _Waiter, now: int, due: int) -> int:
        """Note and return when the head of the queue looks again, and asks if needed."""
        bucket = self.bucket
        if not bucket.alone:
            if now < self._asking:
                due = min(max(due, now + NAP), self._asking)
            elif self._wants(now):
                due = min(due, max(self._come, self._refill(), self._called_until))
        return super()._note(head, now, max(due, now + 1))

    # --- the server -----------------------------------------------------------------------------

    def _wants(self, now: int) -> bool:
        """Return whether there are too few permits."""
        ahead = self.bucket.wanted_ahead(now, self.bucket.longest())
        return self.bucket.credit() < len(self._waiters) + self._extra + ahead // 2

    def _refill(self) -> int:
        """Return when to ask for more, in nanoseconds, given how long the present permits last."""
        grants = list(self.bucket.grants)
        return grants[-1].end() - HORIZON // 2 if grants else 0

    def _question(self, waiter: _Waiter, deadline: int) -> _Question | None:
        """Return the question to ask the server now; None for none, or if another waiter asks.

        Args:
            waiter: The waiter that would ask.
            deadline: Until when it waits, in nanoseconds.
        """
        bucket = self.bucket
        now = self.clock.now()
        with self._lock:
            head = self._head()
            if waiter.granted or head is None or now < self._asking:
                return None
            if not self._wants(now) or now < self._refill():
                return None
            if self._in_line and now < self._come:
                return None
            credit = bucket.credit()
            weight = head.weight
            if credit >= weight:
                weight = 1
            room = bucket.room(now)
            if room < weight:
                self._come = bucket.room_at(now, weight)
                return None
            if self.server.blocks():
                bucket.alone = True
                return None
            more = max(0, len(self._waiters) + self._extra - credit - weight)
            extra = bucket.wanted_ahead(now, bucket.longest())
            horizon, patience = HORIZON, -1
            if len(self._waiters) == 1 and deadline != NEVER:
                patience = max(0, deadline - now)
                horizon = min(HORIZON, patience)
            more = min(more, room - weight)
            extra = min(extra, room - weight - more)
            last = (self._some(reversed, 1) or [waiter])[0]
            if waiter is not last and not self._called_until:
                self._called_until = now + NAP
                if last.wake():
                    return None  # that one asks: the others may get permits before the reply
            if waiter is not last and now < self._called_until:
                return None
            question = self._asked(weight, more, extra, horizon, patience)
            self._called_until = 0
            self._asking, self._asker = now + _SILENCE, question.number
            return question

    def _probe(self, weight: int) -> _Question | None:
        """Return a question for an unavailable server, if it is time to try it again; else None."""
        if not self.bucket.alone or self.server.blocks():
            return None
        with self._lock:
            return self._asked(weight, 0, 0, 0, -1)

    def _asked(self, weight: int, more: int, extra: int, horizon: int, patience: int) -> _Question:
        """Return a question.

        Args:
            weight: How many permits the first waiter wants at a time.
            more: How many more the other waiters want.
            extra: How many to get in advance.
            horizon: How far ahead permits may be, in nanoseconds.
            patience: How long to wait in line, in nanoseconds; negative for as long as it takes,
                unless there is no horizon.
        """
        self._serial += 1
        wait = 1e15 if patience < 0 and horizon else patience / 1000
        arguments: list[Any] = [
            *(self._me, self._serial, self._in_line, self._born, self._halt),
            *(weight, more, extra, horizon / 1000, wait),
        ]
        for limit, known in zip(self._limits, self._known, strict=True):
            arguments += [*limit, known]
        request: tuple[Any, ...] = GRANT, self._keys, arguments
        if self._rate is not None:
            request = GRANT_ADAPTED, self._keys, [*self._rate.proposal(), *arguments]
        return _Question(self, self._serial, weight, request)

    def _heard(self, question: _Question, reply: Any) -> None:
        """Take the server's reply; None if it has failed."""
        bucket = self.bucket
        lost = False
        if reply is not None and self._rate is not None:
            reply, *heard = reply
            self._hear(heard, question.request[2])
        now = self.clock.now()
        with self._lock:
            if question.number == self._asker:
                self._asking = 0
            bucket.alone = reply is None
            if reply is None:
                self._in_line, bucket.told = "", 0
            else:
                lost = self._fill(question, reply, now)
            self._serve(now)
            self._wake_head()
        if lost and not self._told_lost:
            from opero.events import tell

            self._told_lost = True
            tell("limit_lost", store=self.called)

    def _fill(self, question: _Question, reply: list[Any], now: int) -> bool:
        """Take over a reply; return whether the server had lost its record."""
        granted, server, start, turn, come = map(float, reply[:5])
        self._in_line, self._born, halt = map(_text, reply[5:8])
        overtaken = question.number <= self._overtaken
        if not overtaken:
            self._halt = halt
        behind = now - round(server * 1000)
        cells = []
        for at, (_, interval, tolerance) in enumerate(self._limits):
            before, actual, after = map(_text, reply[9 + 3 * at : 12 + 3 * at])
            cells.append([float(before), float(actual), tolerance / interval * float(actual)])
            self._known[at] = after
        bucket = self.bucket
        if granted and not overtaken:
            count, mark = question.weight + int(granted) - 1, f"{self._me}{question.number}"
            bucket.grants.append(Grant(count, mark, start, behind, cells))
        bucket.told = round(turn * 1000) + behind if self._waiters else 0
        self._come = question.began + round(come * 1000)  # the next one takes as long to arrive
        return bool(reply[8])

    def _left_behind(self, interrupted: _Question | None) -> Any:
        """Return what to tell the server after a waiter has left; None for nothing.

        Args:
            interrupted: The waiter's unanswered question, or None.
        """
        with self._lock:
            bucket = self.bucket
            if interrupted is not None and interrupted.number == self._asker:
                self._asking = 0
                self._wake_head()
            me = "" if self._waiters else self._me
            mark, arrivals = "", [""] * len(self._limits)
            if interrupted is not None:
                mark = f"{self._me}{interrupted.number}"
            elif me:
                bucket.told = 0
                for grant in list(bucket.grants)[-1:]:
                    if grant.mark and grant.count > 0:
                        bucket.drop(grant)
                        mark = grant.mark
                        arrivals = [f"{cell[0]:.3f}" for cell in grant.cells]
            if not mark and not (me and self._in_line):
                return None
            if me:
                self._in_line, self._come = "", 0
            if self.server.blocks():
                return None
        pairs = zip([limit[0] for limit in self._limits], arrivals, strict=True)
        return GIVE_BACK, self._keys, [me, mark, *[each for pair in pairs for each in pair]]

    # --- a rate that adapts ---------------------------------------------------------------------

    def rate(self) -> float:
        """Return the rate that this process last heard."""
        assert self._rate is not None
        return float(self.bucket.local.rate()) if self.bucket.alone else self._rate.rate

    def report(self, outcome: int, entered: int) -> None:
        """Report to an adaptive limit how an attempt with its permit has ended."""
        assert self._rate is not None
        self.bucket.local.leave(self.clock.now(), outcome, entered, 0)
        if self._rate.learn(outcome, entered) and not self.server.blocks():
            self._aside(self._tell)

    def _learn(self, now: int, outcome: int, entered: int) -> None:
        """Do the same, by the clock of callers."""
        self.report(outcome, self.clock.now() - (now - entered))

    def _tell(self) -> None:
        """Report a rejection to the server, again if other processes were faster."""
        assert self._rate is not None
        for _ in range(_TRIES):
            proposal = self._rate.proposal()
            if not proposal[1]:
                return
            reply = self.server.ask("script", LEARN, self._keys, proposal)
            if reply is None:
                return
            self._hear(reply, proposal)

    def _hear(self, heard: list[Any], proposal: list[Any]) -> None:
        assert self._rate is not None
        state, time, applied = heard
        cut = self._rate.heard(_text(state), float(time), applied, proposal)
        local = self.bucket.local
        with self._lock:  # the local limit follows the shared rate
            local.control.rate = self._rate.rate
            local.retime(self.clock.now())
            if cut:
                self.bucket.grants.clear()  # they were granted at the old rate
        if cut:
            self.tell_cut(self.called, self._rate.rate)

    @staticmethod
    def _aside(work: Callable[..., None], *arguments: Any) -> None:
        """Call a function in a separate thread."""
        thread = threading.Thread(target=work, args=arguments, name="opero-limit", daemon=True)
        with suppress(RuntimeError):  # too many threads, or the interpreter is ending
            thread.start()


class RedisStandby(QueueStandby):
    """A place for a caller that checks back instead of waiting; see `QueueStandby`."""

    _queue: RedisWaitQueue

    def enter(self, now: int) -> int:
        """Take a permit and return 0, or return the nanoseconds until one may be available."""
        queue = self._queue
        question = queue._probe(1) if self._waiter is None else None
        wait = 0
        if question is None:
            wait = super().enter(now)
            if self._waiter is not None:
                question = queue._question(self._waiter, NEVER)
        if question is not None:
            question.ask("script", *question.request)
            wait = super().enter(now)
        return wait

    def withdraw(self) -> None:
        """Leave the queue, and give back what nobody else waits for."""
        if self._waiter is not None:
            super().withdraw()
            left = self._queue._left_behind(None)
            if left is not None:
                self._queue.server.ask("script", *left)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _eighths(nanoseconds: int) -> float:
    """Return a time in microseconds, rounded up to an eighth."""
    return -(-nanoseconds // 125) / 8
