"""Plans of what happens around and inside a call that has a deadline, played in virtual time.

A plan says what the function awaits, how it answers cancellations, what stands around the call, and
when others cancel the task. `play` returns what came of it, for two ways to keep the deadline.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

import anyio
from hypothesis import strategies as st


def balance() -> int:
    """Return how many requests to cancel the current task there are."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


class Virtual(selectors.DefaultSelector):
    """Never waits; the loop's time and opero's are moved on instead."""

    def __init__(self, clock: Any) -> None:
        super().__init__()
        self.clock = clock
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout > 0:
            self.now += timeout
            self.clock.advance(round(timeout * 1e9))
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop in which seconds pass only when all wait."""

    def __init__(self, clock: Any) -> None:
        self.virtual = Virtual(clock)
        super().__init__(self.virtual)

    def time(self) -> float:
        return self.virtual.now


class Refused(Exception):
    """What a body makes of a cancellation."""


STEP = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["sleep", "timeout", "group", "scope", "call"]),
        "seconds": st.integers(0, 4),
        "limit": st.integers(1, 4),
        "on_cancel": st.sampled_from(["raise", "swallow", "refuse", "tidy"]),
    }
)
PLAN = st.fixed_dictionaries(
    {
        "steps": st.lists(STEP, min_size=1, max_size=3),
        "around": st.sampled_from([None, "timeout", "scope", "group"]),
        "limit": st.integers(1, 5),
        "cancels": st.lists(st.integers(1, 6), max_size=2),
        "deadline": st.integers(1, 5),
    }
)


async def step(plan: dict[str, Any], log: list[Any], call: Callable[..., Any]) -> None:
    """Do one thing that takes time, and answer a cancellation."""
    seconds = plan["seconds"]
    try:
        if plan["kind"] == "sleep":
            await asyncio.sleep(seconds)
        elif plan["kind"] == "timeout":
            async with asyncio.timeout(plan["limit"]):
                await asyncio.sleep(seconds)
        elif plan["kind"] == "scope":
            with anyio.move_on_after(plan["limit"]):
                await asyncio.sleep(seconds)
        elif plan["kind"] == "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(plan["limit"]))
                await asyncio.sleep(seconds)
        else:
            await call(plan["limit"], asyncio.sleep, seconds)
        log.append("done")
    except TimeoutError:
        log.append("inner timeout")
    except asyncio.CancelledError:
        log.append("cancelled")
        if plan["on_cancel"] == "raise":
            raise
        if plan["on_cancel"] == "refuse":
            raise Refused from None
        if plan["on_cancel"] == "tidy":
            await asyncio.sleep(seconds)
            log.append("tidied")
            raise


def play(
    plan: dict[str, Any], clock: Any, call: Callable[[int, Callable[..., Any]], Any]
) -> tuple[Any, ...]:
    """Play a plan in a loop whose time is virtual, the deadline made by `call`."""
    log: list[Any] = []

    async def body() -> str:
        for each in plan["steps"]:
            await step(each, log, call)
        return "value"

    async def caller() -> Any:
        if plan["around"] == "timeout":
            async with asyncio.timeout(plan["limit"] + 0.25):
                return await call(plan["deadline"], body)
        if plan["around"] == "scope":
            with anyio.move_on_after(plan["limit"] + 0.25):
                return await call(plan["deadline"], body)
            return "moved on"
        if plan["around"] == "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(plan["limit"] + 0.25))
                return await call(plan["deadline"], body)
        return await call(plan["deadline"], body)

    async def main() -> tuple[Any, ...]:
        loop = asyncio.get_running_loop()

        async def task_body() -> tuple[Any, ...]:
            try:
                outcome = await caller()
            except BaseException as error:  # noqa: BLE001 - it is the outcome
                outcome = leaf(error)
            return outcome, balance()

        task = asyncio.ensure_future(task_body())
        for when in plan["cancels"]:
            loop.call_later(when + 0.5, task.cancel)
        await asyncio.wait({task})
        # a task that ends although it is to be cancelled may count as cancelled all the same
        outcome = ("cancelled", task.cancelling()) if task.cancelled() else task.result()
        return *outcome, tuple(log), loop.time()

    loop = VirtualLoop(clock)
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def leaf(error: BaseException) -> str:
    """Name what is raised, timeouts alike."""
    if isinstance(error, BaseExceptionGroup):
        return f"group of {sorted(leaf(each) for each in error.exceptions)}"
    return "timeout" if isinstance(error, TimeoutError) else type(error).__name__


async def by_asyncio(seconds: int, body: Callable[..., Any], *args: Any) -> Any:
    """Call under a deadline, as by `asyncio.timeout`; that of early 3.11 forgets `before`."""
    task = asyncio.current_task()
    assert task is not None
    before, passed = task.cancelling(), False

    def cut() -> None:
        nonlocal passed
        passed = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, cut)
    try:
        return await body(*args)
    except asyncio.CancelledError as error:
        if passed and task.cancelling() - 1 <= before:
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()
        if passed:
            task.uncancel()


async def limit_by_asyncio(
    seconds: int, body: Callable[..., Any], *args: Any, looks_again: bool = False
) -> Any:
    """Make an attempt with a limit, by what asyncio has.

    Args:
        seconds: The limit.
        body: What to await.
        *args: Its arguments.
        looks_again: Whether others have a moment to cancel the task before a cut attempt counts as
            late, as those of functions have.
    """
    task = asyncio.current_task()
    assert task is not None
    before, passed = task.cancelling(), False
    error: BaseException | None = None
    value: Any = None

    def cut() -> None:
        nonlocal passed
        passed = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, cut)
    try:
        value = await body(*args)
    except BaseException as caught:  # noqa: BLE001 - it is the outcome
        error = caught
    finally:
        timer.cancel()
        if passed:
            task.uncancel()
    if passed and looks_again:
        await asyncio.sleep(0)
    counts = isinstance(error, (type(None), Exception, asyncio.CancelledError))
    if passed and task.cancelling() <= before and counts:
        raise TimeoutError
    if error is not None:
        raise error
    return value
