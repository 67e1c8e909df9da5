"""Signatures of functions whose annotations may name what is not there yet.

Since Python 3.14 an annotation is evaluated when it is asked for, so it may name a class that is
defined further down, or what is only imported for type checkers. A decorator comes before all that.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

_AS_FAR_AS_KNOWN: dict[str, Any] = {}
if sys.version_info >= (3, 14):
    from annotationlib import Format

    _AS_FAR_AS_KNOWN["annotation_format"] = Format.FORWARDREF


def signature_of(function: Any) -> inspect.Signature:
    """Return the signature of a function; since Python 3.14 an unknown name is a `ForwardRef`.

    Args:
        function: Anything that can be called.

    Raises:
        TypeError: It cannot be called.
        ValueError: It has no signature, like some functions written in C.
    """
    return inspect.signature(function, **_AS_FAR_AS_KNOWN)


def takes(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a function takes some arguments; True if nobody knows."""
    try:
        signature_of(function).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:
        return True
    return True
