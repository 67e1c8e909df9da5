"""Functions that set a worker up, and such as use what they have made."""

from __future__ import annotations

import contextvars
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

log = logging.getLogger("jobs.set_up")
made: list[Any] = []
local = threading.local()
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


def note(path: str, name: str = "set up") -> None:
    """Note the process that was set up."""
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()} ")
    made.append(name)


def names(_: Any) -> list[Any]:
    return made.copy()


async def names_later(_: Any) -> list[Any]:
    return made.copy()


def set_local(path: str) -> None:
    note(path)
    local.value = threading.get_ident()
    variable.set("set")


def uses_local(value: int) -> int:
    assert local.value == threading.get_ident()
    assert variable.get() == "set"
    time.sleep(0.01)
    return value


def settings() -> None:
    logging.getLogger("jobs").setLevel(logging.DEBUG)
    os.environ["OPERO_SET_UP"] = "yes"
    sys.setrecursionlimit(2345)
    sys.path.insert(0, "/nowhere/set up")
    variable.set("set")


def uses_settings(_: Any) -> Any:
    level = logging.getLogger("jobs").level
    here = os.environ.get("OPERO_SET_UP"), os.environ.get("OPERO_LATER")
    here += tuple(each for each in sys.path if each.startswith("/nowhere"))
    return (*here, sys.getrecursionlimit(), level, variable.get("not set"))


def fails() -> None:
    log.warning("about to fail")
    raise LookupError("no model")


def exits() -> None:
    sys.exit(3)


def ends(path: str) -> None:
    note(path)
    os._exit(7)


def kills() -> None:
    os.kill(os.getpid(), 9)


def hangs() -> None:
    time.sleep(1000)
