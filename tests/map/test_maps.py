"""`@opmap` as a whole: what a user calls and gets, in every mode."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import itertools
import pickle
import re
import threading
import time
import weakref

import pytest
from crowd import Job, run

from opero import AllFailedError, DeadlineExceeded, RateLimiter, opero, opmap
from opero.testing import skip_waits

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
    """Return a function that fails a number of times per item, and a counter of its attempts."""
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
    """The items come in any kind of iterable."""
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
    """An argument that the function does not take fails the whole map."""
    mapped = opmap(mode=mode, **QUIET)(WAYS[mode])
    assert mapped([1, 2], plus=5) == [7, 9]
    with pytest.raises(TypeError, match="unexpected keyword argument 'minus'"):
        mapped([1, 2], minus=5)
    with pytest.raises(TypeError, match="not iterable"):
        mapped(5)


@ways
@pytest.mark.parametrize("ordered", [True, False])
def test_a_failing_item_is_retried_and_stands_as_its_exception_in_the_end(mode, ordered):
    """The other items are unaffected."""
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
    """Nothing more starts."""
    function, attempts = flaky(mode, lambda x: 9 if x == 4 else 0)
    mapped = opmap(mode=mode, retries=1, on_error="raise", workers=1, **QUIET)(function)
    with pytest.raises(ValueError, match="4"):
        mapped(range(100_000))
    assert len(attempts) < 1000


@every_way
def test_an_input_that_raises_gives_what_came_before_it(mode):
    """The stream ends with the input's exception."""

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
    """That holds within one map and between maps."""
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
    """The input may be endless, and dropping the iterator ends everything."""
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
    """Notebooks run such a loop."""
    mapped = opmap(mode=mode, **QUIET)(WAYS[mode])

    async def main():
        return mapped(range(5))

    assert run(main()) == [0, 2, 4, 6, 8]


@ways
def test_a_cancelled_amap_leaves_nothing(mode):
    """Neither a task nor a thread remains."""
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
    """Starts are as far apart as it requires; a shared limiter counts all of its users."""
    starts = []

    def note(x):
        starts.append(time.monotonic())

    async def anote(x):
        note(x)

    function = note if mode == "thread" else anote
    begun = time.monotonic()
    opmap(mode=mode, rate_limit=200, rate_limit_scope="total", **QUIET)(function)(range(12))
    assert len(starts) == 12
    assert max(starts) - begun >= 11 / 200
    limiter = RateLimiter(200)
    starts.clear()
    mapped = opmap(mode=mode, rate_limit=limiter, **QUIET)(function)
    begun = time.monotonic()
    mapped(range(12))
    assert max(starts) - begun >= 11 / 200


@ways
def test_a_progress_function_is_told_the_exact_end(mode):
    """That holds even if items fail."""
    function, _ = flaky(mode, lambda x: {3: 1, 5: 99}.get(x, 0))
    told = []
    mapped = opmap(mode=mode, retries=2, min_delay=0.001, max_delay=0.002, progress=told.append)(
        function
    )
    mapped(range(10))
    assert (told[-1].done, told[-1].failed, told[-1].retried, told[-1].total) == (10, 1, 2, 10)


# --- bad items and bad inputs ---------------------------------------------------------------------


@every_way
def test_what_is_no_input_is_refused_at_once(mode):
    """All four forms refuse it before anything runs."""
    mapped = opmap(mode=mode, **QUIET)(WAYS[mode])
    for form in (mapped, mapped.stream, mapped.amap, mapped.astream):
        with pytest.raises(
            TypeError, match=r"double\(\): the items are an int, which is not iterable"
        ):
            form(5)
        with pytest.raises(TypeError, match="unexpected keyword argument 'minus'"):
            form([], minus=5)
        with pytest.raises(TypeError, match="multiple values for argument 'x'"):
            form([], x=5)

    async def source():
        yield 1

    for form in (mapped, mapped.stream):
        with pytest.raises(TypeError, match="an async_generator, which is asynchronous: use amap"):
            form(source())


@ways
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), r"double(\.\w+)?\(\) is missing the items: pass an iterable of them$"),
        (([1], 2), r"double(\.\w+)?\(\) takes only the items by position, but got 2 arguments: "),
        (([1], [2], [3]), "but got 3 arguments: "),
    ],
    ids=["none", "two", "three"],
)
def test_the_items_are_all_that_is_given_by_position(mode, given, words):
    """All four forms check that before anything runs."""
    mapped = opmap(mode=mode, **QUIET)(WAYS[mode])
    for form in (mapped, mapped.stream, mapped.amap, mapped.astream):
        with pytest.raises(TypeError, match=words):
            form(*given)


class Unsure:
    """An input that is wrong about its length."""

    def __init__(self, length):
        self.length = length

    def __iter__(self):
        return iter(range(100))

    def __len__(self):
        if isinstance(self.length, Exception):
            raise self.length
        return self.length


@ways
@pytest.mark.parametrize("length", [0, 3, 100_000, -1, ValueError("no")], ids=str)
def test_an_input_may_be_wrong_about_its_length(mode, length):
    """The length is only a hint."""
    mapped = opmap(mode=mode, **QUIET)(WAYS[mode])
    assert mapped(Unsure(length)) == [2 * x for x in range(100)]


@ways
def test_an_input_may_be_too_long_for_a_length(mode):
    """`len` fails for such a range."""
    stream = opmap(mode=mode, workers=2, **QUIET)(WAYS[mode]).stream(range(1 << 99))
    assert list(itertools.islice(stream, 3)) == [0, 2, 4]
    stream.close()


class Nameless:
    """A value without a cache key."""

    __hash__ = None  # type: ignore[assignment]


@ways
def test_an_item_without_a_cache_key_fails_alone(mode):
    """The other items still count."""
    function, attempts = flaky(mode, lambda x: 0)
    mapped = opmap(mode=mode, cache=True, **QUIET)(function)
    results = mapped([1, Nameless(), 2, 1])
    assert (results[0], results[2], results[3]) == (-1, -2, -1)
    assert isinstance(results[1], TypeError)
    assert "argument 'x'" in str(results[1])
    assert attempts == {1: 1, 2: 1}


# --- what functions return and raise ---------------------------------------------------------------


def hostile(x):
    if x == "stop":
        raise StopIteration(5)
    if x == "exit":
        raise SystemExit(3)
    if x == "close":
        raise GeneratorExit
    if x == "cancel":
        raise asyncio.CancelledError
    if x == "value":
        return ValueError("returned")
    return None


async def ahostile(x):
    return hostile(x)


@every_way
def test_whatever_a_function_raises_is_the_outcome_of_its_item(mode):
    """A base exception is not retried or counted, and ends nothing here."""
    mapped = opmap(mode=mode, workers=1, retries=3, **QUIET)(
        ahostile if "async" in mode else hostile
    )
    results = mapped(["fine", "stop", "exit", "close", "cancel", "value", "fine"])
    assert [results[0], results[6]] == [None, None]
    assert [type(results[n]) for n in (2, 3, 4)] == [
        SystemExit,
        GeneratorExit,
        asyncio.CancelledError,
    ]
    if "async" in mode:  # as of any coroutine
        assert isinstance(results[1].errors[-1], RuntimeError)
    else:
        assert isinstance(results[1], StopIteration)
    assert repr(results[5]) == "ValueError('returned')"  # a returned exception is a result
    assert mapped.stats().failures == ("async" in mode)


@ways
def test_none_is_a_value_like_any_other(mode):
    """The cache stores it too."""
    function, attempts = flaky(mode, lambda x: 0)

    def nothing(x):
        function(x)

    async def anothing(x):
        await function(x)

    mapped = opmap(mode=mode, cache=True, **QUIET)(nothing if mode == "thread" else anothing)
    assert mapped([1, 1]) == [None, None]
    assert mapped([1]) == [None]
    assert attempts == {1: 1}


@every_way
def test_a_stream_gives_what_is_ready_before_it_raises_a_failure(mode):
    """With `on_error="raise"` it does so in the order of the items."""
    mapped = opmap(mode=mode, workers=1, retries=1, on_error="raise", **QUIET)(WAYS[mode])
    seen = []
    with pytest.raises(TypeError):
        seen.extend(mapped.stream([1, 2, 3, None, 5]))
    assert seen == [2, 4, 6]


# --- time -----------------------------------------------------------------------------------------


async def oversleep(x):
    await asyncio.sleep(x)
    return x


@pytest.mark.parametrize("mode", ["async", "async_process"])
def test_an_awaited_attempt_is_cut_at_the_deadline(mode):
    """`@opero` does the same; the other items are unaffected."""
    mapped = opmap(mode=mode, timeout=0.4, retries=3, **QUIET)(oversleep)
    late, fine = mapped([600, 0])
    assert isinstance(late, DeadlineExceeded)
    assert fine == 0


@every_way
def test_waits_can_be_skipped_in_tests(core, mode):
    """That works in every mode; the figures count the skipped time."""
    mapped = opmap(mode=mode, retries=3, min_delay=900, max_delay=900, progress=False)(WAYS[mode])
    with skip_waits() as clock:
        assert [type(result) for result in mapped([None, 1])] == [AllFailedError, int]
        assert clock.waited >= 1800
    assert mapped.stats().backoff_wait == 1800
    assert mapped.stats()[3:7] == (4, 2, 0, 1)


@ways
def test_a_limiter_serves_maps_and_functions_in_turn(core, mode):
    """A map waits in line, and nothing waits for ever."""
    limiter = RateLimiter(50)
    single = opero(rate_limit=limiter)(double)
    mapped = opmap(mode=mode, rate_limit=limiter, **QUIET)(WAYS[mode])
    over = threading.Event()

    def crowd():
        while not over.is_set():
            single(1)

    crowds = [Job(crowd) for _ in range(3)]
    try:
        begun = time.monotonic()
        assert mapped(range(8)) == [2 * x for x in range(8)]
        elapsed = time.monotonic() - begun
    finally:
        over.set()
        for each in crowds:
            each.wait()
    assert elapsed >= 7 * 4 / 50 * 0.5  # three others stand before each of its permits
    assert 0 < mapped.stats().permit_wait <= elapsed


# --- maps beside and inside each other -------------------------------------------------------------


@ways
def test_streams_of_one_function_go_on_side_by_side(mode):
    """They are independent, and do not wait for each other's runs."""
    mapped = opmap(mode=mode, workers=2, cache=True, **QUIET)(WAYS[mode])
    one, other = mapped.stream(range(50)), mapped.stream(range(50))
    assert list(zip(one, other, strict=True)) == [(2 * x, 2 * x) for x in range(50)]
    paused = mapped.stream(range(50, 60))
    assert next(paused) == 100
    assert mapped(range(50, 60)) == list(range(100, 120, 2))
    paused.close()
    assert mapped.__opero__.call.store.flights == {}


@ways
def test_a_value_that_is_invalidated_while_it_is_made_is_not_kept(mode):
    """The map still gets it, because the map began before."""

    def forget(x):
        mapped.cache_invalidate(x)
        return x

    async def aforget(x):
        return forget(x)

    mapped = opmap(mode=mode, cache=True, **QUIET)(forget if mode == "thread" else aforget)
    assert mapped([1, 2]) == [1, 2]
    assert mapped.cache_info().currsize == 0


def test_a_map_may_run_inside_a_map():
    """That includes a coroutine of another map, which it blocks."""
    inner = opmap(mode="thread", workers=2, **QUIET)(double)

    def outer(x):
        return sum(inner(range(x)))

    async def aouter(x):
        return outer(x) + sum(await inner.amap(range(x)))

    assert opmap(mode="thread", workers=3, **QUIET)(outer)(range(8)) == [
        x * (x - 1) for x in range(8)
    ]
    assert opmap(mode="async", workers=3, **QUIET)(aouter)(range(8)) == [
        2 * x * (x - 1) for x in range(8)
    ]


@every_way
def test_a_stream_may_end_in_another_thread(mode):
    """It ends where its last reference is dropped."""
    stream = opmap(mode=mode, workers=2, **QUIET)(WAYS[mode]).stream(itertools.count())
    assert next(stream) == 0
    held = [stream]
    del stream
    Job(held.clear).wait()


# --- a function like any other --------------------------------------------------------------------


@opmap(mode="thread", **QUIET)
def documented(x: int, plus: int = 0) -> int:
    """Say what it does."""
    return x + plus


def test_a_map_looks_like_its_function():
    """It has the function's name, docstring and signature, and travels by name."""
    assert documented.__name__ == "documented"
    assert documented.__doc__ == "Say what it does."
    assert str(inspect.signature(documented)) == "(x: 'int', plus: 'int' = 0) -> 'int'"
    assert documented.__wrapped__(1, plus=2) == 3
    assert pickle.loads(pickle.dumps(documented)) is documented
    assert repr(documented) == "<opero map of documented, mode 'thread'>"


def test_an_attribute_of_the_function_does_not_hide_a_form_of_the_map():
    """Other attributes are copied, as with `functools.wraps`."""

    def odd(x):
        return x

    odd.stream = odd.amap = odd.plan = odd.mine = "an attribute"
    mapped = opmap(mode="thread", **QUIET)(odd)
    assert list(mapped.stream([1])) == [1]
    assert mapped.stats().calls == 1
    assert mapped.mine == "an attribute"


@ways
def test_attempts_see_the_callers_context(mode):
    """What one attempt sets, no other sees."""
    where = contextvars.ContextVar("where", default="nowhere")

    def look(x):
        return where.get()

    async def alook(x):
        seen = where.get()
        where.set(str(x))
        return seen

    mapped = opmap(mode=mode, workers=2, **QUIET)(look if mode == "thread" else alook)
    where.set("here")
    assert mapped(range(5)) == list(mapped.stream(range(5))) == ["here"] * 5
    assert where.get() == "here"


# --- memory ---------------------------------------------------------------------------------------


class Payload:
    """Something that a weak reference can watch."""


@pytest.mark.refcounts
@ways
@pytest.mark.parametrize("ordered", [True, False])
def test_a_stream_lets_go_of_what_it_has_handed_on(mode, ordered):
    """That holds for items and results, even within one chunk."""
    watched = []

    def make(x):
        result = Payload()
        watched.append(weakref.ref(x))
        watched.append(weakref.ref(result))
        return result

    async def amake(x):
        return make(x)

    mapped = opmap(mode=mode, workers=2, ordered=ordered, **QUIET)(
        make if mode == "thread" else amake
    )
    gc.collect()
    gc.disable()
    try:
        taken = 0
        for result in mapped.stream(Payload() for _ in range(2000)):
            assert isinstance(result, Payload)
            taken += 1
        del result
        assert taken == 2000
        assert not [ref for ref in watched if ref() is not None]
    finally:
        gc.enable()


@every_way
def test_a_progress_function_that_raises_ends_the_map(mode):
    """The map raises the same error."""

    def tell(progress):
        raise OSError("the display is gone")

    options = {**QUIET, "progress": tell}
    mapped = opmap(mode=mode, workers=2, **options)(WAYS[mode])
    with pytest.raises(OSError, match="the display is gone"):
        mapped(range(1000))


# --- options --------------------------------------------------------------------------------------


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
    """The error shows its name and its value."""
    with pytest.raises(ValueError, match=words):
        opmap(**{**QUIET, **options})(double)


def test_a_coroutine_function_is_sent_to_an_async_mode():
    """The error names the mode."""
    with pytest.raises(ValueError, match="use mode='async'"):
        opmap(mode="thread")(adouble)
    with pytest.raises(ValueError, match="use mode='async_process'"):
        opmap()(adouble)
    with pytest.raises(TypeError, match="did you mean 'workers'"):
        opmap(worker=3)


@pytest.mark.parametrize("room", [1, 0])
def test_a_map_in_threads_goes_on_with_those_that_the_system_starts(monkeypatch, room):
    """If no thread starts, the error says so."""
    start = threading.Thread.start
    started: list[str] = []

    def no_more(thread: threading.Thread) -> None:
        if re.fullmatch(r"opero-map-\d+", thread.name):
            if len(started) >= room:
                raise RuntimeError("can't start new thread")
            started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", no_more)
    mapped = opmap(mode="thread", workers=4, retries=1, progress=False, chunk_size=1)(abs)
    if room:
        assert mapped(range(-50, 0)) == [*range(50, 0, -1)]
        assert len(started) == room
    else:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            mapped([1])
