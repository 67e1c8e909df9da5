"""The directories of caches and of their key file: nobody else can write to them."""

from __future__ import annotations

import os
from pathlib import Path

from opero.private_places import UnusablePlaceError, closed_directory, private_directory

ENTRIES = "opero-entries"
"""The directory inside a cache directory that holds the entries."""


def cache_dir(given: str | os.PathLike[str] | None) -> Path:
    """Return the private directory for the entries of a cache; make it if it does not exist.

    Args:
        given: The directory that the user has chosen; made if it does not exist. None for the
            user's cache directory.

    Returns:
        A directory inside it that only this user can open, without symbolic links.

    Raises:
        UnsafePlaceError: If somebody else owns the directory or could write to it.
        UnusablePlaceError: If there cannot be such a directory, or the user has no home directory.
        OSError: If it cannot be made or checked.
        ImportError: If platformdirs is not installed.
        TypeError: If `given` is not a path.
        ValueError: If `given` is an empty path.
    """
    entries = entries_of(given)
    mend = "fix that, or choose another cache_dir="
    place = private_directory(entries.parent, "the cache directory", mend) / ENTRIES
    return closed_directory(place, "the cache directory", f"remove it, or: chmod 700 {place}")


def entries_of(given: str | os.PathLike[str] | None) -> Path:
    """Return where `cache_dir` would put the entries of a cache, without checking it.

    Args:
        given: The directory that the user has chosen; None for the user's cache directory.

    Raises:
        UnusablePlaceError: If there is no home directory.
        ImportError: If platformdirs is not installed.
        TypeError: If `given` is not a path.
        ValueError: If `given` is an empty path.
    """
    if given is None:
        return user_cache_directory() / ENTRIES
    text = os.fspath(given) if isinstance(given, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise TypeError(f"cache_dir={given!r} is not allowed: use a path")
    if not text or "\0" in text:
        raise ValueError(f"cache_dir={given!r} is not allowed: use a path")
    try:
        return Path(text).expanduser() / ENTRIES
    except RecursionError:  # a RuntimeError too
        raise
    except RuntimeError as error:
        raise UnusablePlaceError(
            f"cache_dir={given!r} is in a home directory that does not exist; choose another "
            f"cache_dir="
        ) from error


def user_cache_directory() -> Path:
    """Return the system's directory for the user's caches.

    Raises:
        UnusablePlaceError: If the user has no home directory.
        ImportError: If platformdirs is not installed.
    """
    return _at_home("user_cache_path", "cache_dir= and cache_secret=")


def user_config_directory() -> Path:
    """Return the system's directory for the user's settings.

    Raises:
        UnusablePlaceError: If the user has no home directory.
        ImportError: If platformdirs is not installed.
    """
    return _at_home("user_config_path", "cache_secret=")


def _at_home(which: str, instead: str) -> Path:
    """Return the directory that platformdirs finds, if the user has a home directory.

    Args:
        which: The name of a function of platformdirs.
        instead: The options that need no home directory.
    """
    try:
        import platformdirs
    except ImportError as error:
        raise ImportError(
            "caches on disk and in Redis need the platformdirs package: "
            "pip install 'platformdirs>=4.0'",
            name="platformdirs",
        ) from error
    try:
        path: Path = getattr(platformdirs, which)("opero", appauthor=False)
        if path.parts[0].startswith("~"):  # as older versions return without a home directory
            raise RuntimeError
    except RecursionError:  # a RuntimeError too
        raise
    except RuntimeError as error:
        raise UnusablePlaceError(
            f"there is no home directory; set HOME, or give {instead}"
        ) from error
    return path
