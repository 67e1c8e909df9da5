"""What an executor means by its errors, and what comes of the items that it had."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor

from opero.exceptions import OperoError, WorkerCrashedError, describe
from opero.map.engines.base import beyond_retry


def is_loss(error: BaseException) -> bool:
    """Return whether an executor says that workers died over a job.

    In dask that is a `distributed.scheduler.KilledWorker`, which is not imported for this.
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
    """Make the failure of all that an executor had when it broke for good."""
    message = (
        f"the executor broke, and cannot run anything any more: {describe(error)} "
        "(one such as ProcessPoolExecutor is lost with its first worker; mode='process' without "
        "executor=, or a dask cluster, loses only the item)"
    )
    return _for_good(error, WorkerCrashedError(message))


def refused(error: BaseException) -> OperoError:
    """Make the failure of all that an executor does not take any more."""
    return _for_good(error, OperoError(f"the executor takes no more work: {describe(error)}"))


def cancelled(error: BaseException) -> OperoError:
    """Make the failure of a job that somebody else cancelled."""
    return _for_good(error, OperoError("the item was cancelled in the executor, and not by opero"))


def _for_good(cause: BaseException, error: OperoError) -> OperoError:
    error.__cause__ = cause
    return beyond_retry(error)
