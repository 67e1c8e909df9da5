"""The messages for a misspelt option, or for the name that another library gives it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from . import configs
from .configs import BreakerConfig, CacheConfig
from .option import Option
from .spelling import nearest
from .table import OPTIONS, fields_of, read_by

_PERIODS = {"period", "time_period", "per"}
"""What other libraries call the time that a rate is counted over; opero has no such option."""

_PER_SECOND = "a rate is per second, so write 100 / 60 for 100 in 60 seconds"


def no_option(function: str, option: str) -> str:
    """Return a message that a function has no such option, and what to write instead.

    Args:
        function: The decorator, or another function that takes options.
        option: The name that the caller gave.
    """
    said = f"{function}() has no option {option!r}"
    known = {each.name: each for each in read_by(function)}
    word = option.lower()
    if word in _PERIODS and "rate_limit" in known:
        return f"{said}: {_PER_SECOND}"
    meant = [repr(name) for name, each in known.items() if word in {*each.also, each.field}]
    if meant:
        return f"{said}; did you mean {' or '.join(meant)}?"
    if option in OPTIONS:
        return f"{said}; it is an option of {_readers(OPTIONS[option])}"
    names = {also: name for name, each in known.items() for also in each.also}
    names |= {name: name for name in known}
    near = nearest(option, known, 0.85) or nearest(option, names, 0.85)
    near = near or nearest(option, known, 0.75)
    if near is not None:
        return f"{said}; did you mean {names[near]!r}?"
    for name, each in OPTIONS.items():
        if word in each.also or nearest(option, [name], 0.9):
            return f"{said}; did you mean {name!r}, an option of {_readers(each)}?"
    for field, each in fields_of(BreakerConfig).items():
        if "breaker" in known and word.removeprefix("breaker_") in {field, *each.also}:
            return f"{said}; did you mean breaker=BreakerConfig({field}=...)?"
    near = nearest(option, names, 0.78)
    if near is not None:
        return f"{said}; did you mean {names[near]!r}?"
    return f"{said}; it has {', '.join(sorted(known))}"


def _readers(option: Option) -> str:
    """Return which functions take an option."""
    return " and ".join(f"{each}()" for each in option.readers)


def _near_or_all(said: str, near: str | None, known: Iterable[str]) -> str:
    """Return a message that ends with the name that is near, or else with all that there are."""
    return f"{said}; did you mean {near!r}?" if near else f"{said}; it has {', '.join(known)}"


def no_field(config: type, name: str, known: Sequence[str]) -> str:
    """Return a message that a config object has no such field, and what to write instead.

    Args:
        config: Its class.
        name: The field that the caller gave.
        known: The fields that it has.
    """
    said = f"{config.__name__}() has no field {name!r}"
    if name.lower() in _PERIODS and "rate" in known:
        return f"{said}: {_PER_SECOND}"
    for field, option in fields_of(config).items():
        if name in {option.name, field} or name.lower() in option.also:
            meant = f"backend_options={{{field!r}: ...}}" if option.backends else repr(field)
            return f"{said}; did you mean {meant}?"
    near = nearest(name, known)
    return _near_or_all(said, near, known)


def no_parameter(kind: str, name: str, known: Sequence[str]) -> str:
    """Return a message that a class of opero has no such parameter, and what to write instead.

    Args:
        kind: The name of the class.
        name: The keyword that the caller gave.
        known: The parameters that it has.
    """
    said = f"{kind}() has no parameter {name!r}"
    if name.lower() in _PERIODS and "rate_limit" in known:
        return f"{said}: {_PER_SECOND}"
    rows = fields_of(BreakerConfig) if kind == "Breaker" else OPTIONS
    meant = [each for each in known if each in rows and name.lower() in rows[each].also]
    near = meant[0] if meant else nearest(name, known)
    return _near_or_all(said, near, known)


def no_backend_option(field: object) -> str:
    """Return a message that no backend reads an option, and what to write instead."""
    said = f"backend_options has no option {field!r}"
    options = {name: each for name, each in fields_of(CacheConfig).items() if each.backends}
    if isinstance(field, str):
        for name, option in options.items():
            if field == option.name or field.lower() in option.also:
                return f"{said}; did you mean {name!r}?"
    near = nearest(field, options) if isinstance(field, str) else None
    return _near_or_all(said, near, options)


configs.say_no_field = no_field
