"""Numbers in memory that processes share, changed one at a time; the plain half.

    flag     1: a plain process takes part
    word 0   the first number, shifted left by one bit; the lowest bit says the same as the flag
    word 1   ...

Compiled processes change a word by compare-and-swap and lock nothing. A plain process cannot, so it
changes words under a lock on one byte of the file, and says so in the flag when it joins; from then
on compiled ones take that lock too (`_compiled/shared_counters.pyx`). It waits until those that
have not seen the flag are done, and sets the lowest bit of each word, so that the swap of one that
is not done fails. Only if such a process is held up for longer than that wait, and goes on in the
very microsecond in which the bit is set, the permit that it takes is lost from the count.

The system releases the lock of a process that dies. One that is stopped with it in hand holds the
others up for `PATIENCE` at each of their steps, and they are told to come again. Such a lock is the
whole process's: its threads exclude each other by `_owner`, and a forked child has none of it.
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
"""Bytes from one word to the next: a line of the processor's cache for each."""

PATIENCE = 0.05
"""How many seconds to wait for the lock."""

GLANCE = 100_000_000
"""After how many nanoseconds to look whether the file is still there."""

_PAUSE = 50e-6
_LONGEST = 5.0
_STEP = 0.003
"""How many seconds to give others for the step that they are in."""


class SharedCounters:
    """Signed numbers of 62 bits; a step that reads and changes some is from `begin` to `end`.

    Attributes:
        use: Says that this process uses them, for as long as it exists; its `look` is called with
            them now and then. None if nobody else can use them.
        look_at: When, in nanoseconds.
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
            first: Where the flag stands in it: a multiple of 8.
            count: How many words there are.
            lock: The descriptor of the file whose lock it is; -1 if the memory is this process's
                alone.
            at: The byte that is locked.
            use: What says that they are used.
        """
        self.use: Any = use
        self.look_at: int = NEVER if use is None else 0
        self._owner: dict[int, int] = {}
        self._depth = 0
        self.move(memory, first, count, lock, at)

    def move(self, memory: Any, first: int, count: int, lock: int, at: int) -> None:
        """Join the processes that share other memory, which outlives this."""
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
        """Look whether the file is still there."""
        self.look_at = now + GLANCE
        if self.use is not None:
            self.use.look(self)

    def after_fork(self) -> None:
        """Have no lock, in a child process."""
        self._owner.clear()
        self._depth = 0

    def begin(self) -> bool:
        """Begin a step; return whether the lock was free. `end` must follow anyway."""
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
                elif self._owner.get(0) == me:  # else a signal handler has ended a step of its own
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
        """Put `new` in the place of `old`.

        Returns:
            1 if it was done; 0 if another number stands there; -1 if the step has to begin again,
            since a plain process has joined in the middle of it.
        """
        numbers, at = self._numbers, at * 8
        word = new << 1 | 1
        if numbers[at] >> 1 == old:
            numbers[at] = word  # nothing can come in between: there is no call and no jump
            return 1
        return 0

    def put(self, at: int, number: int) -> None:
        """Put a number in the place of whatever stands there."""
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
        except OSError:  # somebody has it, or has closed our file
            return False
        return True

    def unlock_byte(descriptor: int, at: int) -> None:
        """Let a byte's lock go."""
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, at)
        except OSError:  # somebody has closed our file
            pass
