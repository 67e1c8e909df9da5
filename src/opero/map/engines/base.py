"""What an engine is: it runs jobs in numbered slots, and reports the outcome of each."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeVar

from opero.map.jobs import Job

Failure = TypeVar("Failure", bound=BaseException)


def beyond_retry(error: Failure) -> Failure:
    """Mark a failure that a retry cannot change; the scheduler makes no further attempt."""
    vars(error)["beyond_retry"] = True
    return error


class Report(NamedTuple):
    """A job has ended.

    Attributes:
        slot: The slot that ran it.
        job: The job.
        results: What each attempt returned, `NOTHING` where one failed; fewer than the job has
            items if a failure ended it (see `Job.patience`).
        failures: The failed attempts: each place in the job, and what was raised.
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
        slot: The slot that ran it.
        job: The job.
        results: What the first attempts returned, as far as known.
        failures: The failed attempts among them.
        at: The place of the attempt under way; None if the worker died between two attempts.
        error: How the worker died.
    """

    slot: int
    job: Job
    results: list[Any]
    failures: list[tuple[int, BaseException]]
    at: int | None
    error: BaseException


class Engine(Protocol):
    """Run the jobs of one map.

    Attributes:
        slots: How many jobs it runs at once; they are numbered from 0.
    """

    slots: int

    def start(self, slot: int, job: Job) -> None:
        """Begin a job in an idle slot; this does not wait for it."""

    def wait(self, timeout: float | None) -> list[Report | Crash]:
        """Wait until a job has ended, `timeout` seconds have passed, or `wake` was called."""

    def wake(self) -> None:
        """Make the current `wait`, or the next, return early; any thread may call this."""

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
        """Make the current `wait`, or the next, return early."""

    async def close(self, abandon: bool) -> None:
        """End the map; if `abandon`, without what is still running."""
