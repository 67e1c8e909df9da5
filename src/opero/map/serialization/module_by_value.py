"""Modules by value: a worker receives a module that it cannot import as the program has it.

What cannot travel, such as a connection that the module opens at its top, stays out. Only code that
uses it raises an error, which says why it is missing.
"""

from __future__ import annotations

import io
from functools import partial
from types import ModuleType
from typing import Any

from opero.exceptions import describe

from . import arrivals

_OF_IMPORTS = {"__builtins__", "__cached__", "__loader__", "__spec__"}
_PLAIN = {bool, bytes, complex, float, int, str, type(None)}


def reduced(pickler: Any, module: ModuleType) -> Any:
    """Return the reduced form of a module.

    Args:
        pickler: The `by_value.Pickler` that pickles it.
        module: The module.
    """
    contents: dict[str, Any] = {}
    lost: dict[str, str] = {}
    if not pickler.trial:
        for name, value in list(vars(module).items()):
            if name in _OF_IMPORTS:
                continue
            try:
                if type(value) not in _PLAIN:
                    _try(pickler, value)
                contents[name] = value
            except Exception as error:  # noqa: BLE001 - a user's __reduce__ may raise anything
                lost[name] = describe(error)
    made = arrivals.token_of(module), module.__name__
    return pickler.wrap(module, _made, made, _fill, (contents, lost))


def _try(pickler: Any, value: Any) -> None:
    """Raise what pickling a value raises, without other modules and large buffers."""
    with io.BytesIO() as file:
        trial = type(pickler)(file, 5, lambda _: False, fresh=True, apart=pickler.apart)
        trial.trial = True
        trial.dump(value)


def _made(token: str | None, name: str) -> ModuleType:
    """Make an empty module, whose namespace is the globals of its functions."""
    namespace = arrivals.namespace(token, {"__name__": name})
    return arrivals.module_of(namespace) or ModuleType(name)


def _fill(module: ModuleType, given: tuple[dict[str, Any], dict[str, str]]) -> None:
    contents, lost = given
    own = vars(module)
    for name, value in contents.items():
        if own.get(name) is None:
            own[name] = value
    if lost and "__getattr__" not in own:
        own["__getattr__"] = partial(_miss, module.__name__, lost)


def _miss(module: str, lost: dict[str, str], name: str) -> Any:
    """Raise the error that explains a missing attribute."""
    if name not in lost:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    raise AttributeError(
        f"{module}.{name} was not sent to the worker ({lost[name]}): no worker can import "
        f"{module} as the program has it, because its file has changed or it has none. Reload it "
        f"in the program, or create {name} in the function"
    )
