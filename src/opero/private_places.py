"""Directories and files that nobody else can write to.

A path is followed step by step from the root, symbolic links included. Every step must be one
that only we or root can turn elsewhere: a directory of ours or of root, which nobody else may write
to unless it is sticky like /tmp, or a link of ours or of root. (The root itself is taken as it is.)
What is missing is made, for us alone, whatever the umask is. The directory at the end must be ours.

A group may write to a directory if we are its only member, as where each user has a group of their
own and the umask is 002.

Access control lists are not read; nor is anything on systems without user ids, where the user's
own directories are private as they are.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import NoReturn

from .exceptions import UnsafePlaceError

_PRIVATE = 0o700
_PRIVATE_FILE = 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_LINKS = 40
"""How many symbolic links a path may lead over, as in Linux."""
SAFELY: int = (
    getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # so that a FIFO does not wait for its other end
    | getattr(os, "O_BINARY", 0)
)
"""Flags of `os.open` for a file that must be what it seems: no link, nothing to wait for."""


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
    here, found = _walk(path, me, check)
    check.owner(here, found, me)
    check.writers(here, found)
    return here


def closed_directory(path: Path, what: str, mend: str) -> Path:
    """Do as `private_directory` does, and see that nobody else can look into it either.

    Args:
        path: The directory, which must not be a link.
        what: As there.
        mend: As there.
    """
    me = user_id()
    if me is None:
        path.mkdir(parents=True, exist_ok=True)
        return path.resolve()
    check = _Check(what, path, mend)
    here = _walk(path.parent, me, check)[0] / path.name
    found = _find_or_make(here)
    check.owner(here, found, me)
    if not stat.S_ISDIR(found.st_mode):
        check.give_up(here, "is not a directory")
    check.readers(here, found)
    if found.st_mode & _PRIVATE != _PRIVATE:  # who made it died before it was as it should be
        here.chmod(_PRIVATE)
    return here


def private_file(path: Path, what: str, mend: str, flags: int = os.O_CREAT) -> int:
    """Open a file that nobody else can open.

    Args:
        path: The file, in a directory that nobody else can write to.
        what: What it is, for messages.
        mend: What the user can do about it, for messages.
        flags: Those of `os.open`, beyond reading and writing.

    Returns:
        A descriptor, which belongs to the caller.

    Raises:
        UnsafePlaceError: If somebody else owns it or can open it.
        UnusablePlaceError: If there is something else in its place.
        OSError: If it cannot be made or opened.
    """
    flags |= os.O_RDWR | SAFELY
    try:
        descriptor = os.open(path, flags, _PRIVATE_FILE)
    except PermissionError:
        path.chmod(_PRIVATE_FILE)  # it was made under a umask that takes our own rights, too
        descriptor = os.open(path, flags, _PRIVATE_FILE)
    try:
        found = os.fstat(descriptor)
        me = user_id()
        check = _Check(what, path, mend)
        if me is not None:
            check.owner(path, found, me)
            check.readers(path, found)
            if stat.S_IMODE(found.st_mode) != _PRIVATE_FILE:
                os.fchmod(descriptor, _PRIVATE_FILE)
        if not stat.S_ISREG(found.st_mode):
            check.give_up(path, "is not a file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def user_id() -> int | None:
    """Return our user id, None on a system that has none."""
    return os.geteuid() if hasattr(os, "geteuid") else None


class UnusablePlaceError(OSError):
    """A place is of no use, though no danger either; the message says why, and what to do."""


def _walk(path: Path, me: int, check: _Check) -> tuple[Path, os.stat_result]:
    """Follow a path and make what is missing; return where it leads, and what is there.

    Args:
        path: The path.
        me: Our user id.
        check: Refuses each step that somebody else could turn elsewhere.
    """
    try:
        whole = path if path.is_absolute() else Path.cwd() / path
    except FileNotFoundError:
        check.give_up(path, "is in the working directory, which does not exist any more")
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
    return here, here.lstat()


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
        mode = stat.S_IMODE(found.st_mode)
        if mode & stat.S_IWOTH:
            self.refuse(there, f"can be written to by everybody (mode {mode:04o})")
        if mode & stat.S_IWGRP and not _is_own_group(found.st_gid, found.st_uid):
            self.refuse(there, f"can be written to by its group (mode {mode:04o})")

    def readers(self, there: Path, found: os.stat_result) -> None:
        """Refuse what is found `there` if others than its owner may do anything with it."""
        if found.st_mode & _OTHERS:
            self.refuse(there, f"is open to others (mode {stat.S_IMODE(found.st_mode):04o})")

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


def _is_own_group(group: int, user: int) -> bool:
    """Return whether a group has its owner's name and no other member.

    Not so of root: in a container, users without a name are in its group.
    Source: what OpenSSH asks in Debian before it trusts a file (user-group-modes.patch), and
    `usergroups` of pam_umask(8).
    """
    if sys.platform == "win32" or not group or not user:
        return False
    import grp
    import pwd

    try:
        name, members = pwd.getpwuid(user).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return (
        members.gr_name == name
        and set(members.gr_mem) <= {name}
        and [each.pw_uid for each in pwd.getpwall() if each.pw_gid == group] == [user]
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
