"""Compiles again what was edited, when opero is imported from an editable install.

    import opero ─▶ sizes and dates as the stamp tells? ─ yes ─▶ nothing to do
                      └─ no ─▶ contents as the stamp tells? ─ yes ─▶ a new stamp
                                 └─ no ─▶ lock ─▶ look again ─▶ compile ─▶ a new stamp
                                                                  └─ cannot ─▶ ImportError

The stamp lies beside the extension modules of one Python, and tells the size, the dates and the
hash of each of them and of all that they are made from. `_finder.py` loads this file by its path,
in the process of the user: it imports the standard library only, and at its top what is loaded
anyway.
"""

from __future__ import annotations

import contextlib
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

SUFFIX = EXTENSION_SUFFIXES[0]
"""How the names of the extension modules of this Python end."""

CORE, COMPILED = "src/opero/core", "src/opero/_compiled"
FOR_ALL = ("setup.py", "build_backend/_compile.py")
"""What every extension module depends on, as it does on every `.pxd` file."""

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
    if {path: state for path, (_, state) in _read(root).items()} == _states(root):
        return
    switches = _load_switches(root)
    if switches.is_on(switches.NO_REBUILD, os.environ):
        return
    if switches.wanted_at_import(os.environ) == "plain":
        return
    edited: list[str] = []
    try:
        edited = changed(root)
        if not edited:  # only dates are new
            with contextlib.suppress(OSError):  # and who may not write has to compare each time
                stamp(root, look(root))
            return
        with _locked(root):
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
    known = _read(root)
    found = {}
    for path, state in _states(root).items():
        digest, before = known.get(path, ("", ""))
        found[path] = (digest if state == before else _digest(f"{root}/{path}"), state)
    return found


def changed(root: str) -> list[str]:
    """Return the paths of files that are not there as the stamp tells, or that it does not tell."""
    known, found = _read(root), look(root)
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
    staged = f"{_beside(root, 'stamp')}.{os.getpid()}"
    with open(staged, "w", encoding="utf-8") as file:
        file.writelines(lines)
    os.replace(staged, _beside(root, "stamp"))


def forget(root: str) -> None:
    """Remove the stamp: there are no extension modules."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_beside(root, "stamp"))


class _FailedError(Exception):
    """The compilation failed; the text is what it said."""


def _beside(root: str, ending: str) -> str:
    """Return the path of a file of this Python's own beside its extension modules."""
    return f"{root}/{COMPILED}/.{SUFFIX.rpartition('.')[0].strip('.') or 'python'}.{ending}"


def _read(root: str) -> dict[str, tuple[str, str]]:
    """Return what the stamp tells of each file; nothing if there is none, or none that is whole."""
    try:
        with open(_beside(root, "stamp"), encoding="utf-8") as file:
            lines = [line.rstrip("\n").split(" ", 4) for line in file]
        return {path: (digest, f"{size} {m} {c}") for digest, size, m, c, path in lines}
    except (FileNotFoundError, ValueError):
        return {}


def _states(root: str) -> dict[str, str]:
    """Return size and dates of every file that counts.

    A tool can set back when a file was modified, but hardly when it was changed: both are told.
    """
    found = {}
    for folder, endings in ((COMPILED, (SUFFIX, ".pxd", ".pyx")), (CORE, (".py",))):
        with os.scandir(f"{root}/{folder}") as entries:
            for entry in entries:
                name = entry.name
                if not name.endswith(endings) or name[0] == "." or name == "__init__.py":
                    continue
                if f"{COMPILED}/{name}x" not in found:  # else a twin in `.pyx` is compiled instead
                    found[f"{folder}/{name}"] = _state(entry.stat())
    for path in FOR_ALL:
        found[path] = _state(os.stat(f"{root}/{path}"))
    return found


def _state(stat: os.stat_result) -> str:
    """Return size and dates of a file as the stamp tells them."""
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _digest(path: str) -> str:
    """Return the hash of a file."""
    from hashlib import sha256

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
    import subprocess

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


@contextlib.contextmanager
def _locked(root: str) -> Iterator[None]:
    """Keep other processes of this Python from compiling at the same time."""
    with open(_beside(root, "lock"), "ab") as file:
        if sys.platform == "win32":
            import msvcrt
            import time

            while True:
                try:
                    file.seek(0)
                    msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                    break
                except OSError:  # somebody else has it
                    time.sleep(0.1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # the lock ends with the file


def _load_switches(root: str) -> ModuleType:
    """Import the parser of the switches from its file."""
    from importlib.machinery import SourceFileLoader

    module = type(sys)("_opero_switches")
    SourceFileLoader(module.__name__, f"{root}/src/opero/switches.py").exec_module(module)
    return module
