"""What a mapped function gets before the item: a method its instance, a class method its class.

A function cannot know whether it is a method before the class body ends. Until then its name and
its first parameter speak for it; and where `@property` or `@classmethod` stands between it and the
class, nobody tells it at all.
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
    """Return what a function gets before the item: "instance", "class", or "" for nothing.

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
    """Check that a function takes an item beside its instance or its class.

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
            f"opmap calls a method with its instance and an item, and {call.name}{signature} "
            f"takes no two arguments by position: if it needs no instance, put @staticmethod above "
            f"@opmap"
        ) from None


def missing_receiver(name: str, form: str, kind: str) -> str:
    """Return what to say of a method that is called on its class and gets no instance."""
    if kind == "class":
        return (
            f"{name}{form}() is missing its class: put @classmethod below @opmap, or give the "
            f"class first: {name}{form}(cls, items)"
        )
    return (
        f"{name}{form}() is missing its instance: call it on one, or give it first: "
        f"{name}{form}(self, items)"
    )


def by_position(name: str, call: State, leading: int, more: Sequence[Any]) -> str:
    """Return what to say of arguments that are given by position behind the items.

    Args:
        name: What was called.
        call: The state of the function under `@opero`.
        leading: How many parameters stand before the item.
        more: The arguments.
    """
    wrong = f"{name}() takes only the items by position, and {1 + len(more)} arguments were given"
    several = ""
    if any(isinstance(value, (list, tuple, range)) for value in more):
        several = f"; for several arguments per item, write {name}(zip(a, b)) with unpack=True"
    parameters: list[Any] = []
    if call.binding is not None:
        behind = list(call.binding.signature.parameters.values())[leading + 1 :]
        parameters = [each for each in behind if each.kind is each.POSITIONAL_OR_KEYWORD]
    if len(parameters) < len(more):
        return f"{wrong}: give what all items share by keyword{several}"
    given = zip(parameters, more, strict=False)
    shared = ", ".join(f"{parameter.name}={_shown(value)}" for parameter, value in given)
    return f"{wrong}: what all items share goes by keyword; write {name}(items, {shared}){several}"


def misplaced_option(binding: Binding, shared: Mapping[str, Any]) -> str:
    """Return what to do about an option of the decorator among what all items share; "" without.

    Args:
        binding: The signature of the function.
        shared: What all items share.
    """
    options = {option.name for option in read_by("opmap")}
    for name, value in shared.items():
        if name not in binding.slots:  # the first one that the function does not take
            if name not in options:
                break
            return f": {name} is an option of the decorator: opmap({name}={_shown(value)})"
    return ""


def no_items(name: str, items: Any) -> str:
    """Return what to say of items that are not iterable.

    Args:
        name: What was called.
        items: What it was given.
    """
    if items is None:
        return (
            f"{name}(): the items are None, which is not iterable: give a list of them, or [] for "
            f"none"
        )
    kind = type(items).__name__
    one = _shown(items) if _shown(items) != "..." else "item"
    return (
        f"{name}(): the items, {with_article(kind)}, are not iterable: "
        f"for one item give a list, {name}([{one}])"
    )


def missing_shared(name: str, binding: Binding, leading: int, shared: Mapping[str, Any]) -> str:
    """Return what to do about arguments that are missing behind the item; nothing if none is.

    Args:
        name: What was called.
        binding: The signature of the function.
        leading: How many parameters stand before the item.
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
        f": give it to all items by keyword, {name}(items, {given}), or to each in a tuple, a list "
        f"or a dict, with unpack=True"
    )


def _shown(value: Any) -> str:
    """Return a number as it is; what could be a secret, or long, as an ellipsis."""
    return repr(value) if type(value) in {bool, float, int, type(None)} else "..."
