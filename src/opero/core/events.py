"""The events of calls, as the hot path sees them: counted here, reported by `opero.events`.

A hit, a miss or a permit must not cost a question to `logging` or to listeners. So `heeded` keeps
one answer for all of them, until any logger's level or any listener changes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from typing import Any

_DEBUG = 10
_WARNING = 30


class Events:
    """The one place through which all events go, for one half of opero.

    Attributes:
        logger: The logger.
        listeners: The listeners, by the kind of event; both halves share them.
        watched: Whether `forget` is called when a log level changes.
        heeded: 1 if anybody wants hits, misses or permits, 0 if nobody does, -1 if that is unknown.
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
        """Forget whether anybody wants hits, misses or permits."""
        self.changes += 1
        self.heeded = -1

    # --- on the hot path: called only if `heeded` is not 0 --------------------------------------

    def hit(self, call: Any) -> None:
        """Report that a call was answered from the cache."""
        if self.is_heeded():
            self.tell("hit", call)

    def miss(self, call: Any) -> None:
        """Report that a call found no value in the cache."""
        if self.is_heeded():
            self.tell("miss", call)

    def permit(self, call: Any, waited: float) -> None:
        """Report that an attempt got its permit after `waited` seconds."""
        if self.is_heeded():
            self.tell("permit_wait", call, seconds=waited)

    # --- when something went wrong --------------------------------------------------------------

    def retry(self, call: Any, attempts: Any, error: BaseException) -> None:
        """Count and report that an attempt failed and another round follows after a delay.

        Args:
            call: The call.
            attempts: The state of its attempts.
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
        """Count and report that an attempt failed and the next fallback value follows."""
        call.add("fallbacks", 1)
        if self.is_wanted("fallback"):
            self.tell_attempt("fallback", call, attempts, error, 0.0)

    def give_up(
        self, call: Any, attempts: Any, error: BaseException, reason: str | None = None
    ) -> None:
        """Report that no attempt follows the one that raised `error`."""
        if self.is_wanted("give_up"):
            self.tell_attempt("give_up", call, attempts, error, None, reason)

    def deadline(self, call: Any, attempts: Any, reason: str) -> None:
        """Report that a call has run out of time.

        Args:
            call: The call.
            attempts: The state of its attempts; None if none has failed.
            reason: What took, or would have taken, too long.
        """
        if self.is_wanted("deadline"):
            error = attempts.errors[-1] if attempts is not None and attempts.errors else None
            self.tell_attempt("deadline", call, attempts, error, None, reason, call.timeout / 1e9)

    def stale(self, call: Any, age: float, error: BaseException | None) -> None:
        """Report that a call was answered with an outdated value.

        Args:
            call: The call.
            age: How many seconds it has been outdated.
            error: What the run raised; None if another caller refreshes the value.
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
        """Report the end of a call that was retried or had to wait.

        Args:
            call: The call.
            attempts: The state of its attempts; None if none has failed.
            history: The fields of an `AttemptRecord`, for each attempt.
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
        """Report that a cached value was refreshed in the background before its end.

        Args:
            call: The call.
            seconds: How long the refresh took.
            error: What the run raised; None if there is a new value.
        """
        if self.is_wanted("refresh"):
            self.tell("refresh", call, seconds=seconds, error=error)

    def warn(self, name: str, text: str) -> None:
        """Log a warning that is not an event; `text` must contain no argument of a call."""
        if self.is_wanted(None):
            from opero.logs import warn

            warn("%s: %s", name, text)

    def not_cached(self, name: str, error: BaseException) -> None:
        """Log that a value of the function `name` cannot be cached."""
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
        """Report what follows a failed attempt."""
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

    # --- log and listeners ----------------------------------------------------------------------

    def tell(self, kind: str, source: Any, **fields: Any) -> None:
        """Log an event and call the listeners."""
        from opero.events import tell

        tell(kind, source.origin, **fields)

    def is_heeded(self) -> bool:
        """Return whether anybody wants hits, misses or permits; keep the answer if that is safe."""
        changes = self.changes
        heeded = self.logger.isEnabledFor(_DEBUG) or not self.listeners.keys().isdisjoint(
            ("hit", "miss", "permit_wait")
        )
        if self.watched:
            self.heeded = 1 if heeded else 0
            if self.changes != changes:  # changed meanwhile by another thread
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
