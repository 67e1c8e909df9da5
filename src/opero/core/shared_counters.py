"""Numbers in memory that processes share, changed one at a time; the plain half.

    flag     1: a plain process takes part
    word 0   the first number, shifted left by one bit; the lowest bit says the same as the flag
    word 1   ...

Compiled processes change a word by compare-and-swap and lock nothing. A plain process cannot do
that, so it changes words under a lock on one byte of the file. It sets the flag when it joins; from
then on, compiled processes take that lock too (`_compiled/shared_counters.pyx`). It waits for
processes that have not seen the flag to finish their step, then sets the lowest bit of each word,
so that the swap of any that has not finished fails. Only if such a process is delayed for longer
than that wait, and continues in the very microsecond in which the bit is set, does the count miss
the permit that it takes.

The system releases the lock of a process that dies. A process that is stopped while it holds the
lock delays each step of the others by `PATIENCE`, after which they must try again. The lock belongs
to the whole process: `_owner` keeps its threads apart, and a forked child does not inherit it.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import get_ident

from opero.real_time import monotonic

from .clock import NEVER

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STRIDE = 64
"""Bytes from one word to the next: each has its own cache line in the processor."""

PATIENCE = 0.05
"""How many seconds to wait for the lock."""

GLANCE = 100_000_000
"""How many nanoseconds to wait between checks that the file still exists."""

_PAUSE = 50e-6
_LONGEST = 5.0
_STEP = 0.003
"""How many seconds to give other processes to finish their current step."""


class SharedCounters:
    """Signed 62-bit numbers; a step that reads and changes some runs from `begin` to `end`.

    Attributes:
        use: Marks the numbers as used by this process, for as long as it exists; its `look` is
            called with them from time to time. None if no other process can use them.
        look_at: The time of the next such call, in nanoseconds.
    """

    __slots__ = (
        "__weakref__", "_at", "_depth", "_lock", "_memory", "_numbers", "_owner", "look_at", "use",
    )  # fmt: skip

    def __init__(
        self, memory: Any, first: int, count: int, lock: int, at: int = 0, use: Any = None
    ) -> None:
        """Join the processes that share the memory.

        Args:
            memory: The mapped file, writable.
            first: The position of the flag in the memory, a multiple of 8.
            count: The number of words.
            lock: The descriptor of the file to lock; -1 if only this process uses the memory.
            at: The byte to lock.
            use: Marks the numbers as used.
        """
        self.use: Any = use
        self.look_at: int = NEVER if use is None else 0
        self._owner: dict[int, int] = {}
        self._depth = 0
        self.move(memory, first, count, lock, at)

    def move(self, memory: Any, first: int, count: int, lock: int, at: int) -> None:
        """Join the processes that share another memory, which must outlive this object."""
        self._memory = memory
        whole = memoryview(memory)[first : first + (count + 1) * STRIDE].cast("q")
        self._numbers = whole[STRIDE // 8 :]
        self._lock = lock
        self._at = at
        if lock < 0:
            return
        if not whole[0] & 1:
            whole[0] = 1
            time.sleep(_STEP)
        end = monotonic() + _LONGEST
        while not self.begin():
            if monotonic() > end:
                raise TimeoutError("another process holds the lock of the shared memory")
        try:
            for word in range(count):
                if not self._numbers[word * 8] & 1:
                    self._numbers[word * 8] |= 1
        finally:
            self.end()

    def look(self, now: int) -> None:
        """Check whether the file still exists."""
        self.look_at = now + GLANCE
        if self.use is not None:
            self.use.look(self)

    def after_fork(self) -> None:
        """Drop the lock, in a child process."""
        self._owner.clear()
        self._depth = 0

    def begin(self) -> bool:
        """Begin a step; return whether the lock was free. `end` must follow in either case."""
        if self._lock < 0:
            return True
        me = get_ident()
        end = 0.0
        while True:
            if self._owner.setdefault(0, me) == me:
                if self._depth:  # a finalizer or a signal handler, in the middle of a step
                    self._depth += 1
                    return True
                if not lock_byte(self._lock, self._at):
                    self._owner.pop(0, None)
                elif self._owner.get(0) == me:  # otherwise a signal handler has ended its own step
                    self._depth = 1
                    return True
            now = monotonic()
            end = end or now + PATIENCE
            if now > end:
                return False
            time.sleep(_PAUSE)

    def end(self) -> None:
        """End a step."""
        if self._owner.get(0) != get_ident():
            return
        if self._depth > 1:
            self._depth -= 1
        else:
            self._depth = 0
            unlock_byte(self._lock, self._at)
            self._owner.pop(0, None)

    def load(self, at: int) -> int:
        """Return a number."""
        return int(self._numbers[at * 8] >> 1)

    def swap(self, at: int, old: int, new: int) -> int:
        """Replace `old` with `new`.

        Returns:
            1 if it was replaced; 0 if the word holds another number; -1 if the step must be
            repeated because a plain process joined during it.
        """
        numbers, at = self._numbers, at * 8
        word = new << 1 | 1
        if numbers[at] >> 1 == old:
            numbers[at] = word  # no thread can switch here: there is no call and no jump
            return 1
        return 0

    def put(self, at: int, number: int) -> None:
        """Replace a word with a number, whatever it holds."""
        self._numbers[at * 8] = number << 1 | 1


if sys.platform == "win32":

    def lock_byte(descriptor: int, at: int) -> bool:
        """Lock a byte of a file; return whether it was free."""
        os.lseek(descriptor, at, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def unlock_byte(descriptor: int, at: int) -> None:
        """Let a byte's lock go."""
        os.lseek(descriptor, at, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        except OSError:  # it was not locked
            pass

else:

    def lock_byte(descriptor: int, at: int, kind: int = fcntl.LOCK_EX) -> bool:
        """Lock a byte of a file; return whether it was free."""
        try:
            fcntl.lockf(descriptor, kind | fcntl.LOCK_NB, 1, at)
        except OSError:  # another process has the lock, or our file was closed
            return False
        return True

    def unlock_byte(descriptor: int, at: int) -> None:
        """Let a byte's lock go."""
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, at)
        except OSError:  # our file was closed
            pass
