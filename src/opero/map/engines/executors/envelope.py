"""A job on its way to a worker, and the reply."""

from __future__ import annotations

import itertools
import os
from typing import Any

from opero.map.engines.base import beyond_retry
from opero.map.engines.threads import attempt
from opero.map.loading import loading
from opero.map.output import NOTHING
from opero.map.serialization.errors import pack_error, unpack_error
from opero.map.serialization.function_payload import Elsewhere, FunctionPayload, load
from opero.map.serialization.pickles import Packed, pack_all, unpack_all
from opero.real_time import perf_counter_ns

Failures = list[tuple[int, BaseException]]


class Envelope:
    """A job as it is submitted; outside this process it becomes a `PackedEnvelope`.

    Args:
        payload: The function.
        values: The items.
        invoked: Whether they are invocations.
        whole: Whether to send the function along, however large it is.
        patience: Nanoseconds after which a failure ends the job; 0 for never.
    """

    _serials = itertools.count()

    def __init__(
        self,
        payload: FunctionPayload,
        values: list[Any],
        invoked: bool,
        whole: bool,
        patience: int,
    ) -> None:
        self._payload = payload
        self._values = values
        self._invoked = invoked
        self._whole = whole
        self._patience = patience
        self._serial = f"{os.getpid()}-{id(payload)}-{next(self._serials)}-{os.urandom(8).hex()}"

    def run(self) -> Reply:
        """Make the attempts in this process."""
        payload = self._payload
        if payload.abandoned:
            return Reply([], [], 0)
        begun = perf_counter_ns()
        function = payload.invoke if self._invoked else payload.function
        results, failures = payload.context.copy().run(
            attempt, function, self._values, self._patience
        )
        return Reply(results, failures, perf_counter_ns() - begun)

    def __reduce__(self) -> tuple[Any, ...]:
        name, payload = self._payload.pack(self._whole)
        packed = pack_all(self._values, "the item", apart=self._payload.apart)
        count = len(self._values)
        return PackedEnvelope, (name, payload, count, packed, self._invoked, self._patience)

    def __dask_tokenize__(self) -> str:
        """Give dask a distinct token for each envelope: it runs equal ones only once."""
        return self._serial


class PackedEnvelope:
    """A job that a worker has received as a pickle, with the pickle of its function.

    Args:
        name: The name of the payload.
        payload: The pickle of the function and the shared arguments; None to send only the name.
        count: How many items there are.
        packed: The items.
        invoked: Whether they are invocations.
        patience: Nanoseconds after which a failure ends the job; 0 for never.
    """

    def __init__(
        self,
        name: bytes,
        payload: bytes | None,
        count: int,
        packed: Packed,
        invoked: bool,
        patience: int,
    ) -> None:
        self._name = name
        self._payload = payload
        self._count = count
        self._packed_items = packed
        self._invoked = invoked
        self._patience = patience

    def __reduce__(self) -> tuple[Any, ...]:
        known = (self._name, self._payload, self._count, self._packed_items, self._invoked)
        return PackedEnvelope, (*known, self._patience)

    def run(self) -> Reply | Wanting:
        """Unpickle, and make the attempts."""
        begun = perf_counter_ns()
        try:
            with loading():
                loaded = load(self._name, self._payload)
        except Elsewhere as error:
            return Wanting(error.module)
        except Exception as error:  # noqa: BLE001 - a user's module may raise anything
            return Reply(*all_failed(self._count, error))
        if loaded is None:
            return Wanting()
        function = loaded[self._invoked]
        with loading():
            values, failures = unpack_all(self._packed_items, "the item, in a worker,")
        refused = {place for place, _ in self._packed_items[1]}
        for place, failure in failures:
            if place in refused:
                beyond_retry(failure)
        missing = {place for place, _ in failures}
        places = [place for place in range(self._count) if place not in missing]
        given = [values[place] for place in places] if missing else values
        results, failed = attempt(function, given, self._patience)
        failures += [(places[place], error) for place, error in failed]
        if missing:
            count = self._count if len(results) == len(given) else places[len(results) - 1] + 1
            found = dict(zip(places, results, strict=False))
            results = [found.get(place, NOTHING) for place in range(count)]
            failures = [failure for failure in failures if failure[0] < count]
        failures.sort(key=_first)
        return Reply(results, failures, perf_counter_ns() - begun)


class Wanting:
    """The answer of a worker that needs the function but received only its name.

    Attributes:
        apart: The name of a module that differs from the one that the worker imports, or None.
    """

    def __init__(self, apart: str | None = None) -> None:
        """Say which module differs, if one does."""
        self.apart: str | None = apart


class Reply:
    """The outcome of a job; from another process it arrives as a `PackedReply`.

    Args:
        results: What each attempt returned; `NOTHING` where one failed.
        failures: The failures, by place.
        elapsed: How long the job ran, in nanoseconds.
    """

    def __init__(self, results: list[Any], failures: Failures, elapsed: int) -> None:
        self._results = results
        self._failures = failures
        self._elapsed = elapsed

    def open(self) -> tuple[list[Any], Failures, int]:
        """Return the results, the failures and the time."""
        return self._results, self._failures, self._elapsed

    def __reduce__(self) -> tuple[Any, ...]:
        failures = [(place, pack_error(error)) for place, error in self._failures]
        results = self._results
        if failures:
            results = results.copy()
            for place, _ in failures:
                results[place] = None
        return PackedReply, (pack_all(results, "the result", back=True), failures, self._elapsed)


class PackedReply:
    """A reply from another process.

    Args:
        packed: The results.
        failures: The pickles of the failures, by place.
        elapsed: How long the job ran, in nanoseconds.
    """

    def __init__(self, packed: Packed, failures: list[tuple[int, bytes]], elapsed: int) -> None:
        self._parts = (packed, failures, elapsed)

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedReply, self._parts

    def open(self) -> tuple[list[Any], Failures, int]:
        """Unpickle the outcomes; a result that cannot be unpickled fails its item."""
        packed, packed_failures, elapsed = self._parts
        results, failures = unpack_all(packed, "the result")
        failures += [(place, unpack_error(data)) for place, data in packed_failures]
        failures.sort(key=_first)
        for place, _ in failures:
            results[place] = NOTHING
        return results, failures, elapsed


def run(envelope: Envelope | PackedEnvelope) -> Reply | Wanting:
    """Make the attempts of a job; the executor's workers call this."""
    return envelope.run()


def all_failed(count: int, error: BaseException) -> tuple[list[Any], Failures, int]:
    """Return the outcome of `count` items that share one failure."""
    return [NOTHING] * count, [(place, error) for place in range(count)], 0


def _first(pair: tuple[int, BaseException]) -> int:
    return pair[0]
