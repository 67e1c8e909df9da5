"""Nothing is lost and nothing is left: each fault again and again, through `@opmap` alone."""

from __future__ import annotations

import asyncio
import gc
import importlib
import itertools
import os
import random
import resource
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from crowd import run, together

sys.path.insert(0, str(Path(__file__).with_name("isolated_map")))

import census
import faults
from repeats import REPEATS, scaled

from opero import AllFailedError, WorkerCrashedError, opmap
from opero.exceptions import AttemptTimeout, ErrorStandIn
from opero.map.engines.processes import pool

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(sys.platform != "linux", reason="these tests look into /proc"),
]

FUNCTIONS = {"process": faults.work, "async_process": faults.awork}
QUIET = {"progress": False, "retries": 1}


@pytest.fixture(autouse=True)
def no_worker_left():
    """End the warm workers after each test, and check that nothing of them is left."""
    yield
    pool.shut()
    gc.collect()
    assert not pool._all


def mapping(mode: str, method: str, **options: Any) -> Any:
    """Return the map of a function that does what its items say."""
    every = {"workers": 2, "chunk_size": 4, "start_method": method, **QUIET, **options}
    return opmap(mode=mode, **every)(FUNCTIONS[mode])


def holds(after: Any) -> Any:
    """Count what exists once the warm workers have ended; wait a little for the wanted count."""
    end = time.monotonic() + 10
    while True:
        gc.collect()
        pool.shut()
        found = census.count()
        if after is None or found == after or time.monotonic() > end:
            return found
        time.sleep(0.02)


def repeat(once: Any, times: int = REPEATS) -> None:
    """Do something repeatedly, and check that nothing grows."""
    for _ in range(2):
        once()
    end = time.monotonic() + 30  # whatever is still to end by itself
    while any(each.name.startswith("opero") for each in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.02)
    before = holds(None)
    for _ in range(times):
        once()
    assert holds(before) == before


def others(results: list[Any], items: list[Any]) -> list[Any]:
    """Return the outcomes of the bad items; the others must have their results."""
    assert len(results) == len(items)
    for item, result in zip(items, results, strict=True):
        if type(item) is int:
            assert result == (item, 0)
    return [result for item, result in zip(items, results, strict=True) if type(item) is not int]


# --- workers that die -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("word", faults.DEATHS)
@pytest.mark.parametrize("method", ["forkserver", "fork"])
def test_a_worker_that_dies_in_the_middle_costs_one_item_again_and_again(method, word):
    """It dies by `os._exit`, a signal, or a lack of memory."""
    mapped = mapping("process", method)
    items = [0, 1, (word, 2), 3, 4, 5]

    def once():
        (bad,) = others(mapped(items), items)
        assert faults.code_of(bad) == faults.CODES[word]

    repeat(once)


@pytest.mark.parametrize(
    ("mode", "method", "times"),
    [
        ("async_process", "fork", 25),
        pytest.param("async_process", "forkserver", 5, marks=pytest.mark.slow),
        pytest.param("process", "spawn", 2, marks=pytest.mark.slow),
        pytest.param("async_process", "spawn", 2, marks=pytest.mark.slow),
    ],
)
def test_all_deaths_in_one_map_cost_one_item_each(mode, method, times):
    """There are fewer deaths where a worker takes long to start."""
    if method == "fork":  # or each worker would import them anew
        importlib.import_module("opero.map.engines.processes.worker_loop")
        pytest.importorskip("uvloop")
    mapped = mapping(mode, method)
    items = [0, ("exit", 1), 2, ("kill", 3), ("segfault", 4), 5, 6, ("memory", 7), 8]

    def once():
        dead = others(mapped(items), items)
        assert [faults.code_of(bad) for bad in dead] == list(faults.CODES.values())

    repeat(once, scaled(times))


@pytest.mark.slow
@pytest.mark.parametrize("mode", FUNCTIONS)
def test_an_item_that_kills_every_worker_it_meets_is_given_up_again_and_again(mode):
    """It uses up its attempts, and each is one of the errors."""
    mapped = mapping(mode, "fork", retries=3, min_delay=0, max_delay=0)
    items = [0, 1, 2, ("kill", 3), 4]

    def once():
        (bad,) = others(mapped(items), items)
        assert isinstance(bad, AllFailedError)
        assert [faults.code_of(error) for error in bad.errors] == [-9] * 3

    repeat(once, scaled(34 if mode == "process" else 5))  # three workers each


def test_an_item_that_kills_its_worker_once_has_its_result_in_the_end(tmp_path):
    """Another worker makes the next attempt."""
    for mode, function in (("process", faults.once), ("async_process", faults.aonce)):
        mapped = opmap(mode=mode, workers=2, retries=2, min_delay=0, progress=False)(function)
        items = [0, *[(word, 1, str(tmp_path / f"{mode} {word}")) for word in faults.DEATHS], 5]
        assert mapped(items) == items


# --- what does not travel -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mode", FUNCTIONS)
@pytest.mark.parametrize("method", ["forkserver", "fork"])
def test_what_does_not_travel_fails_its_own_item_again_and_again(mode, method):
    """Exceptions, results and arguments may fail to pickle or to unpickle."""
    mapped = mapping(mode, method)
    words = ["raise lock", "raise two", "raise no way back", "lock", "one way", "system exit"]
    items = [0, *[(word, 1) for word in words], 2, faults.Closed(), faults.OneWay(), 3]

    def once():
        lock, two, no_way, *kinds, closed, one_way = others(mapped(items), items)
        assert type(lock) is faults.Unpicklable
        assert lock.args == ("1",)
        assert type(two) is faults.TwoArguments
        assert two.args == ("one 1",)
        assert type(no_way) in {faults.NoWayBack, ErrorStandIn}
        assert list(map(type, kinds)) == [TypeError, TypeError, SystemExit]
        assert "cannot be pickled" in str(closed)
        assert "cannot be unpickled in a worker" in str(one_way)

    repeat(once)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["thread", "process", "async", "async_process"])
def test_an_input_that_raises_halfway_leaves_nothing_again_and_again(mode):
    """Earlier results are there, and the input's own exception is raised."""
    function = faults.awork if mode.startswith("async") else faults.work
    mapped = opmap(mode=mode, workers=2, chunk_size=2, **QUIET)(function)

    def source():
        yield from range(7)
        raise OSError("no more")

    def once():
        seen: list[Any] = []
        with pytest.raises(OSError, match="no more"):
            seen.extend(mapped.stream(source()))
        assert seen == [(number, 0) for number in range(7)]

    repeat(once)


@pytest.mark.parametrize("mode", FUNCTIONS)
def test_items_that_come_late_and_cannot_be_sent_do_not_hold_up_a_coroutine(mode):
    """They fail while the map waits for nothing else."""

    async def source():
        for item in (faults.Closed(), 1, faults.Closed()):
            await asyncio.sleep(0.01)
            yield item

    async def main():
        return await asyncio.wait_for(mapping(mode, "forkserver").amap(source()), 60)

    one, two, three = run(main())
    assert two == (1, 0)
    assert isinstance(one, TypeError)
    assert isinstance(three, TypeError)


@pytest.mark.parametrize("mode", FUNCTIONS)
def test_an_attempt_that_begins_while_a_coroutine_waits_has_its_time_limit(mode):
    """So does the second attempt of an item."""
    options = {"attempt_timeout": 0.3, "retries": 2, "min_delay": 0.05, "max_delay": 0.05}

    async def main():
        mapped = mapping(mode, "forkserver", **options)
        return await asyncio.wait_for(mapped.amap([0, ("sleep", 60)]), 60)

    begun = time.monotonic()
    one, late = run(main())
    assert one == (0, 0)
    assert list(map(type, late.errors)) == [AttemptTimeout] * 2
    assert time.monotonic() - begun < 20


# --- streams that are dropped ---------------------------------------------------------------------


def drop(stream: Any, how: str) -> None:
    """Take some results, then drop the stream."""
    for _ in range(3):
        next(stream)
    if how == "close":
        stream.close()
    elif how == "cycle":
        ring = [stream]
        ring.append(ring)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["close", "del", "cycle", "break"])
@pytest.mark.parametrize("mode", ["thread", "process", "async", "async_process"])
def test_a_stream_that_is_dropped_halfway_leaves_nothing_again_and_again(mode, how):
    """Its idle workers go back, and its busy ones end."""
    function = faults.awork if mode.startswith("async") else faults.work
    if mode.endswith("process"):
        mapped = mapping(mode, "fork", chunk_size=1)
    else:
        mapped = opmap(mode=mode, workers=2, chunk_size=1, **QUIET)(function)

    def once():
        items = itertools.chain(range(10), itertools.repeat(("sleep", 0.05)))
        if how == "break":
            for result in mapped.stream(items):
                if result == (3, 0):
                    break
        else:
            drop(mapped.stream(items), how)
        if how == "cycle":
            gc.collect()

    repeat(once, REPEATS if how == "close" else scaled(20))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["thread", "process", "async", "async_process"])
def test_a_cancelled_coroutine_leaves_nothing_again_and_again(mode):
    """No task, thread, process or file remains."""
    function = faults.awork if mode.startswith("async") else faults.work
    if mode.endswith("process"):
        mapped = mapping(mode, "fork", chunk_size=1)
    else:
        mapped = opmap(mode=mode, workers=2, chunk_size=1, **QUIET)(function)

    async def main():
        task = asyncio.ensure_future(mapped.amap(itertools.chain(range(4), [("sleep", 0.1)] * 9)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    repeat(lambda: asyncio.run(main()))


# --- where it is called from ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mode", FUNCTIONS)
def test_several_threads_map_at_once_each_with_workers_that_die(mode):
    """The maps do not affect each other."""
    mapped = mapping(mode, "forkserver")

    def one(number):
        items = [*range(number, number + 9), ("exit", 0), *range(5)]
        return [others(mapped(items), items) for _ in range(2)]

    for outcome in together(3, one):
        for (bad,) in outcome.result():
            assert isinstance(bad, WorkerCrashedError)


def nested(item):
    """Map in a worker; an item dies there."""
    mapped = mapping("process", "fork")
    items = [item, ("kill", 1), item + 1]
    (bad,) = others(mapped(items), items)
    return faults.code_of(bad), os.getpid()


def test_a_map_inside_a_worker_of_a_map_loses_nothing():
    """That holds for the inner and the outer map."""
    results = opmap(workers=2, chunk_size=1, **QUIET)(nested)(range(4))
    assert [code for code, _ in results] == [-9] * 4


def test_a_forked_child_maps_while_its_parent_does():
    """It uses the same decorated function, and its workers end with it."""
    mapped = mapping("process", "forkserver")
    stream = mapped.stream([0, ("sleep", 0.3), 1, 2, ("exit", 3), 4])
    assert next(stream) == (0, 0)
    child = os.fork()
    if child == 0:
        try:
            good = mapped([1, ("kill", 2), 3])
            os._exit(0 if good[::2] == [(1, 0), (3, 0)] and good[1].exitcode == -9 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    sleep, one, two, dead, four = stream
    assert [sleep, one, two, four] == [("sleep", 0.3), (1, 0), (2, 0), (4, 0)]
    assert isinstance(dead, WorkerCrashedError)


def test_a_waiting_map_takes_no_processor_time():
    """The caller sleeps, and a busy worker wakes up only every 50 ms."""
    mapped = mapping("process", "forkserver")
    mapped([0, 1])
    used = time.process_time()
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    mapped([("sleep", 1)])
    assert time.process_time() - used < 0.3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - switches < 50


# --- results that change --------------------------------------------------------------------------

kept: dict[int, int] = {}


def keep(item: int) -> dict[int, int]:
    """Return an object that every attempt in this worker changes."""
    time.sleep(0.005)
    kept[item] = item
    return kept


def test_a_result_is_as_it_was_returned_if_each_item_travels_alone():
    """The worker pickles it before its next attempt begins."""
    results = opmap(workers=1, chunk_size=1, **QUIET)(keep)(range(30))
    assert [list(result) for result in results] == [list(range(end)) for end in range(1, 31)]


def test_a_result_that_later_attempts_change_is_lost_no_more_than_another():
    """It may be pickled during a later attempt, but has at least its returned contents."""
    results = opmap(workers=1, chunk_size=60, **QUIET)(keep)(range(60))
    assert all(set(range(item + 1)) <= set(result) for item, result in enumerate(results))


# --- large values ---------------------------------------------------------------------------------

MEGABYTES = 200


def memory(name: str) -> int:
    """Return a memory figure of this process, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(value) >> 10


def swallow(array: Any) -> tuple[int, int, int]:
    """Return the size of an array, and the worker's peak memory."""
    return array.nbytes, memory("VmHWM"), memory("VmRSS")


def produce(megabytes: int) -> Any:
    """Return a large array."""
    import numpy as np

    return np.ones(megabytes << 17)


@pytest.mark.slow
def test_a_large_array_is_in_memory_once_on_each_side_while_it_moves():
    """Receiving 200 MB takes less than 1.4 times that, in each direction."""
    numpy = pytest.importorskip("numpy")
    most = 1.4 * MEGABYTES
    array = numpy.ones(MEGABYTES << 17)
    mapped = opmap(workers=1, chunk_size=1, **QUIET)(swallow)
    ((_, _, empty),) = mapped([numpy.ones(1)])
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    ((size, peak, _),) = mapped([array])
    assert size == MEGABYTES << 20
    assert peak - empty < most
    assert memory("VmHWM") - before < 0.4 * MEGABYTES  # nothing is copied before it is sent
    del array
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    (back,) = opmap(workers=1, chunk_size=1, **QUIET)(produce)([MEGABYTES])
    assert back.nbytes == MEGABYTES << 20
    assert memory("VmHWM") - before < most
    del back
    gc.collect()


# --- anything at all ------------------------------------------------------------------------------

ODDS = {
    "plain": 60, "raise": 6, "raise lock": 2, "raise two": 2, "raise no way back": 2,
    "system exit": 2, "lock": 2, "one way": 2, "closed item": 2, "one way item": 2,
    "once exit": 2, "once raise": 3, "exit": 1, "kill": 1, "segfault": 1, "sleep": 0.25,
}  # fmt: skip
KINDS = {
    "raise": {ValueError}, "raise lock": {faults.Unpicklable}, "raise two": {faults.TwoArguments},
    "raise no way back": {faults.NoWayBack, ErrorStandIn}, "lock": {TypeError},
    "one way": {TypeError}, "closed item": {TypeError}, "one way item": {TypeError},
    "exit": {WorkerCrashedError}, "kill": {WorkerCrashedError}, "segfault": {WorkerCrashedError},
    "sleep": {AttemptTimeout},
}  # fmt: skip
LIMIT = 1.0
MAPS = max(6, scaled(24))


async def asoak(item):
    """Do what an item says."""
    if isinstance(item, tuple) and item[0].startswith("once"):
        return await faults.aonce((item[0][5:], *item[1:]))
    return await faults.awork(item)


def soak(item):
    """Do what an item says."""
    if isinstance(item, tuple) and item[0].startswith("once"):
        return faults.once((item[0][5:], *item[1:]))
    return faults.work(item)


def drawn(dice: random.Random, folder: Path) -> tuple[list[str], list[Any]]:
    """Return words, and the items that they represent."""
    words = dice.choices(list(ODDS), list(ODDS.values()), k=dice.randrange(1, 80))
    items: list[Any] = []
    for number, word in enumerate(words):
        if word == "plain":
            items.append(number)
        elif word == "closed item":
            items.append(faults.Closed())
        elif word == "one way item":
            items.append(faults.OneWay())
        elif word.startswith("once"):
            items.append((word, number, str(folder / f"{dice.random()}")))
        else:
            items.append((word, 60 if word == "sleep" else number))
    return words, items


def verdict(word: str, number: int, outcome: Any, retries: int) -> str:
    """Return "well", or what is wrong with an item's outcome."""
    if word == "plain":
        return "well" if outcome == (number, 0) else f"{word} {number}: {outcome!r}"
    if word.startswith("once") and retries > 1:
        good = isinstance(outcome, tuple) and outcome[:2] == (word[5:], number)
        return "well" if good else f"{word} {number}: {outcome!r}"
    if word.startswith("once"):  # a neighbour may have cost it its first attempt
        return "well"
    if word == "system exit":
        return "well" if type(outcome) is SystemExit else f"{word} {number}: {outcome!r}"
    errors = [outcome]
    if retries > 1 and word != "closed item":  # what cannot be pickled is tried once
        errors = list(getattr(outcome, "errors", [outcome]))
        if len(errors) != retries:
            return f"{word} {number}: {outcome!r}"
    good = all(type(error) in KINDS[word] for error in errors)
    return "well" if good else f"{word} {number}: {errors!r}"


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, MAPS))]
)
def test_whatever_happens_each_item_has_the_outcome_that_is_its_own(seed, tmp_path):
    """Random faults occur under random options, in every form of a map."""
    dice = random.Random(seed)
    mode = dice.choice(list(FUNCTIONS))
    retries = dice.choice([1, 1, 2, 3])
    ordered = dice.random() < 0.7
    form = dice.choice(["call", "stream", "amap", "astream"])
    method = "forkserver" if form in {"amap", "astream"} else dice.choice(["forkserver", "fork"])
    options = {
        "workers": dice.randint(1, 3), "chunk_size": dice.choice([None, None, 1, 2, 5, 50]),
        "retries": retries, "min_delay": 0, "max_delay": 0.02, "progress": False,
        "ordered": ordered, "attempt_timeout": LIMIT,
        "start_method": method,
    }  # fmt: skip
    mapped = opmap(mode=mode, **options)(asoak if mode == "async_process" else soak)
    words, items = drawn(dice, tmp_path)

    async def consume():
        if form == "amap":
            return await mapped.amap(iter(items))
        return [result async for result in mapped.astream(items)]

    if form == "call":
        results = mapped(items)
    elif form == "stream":
        results = list(mapped.stream(iter(items)))
    else:
        results = asyncio.run(asyncio.wait_for(consume(), 100))
    told = f"seed {seed}: {mode}, {form}, {options}"
    assert len(results) == len(items), told
    if ordered:
        found = [
            verdict(word, number, result, retries)
            for number, (word, result) in enumerate(zip(words, results, strict=True))
        ]
        assert set(found) == {"well"}, (told, [each for each in found if each != "well"])
        return
    good = sorted(result for result in results if isinstance(result, tuple) and result[1:] == (0,))
    wanted = [number for number, word in enumerate(words) if word == "plain"]
    assert [number for number, _ in good] == wanted, told
    kinds = Counter(_kind(result) for result in results if isinstance(result, BaseException))
    sure = Counter(_name(word) for word in words if word in KINDS or word == "system exit")
    unsure = sum(word.startswith("once") for word in words) if retries == 1 else 0
    assert not sure - kinds, (told, sure, kinds)
    assert (kinds - sure).total() <= unsure if hasattr(kinds, "total") else True, told


def _kind(error: Any) -> str:
    last = error.errors[-1] if isinstance(error, AllFailedError) else error
    return "NoWayBack" if isinstance(last, ErrorStandIn) else type(last).__name__


def _name(word: str) -> str:
    if word == "system exit":
        return "SystemExit"
    return next(iter(sorted(kind.__name__ for kind in KINDS[word] if kind is not ErrorStandIn)))
