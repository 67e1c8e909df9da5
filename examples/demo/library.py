"""Real input for a map: the files of the standard library, and one that kills who measures it.

Worker processes import this module to find `measure`.
"""

from __future__ import annotations

import ast
import multiprocessing
import os
import signal
import sys
import sysconfig
import warnings
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

try:
    symtable: Any = import_module("symtable")
except ImportError:  # PyPy has none
    symtable = None

POISON: Final = b"# The worker process that measures this file is killed by it.\n"

EXIT_CODE: Final = 9
"""What a worker ends with where there is no SIGKILL."""

NOT_ITS_OWN: Final = frozenset({"site-packages", "dist-packages", "__pycache__"})
"""Folders among those of the standard library that do not belong to it."""


class Measure(NamedTuple):
    """What there is in a file.

    Attributes:
        lines: Its lines.
        functions: Its functions; lambdas count, and so do comprehensions, except on PyPy.
        classes: Its classes.
    """

    lines: int
    functions: int
    classes: int


class Measured(NamedTuple):
    """What `measure` returns.

    Attributes:
        measure: What there is in the file.
        by: The id of the process that has looked.
    """

    measure: Measure
    by: int


def files() -> list[str]:
    """Every `.py` file of the running Python's standard library, its tests included, by name."""
    found: list[str] = []
    for folder, folders, names in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = [name for name in folders if name not in NOT_ITS_OWN]
        found += [str(Path(folder, name)) for name in names if name.endswith(".py")]
    return sorted(found)


def measure(path: str) -> Measured:
    """Parse a file and count what is in it.

    Args:
        path: Where it is. If it is the poison, the process is killed, provided that it is a worker.

    Returns:
        What was counted.

    Raises:
        SyntaxError: It is no Python; some of the standard library's tests are not, on purpose.
    """
    source: Any = Path(path).read_bytes()  # not text: the file says itself how it is encoded
    if source == POISON:
        _die()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those about old spellings in old files
        functions, classes = _count(source, path)
    return Measured(Measure(source.count(b"\n"), functions, classes), os.getpid())


def _count(source: Any, path: str) -> tuple[int, int]:
    """Count functions and classes; a table of symbols is made sooner than a tree."""
    if symtable is None:
        nodes = Counter(map(type, ast.walk(ast.parse(source, path))))
        functions = nodes[ast.FunctionDef] + nodes[ast.AsyncFunctionDef] + nodes[ast.Lambda]
        return functions, nodes[ast.ClassDef]
    tables = [symtable.symtable(source, path, "exec")]
    kinds: Counter[str] = Counter()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        kinds[table.get_type()] += 1
    return kinds["function"], kinds["class"]


def _die() -> None:
    if multiprocessing.parent_process() is None:
        raise RuntimeError("only a worker process is to die of this")
    if sys.platform == "win32":
        os._exit(EXIT_CODE)
    os.kill(os.getpid(), signal.SIGKILL)
