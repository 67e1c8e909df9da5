"""What is stored, and the functions that return it; they count how often they run."""

from __future__ import annotations

import random
from typing import Any

TTL = 3600

SMALL: dict[str, Any] = {
    "id": 7,
    "name": "Darjeeling",
    "price": 4.5,
    "tags": ["tea", "black"],
    "stock": {"shop": 12, "warehouse": 480},
    "discontinued": False,
}
TEXT = "resilient " * 102 + "tea!"
BYTES = random.Random(7).randbytes(1 << 20)

runs = [0]
"""How often a function of this module has run."""


def small(key: object) -> dict[str, Any]:
    """Return a dict of six keys, a list and a dict among them."""
    runs[0] += 1
    return SMALL


def text(key: object) -> str:
    """Return a KiB of text."""
    runs[0] += 1
    return TEXT


def megabyte(key: object) -> bytes:
    """Return a MiB of bytes."""
    runs[0] += 1
    return BYTES


async def small_later(key: object) -> dict[str, Any]:
    """Return the dict in a coroutine."""
    runs[0] += 1
    return SMALL


async def megabyte_later(key: object) -> bytes:
    """Return the MiB in a coroutine."""
    runs[0] += 1
    return BYTES


KINDS = {"small dict": small, "1 KiB str": text, "1 MiB bytes": megabyte}
"""The functions by what they return."""

LATER = {"small dict": small_later, "1 MiB bytes": megabyte_later}
"""The coroutine functions by what they return."""
