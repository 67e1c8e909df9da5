"""The object that the user gets: it looks like a function, and its attributes are the user's.

It has what `functools.wraps` copies, what the user sets, and the documented names. Its `__class__`
is `FunctionType`, or `MethodType` if it is bound, as with wrapt. opero has one handle on it,
`__opero__`: the `State`, or the map. `opero.copies` copies and pickles it; `call` calls it.
"""

from __future__ import annotations

import functools
from types import FunctionType, MethodType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from opero.stats import CacheInfo, Stats

OWN = ("cache_clear", "cache_info", "cache_invalidate", "stats")
"""The names that opero adds to a function; they hide those of the original function."""

_OF_CLASSES = frozenset({"__class_getitem__", "__init_subclass__"})
"""The names of functions that `type` turns into class methods in a class body."""

_OF_FUNCTIONS = frozenset({"__builtins__", "__defaults__", "__globals__", "__kwdefaults__"})


class FunctionLike:
    """A decorated function, except how it is called."""

    __slots__ = ("__dict__", "__opero__", "__weakref__")

    def __init__(self, state: Any) -> None:
        """Copy the name, docstring and attributes of the function.

        Args:
            state: The state of the decorated function.

        Raises:
            TypeError: If it already has a state: a call under way may still need that.
        """
        if getattr(self, "__opero__", None) is not None:
            raise TypeError("a decorated function cannot be initialized again; decorate again")
        self.__opero__: Any = state
        functools.update_wrapper(self, state.func)  # type: ignore[arg-type]
        own = vars(self)
        own.setdefault("__name__", state.name.rpartition(".")[2])  # a partial has none
        own.setdefault("__qualname__", state.name)
        for name in OWN:
            own.pop(name, None)

    @property  # type: ignore[misc]  # for `isinstance`
    def __class__(self) -> Any:
        return FunctionType

    @property
    def __code__(self) -> Any:
        """The code of a function that calls this one, or the code that the user has set."""
        own = vars(self)
        if "__code__" in own:
            return own["__code__"]
        from opero.forwarding import code_of

        return code_of(self.__opero__)

    @__code__.setter
    def __code__(self, code: Any) -> None:
        from opero.forwarding import check_code

        check_code(self.__opero__, code)
        vars(self)["__code__"] = code

    @__code__.deleter
    def __code__(self) -> None:
        del vars(self)["__code__"]

    def __getattr__(self, name: str) -> Any:
        if name == "__closure__":
            from opero.forwarding import closure_of

            return closure_of(self)
        if name in _OF_FUNCTIONS:
            from opero.forwarding import of_function

            return of_function(self.__opero__, name)
        if name == "__annotations__":  # since Python 3.14, `update_wrapper` does not copy them
            return self.__opero__.func.__annotations__
        raise AttributeError(f"'function' object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return [*object.__dir__(self), *(name for name in dir(type(self)) if name[0] != "_")]

    def __set_name__(self, owner: type, name: str) -> None:
        state = self.__opero__
        inner = getattr(type(state.func), "__set_name__", None)
        if inner is not None:
            inner(state.func, owner, name)
        if state.face.__qualname__.rpartition(".")[0] == owner.__qualname__:
            state.become_method()
        if name in _OF_CLASSES and vars(owner).get(name) is self:
            type.__setattr__(owner, name, classmethod(self))  # as `type` does for one made by `def`

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        from opero.copies import copy_of

        return copy_of(self, memo)

    def __reduce__(self) -> Any:
        from opero.copies import reduce_function

        return reduce_function(self)

    def __repr__(self) -> str:
        return f"<opero function {self.__opero__.name}>"

    # --- documented names -----------------------------------------------------------------------

    def cache_info(self) -> CacheInfo:
        """Return the hits and misses since the last `cache_clear`, and the size of the cache."""
        info: CacheInfo = self.__opero__.cache_info()
        return info

    def cache_clear(self) -> None:
        """Clear every value; runs now under way will not be stored either."""
        self.__opero__.cache_clear()

    def cache_invalidate(self, /, *args: Any, **kwargs: Any) -> bool:
        """Clear the value of one call, given by its arguments; return whether there was one."""
        return bool(self.__opero__.cache_invalidate(*args, **kwargs))

    def stats(self) -> Stats:
        """Return the counts since the function was decorated."""
        stats: Stats = self.__opero__.stats()
        return stats


class MethodLike:
    """A decorated method bound to its instance, except how it is called."""

    __slots__ = ("__func__", "__self__", "__weakref__")

    def __init__(self, func: Any, instance: Any) -> None:
        self.__func__: Any = func
        self.__self__: Any = instance

    @property  # type: ignore[misc]  # for `isinstance`
    def __class__(self) -> Any:
        return MethodType

    def __getattr__(self, name: str) -> Any:
        if name == "__func__" or name == "__self__":
            raise AttributeError(name)
        return getattr(self.__func__, name)

    def __dir__(self) -> list[str]:
        return [*object.__dir__(self), *(name for name in dir(self.__func__) if name[0] != "_")]

    def cache_invalidate(self, /, *args: Any, **kwargs: Any) -> bool:
        """Clear the value of one call on this instance; return whether there was one."""
        return bool(self.__func__.cache_invalidate(self.__self__, *args, **kwargs))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        theirs: Any = other
        return self.__self__ is theirs.__self__ and self.__func__ is theirs.__func__

    def __hash__(self) -> int:
        return hash((id(self.__self__), id(self.__func__)))

    def __copy__(self) -> Any:
        return type(self)(self.__func__, self.__self__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        from copy import deepcopy

        return type(self)(self.__func__, deepcopy(self.__self__, memo))

    def __reduce__(self) -> Any:
        from opero.copies import reduce_method

        return reduce_method(self)

    def __repr__(self) -> str:
        return f"<bound opero function {self.__func__.__opero__.name} of {self.__self__!r}>"
