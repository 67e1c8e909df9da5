"""What a mapped function gets before the item: a method its instance, a class method its class.

A function cannot know whether it is a method before the class body ends. Until then, opero looks
at its name and its first parameter. If `@property` or `@classmethod` is between it and the class,
it never finds out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opero.exceptions import with_article
from opero.options.table import read_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.binding import Binding
    from opero.core.state import State


def bound_to(call: State) -> str:
    """Return what a function gets before the item: "instance", "class", or "" for neither.

    Args:
        call: The state of the function under `@opero`.
    """
    if call.method:
        return "instance"
    inside = call.face.__qualname__.rpartition(".")[0]
    if call.binding is None or not inside or inside.endswith("<locals>"):
        return ""
    first = next(iter(call.binding.signature.parameters), None)
    return "class" if first == "cls" else ""


def check_method(call: State) -> None:
    """Check that a function takes an item in addition to its instance or class.

    Args:
        call: The state of the function under `@opero`.

    Raises:
        TypeError: If it does not.
    """
    if call.binding is None:
        return
    signature = call.binding.signature
    try:
        signature.bind_partial(None, None)
    except TypeError:
        raise TypeError(
            f"opmap calls a method with its instance and an item, but {call.name}{signature} does "
            f"not take two positional arguments: if it needs no instance, put @staticmethod above "
            f"@opmap"
        ) from None


def missing_receiver(name: str, form: str, kind: str) -> str:
    """Return the error message for a method called on its class without an instance."""
    if kind == "class":
        return (
            f"{name}{form}() is missing its class: put @classmethod below @opmap, or pass the "
            f"class first: {name}{form}(cls, items)"
        )
    return (
        f"{name}{form}() is missing its instance: call it on one, or pass one first: "
        f"{name}{form}(self, items)"
    )


def by_position(name: str, call: State, leading: int, more: Sequence[Any]) -> str:
    """Return the error message for positional arguments after the items.

    Args:
        name: The name of the called function.
        call: The state of the function under `@opero`.
        leading: How many parameters come before the item.
        more: The arguments.
    """
    wrong = f"{name}() takes only the items by position, but got {1 + len(more)} arguments"
    several = ""
    if any(isinstance(value, (list, tuple, range)) for value in more):
        several = f"; for several arguments per item, write {name}(zip(a, b)) with unpack=True"
    parameters: list[Any] = []
    if call.binding is not None:
        behind = list(call.binding.signature.parameters.values())[leading + 1 :]
        parameters = [each for each in behind if each.kind is each.POSITIONAL_OR_KEYWORD]
    if len(parameters) < len(more):
        return f"{wrong}: pass what all items share by keyword{several}"
    given = zip(parameters, more, strict=False)
    shared = ", ".join(f"{parameter.name}={_shown(value)}" for parameter, value in given)
    return f"{wrong}: pass what all items share by keyword; write {name}(items, {shared}){several}"


def misplaced_option(binding: Binding, shared: Mapping[str, Any]) -> str:
    """Return a hint if the shared arguments contain an option of the decorator; "" if not.

    Args:
        binding: The signature of the function.
        shared: What all items share.
    """
    options = {option.name for option in read_by("opmap")}
    for name, value in shared.items():
        if name not in binding.slots:  # the first one that the function lacks
            if name not in options:
                break
            return f": {name} is an option of the decorator: opmap({name}={_shown(value)})"
    return ""


def no_items(name: str, items: Any) -> str:
    """Return the error message for items that are not iterable.

    Args:
        name: The name of the called function.
        items: What the caller passed.
    """
    if items is None:
        return (
            f"{name}(): the items are None, which is not iterable: pass a list of them, or [] for "
            f"none"
        )
    kind = type(items).__name__
    one = _shown(items) if _shown(items) != "..." else "item"
    return (
        f"{name}(): the items are {with_article(kind)}, which is not iterable: "
        f"for one item pass a list, {name}([{one}])"
    )


def missing_shared(name: str, binding: Binding, leading: int, shared: Mapping[str, Any]) -> str:
    """Return a hint about missing arguments after the item; "" if none is missing.

    Args:
        name: The name of the called function.
        binding: The signature of the function.
        leading: How many parameters come before the item.
        shared: What all items share.
    """
    behind = list(binding.signature.parameters.values())[leading + 1 :]
    missing = [
        each.name
        for each in behind
        if each.default is each.empty
        and each.kind not in {each.VAR_POSITIONAL, each.VAR_KEYWORD}
        and each.name not in shared
    ]
    if not missing:
        return ""
    given = ", ".join(f"{each}=..." for each in missing)
    return (
        f": pass it for all items by keyword, {name}(items, {given}), or with each item in a "
        f"tuple, a list or a dict, with unpack=True"
    )


def _shown(value: Any) -> str:
    """Return a number as text; anything that could be secret or long as an ellipsis."""
    return repr(value) if type(value) in {bool, float, int, type(None)} else "..."
