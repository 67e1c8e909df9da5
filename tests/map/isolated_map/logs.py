"""Functions that log, for maps in processes."""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
from typing import Any

log = logging.getLogger("jobs.inner")


class Loud:
    """Cannot be pickled, and logs when somebody tries."""

    def __repr__(self) -> str:
        return "<loud>"

    def __reduce__(self) -> Any:
        log.warning("pickled")
        raise TypeError("not this one")


def says(value: Any) -> Any:
    log.debug("debug %s", value)
    log.info("info %s of %d", "item", value)
    log.warning("warning %(value)d", {"value": value})
    return value


async def says_later(value: Any) -> Any:
    await asyncio.sleep(0)
    return says(value)


def enabled(_: Any) -> Any:
    return [level for level in (10, 20, 30, 40) if log.isEnabledFor(level)]


def says_odd_things(value: Any) -> Any:
    try:
        raise LookupError("inside")
    except LookupError:
        log.exception("failed %r", Loud(), extra={"plain": 3, "loud": Loud(), "many": [1, 2]})
    log.info(Loud())
    return value


def says_and_dies(value: Any) -> None:
    log.error("the last words of %d", value)
    os._exit(1)


def returns_loud(value: Any) -> Any:
    log.warning("before")
    return Loud() if value else value


def says_much(value: int) -> int:
    for number in range(value):
        log.warning("%d %s", number, "x" * 100)
    return value


def configures(path: str) -> str:
    if not logging.root.handlers:
        logging.basicConfig(filename=path, level=logging.INFO, format="here %(message)s")
    log.info("to my own file")
    return path


def has_own_stream(value: Any) -> Any:
    logger = logging.getLogger("jobs.stream")
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())
    logger.warning("once %d", value)
    return value


def forks(value: Any) -> Any:
    child = os.fork()
    if not child:
        log.error("from a child")
        os._exit(0)
    os.waitpid(child, 0)
    log.warning("from its parent")
    return value


def warns(value: Any) -> Any:
    warnings.warn(f"noise {value}", UserWarning, stacklevel=1)
    return value
