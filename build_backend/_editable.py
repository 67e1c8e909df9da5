"""Compiles again what was edited, when opero is imported from an editable install.

    import opero ─▶ sizes and dates as the stamp tells? ─ yes ─▶ nothing to do
                      └─ no ─▶ contents as the stamp tells? ─ yes ─▶ a new stamp
                                 └─ no ─▶ lock ─▶ look again ─▶ compile ─▶ a new stamp
                                                                  └─ cannot ─▶ ImportError

`_stamp.py` does what is done each time; this module only runs when something is to be done, in the
process of the user: it imports the standard library only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from typing import BinaryIO

from ._settings import switches
from ._stamp import COMPILED, CORE, SUFFIX, beside, read, states

_BUILD = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from build_backend import hooks
hooks.rebuild(sys.argv[1:])
"""

_TOLD = 20
"""How many lines are told of what a failed compilation says."""


def catch_up(root: str) -> None:
    """See to it that the extension modules are those of the sources.

    Args:
        root: The path of the tree.

    Raises:
        ImportError: If they are not, and cannot be made.
        SwitchError: If a switch has a value that means nothing.
    """
    if switches.is_on(switches.NO_REBUILD, os.environ):
        return
    if switches.wanted_at_import(os.environ) == "plain":
        return
    edited: list[str] = []
    try:
        edited = changed(root)
        if not edited:  # only dates are new
            try:
                stamp(root, look(root))
            except OSError:
                pass  # who may not write there has to compare each time
            return
        with open(beside(root, "lock"), "ab") as file:  # the lock ends with the file
            _lock(file)
            edited = changed(root)  # another process may have been faster
            if edited:
                before = look(root)
                _compile(root, edited, {**os.environ, switches.NO_REBUILD: "1"})
                stamp(root, before)
    except (OSError, _FailedError) as error:
        raise ImportError(
            f"the extension modules of opero for {sys.implementation.cache_tag} do not fit "
            f"{_named(edited)}, and compiling them failed: {error}\n"
            f"Run `{sys.executable} -m pip install -e {root}`, or set {switches.NO_REBUILD}=1 to "
            f"run what was compiled before, or {switches.PURE_PYTHON}=1 to run plain Python.",
            name="opero",
        ) from None


def look(root: str) -> dict[str, tuple[str, str]]:
    """Return hash and state of every file that counts, by its path in the tree.

    Files that are as the stamp tells are not read again.
    """
    known = read(root)
    found = {}
    for path, state in states(root).items():
        digest, before = known.get(path, ("", ""))
        found[path] = (digest if state == before else _digest(f"{root}/{path}"), state)
    return found


def changed(root: str) -> list[str]:
    """Return the paths of files that are not there as the stamp tells, or that it does not tell."""
    known, found = read(root), look(root)
    none = ("", "")
    return sorted(
        path
        for path in known.keys() | found.keys()
        if known.get(path, none)[0] != found.get(path, none)[0]
    )


def stamp(root: str, before: dict[str, tuple[str, str]]) -> None:
    """Write down that the extension modules that are there come from these sources.

    Args:
        root: The path of the tree.
        before: What `look` returned before they were made: an edit since then has to show.
    """
    sources = {path: file for path, file in before.items() if not path.endswith(SUFFIX)}
    modules = {path: file for path, file in look(root).items() if path.endswith(SUFFIX)}
    lines = [f"{digest} {state} {path}\n" for path, (digest, state) in (sources | modules).items()]
    staged = f"{beside(root, 'stamp')}.{os.getpid()}"
    with open(staged, "w", encoding="utf-8") as file:
        file.writelines(lines)
    os.replace(staged, beside(root, "stamp"))


def forget(root: str) -> None:
    """Remove the stamp: there are no extension modules."""
    try:
        os.unlink(beside(root, "stamp"))
    except FileNotFoundError:
        pass


class _FailedError(Exception):
    """The compilation failed; the text is what it said."""


def _digest(path: str) -> str:
    """Return the hash of a file."""
    with open(path, "rb") as file:
        return sha256(file.read()).hexdigest()


def _affected(edited: Sequence[str]) -> list[str]:
    """Name the modules to be compiled again; none means all of them."""
    names = set()
    for path in edited:
        folder, _, name = path.rpartition("/")
        if folder not in (CORE, COMPILED) or name.endswith(".pxd"):
            return []
        names.add(name.partition(".")[0])
    return sorted(names)


def _compile(root: str, edited: Sequence[str], environ: dict[str, str]) -> None:
    """Have the build backend compile what `edited` files affect, in a process of its own."""
    names = _affected(edited)
    print(
        f"opero: {_named(edited)} changed: compiling {', '.join(names) or 'all'} again",
        file=sys.stderr,
        flush=True,
    )
    run = subprocess.run(
        [sys.executable, "-c", _BUILD, root, *names],
        cwd=root,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if run.returncode:
        raise _FailedError("\n".join(run.stdout.splitlines()[-_TOLD:]) or f"exit {run.returncode}")


def _named(paths: Sequence[str]) -> str:
    """Return the first of the paths, and how many more there are."""
    return f"{paths[0]} and {len(paths) - 1} more" if len(paths) > 1 else "".join(paths) or "opero"


def _lock(file: BinaryIO) -> None:
    """Wait until no other process of this Python compiles, and keep others from it."""
    if sys.platform == "win32":
        import msvcrt
        import time

        while True:
            try:
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                return
            except OSError:  # another process has it
                time.sleep(0.1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
