"""Words that the processes of a machine share: a small file each, mapped into memory.

It is in a directory that only its user can open, best in /dev/shm. Its name has the digest of what
it is called, and the machine's boot: the times in it count from there. Beside it stands an empty
file whose lock makes steps of plain processes, and the making of the file, atomic. Each process
that uses the file holds a shared lock on it, so one that none uses can be made anew, or removed.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from opero.core.shared_counters import STRIDE, lock_file, unlock_file
from opero.exceptions import UnsafePlaceError
from opero.private_places import closed_directory, private_file, user_id
from opero.real_time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FIRST = 64
"""Where the flag and the words behind it begin."""

_SHM = Path("/dev/shm")
_MAGIC = b"opero\0\0\1"
_HEADER = struct.Struct("<8sII")
_PATIENCE = 5.0
"""How many seconds to wait until another process has made the file."""


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

    def is_there(self) -> bool:
        """Return whether it still is what its path leads to: it is removed with what it is for."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self.descriptor))
        except FileNotFoundError:
            return False

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def join(
    name: str, kind: str, what: str, count: int, empty: int, settings: str
) -> tuple[mmap.mmap, LockFile]:
    """Join those who share a file, which is made if it is not there.

    Args:
        name: What it is called by those who share it.
        kind: What its name ends in.
        what: What it is, for messages.
        count: How many words it has.
        empty: What stands in each at first.
        settings: What all who share it have in common, in words.

    Returns:
        The mapped file, and its lock.

    Raises:
        ValueError: If those who share it have other settings.
        UnsafePlaceError: If others could open the file.
        OSError: If the file cannot be made.
    """
    path = file_of(name, kind)
    while True:
        file = LockFile(path.with_suffix(".lock"))
        _lock(file.descriptor, path)
        try:
            if file.is_there():
                return _memory(path, what, count, empty, settings), file
        finally:
            unlock_file(file.descriptor)


def remove_unused(kind: str, is_idle: Callable[[list[int], str], bool], most: int) -> None:
    """Remove files that nobody uses, if there are many.

    Args:
        kind: What their names end in.
        is_idle: Called with the words and the settings of a file that nobody uses; says whether it
            might as well be made anew.
        most: How many there may be without a look at them.
    """
    paths = list(directory().glob(f"{_boot()}-*.{kind}"))
    if len(paths) <= most:
        return
    for path in paths:
        with suppress(OSError, UnsafePlaceError):
            file = LockFile(path.with_suffix(".lock"))
            if not lock_file(file.descriptor):
                continue
            try:
                if file.is_there() and _may_go(path, is_idle):
                    path.unlink()
                    file.path.unlink()
            finally:
                unlock_file(file.descriptor)


def _may_go(path: Path, is_idle: Callable[[list[int], str], bool]) -> bool:
    """Return whether nobody uses a file, and it is idle."""
    descriptor = _open(path, 0)
    try:
        found = _content(descriptor)
        if found is None or not _is_unused(descriptor):
            return False
        count, settings = found
        os.lseek(descriptor, 0, os.SEEK_SET)
        data = os.read(descriptor, FIRST + STRIDE * (count + 1))
    finally:
        os.close(descriptor)
    places = range(FIRST + STRIDE, FIRST + STRIDE * (count + 1), STRIDE)
    return is_idle([struct.unpack_from("=q", data, at)[0] >> 1 for at in places], settings)


def file_of(name: str, kind: str) -> Path:
    """Return where a file is; that of its lock ends in ".lock".

    Args:
        name: What it is called by those who share it.
        kind: What it is.
    """
    digest = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return directory() / f"{_boot()}-{digest}.{kind}"


def directory() -> Path:
    """Return the directory of this user's limits; it is made if it is not there.

    Raises:
        UnsafePlaceError: If others own it or could open what is in it.
    """
    me = user_id()
    base = _SHM
    if not (base.is_dir() and os.access(base, os.W_OK | os.X_OK)):
        import tempfile

        base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    place = base / ("opero" if me is None else f"opero-{me}")
    return closed_directory(place, "the directory of what processes share", "remove it")


def _memory(path: Path, what: str, count: int, empty: int, settings: str) -> mmap.mmap:
    """Map a file, which is made if it is not there; the lock is held.

    Args:
        path: Where it is.
        what: What it is, for messages.
        count: How many words it has.
        empty: What stands in each at first.
        settings: What all who share it have in common, in words.
    """
    while True:
        try:
            descriptor = _open(path, 0)
        except FileNotFoundError:
            _make(path, count, empty, settings)
            continue
        try:
            others = _content(descriptor)
            if others == (count, settings):
                _share(descriptor)
                return mmap.mmap(descriptor, 0)
            if not _is_unused(descriptor):
                told = "something else" if others is None else others[1]
                raise ValueError(
                    f"the machine-wide {what} is {told} for the processes that use "
                    f"it, so it cannot be {settings} here: use another name, or end them first"
                )
        finally:
            os.close(descriptor)
        path.unlink()


def _make(path: Path, count: int, empty: int, settings: str) -> None:
    """Make a file, whole from the moment at which it has its name."""
    text = settings.encode()
    words = bytearray(STRIDE * (count + 1))
    for at in range(count + 1):
        struct.pack_into("=q", words, at * STRIDE, empty)
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.unlink(missing_ok=True)  # of a process of that number that died here
    descriptor = _open(fresh, os.O_CREAT | os.O_EXCL)
    try:
        head = _HEADER.pack(_MAGIC, count, len(text)).ljust(FIRST, b"\0")
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
    if len(data) < FIRST:
        return None
    magic, count, length = _HEADER.unpack_from(data)
    first = FIRST + STRIDE * (count + 1)
    if magic != _MAGIC or len(data) != first + length:
        return None
    return count, data[first:].decode(errors="replace")


def _open(path: Path, flags: int) -> int:
    """Open a file that only this user can open, and see that it is one."""
    return private_file(path, "a file that processes share", "remove it", flags)


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
