"""Threads that run jobs: they start with the first job, and each ends shortly after its last one.

They are daemons, so a job that hangs does not keep the program from ending.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from collections import deque
from typing import Any, Generic, TypeVar

from opero.locks import Lock

_LINGER = 0.5
"""How many seconds a thread stays after its last job."""

_J = TypeVar("_J")


class DaemonThreads(Generic[_J]):
    """Threads that run jobs in the order in which they were added."""

    def __init__(self, name: str, most: int) -> None:
        """Begin without threads.

        Args:
            name: The name of the threads.
            most: The greatest number of threads.
        """
        self._name = name
        self._most = most
        self._lock = Lock()
        self._waiting: deque[_J] = deque()
        self._threads: set[threading.Thread] = set()
        self._idle: list[Any] = []  # a bell for each waiting thread: a locked lock
        self._closed = False

    def add(self, job: _J) -> None:
        """Add a job.

        Raises:
            RuntimeError: If no thread can be started, so that the job will not run.
        """
        with self._lock:
            starts = self._enqueue(job)
        if starts:
            try:
                self._start()
            except RuntimeError:
                if self._withdraw(job):
                    raise

    def carry_out(self, job: _J) -> None:
        """Run a job in one of the threads."""
        raise NotImplementedError

    def take(self) -> _J | None:
        """Take out the next job, if there is one; call this with the lock held."""
        return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        """Begin no more jobs, and let the threads end; running jobs continue."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            while self._idle:
                self._idle.pop().release()

    def after_fork(self) -> None:
        """Forget the jobs of the parent's threads in a child process."""
        self._lock = Lock()
        self._waiting = deque()
        self._threads = set()
        self._idle = []

    def _enqueue(self, job: _J) -> bool:
        """Put a job in the queue, with the lock held; return whether it needs a new thread."""
        self._waiting.append(job)
        if self._idle:
            self._idle.pop().release()
            return False
        return len(self._threads) < self._most

    def _withdraw(self, job: _J) -> bool:
        """Take back a job that no thread would run; return whether there was one."""
        with self._lock:
            if self._threads or job not in self._waiting:
                return False
            self._waiting.remove(job)
            return True

    def _start(self) -> None:
        """Start a thread, without the lock: an exception thrown in may leave it waiting forever."""
        options: dict[str, Any] = {}
        if sys.version_info >= (3, 14):  # each job brings its own context
            options["context"] = contextvars.Context()
        threading.Thread(target=self._work, name=self._name, daemon=True, **options).start()

    def _work(self) -> None:
        """Run jobs; this is the function of each thread."""
        threads = self._threads
        job: _J | None
        try:
            with self._lock:
                if len(threads) >= self._most:  # other threads began meanwhile
                    return
                threads.add(threading.current_thread())
            while (job := self._next()) is not None:
                try:
                    self.carry_out(job)
                except Exception:  # noqa: BLE001 - no caller is waiting, and reporting may fail
                    pass
                job = None  # it holds the arguments
        except BaseException:  # noqa: BLE001 - SystemExit or GreenletExit ends this thread
            pass
        finally:
            threads.discard(threading.current_thread())

    def _next(self) -> _J | None:
        """Return the next job; None if the thread is to end."""
        while True:
            with self._lock:
                found = self.take()
                if found is not None or self._closed:
                    return found
                bell = threading.Lock()  # gevent may have replaced it with its own
                bell.acquire()
                self._idle.append(bell)
            if bell.acquire(timeout=_LINGER):
                continue
            with self._lock:
                try:
                    self._idle.remove(bell)
                except ValueError:  # the bell rang at the last moment
                    continue
                found = self.take()
                if found is None:
                    self._threads.discard(threading.current_thread())
                return found
