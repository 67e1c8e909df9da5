"""The rate of an adaptive limit in Redis, the same for all processes that share it.

    outcomes of this process -> proposal -> goes along with the next request to the server
                                              | if the state there has not changed since
                                              v
                                            the shared state -> reply -> rate

Redis stores the state of `RateControl` as one text. A process that has learned something proposes
the next text along with its next request for a permit. The server accepts it unless another process
was faster; then the process makes a new proposal from the present text. A rejection does not wait
for the next request. Times in the text are the server's.

Each process decides by its own clock which attempts began after the last cut: those that began
after it heard of the cut.
"""

from __future__ import annotations

from functools import cache
from math import ceil
from typing import Any

from opero.core.gate import REJECTED, SUCCEEDED
from opero.locks import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from opero.core.clock import Clock

_OFTEN = 50_000_000
"""How often to report successes, in nanoseconds, because there are many."""

ADAPT = """
local state = redis.call('GET', KEYS[2]) or ''
local interval, burst, applied = tonumber(ARGV[3]), tonumber(ARGV[4]), 0
if state == '' then state = ARGV[1] end -- the server has lost it, or it has not been used for long
local known = string.match(state, '^%S+')
if known then interval = tonumber(known) end
if ARGV[2] ~= '' and ARGV[1] == state then
  state, applied = ARGV[2], 1
  local before = interval
  interval = tonumber(string.match(state, '^%S+'))
  local arrival = tonumber(redis.call('HGET', KEYS[1], 'rate') or '0')
  local since, owed = now + pause, arrival
  if arrival > since then owed = since + (arrival - since) * interval / before end
  if interval > before then owed = math.max(owed, now + interval * burst) end
  if owed > now and owed ~= arrival then
    redis.call('HSET', KEYS[1], 'rate', text(owed))
    redis.call('HDEL', KEYS[1], 'last') -- what was granted cannot be given back now
    local left = math.ceil((owed - now) / 1000) + 1000
    if redis.call('PTTL', KEYS[1]) < left then redis.call('PEXPIRE', KEYS[1], left) end
  end
end
if state ~= '' then redis.call('SET', KEYS[2], state, 'PX', 86400000) end
"""
"""Accept a proposal if it fits. The arguments are those of `proposal`; permits owed stay owed."""


class SharedRate:
    """What this process knows about a shared rate.

    Attributes:
        rate: The rate that it last heard, in permits per second.
        series: Whether the last cut immediately followed another.
    """

    def __init__(self, core: Any, rate: float, floor: float, burst: int, clock: Clock) -> None:
        """Begin with the given rate, until the server replies.

        Args:
            core: The active half of opero.
            rate: The highest rate, in permits per second.
            floor: The lowest rate.
            burst: How many permits may be taken at once.
            clock: The machine's clock.
        """
        self.rate: float = rate
        self.series: bool = False
        self._made: Callable[[], Any] = lambda: core.RateControl(rate, floor)
        self._burst = burst
        self._clock = clock
        self._lock = Lock()
        self._state = ""  # the server's text, as last heard
        self._cuts = 0  # the number of cuts, as last heard
        self._cut = -(10**18)  # when this process heard of the last cut
        self._ahead = 0  # the server's clock minus the local one
        self._successes = 0
        self._rejected = 0  # when the rejected attempt began that is to be reported; 0 for none
        self._told = 0  # when successes were last reported

    def after_fork(self) -> None:
        """Make a new lock in a child process: another thread may have held the old one."""
        self._lock = Lock()

    def learn(self, outcome: int, entered: int) -> bool:
        """Note how an attempt has ended; return whether to tell the server immediately.

        Args:
            outcome: An outcome of `core.gate`.
            entered: When the attempt began, in nanoseconds of the machine's clock.
        """
        with self._lock:
            if outcome == SUCCEEDED and entered > self._cut:
                self._successes += 1
            elif outcome == REJECTED and entered > self._cut and not self._rejected:
                self._rejected = entered
                return True
        return False

    def proposal(self) -> list[Any]:
        """Return the text last heard, the text to replace it ("" for none), and the settings."""
        with self._lock:
            new = ""
            now = self._clock.now()
            known = self._state and self._successes and now - self._told >= _OFTEN
            if self._rejected or known:
                new = self._next(now)
            first = self._made()
            return [self._state, new, _micro(first.given), self._burst - 1]

    def _next(self, now: int) -> str:
        control, cuts = self._read()
        if self._successes:
            control.succeeded(now, now, self._successes)
        if self._rejected and control.rejected(now, self._rejected):
            cuts += 1
        numbers = [
            *(control.top, control.base, control.hold, control.clean, control.credit),
            control.served,
        ]
        texts = [f"{_micro(control.rate)}", f"{cuts}", *map("{:.9g}".format, numbers)]
        whole = ((control.heard + self._ahead) // 1000, control.since, int(control.series))
        return " ".join([*texts, *map(str, whole)])

    def _read(self) -> tuple[Any, int]:
        """Return the server's text as a `RateControl`, and the number of cuts."""
        control = self._made()
        if not self._state:
            return control, 0
        interval, cuts, *numbers, heard, since, series = self._state.split()
        control.rate = max(control.floor, min(control.given, 1e6 / float(interval)))
        control.top, control.base, control.hold, control.clean, control.credit, control.served = (
            map(float, numbers)
        )
        control.heard = int(heard) * 1000 - self._ahead
        control.cut = self._cut
        control.since, control.series = int(since), series == "1"
        return control, int(cuts)

    def heard(self, state: str, server: float, applied: int, sent: list[Any]) -> bool:
        """Take over the server's answer; return whether the rate has been cut.

        Args:
            state: The text there now.
            server: The server's time, in microseconds.
            applied: Whether the server accepted the proposal.
            sent: The proposal.
        """
        with self._lock:
            now = self._clock.now()
            self._ahead = round(server * 1000) - now
            if applied and self._state == sent[0]:
                self._successes = self._rejected = 0
                self._told = now
            self._state = state
            control, cuts = self._read()
            self.rate, self.series = control.rate, control.series
            cut = cuts != self._cuts
            if cut:
                self._cuts, self._cut = cuts, now
                self._rejected = self._successes = 0
            return cut


def listening(core: Any, rate: float, tell: Callable[[int, int, int], None]) -> Any:
    """Return a bucket that hands out nothing, and reports how attempts have ended.

    Args:
        core: The active half of opero.
        rate: Permits per second.
        tell: Called with the time, the outcome, and the start of the attempt.
    """
    bucket = _listening_kind(core.TokenBucket)(rate, 1, core.new_lock())
    bucket.observes = True
    bucket.tell = tell
    return bucket


@cache
def _listening_kind(bucket: Any) -> Any:
    """Return the class of such a bucket for one half of opero."""

    class Listening(bucket):  # type: ignore[misc]  # chosen at run time
        __slots__ = ("tell",)

        def leave(self, now: int, outcome: int, entered: int, ticket: int) -> None:  # noqa: ARG002
            """Report the outcome."""
            self.tell(now, outcome, entered)

    return Listening


def _micro(rate: float) -> float:
    """Return the interval between permits in microseconds, rounded up to an eighth."""
    return ceil(8e6 / rate) / 8
