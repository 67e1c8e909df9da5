"""Event loops whose time is not the machine's: a test has stopped it, or it jumps over waits."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from opero import DeadlineExceeded, RateLimiter, hotpath, opero, opmap
from opero.testing import manual_clock


class Jumping(selectors.DefaultSelector):
    """Never waits, and adds up the time that it skipped."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout > 0:
            self.skipped += timeout
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop that skips waits, like those of looptime and others."""

    def __init__(self) -> None:
        self.jumping = Jumping()
        super().__init__(self.jumping)

    def time(self) -> float:
        return super().time() + self.jumping.skipped


@pytest.fixture
def run() -> Iterator[Any]:
    """Run a coroutine in such a loop; return its result, and the loop's seconds."""
    loops: list[JumpingLoop] = []

    def run(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, float]:
        loop = JumpingLoop()
        loops.append(loop)
        before, real = loop.time(), time.monotonic()
        result = loop.run_until_complete(coroutine)
        assert time.monotonic() - real < 20
        return result, loop.time() - before

    yield run
    for loop in loops:
        loop.close()


def test_retries_take_the_time_of_the_loop(core: hotpath.Core, run: Any) -> None:
    left = [OSError(), OSError()]

    @opero(retries=3, min_delay=100, max_delay=100)
    async def flaky() -> str:
        if left:
            raise left.pop()
        return "value"

    value, took = run(flaky())
    assert value == "value"
    assert 199 <= took <= 210


def test_so_do_permits(core: hotpath.Core, run: Any) -> None:
    limiter = RateLimiter(0.01)

    async def main() -> None:
        for _ in range(3):
            await limiter.acquire()

    _, took = run(main())
    assert 199 <= took <= 210


@pytest.mark.parametrize("cache", [False, True], ids=["uncached", "cached"])
def test_deadlines_pass_in_it(core: hotpath.Core, run: Any, cache: bool) -> None:
    @opero(retries=1, timeout=50, cache=cache)
    async def slow() -> None:
        await asyncio.sleep(1000)

    async def main() -> None:
        with pytest.raises(DeadlineExceeded):
            await slow()

    _, took = run(main())
    assert 49 <= took <= 60


def test_maps_take_it_too(core: hotpath.Core, run: Any) -> None:
    seen: list[int] = []

    @opmap(mode="async", workers=2, retries=2, min_delay=100, max_delay=100, progress=False)
    async def item(number: int) -> int:
        if number == 1 and number not in seen:
            seen.append(number)
            raise OSError
        return number

    results, took = run(item.amap(range(3)))
    assert list(results) == [0, 1, 2]
    assert 99 <= took <= 110


def test_a_clock_that_a_test_holds_is_left_alone(core: hotpath.Core) -> None:
    """A timer that is due while `manual_clock` stands still moves nothing."""

    async def main() -> float:
        @opero(retries=1, timeout=0.05)
        async def slow() -> None:
            await asyncio.sleep(0.2)

        with manual_clock() as clock:
            with pytest.raises(DeadlineExceeded):
                await slow()
            return clock.waited

    assert asyncio.run(main()) == pytest.approx(0.05)
