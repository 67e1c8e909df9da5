"""The engine of mode `process`: it sends jobs to leased workers, and reads their outcomes.

A worker has one job at a time, and reads all of it before it writes. Only `wait` blocks on workers,
and it waits for all of them together. A map in a coroutine waits in a thread and may start a job
meanwhile; a lock keeps the two apart.

A job's items are sent in one pickle. If that fails on either side, or the worker dies, the job is
sent again carefully, with each item in its own pickle, to find the item that causes it.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
from collections import deque
from types import MethodType
from typing import Any

from opero.exceptions import AttemptTimeout, OperoError, WorkerCrashedError, describe
from opero.locks import Lock
from opero.map import std_streams
from opero.map.engines.base import Crash, Report, beyond_retry
from opero.map.init_errors import init_ended_worker, init_failed, init_took_too_long
from opero.map.interrupts import ctrl_c_later
from opero.map.jobs import Job
from opero.map.loading import executed
from opero.map.output import NOTHING
from opero.map.serialization import handles
from opero.map.serialization.arrivals import share_globals
from opero.map.serialization.errors import unpack_error
from opero.map.serialization.fingerprints import fingerprint
from opero.map.serialization.loaded_modules import Seen, loaded_modules
from opero.map.serialization.map_parts import pack_function, pack_shared
from opero.map.serialization.names import whereabouts
from opero.map.serialization.pickles import pack, pack_each, unpack
from opero.real_time import monotonic_ns

from . import frozen, pool, start, worker, worker_logs
from .cells import BEGUN, JOB, LAST, PLACE
from .descendants import Since
from .initializer import key_of
from .lending import LARGE, Lent, lend
from .renewal import Renewal
from .shortage import Shortage, shortage
from .surroundings import surroundings
from .unserved import Unserved


class _ChunkRun:
    """A job that a worker has.

    Attributes:
        job: The job.
        results: The known results of its first attempts.
        failures: The failures among them.
        refused: The items that cannot be sent, by place.
        careful: Whether each item travels in its own pickle.
        torn: Whether results arrived that could not be read; the worker sends them again.
        late: The place of the attempt that took too long, so that the worker was ended.
    """

    __slots__ = ("careful", "failures", "job", "late", "refused", "results", "torn")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.results: list[Any] = []
        self.failures: list[tuple[int, BaseException]] = []
        self.refused: list[tuple[int, BaseException]] = []
        self.careful = False
        self.torn = False
        self.late: int | None = None


class ProcessEngine:
    """Run the jobs of one map in worker processes.

    Attributes:
        slots: The most workers that it uses; it leases each when it is needed.
    """

    def __init__(
        self,
        function: Any,
        shared: dict[str, Any],
        workers: int,
        start_method: str | None = None,
        attempt_timeout: float | None = None,
        runner: str = "plain",
        concurrency: int = 1,
        loop: str = "auto",
        init: Any = None,
        most_items: int = 0,
        most_memory: int = 0,
    ) -> None:
        """Pack the function; `start` leases the workers.

        Args:
            function: What to call with each item.
            shared: Keyword arguments of every call.
            workers: How many processes to use at most.
            start_method: How they start: "forkserver", "spawn" or "fork".
            attempt_timeout: Seconds that an attempt may take before its worker is ended.
            runner: "plain" for calls, "loop" for coroutines.
            concurrency: How many coroutines a worker runs at once.
            loop: The loop that runs them: "uvloop", "asyncio", or "auto".
            init: What each worker calls before its first item; None for nothing.
            most_items: The number of items after which a worker is renewed; 0 for never.
            most_memory: The bytes of memory at which a worker is renewed; 0 for never.

        Raises:
            TypeError: If the function, `init`, or a shared argument cannot be pickled.
        """
        self.slots = workers
        self._method = start_method or start.DEFAULT
        self._loop = runner == "loop"
        self._limit: int | None = None
        if attempt_timeout is not None:
            # a loop ends late attempts itself, unless something blocks it
            grace = 2 * max(1.0, attempt_timeout) if self._loop else 0.0
            self._limit = int((attempt_timeout + grace) * 1e9)
        self._concurrency = concurrency if self._loop else 1
        self._timeout = attempt_timeout
        self._receiver: tuple[Any, ...] = ()
        if type(function) is MethodType:
            function, self._receiver = function.__func__, (function.__self__,)
        self._function = function
        self._given = shared
        self._init = init
        self._deaths = 0  # of workers that died in `init`
        self._renewal = Renewal(most_items, most_memory)
        self._own = frozenset(executed()) - {"__main__"}
        self._map: dict[str, Any] = {
            "runner": runner,
            "loop": loop,
            "timed": attempt_timeout is not None,
            "timeout": attempt_timeout,
            "surroundings": surroundings(),
            "measured": bool(most_memory),
            "executed": sorted(self._own),
        }
        self._lent: Lent | None = None
        self._pack(loaded_modules.look())
        self._workers: list[pool.Worker | None] = [None] * workers
        self._successors: list[pool.Worker | None] = [None] * workers
        self._runs: list[_ChunkRun | None] = [None] * workers
        self._events: list[Report | Crash] = []
        self._records: deque[bytearray] = deque()
        try:
            with ctrl_c_later(), std_streams.filled():
                self._selector = selectors.DefaultSelector()
                self._bell, self._ring = socket.socketpair()
        except OSError as error:
            raise shortage(error, "a map cannot be started") from error
        self._bell.setblocking(False)
        self._ring.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ, None)
        self._stillborn = 0
        self._unserved = Unserved()
        self._turn = Lock()
        self._waiting = False
        self._closing = Lock()
        self._closed = False
        self._process = os.getpid()

    # --- the driver's side ------------------------------------------------------------------------

    def start(self, slot: int, job: Job) -> None:
        """Send a job to the worker of an idle slot; lease one if there is none."""
        with self._turn:
            self._runs[slot] = run = _ChunkRun(job)
            self._send(slot, run)
        if self._waiting:
            self.wake()  # this job may have failed already, or be the next to be late

    def wait(self, timeout: float | None) -> list[Report | Crash]:
        """Wait until a job has ended, `timeout` seconds have passed, or `wake` was called."""
        end = None if timeout is None else monotonic_ns() + int(timeout * 1e9)
        woken = False
        self._waiting = True
        while not self._events and not woken:
            with self._turn:
                moments = end, self._serve_late_ones(), self._end_late_ones()
            until = min((moment for moment in moments if moment is not None), default=None)
            left = None if until is None else max(0, until - monotonic_ns()) / 1e9
            ready = self._selector.select(left)
            with self._turn:
                for key, mask in ready:
                    if key.data is None:
                        woken = True
                        self._bell.recv(4096)
                    else:
                        slot, leased, ended = key.data
                        self._look_after(slot, leased, ended, mask)
            self._log()
            if end is not None and monotonic_ns() >= end:
                break
        self._waiting = False
        with self._turn:
            events, self._events = self._events, []
        return events

    def _log(self) -> None:
        """Log the records of workers, without the lock: handlers may wait for anything."""
        while self._records:
            worker_logs.deliver(self._records.popleft())

    def wake(self) -> None:
        """Make `wait` return early; any thread may call this."""
        with self._closing:
            if not self._closed:
                try:
                    self._ring.send(b"!")
                except BlockingIOError:
                    pass  # enough wake-ups are pending

    def close(self, abandon: bool) -> None:  # noqa: ARG002 - the engine knows who is busy
        """Give the workers back; end those that are still busy."""
        with ctrl_c_later():
            self._close()
        self._log()

    def __del__(self) -> None:
        # an interrupt may have prevented the call of `close`; when the interpreter ends, the
        # workers notice it themselves
        if hasattr(self, "_process") and not sys.is_finalizing():
            self._close()

    def _close(self) -> None:
        with self._closing:
            if self._closed or os.getpid() != self._process:
                return
            self._closed = True
        busy: list[tuple[pool.Worker, Since | None]] = []
        for slot, leased in [*enumerate(self._workers), *enumerate(self._successors)]:
            if leased is None:
                continue
            if not leased.ready if leased is self._successors[slot] else self._runs[slot]:
                since = self._since(slot, leased)
                leased.kill(since)
                busy.append((leased, since))
                continue
            try:
                leased.channel.send(("end",), [])
                if self._renewal.has_life(leased, 1):
                    pool.give_back(leased)
                else:
                    pool.retire(leased)
            except OSError:
                busy.append((leased, None))
        for leased, since in busy:
            leased.bury(since=since)
        self._selector.close()
        self._bell.close()
        self._ring.close()
        self._workers = []
        self._successors = []
        self._runs = []
        self._events = []
        self._lent = None

    # --- jobs out ---------------------------------------------------------------------------------

    def _pack(self, seen: Seen) -> None:
        """Pack the function and the shared arguments.

        Args:
            seen: The modules of this process.
        """
        self._seen = seen
        self._apart = seen.apart | self._own
        init = self._pack_parts()
        self._key = key_of(self._map["init"], init)

    def _pack_parts(self) -> list[Any]:
        """Pack what every worker receives; return the parts of `worker_init`."""
        before = handles.count()
        init: list[Any] = []
        self._map["init"] = None
        if self._init is not None:
            share_globals(self._init)
            self._map["init"], init = self._packed(self._init)
        told, function = self._packed(self._function)
        self._map.update(told)
        self._shared = [*init, *function, *pack_shared(self._given, self._receiver, self._apart)]
        self._large = sum(len(memoryview(part).cast("B")) for part in self._shared) >= LARGE
        self._once = handles.count() != before  # then each worker gets its own pickle
        self._lent = lend(self._shared) if self._large and not self._once else None
        self._taken = False
        return init

    def _packed(self, function: Any) -> tuple[dict[str, Any], list[Any]]:
        """Return how a function travels: by its name and a fingerprint of its code, or as a pickle.

        Returns:
            What the message says about it, such as how many parts there are, and these parts.
        """
        name = whereabouts(function, self._apart)
        parts: list[Any] = []
        if not name:
            try:
                parts = pack_function(function, self._apart)
            except TypeError as error:
                module = getattr(function, "__module__", None)
                if module not in self._seen.apart:
                    raise
                raise TypeError(
                    f"{error}. opero must pickle it, because no worker can import {module} as this "
                    f"program has it: its file has changed or it has none; reload it"
                ) from error.__cause__
        code = fingerprint(function) if name else None
        return {"name": name, "value": len(parts), "code": code}, parts

    def _tell(self, slot: int, leased: pool.Worker) -> None:
        """Send a worker the map, and the modules of this process if they have changed."""
        known, leased.rows = leased.rows, self._seen.number
        rows = None if known == self._seen.number else self._seen.rows
        if self._once and self._taken:
            self._pack_parts()  # a worker has taken the descriptors of the last pickle
        self._taken = True
        ticket, parts = None, self._shared
        if self._lent is not None:
            ticket, parts = self._lent.ticket, self._lent.parts
        told = {**self._map, "rows": rows, "fresh": leased.fresh, "lent": ticket}
        told["large"] = self._large
        self._post(slot, leased, ("map", told), parts)

    def _send(self, slot: int, run: _ChunkRun) -> None:
        """Pack a job and send it."""
        job = run.job
        values = job.values
        parts = None
        if not run.careful:
            try:
                parts = pack(values, apart=self._apart)
            except Exception:  # noqa: BLE001 - a user's __reduce__ may raise anything
                run.careful = True
        if parts is None:
            packed, refused = pack_each(values, "the item", apart=self._apart)
            run.refused = [(place, beyond_retry(error)) for place, error in refused]
            if len(run.refused) == len(values):
                self._report(slot, run, 0)
                return
            parts = pack(packed)
        count = len(job.values)
        leased = self._worker(slot, count)
        if leased is None:
            return
        leased.cells[PLACE] = worker.UNREAD
        leased.items += count
        concurrency = 1 if run.careful else self._concurrency
        self._post(
            slot, leased, ("job", run.careful, job.invoked, concurrency, job.patience), parts
        )
        if self._renewal.is_due(leased):
            self._begin_successor(slot)

    def _worker(self, slot: int, count: int) -> pool.Worker | None:
        """Return a worker for `count` items in a slot; None if the system has no room for one."""
        try:
            return self._worker_for(slot, count)
        except Shortage as error:
            leased = self._borrow(slot, count)
            if leased is None:
                self._unserved.add(slot, error)
            return leased

    def _borrow(self, slot: int, count: int) -> pool.Worker | None:
        """Give a slot the idle worker of another slot, if there is one."""
        for other, leased in enumerate(self._workers):
            if leased is None or self._runs[other] is not None:
                continue
            if self._renewal.has_life(leased, count):
                self._workers[slot], self._workers[other] = leased, None
                for sign, ended in ((leased.channel, False), (leased.process.sentinel, True)):
                    if sign in self._selector.get_map():
                        self._selector.modify(sign, selectors.EVENT_READ, (slot, leased, ended))
                return leased
        return None

    def _serve_late_ones(self) -> int | None:
        """Find workers for the jobs without one; return when to try again."""
        if not self._unserved.slots:
            return None
        pairs = list(zip(self._workers, self._runs, strict=True))
        idle = any(leased is not None and run is None for leased, run in pairs)
        for slot in sorted(self._unserved.take(idle)):
            run = self._runs[slot]
            if run is not None and self._worker(slot, len(run.job.values)) is not None:
                self._send(slot, run)
        able = [leased for leased in self._workers if leased is not None and not leased.fresh]
        return self._unserved.until(len(able))

    def _worker_for(self, slot: int, count: int) -> pool.Worker:
        """Return a worker for `count` items in a slot: a new one if the old one is due."""
        leased, successor = self._workers[slot], self._successors[slot]
        if leased is not None:
            if not self._renewal.is_over(leased, count, successor is not None and successor.ready):
                return leased
            self._retire(slot, leased)
        if successor is not None:
            self._workers[slot], self._successors[slot] = successor, None
            return successor
        return self._lease(slot, self._workers, count)

    def _begin_successor(self, slot: int) -> None:
        """Start the successor of a slot's worker, and have it prepare itself."""
        if self._successors[slot] is not None:
            return
        try:
            successor = self._lease(slot, self._successors, 1)
        except OperoError:
            return  # it cannot start now; it starts when it is needed
        successor.cells[PLACE] = worker.UNREAD
        self._renewal.begun(successor)
        self._post(slot, successor, ("prepare",), [])

    def _lease(self, slot: int, place: list[pool.Worker | None], count: int) -> pool.Worker:
        """Lease a worker that may have `count` items for a slot, and send it the map."""
        with ctrl_c_later():
            leased = pool.lease(
                self._method, self._key, lambda idle: self._renewal.has_life(idle, count)
            )
            place[slot] = leased
        self._selector.register(leased.channel, selectors.EVENT_READ, (slot, leased, False))
        if sys.platform != "win32":
            end = leased.process.sentinel
            self._selector.register(end, selectors.EVENT_READ, (slot, leased, True))
        self._tell(slot, leased)
        return leased

    def _post(
        self, slot: int, leased: pool.Worker, control: tuple[Any, ...], parts: list[Any]
    ) -> None:
        """Send a message; `wait` sends what the worker does not take yet."""
        try:
            gone = leased.channel.send(control, parts)
        except OSError:
            return  # `wait` notices that it is dead
        if not gone:
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            self._selector.modify(leased.channel, both, (slot, leased, False))

    # --- outcomes in ------------------------------------------------------------------------------

    def _look_after(self, slot: int, leased: pool.Worker, ended: bool, mask: int) -> None:
        """Exchange what is pending with a worker; `ended` says that its process has ended."""
        if not self._has(slot, leased):
            return  # its other sign, channel or sentinel, was handled already
        if ended and not leased.process.wait(0):
            self._selector.unregister(leased.process.sentinel)  # only the fork server is gone
            return
        try:
            if mask & selectors.EVENT_WRITE and leased.channel.flush():
                self._selector.modify(leased.channel, selectors.EVENT_READ, (slot, leased, False))
        except OSError:
            pass
        try:
            while self._has(slot, leased):
                message = leased.channel.receive()
                if message is None:
                    break
                self._take_in(slot, leased, *message)
        except EOFError:
            ended = True
        if ended and self._has(slot, leased):
            self._lose(slot, leased)

    def _has(self, slot: int, leased: pool.Worker) -> bool:
        return leased is self._workers[slot] or leased is self._successors[slot]

    def _take_in(
        self, slot: int, leased: pool.Worker, control: tuple[Any, ...], parts: list[bytearray]
    ) -> None:
        """Take in a message or a log record of a worker."""
        if control[0] == "log":
            self._records.append(parts[0])
            return
        kind = control[0]
        if kind == "ready":
            self._renewal.is_ready(leased)
            return
        if kind == "unfit":
            error = unpack_error(unpack(parts))
            raise init_failed(self._init, error) from error
        run = self._runs[slot]
        if leased is self._successors[slot]:  # it cannot load the map; a later one will say so
            leased.kill()
            self._dismiss(slot, leased)
            return
        assert run is not None
        fresh, leased.fresh = leased.fresh, False
        self._stillborn = 0
        if kind == "broken":
            what = "the function of the map, or what its items share"
            raise OperoError(f"a worker cannot load {what}: {control[1]}")
        if kind == "no room":
            self._dismiss(slot, leased)
            number = control[1]
            error = shortage(OSError(number, os.strerror(number)), "a worker process cannot work")
            if not isinstance(error, Shortage):
                raise error
            self._unserved.add(slot, error)
            return
        self._unserved.served()
        if kind == "outdated":
            if fresh:  # the file has another function under this name
                self._own |= {each.__module__ for each in (self._function, self._init) if each}
                self._pack(self._seen)
                self._tell(slot, leased)
            else:
                leased.kill()
                self._dismiss(slot, leased)
            self._send(slot, run)
            return
        if kind == "apart":
            self._keep_apart(leased, control[1])
            self._tell(slot, leased)
            self._send(slot, run)
            return
        if kind == "not borrowed":
            self._lent = None
            self._tell(slot, leased)
            self._send(slot, run)
            return
        if kind == "unread":
            run.careful = True
            self._send(slot, run)
            return
        _, careful, elapsed = control
        if not run.torn or (careful and kind == "done"):
            run.torn = not self._read(run, careful, parts)
        if kind == "part":
            return
        if run.torn:
            self._post(slot, leased, ("again", len(run.results)), [])
            return
        self._renewal.reported(leased, elapsed)
        if self._renewal.is_due(leased):
            self._begin_successor(slot)
        self._report(slot, run, elapsed)

    def _read(self, run: _ChunkRun, careful: bool, parts: list[bytearray]) -> bool:
        """Add a message's outcomes to a job; return whether it could be read."""
        first = len(run.results)
        failed: list[tuple[int, BaseException]] = []
        try:
            results, failures = unpack(parts)
        except Exception:  # noqa: BLE001 - a user's __setstate__ may raise anything
            return False
        if careful:
            packed, results = results, []
            for place, each in enumerate(packed):
                try:
                    results.append(None if each is None else unpack(each))
                except Exception as error:  # noqa: BLE001 - as above
                    text = f"the result cannot be unpickled: {describe(error)}"
                    failed.append((place, TypeError(text)))
                    results.append(None)
        failed += [(place, unpack_error(body)) for place, body in failures]
        for place, _ in failed:
            results[place] = NOTHING
        run.results = run.results + results if first else results
        run.failures += [(first + place, error) for place, error in sorted(failed, key=_place)]
        return True

    def _report(self, slot: int, run: _ChunkRun, elapsed: int) -> None:
        """Report a job's outcome to the driver."""
        results = run.results or [NOTHING] * len(run.job.values)
        failures = run.failures
        if run.refused:
            refused = [each for each in run.refused if each[0] < len(results)]
            failures = sorted(failures + refused, key=_place)
            for place, _ in refused:
                results[place] = NOTHING
        self._runs[slot] = None
        self._events.append(Report(slot, run.job, results, failures, elapsed))

    def _keep_apart(self, leased: pool.Worker, names: list[str]) -> None:
        """From now on, send by value what belongs to modules that workers cannot import alike."""
        if leased.rows != self._seen.number:
            return  # another worker has reported this before
        if self._apart.issuperset(names):
            raise OperoError(
                f"a worker cannot import {', '.join(names)} as this program did: the files have "
                f"changed. Reload the modules or restart the program"
            )
        self._pack(loaded_modules.blame(names))

    # --- workers that die -------------------------------------------------------------------------

    def _end_late_ones(self) -> int | None:
        """End workers whose attempt takes too long; return when the next one will be late."""
        if self._limit is None:
            return None
        upcoming = None
        now = monotonic_ns()
        for slot, run in enumerate(self._runs):
            leased = self._workers[slot]
            if run is None or leased is None or run.late is not None:
                continue
            place, begun = leased.cells[PLACE], leased.cells[BEGUN]
            due = begun + self._limit
            if place == worker.PREPARING:
                due = begun + round(self._patience() * 1e9)
                if due <= now and leased.cells[PLACE] == place:
                    raise init_took_too_long(self._init, self._patience())
            elif place < 0:
                due = now + self._limit  # the attempt has not begun
            elif due <= now and leased.cells[PLACE] == place:
                run.late = place
                leased.kill(self._since(slot, leased))
                continue
            upcoming = due if upcoming is None else min(upcoming, due)
        return upcoming

    def _patience(self) -> float:
        """Return how many seconds `init` may take in a map with a time limit."""
        return max(_PATIENCE, 10 * (self._timeout or 0.0))

    def _dismiss(self, slot: int, leased: pool.Worker) -> WorkerCrashedError:
        """Free the slot of a worker that is dead or about to be; return how it ended."""
        since = self._since(slot, leased)
        self._let_go(slot, leased)
        return leased.bury(since=since)

    def _retire(self, slot: int, leased: pool.Worker) -> None:
        """Let a worker end that has reached its bounds, without waiting for it."""
        self._let_go(slot, leased)
        pool.retire(leased)

    def _let_go(self, slot: int, leased: pool.Worker) -> None:
        self._selector.unregister(leased.channel)
        if sys.platform != "win32" and leased.process.sentinel in self._selector.get_map():
            self._selector.unregister(leased.process.sentinel)
        place = self._workers if self._workers[slot] is leased else self._successors
        place[slot] = None

    def _since(self, slot: int, leased: pool.Worker) -> Since | None:
        """Return when a worker's job began; None if none of its attempts is running."""
        idle = self._runs[slot] is None and leased is not self._successors[slot]
        if idle or leased.cells[PLACE] in {worker.MADE, worker.UNREAD}:
            return None
        return Since(leased.cells[JOB], leased.cells[LAST])

    def _lose(self, slot: int, leased: pool.Worker) -> None:
        """Clean up after a dead worker, and settle its job."""
        place = leased.cells[PLACE]
        fresh = leased.fresh
        successor = leased is self._successors[slot]
        error: BaseException = self._dismiss(slot, leased)
        if place == worker.PREPARING:
            self._deaths += 1
            if self._deaths >= _ENOUGH:
                raise init_ended_worker(self._init, error) from error
        run = self._runs[slot]
        if run is None or successor:
            return
        job = run.job
        known = len(run.results)
        at = place if known <= place < len(job.values) else None
        alone = self._concurrency == 1 or run.careful or len(job.values) == 1
        guilty = at is not None and alone
        if run.late is not None and alone:
            at = run.late if run.late >= known else None
            error = AttemptTimeout(f"an attempt took longer than {self._timeout:g} s")
        elif place in {worker.UNREAD, worker.PREPARING, worker.LOADING}:
            if (fresh and place != worker.PREPARING) or place == worker.LOADING:
                self._stillborn += 1
                if self._stillborn >= _ENOUGH:
                    when = f"before they can do anything{frozen.remedy()}"
                    if place == worker.LOADING:
                        when = (
                            f"while they import the modules of {_named(self._function)}, or load "
                            f"what its items share: one of these ends the process"
                        )
                    raise OperoError(f"worker processes end {when}") from error
            self._send(slot, run)  # it may have ended just now because it was idle for too long
            return
        elif not guilty and not known:
            if not run.careful and len(job.values) > 1:
                self._runs[slot] = run = _ChunkRun(job)
                run.careful = True
                self._send(slot, run)
                return
            at = 0
        failures = [each for each in run.refused if each[0] < known]
        for refused, _ in failures:
            run.results[refused] = NOTHING
        failures = sorted(run.failures + failures, key=_place)
        self._runs[slot] = None
        self._events.append(Crash(slot, job, run.results, failures, at, error))


_ENOUGH = 3  # workers that die while they start: the next one would die too
_PATIENCE = 60.0  # the shortest time limit of `init`, in seconds


def _place(failure: tuple[int, BaseException]) -> int:
    return failure[0]


def _named(function: Any) -> str:
    """Return a function's name for an error message."""
    name = getattr(function, "__qualname__", None)
    return f"{function.__module__}.{name}" if name else repr(function)
