"""Why a worker cannot start: which limit of the system is reached, and what to do about it."""

from __future__ import annotations

import errno
import sys
from typing import Any

from opero.exceptions import OperoError, describe


class Shortage(OperoError):
    """The system has no room for another worker process now, but may have later."""


def shortage(error: OSError, what: str) -> OperoError:
    """Return the error that explains what the system is short of.

    Args:
        error: The error of the system.
        what: What failed.

    Returns:
        A `Shortage` if it may succeed later.
    """
    words = _WORDS.get(error.errno or 0)
    if words is None:
        return OperoError(f"{what}: {describe(error)}")
    return Shortage(f"{what}: {words()}")


def _files() -> str:
    return (
        f"this process has reached its limit of open files{_limit('NOFILE')}. "
        f"Close some, raise the limit (ulimit -n), or use fewer workers"
    )


def _files_of_all() -> str:
    return "the system has no room for more open files (fs.file-max). Close some"


def _processes() -> str:
    return (
        f"the system starts no more processes or threads{_limit('NPROC', 'AS')}; a container may "
        f"have its own limit (pids.max). End some, raise the limit (ulimit -u), or use fewer "
        f"workers"
    )


def _memory() -> str:
    return (
        f"there is not enough memory{_limit('AS')}. "
        f"Use fewer workers, or raise the limit (ulimit -v, or the container's)"
    )


_WORDS: dict[int, Any] = {
    errno.EMFILE: _files,
    errno.ENFILE: _files_of_all,
    errno.EAGAIN: _processes,
    errno.ENOMEM: _memory,
}


def _limit(*names: str) -> str:
    """Return the values of those of the named limits that are set, as text."""
    known = limits()
    told = [f"RLIMIT_{name} is {known[name]}" for name in names if name in known]
    return f" ({', '.join(told)})" if told else ""


def limits() -> dict[str, int]:
    """Return the limits of this process that one more worker might exceed."""
    if sys.platform == "win32":
        return {}
    import resource

    found = {}
    for name in ("NOFILE", "NPROC", "AS"):
        if hasattr(resource, f"RLIMIT_{name}"):
            soft, _ = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
            if soft != resource.RLIM_INFINITY:
                found[name] = soft
    return found
