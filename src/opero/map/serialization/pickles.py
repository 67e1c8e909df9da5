"""Pickles of values: one with its large buffers apart, or many at a time.

Plain pickle comes first. cloudpickle takes what plain pickle refuses, and what refers to
`__main__` or to another module that no worker can import as this process has it.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from opero.exceptions import describe
from opero.map.interrupts import contained

from .culprits import unpicklable
from .handles import may_hold

if sys.implementation.name == "pypy":  # before a pickle names a function of cloudpickle
    from . import cloud  # noqa: F401

LARGE = 1 << 15
"""The smallest buffer that travels apart, in bytes; smaller ones are cheaper inside the pickle."""

Packed = tuple[Any, list[tuple[int, str]]]
"""The pickles of values, one for all or one each; and which values have none, and why."""

_PLAIN = {bool, bytes, complex, float, int, str, type(None)}
"""Types whose values can always be pickled, so many of them can share one pickle."""


def dumps(
    thing: Any,
    aside: list[Any] | None = None,
    back: bool = False,
    apart: frozenset[str] = frozenset(),
) -> bytes:
    """Pickle anything; functions and classes of the main module travel by value.

    Args:
        thing: The value.
        aside: Receives the large buffers, which then stay out of the pickle.
        back: Whether it goes back to the process that sent the functions and classes.
        apart: The names of other modules whose functions and classes travel by value.

    Raises:
        Exception: Whatever cloudpickle raises for what cannot be pickled.
    """
    body: bytes = contained(partial(_dumps, thing, aside, back, apart))
    return body


def _dumps(thing: Any, aside: list[Any] | None, back: bool, apart: frozenset[str]) -> bytes:
    if aside is not None:
        aside.clear()
    keep = None if aside is None else put_aside(aside)
    if not (apart and any(map(_is_being_imported, apart))):
        try:
            body = pickle.dumps(thing, 5, buffer_callback=keep)
            if not (b"_main__" in body or may_hold(body) or (apart and _names_one(body, apart))):
                return body
        except Exception:  # noqa: BLE001 - cloudpickle may manage, or explain the failure
            pass
    from . import by_value

    if aside is not None:
        aside.clear()
    return by_value.dumps(thing, buffer_callback=keep, back=back, apart=apart)


def _names_one(body: bytes, names: Iterable[str]) -> bool:
    """Return whether a pickle may refer to one of the named modules."""
    return any(name.encode("utf-8", "surrogatepass") in body for name in names)


def _is_being_imported(name: str) -> bool:
    """Return whether a module is being imported: pickle would wait for another thread's import."""
    return bool(getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False))


def put_aside(aside: list[Any]) -> Callable[[pickle.PickleBuffer], bool]:
    """Return the callback of a pickle that puts its large buffers into a list."""
    return partial(_put_aside, aside)


def _put_aside(aside: list[Any], buffer: pickle.PickleBuffer) -> bool:
    """Put a buffer aside if it is large; return whether it stays in the pickle."""
    raw = buffer.raw()
    if raw.nbytes < LARGE:
        return True
    aside.append(raw)
    return False


def pack(thing: Any, back: bool = False, apart: frozenset[str] = frozenset()) -> list[Any]:
    """Pickle a value, with the large buffers that it refers to kept apart.

    Args:
        thing: The value.
        back: Whether it goes back to the process that sent the functions and classes.
        apart: See `dumps`.

    Raises:
        Exception: Whatever cloudpickle raises for what cannot be pickled.
    """
    buffers: list[Any] = []
    return [dumps(thing, buffers, back, apart), *buffers]


def unpack(parts: list[Any]) -> Any:
    """Return the value that `pack` turned into these parts."""
    return contained(partial(pickle.loads, parts[0], buffers=parts[1:]))


def pack_each(
    values: list[Any], what: str, back: bool = False, apart: frozenset[str] = frozenset()
) -> tuple[list[Any], list[tuple[int, BaseException]]]:
    """Pack values one by one.

    Args:
        values: The values.
        what: What to call each in an error message.
        back: Whether they go back to the process that sent the functions and classes.
        apart: See `dumps`.

    Returns:
        The parts of each, None for one that cannot be pickled; and the errors of these, by place.
    """
    packed: list[Any] = []
    failures: list[tuple[int, BaseException]] = []
    for place, value in enumerate(values):
        try:
            packed.append([bytes(part) for part in pack(value, back, apart)])
        except Exception as error:  # noqa: BLE001 - a user's __reduce__ may raise anything
            packed.append(None)
            failures.append((place, unpicklable(what, value, error)))
    return packed, failures


def pack_all(
    values: list[Any], what: str, back: bool = False, apart: frozenset[str] = frozenset()
) -> Packed:
    """Pickle values.

    Args:
        values: The values.
        what: What to call each in an error message.
        back: Whether they go back to the process that sent the functions and classes.
        apart: See `dumps`.
    """
    if _PLAIN.issuperset(map(type, values)):
        return pickle.dumps(values, pickle.HIGHEST_PROTOCOL), []
    pickles: list[bytes] = []
    lost: list[tuple[int, str]] = []
    for place, value in enumerate(values):
        try:
            pickles.append(dumps(value, back=back, apart=apart))
        except Exception as error:  # noqa: BLE001 - a user's __reduce__ may raise anything
            pickles.append(b"")
            lost.append((place, str(unpicklable(what, value, error))))
    return pickles, lost


def unpack_all(packed: Packed, what: str) -> tuple[list[Any], list[tuple[int, BaseException]]]:
    """Return the values, None for a lost one; and the errors of the lost ones, by place.

    Args:
        packed: What `pack_all` returned.
        what: What to call each in an error message.
    """
    pickles, before = packed
    if isinstance(pickles, bytes):
        return pickle.loads(pickles), []
    lost: dict[int, BaseException] = {place: TypeError(why) for place, why in before}
    values: list[Any] = []
    for place, data in enumerate(pickles):
        value = None
        if place not in lost:
            try:
                value = contained(partial(pickle.loads, data))
            except Exception as error:  # noqa: BLE001 - a user's class may raise anything
                lost[place] = TypeError(f"{what} cannot be unpickled: {describe(error)}")
        values.append(value)
    return values, sorted(lost.items())
