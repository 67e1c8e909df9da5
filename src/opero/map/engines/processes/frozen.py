"""Programs that are frozen into one file, by PyInstaller for example.

Every process that such a program starts runs the program from its top. There
`multiprocessing.freeze_support()` turns the process into a worker if it should be one. Without
that call a worker would run the program and start more workers.
"""

from __future__ import annotations

import sys

from opero.exceptions import OperoError

_REMEDY = (
    "a frozen program must call multiprocessing.freeze_support() first, right below "
    'if __name__ == "__main__":'
)


def refuse_to_multiply() -> None:
    """Raise if this process should be a worker but runs the frozen program instead.

    Raises:
        OperoError: If so; the message says which call is missing.
    """
    if getattr(sys, "frozen", False) and _is_helper(sys.argv[1:]):
        raise OperoError(f"this process should be a worker, but runs the program again: {_REMEDY}")


def remedy() -> str:
    """Return a hint for workers that end immediately; "" in an ordinary program."""
    return f": {_REMEDY}" if getattr(sys, "frozen", False) else ""


def _is_helper(arguments: list[str]) -> bool:
    """Return whether `multiprocessing` or opero's fork server started this program."""
    if arguments[:1] == ["--multiprocessing-fork"]:
        return True
    command = arguments[arguments.index("-c") + 1 :] if "-c" in arguments else []
    return bool(command) and "from multiprocessing." in command[0]
