"""Maps over a service that dies in the middle and comes back, before a circuit breaker."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from opero import (
    Breaker,
    BreakerConfig,
    BreakerOpenError,
    NotRun,
    get_logger,
    opero,
    opmap,
    subscribe,
)
from opero.map.reader import stops
from opero.testing import skip_waits

FIRST, LAST = 10, 22
"""Of the attempts that reach the service, those from the one to the other fail."""

MODES = ["thread", "process", "async", "async_process", "executor"]
FORMS = ["call", "stream", "amap", "astream"]


class Down(Exception):
    """The error of the service while it is down."""


def serve(item: int, log: str, last: int = LAST) -> int:
    """Answer an item in any process; each call adds a byte to a file."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, b".")
        number = os.lseek(file, 0, os.SEEK_CUR)
    finally:
        os.close(file)
    if FIRST <= number < last:
        raise Down(item)
    return -item


async def aserve(item: int, log: str) -> int:
    """Do the same in a coroutine."""
    await asyncio.sleep(0)
    return serve(item, log)


@pytest.fixture(autouse=True)
def silence(monkeypatch):
    """Turn the log off: these maps fail often."""
    monkeypatch.setattr(get_logger(), "disabled", True)


def mapping(mode: str, **options: Any) -> Any:
    """Map the service."""
    options = {"retries": 100, "min_delay": 0.0, "max_delay": 0.0, "progress": False, **options}
    if mode == "executor":
        return opmap(executor=ThreadPoolExecutor(3), workers=3, **options)(serve)
    return opmap(mode=mode, workers=3, **options)(aserve if "async" in mode else serve)


def run(mapped: Any, form: str, items: Any, log: Path) -> list[Any]:
    """Map in one of the forms; return the results."""
    if form == "call":
        return list(mapped(items, log=str(log)))
    if form == "stream":
        return list(mapped.stream(items, log=str(log)))

    async def main() -> list[Any]:
        if form == "amap":
            return list(await mapped.amap(items, log=str(log)))
        return [result async for result in mapped.astream(items, log=str(log))]

    return asyncio.run(main())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_lost_and_probes_go_one_by_one(core, tmp_path, mode, form):
    """All results arrive in order; an open breaker lets one attempt through at a time."""
    breaker = Breaker(minimum=4, failure_ratio=0.05, open_for=60.0)
    mapped = mapping(mode, breaker=breaker)
    log = tmp_path / "log"
    with skip_waits() as clock:
        assert run(mapped, form, range(60), log) == [-item for item in range(60)]
    stats = mapped.stats()
    assert stats.attempts == log.stat().st_size == 60 + LAST - FIRST
    assert breaker.state == "closed"
    # some failures opened it, some were under way then; each other one was a probe, and one more
    # probe found out that the service is back. In `async_process` many are under way.
    least = 1 if mode == "async_process" else LAST - FIRST - 4 - 3
    assert least <= clock.waited // 60 <= LAST - FIRST
    assert stats.refused > 0
    assert stats.breaker_wait > 0


@pytest.mark.parametrize("options", [{}, {"cache": True}, {"ordered": False}], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_no_item_is_used_up_by_probes_while_others_have_not_been_tried(
    core, tmp_path, mode, options
):
    """An outage of more probes than an item has attempts costs no item."""
    breaker = Breaker(open_for=60.0)
    breaker.trip()
    mapped = mapping(mode, breaker=breaker, retries=2, **options)
    log = tmp_path / "log"
    log.write_bytes(b"." * (FIRST - 1))
    with skip_waits():
        results = run(mapped, "call", range(40), log)
    assert sorted(results) == sorted(-item for item in range(40))
    assert mapped.stats().attempts == 40 + LAST - FIRST


@pytest.mark.parametrize("mode", MODES)
def test_a_breaker_is_one_for_all_workers_and_for_single_calls(core, tmp_path, mode):
    """What one of them learns applies to all."""
    breaker = Breaker(open_for=1000.0)
    log = tmp_path / "log"
    single = opero(retries=1, breaker=breaker)(serve)
    mapped = mapping(mode, breaker=breaker, timeout=5)
    breaker.trip()
    with pytest.raises(BreakerOpenError):
        single(1, str(log))
    with skip_waits() as clock:
        assert run(mapped, "call", [1, 2, 3], log) == [-1, -2, -3]
    assert clock.waited == pytest.approx(1000, abs=30)
    assert single(4, str(log)) == -4


@pytest.mark.parametrize("mode", MODES)
def test_a_dead_fallback_value_is_passed_over(core, tmp_path, mode):
    """Its items continue with the next value immediately, and nothing waits."""

    def fetch(item: int, host: str = "main") -> tuple[int, str]:
        if host == "main":
            raise Down(item)
        return item, host

    async def afetch(item: int, host: str = "main") -> tuple[int, str]:
        return fetch(item, host)

    options: dict[str, Any] = {
        "retries": 1,
        "arg_fallback": {"host": ["backup"]},
        "breaker": BreakerConfig(minimum=3, open_for=1000.0),
        "progress": False,
    }
    if mode == "executor":
        mapped = opmap(executor=ThreadPoolExecutor(2), workers=2, **options)(fetch)
    else:
        mapped = opmap(mode=mode, workers=2, **options)(afetch if "async" in mode else fetch)
    with skip_waits() as clock:
        assert mapped(range(40)) == [(item, "backup") for item in range(40)]
    assert clock.waited < 100
    assert mapped.stats().attempts <= 40 + 3 + 2
    if mode == "thread":
        assert mapped(range(9), host="third") == [(item, "third") for item in range(9)]


@pytest.mark.parametrize("mode", ["thread", "process", "async"])
def test_an_item_without_time_for_the_probe_fails_and_leaves_the_rest(core, tmp_path, mode):
    """Tried items have a deadline; the others have not begun, and wait."""
    mapped = mapping(mode, breaker=BreakerConfig(minimum=4, open_for=60.0), timeout=5)
    with skip_waits():
        results = run(mapped, "call", range(60), tmp_path / "log")
    failed = [(item, each) for item, each in enumerate(results) if isinstance(each, Exception)]
    assert failed
    for item, error in failed:
        assert isinstance(error, BreakerOpenError)
        assert error.index == item
        assert error.retry_after > 5
        assert all(isinstance(each, Down) for each in error.errors)
        assert len(error.errors) >= 1
    assert [each for each in results if isinstance(each, int)] == [
        -item for item, each in enumerate(results) if isinstance(each, int)
    ]
    assert len(failed) <= LAST - FIRST


@pytest.mark.parametrize("mode", ["thread", "process", "async"])
def test_too_many_errors_end_a_map_that_waits(core, tmp_path, mode):
    """Probes that fail for good are errors; the items that wait do not run."""
    mapped = mapping(
        mode, breaker=BreakerConfig(minimum=4, open_for=60.0), retries=1, max_errors=8, chunk_size=1
    )
    with skip_waits():
        results = mapped(range(60), log=str(tmp_path / "log"))
    kinds = [type(each) for each in results]
    assert 8 <= kinds.count(Down) <= 8 + 2
    assert kinds.count(NotRun) > 20
    assert not results.complete


@pytest.mark.parametrize("ordered", [True, False])
def test_what_is_cached_is_answered_while_the_breaker_is_open(core, tmp_path, ordered):
    """Only items without a value wait."""
    breaker = Breaker(open_for=1000.0)
    mapped = mapping("thread", breaker=breaker, cache=True, ordered=ordered)
    log = str(tmp_path / "log")
    assert sorted(mapped([1, 2, 3], log=log)) == [-3, -2, -1]
    breaker.trip()
    with skip_waits() as clock:
        waited: list[bool] = []
        results = []
        for result in mapped.stream([9, 1, 2, 3], log=log):
            results.append(result)
            waited.append(clock.waited > 900)
    if ordered:
        assert results == [-9, -1, -2, -3]
    else:
        assert results == [-1, -2, -3, -9]
        assert waited == [False, False, False, True]


@pytest.mark.parametrize("mode", MODES)
def test_reset_wakes_a_map_that_waits(core, tmp_path, mode):
    """A probe of another caller that closes the breaker wakes it too."""
    breaker = Breaker(open_for=1000.0)
    mapped = mapping(mode, breaker=breaker)
    breaker.trip()
    refused = threading.Event()

    def items() -> Iterator[int]:
        yield from range(5)
        refused.set()

    def reset() -> None:
        refused.wait()
        while not mapped.stats().refused:
            pass
        breaker.reset()

    thread = threading.Thread(target=reset)
    thread.start()
    try:
        results = run(mapped, "call", items(), tmp_path / "log")
    finally:
        thread.join()
    assert results == [0, -1, -2, -3, -4]


@pytest.mark.parametrize("mode", MODES)
def test_closing_a_stream_that_waits_ends_it_at_once(core, tmp_path, mode):
    """No attempt is running, so there is nothing to wait for."""
    breaker = Breaker(open_for=1000.0)
    mapped = mapping(mode, breaker=breaker, read_ahead=4)
    stream = mapped.stream(range(100), log=str(tmp_path / "log"))
    assert next(stream) == 0
    breaker.trip()
    stream.close()
    assert (tmp_path / "log").stat().st_size <= 5

    async def main() -> None:
        breaker.reset()
        stream = mapped.astream(range(100), log=str(tmp_path / "log"))
        assert await anext(stream) == 0
        breaker.trip()
        waiting = asyncio.ensure_future(_rest(stream))
        while not mapped.stats().refused:
            await asyncio.sleep(0.001)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())


async def _rest(stream: Any) -> list[Any]:
    return [each async for each in stream]


def die(item: int, log: str) -> int:
    """Kill the worker process while the service is down, where it is not the parent."""
    try:
        return serve(item, log, FIRST + 4)
    except Down:
        os._exit(3)


def hang(item: int, log: str) -> int:
    """Take too long while the service is down."""
    try:
        return serve(item, log, FIRST + 4)
    except Down:
        threading.Event().wait(60)
        raise


@pytest.mark.once
@pytest.mark.parametrize("function", [die, hang])
def test_a_probe_that_dies_or_hangs_is_a_failure_and_frees_its_place(core, tmp_path, function):
    """The breaker opens again, and the next probe goes out."""
    breaker = Breaker(minimum=4, failure_ratio=0.1, open_for=60.0)
    options = {"attempt_timeout": 0.2} if function is hang else {}
    mapped = opmap(
        mode="process", workers=2, retries=100, min_delay=0, max_delay=0, chunk_size=1,
        breaker=breaker, progress=False, **options,
    )(function)  # fmt: skip
    log = tmp_path / "log"
    changes: list[str] = []
    end = subscribe(lambda event: changes.append(event.state), "breaker")
    try:
        with skip_waits():
            assert mapped(range(20), log=str(log)) == [-item for item in range(20)]
    finally:
        end()
    assert log.stat().st_size == mapped.stats().attempts == 20 + 4
    assert changes[-2:] == ["half_open", "closed"]
    assert changes.count("open") >= 2
    assert breaker.state == "closed"


@pytest.mark.parametrize("end", ["close", "raise", "Ctrl-C"])
def test_a_map_that_ends_during_a_probe_gives_its_place_back(core, tmp_path, end):
    """The next caller makes the probe; the aborted one does not count."""
    at_work, going = threading.Event(), threading.Event()
    breaker = Breaker(open_for=0.001)

    def work(item: int) -> int:
        if item == 1:
            raise KeyError(item)
        at_work.set()
        assert going.wait(20)
        return item

    mapped = opmap(
        mode="thread", workers=1, retries=1, retry_on=OSError, breaker=breaker, on_error="raise",
        progress=False,
    )(work)  # fmt: skip
    breaker.trip()
    stream = mapped.stream([0] if end != "raise" else [1, 0])
    thread = threading.Thread(target=lambda: next(stream, None))
    try:
        if end == "raise":
            with pytest.raises(KeyError):
                next(stream)
        elif end == "close":
            thread.start()
            assert at_work.wait(20)
            stops[stream]()
            thread.join(20)
        else:
            me = threading.get_ident()
            timer = threading.Thread(
                target=lambda: at_work.wait(20) and signal.pthread_kill(me, signal.SIGINT)
            )
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                next(stream)
            timer.join()
        going.set()
        assert breaker.state == "half_open"
        single = opero(retries=1, breaker=breaker)(lambda item: str(item))
        assert single(7) == "7"
        assert breaker.state == "closed"
    finally:
        going.set()


@pytest.mark.parametrize("mode", ["thread", "async", "process"])
def test_items_pass_the_breaker_of_a_machine(core, tmp_path, mode, monkeypatch):
    """The scopes differ only in who shares the breaker."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    breaker = Breaker(f"map-{mode}-{os.getpid()}-{tmp_path.name}", open_for=0.05, minimum=4,
                      failure_ratio=0.2, scope="machine")  # fmt: skip
    mapped = mapping(mode, breaker=breaker)
    log = tmp_path / "log"
    assert run(mapped, "call", range(60), log) == [-item for item in range(60)]
    assert mapped.stats().attempts == log.stat().st_size == 60 + LAST - FIRST
    assert mapped.stats().refused > 0
