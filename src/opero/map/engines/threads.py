"""Mode `thread`: threads of this process make the attempts."""

from __future__ import annotations

import contextvars
import itertools
import threading
from queue import Empty, SimpleQueue
from typing import Any

from opero.map.finished_frames import without_locals
from opero.map.init_errors import init_failed
from opero.map.interrupts import ctrl_c_later
from opero.map.invocation import of_invocations, of_items
from opero.map.jobs import Job
from opero.map.output import NOTHING
from opero.real_time import perf_counter_ns
from opero.tracebacks import without_top

from .base import Crash, Report

_numbers = itertools.count(1)


def attempt(
    function: Any, values: list[Any], patience: int = 0
) -> tuple[list[Any], list[tuple[int, BaseException]]]:
    """Make the attempts of a job, one after the other.

    Args:
        function: What to call with each item.
        values: The items.
        patience: Nanoseconds after which a failure ends the job; 0 for never.

    Returns:
        What each attempt returned, `NOTHING` where one failed, and the failures by place.
    """
    results: list[Any] = []
    failures: list[tuple[int, BaseException]] = []
    append = results.append
    begun = perf_counter_ns() if patience else 0
    try:
        for value in values:
            try:
                append(function(value))
            except BaseException as error:  # noqa: BLE001 - it is the outcome of this item
                failures.append((len(results), without_locals(without_top(error))))
                append(NOTHING)
                if patience and perf_counter_ns() - begun > patience:
                    break
        return results, failures
    finally:  # the frames of a failure refer to this one
        function = values = value = results = failures = append = None  # type: ignore[assignment]


class ThreadEngine:
    """Run the jobs of one map in threads that it starts.

    Each thread sees the context variables as they were where the map was called.

    Attributes:
        slots: The most threads that it starts; each starts when it is needed.
    """

    def __init__(
        self, function: Any, shared: dict[str, Any], workers: int, init: Any = None
    ) -> None:
        """Take the function; `start` starts the threads.

        Args:
            function: What to call with each item.
            shared: Keyword arguments of every call.
            workers: How many threads to start at most.
            init: What each thread calls before its first item; None for nothing.
        """
        self.slots = workers
        self._function = of_items(function, shared)
        self._invoke = of_invocations(function, shared)
        self._context = contextvars.copy_context()
        self._jobs: SimpleQueue[tuple[int, Job] | None] = SimpleQueue()
        self._events: SimpleQueue[Report | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._busy = 0
        self._abandoned = False
        self._init = init
        self._unfit: BaseException | None = None

    def start(self, slot: int, job: Job) -> None:
        """Hand a job to an idle thread, or to a new one if there is room for it."""
        self._busy += 1
        if len(self._threads) < self._busy:
            name = f"opero-map-{next(_numbers)}"
            context = self._context.copy()
            thread = threading.Thread(
                target=context.run, args=(self._work,), name=name, daemon=True
            )
            with ctrl_c_later():
                try:
                    thread.start()
                    self._threads.append(thread)
                except RuntimeError:  # the system starts no more threads
                    if not self._threads:
                        self._busy -= 1
                        raise
        self._jobs.put((slot, job))

    def wait(self, timeout: float | None) -> list[Report | Crash]:
        """Wait until a job has ended, `timeout` seconds have passed, or `wake` was called."""
        events: list[Report | Crash] = []
        try:
            event = self._events.get(timeout=timeout)
            while True:
                if event is not None:
                    events.append(event)
                event = self._events.get_nowait()
        except Empty:
            self._busy -= len(events)
            if self._unfit is not None:
                raise init_failed(self._init, self._unfit) from self._unfit
            return events

    def wake(self) -> None:
        """Make `wait` return early; any thread may call this."""
        self._events.put(None)

    def close(self, abandon: bool) -> None:
        """End the threads; if `abandon`, each ends after its present attempt."""
        self._abandoned = abandon
        for _ in self._threads:
            self._jobs.put(None)
        if not abandon:
            for thread in self._threads:
                thread.join()
        self._threads = []

    def _work(self) -> None:
        """Run jobs until there are no more; each thread runs this."""
        if not self._is_set_up():
            return
        while True:
            given = self._jobs.get()
            if given is None or self._abandoned:
                return
            slot, job = given
            begun = perf_counter_ns()
            function = self._invoke if job.invoked else self._function
            results, failures = attempt(function, job.values, job.patience)
            self._events.put(Report(slot, job, results, failures, perf_counter_ns() - begun))
            # keep nothing while waiting for a job, nor while the frames of a failure refer to this
            given = job = function = results = failures = None  # type: ignore[assignment]

    def _is_set_up(self) -> bool:
        """Set this thread up; return whether that worked."""
        if self._init is not None and not self._abandoned:
            try:
                self._init()
            except BaseException as error:  # noqa: BLE001 - it ends the map
                self._unfit = without_top(error)
                self._events.put(None)
                return False
        return True
