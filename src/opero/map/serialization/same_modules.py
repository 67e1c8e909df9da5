"""A finder that makes a worker import the same modules as its client, the process it works for.

The client sends a row for each module (see `loaded_modules`). A name leads to the file in its row,
whatever the search path says. The finder refuses a file that has changed since the client read it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

from opero.exceptions import OperoError

from .loaded_modules import APART, Row


class Outdated(Exception):
    """This process has imported something that differs in the process it works for."""


class _SourceLoader(SourceFileLoader):
    """Load a module from its source: its bytecode may belong to another version."""

    def get_code(self, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class SameModules:
    """A finder that runs before all others.

    Attributes:
        rows: The modules of the process that this one works for.
        refused: The names of modules that this process cannot import as the client has them, and
            of the modules that were importing them.
    """

    def __init__(self, born: int) -> None:
        """Find nothing yet.

        Args:
            born: When this process began, in nanoseconds.
        """
        self.rows: dict[str, Row] = {}
        self.refused: set[str] = set()
        self._born = born
        self._halves: set[str] = set()

    def install(self) -> None:
        """Put this finder first, for every import."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def take(self, rows: dict[str, Row], fresh: bool) -> None:
        """Take the rows of the process that this one works for.

        Args:
            rows: The rows.
            fresh: Whether this process has imported nothing for a client yet.

        Raises:
            Outdated: If this process has imported another version of a module.
        """
        before, self.rows = self.rows, rows
        self.refused = set()
        for name, row in rows.items():
            module = sys.modules.get(name)
            known = before.get(name)
            if module is None or known == row or row[3] == APART:
                continue
            if known is not None:
                raise Outdated
            if not _is_from(module, row):
                if not fresh:
                    raise Outdated
                self.refused.add(name)
            elif row[2] >= self._born and not fresh:
                raise Outdated  # it is unknown which version of the file was imported

    def check_whole(self, executed: list[str], fresh: bool) -> None:
        """Check that the client is still importing what it was importing when it forked this.

        In this process those imports never finish.

        Args:
            executed: The modules whose top level the client is executing.
            fresh: Whether this process has just begun.

        Raises:
            Outdated: If the client has finished one of those imports.
        """
        if fresh:
            self._halves = {name for name in executed if name in sys.modules}
        elif not self._halves.issubset(executed):
            raise Outdated

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where the client has a module; None to leave it to the other finders.

        Raises:
            OperoError: If it has changed.
        """
        row = self.rows.get(name)
        if row is None or target is not None:
            return None
        origin, folders, *state = row[:4]
        if state[1] == APART or (state[1] >= 0 and state != _state_of(origin)):
            self.refused.add(name)
            self.refused.update(_being_imported())
            raise OperoError(
                f"a worker cannot import {name} as the program has it: its file has changed, or it "
                f"has none. Reload it in the program, or import it at the top of the module that "
                f"uses it"
            )
        found = self._found(name, path)
        if found is None or not _leads_to(found, row):
            found = _pinned(name, origin, folders)
        if found is not None and type(found.loader) is SourceFileLoader and _too_old(origin):
            found.loader = _SourceLoader(name, origin)
        return found

    def _found(self, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
        """Return what the other finders find."""
        for finder in sys.meta_path:
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path)
                if spec is not None:
                    return spec
        return None


def _pinned(name: str, origin: str, folders: tuple[str, ...] | None) -> ModuleSpec | None:
    """Return the spec of a module that no finder finds in its place."""
    if not origin:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = list(folders or ())
        return spec
    if not os.path.exists(origin):  # noqa: PTH110 - a path object for each import is expensive
        inside = os.path.dirname(origin)  # noqa: PTH120
        outside = inside if folders is None else os.path.dirname(inside)  # noqa: PTH120
        return PathFinder.find_spec(name, [outside])
    from importlib.util import spec_from_file_location

    within = None if folders is None else list(folders)
    found = spec_from_file_location(name, origin, submodule_search_locations=within)
    return found or spec_from_file_location(
        name, origin, loader=SourceFileLoader(name, origin), submodule_search_locations=within
    )


def _is_from(module: Any, row: Row) -> bool:
    """Return whether a module that this process has imported matches a row."""
    spec = getattr(module, "__spec__", None)
    return spec is not None and _leads_to(spec, row)


def _leads_to(spec: Any, row: Row) -> bool:
    origin = getattr(spec, "origin", None)
    if not row[0]:
        return origin is None
    return type(origin) is str and (
        origin == row[0] or os.path.realpath(origin) == os.path.realpath(row[0])
    )


def _state_of(path: str) -> list[int]:
    try:
        found = os.stat(path)  # noqa: PTH116 - several times as fast
    except (OSError, ValueError):
        return []
    return [found.st_mtime_ns, found.st_size]


def _too_old(path: str) -> bool:
    """Return whether a file's bytecode is older than the file.

    Python itself compares only whole seconds.
    """
    from importlib.util import cache_from_source

    try:
        compiled = os.stat(cache_from_source(path))  # noqa: PTH116
        return compiled.st_mtime_ns <= os.stat(path).st_mtime_ns  # noqa: PTH116
    except (OSError, ValueError, NotImplementedError):
        return False


def _being_imported() -> set[str]:
    return {
        name
        for name, module in list(sys.modules.items())
        if getattr(getattr(module, "__spec__", None), "_initializing", False)
    }
