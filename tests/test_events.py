"""Events: everything that happens reaches those who listen, in every kind of call and of map."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from failing import failing

from opero import AllFailedError, DeadlineExceeded, Event, events, hotpath, opero, opmap, subscribe
from opero.clients.outages import Outage
from opero.testing import manual_clock, skip_waits

MODES = ["thread", "process", "async", "async_process", "executor"]


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def kinds(self) -> list[str]:
        """Return the kinds of the events, in order."""
        return [event.kind for event in self.events]

    def of(self, kind: str) -> list[Event]:
        """Return the events of one kind."""
        return [event for event in self.events if event.kind == kind]


@pytest.fixture(autouse=True)
def nobody_listens_afterwards() -> Iterator[None]:
    """Leave no listener behind."""
    yield
    left = dict(events._listeners)
    events._listeners.clear()
    events._forget()
    assert left == {}


@pytest.fixture
def hear() -> Iterator[Callable[..., Heard]]:
    """Listen until the end of the test."""
    with contextlib.ExitStack() as stack:

        def hear(*kinds: str) -> Heard:
            heard = Heard()
            stack.callback(subscribe(heard, *kinds))
            return heard

        yield hear


# --- kinds ----------------------------------------------------------------------------------------


def test_hits_and_misses(core: hotpath.Core, decorated: Any, hear: Any) -> None:
    heard = hear()
    function = decorated(lambda x: x, cache=True, cache_namespace="prices")
    for x in (1, 2, 1):
        function(x)
    assert heard.kinds() == ["miss", "miss", "hit"]
    event = heard.events[-1]
    assert event.function is not None
    assert event.function.endswith("<lambda>")
    assert (event.module, event.namespace, event.backend, event.mode) == (
        __name__,
        "prices",
        "memory",
        decorated.mode,
    )
    assert event.error is event.attempt is event.delay is None
    assert event.time == pytest.approx(time.time(), abs=60)


def test_a_retry_tells_attempt_delay_and_error(
    core: hotpath.Core, decorated: Any, hear: Any
) -> None:
    heard = hear()
    first, second = ValueError("first"), KeyError("second")
    function = decorated(
        failing(first, second), retries=3, min_delay=1, backoff_factor=2, jitter=False
    )
    with skip_waits():
        assert function() == "value"
    assert heard.kinds() == ["retry", "retry"]
    one, two = heard.events
    assert (one.attempt, one.of, one.delay, one.error) == (1, 3, 1.0, first)
    assert (two.attempt, two.of, two.delay, two.error) == (2, 3, 2.0, second)
    assert one.error is first
    assert one.call == two.call is not None


def test_fallbacks_and_giving_up(core: hotpath.Core, decorated: Any, hear: Any) -> None:
    heard = hear()
    errors = [ValueError(str(number)) for number in range(4)]
    function = decorated(
        lambda x: failing_once(), retries=2, min_delay=0, arg_fallback={"x": ["b"]}
    )
    left = list(errors)

    def failing_once() -> None:
        raise left.pop(0)

    with pytest.raises(AllFailedError):
        function("a")
    assert heard.kinds() == ["fallback", "retry", "fallback", "give_up"]
    assert [event.attempt for event in heard.events] == [1, 2, 3, 4]
    assert {event.of for event in heard.events} == {4}
    assert [event.error for event in heard.events] == errors
    assert heard.events[-1].delay is None


def test_a_server_that_asks_too_much_is_the_reason_for_giving_up(
    core: hotpath.Core, decorated: Any, hear: Any
) -> None:
    heard = hear("give_up")
    function = decorated(failing(ValueError()), retries=2, retry_after=lambda _: 100.0, max_delay=5)
    with pytest.raises(AllFailedError):
        function()
    (event,) = heard.events
    assert event.reason == "the server asked for a wait of 100 s, but max_delay is 5 s"


def test_an_error_that_is_not_retried_is_no_event(
    core: hotpath.Core, decorated: Any, hear: Any
) -> None:
    heard = hear()
    for options in ({"retries": 1}, {"retries": 3, "retry_on": KeyError}):
        with pytest.raises(ValueError, match="wrong"):
            decorated(failing(ValueError("wrong")), **options)()
    assert heard.events == []


def test_permits_tell_how_long_they_took(core: hotpath.Core, decorated: Any, hear: Any) -> None:
    heard = hear("permit_wait")
    function = decorated(lambda: None, rate_limit=2.0)
    with manual_clock():
        function()
        function()
    assert [event.seconds for event in heard.events] == [0.0, 0.5]


def test_deadlines(core: hotpath.Core, decorated: Any, hear: Any) -> None:
    heard = hear()
    error = ValueError()
    function = decorated(failing(error), timeout=1, min_delay=5)
    with pytest.raises(DeadlineExceeded):
        function()
    (event,) = heard.events
    assert (event.kind, event.attempt, event.seconds) == ("deadline", 1, 1.0)
    assert event.error is error
    assert event.reason == "the wait of 5 s before attempt 2 would end too late"


def test_stored_caches_tell_hits_misses_and_stale_values(
    core: hotpath.Core, decorated: Any, hear: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERO_CACHE_SECRET", "a-secret-of-a-test-of-the-events")
    heard = hear()
    answers: list[Any] = ["old", ValueError("down")]

    def body() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    function = decorated(
        body,
        retries=1,
        cache=True,
        cache_backend="disk",
        cache_dir=str(tmp_path / "cache"),
        cache_ttl=10,
        cache_stale=100,
        cache_key=lambda: "only",
    )
    with manual_clock() as clock:
        assert function() == "old"
        assert function() == "old"
        clock.advance(15)
        assert function() == "old"
    assert heard.kinds() == ["miss", "hit", "miss", "stale"]
    assert {event.backend for event in heard.events} == {"disk"}
    stale = heard.events[-1]
    assert stale.seconds == pytest.approx(5, abs=0.5)
    assert isinstance(stale.error, ValueError)


def test_outages_tell_when_a_store_is_down_and_up_again(hear: Any) -> None:
    heard = hear("store_down", "store_up")
    now = [0.0]
    outage = Outage("the disk cache", lambda: now[0])
    error = OSError("gone")
    outage.leave(outage.enter(), error=error)
    assert not outage.enter()
    now[0] = 2.0
    outage.leave(0)
    down, up = heard.events
    assert (down.kind, down.store, down.error) == ("store_down", "the disk cache", error)
    assert (up.kind, up.store, up.seconds, up.failed) == ("store_up", "the disk cache", 2.0, 2)


# --- maps -----------------------------------------------------------------------------------------


def item_of(item: int) -> int:
    """Fail for multiples of three."""
    if item % 3 == 0:
        raise ValueError(item)
    return item


async def awaited_item_of(item: int) -> int:
    """Do the same in a coroutine."""
    return item_of(item)


def mapped(mode: str, **options: Any) -> Any:
    """Map `item_of` in a mode."""
    function = awaited_item_of if mode.startswith("async") else item_of
    if mode == "executor":
        options["executor"] = ThreadPoolExecutor(2)
        mode = "thread"
    return opmap(mode=mode, workers=2, progress=False, **options)(function)  # type: ignore[call-overload]


@pytest.mark.parametrize("mode", MODES)
def test_events_of_a_map_happen_in_the_process_that_maps(
    core: hotpath.Core, hear: Any, mode: str
) -> None:
    heard = hear()
    threads = set()
    end = subscribe(lambda _: threads.add((os.getpid(), threading.get_ident())))
    mapped(mode, retries=2, min_delay=0)(range(6))
    end()
    assert {pid for pid, _ in threads} == {os.getpid()}
    assert heard.kinds()[0] == "map_start"
    assert heard.kinds()[-1] == "map_end"
    assert sorted(heard.kinds()[1:-1]) == ["give_up", "give_up", "retry", "retry"]
    assert {event.mode for event in heard.events} == {mode}
    assert {event.function for event in heard.events} == {
        "awaited_item_of" if mode.startswith("async") else "item_of"
    }
    start, end_event = heard.events[0], heard.events[-1]
    assert (start.items, start.workers) == (6, 2)
    assert (end_event.items, end_event.failed, end_event.reason) == (6, 2, None)
    assert end_event.seconds is not None
    assert 0 <= end_event.seconds < 100
    assert [event.attempt for event in heard.of("give_up")] == [2, 2]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("unpack", [False, True])
def test_an_event_says_which_item_has_failed(
    core: hotpath.Core, hear: Any, caplog: pytest.LogCaptureFixture, mode: str, unpack: bool
) -> None:
    heard = hear()
    caplog.set_level("WARNING", "opero")
    items: list[Any] = [1, 2, 4, 3, 5, 6, 7]
    mapped(mode, retries=2, min_delay=0, unpack=unpack)([[x] for x in items] if unpack else items)
    told = sorted((event.index, event.kind) for event in heard.events if event.index is not None)
    assert told == [(3, "give_up"), (3, "retry"), (5, "give_up"), (5, "retry")]
    lines = {record.opero_index: record.getMessage() for record in caplog.records}  # type: ignore[attr-defined]
    name = "awaited_item_of" if mode.startswith("async") else "item_of"
    for index, item in ((3, 3), (5, 6)):
        wanted = f"{name}: item {index}: attempt 2 of 2 failed with ValueError: {item}; giving up"
        assert lines[index] == wanted


def test_the_events_of_fallback_values_and_deadlines_say_the_item(
    core: hotpath.Core, hear: Any, caplog: pytest.LogCaptureFixture
) -> None:
    heard = hear("fallback", "deadline")
    mapped("thread", retries=1, arg_fallback={"item": [6, 7]})([1, 3, 2])
    assert [(event.kind, event.index) for event in heard.events] == [("fallback", 1)] * 2
    heard.events.clear()
    mapped("thread", retries=2, min_delay=20, jitter=False, timeout=10)([1, 2, 3])
    (late,) = heard.events
    assert (late.kind, late.index, late.attempt) == ("deadline", 2, 1)
    assert "item_of: item 2: out of time after 10 s" in caplog.text


def test_a_deadline_in_the_first_attempt_says_the_item(core: hotpath.Core, hear: Any) -> None:
    heard = hear("deadline")

    async def wait(item: int) -> int:
        await asyncio.sleep(item)
        return item

    opmap(mode="async", workers=3, progress=False, retries=1, timeout=0.1)(wait)([60, 60])
    told = sorted((late.index, late.attempt) for late in heard.events)
    assert told == [(0, 0), (1, 0)]
    assert {(late.call, late.error) for late in heard.events} == {(None, None)}


def test_what_is_no_item_has_no_index(core: hotpath.Core, hear: Any) -> None:
    heard = hear("retry", "give_up")
    with pytest.raises(AllFailedError):
        opero(retries=2, min_delay=0)(item_of)(3)
    assert [(event.kind, event.index) for event in heard.events] == [
        ("retry", None),
        ("give_up", None),
    ]


def test_hits_and_misses_of_items(core: hotpath.Core, hear: Any) -> None:
    heard = hear("hit", "miss")
    function = mapped("thread", cache=True, retries=1)
    function([1, 2])
    function([1, 2, 4])
    assert heard.kinds() == ["miss", "miss", "hit", "hit", "miss"]


def test_a_map_that_is_left_early_says_so(core: hotpath.Core, hear: Any) -> None:
    heard = hear("map_start", "map_end")
    results = mapped("thread", retries=1).stream(iter(range(100_000)))
    next(results)
    results.close()
    start, end = heard.events
    assert start.items is None
    assert end.reason == "it ended before all items were done"


def kill_at_two(item: int) -> int:
    """Die for the item 2, unless it is the second time."""
    if item == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals that kill on Windows")
def test_a_worker_that_dies_is_an_event(core: hotpath.Core, hear: Any) -> None:
    heard = hear("worker_crash")
    function = opmap(mode="process", workers=2, progress=False, retries=1)(kill_at_two)
    results = function(range(4))
    (event,) = heard.events
    assert event.worker in {0, 1}
    assert event.error is results[2]
    assert event.function == "kill_at_two"


# --- subscribing ----------------------------------------------------------------------------------


def test_a_listener_hears_the_kinds_it_asked_for(core: hotpath.Core, hear: Any) -> None:
    some, all_ = hear("retry", "hit"), hear()
    function = opero(cache=True, min_delay=0)(failing(ValueError()))
    function()
    function()
    assert some.kinds() == ["retry", "hit"]
    assert all_.kinds() == ["miss", "retry", "hit"]


def test_a_subscription_ends_when_it_is_ended(core: hotpath.Core) -> None:
    function = opero(cache=True)(lambda: None)
    function()
    heard = Heard()
    end = subscribe(heard)
    function()
    end()
    end()
    function()
    assert heard.kinds() == ["hit"]


def test_each_subscription_of_one_listener_is_its_own(core: hotpath.Core) -> None:
    heard = Heard()
    first, second = subscribe(heard, "hit"), subscribe(heard, "hit", "hit")
    function = opero(cache=True)(lambda: None)
    function()
    function()
    assert len(heard.events) == 2
    first()
    function()
    second()
    function()
    assert len(heard.events) == 3


def test_a_listener_is_let_go(core: hotpath.Core) -> None:
    heard = Heard()
    reference = weakref.ref(heard)
    end = subscribe(heard)
    end()
    del heard, end
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ((print, "retries"), ValueError, "kind of event 'retries'; did you mean 'retry'"),
        ((print, "cache"), ValueError, "Use one of hit, miss"),
        ((print, "hit", "gave_up"), ValueError, "did you mean 'give_up'"),
        ((print, 7), TypeError, "the kind of an event must be a string, not 7"),
        ((print, ["hit"]), TypeError, "must be a string"),
        (("retry", print), TypeError, "the listener comes first"),
        ((None,), TypeError, "needs a function, not None"),
        ((awaited_item_of,), TypeError, "awaited_item_of is a coroutine function"),
        ((functools.partial(awaited_item_of, 1),), TypeError, "coroutine function"),
    ],
)
def test_wrong_subscriptions_are_refused(given: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        subscribe(*given)


def test_a_listener_that_raises_is_logged_once_and_told_all_the_same(
    core: hotpath.Core, caplog: pytest.LogCaptureFixture, hear: Any
) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    calls = []

    def broken(event: Event) -> None:
        calls.append(event)
        raise Mute

    end = subscribe(broken)
    heard = hear()
    function = opero(cache=True)(lambda: "value")
    assert [function() for _ in range(3)] == ["value"] * 3
    end()
    assert len(calls) == len(heard.events) == 3
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "broken raised Mute" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_what_ends_a_program_ends_it_in_a_listener_too(core: hotpath.Core) -> None:
    def interrupt(_: Event) -> None:
        raise KeyboardInterrupt

    end = subscribe(interrupt)
    function = opero(cache=True)(lambda: "value")
    with pytest.raises(KeyboardInterrupt):
        function()
    end()
    assert function() == "value"
    heard = Heard()
    end = subscribe(heard)
    function()
    end()
    assert heard.kinds() == ["hit"]


def test_listeners_may_subscribe_and_end_in_a_listener(core: hotpath.Core) -> None:
    heard, late = Heard(), Heard()
    ends: list[Callable[[], None]] = []

    def once(event: Event) -> None:
        heard(event)
        ends[0]()
        ends[1]()
        ends.append(subscribe(late))

    ends.append(subscribe(once))
    ends.append(subscribe(late))
    function = opero(cache=True)(lambda: None)
    function()
    assert (heard.kinds(), late.kinds()) == (["miss"], [])
    function()
    ends[2]()
    assert (heard.kinds(), late.kinds()) == (["miss"], ["hit"])


def test_a_listener_is_not_told_of_what_it_causes(core: hotpath.Core) -> None:
    heard = Heard()
    inner = opero(cache=True)(lambda: None)

    def listener(event: Event) -> None:
        heard(event)
        inner()

    end = subscribe(listener)
    function = opero(cache=True)(lambda: None)
    function()
    function()
    end()
    assert heard.kinds() == ["miss", "hit"]
    assert inner.stats().hits == 1


def test_several_threads_tell_subscribe_and_end(core: hotpath.Core) -> None:
    function = opero(cache=True)(lambda x: x)
    function(1)
    heard = Heard()
    steady = subscribe(heard, "hit")
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            subscribe(lambda _: None)()

    def call() -> None:
        for _ in range(500):
            function(1)

    restless = threading.Thread(target=come_and_go)
    restless.start()
    callers = [threading.Thread(target=call) for _ in range(4)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    stop.set()
    restless.join()
    steady()
    assert len(heard.events) == 2000


def test_levels_and_listeners_change_while_hits_go_on(
    core: hotpath.Core, caplog: pytest.LogCaptureFixture
) -> None:
    function = opero(cache=True)(lambda: None)
    function()
    heard = Heard()
    for _ in range(3):
        end = subscribe(heard, "hit")
        caplog.set_level("DEBUG", "opero")
        function()
        end()
        function()
        caplog.set_level("WARNING", "opero")
        end = subscribe(heard, "hit")
        function()
        end()
        function()
    assert len(heard.events) == 6
    assert len(caplog.records) == 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork")
@pytest.mark.once
def test_listeners_go_on_in_a_child_process() -> None:
    """And a child can subscribe, although another thread held the lock when it was forked."""
    code = """
import os, threading, opero
from opero import events
heard = []
opero.subscribe(heard.append, "hit")
function = opero.opero(cache=True)(lambda: None)
function()
taken, go = threading.Event(), threading.Event()
def hold():
    with events._lock:
        taken.set()
        go.wait(20)
thread = threading.Thread(target=hold)
thread.start()
taken.wait()
pid = os.fork()
if not pid:
    opero.subscribe(heard.append, "hit")
    function()
    os._exit(0 if len(heard) == 2 else 1)
go.set()
thread.join()
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_an_event_is_immutable_and_holds_no_argument(core: hotpath.Core, hear: Any) -> None:
    heard = hear()

    @opero(
        cache=True,
        rate_limit=1e6,
        burst=9,
        retries=2,
        min_delay=0,
        arg_fallback={"key": ["S3CR3T"]},
    )
    def function(key: str, *, password: str) -> str:
        raise ValueError("no")

    with pytest.raises(AllFailedError):
        function("S3CR3T", password="S3CR3T")
    assert len(heard.events) > 5
    for event in heard.events:
        assert "S3CR3T" not in repr(event)
        with pytest.raises(AttributeError):
            event.kind = "hit"  # type: ignore[misc]


def test_without_listeners_nothing_is_asked_on_a_hit(
    core: hotpath.Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the answer is known, until somebody listens."""
    function = opero(cache=True, rate_limit=1e6, burst=1000)(lambda x: x)
    function(1)
    function(1)
    half = events.of_half(core)
    assert half.heeded == 0
    heard = Heard()
    end = subscribe(heard, "retry")
    function(1)
    assert half.heeded == 0
    end()
    end = subscribe(heard, "permit_wait")
    function(1)
    assert half.heeded == 1
    end()
    function(1)
    assert half.heeded == 0
    assert heard.events == []
