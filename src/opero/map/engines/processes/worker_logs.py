"""The logs of workers: their records go to the handlers of the process that called the map.

    a logger in a worker -> its own handlers that the parent does not have
                         -> if none: `packed` -> the channel -> `deliver` -> the parent's logger

A worker uses the levels of the parent's loggers (see `settings`), so it creates no records that the
parent would drop. Plain values in a record travel as they are; the worker formats the rest.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from typing import Any

from opero.logs import in_room
from opero.map.serialization.pickles import dumps

_PLAIN = frozenset({bool, bytes, complex, float, int, str, type(None)})
_FORMATTER = logging.Formatter()
_NOT_SENT = frozenset({"args", "asctime", "exc_info", "message", "msg", "relativeCreated"})

_send: Callable[[bytes], None] | None = None
"""The function that sends a packed record to the parent; None outside workers."""
_parents: dict[str, list[str]] = {}
"""The handlers of the parent's loggers; see `_destination`."""


# --- in the process that calls the map ------------------------------------------------------------


def settings() -> dict[str, Any]:
    """Return the settings that decide which records this process creates, and where they go.

    Returns:
        `levels`: the levels of loggers by name, and the level set by `logging.disable` as `None`;
        `handlers`: where the handlers of loggers write to; `captured`: whether warnings are logged.
    """
    root = logging.root
    loggers = {root.name: root, **root.manager.loggerDict}
    levels: dict[str | None, int] = {None: int(root.manager.disable)}
    handlers: dict[str, list[str]] = {}
    for name, each in loggers.items():
        if isinstance(each, logging.Logger):
            if each.level or each is root:
                levels[str(name)] = int(each.level)
            if each.handlers:
                handlers[str(name)] = [_destination(handler) for handler in each.handlers]
    captured = getattr(logging, "_warnings_showwarning", None) is not None
    return {"levels": levels, "handlers": handlers, "captured": captured}


def deliver(body: bytes | bytearray) -> None:
    """Give a worker's record to the logger of the same name in this process."""
    plain, extras = pickle.loads(body)
    record = logging.makeLogRecord({})
    start = record.created - record.relativeCreated / 1000  # of `logging` in this process
    vars(record).update(plain)
    record.relativeCreated = 1000 * (record.created - start)
    try:
        vars(record).update(pickle.loads(extras))
    except Exception:  # noqa: BLE001 - a user's class may raise anything
        pass
    logger = logging.getLogger(record.name)
    try:
        if logger.isEnabledFor(record.levelno):
            with in_room():
                logger.handle(record)
    except Exception:  # noqa: BLE001 - a user's filter must not end the map
        logging.Handler().handleError(record)


# --- in a worker ----------------------------------------------------------------------------------


def begin(send: Callable[[bytes], None], inherited: bool) -> None:
    """From now on, send the parent each record that no handler of this process takes.

    Args:
        send: Sends a packed record; raises `OSError` if the parent is gone.
        inherited: Whether a fork copied the present handlers from the parent.
    """
    global _send  # noqa: PLW0603 - there is one parent
    if inherited:
        for each in (logging.root, *logging.root.manager.loggerDict.values()):
            if isinstance(each, logging.Logger):
                each.handlers = [one for one in each.handlers if _is_null(one)]
    _send = send
    logging.Logger.callHandlers = _call_handlers  # type: ignore[method-assign, assignment]


def end() -> None:
    """Stop sending: this is a child that the worker has forked."""
    global _send  # noqa: PLW0603 - as above
    _send = None


def take_on(
    levels: dict[str | None, int], handlers: dict[str, list[str]], own: frozenset[str | None]
) -> None:
    """Take on the levels of the parent's loggers.

    Args:
        levels: The parent's levels, as `settings` returns them.
        handlers: The parent's handlers.
        own: The loggers whose levels this worker has set itself.
    """
    _parents.clear()
    _parents.update(handlers)
    before = settings()["levels"]
    for name in {*before, *levels} - own:
        level = levels.get(name, logging.NOTSET)
        if before.get(name, logging.NOTSET) == level:
            continue
        if name is None:
            logging.disable(level)
        else:
            logging.getLogger(name).setLevel(level)


def _call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
    """Give a record to the handlers that only this worker has; send it if there are none."""
    handled = sent = False
    current: logging.Logger | None = logger
    while current is not None:
        theirs = _parents.get(current.name)
        for handler in current.handlers:
            if _is_null(handler):
                continue
            if theirs is not None and _destination(handler) in theirs:
                sent = True
                continue
            handled = True
            if record.levelno >= handler.level:
                handler.handle(record)
        current = current.parent if current.propagate else None
    if sent or not handled:
        _give_away(record)


def _give_away(record: logging.LogRecord) -> None:
    try:
        if _send is not None:
            _send(packed(record))
            return
    except OSError:
        pass  # the parent has closed its end, because the worker is ending
    except Exception:  # noqa: BLE001 - the arguments do not fit the message
        logging.Handler().handleError(record)
        return
    last = logging.lastResort
    if last is not None and record.levelno >= last.level:
        last.handle(record)


def packed(record: logging.LogRecord) -> bytes:
    """Return a record as bytes."""
    plain: dict[str, Any] = {"msg": record.msg, "args": record.args, "exc_info": None}
    if type(record.msg) is not str or not _are_plain(record.args):
        plain.update(msg=record.getMessage(), args=None)
    if record.exc_info and not record.exc_text:
        record.exc_text = _FORMATTER.formatException(record.exc_info)
    extras = {}
    for name, value in vars(record).items():
        if name in _NOT_SENT:
            continue
        if type(value) in _PLAIN:
            plain[name] = value
            continue
        try:
            dumps(value)
            extras[name] = value
        except Exception:  # noqa: BLE001 - a user's object may raise anything
            plain[name] = repr(value)
    return pickle.dumps((plain, dumps(extras)), 5)


def _are_plain(args: Any) -> bool:
    if type(args) is dict:
        return _PLAIN.issuperset(map(type, args)) and _PLAIN.issuperset(map(type, args.values()))
    return args is None or (type(args) is tuple and _PLAIN.issuperset(map(type, args)))


def _is_null(handler: Any) -> bool:
    return isinstance(handler, logging.NullHandler)


def _destination(handler: Any) -> str:
    """Name a handler and its target; the name is the same in all processes of a program."""
    kind = type(handler)
    file = getattr(handler, "baseFilename", None)
    where = getattr(getattr(handler, "stream", None), "name", "") if file is None else file
    where = str(where).strip("<>")  # a notebook's streams have no brackets
    return f"{kind.__module__}.{kind.__qualname__} {where}"
