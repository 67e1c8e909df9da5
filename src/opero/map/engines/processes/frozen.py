"""Programs that are frozen into one file, by PyInstaller for example.

There every process that is started runs the program from its top, and
`multiprocessing.freeze_support()` in it makes a worker of those that shall be one. Without that a
worker would run the program, and start workers of its own.
"""

from __future__ import annotations

import sys

from opero.exceptions import OperoError

_REMEDY = (
    "a frozen program must call multiprocessing.freeze_support() first, right below "
    'if __name__ == "__main__":'
)


def refuse_to_multiply() -> None:
    """Raise if this process should be a worker, and runs the frozen program instead.

    Raises:
        OperoError: If so; the message says what is missing.
    """
    if getattr(sys, "frozen", False) and _is_helper(sys.argv[1:]):
        raise OperoError(f"this process should be a worker, but runs the program again: {_REMEDY}")


def remedy() -> str:
    """Return what else to say of workers that end at once; nothing in an ordinary program."""
    return f": {_REMEDY}" if getattr(sys, "frozen", False) else ""


def _is_helper(arguments: list[str]) -> bool:
    """Return whether `multiprocessing`, or our fork server, has started this program so."""
    if arguments[:1] == ["--multiprocessing-fork"]:
        return True
    command = arguments[arguments.index("-c") + 1 :] if "-c" in arguments else []
    return bool(command) and "from multiprocessing." in command[0]
