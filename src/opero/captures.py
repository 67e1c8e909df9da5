"""What identifies a function in stored keys: its name, its captured values, and maybe its code.

A function at the top level of a file's module or class is identified by module and qualified name.
Functions inside functions, lambdas and generated functions may share a name, so their code counts
too. Captured values always count like arguments: the variables of enclosing functions, what a
partial or a method is bound to, the called instance, and the global variables that a generated
function was given.

    function -> Captures.read -> Code      of the function that a user decorates
    value -> code_inside -> Code           of one that is captured: its defaults count as well

Captured values are read whenever a key is made, so a variable that changes later changes the keys.
"""

from __future__ import annotations

import functools
import os
import sys
import types
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Named = list[tuple[str, Any]]
    """Values by their names in messages, always in the same order."""

_MAIN = ("__main__", "__mp_main__")


class Code:
    """What identifies a function.

    Attributes:
        function: The plain function, to detect a function that captured itself.
        module: Its module, the same name however the program is run.
        name: Its qualified name.
        code: Its code if the name is ambiguous, else None.
        bound: What a partial or a method binds it to.
        captured: The variables that it captured.
    """

    __slots__ = ("bound", "captured", "code", "function", "module", "name")

    def __init__(
        self,
        function: Any,
        bound: Named,
        place: tuple[str, str] = ("", ""),
        code: CodeType | None = None,
        captured: Named | None = None,
    ) -> None:
        self.function: Any = function
        self.module: str = place[0]
        self.name: str = place[1]
        self.code: CodeType | None = code
        self.bound: Named = bound
        self.captured: Named = captured or []


class Captures:
    """What a decorated function depends on besides the arguments of its calls."""

    __slots__ = ("_fixed", "_function")

    def __init__(self, function: Any) -> None:
        """Store a function.

        Args:
            function: What the user decorates: a function, partial, bound method or callable
                instance.
        """
        self._function = function
        self._fixed: Code | None = None
        found = self.read()
        inner = found.function
        if type(inner) is not FunctionType or not (inner.__closure__ or _is_generated(inner)):
            self._fixed = found

    def read(self) -> Code:
        """Return what identifies the function at this moment."""
        if self._fixed is not None:
            return self._fixed
        inner, bound = _unbound(self._function)
        if not isinstance(inner, type) and not hasattr(inner, "__qualname__"):
            bound.append(("self", inner))  # a callable instance
            inner, more = _unbound(type(inner).__call__)
            bound += more
        if type(inner) is not FunctionType:
            return Code(inner, bound)
        place = _place_of(inner)
        # In a notebook, the place already contains a digest of the source.
        counts = "<" in inner.__qualname__ or (place is not None and _is_generated(inner))
        captured = _variables(inner, place)
        if hasattr(inner, "__wrapped__") or hasattr(inner, "__signature__"):
            captured += _defaults(inner)  # calls are bound to the parameters of another one
        return Code(inner, bound, ("", ""), inner.__code__ if counts else None, captured)


def code_inside(value: Any) -> Code | None:
    """Return what identifies a captured function or module.

    Args:
        value: The value.

    Returns:
        What identifies it; None if it is neither, or cannot be identified.
    """
    if type(value) is ModuleType:
        place = place_of(value.__name__)
        known = place is not None and sys.modules.get(value.__name__) is value
        return Code(value, [], (str(place), "")) if known else None
    inner, bound = _unbound(value)
    name = getattr(inner, "__qualname__", None) or getattr(inner, "__name__", None)
    if not isinstance(name, str) or not callable(inner):
        return None
    place = _place_of(inner)
    known = place is not None and any(
        is_found(each, _module_of(inner), name) for each in (value, inner)
    )
    if known or type(inner) is not FunctionType:
        return Code(inner, bound, (str(place), name)) if known else None
    counts = place is None or "<" in name or _is_generated(inner)
    captured = _variables(inner, place) + _defaults(inner)
    return Code(inner, bound, (place or "", name), inner.__code__ if counts else None, captured)


def place_of(module: str) -> str | None:
    """Return the name of a module, the same however the program is run.

    Args:
        module: Its `__name__`.

    Returns:
        The name itself; for `__main__` the name after `-m`, else the script's resolved path, or
        None if there is no script.
    """
    if module not in _MAIN:
        return module
    main = sys.modules.get(module)
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if isinstance(name, str) and name not in _MAIN:
        return name
    path = getattr(main, "__file__", None)
    if isinstance(path, str) and not path.startswith("<"):
        return os.path.realpath(path)
    return None


def is_found(value: Any, module: str, name: str) -> bool:
    """Return whether a value is what its name in its module refers to.

    Args:
        value: The value.
        module: The module's name.
        name: The value's qualified name.
    """
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None and module == "builtins":
        found = getattr(types, name, None)  # as the class of None
    # A class method written in C is a new object at each look-up.
    return found is value or (type(value) is BuiltinFunctionType and bool(found == value))


def _place_of(function: Any) -> str | None:
    """Return the name of a function's module; None if it is unknown."""
    module = _module_of(function)
    return place_of(module) if module else None


def _module_of(function: Any) -> str:
    """Return the name of a function's module, or of its class for a method written in C."""
    module = getattr(function, "__module__", None)
    if module is None:
        kind = getattr(function, "__objclass__", getattr(function, "__self__", None))
        module = getattr(kind, "__module__", None)
    return module if isinstance(module, str) else ""


def _unbound(function: Any) -> tuple[Any, Named]:
    """Return the function inside a callable, and what the callable binds it to.

    opero's decorators and `lru_cache` bind it to nothing.
    """
    bound: Named = []
    while True:
        if isinstance(function, functools.partial):
            bound += [(f"argument {at}", each) for at, each in enumerate(function.args, 1)]
            bound += sorted(function.keywords.items())
            function = function.func
        elif type(function) is functools._lru_cache_wrapper:
            function = function.__wrapped__
        elif isinstance(function, MethodType):
            bound.append(("self", function.__self__))
            function = function.__func__
        elif type(function) is not FunctionType and hasattr(function, "__opero__"):
            function = function.__opero__.func
        else:
            break
    instance = getattr(function, "__self__", None)
    if isinstance(function, BuiltinFunctionType) and not isinstance(instance, ModuleType | None):
        bound.append(("self", instance))
        if not isinstance(instance, type):
            function = getattr(type(instance), function.__name__, function)
    return function, bound


def _is_generated(function: FunctionType) -> bool:
    """Return whether a program generated a function: from text, or with its own global variables.

    A module that cannot be found under its name has its file among its variables.
    """
    name = function.__code__.co_filename
    if name.startswith("<") and name.endswith(">"):
        return True
    given = function.__globals__
    return "__file__" not in given and not _is_of_module(given)


def _is_of_module(given: dict[str, Any]) -> bool:
    """Return whether global variables are those of the module that they name."""
    module = sys.modules.get(str(given.get("__name__")))
    return module is not None and vars(module) is given


def _variables(function: FunctionType, place: str | None) -> Named:
    """Return the variables of enclosing functions, and the globals given to a generated function.

    Args:
        function: The function.
        place: The name of its module. In a notebook all functions are generated, and share globals.
    """
    code = function.__code__
    found: Named = []
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if name == "__class__" and "<locals>" not in function.__qualname__:
            continue  # a method of a module's class that uses super()
        try:
            found.append((name, cell.cell_contents))
        except ValueError:  # it has no value yet
            continue
    given = function.__globals__
    if place is not None and _is_generated(function) and not _is_of_module(given):
        names = _names_in(code) & given.keys() - {"__builtins__"}
        found += [(name, given[name]) for name in names]
    return sorted(found, key=_first)


def _first(pair: tuple[str, Any]) -> str:
    return pair[0]


def _names_in(code: CodeType) -> set[str]:
    """Return the names of attributes and global variables in some code and its nested code."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if type(constant) is CodeType:
            found |= _names_in(constant)
    return found


def _defaults(function: FunctionType) -> Named:
    """Return the defaults of a function."""
    code = function.__code__
    defaults = function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    return [*zip(names, defaults, strict=True), *sorted((function.__kwdefaults__ or {}).items())]
