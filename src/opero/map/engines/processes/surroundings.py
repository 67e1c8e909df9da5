"""The interpreter settings that a worker takes on from the process that calls the map.

    in the parent, when a map begins: surroundings() -> in a worker, before it loads: take_on()

Only plain values travel, and they import nothing. Settings that the map's `worker_init` has changed
in a worker stay as they are there: `changed` lists them.
"""

from __future__ import annotations

import builtins
import faulthandler
import logging
import os
import re
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import worker_logs

try:
    import _locale
except ImportError:  # a Python built without it
    _locale = None  # type: ignore[assignment, unused-ignore]

_STATUS = "/proc/self/status"
_MASK = re.compile(rb"^Umask:\s*([0-7]+)", re.MULTILINE)

Own = frozenset[tuple[str, Any]]
"""What a worker has set itself: each setting's name, and the key if the setting has several."""


def surroundings() -> dict[str, Any]:
    """Return the settings of this process and of the calling thread."""
    return {
        "path": list(map(str, sys.path)),
        "folder": _folder(),
        "environ": dict(os.environ),
        "recursion": sys.getrecursionlimit(),
        "digits": sys.get_int_max_str_digits(),
        "switch": sys.getswitchinterval(),
        "bytecode": sys.dont_write_bytecode,
        "faults": faulthandler.is_enabled(),
        "timeout": socket.getdefaulttimeout(),
        "locale": None if _locale is None else _locale.setlocale(_locale.LC_ALL),
        "umask": _umask(),
        "decimal": _decimal(),
        "warnings": _filters(),
        **worker_logs.settings(),
    }


def take_on(given: dict[str, Any], own: Own = frozenset()) -> None:
    """Take on the settings of the process that calls the map.

    Args:
        given: What `surroundings` returned there.
        own: What this worker has set itself.
    """
    here = surroundings()
    path = given["path"]
    first = [each for each in here["path"] if ("path", each) in own and each not in path]
    given = {**given, "path": [*first, *path]}
    for name, setting in given.items():
        if isinstance(setting, dict) or here[name] == setting or (name, None) in own:
            continue
        try:
            _SETTERS[name](setting)
        except (AttributeError, OSError, OverflowError, RuntimeError, ValueError):
            pass  # the folder is gone, the system lacks the locale, or stderr is not a file
    _take_on_environment(given["environ"], own)
    levels = frozenset(key for name, key in own if name == "levels")
    worker_logs.take_on(given["levels"], given["handlers"], levels)


def changed(before: dict[str, Any], after: dict[str, Any]) -> Own:
    """Return the settings that differ from before."""
    found: set[tuple[str, Any]] = set()
    for name, old in before.items():
        new = after[name]
        if old == new:
            continue
        if name == "path":
            found.update((name, each) for each in new if each not in old)
        elif isinstance(old, dict):
            found.update((name, key) for key in {*old, *new} if old.get(key) != new.get(key))
        else:
            found.add((name, None))
    return frozenset(found)


def _take_on_environment(wanted: dict[str, str], own: Own) -> None:
    environ = dict(os.environ)
    if environ == wanted:
        return
    for name in {*environ, *wanted}:
        if ("environ", name) in own or environ.get(name) == wanted.get(name):
            continue
        if name in wanted:
            os.environ[name] = wanted[name]
        else:
            del os.environ[name]


# --- one setting each -----------------------------------------------------------------------------


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - a worker starts sooner without `pathlib`
    except OSError:
        return None


def _set_folder(folder: str | None) -> None:
    if folder is not None:
        os.chdir(folder)


def _set_path(path: list[str]) -> None:
    sys.path[:] = path


def _set_bytecode(unwritten: bool) -> None:
    sys.dont_write_bytecode = unwritten


def _set_faults(enabled: bool) -> None:
    if enabled and sys.stderr is not None:
        faulthandler.enable()
    elif not enabled:
        faulthandler.disable()


def _set_locale(name: str) -> None:
    try:
        _locale.setlocale(_locale.LC_ALL, name)
    except Exception as error:  # `locale.Error`, which is not worth an import
        raise ValueError(name) from error


def _umask() -> int | None:
    """Return the umask; None on systems where reading it would change it."""
    try:
        with open(_STATUS, "rb") as status:  # noqa: PTH123 - as above
            found = _MASK.search(status.read())
    except OSError:
        return None
    return None if found is None else int(found[1], 8)


def _set_umask(mask: int | None) -> None:
    if mask is not None:
        os.umask(mask)


def _decimal() -> list[Any] | None:
    """Return the decimal context of this thread; None if `decimal` is not imported."""
    decimal = sys.modules.get("decimal")
    if decimal is None:
        return None
    here = decimal.getcontext()
    traps = sorted(signal.__name__ for signal, on in here.traps.items() if on)
    return [here.prec, here.rounding, here.Emin, here.Emax, here.capitals, here.clamp, traps]


def _set_decimal(parts: list[Any] | None) -> None:
    import decimal

    if parts is None:
        decimal.setcontext(decimal.DefaultContext.copy())
        return
    precision, rounding, least, most, capitals, clamp, names = parts
    traps = [getattr(decimal, name) for name in names]
    context = decimal.Context(precision, rounding, least, most, capitals, clamp, [], traps)
    decimal.setcontext(context)


# --- the filters of warnings ----------------------------------------------------------------------


class _Named(type):
    """The metaclass of stand-ins for warning classes whose module is not imported here."""

    def __subclasscheck__(cls, category: type) -> bool:
        where = cls.__module__, cls.__qualname__
        return any((each.__module__, each.__qualname__) == where for each in category.__mro__)


def _filters() -> list[Any]:
    """Return the warning filters as plain values."""
    filters: Any = getattr(warnings, "_get_filters", lambda: warnings.filters)()
    found = []
    for each in list(filters):
        try:
            action, text, category, module, line = each
            where = [str(category.__module__), str(category.__qualname__)]
            found.append([str(action), _plain(text), where, _plain(module), int(line)])
        except (AttributeError, TypeError, ValueError):
            continue  # the program has inserted it by hand
    return found


def _plain(pattern: Any) -> Any:
    if pattern is None or isinstance(pattern, str):
        return None if pattern is None else str(pattern)
    return [str(pattern.pattern), int(pattern.flags)]


def _set_filters(filters: list[Any]) -> None:
    _replace(
        [
            (action, _pattern(text), _category(*where), _pattern(module), line)
            for action, text, where, module, line in filters
        ]
    )


@contextmanager
def lenient() -> Iterator[None]:
    """Ignore warnings that are errors otherwise: the program may have imported the same before.

    Filters that an import adds stay.
    """
    filters: Any = warnings.filters
    softened = [(("ignore", *each[1:]), each) for each in filters if each[0] == "error"]
    if not softened:
        yield
        return
    soft = {id(each): other for other, each in softened}
    hard = {id(other): each for other, each in softened}
    _replace([soft.get(id(each), each) for each in filters])
    try:
        yield
    finally:
        _replace([hard.get(id(each), each) for each in warnings.filters])


def _replace(filters: list[Any]) -> None:
    warnings.resetwarnings()  # this also forgets which warnings have been shown
    warnings.filters[:] = filters  # type: ignore[index]


def _pattern(plain: Any) -> Any:
    return re.compile(*plain) if isinstance(plain, list) else plain


def _category(module: str, name: str) -> Any:
    """Return a warning class, or a stand-in until its module is imported."""
    found: Any = builtins if module == "builtins" else sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type):
        return found
    return _Named(name, (Warning,), {"__module__": module, "__qualname__": name})


_SETTERS: dict[str, Any] = {
    "path": _set_path,
    "folder": _set_folder,
    "recursion": sys.setrecursionlimit,
    "digits": sys.set_int_max_str_digits,
    "switch": sys.setswitchinterval,
    "bytecode": _set_bytecode,
    "faults": _set_faults,
    "timeout": socket.setdefaulttimeout,
    "locale": _set_locale,
    "umask": _set_umask,
    "decimal": _set_decimal,
    "warnings": _set_filters,
    "captured": logging.captureWarnings,
}
