"""Runs that begin in their caller's step, on the loops and with the tasks that programs have."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import importlib.util
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from crowd import Job, flights_of, run, until_async

from opero import DeadlineExceeded, opero
from opero.stores import renewer

EAGER = sys.version_info >= (3, 12)
SUSPENDS = pytest.mark.parametrize("suspends", [0, 1, 3], ids=["at once", "once", "three times"])


async def settle(turns: int = 5) -> None:
    """Let every task that can continue do so."""
    for _ in range(turns):
        await asyncio.sleep(0)


# --- loops and their tasks --------------------------------------------------------------------------


class OwnTask(asyncio.Task):  # type: ignore[type-arg]
    """A task class of the program's own."""


class OwnLoop(asyncio.SelectorEventLoop):
    """A loop that creates tasks in its own way, and has no eager ones."""

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> Any:
        return super().create_task(coro, name=name, context=context)


def plain(loop: asyncio.AbstractEventLoop) -> None:
    """Leave a loop unchanged."""


def debugged(loop: asyncio.AbstractEventLoop) -> None:
    """Put a loop into debug mode."""
    loop.set_debug(True)


def patched(loop: Any) -> None:
    """Replace a loop's method that creates tasks."""
    create = loop.create_task
    loop.create_task = lambda coro, **options: create(coro, **options)


def with_own_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Set a factory that creates tasks of another class."""
    loop.set_task_factory(lambda loop, coro, **options: OwnTask(coro, loop=loop, **options))


def with_fresh_contexts(loop: asyncio.AbstractEventLoop) -> None:
    """Set a factory whose tasks do not inherit their creator's context."""

    def make(loop: Any, coro: Any, **options: Any) -> Any:
        return asyncio.Task(coro, loop=loop, **{**options, "context": contextvars.Context()})

    loop.set_task_factory(make)


def with_wrappers(loop: asyncio.AbstractEventLoop) -> None:
    """Set a factory whose tasks wrap their coroutine, as tracing tools do."""

    def make(loop: Any, coro: Any, **options: Any) -> Any:
        async def traced() -> Any:
            try:
                return await coro
            finally:
                await asyncio.sleep(0)

        return asyncio.Task(traced(), loop=loop, **options)

    loop.set_task_factory(make)


def with_eager_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Let all tasks of a loop begin immediately."""
    factory: Any = asyncio.eager_task_factory  # type: ignore[attr-defined]
    loop.set_task_factory(factory)


SETTINGS = [
    plain,
    debugged,
    patched,
    with_own_tasks,
    with_fresh_contexts,
    with_wrappers,
    *([with_eager_tasks] if EAGER else []),
]
KINDS = {
    **{each.__name__: (asyncio.SelectorEventLoop, each) for each in SETTINGS},
    "own loop": (OwnLoop, plain),
}
if importlib.util.find_spec("uvloop") is not None:
    import uvloop

    KINDS["uvloop"] = (uvloop.Loop, plain)
    KINDS["uvloop, own tasks"] = (uvloop.Loop, with_own_tasks)

LOOPS = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def run_on(kind: tuple[Callable[[], Any], Callable[[Any], None]], main: Any) -> Any:
    """Run a coroutine in a loop of some kind; fail if the loop is told of an error.

    Returns:
        What it returns.
    """
    make, prepare = kind
    loop = make()
    told: list[Any] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    prepare(loop)
    try:
        value = loop.run_until_complete(asyncio.wait_for(main, 30))
        left = asyncio.all_tasks(loop)
        loop.run_until_complete(settle(2))
        assert all(task.done() for task in left), left
    finally:
        loop.close()
    gc.collect(1)
    assert not told, told
    return value


@LOOPS
@SUSPENDS
def test_callers_share_a_run_on_every_loop(kind: Any, suspends: int) -> None:
    """Its value is stored, a failure is shared, and nothing is left."""
    runs: list[Any] = []

    @opero(retries=1, cache=True)
    async def fetch(key: Any) -> Any:
        runs.append(key)
        await settle(suspends)
        if key == "bad":
            raise ValueError(key)
        return object()

    async def main() -> None:
        values = await asyncio.gather(*[fetch(key) for key in [1, 2, 1, 2, 1]])
        assert len(set(values)) == 2
        assert await fetch(1) is values[0]
        assert sorted(runs) == [1, 2]
        failures = await asyncio.gather(*[fetch("bad") for _ in range(3)], return_exceptions=True)
        assert {type(each) for each in failures} == {ValueError}
        await settle()
        assert flights_of(fetch) == []

    run_on(kind, main())


@LOOPS
@pytest.mark.parametrize("turns", range(6))
def test_a_run_ends_with_its_last_caller_on_every_loop(kind: Any, turns: int) -> None:
    """Whenever that caller is cancelled, the run has cleaned up when its task is done."""
    log: list[str] = []

    @opero(retries=1, cache=True)
    async def fetch() -> None:
        log.append("begin")
        try:
            await asyncio.sleep(60)
        finally:
            await settle(2)
            log.append("end")

    async def main() -> None:
        callers = [asyncio.ensure_future(fetch()) for _ in range(2)]
        if kind[1] is with_wrappers:
            await settle(1)  # they begin, and what they wrap with them
        await settle(turns)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        assert all(caller.cancelled() for caller in callers)
        assert log.count("begin") == log.count("end") <= 1
        await settle()
        assert flights_of(fetch) == []

    run_on(kind, main())


@LOOPS
@pytest.mark.parametrize("way", ["awaits", "gather", "another key"])
@SUSPENDS
def test_a_run_that_leads_back_to_itself_does_not_hang_on_any_loop(
    kind: Any, way: str, suspends: int
) -> None:
    """The inner call runs on its own, unless a child task has no context to tell."""
    if way == "gather" and kind[1] is with_fresh_contexts:
        way = "awaits"
    depth: list[Any] = []

    @opero(retries=1, cache=True)
    async def fetch(key: int) -> int:
        depth.append(key)
        await settle(suspends)
        if len(depth) > 3:
            return 1
        if way == "gather":
            return 1 + sum(await asyncio.gather(fetch(key)))
        return 1 + await fetch(1 - key if way == "another key" else key)

    async def main() -> None:
        assert await fetch(0) == 4
        await settle()
        assert flights_of(fetch) == []

    run_on(kind, main())


@LOOPS
def test_a_key_invalidated_by_its_own_run_is_not_stored_on_any_loop(kind: Any) -> None:
    """Neither in the caller's step nor later."""
    runs: list[int] = []

    @opero(retries=1, cache=True)
    async def fetch(key: int) -> int:
        runs.append(key)
        if len(runs) == key:
            fetch.cache_invalidate(key)
        await settle(key)
        return len(runs)

    async def main() -> None:
        assert await fetch(1) == 1
        assert await fetch(1) == 2
        assert await fetch(1) == 2
        assert await fetch(0) == 3
        assert await fetch(0) == 3

    run_on(kind, main())


# --- the caller's step ------------------------------------------------------------------------------


@pytest.mark.skipif(not EAGER, reason="eager tasks are new in Python 3.12")
@pytest.mark.parametrize(
    "make", [asyncio.SelectorEventLoop, *([uvloop.Loop] if "uvloop" in KINDS else [])]
)
@SUSPENDS
def test_a_run_begins_in_its_callers_step(make: Any, suspends: int) -> None:
    """Like an undecorated function, and it ends in that step if it never suspends."""
    log: list[str] = []

    @opero(retries=1, cache=True)
    async def fetch() -> str:
        log.append("begin")
        await settle(suspends)
        log.append("end")
        return "value"

    async def main() -> None:
        asyncio.get_running_loop().call_soon(log.append, "next step")
        assert await fetch() == "value"
        await settle(1)
        at_once = ["begin", "end", "next step"]
        assert log == (at_once if not suspends else ["begin", "next step", "end"])

    run_on((make, plain), main())


@SUSPENDS
def test_a_run_has_a_task_and_a_context_of_its_own(suspends: int) -> None:
    """It sees its caller's variables and keeps its own changes from the caller."""
    user = contextvars.ContextVar("user", default="nobody")
    tasks: list[Any] = []

    @opero(retries=1, cache=True)
    async def fetch(key: str) -> str:
        tasks.append(asyncio.current_task())
        seen = user.get()
        user.set("changed")
        async with asyncio.timeout(60):  # which needs one task from beginning to end
            await settle(suspends)
        assert asyncio.current_task() is tasks[-1]
        assert user.get() == "changed"
        return seen

    async def main() -> None:
        me = asyncio.current_task()
        for key in ("a", "b"):
            user.set(key)
            assert await fetch(key) == key
            assert user.get() == key
            assert asyncio.current_task() is me
        assert me not in tasks
        assert len(set(tasks)) == 2

    run(main())


@pytest.mark.parametrize("deep", [5, 19, 20, 21, 25, 100])
@SUSPENDS
def test_a_chain_of_runs_ends_as_deep_as_it_is(deep: int, suspends: int) -> None:
    """Even in a thread with a small stack, because only some runs begin on one stack."""

    @opero(retries=1, cache=True)
    async def add(number: int) -> int:
        await settle(suspends)
        return number + (await add(number - 1) if number else 0)

    previous = threading.stack_size(512 * 1024)
    try:
        job = Job(run, add(deep))
    finally:
        threading.stack_size(previous)
    assert job.result() == deep * (deep + 1) // 2
    assert add.cache_info().currsize == deep + 1
    assert flights_of(add) == []


@SUSPENDS
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("backend", ["memory", "disk"])
def test_what_ends_a_program_goes_through_the_loop(
    suspends: int, kind: type[BaseException], backend: str, tmp_path: Any, caplog: Any
) -> None:
    """The next loop can use the key, and asyncio reports nothing."""
    runs: list[int] = []
    place = {"cache_dir": str(tmp_path)} if backend == "disk" else {}

    @opero(retries=3, cache=True, cache_backend=backend, cache_key=lambda: "key", **place)
    async def fetch() -> str:
        runs.append(1)
        await settle(suspends)
        if len(runs) == 1:
            raise kind
        return "value"

    async def main() -> Any:
        return await fetch()

    with pytest.raises(kind):
        asyncio.run(main())
    gc.collect()
    assert caplog.messages == []
    assert run(main()) == "value"
    call = fetch.__opero__
    assert (call.stored_cache or call.store).flights == {}


@SUSPENDS
@pytest.mark.parametrize("callers", [1, 3])
def test_a_generator_exit_of_the_functions_own_wakes_its_callers(
    suspends: int, callers: int
) -> None:
    """It looks like the end of the coroutine, but is not."""
    runs: list[int] = []

    @opero(retries=3, cache=True)
    async def fetch() -> None:
        runs.append(1)
        await settle(suspends)
        raise GeneratorExit

    async def call() -> str:
        try:
            await fetch()
        except GeneratorExit:
            return "exit"
        return "value"

    async def main() -> None:
        assert await asyncio.gather(*[call() for _ in range(callers)]) == ["exit"] * callers

    run(main())
    assert len(runs) == callers
    assert flights_of(fetch) == []


@SUSPENDS
def test_an_error_raised_while_the_caller_handles_another_is_retried(suspends: int) -> None:
    """The caller is handling its own cancellation, which is not the run's."""
    runs: list[int] = []

    @opero(retries=3, min_delay=0, max_delay=0, cache=True)
    async def fetch() -> str:
        runs.append(1)
        await settle(suspends)
        if len(runs) < 3:
            raise ValueError
        return "value"

    async def main() -> str:
        try:
            raise asyncio.CancelledError
        except asyncio.CancelledError:
            return await fetch()

    assert run(main()) == "value"


# --- callers that go ------------------------------------------------------------------------------


def test_a_task_cancelled_before_its_first_step_wakes_the_callers() -> None:
    """Other code found it among all tasks; its callers run once more."""
    runs: list[int] = []

    @opero(retries=1, cache=True)
    async def fetch() -> str:
        runs.append(1)
        return "value"

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coro, **options: OwnTask(coro, loop=loop, **options))
        callers = [asyncio.ensure_future(fetch()) for _ in range(3)]
        known = asyncio.all_tasks()
        await settle(1)
        (flight,) = asyncio.all_tasks() - known
        flight.cancel()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
        assert [type(each) for each in outcomes] == [asyncio.CancelledError, str, str]

    run(main())
    assert runs == [1]
    assert flights_of(fetch) == []


def test_callers_who_come_and_go_leave_nothing_on_a_run_that_lasts() -> None:
    """Each has a place on the run only while it waits."""
    gate: Any = None

    @opero(retries=1, cache=True, timeout=60)
    async def slow(key: int) -> int:
        await gate.wait()
        return key

    @opero(retries=1, cache=True)
    async def lasting(key: int) -> int:
        await gate.wait()
        return key

    async def main(fetch: Any) -> None:
        nonlocal gate
        gate = asyncio.Event()
        patient = asyncio.ensure_future(fetch(1))
        await settle()
        (flight,) = flights_of(fetch)
        for _ in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await fetch(1)
            hasty = asyncio.ensure_future(fetch(1))
            await settle(1)
            hasty.cancel()
            await asyncio.wait([hasty])
        assert len(flight.bells) == flight.callers == 1
        gate.set()
        assert await patient == 1

    for fetch in (slow, lasting):
        run(main(fetch))


@pytest.mark.parametrize("outcome", ["value", ValueError("late")], ids=repr)
def test_each_caller_has_a_deadline_of_its_own(outcome: Any) -> None:
    """The run continues for later callers."""
    gate: Any = None

    @opero(retries=1, cache=True, timeout=0.8)
    async def fetch() -> Any:
        await gate.wait()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def main() -> None:
        nonlocal gate
        gate = asyncio.Event()
        early = asyncio.ensure_future(fetch())
        await asyncio.sleep(0.5)
        late = asyncio.ensure_future(fetch())
        with pytest.raises(DeadlineExceeded):
            await early
        gate.set()
        assert await asyncio.gather(late, return_exceptions=True) == [outcome]

    run(main())


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("scope", ["anyio", "cancel"])
def test_a_connection_taken_from_a_pool_in_a_cancelled_run_is_given_back(
    turns: int, scope: str
) -> None:
    """Whenever it is cancelled, and whatever giving it back waits for."""

    async def main() -> None:
        pool: asyncio.Queue[str] = asyncio.Queue()
        pool.put_nowait("connection")

        @opero(retries=2, cache=True)
        async def query(key: int) -> int:
            connection = await pool.get()
            try:
                await asyncio.sleep(0)
                await asyncio.sleep(60)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.01)
                    pool.put_nowait(connection)
            return key

        if scope == "anyio":
            with anyio.CancelScope() as cancelled:
                asyncio.get_running_loop().call_later(0, cancelled.cancel)
                async with anyio.create_task_group() as group:
                    group.start_soon(query, 1)
                    group.start_soon(query, 1)
                    await settle(turns)
        else:
            callers = [asyncio.ensure_future(query(1)) for _ in range(2)]
            await settle(turns)
            for caller in callers:
                caller.cancel()
            await asyncio.wait(callers)
        assert pool.qsize() == 1
        assert flights_of(query) == []

    run(main())


@pytest.mark.parametrize("backend", ["memory", "disk"])
@pytest.mark.parametrize("inside", [True, False], ids=["task group", "alone"])
def test_a_shielded_cleanup_ends_when_its_scope_is_cancelled(
    backend: str, inside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scope cancels its task in every cycle of the loop; the run is cancelled once."""
    monkeypatch.setenv("OPERO_CACHE_SECRET", "a-secret-of-a-test-of-scopes-of-anyio")
    monkeypatch.setattr(renewer, "_LINGER", 0.05)
    log: list[str] = []
    options: dict[str, Any] = {"cache": True, "retries": 2}
    if backend == "disk":
        options |= {"cache_backend": "disk", "cache_dir": str(tmp_path), "cache_key": str}

    @opero(**options)
    async def work(key: int) -> None:
        log.append("begin")
        try:
            await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(3):
                    await anyio.sleep(0.01)
                log.append("clean")

    async def cancel(scope: anyio.CancelScope) -> None:
        await until_async(lambda: log)
        scope.cancel()

    async def main() -> None:
        with anyio.CancelScope() as scope:
            canceller = asyncio.ensure_future(cancel(scope))
            if inside:
                async with anyio.create_task_group() as group:
                    group.start_soon(work, 1)
            else:
                await work(1)
        assert scope.cancelled_caught
        await canceller

    run(main())
    assert log == ["begin", "clean"]


@pytest.mark.parametrize("turns", range(5))
def test_an_error_nobody_waits_for_any_more_is_not_reported_as_never_retrieved(turns: int) -> None:
    """The last caller was cancelled when the run failed, or right before or after."""

    @opero(retries=1, cache=True)
    async def fetch() -> None:
        try:
            await settle(2)
        finally:
            raise ValueError

    async def main() -> None:
        caller = asyncio.ensure_future(fetch())
        await settle(turns)
        caller.cancel()
        await asyncio.wait([caller])
        assert caller.cancelled() or isinstance(caller.exception(), ValueError)

    run(main())


def test_a_caller_whose_coroutine_is_closed_ends_the_run() -> None:
    """The caller cannot wait for its end."""
    log: list[str] = []

    @opero(retries=1, cache=True)
    async def fetch() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            log.append("end")

    async def main() -> None:
        caller: Any = fetch()
        if not EAGER:
            caller.send(None)
            await settle(2)
        else:
            caller.send(None)
        caller.close()
        await until_async(lambda: log)
        await settle()

    run(main())
    assert log == ["end"]
    assert flights_of(fetch) == []


# --- loops that come and go -------------------------------------------------------------------------


@SUSPENDS
@pytest.mark.parametrize("debug", [False, True])
def test_a_loop_per_call_is_used_up_and_forgotten(suspends: int, debug: bool) -> None:
    """As in a program that calls `asyncio.run` again and again."""
    loops: list[Any] = []

    @opero(retries=1, cache=True)
    async def fetch(key: int) -> int:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await settle(suspends)
        return key

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for key in range(10):
            assert asyncio.run(fetch(key), debug=debug) == key
            assert asyncio.run(fetch(key), debug=debug) == key
    assert len(loops) == 10
    assert flights_of(fetch) == []
    gc.collect()
    assert [each() for each in loops] == [None] * 10


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_that_is_dropped_with_runs_under_way_leaves_the_keys_usable(
    closed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Freeing its tasks causes no warning from opero."""
    runs: list[int] = []

    @opero(retries=1, cache=True)
    async def fetch(key: int) -> int:
        runs.append(key)
        if len(runs) <= 3:
            await asyncio.get_running_loop().create_future()
        return key

    def begin() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda _, context: None)  # tasks that were destroyed

        async def main() -> list[Any]:
            tasks = [asyncio.ensure_future(fetch(key)) for key in (1, 2, 3, 3)]
            await settle()
            return tasks

        loop.run_until_complete(main())
        if closed:
            loop.close()

    begin()
    assert run(fetch(1)) == 1
    if closed:
        assert flights_of(fetch) == []
    assert run(fetch(1)) == 1
    assert run(fetch(2)) == 2
    for loop in list(fetch.__opero__.store.flights):  # the one that nobody has closed
        loop.close()
    assert run(fetch(4)) == 4
    assert flights_of(fetch) == []
    gc.collect()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("turns", range(6))
def test_the_end_of_asyncio_run_ends_runs_in_peace(turns: int) -> None:
    """Whenever it comes, all callers and runs are cancelled once."""
    log: list[str] = []

    @opero(retries=2, cache=True)
    async def fetch(key: int) -> None:
        log.append("begin")
        try:
            await asyncio.sleep(60)
        finally:
            await settle(3)
            log.append("end")

    async def main() -> None:
        for key in (1, 1, 2):
            asyncio.ensure_future(fetch(key)).add_done_callback(lambda _: None)
        await settle(turns)

    asyncio.run(main())
    assert log.count("begin") == log.count("end")
    assert flights_of(fetch) == []
