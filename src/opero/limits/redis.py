"""Limits of hosts with one Redis: every waiter asks the server for a slot, and sleeps until then.

    enter the room ─▶ ask ─▶ a slot within the horizon: sleep until then, look for a pause, go
                       ▲  └▶ none yet: sleep until shortly before, nothing is reserved
                       └───────────────────────────────┘

One Lua script decides, by the server's clock. A slot that it gives is taken, so those who wait are
served in the order of asking, and nobody polls. Nobody gets a slot further ahead than `HORIZON`: so
a client that dies wastes little, and a pause is heeded by nearly everybody. One who is cancelled
gives the slot back, which succeeds if nobody has got a later one since.

Only `SEATS` callers of a process ask or sleep at once, the others wait in a room in their order. So
a process with a thousand waiters does not take every slot of the next second.

If the server fails, the same limit goes on in this process; see `stores.outages`. What the server
grants is noted there too, so that a failure frees no further burst.

What a wait does is told by effects (`runners/effects.py`), so threads and tasks wait alike.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from opero.core.clock import NEVER
from opero.locks import Lock
from opero.runners.effects import ASK, BELL, REST, SLEEP
from opero.stores.outages import Outage
from opero.stores.redis_clients import Script, async_client, client

from .wait_queue import WaitQueue
from .waiting import Standby
from .windows import Windows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.gate import Gate
    from opero.runners.effects import Steps

HORIZON: Final = 1_000_000_000
"""How far ahead a slot may be, in nanoseconds."""

SEATS: Final = 8
"""How many callers of a process ask the server, or sleep until their slot, at once."""

_LONG = 50_000_000
"""Who has slept for longer, in nanoseconds, looks once more for a pause."""
_GLANCE = 2_000_000_000
"""How often those in the room look whether somebody's seat has been left without a word."""
_NAP = 10_000_000
"""The shortest sleep before asking again, in nanoseconds."""

_TIME = """
local time = redis.call('TIME')
local now = (time[1] - 1700000000) * 1000000 + time[2]
local pause = math.max(redis.call('PTTL', KEYS[2]), 0) * 1000
local function text(number) return string.format('%.3f', number) end
"""
"""Microseconds since a moment of late 2023, so that a double holds eighths of them."""

_ASK = Script(
    _TIME
    + """
local weight, horizon, furthest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local due, arrivals = now + pause, {}
for at = 4, #ARGV, 3 do
  local interval, tolerance = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local arrival = tonumber(redis.call('HGET', KEYS[1], ARGV[at]) or '0')
  -- further than any slot can have moved it: the server's clock has gone back
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
        self.wait = math.ceil(float(reply[1]) * 1000)
        self.due = now + self.wait
        self.receipt = reply[2:] if reply[0] else None


class RedisWaitQueue:
    """Those of this process who wait for permits of a limit in Redis.

    Attributes:
        bucket: Never hands anything out: it sends every caller into the line.
        gate: The same.
        awaited: What one waits for, as a message names it.
    """

    awaited = "its rate-limit permit"

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
        self._where = client(url).where
        self._url = url
        self._name = name
        key = f"opero:limit:{{{quote(name, safe='', errors='surrogatepass')}}}"
        self._keys = (key, f"{key}:pause")
        limits = [local, *getattr(local, "others", ())]
        self._limits: list[Any] = []
        for limit, field in zip(
            limits, ("rate", *map("{0[0]}/{0[1]!r}".format, windows)), strict=True
        ):
            interval = _eighths(limit.interval)
            burst = limit.tolerance // limit.interval
            self._limits += [field, interval, interval * burst]
        self.bucket: Any = core.TokenBucket(1e9 / local.interval, 1, core.new_lock())
        self.bucket.queued = 1
        self.gate: Gate = self.bucket
        self._caller = core.clock
        self._clock = core.Clock()
        self._local = WaitQueue(local, self._clock)
        self._room = _Room()
        self._told = 0
        self._outage = self._new_outage()

    def try_take(self, weight: int) -> bool:
        """Take permits if they are free now; tell whether they were."""
        if not self.blocks():
            slot = self.reserve(weight, 0)
            if slot is not None:
                if slot.receipt is not None:
                    self._charge(weight)
                return slot.receipt is not None
        return self._local.try_take(weight)

    def pause(self, length: int) -> None:
        """Hand out nothing for some nanoseconds, here and elsewhere."""
        self._local.pause(length)
        self._pause_elsewhere(length)

    def pause_soon(self, length: int) -> None:
        """Hand out nothing for some nanoseconds, here at once, and elsewhere by and by."""
        self._local.pause(length)
        threading.Thread(
            target=self._pause_elsewhere, args=(length,), name="opero-pause", daemon=True
        ).start()

    def _pause_elsewhere(self, length: int) -> None:
        if not self.blocks():
            arguments = [math.ceil(length / 1e6), *self._limits[:3]]
            self.ask("script", _PAUSE, self._keys, arguments)

    def standby(self) -> Standby:
        """Return a place that nobody has taken yet."""
        return RedisStandby(self)

    def standby_alone(self) -> Standby:
        """Return a place before a bucket of the same rate and burst, here."""
        return self._local.standby_alone()

    def after_fork(self) -> None:
        """Forget those who wait: they did not come along into the child process."""
        self._local.after_fork()
        self._room = _Room()
        self._outage = self._new_outage()
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

    def ask(self, operation: str, *arguments: Any) -> Any:
        """Have the server do something; None if that fails.

        Args:
            operation: "script" or "run".
            arguments: What that takes.
        """
        try:
            reply = getattr(client(self._url), operation)(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, the limit goes on
            self._outage.failed(error, operation == "script")
            return None
        self._outage.worked(operation == "script")
        return reply

    async def ask_async(self, operation: str, *arguments: Any) -> Any:
        """Do the same in a task."""
        try:
            reply = await getattr(async_client(self._url), operation)(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, the limit goes on
            self._outage.failed(error, operation == "script")
            return None
        self._outage.worked(operation == "script")
        return reply

    def request(self, weight: int, horizon: int) -> tuple[Any, ...]:
        """Return what `ask` takes to ask for a slot."""
        return _ASK, self._keys, [weight, horizon / 1000, HORIZON / 1000, *self._limits]

    def reserve(self, weight: int, horizon: int) -> _Reservation | None:
        """Ask for a slot; None if the server does not answer."""
        reply = self.ask("script", *self.request(weight, horizon))
        return None if reply is None else _Reservation(self._clock.now(), reply)

    def look(self) -> int | None:
        """Return for how many milliseconds there is a pause, below 0 without; None if it fails."""
        left: int | None = self.ask("run", "PTTL", self._keys[1])
        return left

    def give_back(self, receipt: Any) -> None:
        """Give a slot back, if the server can be reached and nobody has a later one."""
        if receipt is not None and not self.blocks():
            self.ask("script", _RETURN, self._keys, receipt)

    def blocks(self) -> bool:
        """Tell whether to leave the server alone now."""
        return self._outage.blocks(writing=True)

    def _charge(self, weight: int) -> None:
        """Note permits of the server in the limit of this process."""
        with self._local._lock:
            self._local.bucket.admit_many(self._clock.now(), weight)

    def _new_outage(self) -> Outage:
        return Outage(
            f"the rate limit {self._name!r} in Redis at {self._where}",
            instead="each process keeps to it by itself",
        )


class _Wait:
    """One wait for permits.

    Attributes:
        deadline: The latest time for them, in nanoseconds of the machine's clock.
        seat: Its seat in the room.
        receipt: What gives back the slot that is not used yet.
    """

    def __init__(self, line: RedisWaitQueue, deadline: int, weight: int) -> None:
        self.queue = line
        self.deadline = deadline
        self._weight = weight
        self.seat = _Seat()
        self.receipt: Any = None

    def steps(self) -> Steps:
        """Wait, and give the slot back if that is interrupted.

        Returns:
            0, -1 if it would be too late, or `_LOCAL`.
        """
        line, seat = self.queue, self.seat
        bell = yield BELL, seat.is_taken
        seat.wake = bell.ring
        try:
            try:
                return (yield from self._steps(bell))
            finally:
                line._room.leave(seat)
                seat.wake = bool  # the bell knows the seat
        except GeneratorExit:
            raise
        except BaseException:
            if self.receipt is not None and not line.blocks():
                yield ASK, line, "script", (_RETURN, line._keys, self.receipt)
            raise

    def _steps(self, bell: Any) -> Steps:
        line, seat, deadline = self.queue, self.seat, self.deadline
        clock, now = line._clock, line._clock.now
        room = line._room
        if not room.enter(seat) and line._told > deadline:
            return -1
        while not seat.taken:
            if now() >= deadline:
                return -1
            yield REST, clock, bell, min(now() + _GLANCE, deadline)
            room.clear(now())
        while True:
            if line.blocks():
                return _LOCAL
            left = deadline - now()
            if left < 0:
                return -1
            seat.until = now() + 2 * _GLANCE
            reply = yield ASK, line, "script", line.request(self._weight, min(HORIZON, left))
            if reply is None:
                return _LOCAL
            slot = _Reservation(now(), reply)
            if slot.receipt is None:
                line._told = slot.due
                if slot.due > deadline:
                    return -1
                again = max(slot.due - HORIZON // 2, now() + _NAP)
                seat.until = again + _GLANCE
                yield SLEEP, clock, again - now()
                continue
            self.receipt = slot.receipt
            if slot.wait:
                seat.until = slot.due + _GLANCE
                yield SLEEP, clock, slot.due - now()
            if slot.wait > _LONG and not line.blocks():
                paused = yield ASK, line, "run", ("PTTL", line._keys[1])
                if paused is not None and paused > 0:
                    self.receipt = None  # the slot is in the pause, and lost
                    continue
            self.receipt = None
            line._charge(self._weight)
            return 0


class RedisStandby(Standby):
    """A place for somebody who does not wait but comes back to look; see `QueueStandby`."""

    def __init__(self, line: RedisWaitQueue) -> None:
        super().__init__(line.gate)
        self.queue = line
        self._slot: _Reservation | None = None
        self._local: Standby | None = None

    def enter(self, now: int) -> int:  # noqa: ARG002 - it goes by the machine's clock
        """Take a permit, if it is there; return 0, else nanoseconds until it might be."""
        line = self.queue
        if self._local is not None:
            wait = self._local.enter(line._clock.now())
            if wait == 0:
                self._local = None
            return wait
        slot = self._slot
        if slot is None and not line.blocks():
            slot = line.reserve(1, HORIZON)
        if slot is None:
            self._local = line._local.standby()
            return self.enter(0)
        self._slot = slot
        until = slot.due if slot.receipt is not None else slot.due - HORIZON // 2
        left: int = until - line._clock.now()
        if left > 0:
            return left
        self._slot = None
        if slot.receipt is None or (slot.wait > _LONG and self._is_paused()):
            return _NAP
        line._charge(1)
        return 0

    def _is_paused(self) -> bool:
        left = None if self.queue.blocks() else self.queue.look()
        return left is not None and left > 0

    def withdraw(self) -> None:
        """Give the slot back."""
        slot, self._slot = self._slot, None
        local, self._local = self._local, None
        if local is not None:
            local.withdraw()
        if slot is not None:
            self.queue.give_back(slot.receipt)


class _Seat:
    """A caller's seat in the room.

    Attributes:
        wake: Tells the caller that it has the seat; false if it is gone for good.
        taken: Whether it has it.
        until: When the caller will have said something, in nanoseconds; later it counts as stuck.
    """

    __slots__ = ("taken", "until", "wake")

    def __init__(self) -> None:
        self.wake: Callable[[], bool] = bool
        self.taken = False
        self.until = NEVER

    def is_taken(self) -> bool:
        """Tell whether the caller has it."""
        return self.taken


class _Room:
    """A few seats, and a line of those who wait for one."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._seats: set[_Seat] = set()
        self.queue: deque[_Seat] = deque()

    def __len__(self) -> int:
        return len(self._seats) + len(self.queue)

    def enter(self, seat: _Seat) -> bool:
        """Take a seat, or a place in the line; tell whether it was a seat."""
        with self._lock:
            if len(self._seats) < SEATS and not self.queue:
                self._seats.add(seat)
                seat.taken = True
            else:
                self.queue.append(seat)
            return seat.taken

    def leave(self, seat: _Seat) -> None:
        """Leave the seat to the next, or leave the line."""
        with self._lock:
            if seat in self._seats:
                self._seats.remove(seat)
            elif not seat.taken and seat in self.queue:
                self.queue.remove(seat)
            self._fill()

    def clear(self, now: int) -> None:
        """Take the seats of those whose event loop is stuck: a seat is for order, not for rate."""
        with self._lock:
            for seat in [seat for seat in self._seats if seat.until < now]:
                self._seats.remove(seat)
            self._fill()

    def _fill(self) -> None:
        while self.queue and len(self._seats) < SEATS:
            seat = self.queue.popleft()
            seat.taken = True
            self._seats.add(seat)
            if not seat.wake():
                self._seats.discard(seat)


def _eighths(nanoseconds: int) -> float:
    """Return a time in microseconds, rounded up to an eighth."""
    return -(-nanoseconds // 125) / 8
