"""Words that the processes of a machine share: one file for all, mapped into memory.

The file is in a directory that only its user can open, preferably in /dev/shm. Its name identifies
the boot of the machine, because times in it count from there. It grows by doubling.

    header   the kind of file, how much of it is in use, how often a place has got a new record
    records  one for each limit and each breaker, in units of 512 bytes:
             64 bytes that identify it, the flag and the words, and the settings as text

Locks on single bytes, far beyond the records, coordinate processes. A process that joins locks one
byte. Each record has a byte that a process locks to change its words in plain Python, and another
that all its users hold as a shared lock. The system releases the locks of a process that dies, so
an unused record can get other settings, and its place can go to another record.

If someone removes the file, its users join a new one within a tenth of a second, and copy what they
know to it: at most one burst happens twice.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time
import weakref
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from opero import forks
from opero.core.shared_counters import STRIDE, lock_byte, unlock_byte
from opero.events import tell
from opero.exceptions import UnsafePlaceError
from opero.locks import Lock
from opero.private_places import private_file
from opero.real_time import monotonic, monotonic_ns

from . import shared_place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_MAGIC = b"opero\0\0\2"
_HEADER = struct.Struct("=8sqq")
_SIZE = 1 << 20
"""The size of a new file, in bytes; unwritten bytes take no disk space."""
_UNIT = 512
_RECORD = struct.Struct("=16sIIIIqq")
"""Digest, units, words, bytes of settings, words that are times, nanoseconds for which to keep an
unused record, and since when it has been seen unused. A place without words is free."""
_JOIN = 1 << 30
"""The byte that a joining process locks; the bytes of the records follow."""
_USE = _JOIN + (1 << 29)
_PATIENCE = 5.0
"""How many seconds to wait for another process that is joining."""


class Record(NamedTuple):
    """What processes share.

    Attributes:
        name: Its kind, and its name among those who share it.
        what: What to call it in messages.
        words: How many words it has.
        empty: The initial value of each word.
        settings: The settings that all who share it have in common, as text.
        times: How many of the first words are times until which the record must be kept.
        kept: For how many more nanoseconds an unused record is kept.
    """

    name: str
    what: str
    words: int
    empty: int
    settings: str
    times: int = 0
    kept: int = 0

    @property
    def digest(self) -> bytes:
        """The digest that identifies it in the file without revealing its name."""
        return sha256(self.name.encode("utf-8", "surrogatepass")).digest()[:16]


def join(core: Any, record: Record) -> Any:
    """Join a shared record, which is made if it does not exist.

    Args:
        core: The active half of opero.
        record: What to share.

    Returns:
        Its words. If the file cannot hold or share them, they belong to this process alone, and the
        log says so.

    Raises:
        ValueError: If those who share it have other settings.
        UnsafePlaceError: If others could open the file.
    """

    def share(file: _SharedFile) -> Any:
        at, _ = file.find_or_make(record)
        return file.words_at(core, at, record)

    try:
        return _joined(_PATIENCE, share)
    except OSError as error:
        tell(
            "store_down",
            store=f"the machine-wide {record.what}",
            error=error,
            reason="this process decides alone",
        )
    memory = bytearray((record.words + 1) * STRIDE)
    _fill(memory, 0, record)
    return core.SharedCounters(memory, 0, record.words, -1)


class _Use:
    """This process's use of a record; it ends with the words, which refer to it."""

    def __init__(self, file: _SharedFile, at: int, record: Record) -> None:
        self.file = file
        self.at = at
        self.record = record
        self.digest = record.digest
        file.begin_use(at)

    def look(self, words: Any) -> None:
        """Move the words if the file has been removed, or their place has a new record."""
        if _state.busy or (self.file.is_there() and self.file.holds(self.at, self.digest)):
            return

        def move(file: _SharedFile) -> None:
            count, times = self.record.words, self.record.times
            old: list[int] = []
            if file is not self.file:  # else the words belong to another record by now
                old = [words.load(at) for at in range(count)]
                self.file.before, file.before = None, self.file
            at, is_new = file.find_or_make(self.record)
            file.begin_use(at)
            self.file.end_use(self.at)
            self.file, self.at = file, at
            words.move(*file.share_of(at, count))
            file.words.setdefault((at, type(words)), words)
            for number, word in enumerate(old[: None if is_new else times]):
                done = 0
                while done < 1 and words.begin():
                    there = words.load(number)
                    done = words.swap(number, there, word if is_new else max(word, there))
                    words.end()

        with suppress(OSError, UnsafePlaceError, ValueError):
            _joined(0.0, move)

    def __del__(self) -> None:
        self.file.end_use(self.at)


class _SharedFile:
    """The file as this process has it open; it stays open while any of its words is in use.

    Attributes:
        path: Its path.
        words: The words in use here, by place and class.
        before: The removed file before this one, whose memory some thread may still read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.words: weakref.WeakValueDictionary[tuple[int, type], Any] = (
            weakref.WeakValueDictionary()
        )
        self.before: _SharedFile | None = None
        self._descriptor = -1  # the only one: closing any would end all locks, see fcntl(2)
        self._descriptor = private_file(path, "the file that processes share", "remove it")
        self._status = os.fstat(self._descriptor)
        self._memories: list[mmap.mmap] = []
        self._places: dict[bytes, int] = {}
        self._seen = -1, 0  # the header's count of reused places, and the end of the records
        self._uses: dict[int, int] = {}
        self._ended: list[int] = []
        _files.add(self)

    def __del__(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        with suppress(OSError):  # something may have closed it, and the number may be reused
            if descriptor >= 0 and os.path.samestat(self._status, os.fstat(descriptor)):
                os.close(descriptor)

    def is_there(self) -> bool:
        """Return whether it is open, and its path still leads to it."""
        try:
            found = os.fstat(self._descriptor)
            return os.path.samestat(found, self._status) and os.path.samestat(
                found, self.path.stat()
            )
        except OSError:
            return False

    @contextmanager
    def locked(self, patience: float) -> Iterator[None]:
        """Keep others from joining meanwhile.

        Args:
            patience: How many seconds to wait for others.

        Raises:
            TimeoutError: If others took longer.
        """
        end = monotonic() + patience
        while not lock_byte(self._descriptor, _JOIN):
            if monotonic() > end:
                raise TimeoutError(f"{self.path}: a suspended process holds its lock")
            time.sleep(0.001)
        try:
            yield
        finally:
            unlock_byte(self._descriptor, _JOIN)

    # --- records; the caller holds the lock -----------------------------------------------------

    def open(self) -> None:
        """Map the whole file, and initialize it if it is new."""
        size = os.fstat(self._descriptor).st_size
        if size < _SIZE:
            os.ftruncate(self._descriptor, _SIZE)
            size = _SIZE
        if not self._memories or len(self.memory) < size:
            self._memories.append(mmap.mmap(self._descriptor, size))
        if self.memory[: len(_MAGIC)] == _MAGIC:
            return
        if any(self.memory[:_UNIT]):
            raise _DamagedError
        self._write(0, _HEADER.pack(_MAGIC, _UNIT, 0))
        for other in self.path.parent.iterdir():  # files of earlier boots
            if other.name.partition("-")[0] != self.path.name.partition("-")[0]:
                other.unlink(missing_ok=True)

    @property
    def memory(self) -> mmap.mmap:
        """The file in memory; older, smaller maps stay for threads that use them."""
        return self._memories[-1]

    def find_or_make(self, record: Record) -> tuple[int, bool]:
        """Return where a record is, and whether this call made it.

        Raises:
            ValueError: If those who use it have other settings.
            OSError: If the file has no room for it.
        """
        settings, digest = record.settings.encode(), record.digest
        at = self._find(digest)
        if at is not None:
            _, _, count, length, times, kept, _ = _RECORD.unpack_from(self.memory, at)
            first = at + STRIDE * (count + 2)
            there = self.memory[first : first + length]
            if (count, there) == (record.words, settings):
                self._note(at, times, kept, 0)
                return at, False
            if self._is_used(at):
                raise ValueError(
                    f"the machine-wide {record.what} is {there.decode(errors='replace')} for the "
                    f"processes that use it, so it cannot be {record.settings} here: use another "
                    f"name, or end those processes first"
                )
            self._remove(at)
        size = STRIDE * (record.words + 2) + len(settings)
        at, units = self._room(-(-size // _UNIT))
        data = bytearray(size)
        _fill(data, STRIDE, record)
        data[-len(settings) :] = settings
        self._write(at + STRIDE, data[STRIDE:])
        what = digest, units, record.words, len(settings), record.times, record.kept, 0
        self._write(at, _RECORD.pack(*what))
        _, end, given = self._header()
        if at == end:
            end += units * _UNIT
        else:
            given += 1
        self._write(0, _HEADER.pack(_MAGIC, end, given))
        return at, True

    def _find(self, digest: bytes) -> int | None:
        """Return where a record is; None if it does not exist."""
        _, end, given = self._header()
        before, seen = self._seen
        if before != given:
            self._places.clear()
            seen = _UNIT
        for at, fields in self._records(seen):
            if fields[2]:
                self._places[fields[0]] = at
        self._seen = given, end
        return self._places.get(digest)

    def _header(self) -> tuple[bytes, int, int]:
        """Return the contents of the header."""
        magic, end, given = _HEADER.unpack_from(self.memory)
        if magic != _MAGIC or not _UNIT <= end <= len(self.memory):
            raise _DamagedError
        return magic, end, given

    def _records(self, at: int = _UNIT) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Yield the records from a place on, including free places."""
        _, end, _ = self._header()
        while at < end:
            fields = _RECORD.unpack_from(self.memory, at)
            units, count, length = fields[1:4]
            size = units * _UNIT
            if not size or at + size > end or STRIDE * (count + 2) + length > size:
                raise _DamagedError
            yield at, fields
            at += size

    def _room(self, units: int) -> tuple[int, int]:
        """Return a free place for a record, and how many units it has."""
        end, size = self._header()[1], len(self.memory)
        if end + units * _UNIT > size:
            for tidy in (bool, self._tidy):
                tidy()
                for at, fields in self._records():
                    if not fields[2] and fields[1] >= units:
                        return at, fields[1]
            while end + units * _UNIT > size:
                size *= 2
            os.ftruncate(self._descriptor, size)
            self._memories.append(mmap.mmap(self._descriptor, size))
        return end, units

    def _tidy(self) -> None:
        """Remove unused records that say nothing more than new ones would."""
        now = monotonic_ns()
        for at, (_, _, count, _, times, kept, since) in self._records():
            if not count or self._is_used(at):
                continue
            words = range(at + 2 * STRIDE, at + STRIDE * (times + 2), STRIDE)
            if any(struct.unpack_from("=q", self.memory, word)[0] >> 1 > now for word in words):
                continue
            if kept and not since:
                self._note(at, times, kept, now)
            elif now - since >= kept:
                self._remove(at)

    def _remove(self, at: int) -> None:
        """Free a place."""
        _, end, given = self._header()
        _, units, *_ = _RECORD.unpack_from(self.memory, at)
        _RECORD.pack_into(self.memory, at, b"", units, 0, 0, 0, 0, 0)
        _HEADER.pack_into(self.memory, 0, _MAGIC, end, given + 1)

    def _note(self, at: int, times: int, kept: int, since: int) -> None:
        """Note since when a record has been unused."""
        struct.pack_into("=Iqq", self.memory, at + 28, times, kept, since)

    def _write(self, at: int, data: bytes | bytearray) -> None:
        """Write to the file: on a full disk this fails, while writing to its map would crash."""
        if sys.platform == "win32":  # which reserves all of the room when the file grows
            self.memory[at : at + len(data)] = bytes(data)
        elif os.pwrite(self._descriptor, data, at) != len(data):
            raise OSError(f"{self.path}: no space left in this file")

    # --- uses of records ------------------------------------------------------------------------

    def share_of(self, at: int, count: int) -> tuple[Any, int, int, int, int]:
        """Return where the words of a record are, in the form that `SharedCounters` takes."""
        return self.memory, at + STRIDE, count, self._descriptor, _JOIN + at // _UNIT

    def words_at(self, core: Any, at: int, record: Record) -> Any:
        """Return the words of a record: one object for all users in this process."""
        kind = core.SharedCounters
        words = self.words.get((at, kind))
        if words is None:
            use = _Use(self, at, record)
            words = self.words[at, kind] = kind(*self.share_of(at, record.words), use)
            _all_words.add(words)
        return words

    def holds(self, at: int, digest: bytes) -> bool:
        """Lock a record again as used by this process, and return whether it still exists.

        If anything in this process opens and closes the file, that ends the earlier lock.
        """
        _share(self._descriptor, at // _UNIT)
        return bool(self.memory[at : at + len(digest)] == digest)

    def begin_use(self, at: int) -> None:
        """Mark a record as used by this process."""
        self._uses[at] = self._uses.get(at, 0) + 1
        _share(self._descriptor, at // _UNIT)

    def end_use(self, at: int) -> None:
        """End one use of a record; finalizers may call this in the middle of anything."""
        self._ended.append(at)
        if not _state.busy:
            with _lock, _state:
                self.end_uses()

    def end_uses(self) -> None:
        """Release the records whose uses finalizers have ended."""
        while self._ended:
            at = self._ended.pop()
            self._uses[at] -= 1
            if not self._uses[at]:
                del self._uses[at]
                if self._descriptor >= 0:  # the garbage collector may finalize both in any order
                    _unshare(self._descriptor, at // _UNIT)

    def _is_used(self, at: int) -> bool:
        """Return whether any process uses a record."""
        return at in self._uses or _is_shared(self._descriptor, at // _UNIT)

    def after_fork(self) -> None:
        """Lock in a child process what the parent uses: locks are not inherited."""
        for at in self._uses:
            _share(self._descriptor, at // _UNIT)


class _DamagedError(OSError):
    """Processes of this version did not write this file."""


class _State:
    """What this process has open; a thread that changes it enters it, under the lock.

    Attributes:
        file: The file that was used last, which stays open; None before the first.
        busy: Whether a thread is changing it.
    """

    def __init__(self) -> None:
        self.file: _SharedFile | None = None
        self.busy = False

    def __enter__(self) -> None:
        self.busy = True

    def __exit__(self, *_: object) -> None:
        self.busy = False


_state = _State()
_lock = Lock()
_files: weakref.WeakSet[_SharedFile] = weakref.WeakSet()
_all_words: weakref.WeakSet[Any] = weakref.WeakSet()


def _joined(patience: float, work: Callable[[_SharedFile], Any]) -> Any:
    """Open or make the file, and change it while no other process does.

    Args:
        patience: How many seconds to wait for other processes.
        work: What to do; it runs again with a new file if the first is damaged.
    """
    with _lock:
        if _state.busy:
            raise TimeoutError("a finalizer or signal handler cannot join during another join")
        with _state:
            path = shared_place.directory() / f"{shared_place.boot()}-words"
            while True:
                opened = (each for each in list(_files) if each.path == path and each.is_there())
                file = _state.file = next(opened, None) or _SharedFile(path)
                with file.locked(patience):
                    if not file.is_there():  # something has removed it
                        continue
                    file.end_uses()
                    try:
                        file.open()
                        return work(file)
                    except _DamagedError:
                        path.unlink()
                    finally:
                        file.end_uses()


def _fill(memory: bytearray, first: int, record: Record) -> None:
    """Give the words their initial values; the flag before them stays 0."""
    for at in range(record.words):
        struct.pack_into("=q", memory, first + STRIDE * (at + 1), record.empty)


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - another thread may have held the old one
    _lock = Lock()
    _state.busy = False
    for file in list(_files):
        file.after_fork()
    for words in list(_all_words):
        words.after_fork()


forks.register("limiters", after_in_child=_after_fork)


if sys.platform == "win32":
    _USERS = 64

    def _share(descriptor: int, slot: int) -> None:
        """Mark a record as used: Windows shares no such locks, so each user locks its own byte."""
        any(lock_byte(descriptor, _USE + slot * _USERS + at) for at in range(_USERS))

    def _unshare(descriptor: int, slot: int) -> None:
        for at in range(_USERS):
            unlock_byte(descriptor, _USE + slot * _USERS + at)

    def _is_shared(descriptor: int, slot: int) -> bool:
        for at in range(_USERS):
            if not lock_byte(descriptor, _USE + slot * _USERS + at):
                return True
            unlock_byte(descriptor, _USE + slot * _USERS + at)
        return False

else:
    from fcntl import LOCK_SH

    def _share(descriptor: int, slot: int) -> None:
        """Mark a record as used by this process."""
        end = monotonic() + 1.0
        while not lock_byte(descriptor, _USE + slot, LOCK_SH) and monotonic() < end:
            time.sleep(0.001)  # another process is briefly checking whether it is used

    def _unshare(descriptor: int, slot: int) -> None:
        """End this process's use of a record."""
        unlock_byte(descriptor, _USE + slot)

    def _is_shared(descriptor: int, slot: int) -> bool:
        """Return whether another process uses a record."""
        if not lock_byte(descriptor, _USE + slot):
            return True
        unlock_byte(descriptor, _USE + slot)
        return False
