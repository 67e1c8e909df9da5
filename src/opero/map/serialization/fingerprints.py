"""Numbers by which two processes find out whether they have the same code."""

from __future__ import annotations

import zlib
from typing import Any


def fingerprint(function: Any) -> int | None:
    """Return a number that changes when a function is written anew; None if it has no code."""
    code = getattr(function, "__code__", None)
    return None if code is None else zlib.crc32(_described(code).encode("utf-8", "replace"))


def _described(code: Any) -> str:
    parts = [repr(code.co_code), repr(code.co_names)]
    for constant in code.co_consts:
        if hasattr(constant, "co_code"):
            parts.append(_described(constant))
        elif isinstance(constant, frozenset):  # its order is another one in each process
            parts.append(repr(sorted(map(repr, constant))))
        else:
            parts.append(repr(constant))
    return "".join(parts)
