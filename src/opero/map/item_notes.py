"""A failure tells which item of a map it belongs to: by a note, and opero's own by attributes.

The note has the item's place and no more: an item may be a secret, or large.
"""

from __future__ import annotations

from typing import Any

from opero.exceptions import OperoError

_PREFIX = "opero: item "


def note_item(error: BaseException, name: str, index: int, item: Any, equal: int = 0) -> None:
    """Let a failure tell which item it belongs to.

    An exception object that is raised for several items, such as a constant of a module, bears one
    note for each function that is mapped, which says so.

    Args:
        error: What the item has failed with; one that takes no notes goes without.
        name: The mapped function.
        index: The item's place in the input, counted from 0.
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
