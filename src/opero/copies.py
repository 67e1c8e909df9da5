"""Decorated functions in copies and pickles.

A copy of one is itself, as of any function; unless it was made from a bound method: a deep copy is
decorated anew, from the copy of that. A pickle holds its name. cloudpickle looks for the name too;
where that leads nowhere, it takes the parts that every function has, and they lead to a
`Redecorated`, which decorates what has arrived.
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
"""What the names of variables begin with that hold a `Handle`, or what arrives of one."""

_decorating = Lock()


class Handle:
    """What the code of a decorated function has in its closure (see `forwarding`).

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
    """A function that has come by value, and is decorated once it is called or asked something.

    Not before, since a function that refers to itself arrives in parts, this one among them.

    Attributes:
        function: The decorated function, or what decorates it at the first call.
        face: The function that has this in its closure.
        names: The documented names that it gets.
        recipe: What decorates, and its arguments.
    """

    def __setstate__(self, given: tuple[Any, ...]) -> None:
        """Take what is left of the decorated function.

        Args:
            given: The function that has this in its closure, the documented names that it gets,
                what decorates, and its arguments.
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
        """Do what the decorated function does, as all of the methods below."""
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
    """Stands in a class that has come by value, until the decorated function is looked up there.

    The function itself could not take its place: `method.stream` of an ordinary bound method would
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
        """Stand for a function.

        Args:
            face: The function that has a `Redecorated` in its closure.
            owner: The class.
            name: The name in the class.
            bind: What the decorated function stands in there, a class method; None for a method.
            note: Called with the function and the decorated one that takes its place.
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
        """Return the decorated function; it takes this one's place."""
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
        note: Called with each such function and the decorated one that takes its place.
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
    """Return whether code does nothing but call a decorated function."""
    return any(name.startswith(HANDLE) for name in code.co_freevars)


def _redecorated(face: FunctionType) -> Any:
    """Return the `Redecorated` in the closure of a function."""
    cells = zip(face.__code__.co_freevars, face.__closure__ or (), strict=True)
    return next(cell.cell_contents for name, cell in cells if name.startswith(HANDLE))


def _itself(face: Any) -> Any:
    return face


def reduce_function(function: Any) -> Any:
    """Say how a decorated function is pickled: by its name, if it has one or should have one.

    One that was made from a bound method, a partial or the like, as in
    `self.fetch = opero(self.fetch)`, has the name of something else.
    """
    state = function.__opero__
    name = path_of(function)
    if _found(function.__module__, name) is function or type(state.func) is FunctionType:
        return name
    decorate, *given = _recipe(state)
    return decorate, tuple(given)


def reduce_method(method: Any) -> Any:
    """Say how a bound method is pickled: by its name in the class, if that leads to it."""
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
    """Return a deep copy: the function itself, unless it was made from something that is copied."""
    from copy import deepcopy

    state = function.__opero__
    func = deepcopy(state.func, memo)
    if func is state.func:
        return function
    decorate, _, *given = _recipe(state)
    return decorate(func, *given)


def path_of(function: Any) -> str:
    """Return where a function is found in its module, a private name spelled as in its class."""
    outer, dot, name = function.__qualname__.rpartition(".")
    return f"{outer}{dot}{_mangled(name, outer.rpartition('.')[2])}"


def _mangled(name: str, owner: str) -> str:
    """Return what a name in a class body becomes."""
    owner = owner.lstrip("_")
    if owner and owner != "<locals>" and name.startswith("__") and not name.endswith("__"):
        return f"_{owner}{name}"
    return name


def _found(module: str, path: str) -> Any:
    """Return what is at a place; None if nothing is."""
    found: Any = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _arriving() -> Redecorated:
    return Redecorated.__new__(Redecorated)


def _recipe(state: Any) -> tuple[Any, ...]:
    """Return what decorates a function as it was, and the arguments, the function first."""
    if state.maps:
        return state.decorate, state.func, state.options, state.plan
    return state.decorate, state.func, state.options


def _bound(function: Any, instance: Any) -> Any:
    return function.__get__(instance, type(instance))
