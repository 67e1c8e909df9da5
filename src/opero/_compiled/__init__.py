"""The same modules as in `opero.core`, compiled; empty where opero is plain Python.

Beside this file stand the C types of each module (`.pxd`) and the twins written for C (`.pyx`).
What is installed is one library with all modules. Python finds the one of the library's name, which
holds what the others need of Cython. The others are loaded here, each from the same file by its own
name ("Multiple modules in one library", https://peps.python.org/pep-0489/).
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MODULES: Final = (
    "clock",
    "gate",
    "decompose",
    "canonical",
    "keys",
    "binding",
    "attempts",
    "fallback",
    "flight",
    "events",
    "entry",
    "store",
    "bucket",
    "breaker",
    "rate_control",
    "adaptive_bucket",
    "shared_counters",
    "shared_breaker",
    "remote_breaker",
    "shared_bucket",
    "shared_adaptive_bucket",
    "chunk",
    "function",
    "state",
    "outcomes",
    "deadline",
    "retrying",
    "traced",
    "call",
)
"""The modules in the library, each behind those that it imports."""


def _load() -> None:
    """Load the modules, if there is a library that is made for this Python."""
    name = f"{__name__}.library"
    try:
        path = str(import_module(name).__file__)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return
    for module in MODULES:
        name = f"{__name__}.{module}"
        loader = ExtensionFileLoader(name, path)
        spec = spec_from_file_location(name, path, loader=loader)
        assert spec is not None
        loaded = sys.modules[name] = globals()[module] = module_from_spec(spec)
        loader.exec_module(loaded)


_load()
