"""Checks of single values: each returns the value as opero keeps it, or says what to use instead.

Every check takes the option's name as the caller wrote it, and the value.
"""

from __future__ import annotations

import inspect
import math
import operator
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, NoReturn

from opero.callables import is_callable
from opero.never_failures import names_stop

from .spelling import nearest

MOST: int = 10**9
"""The greatest whole number allowed."""
LONGEST: float = 1e9
"""The longest time allowed, in seconds: about 31 years."""
_SHOWN = 500
"""The most characters of a value that a message shows."""


def wrong(
    option: str, value: Any, allowed: str, kind: type[Exception] = ValueError, hint: str = ""
) -> NoReturn:
    """Refuse a value.

    Args:
        option: The option's name.
        value: The value that the caller gave.
        allowed: What to use instead.
        kind: The exception: `TypeError` if the value has the wrong type.
        hint: Advice on this particular value, if there is any.
    """
    also = f"; {hint}" if hint else ""
    raise kind(f"{option}={shown(value)} is not allowed: use {allowed}{also}")


def shown(value: Any) -> str:
    """Return a value's `repr`, cut if it is long, without the user and password of a URL.

    If `repr` raises, return the name of the type.
    """
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a `repr` is the user's code
        text = f"<{type(value).__name__}>"
    begin, end = text.find("://"), text.rfind("@")
    if 0 <= begin < end:  # it may be a URL given to the wrong option
        text = f"{text[:begin]}://...{text[end:]}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


# --- numbers --------------------------------------------------------------------------------------


def whole(option: str, value: Any, hint: str = "") -> int:
    """Check a whole number: anything that can be an index."""
    try:
        number = None if _kind(value) == "b" else int(operator.index(value))
    except TypeError:  # an array has an `__index__` too
        number = None
    if number is None:
        wrong(option, value, "a whole number", TypeError, hint)
    if abs(number) > MOST:
        wrong(option, value, f"a whole number up to {MOST}")
    return number


def count(option: str, value: Any) -> int:
    """Check a whole number of 1 or more."""
    number = whole(option, value)
    if number < 1:
        wrong(option, value, "1 or more")
    return number


def number(option: str, value: Any, allowed: str = "a number", hint: str = "") -> float:
    """Check a finite number: anything that can be a float, except texts and dates."""
    found = None
    try:
        if _kind(value) in "iuf" and hasattr(type(value), "__float__"):
            found = float(value)
    except TypeError:  # an array has a `__float__` too
        pass
    except ValueError:  # a signalling NaN of `decimal`
        found = math.nan
    except OverflowError:
        found = math.inf
    if found is None:
        wrong(option, value, allowed, TypeError, hint)
    if not math.isfinite(found):
        wrong(option, value, "a finite number")
    return found


def _kind(value: Any) -> str:
    """Return numpy's letter for the kind of a value; "f" if it has no other."""
    if isinstance(value, bool):
        return "b"
    if isinstance(value, (str, bytes, bytearray)):
        return "U"
    kind = getattr(getattr(value, "dtype", None), "kind", "f")
    return kind if isinstance(kind, str) else "O"


def _time(option: str, value: Any) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return number(option, value, "a number of seconds, or a timedelta")


def seconds(option: str, value: Any) -> float:
    """Check a time, in seconds or as a `timedelta`, and return it in seconds."""
    found = _time(option, value)
    if not 0 <= found <= LONGEST:
        wrong(option, value, "a number of seconds from 0 to 1e9")
    return found


def positive(option: str, value: Any, hint: str = "") -> float:
    """Check a time above 0, in seconds or as a `timedelta`, and return it in seconds."""
    found = _time(option, value)
    if not 0 < found <= LONGEST:
        wrong(
            option, value, "a number of seconds above 0, up to 1e9", hint=hint if not found else ""
        )
    return found


def rate(option: str, value: Any) -> float:
    """Check a rate in permits per second."""
    allowed = "a number of permits per second between 1e-9 and 1e9"
    hint = without_brackets(value) or "5 means 5 per second, 5 / 60 means 5 per minute"
    if isinstance(value, type):
        hint = f"write {value.__name__}(5), with its rate in parentheses"
    found = number(option, value, "a number of permits per second", hint)
    if not 1 / LONGEST <= found <= 1e9:
        wrong(option, value, allowed, hint="" if found else "None means no limit")
    return found


def burst(option: str, value: Any) -> int:
    """Check a number of permits."""
    if whole(option, value) < 1:
        wrong(option, value, "1 permit or more")
    return int(value)


def lowest_rate(option: str, value: Any, given: float, burst: int, adaptive: bool) -> float | None:
    """Return the lowest rate of an adaptive limit; None if the limit is not adaptive.

    Args:
        option: What the caller called it.
        value: What the caller gave; None for a hundredth of the rate.
        given: The rate, checked.
        burst: The burst, checked.
        adaptive: Whether the limit is adaptive.
    """
    if value is None:
        return max(given / 100, min(given, burst / 9e8)) if adaptive else None
    if not adaptive:
        raise ValueError(
            f"{option}={shown(value)} has no effect without adaptive=True: add it, or leave "
            f"{option} out"
        )
    lowest = rate(option, value)
    if lowest > given:
        wrong(option, value, f"at most the rate, which is {given!r}")
    return lowest


# --- words and flags ------------------------------------------------------------------------------


def flag(option: str, value: Any) -> bool:
    """Check that a value is True or False."""
    if not isinstance(value, bool):
        wrong(option, value, "True or False", TypeError)
    return value


def choice(option: str, value: Any, choices: tuple[str, ...]) -> str:
    """Check that a value is one of a few words."""
    if isinstance(value, str) and value in choices:
        return str(value)
    near = nearest(value, choices) if isinstance(value, str) else None
    hint = f"did you mean {near!r}?" if near else ""
    wrong(option, value, f"one of {', '.join(map(repr, choices))}", hint=hint)


def text(option: str, value: Any) -> str:
    """Check that a value is a string."""
    if not isinstance(value, str):
        wrong(option, value, "a string", TypeError)
    return value


def name(option: str, value: Any) -> str:
    """Check that a value is a string that is not empty."""
    if not text(option, value):
        wrong(option, value, "a string with at least one character")
    return str(value)


def path(option: str, value: Any) -> str | os.PathLike[str] | None:
    """Check that a value can be a path, or is None; the store checks the path itself."""
    if value is None or isinstance(value, (str, os.PathLike)):
        return value
    wrong(option, value, "a path", TypeError)


def anything(_option: str, value: Any) -> Any:
    """Accept any value; another place checks it."""
    return value


def without_brackets(value: Any) -> str:
    """Return a hint if the value is the function to decorate, else ""."""
    decorated = is_callable(value) and not isinstance(value, type)
    return "write the decorator with parentheses" if decorated else ""


# --- functions ------------------------------------------------------------------------------------


def function(option: str, value: Any, allowed: str) -> Callable[..., Any]:
    """Check that a value is a function that returns its answer when called."""
    if not is_callable(value):
        wrong(option, value, allowed, TypeError)
    if is_deferred(value):
        hint = "a coroutine function or a generator function does not return its answer when called"
        wrong(option, value, allowed, TypeError, hint)
    called: Callable[..., Any] = value
    return called


def is_deferred(value: Any) -> bool:
    """Return whether a call of the value only makes a coroutine or a generator."""
    while isinstance(value, partial):
        value = value.func
    asks = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(ask(value) for ask in asks):
        return True
    return not isinstance(value, type) and any(ask(type(value).__call__) for ask in asks)


def exceptions(option: str, value: Any) -> Any:
    """Check an exception type, a tuple of them, or a predicate; types are returned as a tuple."""
    allowed = "an exception type, a tuple of them, or a predicate of the exception"
    if isinstance(value, (type, tuple)):
        kinds = value if isinstance(value, tuple) else (value,)
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                wrong(option, kind, allowed, TypeError, _instead(kind))
            if names_stop(kind):
                wrong(option, kind, "an exception that does not end a program or a task")
        return kinds
    if not callable(value):
        wrong(option, value, allowed, TypeError, _instead(value))
    return function(option, value, allowed)


def _instead(value: Any) -> str:
    """Return a hint on what to write instead of something that is almost an exception type."""
    if isinstance(value, BaseException):
        return f"write the type, {type(value).__name__}, not an instance of it"
    if isinstance(value, (list, set, frozenset)):
        return "write a tuple, in parentheses"
    if isinstance(value, str):
        return "write the type itself, without quotes"
    return ""


# --- several values -------------------------------------------------------------------------------


def fallback(option: str, value: Any) -> str | Mapping[str, tuple[Any, ...]] | None:
    """Check a parameter's name, or a dict of one parameter and its values."""
    allowed = "a parameter's name, or a dict of one parameter and the list of values to try"
    if value is None or (isinstance(value, str) and value):
        return value
    if not isinstance(value, Mapping):
        kind = ValueError if isinstance(value, str) else TypeError
        wrong(option, value, allowed, kind, without_brackets(value))
    if len(value) != 1:
        wrong(option, dict(value), allowed)
    ((parameter, values),) = value.items()
    if not isinstance(parameter, str):
        wrong(option, dict(value), allowed, TypeError)
    if not isinstance(values, (list, tuple)) or not values:
        wrong(f"{option}[{parameter!r}]", values, "a list or tuple with at least one value")
    return {parameter: tuple(values)}


def optional(check: Callable[..., Any], option: str, value: Any) -> Any:
    """Accept None, and check anything else."""
    return None if value is None else check(option, value)
