"""Argument fallback: the values that a parameter takes, one attempt after the other.

The option's type decides between two ways: the parameter itself takes the list of values (the
function gets a sequence whose first element is the one to try), or the option lists the values.
"""

from __future__ import annotations

from collections.abc import Mapping

from .binding import EMPTY

TYPE_CHECKING = False
if TYPE_CHECKING:
    import inspect
    from typing import Any


class Fallback:
    """The values of one parameter.

    Attributes:
        function: The function's name, for messages.
        name: The parameter.
        position: Its index among the positional ones; -1 if it is keyword-only.
        by_name: Whether it can be given by name.
        default: Its default, `EMPTY` if it has none.
        before: The defaults of the positional parameters before this one.
        listed: The values to try after the caller's own; None if the parameter takes them all.
    """

    __slots__ = ("before", "by_name", "default", "function", "listed", "name", "position")

    def __init__(
        self,
        function: str,
        signature: inspect.Signature,
        name: str,
        listed: tuple[Any, ...] | None,
    ) -> None:
        """Read the parameter `name` of `signature`, which must be a named one."""
        parameter = signature.parameters[name]
        self.function: str = function
        self.name: str = name
        self.position: int = -1
        self.by_name: bool = parameter.kind is not parameter.POSITIONAL_ONLY
        self.default: Any = EMPTY if parameter.default is parameter.empty else parameter.default
        self.listed: tuple[Any, ...] | None = listed
        self.before: tuple[Any, ...] = ()
        if parameter.kind is not parameter.KEYWORD_ONLY:
            self.position = list(signature.parameters).index(name)
            self.before = tuple(
                other.default for other in list(signature.parameters.values())[: self.position]
            )

    def given(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return the caller's value, else the default, else `EMPTY`."""
        if 0 <= self.position < len(args):
            return args[self.position]
        if self.by_name and self.name in kwargs:
            return kwargs[self.name]
        return self.default

    def check(self, value: Any) -> int:
        """Return how many values to try, given the caller's own `value`.

        Raises:
            ValueError: If the parameter should hold a list or tuple of values and does not.
        """
        if self.listed is not None:
            return 1 + len(self.listed)
        if isinstance(value, (list, tuple)) and len(value) > 0:
            return len(value)
        if value is EMPTY:
            return 1  # the call itself reports the missing argument
        found = "an empty one" if isinstance(value, (list, tuple)) else type(value).__name__
        raise ValueError(
            f"{self.function}(): argument {self.name!r} holds the fallback values: give "
            f"a list or tuple with at least one, not {found}"
        )

    def snapshot(self, value: Any) -> Any:
        """Return a copy of the caller's sequence, which no attempt gets.

        If the function changes the sequence that it gets, neither the next values nor the caller's
        own sequence change.
        """
        if self.listed is None and isinstance(value, list):
            return _slice(value, 0)
        return value

    def choice(self, value: Any, number: int) -> Any:
        """Return the argument for an attempt with value `number`, counted from 0.

        Args:
            value: The caller's own value, as `snapshot` returned it.
            number: Which value.
        """
        if self.listed is not None:
            return value if number == 0 else self.listed[number - 1]
        if number == 0 and not isinstance(value, list):
            return value
        return _slice(value, number)

    def plain(self, value: Any, number: int) -> Any:
        """Return value `number` itself, counted from 0.

        Args:
            value: The caller's own value, as `snapshot` returned it.
            number: Which value.
        """
        if self.listed is not None:
            return value if number == 0 else self.listed[number - 1]
        return value if value is EMPTY else value[number]

    def place(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the call's arguments with `value` as the parameter's argument."""
        at = self.position
        if 0 <= at < len(args):
            return (*args[:at], value, *args[at + 1 :]), kwargs
        if self.by_name:
            return args, {**kwargs, self.name: value}
        return (*args, *self.before[len(args) :], value), kwargs


def _slice(value: Any, start: int) -> Any:
    """Return a new sequence of the same type with the elements from `start` on.

    A named tuple needs all its elements, so those before `start` follow at its end.
    """
    rest = value[start:]
    if type(rest) is type(value):
        return rest
    if isinstance(value, tuple):
        before = tuple(value)[:start] if hasattr(value, "_fields") else ()
        return tuple.__new__(type(value), (*tuple(value)[start:], *before))
    import copy

    rest = copy.copy(value)  # with its attributes, whatever its `__init__` takes
    if start:
        del rest[:start]
    return rest
