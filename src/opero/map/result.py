"""What a map returns: the list of its results, with a report on the batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple, Self, TypeVar

from opero.exceptions import AllFailedError, NotRun, _pack_one, _unpack

R = TypeVar("R")


class FailedItem(NamedTuple):
    """An item of a map that failed for good.

    Attributes:
        index: Its position in the input, counted from 0.
        item: The item; None in a copy whose item could not be pickled.
        error: Its exception.
    """

    index: int  # type: ignore[assignment] # hides tuple.index
    item: Any
    error: BaseException


class MapResult(list[R]):
    """The results of a map: a list, with a report on the batch.

    It compares, prints and serializes to JSON like any list; a slice of it is a plain list. You
    can pickle it, even if exceptions in it cannot be pickled.

    Attributes:
        failures: The items that failed for good, each a `FailedItem`, in input order.
        complete: Whether every item ran, successfully or not; False if `max_errors` ended the map
            early.
        attempts: How many attempts were made; cache hits need none.
        retried: How many of these attempts followed a failed one.
        seconds: How long the map took.
        function: The name of the function.
    """

    __slots__ = ("attempts", "complete", "failures", "function", "retried", "seconds")

    def __init__(
        self,
        results: Iterable[R] = (),
        failures: Iterable[FailedItem] = (),
        complete: bool = True,
        attempts: int = 0,
        retried: int = 0,
        seconds: float = 0.0,
        function: str = "a map",
    ) -> None:
        """Store the outcome of a map.

        Args:
            results: The results.
            failures: The items that failed for good.
            complete: Whether every item ran.
            attempts: How many attempts were made.
            retried: How many of these attempts followed a failed one.
            seconds: How long it took.
            function: The name of the function.
        """
        super().__init__(results)
        self.failures: list[FailedItem] = list(failures)
        self.complete: bool = complete
        self.attempts: int = attempts
        self.retried: int = retried
        self.seconds: float = seconds
        self.function: str = function

    def summary(self) -> str:
        """Return one line about the batch: how many succeeded, failed (by type), were retried."""
        failed = len(self.failures)
        not_run = 0 if self.complete else sum(isinstance(_outcome(each), NotRun) for each in self)
        run = len(self) - not_run
        rate = f", {_short(run / self.seconds)} per second" if self.seconds > 0 else ""
        parts = [f"{run - failed} succeeded"]
        if failed:
            kinds = Counter(_kind(each.error) for each in self.failures)
            told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
            parts.append(f"{failed} failed ({told})")
        if not_run:
            parts.append(f"{not_run} not run")
        if not self.complete:
            parts.append("stopped early")
        parts.append(f"{self.attempts} attempt{'' if self.attempts == 1 else 's'}")
        if self.retried:
            parts[-1] += f", {self.retried} of them retries"
        count = f"{len(self)} item{'' if len(self) == 1 else 's'}"
        return f"{self.function}: {count} in {_short(self.seconds)} s{rate}: {', '.join(parts)}"

    def __copy__(self) -> Self:
        return self._with(self, self.failures)

    def __reduce__(self) -> tuple[Any, ...]:
        packed: dict[int, _Packed] = {}
        results = [_packed(each, packed) for each in self]
        failures = [
            (index, _portable(item), _packed(error, packed)) for index, item, error in self.failures
        ]
        figures = self.complete, self.attempts, self.retried, self.seconds, self.function
        return _rebuild, (type(self), results, failures, figures)

    def _with(self, results: Iterable[R], failures: Iterable[FailedItem]) -> Self:
        figures = self.complete, self.attempts, self.retried, self.seconds, self.function
        return type(self)(results, failures, *figures)


class _Packed:
    """Wraps an exception in a pickle; unpickling returns the exception itself."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (_pack_one(self._error),)


def _unpacked(packed: Any) -> BaseException:
    return _unpack([packed])[0]


def _packed(value: Any, packed: dict[int, _Packed]) -> Any:
    """Return what to pickle for a result; the same object for the same exception."""
    if isinstance(value, BaseException):
        return packed.setdefault(id(value), _Packed(value))
    if type(value) is tuple and len(value) == 2 and isinstance(value[1], BaseException):
        return _portable(value[0]), _packed(value[1], packed)  # from `with_items`
    return value


def _portable(item: Any) -> Any:
    """Return the item of a failure, or None if it cannot be pickled."""
    import pickle

    try:
        pickle.dumps(item)
    except Exception:  # noqa: BLE001 - a user's __reduce__ may raise anything
        return None
    return item


def _rebuild(
    kind: type[MapResult[Any]], results: list[Any], failures: list[Any], figures: tuple[Any, ...]
) -> MapResult[Any]:
    return kind(results, [FailedItem(*each) for each in failures], *figures)


def _outcome(result: Any) -> Any:
    """Return a result without its item, if it has one."""
    return result[1] if type(result) is tuple and len(result) == 2 else result


def _kind(error: BaseException) -> str:
    """Return the exception type that says why an item failed: that of its last attempt."""
    if isinstance(error, AllFailedError) and error.errors:
        error = error.errors[-1]
    return type(error).__name__


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
