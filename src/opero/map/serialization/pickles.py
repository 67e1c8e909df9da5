"""Values in bytes, each by itself: what cannot be pickled or unpickled is known by its place."""

from __future__ import annotations

import pickle
from typing import Any

from opero.exceptions import describe
from opero.map.engines.processes.wire import dumps, unpicklable

Packed = tuple[Any, list[tuple[int, str]]]
"""The pickles of values, in one or one of each; and which values have none, and why."""

_PLAIN = {bool, bytes, complex, float, int, str, type(None)}
"""Types whose values always survive a pickle, so that many of them can share one."""


def pack(values: list[Any], what: str) -> Packed:
    """Pickle values.

    Args:
        values: The values.
        what: What each is called where it has to be said why it cannot travel.
    """
    if _PLAIN.issuperset(map(type, values)):
        return pickle.dumps(values, pickle.HIGHEST_PROTOCOL), []
    pickles: list[bytes] = []
    lost: list[tuple[int, str]] = []
    for place, value in enumerate(values):
        try:
            pickles.append(dumps(value))
        except Exception as error:  # noqa: BLE001 - a user's __reduce__ may raise anything
            pickles.append(b"")
            lost.append((place, str(unpicklable(what, value, error))))
    return pickles, lost


def unpack(packed: Packed, what: str) -> tuple[list[Any], list[tuple[int, BaseException]]]:
    """Return the values, None for a lost one; and the errors of those, by place.

    Args:
        packed: What `pack` has made of them.
        what: What each is called where it has to be said why it cannot be unpickled.
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
                value = pickle.loads(data)
            except Exception as error:  # noqa: BLE001 - a user's class may raise anything
                lost[place] = TypeError(f"{what} cannot be unpickled: {describe(error)}")
        values.append(value)
    return values, sorted(lost.items())
