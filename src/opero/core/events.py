"""What happens in calls, as far as the hot path sees it: counted here, told by `opero.events`.

A hit, a miss and a permit must not pay for a question to `logging` or to listeners. So one answer
for all of them is kept in `heeded`, and forgotten when any logger's level or any listener changes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from typing import Any

_DEBUG = 10
_WARNING = 30


class Events:
    """The door that everything which happens goes through, for one half of opero.

    Attributes:
        logger: Where the log goes.
        listeners: Who listens, by the kind of the event; both halves share it.
        watched: Whether somebody calls `forget` when a level changes.
        heeded: 1 if anybody heeds hits, misses or permits, 0 if nobody does, -1 if that has to be
            asked.
        changes: How often `forget` was called.
    """

    __slots__ = ("changes", "heeded", "listeners", "logger", "watched")

    def __init__(self, logger: logging.Logger, listeners: dict[str, Any], watched: bool) -> None:
        self.logger: logging.Logger = logger
        self.listeners: dict[str, Any] = listeners
        self.watched: bool = watched
        self.heeded: int = -1
        self.changes: int = 0

    def forget(self) -> None:
        """Ask anew who heeds hits, misses and permits."""
        self.changes += 1
        self.heeded = -1

    # --- on the straight path: called only if `heeded` is not 0 ---------------------------------

    def hit(self, call: Any) -> None:
        """Tell that a call was answered from the cache."""
        if self.is_heeded():
            self.tell("hit", call)

    def miss(self, call: Any) -> None:
        """Tell that a call found no value in the cache."""
        if self.is_heeded():
            self.tell("miss", call)

    def permit(self, call: Any, waited: float) -> None:
        """Tell that an attempt got its permit after `waited` seconds."""
        if self.is_heeded():
            self.tell("permit_wait", call, seconds=waited)

    # --- when something went wrong --------------------------------------------------------------

    def retry(self, call: Any, attempts: Any, error: BaseException) -> None:
        """Count and tell that an attempt failed and another round follows after a delay.

        Args:
            call: The call.
            attempts: The account of its attempts.
            error: What the attempt raised.
        """
        call.add("retries", 1)
        if self.is_wanted("retry"):
            self.tell_attempt(
                "retry",
                call,
                attempts,
                error,
                attempts.delay / 1e9,
                "the server asked for this delay" if attempts.heeds else None,
            )

    def fallback(self, call: Any, attempts: Any, error: BaseException) -> None:
        """Count and tell that an attempt failed and the next fallback value follows at once."""
        call.add("fallbacks", 1)
        if self.is_wanted("fallback"):
            self.tell_attempt("fallback", call, attempts, error, 0.0)

    def give_up(
        self, call: Any, attempts: Any, error: BaseException, reason: str | None = None
    ) -> None:
        """Tell that no attempt follows the one that raised `error`."""
        if self.is_wanted("give_up"):
            self.tell_attempt("give_up", call, attempts, error, None, reason)

    def deadline(self, call: Any, attempts: Any, reason: str) -> None:
        """Tell that a call has run out of time.

        Args:
            call: The call.
            attempts: The account of its attempts; None if none has failed.
            reason: What took, or would have taken, too long.
        """
        if self.is_wanted("deadline"):
            error = attempts.errors[-1] if attempts is not None and attempts.errors else None
            self.tell_attempt("deadline", call, attempts, error, None, reason, call.timeout / 1e9)

    def stale(self, call: Any, age: float, error: BaseException | None) -> None:
        """Tell that a call was answered with an outdated value.

        Args:
            call: The call.
            age: For how many seconds it has been outdated.
            error: What the run raised; None if another caller renews the value.
        """
        if self.is_wanted("stale"):
            self.tell("stale", call, seconds=age, error=error)

    def call_end(
        self,
        call: Any,
        attempts: Any,
        history: list[Any],
        seconds: float,
        error: BaseException | None,
    ) -> None:
        """Tell that a call is over that was retried or had to wait.

        Args:
            call: The call.
            attempts: The account of its failures; None if none has failed.
            history: What an `AttemptRecord` is made of, for each attempt.
            seconds: How long the call took.
            error: What it raises.
        """
        if "call_end" in self.listeners:
            from opero.event import AttemptRecord

            self.tell(
                "call_end",
                call,
                of=call.policy.rounds * (1 if attempts is None else attempts.width),
                seconds=seconds,
                error=error,
                call=None if attempts is None else id(attempts),
                attempts=len(history),
                index=None if attempts is None else attempts.index,
                history=tuple([AttemptRecord(*each) for each in history]),
            )

    def refresh(self, call: Any, seconds: float, error: BaseException | None) -> None:
        """Tell that a cached value was renewed in the background before its end.

        Args:
            call: The call.
            seconds: How long that took.
            error: What the run raised; None if there is a new value.
        """
        if self.is_wanted("refresh"):
            self.tell("refresh", call, seconds=seconds, error=error)

    def warn(self, name: str, text: str) -> None:
        """Write a warning about a function that is no event: `text` holds no argument of a call."""
        if self.is_wanted(None):
            from opero.logs import warn

            warn("%s: %s", name, text)

    def not_cached(self, name: str, error: BaseException) -> None:
        """Write that a value of the function `name` cannot be cached."""
        self.warn(name, f"the value is not cached: {type(error).__name__}")

    def tell_attempt(
        self,
        kind: str,
        call: Any,
        attempts: Any,
        error: BaseException | None,
        delay: float | None = None,
        reason: str | None = None,
        seconds: float | None = None,
    ) -> None:
        """Tell what follows a failed attempt."""
        self.tell(
            kind,
            call,
            attempt=0 if attempts is None else len(attempts.errors),
            of=call.policy.rounds * (1 if attempts is None else attempts.width),
            delay=delay,
            seconds=seconds,
            error=error,
            reason=reason,
            call=None if attempts is None or not attempts.errors else id(attempts),
            index=None if attempts is None else attempts.index,
        )

    # --- who wants to know ----------------------------------------------------------------------

    def tell(self, kind: str, source: Any, **fields: Any) -> None:
        """Log an event and tell the listeners."""
        from opero.events import tell

        tell(kind, source.origin, **fields)

    def is_heeded(self) -> bool:
        """Return whether anybody heeds hits, misses or permits; remember it if that is safe."""
        changes = self.changes
        heeded = self.logger.isEnabledFor(_DEBUG) or not self.listeners.keys().isdisjoint(
            ("hit", "miss", "permit_wait")
        )
        if self.watched:
            self.heeded = 1 if heeded else 0
            if self.changes != changes:  # meanwhile, in another thread
                self.heeded = -1
        return heeded

    def is_wanted(self, kind: str | None) -> bool:
        """Return whether an event of this kind, or a warning, would reach anybody."""
        if kind in self.listeners:
            return True
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
