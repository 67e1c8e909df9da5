"""Where a user's processes keep what they share on a machine, and which boot it counts from."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from opero.exceptions import UnsafePlaceError
from opero.logs import warn
from opero.private_places import closed_directory, user_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_SHM = Path("/dev/shm")
_said: set[str] = set()


def directory() -> Path:
    """Return the directory that this user's processes share; create it if it is missing.

    If someone else has taken its name, as anyone can in /dev/shm and /tmp, return another one, and
    log that once.

    Raises:
        UnsafePlaceError: If others can open its files.
        OSError: If there is none, and none can be created.
    """
    me = user_id()
    name = "opero" if me is None else f"opero-{me}"
    refused: list[OSError | UnsafePlaceError] = []
    for base in _bases(me):
        place = base / name
        try:
            found = closed_directory(place, "the directory of what processes share", "remove it")
        except UnsafePlaceError as error:
            with suppress(OSError):
                if place.lstat().st_uid == me:  # so it is ours to mend
                    raise
            refused.insert(0, error)
        except OSError as error:
            refused.append(error)
        else:
            if refused and isinstance(refused[0], UnsafePlaceError):
                _say(f"{refused[0]}; until then, {found} is used")
            return found
    raise refused[0]


def _bases(me: int | None) -> Iterator[Path]:
    """Name the directories in which ours may be, the best one first."""
    if _SHM.is_dir() and os.access(_SHM, os.W_OK | os.X_OK):
        yield _SHM
        home = _home(me)
        if home is not None:  # nobody else can take a name there
            yield home / ".cache" / "opero"
    import tempfile

    yield Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())


def _home(me: int | None) -> Path | None:
    """Return the user's home, the same for all of their processes whatever is in their HOME."""
    try:
        import pwd

        return Path(pwd.getpwuid(me or 0).pw_dir)
    except (ImportError, KeyError):
        return None


def _say(what: str) -> None:
    """Write a warning, once."""
    if what not in _said:
        _said.add(what)
        warn("%s", what)


if sys.platform == "win32":

    def boot() -> str:
        """Name this boot of the machine by the minute of it."""
        import ctypes

        started = time.time() - ctypes.windll.kernel32.GetTickCount64() / 1e3
        return f"{round(started / 60):x}"

else:

    def boot() -> str:
        """Name this boot of the machine, since which the monotonic clock counts."""
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:16]
        except OSError:
            return _boot_of_bsd()

    def _boot_of_bsd() -> str:
        import ctypes

        library = ctypes.CDLL(None)
        for name in (b"kern.bootsessionuuid", b"kern.boot_id"):
            text = ctypes.create_string_buffer(64)
            size = ctypes.c_size_t(64)
            if library.sysctlbyname(name, text, ctypes.byref(size), None, 0) == 0 and text.value:
                return sha256(text.value).hexdigest()[:16]
        return "0"
