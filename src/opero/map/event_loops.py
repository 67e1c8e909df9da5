"""Event loops that opero creates and cleans up itself."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import socket
import sys
import threading
from collections.abc import (
    AsyncGenerator,
    Callable,
    Collection,
    Coroutine,
    Generator,
    Iterator,
)
from contextlib import aclosing, contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any

from . import std_streams
from .interrupts import ctrl_c_later
from .reader import CallerReader, Input, Stop

SLOT = "opero-slot-"
"""What the names of the tasks begin with that make a map's attempts."""


def new_loop(choice: str) -> asyncio.AbstractEventLoop:
    """Make an event loop.

    Args:
        choice: "uvloop", "asyncio", or "auto": uvloop where it is installed, unless a standard
            stream is closed.

    Raises:
        ImportError: If uvloop is asked for and is not there.
    """
    if choice == "auto" and std_streams.closed():
        choice = "asyncio"  # uvloop would end the program with the first file that it closes
    if choice != "asyncio":
        try:
            import uvloop  # type: ignore[import-not-found, unused-ignore]

            std_streams.fill()
            loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
            return loop
        except ImportError:
            if choice == "uvloop":
                raise
    return asyncio.new_event_loop()


def run(make_main: Callable[[], Coroutine[Any, Any, Any]], loop: str = "auto") -> Any:
    """Run a coroutine to its end in its own loop, and clean that up.

    If this thread already runs a loop, as in a notebook, a helper thread runs the coroutine, and
    the running loop is blocked meanwhile. The coroutine sees the caller's context variables. Ctrl-C
    cancels the coroutine and waits for its end; if it ignores that, press Ctrl-C again.

    Args:
        make_main: Makes the coroutine, once Ctrl-C cannot come between that and its run.
        loop: Which loop: "auto", "uvloop" or "asyncio".

    Returns:
        What it returned.

    Raises:
        KeyboardInterrupt: If Ctrl-C was pressed.
    """
    work = Running(make_main, loop)
    if is_running():
        return _run_elsewhere(work)
    with _sigint_cancels(work):
        return work.complete()


def is_running() -> bool:
    """Return whether this thread runs a loop.

    What fails later must not have the exception that says so as its context.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class Running:
    """A coroutine and the loop that is made for it.

    Attributes:
        loop: The loop, once it is made.
        task: The coroutine's task, once it runs.
        stopping: Whether it has been asked to end.
    """

    def __init__(self, make_main: Callable[[], Coroutine[Any, Any, Any]], choice: str) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.task: asyncio.Task[Any] | None = None
        self.stopping: bool = False
        self._make_main = make_main
        self._choice = choice

    def complete(self) -> Any:
        """Make loop and coroutine, run that to its end, and close the loop.

        The caller makes sure that no interrupt comes before the end.
        """
        loop = self.loop = new_loop(self._choice)
        try:
            self.task = loop.create_task(self._make_main())
            if self.stopping:
                self.task.cancel()
            with _signals_wake(loop):
                return loop.run_until_complete(self.task)
        finally:
            if self.task is not None and self.task.done() and not self.task.cancelled():
                self.task.exception()  # looked at, so that nobody reports it as never retrieved
            close_loop(loop)

    def stop(self) -> None:
        """Cancel it; any thread may call this."""
        self.stopping = True
        if self.loop is None:
            return  # `complete` looks
        try:
            self.loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:  # the loop is closed: it is over
            pass

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()


@contextmanager
def _signals_wake(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Let every signal end the loop's wait, also one that comes just before the wait begins.

    Without this, asyncio's loop on Unix would handle such a signal only after its next event.
    uvloop, and asyncio on Windows, do it themselves.
    """
    selects = sys.platform != "win32" and isinstance(loop, asyncio.SelectorEventLoop)
    if not selects or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        ours, theirs = socket.socketpair()
    except OSError:  # descriptors have run short
        yield
        return
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        previous = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        if previous != -1:  # the program listens for signals itself
            signal.set_wakeup_fd(previous)
            yield
            return
        loop.add_reader(ours, ours.recv, 4096)
        try:
            yield
        finally:
            loop.remove_reader(ours)
            now = signal.set_wakeup_fd(-1)
            if now != theirs.fileno():  # the program has begun to listen
                signal.set_wakeup_fd(now)


_LOOK = 0.2
"""Seconds after which to look for a signal: one that comes just before a wait does not end it."""


def _run_elsewhere(work: Running) -> Any:
    """Run it in a helper thread, and wait for that."""
    context = contextvars.copy_context()
    outcome: list[Any] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def body() -> None:
        try:
            outcome.append(work.complete())
        except BaseException as error:  # noqa: BLE001 - it is raised where the caller is
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=context.run, args=(body,), name="opero-map-loop", daemon=True)
    try:
        with _sigint_cancels(work):
            thread.start()
            try:
                while not done.wait(_LOOK):
                    pass
            except BaseException:
                if not work.stopping:  # somebody else's signal handler has raised something
                    work.stop()
                    done.wait()
                raise
        thread.join()
        if errors:
            raise errors[0]
        return outcome[0]
    finally:
        errors.clear()  # the error's traceback holds this frame


@contextmanager
def _sigint_cancels(work: Running) -> Iterator[None]:
    """Let Ctrl-C cancel the work, and come out as `KeyboardInterrupt` when that is over.

    This holds in the main thread, where Ctrl-C means `KeyboardInterrupt`, or what `asyncio.run`
    makes of it; a program that handles it otherwise is left alone.
    """
    previous: Any = None
    if threading.current_thread() is threading.main_thread():
        previous = signal.getsignal(signal.SIGINT)
    task = _current_task()
    if previous is not signal.default_int_handler and not (task and callable(previous)):
        yield
        return

    def handle(number: int, frame: Any) -> None:
        if previous is not signal.default_int_handler:
            previous(number, frame)
            if not _is_asked_to_end(task):
                return
        if work.stopping:
            raise KeyboardInterrupt
        work.stop()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    except asyncio.CancelledError:
        if not work.stopping:
            raise
        raise KeyboardInterrupt from None
    finally:
        if signal.getsignal(signal.SIGINT) is handle:
            signal.signal(signal.SIGINT, previous)
    if work.stopping:
        raise KeyboardInterrupt


def _current_task() -> Any:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _is_asked_to_end(task: Any) -> bool:
    return bool(task.cancelling()) if hasattr(task, "cancelling") else False


async def ended(tasks: Collection[asyncio.Future[Any]]) -> bool:
    """Wait until tasks that were cancelled have ended, and pass on to them what cancels this.

    Returns:
        Whether anything has cancelled this meanwhile.
    """
    again = False
    left = set(tasks)
    while left:
        try:
            _, left = await asyncio.wait(left)
        except asyncio.CancelledError:
            again = True
            left = {task for task in left if not task.done()}
            for task in left:
                task.cancel()
    return again


def close_loop(loop: asyncio.AbstractEventLoop) -> None:
    """End what is left in a loop, as `asyncio.run` does, and close it.

    A map has already waited for those of its attempts that do not heed their cancellation, and has
    warned of them: they are cancelled once more and left.
    """
    try:
        tasks = asyncio.all_tasks(loop)
        left = {task for task in tasks if not task.get_name().startswith(SLOT)}
        for task in tasks:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        if tasks - left:
            _, lost = loop.run_until_complete(asyncio.wait(tasks - left, timeout=0))
            for task in lost:
                task._log_destroy_pending = False  # type: ignore[attr-defined] # it is said already
        for task in left:
            if not task.cancelled() and task.exception() is not None:
                told = {"message": "an error while the loop was ended", "task": task}
                loop.call_exception_handler({**told, "exception": task.exception()})
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


def iterate(
    make_parts: Callable[[], AsyncGenerator[list[Any], None]],
    choice: str,
    source: Input,
    stop: Stop | None = None,
) -> Generator[list[Any], None, None]:
    """Iterate over what an asynchronous iterator yields, from ordinary code.

    A helper thread runs its loop, so that what is under way goes on while the caller is busy; it is
    not asked for more before the caller has taken what there is.

    Args:
        make_parts: Makes the iterator, inside the loop.
        choice: Which loop: "auto", "uvloop" or "asyncio".
        source: The input; what is bound to the caller's thread is read there.
        stop: Ends it from another thread; None if nobody does.
    """
    parts: SimpleQueue[Any] = SimpleQueue()
    begun: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []
    stopping = threading.Event()
    asking = source if isinstance(source, CallerReader) else None
    if asking is not None:
        asking.ask = lambda answer: parts.put((answer, _ASKED))

    async def pump() -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        begun.append((loop, task))
        if stopping.is_set():
            return
        async with aclosing(make_parts()) as source:
            async for part in source:
                taken = asyncio.Event()
                parts.put((part, taken))
                await taken.wait()

    def work() -> None:
        error: BaseException | None = None
        try:
            run(pump, choice)
        except BaseException as caught:  # noqa: BLE001 - raised in the caller's thread
            error = caught
        parts.put((error, None))

    thread = threading.Thread(
        target=contextvars.copy_context().run, args=(work,), name="opero-map-loop", daemon=True
    )
    ended = False
    try:
        with ctrl_c_later():
            thread.start()
        if stop is not None:
            stop.wake = lambda: parts.put((None, _STOPPED))
        while stop is None or not stop.asked:
            try:
                part, taken = parts.get(timeout=_LOOK)
            except Empty:
                continue
            if taken is _STOPPED:
                return
            if taken is _ASKED:
                part()
                continue
            if taken is None:
                ended = True
                if part is not None:
                    raise part
                return
            yield part
            begun[0][0].call_soon_threadsafe(taken.set)
    finally:
        stopping.set()
        if not ended and begun:
            with suppress(RuntimeError):  # the loop has ended by itself
                begun[0][0].call_soon_threadsafe(begun[0][1].cancel)
        if not sys.is_finalizing():  # or it would wait for a thread that never runs again
            thread.join()
        if asking is not None:
            asking.finish()


_ASKED: Any = object()
"""Stands behind what the helper thread wants to have done in the caller's thread."""

_STOPPED: Any = object()
"""Says that nobody wants the rest."""
