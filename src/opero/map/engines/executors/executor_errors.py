"""What an executor's errors mean, and how the items that it had fail."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor

from opero.exceptions import OperoError, WorkerCrashedError, describe
from opero.map.engines.base import beyond_retry


def is_loss(error: BaseException) -> bool:
    """Return whether an error says that workers died over a job.

    In dask that is `distributed.scheduler.KilledWorker`; this does not import dask.
    """
    if isinstance(error, BrokenExecutor):
        return True
    return any(kind.__name__ == "KilledWorker" for kind in type(error).__mro__)


def killed(error: BaseException) -> WorkerCrashedError:
    """Make the failure of the item that killed its workers."""
    crash = WorkerCrashedError(f"the item killed its workers: {describe(error)}")
    crash.__cause__ = error
    return crash


def broken(error: BaseException) -> OperoError:
    """Make the failure of everything that an executor had when it broke for good."""
    message = (
        f"the executor broke and can run nothing more: {describe(error)} "
        "(a ProcessPoolExecutor breaks when one worker dies; mode='process' without "
        "executor=, or a dask cluster, loses only the item)"
    )
    return _for_good(error, WorkerCrashedError(message))


def refused(error: BaseException) -> OperoError:
    """Make the failure of everything that an executor no longer takes."""
    return _for_good(error, OperoError(f"the executor takes no more work: {describe(error)}"))


def cancelled(error: BaseException) -> OperoError:
    """Make the failure of a job that something other than opero cancelled."""
    return _for_good(error, OperoError("the item was cancelled in the executor, not by opero"))


def _for_good(cause: BaseException, error: OperoError) -> OperoError:
    error.__cause__ = cause
    return beyond_retry(error)
