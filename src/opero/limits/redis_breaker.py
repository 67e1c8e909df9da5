"""Breakers shared through Redis: the record there, and the exchange with processes.

    attempts ─▶ RemoteBreaker ─▶ courier, a thread ─▶ script ─▶ record
                     ▲                                   │
                     └────────── state, durations ◀──────┘

Attempts decide by what their process knows, and never wait for the server. Their outcomes go to the
server in the background: failures immediately, successes every second while there are attempts. One
script processes them, changes the state and returns it. So a process learns of a change with its
next failure, or a second after its last exchange.

Only the lease of a probe is requested during an attempt, by one attempt per process, because two
must not get it. That takes a round trip; other attempts are refused meanwhile.

All times in the record are the server's, and all times in requests and replies are durations, so
the clocks of hosts do not matter. The record expires, but only after every process has forgotten
what it may know. If the record is gone, because it expired, was flushed or was lost, a process that
knows a later state than the server restores it. It restores an open state even if other processes,
which know nothing, have started a new record meanwhile.

While the server is unavailable, each process decides alone (see `clients.outages`).
"""

from __future__ import annotations

import atexit
import math
import os
import threading
import time
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote

from opero import forks
from opero.clients.redis import LIMIT, Script
from opero.core.gate import REJECTED, SUCCEEDED, WITHDRAWN
from opero.core.remote_breaker import PERIOD
from opero.locks import Lock
from opero.runners.effects import ASK

from .breaker_queue import BreakerQueue
from .redis_contact import RedisContact
from .shared_breakers import private_words, shared_breaker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.event import Origin
    from opero.runners.effects import Steps

    from .shared_breakers import Identity, Settings

GAP: Final = 0.01
"""Seconds from one round of exchanges to the next, so that many failures cause few exchanges."""

_LINGER: Final = 2.0
"""Seconds for which the idle thread stays."""

_SCRIPT = Script("""
local time = redis.call('TIME')
local now = (time[1] - 1700000000) * 1000000 + time[2]
local key = KEYS[1]
local tenth, ratio, minimum = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local open_for, lease, probes = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local known, known_left = tonumber(ARGV[7]), tonumber(ARGV[8])
local attempts, failures, token = tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11]
local wish, wish_for, wish_why = ARGV[12], tonumber(ARGV[13]), ARGV[14]
local function text(number) return string.format('%.0f', number) end

local generation = tonumber(redis.call('HGET', key, 'generation') or '0')
local good = tonumber(redis.call('HGET', key, 'good') or '0')  -- probes that have succeeded
local till = tonumber(redis.call('HGET', key, 'until') or '0')  -- 0: it is closed
local reason, granted = '', 0

local longest = tonumber(redis.call('HGET', key, 'longest') or '0')
-- until when processes may take it to be open that have not heard of a later state
local believed = tonumber(redis.call('HGET', key, 'believed') or '0')
local fresh = generation == 0 or redis.call('HGET', key, 'fresh') == '1'  -- it has not moved yet

local function move(open_until, why, number)
  generation, reason, good, fresh = number or generation + 1, why, 0, false
  believed = math.max(believed, till)
  till = open_until
  longest = math.max(till - now, 0)
  redis.call('DEL', key)
end
-- a time that this server cannot have written: its clock has gone back, or it is another's
if till > now + longest + 1000000 then till = now end
if known_left >= 0 and known > generation or known_left > 0 and fresh then
  move(known_left > 0 and now + known_left or 0, '', math.max(known, generation + 1))
elseif generation == 0 then
  generation = now
end

for at = 15, #ARGV, 2 do
  for slot = 1, probes do
    if till > 0 and redis.call('HGET', key, 'token' .. slot) == ARGV[at] then
      redis.call('HDEL', key, 'token' .. slot, 'over' .. slot)
      if ARGV[at + 1] == 'good' then
        good = good + 1
        if good >= probes then
          move(0, probes == 1 and 'the probe succeeded' or 'the probes succeeded')
        end
      elseif ARGV[at + 1] == 'bad' then
        move(now + open_for, probes == 1 and 'the probe failed' or 'a probe failed')
      end
    end
  end
end

if wish == 'trip' then move(now + wish_for, wish_why) end
if wish == 'reset' then move(0, wish_why) end

if attempts > 0 and till == 0 and (known == generation or known == 0 or fresh) then
  local index = math.floor(now / tenth)
  local field = 'tenth' .. index % 10
  local function read(name)
    local which, all, bad = string.match(redis.call('HGET', key, name) or '', '(%d+) (%d+) (%d+)')
    if which and tonumber(which) > index - 10 and tonumber(which) <= index then
      return tonumber(which), tonumber(all), tonumber(bad)
    end
    return -1, 0, 0
  end
  local which, all, bad = read(field)
  if which ~= index then all, bad = 0, 0 end
  redis.call('HSET', key, field, text(index) .. ' ' .. text(all + attempts) .. ' '
    .. text(bad + failures))
  if failures > 0 then
    all, bad = 0, 0
    for number = 0, 9 do
      local _, some, wrong = read('tenth' .. number)
      all, bad = all + some, bad + wrong
    end
    if all >= minimum and bad / all >= ratio then
      move(now + open_for, string.format('%d of %d attempts failed within %g s', bad, all,
        tenth / 100000))
    end
  end
end

if token ~= '' and till > 0 and till <= now then
  for slot = 1, probes - good do
    local over = tonumber(redis.call('HGET', key, 'over' .. slot) or '0')
    if granted == 0 and (over <= now or over > now + lease + 1000000) then
      redis.call('HSET', key, 'token' .. slot, token, 'over' .. slot, text(now + lease))
      granted = 1
    end
  end
end

redis.call('HSET', key, 'generation', text(generation), 'until', text(till), 'good', good,
  'longest', text(longest), 'believed', text(believed))
if fresh then redis.call('HSET', key, 'fresh', '1') end
local life = math.max(2 * tenth * 10, believed - now) + 60000000
if till > 0 then life = math.max(till - now, 0) + lease + 10 * open_for + 3600000000 end
redis.call('PEXPIRE', key, math.ceil(life / 1000))
local left = fresh and -1 or math.max(till - now, 0)
return {text(generation), till > 0 and 1 or 0, text(left), granted, reason}
""")
"""Its arguments: the settings, in microseconds; the generation that the process knows, and for how
much longer that is open; its attempts and failures; the lease that it wants; "trip", "reset" or "",
for how long, and why; and for each ended probe its lease and "good", "bad" or "free"."""


class RedisRecord:
    """This process's side of one record: a `RemoteBreaker`, and the connection to the server.

    Attributes:
        gate: The breaker.
        server: The server that has the record.
    """

    def __init__(self, gate: Any, url: str, name: str, key: str) -> None:
        """Set the record up, without asking the server yet.

        Args:
            gate: The `RemoteBreaker`; it summons this record.
            url: The URL of the server.
            name: The name of the breaker in the log.
            key: The key of the record on the server.

        Raises:
            ValueError: If the URL is not a Redis URL.
        """
        self.gate: Any = gate
        self._keys = (key,)
        local = gate.local
        self._settings: list[Any] = [
            local.tenth // 1000 or 1,
            local.failure_ratio,
            local.minimum,
            local.open_for // 1000,
            local.lease // 1000,
            local.probes,
        ]
        self.server: RedisContact = RedisContact(
            url, f"the breaker {name!r}", "each process decides alone"
        )
        self._wanted = False
        gate.summon = self.summon
        gate.order = self.exchange

    # --- the courier's work -----------------------------------------------------------------------

    def want_lease(self) -> None:
        """Have the courier ask for a probe's lease soon."""
        self._wanted = True
        self.summon()

    def summon(self) -> None:
        """Have the courier exchange news soon."""
        _courier.post(self)

    def exchange(self, wish: str = "", length: int = 0, reason: str = "") -> bool:
        """Report outcomes, and hear the state; return whether that worked.

        Args:
            wish: "trip" or "reset" to do that too.
            length: For how many nanoseconds to trip it; 0 for the usual time.
            reason: The reason, in words.
        """
        lease = self.new_lease() if self._wanted else ""
        self._wanted = False
        since = self.gate.real.now()
        request = self.request(lease, wish, length, reason)
        return self.heard(since, self.server.ask("script", *request), lease)

    def request(
        self, lease: str = "", wish: str = "", length: int = 0, reason: str = ""
    ) -> tuple[Any, ...]:
        """Return the script's arguments for an exchange.

        Args:
            lease: The lease to ask for, for a probe; "" for none.
            wish: As in `exchange`.
            length: As in `exchange`.
            reason: As in `exchange`.
        """
        gate = self.gate
        generation, attempts, failures, reports, left = gate.parcel(gate.real.now())
        ended: list[Any] = []
        for each, outcome in reports:
            ended.append(each)
            if outcome == SUCCEEDED:
                ended.append("good")
            else:
                ended.append("bad" if outcome <= REJECTED else "free")
        left = -1 if left < 0 else math.ceil(left / 1000)
        return (
            _SCRIPT,
            self._keys,
            [
                *self._settings,
                generation,
                left,
                attempts,
                failures,
                lease,
                wish,
                math.ceil((length or gate.local.open_for) / 1000),
                reason,
                *ended,
            ],
        )

    def heard(self, since: int, reply: Any, lease: str) -> bool:
        """Take over the server's reply, None if there was none; return whether there was one.

        Args:
            since: When the server was asked, in nanoseconds of the machine's clock.
            reply: The reply.
            lease: The lease that was asked for.
        """
        gate = self.gate
        now = gate.real.now()
        if reply is None:
            gate.go_alone(now)
            return False
        generation, opened, left, granted, reason = reply
        gate.adopt(
            now,
            since,
            int(generation),
            bool(opened),
            int(left) * 1000,
            reason.decode(),
            lease if granted else "",
        )
        return True

    def new_lease(self) -> str:
        """Return a unique name for a lease."""
        return os.urandom(9).hex()

    def give_back(self, lease: str) -> None:
        """Give back a requested lease, in case it was granted."""
        self.gate.reports.append((lease, WITHDRAWN))
        self.gate.call_for()

    def hear(self) -> None:
        """Exchange now, and wait for the reply, if the known state is old."""
        if self.gate.real.now() - self.gate.heard > PERIOD:
            self.exchange()


class RedisBreakerQueue(BreakerQueue):
    """The callers of this process who wait for a breaker in Redis, or ask for a probe's lease."""

    glance = PERIOD

    def __init__(self, record: RedisRecord, name: str, core: Any, origin: Origin | None) -> None:
        """Begin with nobody waiting (see `BreakerQueue`).

        Args:
            record: The breaker, and the connection to the server.
            name: Its name for users.
            core: The half of opero that it belongs to.
            origin: The only function that uses the breaker; None if several may share it.
        """
        super().__init__(record.gate, name, core.clock, core.new_lock, origin)
        record.gate.local.watcher = self._changed
        self.record: RedisRecord = record

    def steps(self, deadline: int, weight: int = 1) -> Steps:
        """Ask for a probe's lease, or wait until the breaker may let a probe in."""
        if not self.gate.claim():
            return (yield from super().steps(deadline, weight))
        record, clock = self.record, self._clock
        start = clock.now()
        lease, since = record.new_lease(), self.gate.real.now()
        try:
            reply = yield ASK, record.server, "script", record.request(lease)
        except BaseException:
            record.give_back(lease)
            raise
        record.heard(since, reply, lease)
        return max(0, clock.now() - start)

    def look(self) -> None:
        """Ask the server for the breaker's state, if the last reply is over a second old."""
        self.record.hear()

    def inquire(self) -> None:
        """Have the courier ask for a probe's lease."""
        self.gate.claim()
        self.record.want_lease()


def redis_queue(
    core: Any,
    name: str,
    known_as: Identity,
    settings: Settings,
    origin: Origin | None,
    url: str,
) -> RedisBreakerQueue:
    """Join a shared breaker, without asking the server yet.

    Args:
        core: The active half of opero.
        name: Its name for users.
        known_as: Its name among those who share it.
        settings: Its settings.
        origin: The only function that uses it; None if several may share it.
        url: The URL of the server.

    Raises:
        ValueError: If the URL is not a Redis URL.
    """
    words = private_words(core, settings[-1])
    gate = core.RemoteBreaker(shared_breaker(core, words, settings), core.new_lock(), None)
    user_name = quote(known_as.name, safe="", errors="surrogatepass")
    key = f"opero:breaker:{{{user_name}}}:{known_as.digest}"
    return RedisBreakerQueue(RedisRecord(gate, url, name, key), name, core, origin)


class _Courier:
    """The thread that exchanges news between breakers and servers.

    It runs only while there is something to do, and ends a little later.
    """

    def __init__(self) -> None:
        self._ending = False
        self.after_fork()

    def after_fork(self) -> None:
        """Forget everything in a child process, which does not have the thread."""
        self._lock = Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: dict[int, RedisRecord] = {}
        self._thread: threading.Thread | None = None

    def post(self, record: RedisRecord) -> None:
        """Exchange a record's news soon."""
        thread: threading.Thread | None = None
        try:
            with self._lock:
                self._waiting[id(record)] = record
                if self._thread is not None:
                    self._changed.notify()
                    return
                thread = threading.Thread(target=self._work, name="opero-breakers", daemon=True)
                self._thread = thread
            thread.start()  # without the lock: an interrupt may leave it waiting for ever
        except BaseException as error:
            with self._lock:
                if thread is not None and self._thread is thread and not thread.is_alive():
                    self._thread = None
                    for each in self._waiting.values():
                        each.gate.due = False
                    self._waiting.clear()
            if not isinstance(error, RuntimeError):  # too many threads, or the interpreter ends
                raise

    def end(self) -> None:
        """Report what is pending before the interpreter ends."""
        with self._lock:
            self._ending = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            with suppress(RuntimeError):  # it has not started yet, and perhaps never will
                thread.join(LIMIT)

    def _work(self) -> None:
        thread = threading.current_thread()
        while True:
            with self._lock:
                if self._thread is not thread:  # its start was interrupted
                    return
                if not (self._waiting or self._ending):
                    self._changed.wait(_LINGER)
                if not self._waiting:
                    self._thread = None
                    return
                waiting, self._waiting = self._waiting, {}
            for record in waiting.values():
                with suppress(BaseException):  # a listener may raise SystemExit; others go on
                    record.exchange()
            waiting = record = None  # type: ignore[assignment]  # let breakers be collected meanwhile
            if not self._ending:
                time.sleep(GAP)


_courier = _Courier()
atexit.register(_courier.end)

forks.register("breakers", after_in_child=_courier.after_fork)
