"""From the arguments of a call to its cache key: every spelling of one call gives one key.

Arguments are bound to the signature and defaults are filled in, so `f(1, 2)`, `f(1, b=2)` and
`f(a=1, b=2)` have the same key. The compiled call does the plain cases itself, from the C array of
its arguments, and leaves the others (`*args`, `**kwargs`, errors) to `Binding.key`.
"""

from __future__ import annotations

from collections.abc import Mapping

from opero.exceptions import CacheKeyError

from .keys import Freezer

TYPE_CHECKING = False
if TYPE_CHECKING:
    import inspect
    from typing import Any


class EMPTY:
    """Stands for a missing value: an argument not given, or no default."""


class Binding:
    """How the arguments of one function become a key.

    Attributes:
        name: The function's name, for messages.
        signature: Its signature.
        freezer: Makes a key part of each argument.
        names: The named parameters in order: the positional ones, then the keyword-only ones.
        positional: How many of `names` can be given by position.
        positional_only: How many of those cannot be given by keyword.
        slots: The position in `names` of each keyword (without positional-only parameters).
        defaults: The default of each named parameter, `EMPTY` if it has none.
        constants: The key part of each default that cannot change, else None.
        star: The name of `*args`, or None.
        starstar: The name of `**kwargs`, or None.
        plain: Whether it has neither `*args` nor `**kwargs`.
    """

    __slots__ = (
        "constants",
        "defaults",
        "freezer",
        "name",
        "names",
        "plain",
        "positional",
        "positional_only",
        "signature",
        "slots",
        "star",
        "starstar",
    )

    def __init__(
        self, name: str, signature: inspect.Signature, freezer: Freezer, skip: int = 0
    ) -> None:
        """Study a signature.

        Args:
            name: The function's name, for messages.
            signature: Its signature.
            freezer: Makes a key part of each argument.
            skip: How many of the first parameters to leave out (1 for a method's `self`).
        """
        self.name: str = name
        self.signature: inspect.Signature = signature
        self.freezer: Freezer = freezer
        self.star: str | None = None
        self.starstar: str | None = None
        first: list[str] = []
        last: list[str] = []
        slots: list[str] = []
        defaults: dict[str, Any] = {}
        for at, parameter in enumerate(signature.parameters.values()):
            if parameter.kind is parameter.VAR_POSITIONAL:
                self.star = parameter.name
            elif parameter.kind is parameter.VAR_KEYWORD:
                self.starstar = parameter.name
            elif at >= skip:
                (last if parameter.kind is parameter.KEYWORD_ONLY else first).append(parameter.name)
                defaults[parameter.name] = (
                    EMPTY if parameter.default is parameter.empty else parameter.default
                )
                if parameter.kind is not parameter.POSITIONAL_ONLY:
                    slots.append(parameter.name)
        self.names: tuple[str, ...] = tuple(first + last)
        self.positional: int = len(first)
        self.positional_only: int = len(first) + len(last) - len(slots)
        self.slots: dict[str, int] = {given: self.names.index(given) for given in slots}
        self.defaults: tuple[Any, ...] = tuple(defaults[given] for given in self.names)
        self.constants: tuple[Any, ...] = tuple(
            freezer.freeze(default)
            if default is not EMPTY and default is not None and freezer.is_constant(default)
            else None
            for default in self.defaults
        )
        self.plain: bool = self.star is None and self.starstar is None

    def without_first(self) -> Binding:
        """Return the binding of a method's arguments without its instance."""
        return Binding(self.name, self.signature, self.freezer, 1)

    def key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> Any:
        """Return the key of a call, for a lookup; `Freezer.keep` makes one to store.

        Args:
            args: The positional arguments.
            kwargs: The keyword arguments.

        Raises:
            TypeError: If the arguments do not fit the signature.
            CacheKeyError: If no faithful key can be made of an argument; the message names it.
        """
        bound = self.arguments(args, kwargs)
        parts: list[Any] = []
        named = len(self.names)
        for at, value in enumerate(bound):
            if at < named and value is self.defaults[at] and self.constants[at] is not None:
                parts.append(self.constants[at])
                continue
            try:
                parts.append(self.freezer.probe(value))
            except CacheKeyError as error:
                parameter = self.names[at] if at < named else self.extra(at)
                raise CacheKeyError(f"{self.name}(): argument {parameter!r}: {error}") from error
        return parts[0] if self.plain and named == 1 else tuple(parts)

    def extra(self, at: int) -> str:
        """Return the name, for messages, of what follows the named parameters."""
        if at == len(self.names) and self.star is not None:
            return f"*{self.star}"
        return f"**{self.starstar}"

    def arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> tuple[Any, ...]:
        """Bind a call's arguments, with defaults filled in.

        Returns:
            The values of the named parameters in order, then those of `*args` as a tuple and those
            of `**kwargs` as a dict, if the function has them.

        Raises:
            TypeError: If the arguments do not fit the signature.
        """
        bound: list[Any] = [EMPTY] * len(self.names)
        given = min(len(args), self.positional)
        bound[:given] = args[:given]
        if len(args) > self.positional and self.star is None:
            raise TypeError(
                f"{self.name}() takes {self.positional} positional argument"
                f"{'' if self.positional == 1 else 's'} but {len(args)} were given"
            )
        extra: dict[str, Any] = {}
        for name, value in (kwargs or {}).items():
            slot = self.slots.get(name, -1)
            if slot < 0:
                if self.starstar is None:
                    raise TypeError(f"{self.name}() got an unexpected keyword argument {name!r}")
                extra[name] = value
            elif bound[slot] is not EMPTY:
                raise TypeError(f"{self.name}() got multiple values for argument {name!r}")
            else:
                bound[slot] = value
        for slot, value in enumerate(bound):
            if value is EMPTY:
                bound[slot] = self.defaults[slot]
                if bound[slot] is EMPTY:
                    raise TypeError(f"{self.name}() is missing argument {self.names[slot]!r}")
        if self.star is not None:
            bound.append(tuple(args[self.positional :]))
        if self.starstar is not None:
            bound.append(extra)
        return tuple(bound)

    def fits(self, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> bool:
        """Return whether the arguments fit the signature."""
        try:
            self.arguments(args, kwargs)
        except TypeError:
            return False
        return True
