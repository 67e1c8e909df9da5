"""What a fresh interpreter receives before it becomes a worker.

That does not include the script that runs as `__main__`. opero sends the functions of `__main__`,
so a script needs no `if __name__ == "__main__"`, and its top does not run again.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing import spawn
from multiprocessing.process import AuthenticationString  # type: ignore[attr-defined]
from types import FunctionType, SimpleNamespace
from typing import Any


def function_with(function: Any, **names: Any) -> Any:
    """Return a copy of a function in which some global names have other values."""
    return FunctionType(
        function.__code__, {**function.__globals__, **names}, function.__name__,
        function.__defaults__, function.__closure__,
    )  # fmt: skip


def _folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - as in the function that this is for
    except OSError:
        return os.sep  # ours has been removed; each map tells the worker the same


def _start_method(**_: Any) -> str | None:
    """Return the start method that the program has chosen, without choosing one for it."""
    return multiprocessing.get_start_method(allow_none=True)


_prepared = function_with(
    spawn.get_preparation_data,
    os=SimpleNamespace(**{**vars(os), "getcwd": _folder}),
    get_start_method=_start_method,
)


def preparation(name: str) -> dict[str, Any]:
    """Return the preparation data for a process of this name."""
    vars(sys.modules["__main__"]).setdefault("__spec__", None)  # a notebook's %reset takes it away
    data: dict[str, Any] = _prepared(name)
    data.pop("init_main_from_name", None)
    data.pop("init_main_from_path", None)
    data["authkey"] = _key(data["authkey"])
    return data


def with_key(process: Any) -> Any:
    """Return a process whose key can be pickled, whatever library started this process.

    Celery's processes use their own class of keys, which no other library can pickle.
    """
    if "authkey" in process._config:
        process._config["authkey"] = _key(process._config["authkey"])
    return process


def _key(key: Any) -> Any:
    return AuthenticationString(bytes(key))
