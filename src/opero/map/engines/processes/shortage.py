"""What the system is short of when a worker cannot be started: which limit, and what to do."""

from __future__ import annotations

import errno
import sys
from typing import Any

from opero.exceptions import OperoError, describe


class Shortage(OperoError):
    """There is no room for another worker process; there may be again in a while."""


def shortage(error: OSError, what: str) -> OperoError:
    """Return the error that says why something could not be done.

    Args:
        error: What the system said.
        what: What could not be done.

    Returns:
        A `Shortage` if it may be possible in a while.
    """
    words = _WORDS.get(error.errno or 0)
    if words is None:
        return OperoError(f"{what}: {describe(error)}")
    return Shortage(f"{what}: {words()}")


def _files() -> str:
    return (
        f"this process has as many open files as it may have{_limit('NOFILE')}. "
        f"Close some, raise the limit (ulimit -n), or use fewer workers"
    )


def _files_of_all() -> str:
    return "the system has no room for more open files (fs.file-max). Close some"


def _processes() -> str:
    return (
        f"the system starts no more processes or threads{_limit('NPROC', 'AS')}; a container may "
        f"have a limit of its own (pids.max). End some, raise the limit (ulimit -u), or use fewer "
        f"workers"
    )


def _memory() -> str:
    return (
        f"there is not enough memory{_limit('AS')}. "
        f"Use fewer workers, or raise the limit (ulimit -v, or that of the container)"
    )


_WORDS: dict[int, Any] = {
    errno.EMFILE: _files,
    errno.ENFILE: _files_of_all,
    errno.EAGAIN: _processes,
    errno.ENOMEM: _memory,
}


def _limit(*names: str) -> str:
    """Return how much of some things there may be, as far as that is limited."""
    known = limits()
    told = [f"RLIMIT_{name} is {known[name]}" for name in names if name in known]
    return f" ({', '.join(told)})" if told else ""


def limits() -> dict[str, int]:
    """Return the limits of this process that a worker may be too much for."""
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
