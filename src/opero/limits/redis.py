"""Limits of hosts with one Redis: every waiter reserves a time there, and sleeps until then.

    semaphore ─▶ ask ─▶ a time within the horizon: sleep until then, look for a pause, go
                  ▲  └▶ none yet: sleep until shortly before, nothing is reserved
                  └───────────────────────────────┘

One Lua script decides, by the server's clock. A time that it gives is taken, so those who wait are
served in the order of asking, and nobody polls. Nobody gets a time further ahead than `HORIZON`: so
a client that dies wastes little, and a pause is heeded by nearly everybody. One who is cancelled
gives the reservation back, which succeeds if nobody has got a later one since.

Only `AT_ONCE` callers of a process ask or sleep at once, the others wait for a semaphore in their
order. So a process with a thousand waiters does not take every permit of the next second.

If the server fails, the same limit goes on in this process; see `clients.outages`. What the server
grants is noted there too, so that a failure frees no further burst.

What a wait does is told by effects (`runners/effects.py`), so threads and tasks wait alike.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote

from opero.clients.redis import Script
from opero.core.adaptive_bucket import PROMPT
from opero.core.clock import NEVER
from opero.locks import Lock
from opero.runners.effects import ASK, BELL, REST, SLEEP

from .redis_contact import RedisContact
from .redis_rate import ADAPT, SharedRate, listening
from .wait_queue import WaitQueue
from .waiting import Standby
from .windows import Windows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.gate import Gate
    from opero.runners.effects import Steps

HORIZON: Final = 1_000_000_000
"""How far ahead a reservation may be, in nanoseconds."""

AT_ONCE: Final = 8
"""How many callers of a process ask the server, or sleep until their time, at once."""

_LONG = 50_000_000
"""Who has slept for longer, in nanoseconds, looks once more for a pause."""
_GLANCE = 2_000_000_000
"""How often those who wait for the semaphore look whether a holder has fallen silent."""
_TRIES = 10
"""How often a rejection is told anew, if others are faster."""
_NAP = 10_000_000
"""The shortest sleep before asking again, in nanoseconds."""

_TIME = """
local time = redis.call('TIME')
local now = (time[1] - 1700000000) * 1000000 + time[2]
local pause = math.max(redis.call('PTTL', KEYS[2]), 0) * 1000
local function text(number) return string.format('%.3f', number) end
"""
"""Microseconds since a moment of late 2023, so that a double holds eighths of them."""

_RESERVE = """
local function reserve(ARGV)
local weight, horizon, furthest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local due, arrivals = now + pause, {}
for at = 4, #ARGV, 3 do
  local interval, tolerance = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local arrival = tonumber(redis.call('HGET', KEYS[1], ARGV[at]) or '0')
  -- further than any reservation can have moved it: the server's clock has gone back
  local bound = now + math.max(furthest, pause) + 2 * tolerance + interval
  if arrival > bound then arrival = bound end
  arrivals[at] = arrival
  due = math.max(due, arrival - tolerance + (weight - 1) * interval)
end
if due - now > horizon then return {0, text(due - now)} end
local reply, last = {1, text(due - now)}, now
for at = 4, #ARGV, 3 do
  local fresh = math.max(arrivals[at], due) + weight * tonumber(ARGV[at + 1])
  redis.call('HSET', KEYS[1], ARGV[at], text(fresh))
  reply[#reply + 1] = ARGV[at]
  reply[#reply + 1] = text(arrivals[at])
  reply[#reply + 1] = text(fresh)
  last = math.max(last, fresh)
end
redis.call('PEXPIRE', KEYS[1], math.ceil((last - now) / 1000) + 1000)
return reply
end
"""
_ASK = Script(_TIME + _RESERVE + "return reserve(ARGV)")
_LEARN = Script(_TIME + ADAPT + "return {state, text(now), applied}")
_ASK_ADAPTED = Script(
    _TIME
    + ADAPT
    + _RESERVE
    + """
local asked = {}
for at = 5, #ARGV do asked[#asked + 1] = ARGV[at] end
asked[5], asked[6] = interval, interval * burst
return {reserve(asked), state, text(now), applied}
"""
)
_RETURN = Script("""
for at = 1, #ARGV, 3 do
  if redis.call('HGET', KEYS[1], ARGV[at]) ~= ARGV[at + 2] then return 0 end
end
for at = 1, #ARGV, 3 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
return 1
""")
_PAUSE = Script(
    _TIME
    + """
local length = tonumber(ARGV[1])
if pause < length * 1000 then redis.call('SET', KEYS[2], '', 'PX', length) end
local arrival = tonumber(redis.call('HGET', KEYS[1], ARGV[2]) or '0')
local floor = now + length * 1000 + tonumber(ARGV[4])
if floor > arrival then
  redis.call('HSET', KEYS[1], ARGV[2], text(floor))
  local left = math.ceil((floor - now) / 1000) + 1000
  if redis.call('PTTL', KEYS[1]) < left then redis.call('PEXPIRE', KEYS[1], left) end
end
return 1
"""
)

_LOCAL = object()
"""The outcome of a wait that has to go on without the server."""


class _Reservation:
    """A permit at a time to come.

    Attributes:
        due: When it may be used, in nanoseconds of the machine's clock.
        wait: How far off that was.
        receipt: What gives it back; None if it was not reserved.
    """

    __slots__ = ("due", "receipt", "wait")

    def __init__(self, now: int, reply: list[Any]) -> None:
        self.wait: int = math.ceil(float(reply[1]) * 1000)
        self.due: int = now + self.wait
        self.receipt: Any = reply[2:] if reply[0] else None


class RedisWaitQueue:
    """Those of this process who wait for permits of a limit in Redis.

    Attributes:
        bucket: Never hands anything out: it sends every caller into the queue.
        gate: The same.
        awaited: What one waits for, as a message names it.
        called: What the limit is, in words.
        server: Where the limit is kept.
    """

    awaited = "its rate-limit permit"
    by_value = False
    called = "a rate limit in Redis"

    def __init__(self, core: Any, url: Any, name: Any, local: Any, windows: Windows) -> None:
        """Ask nothing yet.

        Args:
            core: The active half of opero.
            url: Where the server is.
            name: What the limit is called there.
            local: The same limit, for when the server is gone.
            windows: Further limits, as the user has given them.

        Raises:
            ValueError: If the URL is not one of Redis.
        """
        self.server: RedisContact = RedisContact(
            url, f"the rate limit {name!r}", "each process keeps to it by itself"
        )
        key = f"opero:limit:{{{quote(name, safe='', errors='surrogatepass')}}}"
        self._keys: tuple[str, ...] = (key, f"{key}:pause")
        limits = [local, *getattr(local, "others", ())]
        self._limits: list[Any] = []
        for limit, field in zip(
            limits, ("rate", *map("{0[0]}/{0[1]!r}".format, windows)), strict=True
        ):
            interval = _eighths(limit.interval)
            burst = limit.tolerance // limit.interval
            self._limits += [field, interval, interval * burst]
        self._rate: SharedRate | None = None
        self.bucket: Any
        if local.observes:
            control = local.control
            self._keys = (*self._keys, f"{key}:rate")
            self._rate = SharedRate(core, control.given, control.floor, local.burst, core.Clock())
            self.bucket = listening(core, control.given, self._learn)
        else:
            self.bucket = core.TokenBucket(1e9 / local.interval, 1, core.new_lock())
        self.bucket.queued = 1
        self.gate: Gate = self.bucket
        self._caller = core.clock
        self._clock = core.Clock()
        self._local = WaitQueue(local, self._clock)
        self._local.tells = False
        self._semaphore = _Semaphore()
        self._told = 0
        self._paused_until = 0

    def try_take(self, weight: int) -> bool:
        """Take permits if they are free now; return whether they were."""
        if not self.server.blocks():
            reservation = self.reserve(weight, 0)
            if reservation is not None:
                if reservation.receipt is not None:
                    self._charge(weight)
                return reservation.receipt is not None
        return self._local.try_take(weight)

    def pause(self, length: int) -> None:
        """Hand out nothing for some nanoseconds, here and elsewhere."""
        self._local.pause(length)
        self._pause_elsewhere(length)

    def pause_soon(self, length: int) -> None:
        """Hand out nothing for some nanoseconds, here at once, and elsewhere by and by.

        Many who are refused at once need to say so once.
        """
        if self._rate is not None and not self._rate.series and length <= PROMPT:
            return  # a lower rate may do
        self._local.pause(length)
        until = self._clock.now() + length
        if until - length // 10 <= self._paused_until:
            return
        self._paused_until = until
        self._aside(self._pause_elsewhere, length)

    def _pause_elsewhere(self, length: int) -> None:
        if not self.server.blocks():
            arguments = [math.ceil(length / 1e6), *self._limits[:3]]
            self.server.ask("script", _PAUSE, self._keys[:2], arguments)

    def standby(self) -> Standby:
        """Return a place that nobody has taken yet."""
        return RedisStandby(self)

    def standby_alone(self) -> Standby:
        """Return a place before a bucket of the same rate and burst, here."""
        return self._local.standby_alone()

    def after_fork(self) -> None:
        """Forget those who wait: they did not come along into the child process."""
        self._local.after_fork()
        if self._rate is not None:
            self._rate.after_fork()
        self._semaphore = _Semaphore()
        if self.bucket.lock is not None:
            self.bucket.lock = Lock()

    def steps(self, deadline: int, weight: int) -> Steps:
        """Wait for permits, unless they would come too late.

        Args:
            deadline: The latest time, in nanoseconds of the caller's clock.
            weight: How many permits.

        Returns:
            Nanoseconds waited, or -1.
        """
        start = self._clock.now()
        latest = NEVER if deadline == NEVER else int(deadline - self._caller.now() + start)
        outcome = yield from _Wait(self, latest, weight).steps()
        if outcome is _LOCAL:
            outcome = yield from self._local.steps(latest, weight)
        return self._clock.now() - start if outcome >= 0 else -1

    # --- the server -----------------------------------------------------------------------------

    def request(self, weight: int, horizon: int) -> tuple[Any, ...]:
        """Return what `ask` takes to ask for a reservation."""
        arguments = [weight, horizon / 1000, HORIZON / 1000, *self._limits]
        if self._rate is not None:
            return _ASK_ADAPTED, self._keys, [*self._rate.proposal(), *arguments]
        return _ASK, self._keys, arguments

    def reservation(self, request: tuple[Any, ...], reply: list[Any]) -> _Reservation:
        """Return what the server has answered to a request."""
        if self._rate is not None:
            self._hear(reply[1:], request[2])
            reply = reply[0]
        return _Reservation(self._clock.now(), reply)

    # --- a rate that adapts ---------------------------------------------------------------------

    @property
    def clock(self) -> Any:
        """The machine's clock."""
        return self._clock

    def rate(self) -> float:
        """Return the rate, as this process last heard of it."""
        assert self._rate is not None
        return float(self._local.rate()) if self.server.blocks() else self._rate.rate

    def report(self, outcome: int, entered: int) -> None:
        """Let an adaptive limit know how something has ended that had its permit."""
        assert self._rate is not None
        self._local.bucket.leave(self._clock.now(), outcome, entered, 0)
        if self._rate.learn(outcome, entered) and not self.server.blocks():
            self._aside(self._tell)

    def _learn(self, now: int, outcome: int, entered: int) -> None:
        """Do so, by the clock of callers."""
        self.report(outcome, self._clock.now() - (now - entered))

    def _tell(self) -> None:
        """Tell the server of a rejection, again if others have told it something meanwhile."""
        assert self._rate is not None
        for _ in range(_TRIES):
            proposal = self._rate.proposal()
            if not proposal[1]:
                return
            reply = self.server.ask("script", _LEARN, self._keys, proposal)
            if reply is None:
                return
            self._hear(reply, proposal)

    def _hear(self, heard: list[Any], proposal: list[Any]) -> None:
        assert self._rate is not None
        state, time, applied = heard
        if self._rate.heard(state, float(time), applied, proposal):
            self._local.tell_cut(self.called, self._rate.rate)

    @staticmethod
    def _aside(work: Callable[..., None], *arguments: Any) -> None:
        """Do something in a thread of its own."""
        thread = threading.Thread(target=work, args=arguments, name="opero-limit", daemon=True)
        with suppress(RuntimeError):  # there are too many, or the interpreter is about to end
            thread.start()

    def reserve(self, weight: int, horizon: int) -> _Reservation | None:
        """Ask for a reservation; None if the server does not answer."""
        request = self.request(weight, horizon)
        reply = self.server.ask("script", *request)
        return None if reply is None else self.reservation(request, reply)

    def look(self) -> int | None:
        """Return for how many milliseconds there is a pause, below 0 without; None if it fails."""
        left: int | None = self.server.ask("run", "PTTL", self._keys[1])
        return left

    def give_back(self, receipt: Any) -> None:
        """Give a reservation back, if the server can be reached and nobody has a later one."""
        if receipt is not None and not self.server.blocks():
            self.server.ask("script", _RETURN, self._keys, receipt)

    def _charge(self, weight: int) -> None:
        """Note permits of the server in the limit of this process."""
        with self._local._lock:
            self._local.bucket.admit_many(self._clock.now(), weight)


class _Wait:
    """One wait for permits.

    Attributes:
        deadline: The latest time for them, in nanoseconds of the machine's clock.
        holder: What it holds of the semaphore.
        receipt: What gives back the reservation that is not used yet.
    """

    def __init__(self, queue: RedisWaitQueue, deadline: int, weight: int) -> None:
        self.queue = queue
        self.deadline = deadline
        self._weight = weight
        self.holder = _Holder()
        self.receipt: Any = None

    def steps(self) -> Steps:
        """Wait, and give the reservation back if that is interrupted.

        Returns:
            0, -1 if it would be too late, or `_LOCAL`.
        """
        queue, holder = self.queue, self.holder
        bell = yield BELL, holder.is_admitted
        holder.wake = bell.ring
        try:
            try:
                return (yield from self._steps(bell))
            finally:
                queue._semaphore.release(holder)
                holder.wake = bool  # the bell knows the holder
        except GeneratorExit:
            raise
        except BaseException:
            if self.receipt is not None and not queue.server.blocks():
                yield ASK, queue.server, "script", (_RETURN, queue._keys, self.receipt)
            raise

    def _steps(self, bell: Any) -> Steps:
        queue, holder, deadline = self.queue, self.holder, self.deadline
        clock, now = queue._clock, queue._clock.now
        semaphore = queue._semaphore
        if not semaphore.acquire(holder) and queue._told > deadline:
            return -1
        while not holder.admitted:
            if now() >= deadline:
                return -1
            yield REST, clock, bell, min(now() + _GLANCE, deadline)
            semaphore.reclaim(now())
        while True:
            if queue.server.blocks():
                return _LOCAL
            left = deadline - now()
            if left < 0:
                return -1
            holder.until = now() + 2 * _GLANCE
            request = queue.request(self._weight, min(HORIZON, left))
            reply = yield ASK, queue.server, "script", request
            if reply is None:
                return _LOCAL
            reservation = queue.reservation(request, reply)
            if reservation.receipt is None:
                queue._told = reservation.due
                if reservation.due > deadline:
                    return -1
                again = max(reservation.due - HORIZON // 2, now() + _NAP)
                holder.until = again + _GLANCE
                yield SLEEP, clock, again - now()
                continue
            self.receipt = reservation.receipt
            if reservation.wait:
                holder.until = reservation.due + _GLANCE
                yield SLEEP, clock, reservation.due - now()
            if reservation.wait > _LONG and not queue.server.blocks():
                paused = yield ASK, queue.server, "run", ("PTTL", queue._keys[1])
                if paused is not None and paused > 0:
                    self.receipt = None  # the reservation is in the pause, and lost
                    continue
            self.receipt = None
            queue._charge(self._weight)
            return 0


class RedisStandby(Standby):
    """A place for somebody who does not wait but comes back to look; see `QueueStandby`."""

    def __init__(self, queue: RedisWaitQueue) -> None:
        super().__init__(queue.gate)
        self.queue: RedisWaitQueue = queue
        self._reservation: _Reservation | None = None
        self._local: Standby | None = None

    def enter(self, now: int) -> int:  # noqa: ARG002 - it goes by the machine's clock
        """Take a permit, if it is there; return 0, else nanoseconds until it might be."""
        queue = self.queue
        if self._local is not None:
            wait = self._local.enter(queue._clock.now())
            if wait == 0:
                self._local = None
            return wait
        reservation = self._reservation
        if reservation is None and not queue.server.blocks():
            reservation = queue.reserve(1, HORIZON)
        if reservation is None:
            self._local = queue._local.standby()
            return self.enter(0)
        self._reservation = reservation
        until = (
            reservation.due if reservation.receipt is not None else reservation.due - HORIZON // 2
        )
        left: int = until - queue._clock.now()
        if left > 0:
            return left
        self._reservation = None
        if reservation.receipt is None or (reservation.wait > _LONG and self._is_paused()):
            return _NAP
        queue._charge(1)
        return 0

    def _is_paused(self) -> bool:
        left = None if self.queue.server.blocks() else self.queue.look()
        return left is not None and left > 0

    def withdraw(self) -> None:
        """Give the reservation back."""
        reservation, self._reservation = self._reservation, None
        local, self._local = self._local, None
        if local is not None:
            local.withdraw()
        if reservation is not None:
            self.queue.give_back(reservation.receipt)


class _Holder:
    """A caller that holds the semaphore, or waits for it.

    Attributes:
        wake: Tells the caller that it holds it; false if it is gone for good.
        admitted: Whether it does.
        until: When the caller will have said something, in nanoseconds; later it counts as stuck.
    """

    __slots__ = ("admitted", "until", "wake")

    def __init__(self) -> None:
        self.wake: Callable[[], bool] = bool
        self.admitted = False
        self.until = NEVER

    def is_admitted(self) -> bool:
        """Return whether the caller holds the semaphore."""
        return self.admitted


class _Semaphore:
    """A few holders at once, and a queue of those who wait."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._holders: set[_Holder] = set()
        self._waiting: OrderedDict[_Holder, bool] = OrderedDict()  # anybody leaves it at once

    def __len__(self) -> int:
        return len(self._holders) + len(self._waiting)

    def acquire(self, holder: _Holder) -> bool:
        """Admit a caller, or let it wait; return whether it was admitted."""
        with self._lock:
            if len(self._holders) < AT_ONCE and not self._waiting:
                self._holders.add(holder)
                holder.admitted = True
            else:
                self._waiting[holder] = True
            return holder.admitted

    def release(self, holder: _Holder) -> None:
        """Admit the next instead of a holder, or leave the queue."""
        with self._lock:
            if holder in self._holders:
                self._holders.remove(holder)
            else:
                self._waiting.pop(holder, None)
            self._fill()

    def reclaim(self, now: int) -> None:
        """Release those whose event loop is stuck: the semaphore is for order, not for rate."""
        with self._lock:
            for holder in [holder for holder in self._holders if holder.until < now]:
                self._holders.remove(holder)
            self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._holders) < AT_ONCE:
            holder, _ = self._waiting.popitem(last=False)
            holder.admitted = True
            self._holders.add(holder)
            if not holder.wake():
                self._holders.discard(holder)


def _eighths(nanoseconds: int) -> float:
    """Return a time in microseconds, rounded up to an eighth."""
    return -(-nanoseconds // 125) / 8
