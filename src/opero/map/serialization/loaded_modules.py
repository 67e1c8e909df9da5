"""The modules of this process: workers must import the same files in the same state, or none.

A module has a row, which says where its file is and in which state it was read. Workers get the
rows, and import by them (see `same_modules`). A module that is read again has another row, by which
a worker that has imported it before knows that it is out of date. A module that no worker can
import as it is here is *apart*: its functions and classes travel by value. That is one without a
file, or whose file is gone or has changed since it was read.

The check is cheap while nothing changes: module specs show whether modules were added or reloaded.
Files are checked again only after a time that depends on their number.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from opero import forks
from opero.locks import Lock
from opero.real_time import monotonic

Row = tuple[str, tuple[str, ...] | None, int, int, int]
"""A module's file, the folders of a package, the file's time in nanoseconds and its size, 0 and -1
if they do not matter; and the version, which is another one whenever the module was read again.
Without a file it is a namespace package; or a module that is apart, which has the size `APART`."""

APART = -2

_PAUSE = 30e-6  # seconds without a look for each file: to look takes one part in twenty of that
_LIBRARY = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120 - as it stands in origins
_OTHERS = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_MAIN = {"__main__", "__mp_main__"}


class Seen(NamedTuple):
    """What a look at the modules has found.

    Attributes:
        number: Another one whenever the rest is.
        rows: The modules, by name: all of the user, of other packages the outermost.
        apart: The names of those that no worker can import as they are here.
        again: The names of those that were read again, by a reload or otherwise.
    """

    number: int
    rows: dict[str, Row]
    apart: frozenset[str]
    again: frozenset[str]


class _Record:
    """What is known of a module."""

    __slots__ = ("apart", "row", "source", "spec", "state", "watched")

    def __init__(self, spec: ModuleSpec | None) -> None:
        self.spec = spec
        self.row: Row | None = None
        self.apart = False
        self.watched = True  # it may be read again
        self.source: str = ""  # its file, if changes of that matter
        self.state: tuple[int, int] = (0, -1)


class LoadedModules:
    """The modules of this process, as they were at the last look."""

    def __init__(self) -> None:
        """Begin with no modules."""
        self._lock = Lock()
        self._records: dict[str, _Record] = {}
        self._known: list[tuple[str, _Record]] = []
        self._watched: list[tuple[str, Any]] = []
        self._sources: list[tuple[str, _Record]] = []
        self._count = -1
        self._last: str | None = None
        self._due = 0.0
        self._versions = 0
        self._blamed: frozenset[str] = frozenset()
        self._for_others: tuple[int, frozenset[str]] = (0, frozenset())
        self._seen = Seen(0, {}, frozenset(), frozenset())

    def begin_anew(self) -> None:
        """Look at everything again, in a forked child: a thread may have been looking."""
        self._lock = Lock()
        self._count = -1

    def look(self) -> Seen:
        """Return what there is now."""
        with self._lock:
            if self._moved():
                self._read()
            if monotonic() >= self._due:
                self._look_at_files()
            return self._seen

    def blame(self, names: Iterable[str]) -> Seen:
        """Take note that workers cannot import some modules as they are here."""
        with self._lock:
            self._read()
            self._look_at_files()
            self._blamed |= frozenset(names)
            self._publish()
            return self._seen

    def apart_for_others(self) -> frozenset[str]:
        """Return the modules that travel by value to processes that cannot be renewed.

        They may have imported what was read again here, and what uses that.
        """
        seen = self.look()
        with self._lock:
            if self._for_others[0] != seen.number:
                found = frozenset(self._with_users(seen.apart | seen.again))
                self._for_others = seen.number, found
            return self._for_others[1]

    def _with_users(self, names: Iterable[str]) -> set[str]:
        """Return some modules, and those of the user that refer to them or to what is in them."""
        found = set(names)
        if not found:
            return found
        left = {name: _referred_to(sys.modules.get(name)) for name, _ in self._sources}
        while True:
            users = {name for name, used in left.items() if name not in found and used & found}
            if not users:
                return found
            found |= users

    def _moved(self) -> bool:
        """Return whether modules came or were read again since the last look."""
        modules = sys.modules
        if len(modules) != self._count or _last_of(modules) != self._last:
            return True
        for name, spec in self._watched:
            module = modules.get(name)
            if type(module) is ModuleType and spec is not None:
                here = getattr(module, "__spec__", None)  # several times as fast
            else:
                here = _spec_of(module)
            if here is not spec:
                return True
        return False

    def _read(self) -> None:
        """Look at every module."""
        modules = dict(sys.modules)
        self._count = len(modules)
        self._last = _last_of(modules)
        known: list[tuple[str, _Record]] = []
        changed = False
        for name, module in modules.items():
            if type(name) is not str or name in _MAIN or name.partition(".")[0] == "opero":
                continue
            spec = _spec_of(module)
            record = self._records.get(name)
            if record is None or record.spec is not spec:
                again = record is not None
                record = self._record(name, module, spec, again)
                self._records[name] = record
                changed = changed or again
            if record.row is not None or record.apart:
                known.append((name, record))
        self._known = known
        self._watched = [(name, record.spec) for name, record in known if record.watched]
        self._sources = [(name, record) for name, record in known if record.source]
        if changed:
            self._blamed = frozenset()
        self._publish()

    def _record(self, name: str, module: Any, spec: Any, again: bool) -> _Record:
        """Find out what a worker needs to know about a module.

        Args:
            name: Its name.
            module: The module.
            spec: Its spec.
            again: Whether there was another one of this name, or this one with another spec.
        """
        record = _Record(spec)
        if spec is None:
            record.apart = type(module) is ModuleType and _is_made(name, module)
            return record
        if getattr(spec, "name", None) != name:
            return record  # it has this name, too
        origin: Any = getattr(spec, "origin", None)
        located = type(origin) is str and getattr(spec, "has_location", False)
        others = located and any(part in origin for part in _OTHERS)
        own = not others and not (located and origin.startswith(_LIBRARY))
        if not own and not again and "." in name:
            return record  # it comes with its package
        version = self._next_version() if again else 0
        folders = _folders(spec)
        if located:
            record.watched = own or others or again
            record.row = (origin, folders, 0, -1, version)
            if not own:
                return record
            state = _state_of(origin)
            if state is None:
                # what is in an archive has no state; in a frozen program nothing is a file
                in_archive = hasattr(spec.loader, "archive") or hasattr(sys, "frozen")
                record.apart = not in_archive
                record.row = record.row if in_archive and not hasattr(sys, "frozen") else None
                return record
            record.source = origin
            record.state = state
            record.row = (origin, folders, *state, version)
            if state[0] > _BEGAN:  # it may have changed after it was read
                record.apart = not _same(module, spec, otherwise=True)
        elif folders is not None and origin is None:
            record.row = ("", folders, 0, -1, version)
        elif origin not in {"built-in", "frozen"} and not hasattr(sys, "frozen"):
            record.apart = "." not in name
        return record

    def _look_at_files(self) -> None:
        """See which files have changed, and whether the modules have, too."""
        changed = False
        for name, record in self._sources:
            state = _state_of(record.source) or (0, -1)
            if state == record.state:
                continue
            record.state = state
            module = sys.modules.get(name)
            record.apart = not _same(module, record.spec, otherwise=False)
            if not record.apart:  # it was patched after its file, or that is what it was before
                assert record.row is not None
                record.row = (*record.row[:2], *state, self._next_version())
            changed = True
        if changed:
            self._blamed = frozenset()
            self._publish()
        self._due = monotonic() + len(self._sources) * _PAUSE

    def _next_version(self) -> int:
        self._versions += 1
        return self._versions

    def _publish(self) -> None:
        """Make what a look returns, if it is something else than before."""
        rows: dict[str, Row] = {}
        again = set()
        apart = set(self._blamed)
        apart.update(name for name, record in self._known if record.apart)
        for name, _ in self._known:
            if "." in name and _without_parent(name, apart):
                apart.add(name)
        apart = self._with_users(apart)
        for name, record in self._known:
            if name in apart:
                rows[name] = ("", None, 0, APART, 0)
            elif record.row is not None:
                rows[name] = record.row
                if record.row[4]:
                    again.add(name)
        seen = Seen(self._seen.number + 1, rows, frozenset(apart), frozenset(again))
        if seen[1:] != self._seen[1:]:
            self._seen = seen


def _last_of(modules: dict[str, Any]) -> str | None:
    """Return the name of the module that came last; None if another one comes just now."""
    try:
        return next(reversed(modules), None)
    except RuntimeError:
        return None


def _without_parent(name: str, apart: set[str]) -> bool:
    """Return whether a module is in a package that is not there, or is apart."""
    parent = name.rpartition(".")[0]
    while parent:
        if parent in apart or parent not in sys.modules:
            return True
        parent = parent.rpartition(".")[0]
    return False


def _spec_of(module: Any) -> Any:
    """Return a module's spec; what is lazy stays so."""
    try:
        return object.__getattribute__(module, "__dict__").get("__spec__")
    except AttributeError:
        return None


def _referred_to(module: Any) -> set[str]:
    """Return the modules that a module refers to, directly or by something of theirs."""
    found: set[Any] = set()
    try:
        namespace = object.__getattribute__(module, "__dict__")
    except AttributeError:
        return found
    for thing in list(namespace.values()):
        kind = type(thing)
        try:
            if kind is ModuleType:
                found.add(thing.__name__)
            elif kind is FunctionType or issubclass(kind, type):
                found.add(thing.__module__)
            else:
                own = object.__getattribute__(thing, "__dict__")
                found.add(own.get("__module__", kind.__module__))
        except (AttributeError, TypeError):
            continue
    return {name for name in found if type(name) is str}


def _folders(spec: Any) -> tuple[str, ...] | None:
    """Return the folders of a package."""
    try:
        found = spec.submodule_search_locations
        return None if found is None else tuple(map(str, found))
    except Exception:  # noqa: BLE001 - a namespace's are searched again, which may fail
        return None


def _state_of(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - several times as fast
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size


def _same(module: Any, spec: Any, otherwise: bool) -> bool:
    """Return whether a module is what its file says; `otherwise` if nobody can know."""
    if not isinstance(spec.loader, SourceFileLoader):
        return otherwise
    from .same_as_file import same_as_file

    try:
        return same_as_file(object.__getattribute__(module, "__dict__"), spec.origin)
    except Exception:  # noqa: BLE001 - what is in a module may do anything
        return False


def _is_made(name: str, module: ModuleType) -> bool:
    """Return whether a module without a spec is made by hand: no import of its name finds it.

    In a package, the import of that makes it, or nothing does; so it is with Cython's own.
    """
    if "." in name or name.startswith("_cython_") or name == "cython_runtime":
        return name.partition(".")[0] not in sys.modules
    try:
        found = PathFinder.find_spec(name)
    except Exception:  # noqa: BLE001 - finders are not all of the standard library
        return True
    return found is None or found.origin != vars(module).get("__file__")


def _process_began() -> int:
    """Return when this process began, or a little before that, in nanoseconds; now if unknown."""
    try:
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 - no worker needs `pathlib` here
            about = file.read()
        ticks = int(about.rpartition(b")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        age = 0.0
    return time.time_ns() - int((age + 1) * 1e9)


_BEGAN = _process_began()

loaded_modules: LoadedModules = LoadedModules()
"""Those of this process."""

forks.register("workers", after_in_child=loaded_modules.begin_anew)
