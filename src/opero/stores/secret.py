"""The secret that signs entries: given, in the environment, or in the user's key file.

    cache_secret=          a str or bytes, or a list of them
    OPERO_CACHE_SECRET     one or more, with white space between them
    cache.key              32 random bytes in the user's settings directory, made when first needed

If there are several secrets, the first one signs and all are accepted. To change a secret, put the
new one before the old one, and remove the old one once you no longer need its entries.

The key file is written under another name and then linked to its own. So nobody reads it half
written, and if several processes make it at the same time, one wins and all read the same file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from opero.exceptions import UnsafePlaceError
from opero.private_places import SAFELY, UnusablePlaceError, private_directory, user_id

from .directories import user_config_directory

VARIABLE = "OPERO_CACHE_SECRET"
"""The environment variable that holds secrets."""

_LEAST = 16
_SIZE = 32
_NAME = "cache.key"
_DRAFT = ".cache.key."
_MEND = (
    "remove it to get a new one (entries signed with the old one are lost), or give the secret "
    f"with cache_secret= or {VARIABLE}"
)
_READ = os.O_RDONLY | SAFELY
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFELY


def secrets_of(
    given: str | bytes | Sequence[str | bytes] | None, environ: Mapping[str, str]
) -> list[bytes]:
    """Return the secrets for the entries of a cache; no error message shows one.

    Args:
        given: What the user has given, at least 16 bytes each; None for the environment variable or
            the key file.
        environ: The environment.

    Returns:
        The secrets; the first one signs.

    Raises:
        TypeError: If what the user gave is not a str, bytes, or a list or tuple of them.
        ValueError: If a secret is too short, or the user gave none.
        UnsafePlaceError: If others could have read or written the key file.
        UnusablePlaceError: If the key file does not exist and cannot be made, or is something else.
        ImportError: If the key file is needed and platformdirs is not installed.
    """
    if given is not None:
        return _checked("cache_secret=", given if isinstance(given, (list, tuple)) else [given])
    if VARIABLE in environ:
        return _checked(VARIABLE, environ[VARIABLE].split())
    return [read_key_file(user_config_directory())]


def read_key_file(directory: Path) -> bytes:
    """Return the content of the key file; make the file if it does not exist.

    Args:
        directory: Its directory; made if it does not exist.

    Raises:
        UnsafePlaceError: If others could have read or written it.
        UnusablePlaceError: If it cannot be made or read, or is something else.
    """
    mend = f"fix that, or give the secret with cache_secret= or {VARIABLE}"
    path = directory / _NAME
    try:
        path = private_directory(directory, "the directory of the key file", mend) / _NAME
        try:
            descriptor = os.open(path, _READ)
        except FileNotFoundError:
            _make(path)
            descriptor = os.open(path, _READ)
    except UnusablePlaceError:
        raise
    except OSError as error:
        why = error.strerror or type(error).__name__
        if error.errno in {errno.ELOOP, errno.EMLINK}:
            why = "it is a symbolic link"
        raise UnusablePlaceError(f"the key file {path} cannot be used: {why}; {mend}") from error
    try:
        return _read(descriptor, path)
    finally:
        os.close(descriptor)


def _checked(source: str, secrets: Sequence[object]) -> list[bytes]:
    if not secrets:
        raise ValueError(f"{source} is empty: use a secret of at least {_LEAST} bytes")
    found = []
    for at, secret in enumerate(secrets, 1):
        which = source if len(secrets) == 1 else f"{source} number {at}"
        if source == VARIABLE and len(secrets) > 1:
            which = f"{VARIABLE} holds {len(secrets)} secrets, separated by spaces; number {at}"
        if not isinstance(secret, (str, bytes)):
            raise TypeError(
                f"{which} is of type {type(secret).__name__}: use a str or bytes, or a list of them"
            )
        data = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
        if len(data) < _LEAST:
            raise ValueError(
                f"{which} is too short: use at least {_LEAST} random bytes; "
                f'python -c "import secrets; print(secrets.token_hex())" makes one'
            )
        found.append(bytes(data))
    return found


def _make(path: Path) -> None:
    """Make the key file, unless another process is faster."""
    draft = path.with_name(_DRAFT + os.urandom(8).hex())
    descriptor = os.open(draft, _WRITE, 0o600)
    try:
        try:
            if hasattr(os, "fchmod"):
                os.fchmod(descriptor, 0o600)  # whatever the umask is
            if os.write(descriptor, os.urandom(_SIZE)) != _SIZE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
    finally:
        draft.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read(descriptor: int, path: Path) -> bytes:
    """Read the key file, if this user's processes made it."""
    found = os.fstat(descriptor)
    me = user_id()
    if me is not None:
        if found.st_uid != me:
            _refuse(path, f"it belongs to user {found.st_uid}, not to user {me}")
        if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            mode = stat.S_IMODE(found.st_mode)
            _refuse(path, f"others may have read or changed it (mode {mode:04o})")
        if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
            _tidy(found, path.parent)
            if os.fstat(descriptor).st_nlink > 1:
                _refuse(path, "it has another name (a hard link)")
    if not stat.S_ISREG(found.st_mode):
        _give_up(path, "it is not a regular file")
    data = os.read(descriptor, _SIZE + 1)
    if len(data) != _SIZE:
        _give_up(path, f"it does not hold the {_SIZE} bytes of a key")
    return data


def _tidy(key: os.stat_result, directory: Path) -> None:
    """Remove the draft's name: the process that made the key file has not yet, or has died."""
    for draft in directory.glob(_DRAFT + "*"):
        try:
            if os.path.samestat(draft.lstat(), key):
                draft.unlink(missing_ok=True)
        except FileNotFoundError:
            continue


def _refuse(path: Path, why: str) -> NoReturn:
    raise UnsafePlaceError(f"the key file {path} is not safe: {why}; {_MEND}")


def _give_up(path: Path, why: str) -> NoReturn:
    raise UnusablePlaceError(f"the key file {path} cannot be used: {why}; {_MEND}")
