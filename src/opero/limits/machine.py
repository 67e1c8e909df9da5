"""Limits of one machine: a bucket in shared memory, and the queue of one process in front of it.

A limit is a small file in a directory that only its user can open, best in /dev/shm. Its name has
the digest of the limit's name, and the machine's boot: the times in it count from there. Beside it
stands an empty file whose lock makes steps of plain processes, and the making of the file, atomic.
Whoever uses the limit has a shared lock on the file itself; so a limit that nobody uses any more
can be had at another rate.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
import sys
import time
from hashlib import sha256
from pathlib import Path
from random import random
from typing import Any

from opero.core.clock import NEVER
from opero.core.shared_counters import STRIDE, lock_file, unlock_file
from opero.exceptions import UnsafePlaceError
from opero.real_time import monotonic

from .wait_queue import WaitQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.runners.effects import Steps

_SHM = Path("/dev/shm")
_MAGIC = b"opero\0\0\1"
_HEADER = struct.Struct("<8sII")
_FIRST = 64
"""Where the flag and the words behind it begin."""
_EMPTY = -(10**18) << 1
"""The word of a limit from which nothing has been taken."""
_PATIENCE = 5.0
"""How many seconds to wait until another process has made the file."""
_FLAGS = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)

_OVERTAKEN = 4
"""How often a waiter loses a permit to other processes until it claims the next. One who wants
several at once claims them soon: it would never get them while others take one by one."""
_MEMORY = 8
"""For how many permits processes remember that they had to wait for each other ..."""
_LEAST_MEMORY = 20_000_000
_MOST_MEMORY = 1_000_000_000
"""... and between which bounds, in nanoseconds."""
_SHARE = 4
"""Who waits for a permit that others want too comes late by a random part of a quarter of it."""
_LEAST_SHARE = 50_000
_MOST_SHARE = 5_000_000


class MachineWaitQueue(WaitQueue):
    """The queue of one process, in front of a bucket that processes share.

    The heads of all queues wait for one moment. Where that has shown, each adds a random delay,
    smaller for one that has lost before; else the one that is awake first would always be the same.
    One that has lost too often claims the next permit.
    """

    def __init__(self, bucket: Any, caller: Any, file: LockFile) -> None:
        """Begin with nobody in the queue.

        Args:
            bucket: The shared bucket.
            caller: The clock by which callers tell their deadlines.
            file: The lock file.
        """
        super().__init__(bucket, bucket.real)
        self._caller = caller
        self._file = file

    def steps(self, deadline: int, weight: int) -> Steps:
        """Wait for permits (see `WaitQueue`); `deadline` is by the caller's clock."""
        return super().steps(self._translated(deadline), weight)

    def _translated(self, deadline: int) -> int:
        if deadline == NEVER:
            return NEVER
        return int(deadline - self._caller.now() + self.clock.now())

    def _note(self, head: Any, now: int, due: int) -> int:
        bucket = self.bucket
        if now >= head.told:
            bucket.want()
            head.overtaken += 1
            if head.overtaken >= (_OVERTAKEN if head.weight == 1 else 1):
                bucket.stake(now, head.weight)
        head.told = due
        interval = bucket.interval
        memory = min(max(_MEMORY * interval, _LEAST_MEMORY), _MOST_MEMORY)
        if now - bucket.wanted() > memory:
            return due
        share = min(interval // _SHARE + _LEAST_SHARE, _MOST_SHARE)
        return due + int(random() * share / (1 + head.overtaken))

    def _leave(self, waiter: Any) -> None:
        super()._leave(waiter)
        if waiter.overtaken:
            with self._lock:
                self.bucket.waive()

    def after_fork(self) -> None:
        """Send the waiters away in a child process, and have a lock of its own for it."""
        super().after_fork()
        self.bucket.claim = 0  # it is the parent's
        self._file.reopen()
        self.bucket.words.relock(self._file.descriptor)


class LockFile:
    """An open file for its lock.

    Attributes:
        path: Where it is.
        descriptor: Its descriptor.
    """

    __slots__ = ("descriptor", "path")

    def __init__(self, path: Path) -> None:
        self.path: Path = path
        self.descriptor: int = -1
        self.descriptor = _open(path, os.O_CREAT)

    def reopen(self) -> None:
        """Have a lock of one's own: a forked child shares that of its parent."""
        try:
            fresh = os.open(f"/proc/self/fd/{self.descriptor}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            fresh = _open(self.path, os.O_CREAT)
        os.dup2(fresh, self.descriptor, inheritable=False)
        os.close(fresh)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def shared_queue(
    core: Any,
    name: str,
    rate: float,
    burst: int,
    limits: tuple[tuple[int, int], ...],
    settings: str,
) -> MachineWaitQueue:
    """Join those who share a limit.

    Args:
        core: The active half of opero.
        name: What the limit is called.
        rate: Permits per second.
        burst: Permits that may be taken at once.
        limits: Interval and burst of further limits.
        settings: All of this in words, the same for all who share it.

    Raises:
        ValueError: If those who share it have other settings.
        UnsafePlaceError: If others could open the file.
        OSError: If the file cannot be made.
    """
    count = len(limits) + 3
    core.TokenBucket(rate, burst)  # it refuses what it cannot count
    path = file_of(name)
    file = LockFile(path.with_suffix(".lock"))
    _lock(file.descriptor, path)
    try:
        memory = _memory(path, name, count, settings)
    finally:
        unlock_file(file.descriptor)
    words = core.SharedCounters(memory, _FIRST, count, file.descriptor)
    bucket = core.SharedBucket(
        rate, burst, core.new_lock(), limits, words, core.clock, core.Clock()
    )
    return MachineWaitQueue(bucket, core.clock, file)


def file_of(name: str) -> Path:
    """Return where the file of a limit is; that of its lock ends in ".lock"."""
    digest = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return directory() / f"{_boot()}-{digest}.limit"


def directory() -> Path:
    """Return the directory of this user's limits; it is made if it is not there.

    Raises:
        UnsafePlaceError: If others own it or could open what is in it.
    """
    from opero.stores.directories import private_directory, user_id

    me = user_id()
    base = _SHM
    if not (base.is_dir() and os.access(base, os.W_OK | os.X_OK)):
        import tempfile

        base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    place = base / ("opero" if me is None else f"opero-{me}")
    what, mend = "the directory of machine-wide rate limits", "remove it"
    found = private_directory(place, what, mend)
    if me is not None:
        seen = place.lstat()
        if not stat.S_ISDIR(seen.st_mode):
            raise UnsafePlaceError(f"{what} {place} is not safe: it is a symbolic link; {mend}")
        if seen.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            mode = f"{stat.S_IMODE(seen.st_mode):04o}"
            raise UnsafePlaceError(
                f"{what} {place} is not safe: it is open to others (mode {mode}); {mend}"
            )
    return found


def _memory(path: Path, name: str, count: int, settings: str) -> mmap.mmap:
    """Map the file of a limit, which is made if it is not there; the lock is held."""
    while True:
        try:
            descriptor = _open(path, 0)
        except FileNotFoundError:
            _make(path, count, settings)
            continue
        try:
            others = _content(descriptor)
            if others == (count, settings):
                _share(descriptor)
                return mmap.mmap(descriptor, 0)
            if not _is_unused(descriptor):
                told = "something else" if others is None else others[1]
                raise ValueError(
                    f"the machine-wide rate limit {name!r} is {told} for the processes that use "
                    f"it, so it cannot be {settings} here: use another name, or end them first"
                )
        finally:
            os.close(descriptor)
        path.unlink()


def _make(path: Path, count: int, settings: str) -> None:
    """Make the file of a limit, whole from the moment at which it has its name."""
    text = settings.encode()
    words = bytearray(STRIDE * (count + 1))
    for at in range(count + 1):
        struct.pack_into("=q", words, at * STRIDE, _EMPTY)
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.unlink(missing_ok=True)  # of a process of that number that died here
    descriptor = _open(fresh, os.O_CREAT | os.O_EXCL)
    try:
        head = _HEADER.pack(_MAGIC, count, len(text)).ljust(_FIRST, b"\0")
        whole = head + bytes(words) + text
        if os.write(descriptor, whole) != len(whole):
            raise OSError(f"{fresh}: there is no room for it")
    except BaseException:
        os.close(descriptor)
        fresh.unlink()
        raise
    os.close(descriptor)
    fresh.rename(path)
    _sweep(path)


def _sweep(path: Path) -> None:
    """Remove files of earlier boots, where the directory outlives one."""
    boot = path.name.partition("-")[0]
    for other in path.parent.iterdir():
        if other.name.partition("-")[0] != boot:
            other.unlink(missing_ok=True)


def _content(descriptor: int) -> tuple[int, str] | None:
    """Return how many words a file has, and its settings; None if it is not a limit's file."""
    data = os.read(descriptor, 1 << 20)
    if len(data) < _FIRST:
        return None
    magic, count, length = _HEADER.unpack_from(data)
    first = _FIRST + STRIDE * (count + 1)
    if magic != _MAGIC or len(data) != first + length:
        return None
    return count, data[first:].decode(errors="replace")


def _open(path: Path, flags: int) -> int:
    """Open a file that only this user can open, and see that it is one."""
    descriptor = os.open(path, _FLAGS | flags, 0o600)
    seen = os.fstat(descriptor)
    wrong = None
    if not stat.S_ISREG(seen.st_mode):
        wrong = "it is no file"
    elif hasattr(os, "geteuid"):
        if seen.st_uid != os.geteuid():
            wrong = f"it belongs to user {seen.st_uid}"
        elif seen.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            wrong = f"it is open to others (mode {stat.S_IMODE(seen.st_mode):04o})"
    if wrong is not None:
        os.close(descriptor)
        raise UnsafePlaceError(f"{path}, of a machine-wide rate limit, is not safe: {wrong}")
    return descriptor


def _lock(descriptor: int, path: Path) -> None:
    """Lock the lock file, within bounds."""
    end = monotonic() + _PATIENCE
    while not lock_file(descriptor):
        if monotonic() > end:
            raise TimeoutError(f"{path}: a process that has stopped holds its lock")
        time.sleep(0.001)


if sys.platform == "win32":

    def _share(descriptor: int) -> None:
        """Nothing: a mapped file cannot be removed there."""

    def _is_unused(descriptor: int) -> bool:  # noqa: ARG001
        return True

    def _boot() -> str:
        import ctypes

        started = time.time() - ctypes.windll.kernel32.GetTickCount64() / 1e3
        return f"{round(started / 60):x}"

else:
    import fcntl

    def _share(descriptor: int) -> None:
        """Say that somebody uses the file, for as long as it is mapped."""
        fcntl.flock(descriptor, fcntl.LOCK_SH)

    def _is_unused(descriptor: int) -> bool:
        """Return whether nobody uses the file."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _boot() -> str:
        """Name this boot of the machine, since which the monotonic clock counts."""
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:16]
        except OSError:
            return _boot_of_bsd()

    def _boot_of_bsd() -> str:
        import ctypes

        library = ctypes.CDLL(None)
        for name in (b"kern.bootsessionuuid", b"kern.boot_id"):
            text = ctypes.create_string_buffer(64)
            size = ctypes.c_size_t(64)
            if library.sysctlbyname(name, text, ctypes.byref(size), None, 0) == 0 and text.value:
                return sha256(text.value).hexdigest()[:16]
        return "0"
