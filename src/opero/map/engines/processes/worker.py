"""The code of a worker process: it reads a job, makes its attempts, and sends the outcomes.

During a job, a second thread wakes up every 50 ms. It sends the finished results of a long job, to
limit what is lost if the process dies, and ends the process when its parent is gone. So it may
pickle a result while the next attempt runs, including any change that this attempt makes to it.
"""

from __future__ import annotations

import contextvars
import errno
import gc
import os
import select
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from multiprocessing import process
from types import MethodType
from typing import Any, NoReturn

from opero import forks, hotpath
from opero.exceptions import describe
from opero.locks import Lock
from opero.map import std_streams
from opero.map.invocation import of_invocations, of_items
from opero.map.loading import loading
from opero.map.serialization import arrivals
from opero.map.serialization.errors import pack_error
from opero.map.serialization.fingerprints import fingerprint
from opero.map.serialization.names import found_at
from opero.map.serialization.pickles import pack, pack_each, unpack
from opero.map.serialization.same_modules import Outdated, SameModules
from opero.real_time import monotonic_ns

from . import worker_end, worker_logs
from .cells import BEGUN, MEMORY, PLACE, Cells
from .group import Group
from .initializer import SetUp
from .lending import borrow
from .memory import resident
from .surroundings import lenient, take_on
from .wire import Channel

UNREAD = -1
"""The worker has not seen the job yet."""

READING = -2
"""The worker is unpacking the job."""

PREPARING = -5
"""The worker is running the `worker_init` of the map."""

LOADING = -4
"""The worker is loading the function."""

MADE = -3
"""All attempts are over; the worker is sending the results."""

_TICK = 50  # milliseconds between two checks of a running job
_HELD = 10_000  # records that may wait until the parent reads


class Unfit(Exception):
    """Carry what `worker_init` raised."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class NotBorrowed(Exception):
    """The worker cannot open the memory that the map lends it."""


class WorkerRun:
    """A job under way.

    Attributes:
        results: What the attempts have returned so far, None where one failed; if `careful`,
            packed.
        failures: The failures, by place.
        sent: How many results have been sent.
        careful: Whether each item travels in its own pickle.
        began: When it began, in nanoseconds.
        elapsed: How long it took, in nanoseconds.
    """

    __slots__ = ("began", "careful", "elapsed", "failures", "results", "sent")

    def __init__(self, careful: bool) -> None:
        self.results: list[Any] = []
        self.failures: list[tuple[int, BaseException]] = []
        self.sent: int = 0
        self.careful: bool = careful
        self.began: int = monotonic_ns()
        self.elapsed: int = 0

    def is_halted(self, patience: int) -> bool:
        """Return whether a failure ends the job now.

        Args:
            patience: Nanoseconds after which a failure ends the job; 0 for never.
        """
        return patience > 0 and monotonic_ns() - self.began > patience


class Session:
    """The life of a worker.

    Attributes:
        channel: The channel to the process that it works for.
        cells: Memory that both share; see `pool.Worker`.
        run: The job under way, or the last one.
    """

    def __init__(self, channel: Channel, cells: memoryview, group: Group, idle: float) -> None:
        self.channel = channel
        self.cells = cells
        self._group = group
        self._runner = hotpath.core.ChunkRunner(cells)
        self.run: WorkerRun | None = None
        self._idle = idle
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ)
        self._lock = Lock()
        self._sending = False
        self._records: deque[bytes] = deque()
        self._running = False
        self._bell, self._ring = socket.socketpair()
        self._bell.settimeout(None)  # as in `main`
        self._ring.settimeout(None)
        self._map: dict[str, Any] | None = None
        self._function: Any = None
        self._shared: dict[str, Any] = {}
        self._context = contextvars.copy_context()  # what a map sets ends with the map
        self._outside = self._context.copy()
        self._set_up: SetUp | None = None
        self._modules = SameModules(born=time.time_ns())
        self._modules.install()

    # --- the main thread ------------------------------------------------------------------------

    def serve(self) -> None:
        """Serve requests until no more come."""
        try:
            threading.Thread(target=self._watch, name="opero-watch", daemon=True).start()
        except RuntimeError:
            _no_room(self.channel, errno.EAGAIN)
        while True:
            if self._map is None and not self._wait():
                return
            try:
                message = self.channel.receive()
                assert message is not None
                self._obey(*message)
            except (EOFError, ConnectionError):
                return  # only errors of the channel come here, not those of attempts
            del message

    def _wait(self) -> bool:
        """Wait for a message; return False if the worker was idle for too long."""
        return bool(self._selector.select(self._idle))

    def _obey(self, control: tuple[Any, ...], parts: list[bytearray]) -> None:
        kind = control[0]
        if kind == "map":
            self._map = dict(control[1])
            self._map["shared"] = parts
            self._function = None
            self._context = self._outside.copy()
            self._group.end_with_parent(True)
            self._ring.send(b"!")
        elif kind == "job":
            self._group.begin()
            self.cells[PLACE] = READING
            _, careful, invoked, concurrency, patience = control
            self._context.run(self._do, careful, invoked, concurrency, patience, parts)
        elif kind == "prepare":
            self._group.begin()
            if self._context.run(self._is_ready):
                self._send(("ready",), None)
        elif kind == "again":
            assert self.run is not None
            results = self.run.results[control[1] :]
            packed, failures = pack_each(results, "the result", back=True)
            failures += [
                (place - control[1], error)
                for place, error in self.run.failures
                if place >= control[1]
            ]
            self._send(("done", True, self.run.elapsed), (packed, _packed(failures)))
        else:
            large = self._map is not None and self._map["large"]
            self._map = self._function = self.run = None
            self._shared = {}
            arrivals.enter()
            if large:  # functions and their globals refer to each other
                gc.collect()
            self._group.end_with_parent(False)

    def _do(
        self,
        careful: bool,
        invoked: bool,
        concurrency: int,
        patience: int,
        parts: list[bytearray],
    ) -> None:
        """Do a job and send the rest of its results.

        Args:
            careful: Whether each item comes in its own pickle.
            invoked: Whether the items are invocations.
            concurrency: How many coroutines may run at once.
            patience: Nanoseconds after which a failure ends the job; 0 for never.
            parts: The items.
        """
        assert self._map is not None
        if not self._is_ready():
            return
        try:
            with loading():
                values = unpack(parts)
        except BaseException as error:
            refused = sorted(self._modules.refused)
            if refused:
                self._send(("apart", refused), None)
            elif isinstance(error, Exception):  # a user's __setstate__ may raise anything
                self._send(("unread",), None)
            else:
                raise
            return
        del parts
        self.run = run = WorkerRun(careful)
        self._running = True
        note = self._note()
        if self._map["runner"] == "loop":
            self._in_loop(values, invoked, concurrency, note, patience)
        else:
            caller = of_invocations if invoked else of_items
            function = caller(self._function, self._shared)
            if careful:
                _carefully(function, values, run, note, patience)
            elif self._map["timed"]:
                _timed(function, values, run, note, patience)
            else:
                self._runner.run(function, values, run.results, run.failures, patience)
        run.elapsed = monotonic_ns() - run.began
        self.cells[PLACE] = MADE
        if self._map["measured"]:
            self.cells[MEMORY] = resident()
        std_streams.flush()
        with self._lock:
            self._running = False
            self._report(("done", careful, run.elapsed))

    def _note(self) -> Callable[[int], None]:
        """Return a function to call with the place of each attempt right before it begins."""
        cells = self.cells

        def note(place: int) -> None:
            cells[BEGUN] = monotonic_ns()
            cells[PLACE] = place

        return note

    def _is_ready(self) -> bool:
        """Set the worker up and load the function, once per map; return whether that worked."""
        self._modules.refused.clear()
        try:
            if self._function is None:
                self._function, self._shared = self._load()
                self.cells[PLACE] = READING
        except Outdated:
            self._send(("outdated",), None)
            return False
        except NotBorrowed:
            self._send(("not borrowed",), None)
            return False
        except BaseException as error:  # noqa: BLE001 - the worker has nothing to do without it
            refused = sorted(self._modules.refused)
            if refused:
                self._send(("apart", refused), None)
            elif isinstance(error, Unfit):
                self._send(("unfit",), pack_error(error.error))
            else:
                self._send(("broken", describe(error)), None)
            return False
        return True

    def _prepare(self, told: dict[str, Any] | None, parts: list[Any]) -> None:
        """Run the map's `worker_init`, unless it has none or this worker has run it."""
        if told is None:
            arrivals.enter()
            return
        if self._set_up is None:
            world = arrivals.enter()
            self.cells[BEGUN] = monotonic_ns()
            self.cells[PLACE] = PREPARING
            try:
                with loading():
                    with lenient():
                        init = _found(told, parts)
                    self._set_up = SetUp(init, world)
            except Outdated:
                raise
            except BaseException as error:  # noqa: BLE001 - it goes to the parent
                raise Unfit(error) from None
            self._outside = self._set_up.context
        arrivals.enter(self._set_up.world())

    def _load(self) -> tuple[Any, dict[str, Any]]:
        """Take on the map's surroundings; load its function and shared arguments."""
        assert self._map is not None
        seen = self._map
        take_on(seen["surroundings"], frozenset() if self._set_up is None else self._set_up.own)
        self._modules.check_whole(seen["executed"], seen["fresh"])
        if seen["rows"] is not None:
            self._modules.take(seen["rows"], seen["fresh"])
        parts, init = seen["shared"], seen["init"]
        if seen["lent"] is not None:
            try:
                parts = borrow(parts, seen["lent"])
            except OSError as error:
                raise NotBorrowed from error
        first = 0 if init is None else init["value"]
        last = first + seen["value"]
        self._prepare(init, parts[:first])
        self.cells[PLACE] = LOADING
        with loading(), lenient():
            found = _found(seen, parts[first:last])
            shared, receiver = unpack(parts[last:])
        if self._modules.refused:
            raise ImportError("a module there is a different one")
        return MethodType(found, *receiver) if receiver else found, shared

    def _in_loop(
        self,
        values: list[Any],
        invoked: bool,
        concurrency: int,
        note: Callable[[int], None],
        patience: int,
    ) -> None:
        """Make a job's attempts as coroutines."""
        assert self._map is not None
        assert self.run is not None
        from .worker_loop import run_coroutines

        run = self.run
        count = len(values)
        places = list(range(count))
        if run.careful:
            values, places = _opened(values, run, note)
        results, failures = run_coroutines(
            self._function, self._shared, values, invoked, concurrency,
            lambda place: note(places[place]), self._map["timeout"], self._map["loop"],
            patience,
        )  # fmt: skip
        run.failures += [(places[place], error) for place, error in failures]
        run.failures.sort(key=lambda failure: failure[0])
        if len(results) < len(places):  # a failure has ended it
            count = places[len(results)]
            run.failures = [each for each in run.failures if each[0] < count]
        failed = {place for place, _ in run.failures}
        found = dict(zip(places, results, strict=False))
        everything = [None if place in failed else found.get(place) for place in range(count)]
        if run.careful:
            packed, more = pack_each(everything, "the result", back=True)
            run.failures += more
            everything = packed
        run.results.extend(everything)

    def _report(self, control: tuple[Any, ...]) -> None:
        """Send the unsent results of the present job; the caller holds the lock."""
        run = self.run
        assert run is not None
        known = len(run.results)
        results = run.results[run.sent : known]
        failures = [
            (place - run.sent, error) for place, error in run.failures if run.sent <= place < known
        ]
        payload = results, _packed(failures)
        try:
            parts = pack(payload, back=True)
        except Exception:
            if control[0] == "part":
                raise
            packed, more = pack_each(results, "the result", back=True)
            parts = pack((packed, _packed(failures + more)))
            control = (control[0], True, *control[2:])
        run.sent = known
        self._put(control, parts)

    def _send(self, control: tuple[Any, ...], payload: Any) -> None:
        with self._lock:
            self._put(control, pack(payload))

    def _put(self, control: tuple[Any, ...], parts: list[Any]) -> None:
        """Send the waiting records, then a message; the caller holds the lock."""
        self._sending = True
        try:
            while self._records:
                self.channel.send(("log",), [self._records.popleft()])
            self.channel.send(control, parts)
        finally:
            self._sending = False

    # --- any thread: the log ----------------------------------------------------------------------

    def log(self, record: bytes) -> None:
        """Send a record, immediately if the parent takes it, and before any later message.

        A record logged while something is packed or sent waits until that is sent.

        Raises:
            OSError: If the parent is gone.
        """
        full = len(self._records) > _HELD
        if full and self._map is None:
            return  # the parent is not reading now
        self._records.append(record)
        self._send_records(patient=full)

    def _send_records(self, patient: bool = False) -> None:
        """Send the waiting records; if not `patient`, only what the parent takes immediately."""
        while self._records and self._lock.acquire(timeout=-1 if patient else _TICK / 1000):
            try:
                if self._sending or not self._records or not (patient or self._takes_more()):
                    return
                self._sending = True
                try:
                    self.channel.send(("log",), [self._records.popleft()])
                finally:
                    self._sending = False
            finally:
                self._lock.release()

    def _takes_more(self) -> bool:
        """Return whether a small message can be sent without waiting for the parent."""
        if not hasattr(select, "poll"):
            return bool(select.select([], [self.channel.socket], [], 0)[1])
        poller = select.poll()
        poller.register(self.channel.socket, select.POLLOUT)
        return bool(poller.poll(0))

    # --- the second thread ----------------------------------------------------------------------

    def _watch(self) -> None:
        """Send parts of long jobs; end the process if its parent disappears during a job."""
        parent = process.parent_process()
        if not hasattr(select, "poll"):
            from multiprocessing import connection

            while parent is not None and not connection.wait([parent.sentinel], _TICK / 1000):
                self._send_part()
            self._group.end()
        poller = select.poll()
        poller.register(self.channel.socket, 0)  # reports only that the other end is closed
        poller.register(self._bell, select.POLLIN)
        if parent is not None:
            poller.register(parent.sentinel, select.POLLIN)
        bell = self._bell.fileno()
        while True:
            ready = dict(poller.poll(None if self._map is None else _TICK))
            if bell in ready:
                self._bell.recv(4096)
                del ready[bell]
            if ready:
                if self._running:
                    self._group.end()
                worker_end.cut()  # the main thread notices it too
                os._exit(1)
            self._send_part()

    def _send_part(self) -> None:
        """Send what the main thread has not sent yet: records, and results of a long job."""
        try:
            self._send_records()
        except OSError:
            return
        with self._lock:
            run = self.run
            if not self._running or run is None or len(run.results) <= run.sent:
                return
            if monotonic_ns() - run.began < _TICK * 10**6:
                return
            try:
                self._report(("part", run.careful, 0))
            except OSError:
                return
            except Exception:  # noqa: BLE001 - the end of the job handles it
                run.began = 1 << 62


def _found(told: dict[str, Any], parts: list[Any]) -> Any:
    """Return the map's function, found by its name or loaded from its pickle."""
    if told["name"] is None:
        return unpack(parts)
    found = found_at(told["name"])
    if fingerprint(found) != told["code"]:
        raise Outdated
    return found


# --- the attempts ---------------------------------------------------------------------------------


def _timed(
    function: Any,
    values: list[Any],
    run: WorkerRun,
    note: Callable[[int], None],
    patience: int,
) -> None:
    """Make the attempts of a job, and note when each began."""
    for place, value in enumerate(values):
        note(place)
        try:
            run.results.append(function(value))
        except BaseException as error:  # noqa: BLE001 - it is the outcome of this item
            run.failures.append((place, error))
            run.results.append(None)
            if run.is_halted(patience):
                return


def _carefully(
    function: Any,
    items: list[Any],
    run: WorkerRun,
    note: Callable[[int], None],
    patience: int,
) -> None:
    """Unpack, run and pack each item separately, to find the one that causes trouble."""
    for place, parts in enumerate(items):
        note(place)
        packed = None
        try:
            if parts is not None:
                value = _unpacked(parts)
                result = function(value)
                packed, failures = pack_each([result], "the result", back=True)
                packed = packed[0]
                run.failures += [(place, error) for _, error in failures]
        except BaseException as error:  # noqa: BLE001 - it is the outcome of this item
            run.failures.append((place, error))
        run.results.append(packed)
        if packed is None and run.is_halted(patience):
            return


def _opened(
    items: list[Any], run: WorkerRun, note: Callable[[int], None]
) -> tuple[list[Any], list[int]]:
    """Unpack each item separately; return those that could be unpacked, and their places."""
    values, places = [], []
    for place, parts in enumerate(items):
        note(place)
        try:
            if parts is not None:
                values.append(_unpacked(parts))
                places.append(place)
        except TypeError as error:
            run.failures.append((place, error))
    return values, places


def _unpacked(parts: list[bytes]) -> Any:
    try:
        with loading():
            return unpack(parts)
    except Exception as error:
        raise TypeError(f"the item cannot be unpickled in a worker: {describe(error)}") from error


def _packed(failures: list[tuple[int, BaseException]]) -> list[tuple[int, bytes]]:
    return [(place, pack_error(error)) for place, error in failures]


# --- the process ----------------------------------------------------------------------------------


def main(end: socket.socket, cells: Cells, idle: float) -> None:
    """Be a worker.

    Args:
        end: The socket to the process that started this worker.
        cells: Memory that both share.
        idle: Seconds without a map after which the worker ends.
    """
    signal.set_wakeup_fd(-1)  # a fork inherits the fd of the parent's event loop
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, _ignore)  # the parent decides; programs do not inherit it
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    forks.register("pipes", after_in_child=end.close)
    end.settimeout(None)  # the program may have set a default timeout
    end.set_inheritable(False)  # programs that the function starts must not keep it open
    forked = worker_end.is_forked()
    if forked:
        worker_end.forget_inherited()
    group = Group(getattr(process.parent_process(), "sentinel", None), cells.numbers)
    try:
        session = Session(Channel(end), cells.numbers, group, idle)
    except OSError as error:
        _no_room(Channel(end), error.errno or errno.EIO)
    worker_logs.begin(session.log, forked)
    forks.register("pipes", after_in_child=worker_logs.end)
    try:
        session.serve()
    finally:
        std_streams.flush()
    worker_end.leave()


def _no_room(channel: Channel, number: int) -> NoReturn:
    """Report the error number that kept this worker from starting, and end."""
    channel.send(("no room", number), [])
    os._exit(1)


def _ignore(*_: Any) -> None:
    pass
