"""Chooses the compiled or the plain half of opero once, and says which and why.

    core       the active half, a `Core`: decorators read its classes at decoration
    COMPILED   whether that is the compiled half
    REASON     why that half, in a sentence
    load()     either half by name; both may be loaded at the same time

One library holds all compiled modules. If it is missing, opero was built as plain Python, and runs
as such. If it exists but fails to load, or lacks a module that opero needs, the installation is
broken: opero warns, and runs as plain Python. With `OPERO_REQUIRE_COMPILED`, both are an
`ImportError`; with `OPERO_PURE_PYTHON`, opero uses plain Python without looking for the library.
"""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module

from . import switches
from .gil import FREE_THREADED
from .locks import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, Literal

    from .core import (
        adaptive_bucket,
        attempts,
        binding,
        breaker,
        bucket,
        call,
        canonical,
        chunk,
        deadline,
        decompose,
        entry,
        events,
        fallback,
        flight,
        function,
        gate,
        keys,
        rate_control,
        remote_breaker,
        retrying,
        shared_adaptive_bucket,
        shared_breaker,
        shared_bucket,
        shared_counters,
        state,
        traced,
    )
    from .core import clock as clocks
    from .core import store as stores

_CLASSES: Final = {
    "adaptive_bucket": ("AdaptiveBucket",),
    "attempts": ("Attempts", "Policy"),
    "binding": ("Binding",),
    "breaker": ("CircuitBreaker",),
    "bucket": ("TokenBucket", "WindowedBucket"),
    "call": (
        "AsyncCall",
        "AsyncFunction",
        "Call",
        "Function",
        "Method",
        "StreamFunction",
        "bypass",
    ),
    "canonical": ("Canonical",),
    "chunk": ("ChunkRunner", "ChunkSizer"),
    "clock": ("Clock",),
    "deadline": ("Deadline", "DeadlineQueue", "TimeLimit"),
    "decompose": ("Decomposer",),
    "entry": ("Entry", "EntryQueue"),
    "events": ("Events",),
    "fallback": ("Fallback",),
    "flight": ("Flight",),
    "function": ("FunctionLike", "MethodLike"),
    "gate": ("Gate",),
    "keys": ("Freezer",),
    "outcomes": (),
    "rate_control": ("RateControl",),
    "remote_breaker": ("RemoteBreaker",),
    "retrying": ("Retrying",),
    "shared_adaptive_bucket": ("SharedAdaptiveBucket",),
    "shared_breaker": ("SharedBreaker",),
    "shared_bucket": ("SharedBucket",),
    "shared_counters": ("SharedCounters",),
    "state": ("Parts", "State"),
    "store": ("InstanceStores", "MemoryStore"),
    "traced": ("TracedRetrying",),
}

MODULES: Final = tuple(_CLASSES)
"""The modules of `opero.core` that are also in `opero._compiled`; `setup.py` has the same list."""

BUILT_PLAIN: Final = "opero was built as plain Python"
"""Why the compiled half is missing if it was never built; `opero.build_record` may know more."""

_PACKAGES: Final = {"plain": "opero.core", "compiled": "opero._compiled"}
_LIBRARY: Final = "opero._compiled.library"


class Core:
    """One half of opero: its classes, and the one clock that they share.

    Attributes:
        name: "plain" or "compiled".
        clock: The clock of this half; tests move it.
    """

    name: Literal["plain", "compiled"]
    clock: clocks.Clock
    AdaptiveBucket: type[adaptive_bucket.AdaptiveBucket]
    Attempts: type[attempts.Attempts]
    Policy: type[attempts.Policy]
    Binding: type[binding.Binding]
    CircuitBreaker: type[breaker.CircuitBreaker]
    TokenBucket: type[bucket.TokenBucket]
    WindowedBucket: type[bucket.WindowedBucket]
    AsyncCall: type[call.AsyncCall]
    AsyncFunction: type[call.AsyncFunction]
    Call: type[call.Call]
    Function: type[call.Function]
    Method: type[call.Method]
    StreamFunction: type[call.StreamFunction]
    bypass: Callable[[bool], None]
    FunctionLike: type[function.FunctionLike]
    MethodLike: type[function.MethodLike]
    Parts: type[state.Parts]
    State: type[state.State]
    Canonical: type[canonical.Canonical]
    ChunkRunner: type[chunk.ChunkRunner]
    ChunkSizer: type[chunk.ChunkSizer]
    Clock: type[clocks.Clock]
    Deadline: type[deadline.Deadline]
    DeadlineQueue: type[deadline.DeadlineQueue]
    TimeLimit: type[deadline.TimeLimit]
    Entry: type[entry.Entry]
    EntryQueue: type[entry.EntryQueue]
    Fallback: type[fallback.Fallback]
    Flight: type[flight.Flight]
    Events: type[events.Events]
    Gate: type[gate.Gate]
    Freezer: type[keys.Freezer]
    Decomposer: type[decompose.Decomposer]
    InstanceStores: type[stores.InstanceStores]
    RateControl: type[rate_control.RateControl]
    Retrying: type[retrying.Retrying]
    SharedAdaptiveBucket: type[shared_adaptive_bucket.SharedAdaptiveBucket]
    RemoteBreaker: type[remote_breaker.RemoteBreaker]
    SharedBreaker: type[shared_breaker.SharedBreaker]
    SharedBucket: type[shared_bucket.SharedBucket]
    MemoryStore: type[stores.MemoryStore]
    SharedCounters: type[shared_counters.SharedCounters]
    TracedRetrying: type[traced.TracedRetrying]

    def __init__(self, name: Literal["plain", "compiled"], classes: dict[str, Any]) -> None:
        """Collect the classes of the half called `name`."""
        self.name = name
        self.clock = classes["Clock"]()
        vars(self).update(classes)

    def new_lock(self) -> Lock | None:
        """Return a mutex for one object's methods, or None if they are atomic without one.

        The interpreter's lock covers a whole method in C, but not a method in Python.
        """
        if self.name == "compiled" and not FREE_THREADED:
            return None
        return Lock()  # reentrant: a finalizer may call in at any point


class MissingLibraryError(ImportError):
    """The library of compiled modules is not installed."""


_loaded: dict[str, Core] = {}


def load(name: Literal["plain", "compiled"]) -> Core:
    """Import one half of opero, active or not.

    Args:
        name: "plain" or "compiled".

    Returns:
        The half; the same object each time.

    Raises:
        MissingLibraryError: If the compiled half is not installed.
        ImportError: If it is installed but fails to load, or belongs to another version of opero.
        ValueError: If no half has that name.
    """
    if name in _loaded:
        return _loaded[name]
    if name not in _PACKAGES:
        raise ValueError(f"no implementation is called {name!r}: use 'plain' or 'compiled'")
    if name == "compiled":
        _find_library()
    classes: dict[str, Any] = {}
    modules = []
    for module, members in _CLASSES.items():
        full_name = f"{_PACKAGES[name]}.{module}"
        loaded = import_module(full_name)
        modules.append(loaded)
        for member in members:
            try:
                classes[member] = getattr(loaded, member)
            except AttributeError:
                raise ImportError(
                    f"{full_name} has no {member}, so it belongs to another version of opero: "
                    f"install opero again",
                    name=full_name,
                    path=loaded.__file__,
                ) from None
    if name == "compiled":
        _seal(modules)
    return _loaded.setdefault(name, Core(name, classes))


def loaded() -> list[Core]:
    """Return the loaded halves: one, unless `load` loaded the other."""
    return list(_loaded.values())


def _find_library() -> None:
    """Raise if the library of compiled modules is not installed for this Python."""
    try:
        import_module(_LIBRARY)
    except ModuleNotFoundError as error:
        if error.name != _LIBRARY:
            raise
        raise MissingLibraryError(_why_missing()) from None


def _seal(modules: list[Any]) -> None:
    """Block `__new__` of extension types: objects created without `__init__` would crash."""
    without_new = import_module(f"{_PACKAGES['compiled']}.call").without_new
    for module in modules:
        for kind in list(vars(module).values()):
            if (
                isinstance(kind, type)
                and kind.__module__ == module.__name__
                and type(vars(kind).get("__new__")) is type(len)  # one written in C
            ):
                without_new(kind)


def _choose() -> tuple[Core, str]:
    """Return the half to use, and why."""
    wanted = switches.wanted_at_import(os.environ)
    if wanted == "plain":
        return load("plain"), f"{switches.PURE_PYTHON}={os.environ[switches.PURE_PYTHON]} is set."
    try:
        return load("compiled"), f"All {len(MODULES)} compiled modules are installed and load."
    except MissingLibraryError as error:
        reason = f"{error}."
        if wanted == "auto":
            return load("plain"), reason
        cause: Exception = error
    except Exception as error:  # noqa: BLE001 - we report any error
        if wanted == "auto" and "subinterpreter" in str(error):  # users cannot fix that
            return load("plain"), "Compiled modules load in the main interpreter only."
        reason = f"A compiled module fails to load, {type(error).__name__}: {error}."
        cause = error
    if wanted == "compiled":
        raise ImportError(
            f"{switches.REQUIRE_COMPILED} is on. {reason} Unset it to run plain Python; "
            "`python -m opero doctor` then says more."
        ) from cause
    warnings.warn(f"opero runs as plain Python. {reason}", RuntimeWarning, stacklevel=2)
    return load("plain"), reason


def _why_missing() -> str:
    """Say why there is no library: the installed one may be for another Python."""
    package = import_module(_PACKAGES["compiled"])
    files = sorted(
        name
        for folder in package.__path__
        if os.path.isdir(folder)  # noqa: PTH112 - a plain import should not pay for pathlib
        for name in os.listdir(folder)  # noqa: PTH208
        if name.endswith((".so", ".pyd"))
    )
    if not files:
        return BUILT_PLAIN
    here, there = sys.implementation.cache_tag, ", ".join(files)
    return f"opero was compiled for another Python: this is {here}, not {there}"


core: Core
core, REASON = _choose()
"""The active half, and why it is that one."""

COMPILED: Final = core.name == "compiled"
"""Whether the active half is the compiled one."""
