"""The `opero` logger: silent until the program configures logging, or calls `configure_logging`.

A record is always one line, whatever text names, errors and servers contain. It also carries the
fields of its event (`extra`), for handlers that write JSON. Neither holds arguments of calls.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from . import forks
from .exceptions import describe
from .real_time import monotonic

if TYPE_CHECKING:
    from .event import Event

LOGGER: Final = logging.getLogger("opero")
LOGGER.addHandler(logging.NullHandler())

LEVELS: Final = {
    "hit": logging.DEBUG,
    "permit_wait": logging.DEBUG,
    "rate_cut": logging.INFO,
    "limit_lost": logging.WARNING,
    "retry": logging.WARNING,
    "fallback": logging.WARNING,
    "give_up": logging.WARNING,
    "deadline": logging.WARNING,
    "stale": logging.WARNING,
    "breaker": logging.WARNING,
    "refresh": logging.WARNING,
    "store_down": logging.WARNING,
    "store_up": logging.INFO,
    "worker_crash": logging.WARNING,
    "map_start": logging.DEBUG,
    "map_end": logging.DEBUG,
}
"""The level of each kind of event; other kinds are not logged."""

FIELDS: Final = (
    "kind",
    "function",
    "module",
    "namespace",
    "backend",
    "mode",
    "attempt",
    "of",
    "delay",
    "seconds",
    "error",
    "reason",
    "call",
    "store",
    "worker",
    "workers",
    "items",
    "failed",
    "attempts",
    "retried",
    "index",
    "breaker",
    "state",
    "rate",
)
"""The fields of an event that every record has too, with the prefix `opero_`."""

_LONGEST: Final = 1000
_watchers: list[Callable[[], object]] = []
_diverted: list[str] = []


class _Levels(dict[int, bool]):
    """The logger's cache of enabled levels.

    `logging` clears it whenever any level changes, which tells us to check the levels again.
    """

    def clear(self) -> None:
        super().clear()
        for watcher in _watchers:
            watcher()


WATCHED: Final = type(getattr(LOGGER, "_cache", None)) is dict
"""Whether opero notices a change of levels."""

if WATCHED:
    LOGGER._cache = _Levels()  # type: ignore[attr-defined]


def when_levels_change(watcher: Callable[[], object]) -> None:
    """Call `watcher` whenever the level of any logger changes, if `WATCHED`."""
    _watchers.append(watcher)


def is_logged(kind: str) -> bool:
    """Return whether events of this kind are logged and their level is enabled."""
    level = LEVELS.get(kind)
    return level is not None and kind not in _diverted and LOGGER.isEnabledFor(level)


def divert(kinds: Iterable[str]) -> Callable[[], None]:
    """Stop logging events of some kinds, because the caller logs them.

    Args:
        kinds: The kinds.

    Returns:
        A function that resumes logging; you may call it more than once.
    """
    left = list(kinds)
    _diverted.extend(left)

    def resume() -> None:
        while left:
            _diverted.remove(left.pop())

    return resume


def level_of(event: Event) -> int:
    """Return the level of an event whose kind is logged."""
    if event.error is None and event.kind in {"stale", "refresh"}:
        return logging.DEBUG  # not a failure
    if event.kind == "breaker" and event.state != "open":
        return logging.INFO
    return LEVELS[event.kind]


class Screen(Protocol):
    """Something drawn in the terminal, such as a progress bar, that makes room for log lines."""

    def hide(self) -> None:
        """Clear the line; may be called again before `show`, and from any thread."""

    def show(self) -> None:
        """Draw it again, once `show` was called as often as `hide`."""


_screens: dict[int, Screen] = {}
_writing: list[None] = []  # an element for each line that is being written

_MOMENT: Final = 0.1
"""The longest time, in seconds, that a screen waits for lines begun before it."""


def _forget() -> None:
    _screens.clear()
    _writing.clear()


forks.register("screens", after_in_child=_forget)


def make_room(screen: Screen) -> None:
    """Hide `screen` whenever a line is written, until `take_room`.

    You may draw it as soon as this returns: lines begun earlier have been written by then.
    """
    _screens[id(screen)] = screen
    end = monotonic() + _MOMENT
    while _writing and monotonic() < end:
        time.sleep(0.0005)


def take_room(screen: Screen) -> None:
    """Forget `screen`, which is gone."""
    _screens.pop(id(screen), None)


@contextmanager
def in_room() -> Iterator[None]:
    """Hide all screens while something is written to the log."""
    _writing.append(None)
    try:
        screens = tuple(_screens.values())
        for screen in screens:
            screen.hide()
        try:
            yield
        finally:
            for screen in reversed(screens):
                screen.show()
    finally:
        _writing.pop()


def _log(level: int, template: str, given: Sequence[Any], extra: dict[str, Any]) -> None:
    values = [_on_one_line(value) for value in given]
    _writing.append(None)  # before we read the screens: a screen that comes later waits
    try:
        if not _screens:
            LOGGER.log(level, template, *values, extra=extra)
            return
    finally:
        _writing.pop()
    if LOGGER.isEnabledFor(level):
        with in_room():
            LOGGER.log(level, template, *values, extra=extra)


def write(event: Event) -> None:
    """Write an event whose kind is logged to the log."""
    level = level_of(event)
    if not LOGGER.isEnabledFor(level):
        return
    fields = fields_of(event)
    template, values = _line_of(event, fields["error"])
    _log(level, template, values, {f"opero_{name}": value for name, value in fields.items()})


def fields_of(event: Event) -> dict[str, Any]:
    """Return the `FIELDS` of an event for a log: text on one line, an error as text."""
    fields = {name: _on_one_line(getattr(event, name)) for name in FIELDS}
    if event.error is not None:
        fields["error"] = one_line(describe(event.error))
    return fields


def warn(template: str, *values: Any) -> None:
    """Write a warning that is not an event.

    Args:
        template: The text, as in `logging`.
        *values: The values to fill in.
    """
    _log(logging.WARNING, template, values, dict.fromkeys(_EXTRA))


def is_heard() -> bool:
    """Return whether a handler would get a warning; it has none before logging is set up."""
    logger: logging.Logger | None = LOGGER
    while logger is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def inform(template: str, *values: Any) -> None:
    """Write a line at INFO that is not an event; takes the same arguments as `warn`."""
    _log(logging.INFO, template, values, dict.fromkeys(_EXTRA))


_EXTRA: Final = tuple(f"opero_{name}" for name in FIELDS)


def one_line(text: str) -> str:
    """Return a text as one line: escape unprintable characters, and cut the end if it is long."""
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + "..."
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def _on_one_line(value: Any) -> Any:
    return one_line(value) if isinstance(value, str) else value


def _line_of(event: Event, error: str | None) -> tuple[str, tuple[Any, ...]]:
    """Return the line of an event, as a template and the values to fill in.

    Args:
        event: The event.
        error: Its error as text.
    """
    name = "a call" if event.function is None else event.function
    if event.index is not None:
        name = f"{name}: item {event.index}"
    why = event.reason or ""
    failed = name, event.attempt, event.of, error
    match event.kind:
        case "hit":
            return "%s: cache hit", (name,)
        case "permit_wait":
            return "%s: waited %.3f s for a permit", (name, event.seconds)
        case "rate_cut":
            template = "%s: the server rejects attempts; the rate is now %.3g per second"
            return template, (event.store, event.rate)
        case "limit_lost":
            template = (
                "%s: the server lost its record, by eviction or a flush; the processes that use it "
                "restore it (use a server with maxmemory-policy noeviction)"
            )
            return template, (event.store,)
        case "retry":
            return (
                "%s: attempt %d of %d failed with %s; retrying in %.3f s%s",
                (*failed, event.delay, why and ", as the server asked"),
            )
        case "fallback":
            template = "%s: attempt %d of %d failed with %s; trying the next fallback value"
            return template, failed
        case "give_up":
            template = "%s: attempt %d of %d failed with %s; giving up%s"
            return template, (*failed, why and f", as {why}")
        case "deadline":
            last = error and f"; the last error: {error}"
            return "%s: out of time after %g s: %s%s", (name, event.seconds, why, last or "")
        case "stale" if error is None:
            template = "%s: another caller is renewing the value; serving the last one"
            return template, (name,)
        case "stale":
            template = "%s: the run failed with %s; serving the last value, outdated for %.1f s"
            return template, (name, error, event.seconds)
        case "breaker":
            template = "the circuit breaker %s is %s: %s"
            return template, (event.breaker, (event.state or "").replace("_", "-"), why)
        case "refresh" if error is None:
            return "%s: renewed a cached value in %.3f s", (name, event.seconds)
        case "refresh":
            template = "%s: renewing a cached value failed with %s after %.3f s; it stays valid"
            return template, (name, error, event.seconds)
        case "store_down":
            return "%s is unavailable (%s); %s", (event.store, error, why)
        case "store_up":
            return (
                "%s works again after %.1f s; operations that failed or were skipped: %d",
                (event.store, event.seconds, event.failed),
            )
        case "worker_crash":
            return "%s: worker %d of the map: %s", (name, event.worker, error)
        case "map_start":
            return (
                "%s: a map of %s begins; mode %s, %d workers",
                (name, _counted(event.items), event.mode, event.workers),
            )
        case _:
            return (
                "%s: a map of %s ends after %.3f s, %d failed%s",
                (name, _counted(event.items), event.seconds, event.failed, why and f"; {why}"),
            )


def _counted(items: int | None) -> str:
    if items is None:
        return "an unknown number of items"
    return f"{items} item{'' if items == 1 else 's'}"


def get_logger(name: str | None = None) -> logging.Logger:
    """Return opero's logger.

    Args:
        name: The name of a child logger; None for the logger itself.
    """
    return LOGGER if name is None else LOGGER.getChild(name)


def configure_logging(
    level: int | str = logging.INFO,
    format: str = "%(asctime)s %(levelname)s %(name)s: %(message)s",  # noqa: A002 - as in logging
) -> logging.Logger:
    """Write opero's log to standard error; call it again to change level and format.

    Args:
        level: The lowest level to write, as in `logging`.
        format: The format of a line, as in `logging`.

    Returns:
        The logger.
    """
    for handler in LOGGER.handlers:
        if handler.get_name() == "opero.configure_logging":
            break
    else:
        handler = logging.StreamHandler()
        handler.set_name("opero.configure_logging")
        LOGGER.addHandler(handler)
    handler.setFormatter(logging.Formatter(format))
    LOGGER.setLevel(level)
    return LOGGER
