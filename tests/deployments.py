"""A program that runs a cached and limited function in the surroundings of a container or a service.

Where it is root it becomes another user first, as no mode and no owner counts for root. It prints a
line of JSON for each case: by its name what was run, logged and raised.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

USER = 54_321
"""One that no list of users has."""
SECRET = "a secret of 24 bytes ..."

Setting = Callable[[Path], dict[str, Any] | None]


def everything_in_order(home: Path) -> None:
    os.environ["HOME"] = str(home)


def no_home(home: Path) -> None:
    os.environ.pop("HOME", None)


def home_is_the_root(home: Path) -> None:
    os.environ["HOME"] = "/"


def home_is_the_root_and_there_is_a_secret(home: Path) -> dict[str, Any]:
    os.environ["HOME"] = "/"
    return {"cache_secret": SECRET}


def home_is_empty(home: Path) -> None:
    os.environ["HOME"] = ""


def home_of_root(home: Path) -> None:
    os.environ["HOME"] = "/root"


def read_only_home(home: Path) -> None:
    os.environ["HOME"] = str(home)
    home.chmod(0o555)


def home_without_any_rights(home: Path) -> None:
    os.environ["HOME"] = str(home)
    home.chmod(0)


def directories_that_are_no_paths(home: Path) -> None:
    os.environ["HOME"] = str(home)
    os.environ["XDG_CACHE_HOME"] = os.environ["XDG_CONFIG_HOME"] = os.devnull


def directories_with_a_long_name(home: Path) -> None:
    os.environ["HOME"] = str(home)
    os.environ["XDG_CACHE_HOME"] = os.environ["XDG_CONFIG_HOME"] = str(home / ("x" * 300))


def directories_of_root(home: Path) -> None:
    os.environ["HOME"] = str(home)
    os.environ["XDG_CACHE_HOME"], os.environ["XDG_CONFIG_HOME"] = "/var/cache", "/etc"


def relative_directories(home: Path) -> None:
    os.environ["HOME"] = str(home)
    os.chdir(home)
    os.environ["XDG_CACHE_HOME"] = os.environ["XDG_CONFIG_HOME"] = "relative"


def working_directory_is_gone(home: Path) -> dict[str, Any]:
    gone = home / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    return {"cache_dir": "relative", "cache_secret": SECRET}


def masked(mask: int) -> Setting:
    def set_up(home: Path) -> None:
        os.environ["HOME"] = str(home)
        os.umask(mask)

    set_up.__name__ = f"umask_{mask:o}"
    return set_up


def parent_directories_are_deleted(home: Path) -> None:
    os.environ["HOME"] = str(home)
    os.umask(0o022)


OFF = (
    no_home,
    home_is_the_root,
    home_is_the_root_and_there_is_a_secret,
    home_is_empty,
    home_of_root,
    read_only_home,
    home_without_any_rights,
    directories_that_are_no_paths,
    directories_with_a_long_name,
    directories_of_root,
    working_directory_is_gone,
)
"""Where the cache is off."""
ON = (
    everything_in_order,
    relative_directories,
    parent_directories_are_deleted,
    *map(masked, (0o777, 0o000, 0o277, 0o477, 0o177, 0o027)),
)
"""Where it works."""


def attempt(setting: Setting, home: Path) -> dict[str, Any]:
    """Return what comes of a program in some surroundings."""
    from opero import Breaker, RateLimiter, opero

    told: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("opero").addHandler(handler)
    options = setting(home) or {}
    runs: list[int] = []
    name = f"test-{uuid4().hex}"

    @opero(
        cache=True,
        cache_backend="disk",
        cache_namespace="deployments",
        cache_key=lambda number: number,  # the runs that it counts are none of its arguments
        rate_limit=RateLimiter(1000, scope="machine", name=name),
        breaker=Breaker(name, scope="machine"),
        retries=1,
        **options,
    )
    def double(number: int) -> int:
        runs.append(number)
        return 2 * number

    values = [double(1), double(1), double(2)]
    modes = []
    if setting is parent_directories_are_deleted:
        shutil.rmtree(home / ".cache")
        values += [double(1), double(1)]
        parts = (".cache", ".cache/opero", ".cache/opero/opero-entries")
        modes = [f"{(home / part).stat().st_mode & 0o7777:o}" for part in parts]
    return {"values": values, "runs": runs, "told": told, "modes": modes}


def main() -> None:
    """Go through the cases, each in a process of its own."""
    import opero.stores.off  # noqa: F401 - what is needed only where the cache is off
    from opero.limits import shared_place

    shared_place._SHM = Path(sys.argv[1]) / "shm"
    shared_place._SHM.mkdir()
    shared_place._SHM.chmod(0o1777)
    warm = Path(tempfile.mkdtemp())
    os.environ.update(XDG_CACHE_HOME=str(warm), XDG_CONFIG_HOME=str(warm))
    attempt(lambda home: None, warm)  # all imports are made by somebody who may
    shutil.rmtree(warm)
    for variable in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "OPERO_CACHE_SECRET"):
        os.environ.pop(variable, None)
    os.environ["PATH"] = os.defpath
    for case in (*OFF, *ON):
        home = Path(tempfile.mkdtemp(dir=sys.argv[1]))
        child = os.fork()
        if child == 0:
            try:
                if os.geteuid() == 0:
                    os.chown(home, USER, USER)
                    os.setgroups([])
                    os.setgid(USER)
                    os.setuid(USER)
                found: dict[str, Any] = attempt(case, home)
            except BaseException as error:  # noqa: BLE001 - the test says what should not be raised
                found = {"raised": repr(error)}
            print(json.dumps({case.__name__: found}), flush=True)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
