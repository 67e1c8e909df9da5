"""Directories and files that nobody else can write to.

opero follows a path step by step from the root, symbolic links included. Only we or root may be
able to redirect a step: it must be a directory of ours or of root that nobody else can write to,
unless it is sticky like /tmp, or a link of ours or of root. (The root itself is not checked.)
Missing directories are created for us alone, whatever the umask. The last directory must be ours.

A group may write to a directory if we are its only member, as on systems where each user has their
own group and the umask is 002.

opero does not read access control lists. It checks nothing on systems without user ids, where the
user's own directories are already private.
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
"""How many symbolic links a path may contain, as in Linux."""
SAFELY: int = (
    getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # so that opening a FIFO does not block
    | getattr(os, "O_BINARY", 0)
)
"""Flags of `os.open` for a file that must be a regular one: not a link, not a FIFO."""


def private_directory(path: Path, what: str, mend: str) -> Path:
    """Create a directory if it is missing, and check that nobody else can write to it.

    Args:
        path: The directory.
        what: What it is, for messages.
        mend: What the user can do about it, for messages.

    Returns:
        The directory without symbolic links.

    Raises:
        UnsafePlaceError: If someone else owns it or can write to it.
        UnusablePlaceError: If the path is not a directory.
        OSError: If it cannot be created or examined.
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
    """Like `private_directory`, but also check that nobody else can read it.

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
    if found.st_mode & _PRIVATE != _PRIVATE:  # its creator died before setting the mode
        here.chmod(_PRIVATE)
    return here


def private_file(path: Path, what: str, mend: str, flags: int = os.O_CREAT) -> int:
    """Open a file that nobody else can open.

    Args:
        path: The file, in a directory that nobody else can write to.
        what: What it is, for messages.
        mend: What the user can do about it, for messages.
        flags: Flags of `os.open`, besides those for reading and writing.

    Returns:
        A descriptor, which belongs to the caller.

    Raises:
        UnsafePlaceError: If someone else owns it or can open it.
        UnusablePlaceError: If the path is not a regular file.
        OSError: If it cannot be created or opened.
    """
    flags |= os.O_RDWR | SAFELY
    try:
        descriptor = os.open(path, flags, _PRIVATE_FILE)
    except PermissionError:
        path.chmod(_PRIVATE_FILE)  # created under a umask that removes our own rights too
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
    """Return our user id; None on a system without user ids."""
    return os.geteuid() if hasattr(os, "geteuid") else None


class UnusablePlaceError(OSError):
    """A place cannot be used, but is not unsafe; the message says why and what to do."""


def _walk(path: Path, me: int, check: _Check) -> tuple[Path, os.stat_result]:
    """Follow a path and create what is missing; return where it leads, and its status.

    Args:
        path: The path.
        me: Our user id.
        check: Rejects each step that someone else could redirect.
    """
    try:
        whole = path if path.is_absolute() else Path.cwd() / path
    except FileNotFoundError:
        check.give_up(path, "is in the working directory, which no longer exists")
    here = Path(whole.anchor)
    found = here.lstat()
    todo = _steps(whole)
    links = 0
    while todo:
        step = todo.pop()
        if step == "..":
            here = here.parent  # it no longer contains links
            found = here.lstat()
            continue
        there = here / step
        found = _find_or_make(there)
        if stat.S_ISLNK(found.st_mode):
            check.owner(there, found, me, 0)
            links += 1
            if links > _LINKS:
                check.give_up(there, "is part of a loop of symbolic links")
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
    """Rejects unsafe steps on the way to one directory.

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
        """Reject what is `there` if its owner is not one of the allowed users."""
        if found.st_uid not in allowed:
            kind = "is a symbolic link and " if stat.S_ISLNK(found.st_mode) else ""
            names = [f"user {user}" if user else "root" for user in sorted({*allowed})]
            who = " or ".join(reversed(names))
            self.refuse(there, f"{kind}belongs to user {found.st_uid}, not to {who}")

    def writers(self, there: Path, found: os.stat_result) -> None:
        """Reject what is `there` if users other than its owner can write to it."""
        mode = stat.S_IMODE(found.st_mode)
        if mode & stat.S_IWOTH:
            self.refuse(there, f"is writable by everyone (mode {mode:04o})")
        if mode & stat.S_IWGRP and not _is_own_group(found.st_gid, found.st_uid):
            self.refuse(there, f"is writable by its group (mode {mode:04o})")

    def readers(self, there: Path, found: os.stat_result) -> None:
        """Reject what is `there` if users other than its owner have any access to it."""
        if found.st_mode & _OTHERS:
            self.refuse(there, f"is open to others (mode {stat.S_IMODE(found.st_mode):04o})")

    def refuse(self, there: Path, why: str) -> NoReturn:
        """Raise an error that says why what is `there` is unsafe."""
        which = "it" if there == self.path else str(there)
        raise UnsafePlaceError(f"{self.what} {self.path} is not safe: {which} {why}; {self.mend}")

    def give_up(self, there: Path, why: str) -> NoReturn:
        """Raise an error that says why what is `there` cannot be used."""
        which = "it" if there == self.path else str(there)
        raise UnusablePlaceError(
            f"{self.what} {self.path} cannot be used: {which} {why}; {self.mend}"
        )


def _is_own_group(group: int, user: int) -> bool:
    """Return whether a group has its owner's name and no other member.

    Never for root: in a container, users without a name are in its group. Source: what OpenSSH in
    Debian checks before it trusts a file (user-group-modes.patch), and `usergroups` of
    pam_umask(8).
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
    """Split a path into its steps from the root, the first one last."""
    return [step for step in reversed(path.parts) if step != path.anchor]


def _find_or_make(path: Path) -> os.stat_result:
    """Create a directory for us alone, unless something is there; return the status."""
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
