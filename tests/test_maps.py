"""`@opmap` as a whole: what a user calls and gets, in every mode."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from crowd import run

from opero import AllFailedError, RateLimiter, opmap

QUIET = {"progress": False, "min_delay": 0.001, "max_delay": 0.002}


def double(x, plus=0):
    return 2 * x + plus


async def adouble(x, plus=0):
    await asyncio.sleep(0)
    return 2 * x + plus


WAYS = {"thread": double, "async": adouble, "process": double, "async_process": adouble}
every_way = pytest.mark.parametrize("mode", WAYS)
ways = pytest.mark.parametrize("mode", ["thread", "async"])  # those that share the test's memory


def flaky(mode, failures, error=ValueError):
    """Return a function that fails so often with each item, and what counts its attempts."""
    attempts = {}

    def work(x):
        attempts[x] = attempts.get(x, 0) + 1
        if attempts[x] <= failures(x):
            raise error(x)
        return -x

    async def awork(x):
        await asyncio.sleep(0)
        return work(x)

    return (work if mode == "thread" else awork), attempts


@every_way
@pytest.mark.parametrize("items", [[], [3], range(1000), {1: 2}, "ab"], ids=str)
def test_results_stand_in_the_order_of_the_items(mode, items):
    """Whatever kind of iterable the items come in."""
    mapped = opmap(mode=mode, **QUIET)(WAYS[mode])
    expected = [2 * x if isinstance(x, int) else x * 2 for x in items]
    if "a" in items:
        expected = [TypeError, TypeError]  # 2 * "a" + 0
        results = mapped(iter(items))
        assert [type(result.errors[-1]) for result in results] == expected
        return
    assert mapped(iter(items)) == expected
    assert mapped(items) == expected
    assert list(mapped.stream(items)) == expected


@every_way
def test_shared_arguments_go_to_every_call_and_are_checked_at_once(mode):
    """One that the function does not take is an error of the whole map."""
    mapped = opmap(mode=mode, **QUIET)(WAYS[mode])
    assert mapped([1, 2], plus=5) == [7, 9]
    with pytest.raises(TypeError, match="unexpected keyword argument 'minus'"):
        mapped([1, 2], minus=5)
    with pytest.raises(TypeError, match="not iterable"):
        mapped(5)


@ways
@pytest.mark.parametrize("ordered", [True, False])
def test_a_failing_item_is_retried_and_stands_as_its_exception_in_the_end(mode, ordered):
    """The others are not touched by it."""
    function, attempts = flaky(mode, lambda x: {3: 1, 5: 99}.get(x, 0))
    mapped = opmap(mode=mode, retries=3, ordered=ordered, **QUIET)(function)
    results = mapped(range(8))
    failures = [result for result in results if isinstance(result, Exception)]
    assert sorted(x for x in results if not isinstance(x, Exception)) == [-7, -6, -4, -3, -2, -1, 0]
    if ordered:
        assert results[:5] == [0, -1, -2, -3, -4]
    (failure,) = failures
    assert isinstance(failure, AllFailedError)
    assert len(failure.errors) == 3
    assert attempts == {0: 1, 1: 1, 2: 1, 3: 2, 4: 1, 5: 3, 6: 1, 7: 1}
    assert (mapped.stats().calls, mapped.stats().retries, mapped.stats().failures) == (8, 3, 1)


@ways
def test_on_error_raise_ends_the_map_with_the_first_failure(mode):
    """And nothing more is started."""
    function, attempts = flaky(mode, lambda x: 9 if x == 4 else 0)
    mapped = opmap(mode=mode, retries=1, on_error="raise", workers=1, **QUIET)(function)
    with pytest.raises(ValueError, match="4"):
        mapped(range(100_000))
    assert len(attempts) < 1000


@every_way
def test_an_input_that_raises_gives_what_came_before_it(mode):
    """The stream ends with the input's own exception."""

    def source():
        yield from range(7)
        raise OSError("no more")

    mapped = opmap(mode=mode, **QUIET)(WAYS[mode])
    seen = []
    with pytest.raises(OSError, match="no more"):
        seen.extend(mapped.stream(source()))
    assert seen == [0, 2, 4, 6, 8, 10, 12]
    with pytest.raises(OSError, match="no more"):
        mapped(source())


@ways
def test_equal_items_run_once_and_cached_ones_not_at_all(mode):
    """Within one map, and from one to the next."""
    function, attempts = flaky(mode, lambda x: 0)
    mapped = opmap(mode=mode, cache=True, **QUIET)(function)
    assert mapped([1, 2, 1, 1, 3, 2]) == [-1, -2, -1, -1, -3, -2]
    assert attempts == {1: 1, 2: 1, 3: 1}
    assert mapped([1, 4]) == [-1, -4]
    assert attempts == {1: 1, 2: 1, 3: 1, 4: 1}
    assert mapped.cache_invalidate(1)
    assert mapped([1]) == [-1]
    assert attempts[1] == 2
    assert mapped.cache_info().currsize == 4
    mapped.cache_clear()
    assert mapped.cache_info().currsize == 0


@every_way
def test_a_stream_reads_ahead_no_further_than_a_little(mode):
    """An endless input is fine, and dropping the iterator ends everything."""
    read = []

    def source():
        for x in range(10**9):
            read.append(x)
            yield x

    mapped = opmap(mode=mode, workers=2, chunk_size=1, **QUIET)(WAYS[mode])
    stream = mapped.stream(source())
    assert read == []
    assert [next(stream) for _ in range(5)] == [0, 2, 4, 6, 8]
    assert len(read) < 100
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)


@every_way
@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_async_forms_take_both_kinds_of_iterables(mode, asynchronous):
    """`amap` gathers, `astream` yields."""

    async def source():
        for x in range(20):
            if x % 7 == 3:
                await asyncio.sleep(0.001)
            yield x

    mapped = opmap(mode=mode, **QUIET)(WAYS[mode])

    async def main():
        items = source if asynchronous else lambda: range(20)
        assert await mapped.amap(items()) == [2 * x for x in range(20)]
        assert [x async for x in mapped.astream(items(), plus=1)] == [2 * x + 1 for x in range(20)]

    run(main())


@every_way
def test_the_plain_form_works_inside_a_running_loop(mode):
    """As in a notebook."""
    mapped = opmap(mode=mode, **QUIET)(WAYS[mode])

    async def main():
        return mapped(range(5))

    assert run(main()) == [0, 2, 4, 6, 8]


@ways
def test_a_cancelled_amap_leaves_nothing(mode):
    """Neither a task nor a thread."""
    began = threading.Event()
    go_on = threading.Event()

    def block(x):
        began.set()
        go_on.wait(5)

    async def ablock(x):
        began.set()
        await asyncio.sleep(60)

    mapped = opmap(mode=mode, workers=2, **QUIET)(block if mode == "thread" else ablock)

    async def main():
        task = asyncio.ensure_future(mapped.amap(range(10)))
        while not began.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


@ways
def test_one_rate_limit_for_the_whole_map(mode):
    """Starts are no closer than it allows; a shared limiter counts for all its users."""
    starts = []

    def note(x):
        starts.append(time.monotonic())

    async def anote(x):
        note(x)

    function = note if mode == "thread" else anote
    opmap(mode=mode, rate_limit=200, rate_limit_scope="total", **QUIET)(function)(range(12))
    assert len(starts) == 12
    assert starts[-1] - starts[0] > 0.05
    limiter = RateLimiter(200)
    starts.clear()
    mapped = opmap(mode=mode, rate_limit=limiter, **QUIET)(function)
    mapped(range(12))
    assert starts[-1] - starts[0] > 0.05


@ways
def test_a_progress_function_is_told_the_exact_end(mode):
    """Also when items fail."""
    function, _ = flaky(mode, lambda x: {3: 1, 5: 99}.get(x, 0))
    told = []
    mapped = opmap(mode=mode, retries=2, min_delay=0.001, max_delay=0.002, progress=told.append)(
        function
    )
    mapped(range(10))
    assert (told[-1].done, told[-1].failed, told[-1].retried, told[-1].total) == (10, 1, 2, 10)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "threads"}, "mode='threads'"),
        ({"workers": 0}, "workers=0"),
        ({"chunk_size": 0}, "chunk_size=0"),
        ({"on_error": "ignore"}, "on_error='ignore'"),
        ({"rate_limit_scope": "all"}, "rate_limit_scope='all'"),
        ({"mode": "thread", "attempt_timeout": 1}, "attempt_timeout=1"),
        ({"mode": "thread", "start_method": "spawn"}, "start_method='spawn'"),
        ({"start_method": "clone"}, "start_method='clone'"),
        ({"mode": "async"}, "use mode='thread'"),
        ({"mode": "async_process"}, "use mode='process'"),
        ({"loop": "trio"}, "loop='trio'"),
        ({"retries": -1}, "retries=-1"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_at_decoration(options, words):
    """By its name and its value."""
    with pytest.raises(ValueError, match=words):
        opmap(**{**QUIET, **options})(double)


def test_a_coroutine_function_is_sent_to_an_async_mode():
    """The error names it."""
    with pytest.raises(ValueError, match="use mode='async'"):
        opmap(mode="thread")(adouble)
    with pytest.raises(ValueError, match="use mode='async_process'"):
        opmap()(adouble)
    with pytest.raises(TypeError, match="did you mean 'workers'"):
        opmap(worker=3)
