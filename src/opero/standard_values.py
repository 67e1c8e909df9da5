"""How some values of the standard library come apart: types, patterns, item getters.

`decompose.py` calls this module once for each class. It imports nothing: if a module is not loaded,
no value is from it.
"""

from __future__ import annotations

import sys
from types import GenericAlias, UnionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

UNION = ("typing", "Union")
"""The name of the class of `int | str` and `Optional[int]`, on every Python."""


def take_of(cls: type) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[str, str] | None] | None:
    """Return how the instances of a class come apart.

    Args:
        cls: The class.

    Returns:
        A function from a value to its parts, which are simpler values, and the names of the class
        that are the same on every Python (None to use its own module and name); None if this
        module does not know the class.
    """
    if cls is UnionType:
        return _union, UNION
    if issubclass(cls, GenericAlias):
        return _alias, ("types", cls.__name__)
    typing = sys.modules.get("typing")
    if typing is not None and issubclass(cls, typing._GenericAlias):
        if cls is type(typing.Optional[int]):
            return _union, UNION
        return _typing_alias, ("typing", cls.__name__)
    if typing is not None and issubclass(cls, (typing._SpecialForm, typing._SpecialGenericAlias)):
        return _name, ("typing", "form")
    operator = sys.modules.get("operator")
    if operator is not None and cls in (operator.itemgetter, operator.attrgetter):
        return _reduced, ("operator", cls.__name__)
    re = sys.modules.get("re")
    if cls is getattr(re, "Pattern", None):
        return _pattern, ("re", "Pattern")
    return None


def _union(value: Any) -> tuple[Any, ...]:
    """The order of a union's types does not count, as in its own equality.

    It does count if one of them has no hash, such as `list[Annotated[int, []]]`.
    """
    try:
        return (frozenset(value.__args__),)
    except TypeError:
        return (value.__args__,)


def _alias(value: Any) -> tuple[Any, ...]:
    return (value.__origin__, value.__args__, getattr(value, "__unpacked__", False))


def _typing_alias(value: Any) -> tuple[Any, ...]:
    more = getattr(value, "__metadata__", None)
    return (value.__origin__, value.__args__, value._name, more)


def _name(value: Any) -> tuple[Any, ...]:
    return (value._name,)


def _reduced(value: Any) -> tuple[Any, ...]:
    content: tuple[Any, ...] = value.__reduce__()[1]
    return content


def _pattern(value: Any) -> tuple[Any, ...]:
    return value.pattern, value.flags
