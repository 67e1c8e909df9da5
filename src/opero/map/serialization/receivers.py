"""The instance of a mapped method on its way to a worker: what to say if it cannot travel."""

from __future__ import annotations

from typing import Any

from opero.exceptions import describe

from .culprits import unpicklable
from .pickles import dumps


def check_receiver(receiver: Any) -> None:
    """Raise what keeps an instance from travelling, if anything does, by the attribute's name.

    Args:
        receiver: The instance whose method is mapped, or the class.

    Raises:
        TypeError: If it cannot be pickled.
    """
    reason = _refusal(receiver)
    if reason is None:
        return
    for name, value in _attributes(receiver):
        refusal = _refusal(value)
        if refusal is not None:
            kind = type(receiver)
            raise TypeError(
                f"an instance of {kind.__module__}.{kind.__qualname__}, whose method is mapped, "
                f"cannot be pickled because of its attribute {name!r}: {describe(refusal)}; leave "
                f"that out in its __getstate__, or map in threads"
            ) from reason
    raise unpicklable("the instance, whose method is mapped,", receiver, reason) from reason


def _refusal(value: Any) -> Exception | None:
    """Return what is raised when a value is pickled; None if it can be."""
    try:
        dumps(value)
    except Exception as error:  # noqa: BLE001 - a user's __reduce__ may raise anything
        return error
    return None


def _attributes(receiver: Any) -> list[tuple[str, Any]]:
    """Return the attributes that an instance's pickle is made of; none if it makes that itself."""
    kind: Any = type(receiver)
    if kind.__reduce__ is not object.__reduce__ or kind.__reduce_ex__ is not object.__reduce_ex__:
        return []
    try:
        state = receiver.__getstate__()
    except Exception:  # noqa: BLE001 - it is the user's
        return []
    parts = state if isinstance(state, tuple) else (state,)
    return [pair for part in parts if isinstance(part, dict) for pair in part.items()]
