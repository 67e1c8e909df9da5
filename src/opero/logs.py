"""The `opero` logger: silent until the program configures logging, or calls `configure_logging`."""

from __future__ import annotations

import logging
from typing import Any

_LOGGER = logging.getLogger("opero")
_LOGGER.addHandler(logging.NullHandler())
_journals: dict[str, Any] = {}


class _Levels(dict[int, bool]):
    """The logger's own memory of which levels are enabled.

    `logging` clears it whenever any level changes, and that is the moment to ask again.
    """

    def clear(self) -> None:
        super().clear()
        for events in _journals.values():
            events.forget()


_WATCHED = type(getattr(_LOGGER, "_cache", None)) is dict
if _WATCHED:
    _LOGGER._cache = _Levels()  # type: ignore[attr-defined]


def events(core: Any) -> Any:
    """Return the events that functions of this implementation write to.

    Args:
        core: A `hotpath.Core`.
    """
    kept = _journals.get(core.name)
    if kept is None:
        kept = _journals.setdefault(core.name, core.Events(_LOGGER, _WATCHED))
    return kept


def get_logger(name: str | None = None) -> logging.Logger:
    """Return opero's logger.

    Args:
        name: The name of a child of it; None for the logger itself.
    """
    return _LOGGER if name is None else _LOGGER.getChild(name)


def configure_logging(
    level: int | str = logging.INFO,
    format: str = "%(asctime)s %(levelname)s %(name)s: %(message)s",  # noqa: A002 - as in logging
) -> logging.Logger:
    """Write opero's log to standard error; calling it again changes level and format.

    Args:
        level: The lowest level to write, as in `logging`.
        format: The format of a line, as in `logging`.

    Returns:
        The logger.
    """
    for handler in _LOGGER.handlers:
        if handler.get_name() == "opero.configure_logging":
            break
    else:
        handler = logging.StreamHandler()
        handler.set_name("opero.configure_logging")
        _LOGGER.addHandler(handler)
    handler.setFormatter(logging.Formatter(format))
    _LOGGER.setLevel(level)
    return _LOGGER
