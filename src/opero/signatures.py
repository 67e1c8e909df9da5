"""Signatures of functions whose annotations may use names that are not defined yet.

Since Python 3.14, annotations are evaluated on first use. They may name a class defined further
down, or something imported only for type checkers. A decorator runs before that.
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
        function: Any callable.

    Raises:
        TypeError: If it is not callable.
        ValueError: If it has no signature, like some functions written in C.
    """
    return inspect.signature(function, **_AS_FAR_AS_KNOWN)


def takes(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a function accepts these arguments; True if that is unknown."""
    try:
        signature_of(function).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:
        return True
    return True
