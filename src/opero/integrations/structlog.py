"""Events as structured entries of structlog.

    from opero.integrations import structlog

    structlog.instrument()

The name of an entry is, for example, `opero.retry`. It has the fields of its event (`opero.Event`)
that are not None. While this is on, these lines do not go to the logger `opero`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from opero import logs
from opero.event import Event
from opero.events import subscribe

_NAMES: Final = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning"}


def instrument(logger: Any = None, *, level: int = logging.INFO) -> Callable[[], None]:
    """Write events to structlog instead of the logger `opero`.

    Args:
        logger: The logger of structlog; None for `structlog.get_logger("opero")`.
        level: The lowest level to write. Below `logging.INFO`, hits and permits are written too,
            which slows each of them down.

    Returns:
        A function that switches it off. You may call it more than once.

    Raises:
        ImportError: If structlog is not installed.
    """
    if logger is None:
        try:
            import structlog
        except ImportError as error:
            raise ImportError(
                "opero's entries for structlog need structlog: pip install 'structlog>=24.1'",
                name="structlog",
            ) from error
        logger = structlog.get_logger("opero")
    kinds = [kind for kind, usual in logs.LEVELS.items() if usual >= level]

    def write(event: Event) -> None:
        at = logs.level_of(event)
        if at >= level:
            with logs.in_room():  # a bar makes room for it
                getattr(logger, _NAMES[at])(f"opero.{event.kind}", **_fields_of(event))

    unsubscribe = subscribe(write, *kinds)
    resume = logs.divert(kinds)

    def end() -> None:
        resume()  # first, so that an event at this moment is logged twice rather than not at all
        unsubscribe()

    return end


def _fields_of(event: Event) -> dict[str, Any]:
    """Return the fields of an event that are not None; an error as text, as in the log."""
    fields = logs.fields_of(event)
    del fields["kind"]
    return {name: value for name, value in fields.items() if value is not None}
