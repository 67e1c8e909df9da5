"""What opero writes to its logger: names, numbers and errors, never arguments.

Hits and permits are written at DEBUG, and a hit must not pay for a question to `logging`. So the
answer is kept in `debug`, and forgotten when `logs` sees that any logger's level has changed.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging

_DEBUG = 10
_WARNING = 30


class Events:
    """Writes to one logger.

    Attributes:
        logger: Where to.
        debug: 1 if DEBUG is enabled, 0 if not, -1 if that has to be asked.
        watched: Whether somebody resets `debug` to -1 when a level changes.
    """

    __slots__ = ("debug", "logger", "watched")

    def __init__(self, logger: logging.Logger, watched: bool) -> None:
        self.logger: logging.Logger = logger
        self.watched: bool = watched
        self.debug: int = -1

    def forget(self) -> None:
        """Ask anew whether DEBUG is enabled."""
        self.debug = -1

    def hit(self, name: str) -> None:
        """Write that a call of `name` was answered from the cache."""
        if self.listens():
            self.logger.debug("%s: cache hit", name)

    def permit(self, name: str, waited: float) -> None:
        """Write that an attempt of `name` got its permit after `waited` seconds."""
        if self.listens():
            self.logger.debug("%s: permit after %.3f s", name, waited)

    def retry(
        self, name: str, attempt: int, delay: float, error: BaseException, asked: bool = False
    ) -> None:
        """Write that attempt number `attempt` failed and another follows after `delay` seconds.

        Args:
            name: The function's name.
            attempt: The number of the attempt.
            delay: The seconds.
            error: What the attempt raised.
            asked: Whether it is the server that asked for this delay.
        """
        if self.warns():
            self.logger.warning(
                "%s: attempt %d failed with %s: %s; retrying in %.3f s%s",
                name,
                attempt,
                type(error).__name__,
                error,
                delay,
                ", as the server asked" if asked else "",
            )

    def fallback(self, name: str, attempt: int, error: BaseException) -> None:
        """Write that attempt number `attempt` failed and the next fallback value follows."""
        if self.warns():
            self.logger.warning(
                "%s: attempt %d failed with %s: %s; trying the next fallback value",
                name,
                attempt,
                type(error).__name__,
                error,
            )

    def unanswered(self, name: str, trouble: str) -> None:
        """Write that `retry_after` of `name` gave no answer that could be used."""
        self.logger.warning("%s: retry_after is not heeded: %s", name, trouble)

    def unstored(self, name: str, error: BaseException) -> None:
        """Write that a value of `name` could not be stored."""
        self.logger.warning("%s: the value is not cached: %s", name, type(error).__name__)

    def listens(self) -> bool:
        """Tell whether DEBUG is enabled, and remember the answer if that is safe."""
        enabled = self.logger.isEnabledFor(_DEBUG)
        if self.watched:
            self.debug = 1 if enabled else 0
        return enabled

    def warns(self) -> bool:
        """Tell whether a warning would reach anybody; a record that nobody reads is dear."""
        if not self.logger.isEnabledFor(_WARNING):
            return False
        from logging import NullHandler

        logger: logging.Logger | None = self.logger
        while logger is not None:
            for handler in logger.handlers:
                if not isinstance(handler, NullHandler):
                    return True
            logger = logger.parent if logger.propagate else None
        return False
