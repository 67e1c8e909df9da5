"""Decorated functions in copies and pickles.

As for any function, a copy of one is itself. The exception is a deep copy of a decorated bound
method, which decorates a copy of that method. A pickle contains the name. cloudpickle looks for the
name too; if it finds nothing, it takes the parts that every function has, and they lead to a
`Redecorated`, which decorates the function on arrival.
"""

from __future__ import annotations

import sys
import weakref
from types import CodeType, FunctionType
from typing import Any

from .locks import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

HANDLE = "__opero__"
"""The prefix of variables that hold a `Handle`, or what a `Handle` becomes on arrival."""

_decorating = Lock()


class Handle:
    """The object in the closure of a decorated function's code (see `forwarding`).

    Attributes:
        function: The decorated function.
    """

    __slots__ = ("function",)

    def __init__(self, function: Any) -> None:
        """Hold a decorated function."""
        self.function: Any = function

    def __reduce__(self) -> Any:
        names = tuple(name for name in dir(type(self.function)) if not name.startswith("_"))
        return _arriving, (), (self.function, names, *_recipe(self.function.__opero__))


class Redecorated:
    """A function that arrived by value and is decorated on its first use.

    Not earlier, because a function that refers to itself arrives in parts, including this one.

    Attributes:
        function: The decorated function, or what decorates it at the first call.
        face: The function that has this in its closure.
        names: The documented names that it gets.
        recipe: The function that decorates, and its arguments.
    """

    def __setstate__(self, given: tuple[Any, ...]) -> None:
        """Restore the state from a pickle.

        Args:
            given: The function that has this in its closure, the documented names that it gets,
                the function that decorates, and its arguments.
        """
        face, names, *recipe = given
        self.recipe: list[Any] = recipe
        self.face: weakref.ref[Any] = weakref.ref(face)
        self.names: tuple[str, ...] = names
        self.function: Any = self._first
        self._made: Any = None
        for name in names:
            setattr(face, name, getattr(self, name))

    def __reduce__(self) -> Any:
        return _arriving, (), (self.face(), self.names, *self.recipe)

    def _decorated(self) -> Any:
        with _decorating:
            if self._made is None:
                decorate, *given = self.recipe
                self.function = self._made = decorate(*given)
        return self._made

    def _first(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._decorated()(*args, **kwargs)

    def cache_info(self) -> Any:
        """Do what the decorated function does, like all methods below."""
        return self._decorated().cache_info()

    def cache_clear(self) -> None:
        """See `cache_info`."""
        self._decorated().cache_clear()

    def cache_invalidate(self, /, *args: Any, **kwargs: Any) -> bool:
        """See `cache_info`."""
        return bool(self._decorated().cache_invalidate(*args, **kwargs))

    def stats(self) -> Any:
        """See `cache_info`."""
        return self._decorated().stats()

    def stream(self, /, *items: Any, **shared: Any) -> Any:
        """See `cache_info`; this and those below are for what `@opmap` returns."""
        return self._decorated().stream(*items, **shared)

    def amap(self, /, *items: Any, **shared: Any) -> Any:
        """See `stream`."""
        return self._decorated().amap(*items, **shared)

    def astream(self, /, *items: Any, **shared: Any) -> Any:
        """See `stream`."""
        return self._decorated().astream(*items, **shared)


class Unplaced:
    """Placeholder in a class that came by value, until the decorated function is looked up there.

    The plain function cannot be the placeholder: `method.stream` of an ordinary bound method would
    lack the instance.
    """

    def __init__(
        self,
        face: FunctionType,
        owner: type,
        name: str,
        bind: Any,
        note: Callable[[Any, Any], None],
    ) -> None:
        """Hold the place of a function.

        Args:
            face: The function that has a `Redecorated` in its closure.
            owner: The class.
            name: The name in the class.
            bind: The type that wraps the decorated function: a class method; None for a method.
            note: Called with the function and the decorated one that replaces it.
        """
        self._face = face
        self._owner = owner
        self._name = name
        self._bind = bind
        self._note = note

    def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
        if owner is None and self._bind is None:
            owner = type(instance)
        return self._placed().__get__(instance, owner)

    def __reduce__(self) -> Any:
        return _itself, (self._face,)

    def _placed(self) -> Any:
        """Return the decorated function, which replaces this placeholder."""
        made = _redecorated(self._face)._decorated()
        found = vars(self._owner).get(self._name)
        if found is self or getattr(found, "__func__", None) is self:
            if self._bind is None:
                made.__set_name__(self._owner, self._name)
            placed = made if self._bind is None else self._bind(made)
            type.__setattr__(self._owner, self._name, placed)
            self._note(self._face, made)
        return made


def leave_places(owner: type, names: Iterable[str], note: Callable[[Any, Any], None]) -> None:
    """Put an `Unplaced` wherever a class has a decorated function that came by value.

    Args:
        owner: The class.
        names: Where to look.
        note: Called with each such function and the decorated one that replaces it.
    """
    for name in names:
        face: Any = vars(owner).get(name)
        bind: Any = None
        if isinstance(face, classmethod) and type(face) is not classmethod:  # one of opero's
            bind, face = type(face), face.__func__
        if type(face) is FunctionType and is_forwarding(face.__code__):
            unplaced = Unplaced(face, owner, name, bind, note)
            type.__setattr__(owner, name, unplaced if bind is None else bind(unplaced))


def is_forwarding(code: CodeType) -> bool:
    """Return whether code only calls a decorated function."""
    return any(name.startswith(HANDLE) for name in code.co_freevars)


def _redecorated(face: FunctionType) -> Any:
    """Return the `Redecorated` in the closure of a function."""
    cells = zip(face.__code__.co_freevars, face.__closure__ or (), strict=True)
    return next(cell.cell_contents for name, cell in cells if name.startswith(HANDLE))


def _itself(face: Any) -> Any:
    return face


def reduce_function(function: Any) -> Any:
    """Return how to pickle a decorated function: by its name, if it has or should have one.

    If it was made from a bound method, a partial or the like, as in
    `self.fetch = opero(self.fetch)`, its name belongs to something else.
    """
    state = function.__opero__
    name = path_of(function)
    if _found(function.__module__, name) is function or type(state.func) is FunctionType:
        return name
    decorate, *given = _recipe(state)
    return decorate, tuple(given)


def reduce_method(method: Any) -> Any:
    """Return how to pickle a bound method: by its name in the class, if that leads to it."""
    function, instance = method.__func__, method.__self__
    name = function.__name__
    for cls in instance.__mro__ if isinstance(instance, type) else type(instance).__mro__:
        for spelled in (name, _mangled(name, cls.__name__)):
            found = vars(cls).get(spelled)
            if found is not None:
                found = getattr(found, "__func__", found) if found is not function else found
                if found is function:
                    return getattr, (instance, spelled)
                if spelled == name:  # another one is in its way, as for `super().method`
                    return _bound, (function, instance)
    return _bound, (function, instance)


def copy_of(function: Any, memo: dict[int, Any]) -> Any:
    """Return a deep copy: the function itself, unless it was made from something to copy."""
    from copy import deepcopy

    state = function.__opero__
    func = deepcopy(state.func, memo)
    if func is state.func:
        return function
    decorate, _, *given = _recipe(state)
    return decorate(func, *given)


def path_of(function: Any) -> str:
    """Return the path of a function in its module, with private names mangled."""
    outer, dot, name = function.__qualname__.rpartition(".")
    return f"{outer}{dot}{_mangled(name, outer.rpartition('.')[2])}"


def _mangled(name: str, owner: str) -> str:
    """Return a name in a class body, mangled if it is private."""
    owner = owner.lstrip("_")
    if owner and owner != "<locals>" and name.startswith("__") and not name.endswith("__"):
        return f"_{owner}{name}"
    return name


def _found(module: str, path: str) -> Any:
    """Return the object at a path in a module; None if there is none."""
    found: Any = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _arriving() -> Redecorated:
    return Redecorated.__new__(Redecorated)


def _recipe(state: Any) -> tuple[Any, ...]:
    """Return what decorates a function the same way again, and its arguments, function first."""
    if state.maps:
        return state.decorate, state.func, state.options, state.plan
    return state.decorate, state.func, state.options


def _bound(function: Any, instance: Any) -> Any:
    return function.__get__(instance, type(instance))
