"""Marks a failure with its item: with a note, and opero's own exceptions also with attributes.

The note contains only the item's position, because an item may be secret or large.
"""

from __future__ import annotations

from typing import Any

from opero.exceptions import OperoError

_PREFIX = "opero: item "


def note_item(error: BaseException, name: str, index: int, item: Any, equal: int = 0) -> None:
    """Add a note to a failure that says which item it belongs to.

    An exception object raised for several items, such as a constant of a module, gets one note for
    each mapped function, which says so.

    Args:
        error: The item's failure; if it accepts no notes, it gets none.
        name: The mapped function.
        index: The item's position in the input, counted from 0.
        item: The item.
        equal: How many equal items share its run.
    """
    if isinstance(error, OperoError):
        error.index, error.item = index, item
    ending = f" of {name}"
    note = f"{_PREFIX}{index}{ending}"
    if equal:
        note += f", and {equal} equal to it"
    try:
        notes = getattr(error, "__notes__", None)
        if not isinstance(notes, list):
            vars(error)["__notes__"] = [note]  # `add_note` asks the class, which may be frozen
            return
        for place, each in enumerate(notes):
            if isinstance(each, str) and each.startswith(_PREFIX) and ending in each:
                notes[place] = f"{note}, and items before it: all raised this very object"
                return
        notes.append(note)
    except Exception:  # noqa: BLE001 - a broken exception class
        return
