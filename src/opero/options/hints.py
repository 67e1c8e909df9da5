"""What to say to who misspelt an option, or wrote the name that another library has for it."""

from __future__ import annotations

from collections.abc import Sequence

from . import configs
from .configs import CacheConfig
from .spelling import nearest
from .table import OPTIONS, fields_of, read_by


def no_option(function: str, option: str) -> str:
    """Say that a function takes no such option, and what to write instead.

    Args:
        function: The decorator, or what else takes options.
        option: The name that it was given.
    """
    said = f"{function}() has no option {option!r}"
    known = {each.name: each for each in read_by(function)}
    meant = [repr(name) for name, each in known.items() if option.lower() in each.also]
    if meant:
        return f"{said}; did you mean {' or '.join(meant)}?"
    if option in OPTIONS:
        readers = " and ".join(f"{each}()" for each in OPTIONS[option].readers)
        return f"{said}; it is an option of {readers}"
    others = {also: name for name, each in known.items() for also in each.also}
    names = others | {name: name for name in known}
    near = nearest(option, known, 0.75) or nearest(option, names)
    if near is not None:
        return f"{said}; did you mean {names[near]!r}?"
    for each in OPTIONS.values():
        if option.lower() in each.also:
            readers = " and ".join(f"{reader}()" for reader in each.readers)
            return f"{said}; did you mean {each.name!r}, an option of {readers}?"
    return f"{said}; there are {', '.join(sorted(known))}"


def no_field(config: type, name: str, known: Sequence[str]) -> str:
    """Say that a config object has no such field, and what to write instead.

    Args:
        config: Its class.
        name: The field that it was given.
        known: The fields that it has.
    """
    said = f"{config.__name__}() has no field {name!r}"
    for field, option in fields_of(config).items():
        if name in {option.name, field} or name.lower() in option.also:
            meant = f"backend_options={{{field!r}: ...}}" if option.backends else repr(field)
            return f"{said}; did you mean {meant}?"
    near = nearest(name, known)
    return f"{said}; did you mean {near!r}?" if near else f"{said}; there are {', '.join(known)}"


def no_parameter(kind: str, name: str, known: Sequence[str]) -> str:
    """Say that a class of opero takes no such keyword, and what to write instead.

    Args:
        kind: The name of the class.
        name: The keyword that it was given.
        known: The parameters that it has.
    """
    from .table import OPTIONS

    said = f"{kind}() has no parameter {name!r}"
    meant = [each for each in known if each in OPTIONS and name.lower() in OPTIONS[each].also]
    near = meant[0] if meant else nearest(name, known)
    return f"{said}; did you mean {near!r}?" if near else f"{said}; there are {', '.join(known)}"


def no_backend_option(field: object) -> str:
    """Say that no backend reads an option, and what to write instead."""
    said = f"backend_options has no option {field!r}"
    options = {name: each for name, each in fields_of(CacheConfig).items() if each.backends}
    if isinstance(field, str):
        for name, option in options.items():
            if field == option.name or field.lower() in option.also:
                return f"{said}; did you mean {name!r}?"
        near = nearest(field, options)
        if near:
            return f"{said}; did you mean {near!r}?"
    return f"{said}; there are {', '.join(options)}"


configs.say_no_field = no_field
