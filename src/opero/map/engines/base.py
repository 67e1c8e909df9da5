"""What an engine is: it runs jobs in numbered slots, and says what came of each."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeVar

from opero.map.jobs import Job

Failure = TypeVar("Failure", bound=BaseException)


def beyond_retry(error: Failure) -> Failure:
    """Mark a failure that no further attempt can change; the scheduler makes none."""
    vars(error)["beyond_retry"] = True
    return error


class Report(NamedTuple):
    """A job has been done.

    Attributes:
        slot: Where.
        job: Which.
        results: What each attempt returned, `NOTHING` where one failed; fewer than the job has, if
            a failure has ended it (see `Job.patience`).
        failures: The failed ones: the place in the job, and what was raised.
        elapsed: How long the job ran, in nanoseconds.
    """

    slot: int
    job: Job
    results: list[Any]
    failures: list[tuple[int, BaseException]]
    elapsed: int


class Crash(NamedTuple):
    """A worker has died in the middle of a job; its slot can be used again.

    Attributes:
        slot: Where.
        job: Which.
        results: What the first attempts returned, as far as it is known.
        failures: The failed ones among them.
        at: The place of the attempt that was under way; None if it died between two.
        error: What became of the worker.
    """

    slot: int
    job: Job
    results: list[Any]
    failures: list[tuple[int, BaseException]]
    at: int | None
    error: BaseException


class Engine(Protocol):
    """Runs the jobs of one map.

    Attributes:
        slots: How many jobs it runs at once; they are numbered from 0.
    """

    slots: int

    def start(self, slot: int, job: Job) -> None:
        """Begin a job in an idle slot; this does not wait for it."""

    def wait(self, timeout: float | None) -> list[Report | Crash]:
        """Wait until a job has ended, `timeout` seconds have passed, or `wake` was called."""

    def wake(self) -> None:
        """Let `wait` return early, or the next one at once; any thread may call this."""

    def close(self, abandon: bool) -> None:
        """End the map; if `abandon`, without what is still running."""


class AsyncEngine(Protocol):
    """The same inside a running event loop.

    Attributes:
        slots: How many jobs it runs at once; they are numbered from 0.
    """

    slots: int

    def start(self, slot: int, job: Job) -> None:
        """Begin a job in an idle slot; this does not wait for it."""

    async def wait(self, timeout: float | None) -> list[Report | Crash]:
        """Wait until a job has ended, `timeout` seconds have passed, or `wake` was called."""

    def wake(self) -> None:
        """Let `wait` return early, or the next one at once."""

    async def close(self, abandon: bool) -> None:
        """End the map; if `abandon`, without what is still running."""
