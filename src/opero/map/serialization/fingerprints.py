"""Fingerprints of code, to compare functions across processes, or with their file."""

from __future__ import annotations

import zlib
from typing import Any

_PLAIN = {bool, bytes, complex, float, int, str, type(None), type(...)}
"""Types whose values have the same `repr` in every process."""


def fingerprint(function: Any) -> int | None:
    """Return a number that changes with a function's code and defaults; None if it has no code.

    Line numbers do not count, nor do defaults other than numbers, strings and tuples of them.
    """
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    defaults = getattr(function, "__defaults__", None)
    by_name = getattr(function, "__kwdefaults__", None) or {}
    parts = [described(code), _value(defaults)]
    parts += [f"{name}={_value(by_name[name])}" for name in sorted(by_name)]
    return zlib.crc32(",".join(parts).encode("utf-8", "replace"))


def described(code: Any) -> str:
    """Describe what a code object does, in a text that is the same in every process."""
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    parts = [repr((counts, names)), repr(code.co_code)]
    parts += map(_constant, code.co_consts)
    return "".join(parts)


def _constant(value: Any) -> str:
    if hasattr(value, "co_code"):
        return described(value)
    if isinstance(value, frozenset):  # its order differs between processes
        return repr(sorted(map(_constant, value)))
    if isinstance(value, tuple):
        return f"({','.join(map(_constant, value))})"
    return repr(value)


def _value(value: Any) -> str:
    kind = type(value)
    if kind in _PLAIN:
        return repr(value)
    if kind is tuple:
        return f"({','.join(map(_value, value))})"
    return f"<{kind.__module__}.{kind.__qualname__}>"
