"""The exceptions that opero raises; every one is an `OperoError`.

An exception that carries other exceptions must survive a pickle, whatever its payload is. The
second half of this module makes sure of that.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class OperoError(RuntimeError):
    """Base of every exception that opero itself raises.

    Attributes:
        index: The position in the input, counted from 0, of the map item that failed; None if no
            item of a map failed.
        item: That item.
    """

    index: int | None = None
    item: Any = None


class _Failure(OperoError):
    """A failure that carries the errors of its attempts.

    Attributes:
        message: Description of the failure.
        errors: The exception of each failed attempt, in order.
    """

    message: str
    errors: list[Exception]
    _origin: Any = None  # the policy of the call; None if it failed in another process

    def __init__(self, message: str, errors: list[Exception] | None = None) -> None:
        """Keep the message and the attempts' errors.

        Args:
            message: Description of the failure.
            errors: The exception of each failed attempt, in order.
        """
        super().__init__(message)
        self.message = message
        self.errors = list(errors or ())

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_failure, (type(self), self.message, _pack(self.errors), _extras(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> _Failure:
        errors = [("whole", _deep_copy(error, memo)) for error in self.errors]
        extras = {name: _deep_copy(value, memo) for name, value in _extras(self).items()}
        return _rebuild_failure(type(self), self.message, errors, extras)


class AllFailedError(_Failure):
    """Every attempt failed; `errors` holds their exceptions, and `__cause__` is the last one."""


class DeadlineExceeded(_Failure, TimeoutError):
    """The call's `timeout` passed, or the next wait would have ended after it.

    `errors` holds the exceptions of the attempts so far.
    """


class BreakerOpenError(_Failure):
    """A circuit breaker is open and refused the call's next attempt.

    `errors` holds the exceptions of the call's earlier attempts.

    Attributes:
        retry_after: Seconds until the breaker may let an attempt through.
    """

    retry_after: float = 0.0
    _own: bool = False  # whether a caller with a later deadline might have waited


class CacheKeyError(OperoError, TypeError):
    """An argument cannot be encoded faithfully, so the call has no cache key."""


class UnsafePlaceError(OperoError, ValueError):
    """A directory or file that must be private is not: others own it, or can write to it."""


class ResultRejected(OperoError):
    """An attempt returned a value that `retry_on_result` rejected.

    Attributes:
        value: What the attempt returned. In a copy from another process it is None, with a note,
            if the value could not be pickled.
    """

    value: Any = None
    _origin: Any = None  # the policy of the call; None in a copy from another process

    def __init__(self, value: Any, origin: Any = None) -> None:
        """Keep the value. The message does not show it: it may be secret, or large.

        Args:
            value: What the attempt returned.
            origin: The policy of the call.
        """
        super().__init__(f"retry_on_result rejected a value of type {type(value).__name__}")
        self.value = value
        self._origin = origin

    def __reduce__(self) -> tuple[Any, ...]:
        extras = _extras(self)
        if "value" not in extras:
            notes = [*extras.get("__notes__", ()), "opero: the value could not be pickled"]
            extras["__notes__"] = notes
        return _rebuild_parts, (type(self), self.args, extras)


class WorkerCrashedError(OperoError):
    """A worker process died in the middle of an attempt.

    Attributes:
        message: Description of what happened.
        exitcode: The process's exit code; None if it is unknown.
        signal: The name of the signal that killed it, such as "SIGKILL"; None if no signal did.
    """

    def __init__(
        self, message: str, exitcode: int | None = None, signal: str | None = None
    ) -> None:
        """Keep what is known about how the process died.

        Args:
            message: Description of what happened.
            exitcode: The process's exit code; None if it is unknown.
            signal: The name of the signal that killed it; None if no signal did.
        """
        super().__init__(message, exitcode, signal)
        self.message = message
        self.exitcode = exitcode
        self.signal = signal

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        known = {"exitcode": self.exitcode, "signal": self.signal}
        told = [f", {name}={value!r}" for name, value in known.items() if value is not None]
        return f"{type(self).__name__}({self.message!r}{''.join(told)})"


class AttemptTimeout(OperoError, TimeoutError):
    """One attempt took longer than `attempt_timeout` and was stopped."""


class NotRun(OperoError):
    """The result of an item that did not run because `max_errors` ended the map.

    If the item had already failed and was waiting for a retry, `__cause__` is its last error. A
    stream raises `NotRun` at its end if input was left unread; `index` is then the position of the
    first item that was not read.
    """


class ErrorStandIn(OperoError):
    """Replaces an exception that cannot be pickled, and says which one it was."""


# --- carrying exceptions through a pickle -------------------------------------------------------
#
# Unpickling an exception calls `type(error)(*error.args)`, which fails for a class whose `__init__`
# takes other arguments than it passes to `super().__init__`. We rebuild such an exception without
# its `__init__`: same type, same args, same attributes.

if TYPE_CHECKING:
    _Packed = tuple[str, Any]


def _pack(errors: list[Exception]) -> list[_Packed]:
    return [_pack_one(error) for error in errors]


def _pack_one(error: BaseException) -> _Packed:
    import pickle

    if type(error) in {AllFailedError, BreakerOpenError, DeadlineExceeded} or _survives(error):
        return "whole", error
    parts = (type(error), error.args, _extras(error))
    try:
        _rebuild_parts(*pickle.loads(pickle.dumps(parts)))
    except Exception:  # noqa: BLE001 - the exception cannot travel, for any reason
        return "lost", f"{type(error).__module__}: {describe(error)}"
    return "parts", parts


def _deep_copy(value: Any, memo: dict[int, Any]) -> Any:
    """Return a copy of an error or an attribute, or the original if it cannot be copied."""
    import copy

    try:
        return copy.deepcopy(value, memo)
    except Exception:  # noqa: BLE001 - a user's class may raise anything
        if not isinstance(value, BaseException):
            return value
    kind, payload = _pack_one(value)
    return value if kind != "parts" else _rebuild_parts(*payload)


def _survives(error: BaseException) -> bool:
    """Return whether a plain pickle round trip restores `error`."""
    import pickle

    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - a user's __reduce__ or __init__ may raise anything
        return False
    try:
        return type(copy) is type(error) and bool(copy.args == error.args)
    except Exception:  # noqa: BLE001 - the arguments' own __eq__ may raise
        return False


def _extras(error: BaseException) -> dict[str, Any]:
    """Return the picklable attributes of `error`, except its message and errors."""
    import pickle

    extras = {}
    for name, value in vars(error).items():
        if isinstance(error, _Failure) and name in {"message", "errors"}:
            continue
        if name == "_origin" and isinstance(error, (_Failure, ResultRejected)):
            continue
        try:
            pickle.loads(pickle.dumps(value))
        except Exception:  # noqa: BLE001 - leave this attribute out
            continue
        extras[name] = value
    return extras


class Contained(Exception):
    """Wraps what user code raised if it is not an `Exception` and must fail only one item."""


def describe(error: BaseException) -> str:
    """Return the class and message of `error`, even if its `__str__` fails."""
    if isinstance(error, Contained):
        return describe(error.args[0])
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide the failure
        return f"{type(error).__name__} (its message cannot be shown)"


def with_article(word: str) -> str:
    """Return a word with "a" or "an" before it."""
    return f"{'an' if word[:1].lower() in 'aeiou' else 'a'} {word}"


def gave_up_by(error: BaseException, policy: Any) -> bool:
    """Return whether a call under `policy` gave up with `error`, or with one in its group.

    In a recursion, an outer call does not retry what an inner call of the same function gave up on.
    Otherwise the number of attempts would multiply at each level.
    """
    if isinstance(error, BaseExceptionGroup):
        return any(gave_up_by(each, policy) for each in error.exceptions)
    return isinstance(error, _Failure) and error._origin is policy


def belongs_to_one(error: BaseException, policy: Any) -> bool:
    """Return whether the error of a run concerns only the caller that made the run.

    That is so for an interrupt, a cancellation, the timeout of a greenlet or a test, the run's own
    deadline, and a stack that is too deep. A breaker refuses callers without time to wait; others
    may have time. Callers waiting for such a run start a new one.
    """
    if not isinstance(error, Exception) or isinstance(error, RecursionError):
        return True
    if isinstance(error, BreakerOpenError):
        return error._own and error._origin is policy
    return isinstance(error, DeadlineExceeded) and error._origin is policy


def note_attempts(error: BaseException, count: int) -> None:
    """Add a note to `error` that says how many attempts were made; replace an earlier such note.

    Args:
        error: What is raised again. If it accepts no notes, it gets none.
        count: The number of attempts.
    """
    note = f"opero: {count} attempt{' was' if count == 1 else 's were'} made"
    try:
        notes = getattr(error, "__notes__", None)
        if isinstance(notes, list):
            notes[:] = [each for each in notes if not _counts_attempts(each)]
        error.add_note(note)
    except Exception:  # noqa: BLE001 - a frozen or broken exception class
        return


def _counts_attempts(note: object) -> bool:
    return (
        isinstance(note, str)
        and note.startswith("opero: ")
        and note.endswith((" attempt was made", " attempts were made"))
    )


def _unpack(packed: list[_Packed]) -> list[Exception]:
    errors: list[Exception] = []
    for kind, payload in packed:
        if kind == "whole":
            errors.append(payload)
        elif kind == "parts":
            errors.append(_rebuild_parts(*payload))
        else:
            errors.append(ErrorStandIn(payload))
    return errors


def _rebuild_parts(
    kind: type[Exception], args: tuple[Any, ...], extras: dict[str, Any]
) -> Exception:
    error = _new(kind, args)
    BaseException.__setattr__(error, "args", args)  # the class may be frozen
    vars(error).update(extras)
    return error


def _new(kind: type[Exception], args: tuple[Any, ...]) -> Exception:
    """Create a `kind` without its `__init__`, with the first base whose memory layout fits."""
    for base in kind.__mro__:
        if "__new__" in vars(base):
            try:
                error: Exception = base.__new__(kind, *args)
            except TypeError:  # "not safe": a base further on has the larger layout
                continue
            return error
    raise TypeError(f"{kind.__qualname__} cannot be created without its __init__")


def _rebuild_failure(
    kind: type[_Failure], message: str, packed: list[_Packed], extras: dict[str, Any]
) -> _Failure:
    errors = _unpack(packed)
    error = _new(kind, (message,))
    assert isinstance(error, _Failure)
    _Failure.__init__(error, message, errors)
    vars(error).update(extras)
    if errors:
        error.__cause__ = errors[-1]
    return error
