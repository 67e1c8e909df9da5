"""Directories that nobody else can write to.

A path is followed step by step from the root, symbolic links included. Every step must be one
that only we or root can turn elsewhere: a directory of ours or of root, which nobody else may write
to unless it is sticky like /tmp, or a link of ours or of root. (The root itself is taken as it is.)
What is missing is made, for us alone (0700). The directory at the end must be ours.

Access control lists are not read; nor is anything on systems without user ids, where the user's
own directories are private as they are.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from opero.exceptions import UnsafePlaceError

ENTRIES = "opero-entries"
"""The directory inside a cache directory that holds the entries."""

_PRIVATE = 0o700
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_LINKS = 40
"""How many symbolic links a path may lead over, as in Linux."""


def cache_dir(given: str | os.PathLike[str] | None) -> Path:
    """Return the directory for the entries of a cache: private, and there.

    Args:
        given: The directory that the user has chosen; it is made if it is not there. None: the
            user's own cache directory.

    Returns:
        A directory inside it that only we can look into, without symbolic links.

    Raises:
        UnsafePlaceError: If somebody else owns the directory or could write to it.
        UnusablePlaceError: If there is no directory there, and none can be, or there is no home.
        OSError: If it cannot be made or looked at.
        ImportError: If platformdirs is not installed.
        TypeError: If `given` is no path.
        ValueError: If `given` is an empty path.
    """
    if given is None:
        where = user_cache_directory()
        mend = "mend that, or choose another directory by cache_dir="
    else:
        text = os.fspath(given) if isinstance(given, (str, os.PathLike)) else None
        if not isinstance(text, str):
            raise TypeError(f"cache_dir={given!r} is not allowed: use a path")
        if not text or "\0" in text:
            raise ValueError(f"cache_dir={given!r} is not allowed: use a path")
        try:
            where = Path(text).expanduser()
        except RecursionError:  # which is a RuntimeError
            raise
        except RuntimeError as error:
            raise UnusablePlaceError(
                f"cache_dir={given!r} is in a home that does not exist; choose another cache_dir="
            ) from error
        mend = "mend that, or choose another cache_dir="
    entries = private_directory(where, "the cache directory", mend) / ENTRIES
    found = _find_or_make(entries)
    check = _Check("the cache directory", entries, f"remove it, or: chmod 700 {entries}")
    if not stat.S_ISDIR(found.st_mode):
        check.give_up(entries, "is not a directory")
    me = user_id()
    if me is not None:
        check.owner(entries, found, me)
        if found.st_mode & _OTHERS:
            check.refuse(entries, f"is open to others (mode {stat.S_IMODE(found.st_mode):04o})")
    return entries


def private_directory(path: Path, what: str, mend: str) -> Path:
    """Make a directory, unless it is there, and see that nobody else can write to it.

    Args:
        path: The directory.
        what: What it is, for messages.
        mend: What the user can do about it, for messages.

    Returns:
        The directory without symbolic links.

    Raises:
        UnsafePlaceError: If somebody else owns it or could write to it.
        UnusablePlaceError: If there is something else in its place.
        OSError: If it cannot be made or looked at.
    """
    me = user_id()
    if me is None:
        path.mkdir(parents=True, exist_ok=True)
        return path.resolve()
    check = _Check(what, path, mend)
    whole = path if path.is_absolute() else Path.cwd() / path
    here = Path(whole.anchor)
    found = here.lstat()
    todo = _steps(whole)
    links = 0
    while todo:
        step = todo.pop()
        if step == "..":
            here = here.parent  # there are no links in it any more
            found = here.lstat()
            continue
        there = here / step
        found = _find_or_make(there)
        if stat.S_ISLNK(found.st_mode):
            check.owner(there, found, me, 0)
            links += 1
            if links > _LINKS:
                check.give_up(there, "is a symbolic link without an end")
            target = there.readlink()
            if target.is_absolute():
                here = Path(target.anchor)
                found = here.lstat()
            todo += _steps(target)
            continue
        if not stat.S_ISDIR(found.st_mode):
            check.give_up(there, "is not a directory")
        check.owner(there, found, me, 0)
        if not found.st_mode & stat.S_ISVTX:
            check.writers(there, found)
        here = there
    found = here.lstat()
    check.owner(here, found, me)
    check.writers(here, found)
    return here


def user_cache_directory() -> Path:
    """Return where the system wants the user's caches to be.

    Raises:
        UnusablePlaceError: If the user has no home.
        ImportError: If platformdirs is not installed.
    """
    try:
        from platformdirs import user_cache_path
    except ImportError as error:
        raise _missing() from error
    return _at_home(user_cache_path)


def user_config_directory() -> Path:
    """Return where the system wants the user's settings to be.

    Raises:
        UnusablePlaceError: If the user has no home.
        ImportError: If platformdirs is not installed.
    """
    try:
        from platformdirs import user_config_path
    except ImportError as error:
        raise _missing() from error
    return _at_home(user_config_path)


def user_id() -> int | None:
    """Return our user id, None on a system that has none."""
    return os.geteuid() if hasattr(os, "geteuid") else None


class UnusablePlaceError(OSError):
    """A place is of no use, though no danger either; the message says why, and what to do."""


def _at_home(find: Callable[..., Path]) -> Path:
    """Return the directory that platformdirs finds, if the user has a home."""
    try:
        path = find("opero", appauthor=False)
        if path.parts[0].startswith("~"):  # what its older versions return then
            raise RuntimeError
    except RecursionError:  # which is a RuntimeError
        raise
    except RuntimeError as error:
        raise UnusablePlaceError(
            "there is no home directory; set HOME, or give cache_dir= and cache_secret="
        ) from error
    return path


class _Check:
    """Refuses what is not safe on the way to one directory.

    Attributes:
        what: What the directory is, for messages.
        path: The directory.
        mend: What the user can do, for messages.
    """

    __slots__ = ("mend", "path", "what")

    def __init__(self, what: str, path: Path, mend: str) -> None:
        self.what = what
        self.path = path
        self.mend = mend

    def owner(self, there: Path, found: os.stat_result, *allowed: int) -> None:
        """Refuse what is found `there` if its owner is not one of those that are allowed."""
        if found.st_uid not in allowed:
            kind = "is a symbolic link and " if stat.S_ISLNK(found.st_mode) else ""
            names = [f"user {user}" if user else "root" for user in sorted({*allowed})]
            who = " or ".join(reversed(names))
            self.refuse(there, f"{kind}belongs to user {found.st_uid}, not to {who}")

    def writers(self, there: Path, found: os.stat_result) -> None:
        """Refuse what is found `there` if others than its owner may write to it."""
        if found.st_mode & _OTHERS_WRITE:
            who = "everybody" if found.st_mode & stat.S_IWOTH else "its group"
            mode = stat.S_IMODE(found.st_mode)
            self.refuse(there, f"can be written to by {who} (mode {mode:04o})")

    def refuse(self, there: Path, why: str) -> NoReturn:
        """Say what is not safe about what is found `there`."""
        which = "it" if there == self.path else str(there)
        raise UnsafePlaceError(f"{self.what} {self.path} is not safe: {which} {why}; {self.mend}")

    def give_up(self, there: Path, why: str) -> NoReturn:
        """Say why what is found `there` is of no use."""
        which = "it" if there == self.path else str(there)
        raise UnusablePlaceError(
            f"{self.what} {self.path} cannot be used: {which} {why}; {self.mend}"
        )


def _steps(path: Path) -> list[str]:
    """Take a path apart: its steps from the root on, the first one last."""
    return [step for step in reversed(path.parts) if step != path.anchor]


def _find_or_make(path: Path) -> os.stat_result:
    """Make a directory for us alone, unless something is there, and tell what is there."""
    try:
        return path.lstat()
    except FileNotFoundError:
        pass
    try:
        path.mkdir(_PRIVATE)
    except FileExistsError:  # another process was faster
        return path.lstat()
    if path.lstat().st_mode & _PRIVATE != _PRIVATE:  # by the umask
        path.chmod(_PRIVATE)
    return path.lstat()


def _missing() -> ImportError:
    """Make the error for a package that is not installed."""
    return ImportError(
        "caches on disk and in Redis need the platformdirs package: "
        "pip install 'platformdirs>=4.0'",
        name="platformdirs",
    )
