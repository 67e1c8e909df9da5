"""Circuit breakers of decorated functions: what a call does while one is open, and who gets in."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import cloudpickle
import pytest

import opero as package
from opero import (
    AllFailedError,
    Breaker,
    BreakerConfig,
    BreakerOpenError,
    DeadlineExceeded,
    RateLimiter,
    opero,
    opmap,
    subscribe,
)
from opero.testing import manual_clock, skip_waits

kinds = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


@pytest.fixture(autouse=True)
def silence(caplog):
    """Turn the log off."""
    caplog.set_level("CRITICAL", "opero")


class Service:
    """A service that can be down, and counts its calls."""

    def __init__(self, **options: Any) -> None:
        self.down = True
        self.asked: list[Any] = []
        self.error: BaseException = ConnectionError("down")
        self.during: Any = None

    def ask(self, value: Any = None) -> Any:
        """Answer, or fail."""
        self.asked.append(value)
        if self.during is not None:
            self.during()
        if self.down is True or value in (self.down or ()):
            raise self.error
        return value

    async def ask_async(self, value: Any = None) -> Any:
        """Answer, or fail."""
        await asyncio.sleep(0)
        return self.ask(value)

    def client(self, asynchronous: bool, **options: Any) -> Any:
        """Decorate a function that asks."""
        ask = self.ask_async if asynchronous else self.ask

        async def acall(value: Any = None) -> Any:
            return await ask(value)

        def call(value: Any = None) -> Any:
            return ask(value)

        return opero(**{"retries": 1, **options})(acall if asynchronous else call)


def result(function: Any, *args: Any) -> Any:
    """Call a function of either kind."""
    answer = function(*args)
    return asyncio.run(answer) if asyncio.iscoroutine(answer) else answer


def ends(function: Any, *args: Any) -> Any:
    """Return what a call returns or raises."""
    try:
        return result(function, *args)
    except Exception as error:  # noqa: BLE001 - any of them
        return type(error)


def driven(answer: Any) -> Any:
    """Drive what a function of either kind returns, without a loop."""
    while asyncio.iscoroutine(answer):
        answer.send(None)
    return answer


def opened(**options: Any) -> Breaker:
    """Make a breaker that is open."""
    breaker = Breaker(**{"minimum": 2, "open_for": 10, **options})
    breaker.trip()
    return breaker


# --- open -----------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("option", [True, BreakerConfig(minimum=10), Breaker(), None, False])
def test_the_option_takes_what_the_docs_say(asynchronous, option):
    """The option takes True, a config object, a breaker, or None."""
    service = Service()
    if isinstance(option, Breaker):
        option = Breaker()  # of the half that runs
    client = service.client(asynchronous, breaker=option)
    outcomes = [ends(client) for _ in range(12)]
    refused = 2 if option else 0
    assert outcomes == [ConnectionError] * (12 - refused) + [BreakerOpenError] * refused
    assert len(service.asked) == 12 - refused


@kinds
@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("retries", [1, 5])
def test_an_open_breaker_costs_no_attempt_no_permit_and_no_delay(asynchronous, cache, retries):
    """The call fails immediately, and says when to try again."""
    service, limiter = Service(), RateLimiter(0.001)
    client = service.client(
        asynchronous,
        breaker=opened(),
        cache=cache,
        retries=retries,
        min_delay=9,
        max_delay=9,
        rate_limit=limiter,
    )
    with manual_clock():
        with pytest.raises(BreakerOpenError) as caught:
            result(client, 1)
        assert 9 < caught.value.retry_after <= 10
    assert service.asked == []
    assert limiter.try_acquire()
    stats = client.stats()
    assert (stats.attempts, stats.retries, stats.refused, stats.failures) == (0, 0, 1, 1)


@kinds
def test_retries_end_when_the_breaker_opens(asynchronous):
    """Retries neither hammer a breaker nor wait for it without a deadline."""
    service = Service()
    client = service.client(asynchronous, breaker=Breaker(minimum=3), retries=100, min_delay=0)
    with skip_waits(), pytest.raises(BreakerOpenError) as caught:
        result(client)
    assert len(service.asked) == 3
    assert [type(each) for each in caught.value.errors] == [ConnectionError] * 3
    assert caught.value.__cause__ is service.error


@kinds
def test_a_call_with_the_time_waits_for_the_probe(asynchronous):
    """The call makes the probe itself if no other does; the wait is counted."""
    service = Service()
    service.down = False
    client = service.client(asynchronous, breaker=opened(), timeout=60)
    with skip_waits() as clock:
        assert result(client, 1) == 1
        assert 9 < clock.waited < 11
    assert 9 < client.stats().breaker_wait < 11
    assert service.asked == [1]


@kinds
def test_a_call_waits_through_a_failed_probe_as_long_as_it_has_time(asynchronous):
    """The call spends its attempts on probes, and makes no more of them than it has."""
    service = Service()
    client = service.client(asynchronous, breaker=opened(), timeout=25, retries=9, min_delay=0)
    with skip_waits() as clock:
        with pytest.raises(BreakerOpenError) as caught:
            result(client, 1)
        assert 19 < clock.waited < 26
    assert len(service.asked) == len(caught.value.errors) == 2


@kinds
def test_a_breaker_that_opens_during_a_retry_wait_is_seen(asynchronous):
    """The attempt after the delay is refused."""
    service, breaker = Service(), Breaker()
    service.during = breaker.trip
    client = service.client(asynchronous, breaker=breaker, retries=3, min_delay=0)
    with skip_waits(), pytest.raises(BreakerOpenError):
        result(client)
    assert len(service.asked) == 1


@kinds
def test_what_is_no_failure_does_not_open_it(asynchronous):
    """Errors that `retry_on` excludes do not count, nor do arguments that do not fit."""
    service = Service()
    client = service.client(asynchronous, breaker=Breaker(minimum=1), retry_on=OSError)
    service.error = KeyError("mine")
    assert [ends(client) for _ in range(9)] == [KeyError] * 9
    assert [ends(client, 1, 2) for _ in range(9)] == [TypeError] * 9
    service.error = ConnectionError()
    assert [ends(client) for _ in range(2)] == [ConnectionError, BreakerOpenError]


@kinds
def test_rejected_results_open_it(asynchronous):
    """Rejected results count as failures."""
    service = Service()
    service.down = False
    client = service.client(
        asynchronous, breaker=Breaker(minimum=3), retry_on_result=lambda value: value == "bad"
    )
    assert ends(client, "good") == "good"
    assert ends(client, "bad") is not BreakerOpenError
    assert ends(client, "bad") is not BreakerOpenError
    assert ends(client, "good") is BreakerOpenError


@kinds
def test_functions_of_all_kinds_share_a_breaker(asynchronous):
    """Each function judges its failures by its own options."""
    service, breaker = Service(), Breaker(minimum=4)
    client = service.client(asynchronous, breaker=breaker)
    other = service.client(not asynchronous, breaker=breaker, retry_on=KeyError)
    assert [ends(each) for each in (client, other) * 3] == [ConnectionError] * 6
    assert breaker.state == "closed"
    assert ends(client) is ConnectionError
    assert [ends(client), ends(other)] == [BreakerOpenError] * 2
    assert breaker.state == "open"


@kinds
def test_a_cached_value_is_served_whatever_the_breaker_says(asynchronous):
    """A cache hit does not ask the breaker."""
    service, breaker = Service(), Breaker()
    service.down = False
    client = service.client(asynchronous, breaker=breaker, cache=True)
    assert result(client, 1) == 1
    breaker.trip()
    assert result(client, 1) == 1
    assert ends(client, 2) is BreakerOpenError


# --- probes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("probes", [1, 3])
def test_of_many_threads_at_the_moment_of_half_open_exactly_the_probes_get_in(probes):
    """Probes hold no lock while they run: other calls are refused immediately."""
    breaker = opened(probes=probes, open_for=60)
    breaker.trip(0.001)
    inside, release, start = [], threading.Event(), threading.Barrier(20)

    @opero(retries=1, breaker=breaker)
    def call() -> None:
        inside.append(None)
        assert release.wait(20)

    def caller(_: int) -> Any:
        start.wait()
        outcome = ends(call)
        if outcome is BreakerOpenError:
            refused.append(None)
            if len(refused) == 20 - probes:
                release.set()
        return outcome

    refused: list[None] = []
    time.sleep(0.002)
    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(caller, range(20)))
    assert outcomes.count(BreakerOpenError) == 20 - probes
    assert len(inside) == probes
    assert breaker.state == "closed"


@pytest.mark.parametrize("probes", [1, 3])
def test_of_many_tasks_at_the_moment_of_half_open_exactly_the_probes_get_in(probes):
    """Other calls are refused, or wait if they have time."""
    service, breaker = Service(), opened(probes=probes)
    running, most = [0], [0]

    async def body(value: int) -> int:
        running[0] += 1
        most[0] = max(most)
        most.append(running[0])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running[0] -= 1
        return value

    hasty = opero(retries=1, breaker=breaker)(body)
    patient = opero(retries=1, breaker=breaker, timeout=60)(body)

    async def main() -> None:
        with manual_clock() as clock:
            clock.advance(10)
            got = await asyncio.gather(*[hasty(at) for at in range(20)], return_exceptions=True)
            assert sum(isinstance(each, int) for each in got) == probes == max(most)
            assert breaker.state == "closed"
        breaker.trip()
        most[:] = [0]
        with skip_waits():
            assert await asyncio.gather(*[patient(at) for at in range(20)]) == [*range(20)]

    asyncio.run(main())
    assert service.asked == []


def test_a_cancelled_probe_gives_its_place_to_who_waits():
    """A waiter gets the place immediately, not at the end of the lease."""
    breaker = opened(open_for=60)
    begun: list[int] = []

    @opero(retries=1, breaker=breaker, timeout=600)
    async def call(value: int) -> int:
        begun.append(value)
        if value == 0:
            await asyncio.Event().wait()
        return value

    async def main() -> None:
        breaker.trip(0.001)
        await asyncio.sleep(0.002)
        hanging = asyncio.ensure_future(call(0))
        await asyncio.sleep(0)
        assert begun == [0]
        waiting = [asyncio.ensure_future(call(at)) for at in (1, 2, 3)]
        await asyncio.sleep(0.01)
        assert begun == [0]
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        assert sorted(await asyncio.gather(*waiting)) == [1, 2, 3]

    asyncio.run(asyncio.wait_for(main(), 20))
    assert breaker.state == "closed"


@kinds
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, RecursionError, KeyError]
)
@pytest.mark.parametrize("retries", [1, 3])
def test_a_probe_that_ends_in_what_is_no_failure_frees_its_place(asynchronous, error, retries):
    """The next call is the probe."""
    service, breaker = Service(), opened()
    client = service.client(asynchronous, breaker=breaker, retries=retries, retry_on=OSError)
    with manual_clock() as clock:
        clock.advance(10)
        service.error = error()
        with pytest.raises(error):
            driven(client())
        assert breaker.state == "half_open"
        service.down = False
        assert result(client, 1) == 1
        assert breaker.state == "closed"


@pytest.mark.parametrize("timeout", [None, 60])
@pytest.mark.parametrize("cache", [False, True])
def test_a_probe_whose_coroutine_is_closed_frees_its_place(timeout, cache):
    """A framework at shutdown or the garbage collector may close the coroutine."""
    breaker = opened()

    @opero(retries=3, breaker=breaker, timeout=timeout, cache=cache)
    async def call(forever: bool) -> int:
        if forever:
            await asyncio.get_running_loop().create_future()
        return 1

    with manual_clock() as clock:
        clock.advance(10)

        async def main() -> None:
            task = asyncio.ensure_future(call(True))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            coroutine = call(True)
            if timeout is None and not cache:
                coroutine.send(None)
            coroutine.close()
            assert await call(False) == 1

        asyncio.run(main())
    gc.collect()
    assert breaker.state == "closed"


@kinds
def test_a_probe_whose_predicate_raises_frees_its_place(asynchronous):
    """It is unknown whether the probe failed."""
    service, breaker = Service(), opened()
    client = service.client(asynchronous, breaker=breaker, retry_on=lambda _: 1 / 0)
    with manual_clock() as clock:
        clock.advance(10)
        assert ends(client) is ZeroDivisionError
        service.down = False
        assert result(client, 1) == 1


@kinds
def test_a_probe_that_cannot_have_its_permit_in_time_frees_its_place(asynchronous):
    """The probe is withdrawn."""
    service, breaker = Service(), opened()
    limiter = RateLimiter(0.001)
    assert limiter.try_acquire()
    hurried = service.client(asynchronous, breaker=breaker, rate_limit=limiter, timeout=1)
    service.down = False
    with manual_clock() as clock:
        clock.advance(10)
        assert ends(hurried) is DeadlineExceeded
        assert service.asked == []
        assert result(service.client(asynchronous, breaker=breaker), 1) == 1


@kinds
@pytest.mark.parametrize("depth", [1, 3])
def test_what_a_probe_calls_passes_the_same_breaker(asynchronous, depth):
    """Such a call is part of the probe; otherwise no nested function could close the breaker."""
    breaker = opened()

    if asynchronous:

        @opero(retries=2, min_delay=0, breaker=breaker)
        async def call(left: int) -> int:
            return 1 + await call(left - 1) if left else 0
    else:

        @opero(retries=2, min_delay=0, breaker=breaker)
        def call(left: int) -> int:
            return 1 + call(left - 1) if left else 0

    with manual_clock() as clock:
        clock.advance(10)
        assert result(call, depth) == depth
    assert breaker.state == "closed"


def test_what_runs_beside_a_probe_does_not():
    """Other tasks do not pass, nor does the caller after the probe has ended."""
    breaker = opened(probes=1)
    held: list[Any] = []

    @opero(retries=1, breaker=breaker)
    async def call(value: int) -> int:
        if value == 0:
            held.append(asyncio.get_running_loop().create_future())
            await held[0]
            raise ConnectionError
        return value

    async def main() -> None:
        with manual_clock() as clock:
            clock.advance(10)
            probe = asyncio.ensure_future(call(0))
            await asyncio.sleep(0)
            with pytest.raises(BreakerOpenError):
                await call(1)
            held[0].set_result(None)
            with pytest.raises(ConnectionError):
                await probe
            with pytest.raises(BreakerOpenError):
                await call(1)

    asyncio.run(main())


@kinds
def test_an_attempt_that_outlives_its_period_has_no_say(asynchronous):
    """An attempt that began before `trip()`, `reset()` or the opening does not count."""
    service, breaker = Service(), Breaker(minimum=1)
    client = service.client(asynchronous, breaker=breaker)

    def again() -> None:
        breaker.trip()
        breaker.reset()

    service.during = again
    assert ends(client) is ConnectionError
    assert breaker.state == "closed"
    service.during = None
    assert ends(client) is ConnectionError
    assert breaker.state == "open"


# --- fallback values ------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("form", ["listed", "held"])
def test_each_fallback_value_has_a_breaker_of_its_own(asynchronous, form):
    """A dead host is skipped, but its backup is not."""
    service = Service()
    service.down = {"a"}
    breaker = Breaker("hosts", minimum=2)
    if form == "listed":
        client = service.client(asynchronous, breaker=breaker, arg_fallback={"value": ["b", "c"]})
        given: Any = "a"
    else:

        def first(values: list[str]) -> Any:
            return service.ask(values[0])

        async def first_async(values: list[str]) -> Any:
            return service.ask(values[0])

        client = opero(retries=1, breaker=breaker, arg_fallback="values")(
            first_async if asynchronous else first
        )
        given = ["a", "b", "c"]
    assert [result(client, given) for _ in range(6)] == ["b"] * 6
    assert service.asked.count("a") == 2
    assert client.stats().refused == 4
    assert breaker.state == "closed"  # that of the value that is best off
    service.down = {"a", "b", "c"}
    assert [ends(client, given) for _ in range(12)][-3:] == [BreakerOpenError] * 3
    assert breaker.state == "open"
    breaker.reset()
    service.down = ()
    assert result(client, given) == "a"


@kinds
def test_fallback_rounds_go_on_with_the_values_that_are_left(asynchronous):
    """A refused value costs no attempt and does not end the round for the other values."""
    service = Service()
    service.down = {"a", "b"}
    breaker = Breaker(minimum=4)
    client = service.client(
        asynchronous, breaker=breaker, retries=2, arg_fallback={"value": ["b"]}, min_delay=0
    )
    with skip_waits():
        assert [ends(client, "a") for _ in range(2)] == [AllFailedError] * 2
        assert service.asked == ["a", "b"] * 4
        service.asked.clear()
        assert ends(client, "a") is BreakerOpenError
        service.down = {"a"}
        assert ends(client, "c") is not BreakerOpenError
        assert service.asked == ["c"]


@kinds
def test_a_call_with_the_time_waits_for_the_value_that_may_go_first(asynchronous):
    """The call does not wait for the first value in the list."""
    service, breaker = Service(), Breaker(minimum=1, open_for=10)
    client = service.client(
        asynchronous, breaker=breaker, timeout=60, arg_fallback={"value": ["b"]}
    )
    with manual_clock() as clock:
        service.down = {"b"}
        breaker_of = breaker._values.of
        breaker_of("b", 1).gate.trip(package.hotpath.core.clock.now(), 0, "test")
        clock.advance(5)
        breaker_of("a", 0).gate.trip(package.hotpath.core.clock.now(), 0, "test")
    service.down = ()
    with skip_waits() as clock:
        assert result(client, "a") == "b"
        assert 0 < clock.waited < 11


@kinds
@pytest.mark.parametrize("value", [[1], {"a": 1}, float("nan")])
def test_values_that_cannot_be_told_apart_by_hash_count_by_their_place(asynchronous, value):
    """Other values count by type and equality: 1 is not True."""
    service, breaker = Service(), Breaker(minimum=1)
    client = service.client(asynchronous, breaker=breaker, arg_fallback={"value": [True, 1.0]})
    service.down = [value, 1]
    with suppress(Exception):
        result(client, value)
    assert len(breaker._values.known()) == 3


def test_breakers_of_values_are_bounded():
    """Callers may bring any number of values."""
    service, breaker = Service(), Breaker(minimum=1)
    service.down = False
    client = service.client(False, breaker=breaker, arg_fallback={"value": ["b"]})
    for value in range(1000):
        client(value)
    assert len(breaker._values.known()) <= 256


class Looking:
    """A value whose comparison waits for work in another thread."""

    def __init__(self, work: Any) -> None:
        self.work = work

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        self.work()
        return self is other


def elsewhere(work: Any) -> None:
    """Run something in a thread, and wait for it."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_values_are_compared_without_a_lock():
    """A comparison may need the breaker in another thread."""
    breaker = Breaker()
    values = [Looking(lambda: elsewhere(lambda: breaker.state)) for _ in range(3)]
    queues = [breaker._values.of(value, 0) for value in values]
    assert breaker._values.known() == queues
    assert [breaker._values.of(value, 0) for value in values] == queues


def test_listeners_hear_without_a_lock_that_a_new_value_is_shut_off():
    """A listener may ask for the breaker's state in another thread."""
    breaker = Breaker()
    breaker._values.of("a", 0)
    heard: list[str | None] = []
    end = subscribe(
        lambda event: elsewhere(lambda: heard.append(f"{event.breaker} {breaker.state}")), "breaker"
    )
    try:
        breaker.trip(60)
        breaker._values.of("b", 0)
    finally:
        end()
    assert heard[-1] == f"{breaker.name}[2] open"


def test_threads_that_bring_a_new_value_at_once_get_one_breaker_for_it():
    """Even a thread that arrives before the first has stored its breaker gets the same."""
    breaker = Breaker()
    with ThreadPoolExecutor(8) as pool:
        for value in range(100):
            found = list(pool.map(lambda _, value=value: breaker._values.of(value, 0), range(8)))
            assert len({id(each) for each in found}) == 1
    assert len(breaker._values.known()) == 100


def test_a_tripped_breaker_is_open_for_values_that_come_up_later():
    """New values are refused until the trip ends."""
    service, breaker = Service(), opened()
    service.down = False
    client = service.client(False, breaker=breaker, arg_fallback={"value": ["b"]})
    with manual_clock() as clock:
        breaker.trip(10)
        assert ends(client, "a") is BreakerOpenError
        clock.advance(10)
        assert client("a") == "a"
        assert breaker.state == "closed"


# --- single flight --------------------------------------------------------------------------------


def test_callers_who_share_a_run_share_its_refusal():
    """Without a timeout none of them could wait longer."""
    breaker = opened()
    service = Service()
    client = service.client(True, breaker=breaker, cache=True)

    async def main() -> list[Any]:
        return await asyncio.gather(*[client(1) for _ in range(9)], return_exceptions=True)

    assert [type(each) for each in asyncio.run(main())] == [BreakerOpenError] * 9
    assert client.stats().refused in {1, 9}  # a task that begins at once is refused at once


def test_a_follower_with_more_time_does_not_get_the_leaders_refusal():
    """A later call has a later deadline, so it waits for the probe."""
    breaker = Breaker(minimum=1, open_for=8)
    inside, go_on = threading.Event(), threading.Event()
    attempts = []

    @opero(retries=5, min_delay=0, max_delay=0, breaker=breaker, cache=True, timeout=10)
    def call(value: int) -> int:
        attempts.append(value)
        if len(attempts) == 1:
            inside.set()
            assert go_on.wait(20)
            raise ConnectionError
        return value

    outcomes: list[Any] = []
    with skip_waits() as clock:
        leader = threading.Thread(target=lambda: outcomes.append(ends(call, 1)))
        leader.start()
        assert inside.wait(20)
        clock.advance(5)
        follower = threading.Thread(target=lambda: outcomes.append(ends(call, 1)))
        follower.start()
        while call.stats().misses != 2:
            time.sleep(0.001)
        time.sleep(0.05)
        go_on.set()
        leader.join(20)
        follower.join(20)
    assert sorted(map(str, outcomes)) == sorted(map(str, [BreakerOpenError, 1]))


# --- what one sees of it --------------------------------------------------------------------------


@kinds
def test_events_and_log_tell_what_happens_to_it(asynchronous, caplog):
    """Opening logs a WARNING and recovery an INFO; events have its name and state."""
    caplog.set_level("INFO", "opero")
    caplog.clear()
    events: list[Any] = []
    end = subscribe(events.append, "breaker")
    service, breaker = Service(), Breaker("shop", minimum=2, open_for=10)
    client = service.client(asynchronous, breaker=breaker)
    with manual_clock() as clock:
        for _ in range(4):
            ends(client)
        clock.advance(10)
        service.down = False
        result(client)
    end()
    assert [(each.breaker, each.state) for each in events] == [
        ("shop", "open"),
        ("shop", "half_open"),
        ("shop", "closed"),
    ]
    assert events[0].function is None
    assert "2 of 2 attempts failed" in events[0].reason
    told = [each for each in caplog.records if "circuit breaker" in each.getMessage()]
    assert [each.levelname for each in told] == ["WARNING", "INFO", "INFO"]
    assert told[0].opero_breaker == "shop"  # type: ignore[attr-defined]


def test_a_breaker_of_a_functions_own_has_its_name():
    """Its events name the function."""
    events: list[Any] = []
    end = subscribe(events.append, "breaker")

    @opero(retries=1, breaker=BreakerConfig(minimum=1), arg_fallback={"key": ["secret-2"]})
    def fetch(key: str) -> str:
        raise ConnectionError

    ends(fetch, "secret-1")
    end()
    assert [each.breaker for each in events] == [f"{fetch.__qualname__}[{at}]" for at in (1, 2)]
    assert {each.function for each in events} == {fetch.__qualname__}
    assert "secret" not in repr(events)
    with pytest.raises(BreakerOpenError) as caught:
        fetch("secret-1")
    assert "secret" not in str(caught.value)


def test_permits_are_told_of_only_where_there_is_a_limit():
    """A breaker reports no permits."""
    events: list[Any] = []
    end = subscribe(events.append, "permit_wait")
    service = Service()
    service.down = False
    for asynchronous in (False, True):
        result(service.client(asynchronous, breaker=True))
        result(service.client(asynchronous, breaker=True, retry_on_result=lambda _: False))
    assert events == []
    result(service.client(False, breaker=True, rate_limit=100.0))
    end()
    assert len(events) == 1


def test_a_breaker_shows_its_settings():
    """Evaluating its `repr` makes an equal breaker."""
    assert repr(Breaker()) == "Breaker()"
    breaker = Breaker("db", window=5, failure_ratio=0.25, minimum=3, open_for=1, probes=2)
    assert eval(repr(breaker)).__reduce__() == breaker.__reduce__()
    assert (breaker.name, breaker.scope) == ("db", "process")


def test_breakers_without_a_name_can_be_told_apart():
    """Events and metrics number them; a function's own breaker has the function's name."""
    names = [Breaker().name, Breaker().name, copy.copy(Breaker()).name]
    assert len(set(names)) == 3
    assert all(re.fullmatch(r"breaker-[0-9]+", name) for name in names)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))])
def test_a_copy_is_another_breaker_that_is_closed(way):
    """The copy has the same settings."""
    breaker = opened(name="db", probes=3)
    made = way(breaker)
    assert made is not breaker
    assert (made.name, made.probes, made.minimum, made.open_for) == ("db", 3, 2, 10.0)
    assert (breaker.state, made.state) == ("open", "closed")


@kinds
def test_a_function_with_a_breaker_travels_by_value(asynchronous):
    """It arrives with its own breaker; functions that shared one in a pickle still do."""
    breaker = Breaker("db", minimum=1)

    def make() -> Any:
        async def acall() -> None:
            raise ConnectionError

        def call() -> None:
            raise ConnectionError

        return opero(retries=1, breaker=breaker)(acall if asynchronous else call)

    first, second = pickle.loads(cloudpickle.dumps([make(), make()]))
    assert [ends(first), ends(second)] == [ConnectionError, BreakerOpenError]
    assert breaker.state == "closed"


def test_settings_can_be_read_and_not_be_changed():
    """The breaker uses the settings that it was made with."""
    breaker = Breaker("fixed", window=20.0, minimum=3)
    names = ["name", "window", "failure_ratio", "minimum", "open_for", "probes", "scope"]
    before = [getattr(breaker, name) for name in names]
    assert before == ["fixed", 20.0, 0.5, 3, 30.0, 1, "process"]
    for name in names:
        with pytest.raises(AttributeError):
            setattr(breaker, name, 1)
    assert [getattr(breaker, name) for name in names] == before


def test_a_refusal_survives_a_pickle():
    """The copy has all of its attributes."""
    service = Service()
    client = service.client(False, breaker=opened())
    with pytest.raises(BreakerOpenError) as caught:
        client()
    made = pickle.loads(pickle.dumps(caught.value))
    assert (str(made), made.retry_after) == (str(caught.value), caught.value.retry_after)


# --- wrong uses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"breaker": "yes"}, r"breaker='yes' is not allowed: use True, .*Breaker\('yes'\)"),
        ({"breaker": 5}, r"breaker=5 is not allowed: use True, .*BreakerConfig\(minimum=...\)"),
        ({"breaker": Breaker}, r"write Breaker\(\), with parentheses"),
        ({"breaker": RateLimiter(1)}, r"give RateLimiter\(...\) to rate_limit="),
        (
            {"rate_limit": Breaker()},
            r"rate_limit=Breaker\(\) is not allowed: .*; give Breaker\(...\) to breaker=",
        ),
        ({"rate_limit": BreakerConfig()}, r"write breaker=BreakerConfig\(...\)"),
        ({"breaker": BreakerConfig(failure_ratio=50)}, r"failure_ratio=50 .*50 percent is 0.5"),
        ({"breaker": BreakerConfig(failure_ratio=0)}, r"failure_ratio=0 is not allowed"),
        ({"breaker": BreakerConfig(minimum=0)}, r"minimum=0 is not allowed"),
        ({"breaker": BreakerConfig(probes=1.5)}, r"probes=1.5 is not allowed"),  # type: ignore[arg-type]
        ({"breaker": BreakerConfig(open_for=-1)}, r"open_for=-1 is not allowed"),
        ({"breaker": BreakerConfig(window=0)}, r"window=0 is not allowed"),
        ({"breaker": BreakerConfig(name="")}, r"name='' is not allowed"),
        ({"breaker": BreakerConfig(scope="world")}, r"scope='world' is not allowed"),
        ({"fail_max": 5}, r"did you mean breaker=BreakerConfig\(minimum=...\)"),
        ({"recovery_timeout": 5}, r"did you mean breaker=BreakerConfig\(open_for=...\)"),
        ({"breaker_window": 5}, r"did you mean breaker=BreakerConfig\(window=...\)"),
        ({"circuit_breaker": True}, r"did you mean 'breaker'"),
    ],
)
@pytest.mark.once
def test_a_wrong_option_fails_at_decoration_and_says_what_to_write(options, said):
    """The error names the option, its value, and what is allowed."""
    with pytest.raises((TypeError, ValueError), match=said):
        opero(**options)(lambda: None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("call", "pass it to a function with `@opero"),
        ("call_async", "pass it to a function with `@opero"),
        ("current_state", "read state"),
        ("opened", "read state"),
        ("open", r"call trip\(\)"),
        ("close", r"call reset\(\)"),
        ("add_listener", r"call opero\.subscribe\(listener, "),
    ],
)
def test_a_name_that_other_breakers_have_says_what_to_write(name, said):
    """It raises AttributeError, so `hasattr` returns False."""
    with pytest.raises(
        AttributeError, match=f"^'Breaker' object has no attribute '{name}': {said}"
    ):
        getattr(Breaker(), name)
    assert not hasattr(Breaker(), name)
    with pytest.raises(
        AttributeError, match=r"^'Breaker' object has no attribute 'stat'$"
    ) as caught:
        Breaker().stat  # noqa: B018
    assert caught.value.name == "stat"  # by which Python suggests another one


def test_it_is_no_context_manager_and_no_decorator():
    """The message says what to write."""
    with (
        pytest.raises(TypeError, match=r"^a Breaker is not a context manager: .*attempts"),
        Breaker(),
    ):
        pass

    async def main():
        async with Breaker():
            pass

    with pytest.raises(TypeError, match=r"^a Breaker is not a context manager: .*attempts"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (Breaker, "^a Breaker is not a decorator: .*breaker="),
        (
            lambda: RateLimiter(5),
            "^a RateLimiter is not a decorator: .*rate_limit=.* `with limiter:`",
        ),
        (package.attempts, r"decorate a function with @opero\("),
    ],
    ids=["Breaker", "RateLimiter", "attempts"],
)
def test_what_decorates_elsewhere_is_no_function_here(made, said):
    """A call says what to write, and nothing mistakes the breaker for a function."""
    with pytest.raises(TypeError, match=said):
        made()(lambda: None)
    for decorate in (opero, opmap, opero(), opero(breaker=True)):
        with pytest.raises(TypeError, match=r"^opero decorates functions, not "):
            decorate(made())
    for option in ("retry_on", "retry_after", "cache_key"):
        with pytest.raises(TypeError, match=f"^{option}=.* is not allowed"):
            opero(cache=True, **{option: made()})


@pytest.mark.parametrize("seconds", [0, -1, "1", float("nan")])
@pytest.mark.once
def test_trip_takes_a_time_above_zero(seconds):
    """The time may also be left out."""
    with pytest.raises((TypeError, ValueError), match="seconds="):
        Breaker().trip(seconds)


# --- threads --------------------------------------------------------------------------------------


def test_threads_and_loops_share_a_breaker_while_it_is_tripped_and_reset():
    """Nothing is lost, nothing hangs, and the breaker still works in the end."""
    breaker = Breaker(minimum=5, open_for=0.001, window=0.01)
    stop = threading.Event()
    problems: list[BaseException] = []
    count = [0]

    @opero(retries=2, min_delay=0, max_delay=0, breaker=breaker, timeout=20)
    def call(value: int) -> int:
        if value % 3 == 0:
            raise ConnectionError
        return value

    @opero(retries=2, min_delay=0, max_delay=0, breaker=breaker)
    async def acall(value: int) -> int:
        await asyncio.sleep(0)
        if value % 3 == 0:
            raise ConnectionError
        return value

    def work(function: Any) -> None:
        try:
            while not stop.is_set():
                for value in range(9):
                    with suppress(AllFailedError, BreakerOpenError, DeadlineExceeded):
                        result(function, value)
                    count[0] += 1
        except BaseException as error:  # noqa: BLE001 - whatever it is
            problems.append(error)

    threads = [threading.Thread(target=work, args=(each,)) for each in (call, call, acall)]
    for thread in threads:
        thread.start()
    for at in range(60):
        time.sleep(0.005)
        breaker.trip(0.002) if at % 2 else breaker.reset()
    stop.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert problems == []
    assert count[0] > 30
    breaker.reset()
    assert call(1) == 1


# --- behind a queue for permits -----------------------------------------------------------------------


def outcomes(function: Any, count: int, asynchronous: bool) -> list[str]:
    """Call a function many times concurrently; return the sorted outcomes."""
    if asynchronous:

        async def all_at_once() -> list[Any]:
            return await asyncio.gather(
                *[function(1) for _ in range(count)], return_exceptions=True
            )

        found = asyncio.run(all_at_once())
    else:
        with ThreadPoolExecutor(count) as threads:
            runs = [threads.submit(function, 1) for _ in range(count)]
        found = [run.exception() or run.result() for run in runs]
    return sorted(type(each).__name__ for each in found)


@kinds
def test_those_who_wait_for_a_permit_are_refused_if_it_opens_meanwhile(core, asynchronous):
    service = Service()
    client = service.client(asynchronous, breaker=Breaker(minimum=1), rate_limit=50.0)
    assert outcomes(client, 6, asynchronous) == ["BreakerOpenError"] * 5 + ["ConnectionError"]
    assert len(service.asked) == 1
    assert client.stats().attempts == 1


@kinds
def test_those_who_wait_for_a_permit_go_on_if_it_is_closed_again(core, asynchronous):
    service = Service()
    service.down = False
    breaker = Breaker(minimum=4)
    client = service.client(asynchronous, breaker=breaker, rate_limit=50.0)

    def blink() -> None:
        service.during = None
        service.down = True
        breaker.trip()
        breaker.reset()

    service.during = blink
    assert outcomes(client, 5, asynchronous) == ["ConnectionError"] * 5
    assert client.stats().refused == 0
    assert breaker.state == "open"  # as the four that began after that count


@kinds
def test_those_who_wait_for_a_permit_fall_back_if_it_opens_meanwhile(core, asynchronous):
    service = Service()
    service.down = {"main"}
    ask = service.ask_async if asynchronous else service.ask

    def call(number: int, host: str = "main") -> Any:
        return ask(host)

    async def acall(number: int, host: str = "main") -> Any:
        return await ask(host)

    client = opero(
        retries=1,
        arg_fallback={"host": ["backup"]},
        breaker=Breaker(minimum=1),
        rate_limit=50.0,
    )(acall if asynchronous else call)
    assert outcomes(client, 4, asynchronous) == ["str"] * 4
    assert service.asked.count("main") == 1


@kinds
def test_a_probe_that_waits_for_its_permit_keeps_its_place(core, asynchronous):
    service = Service()
    service.down = False
    breaker = Breaker(open_for=10.0)
    limiter = RateLimiter(0.5)
    client = service.client(asynchronous, breaker=breaker, rate_limit=limiter)
    with skip_waits() as clock:
        breaker.trip()
        clock.advance(10)
        assert limiter.try_acquire()
        assert result(client, 1) == 1
        assert breaker.state == "closed"
        assert client.stats().refused == 0


@kinds
def test_a_probe_whose_permit_comes_after_its_lease_takes_another_one(core, asynchronous):
    service = Service()
    service.down = False
    breaker = Breaker(open_for=1.0)
    limiter = RateLimiter(0.1)
    client = service.client(asynchronous, breaker=breaker, rate_limit=limiter)
    with skip_waits() as clock:
        breaker.trip()
        clock.advance(1)
        assert limiter.try_acquire()
        assert result(client, 1) == 1
        assert breaker.state == "closed"


# --- what runs on after its probe ---------------------------------------------------------------------


def test_a_task_that_a_probe_has_started_is_a_part_of_it_only_while_it_runs(core):
    breaker = Breaker(open_for=30.0)
    found: list[Any] = []

    @opero(breaker=breaker, retries=1)
    async def other(seconds: float = 0.0) -> str:
        await asyncio.sleep(seconds)
        return "done"

    async def follow(over: asyncio.Event, again: asyncio.Event) -> None:
        found.append(await other())  # the probe that has started this is under way
        over.set()
        await again.wait()
        with suppress(BreakerOpenError):
            found.append(await other())

    async def main() -> None:
        over, again = asyncio.Event(), asyncio.Event()

        @opero(breaker=breaker, retries=1)
        async def connect() -> asyncio.Task[None]:
            task = asyncio.ensure_future(follow(over, again))
            await over.wait()
            return task

        breaker.trip()
        clock.advance(30)
        task = await connect()
        assert breaker.state == "closed"
        breaker.trip()
        clock.advance(30)
        probe = asyncio.ensure_future(other(0.05))
        await asyncio.sleep(0)
        again.set()
        await task
        assert found == ["done"]
        await probe
        assert breaker.state == "closed"

    with manual_clock() as clock:
        asyncio.run(main())


@kinds
def test_a_block_that_is_not_entered_leaves_nobody_inside_its_probe(core, asynchronous):
    breaker = Breaker(open_for=30.0)
    loop = package.attempts(retries=3, breaker=breaker)

    @opero(breaker=breaker, retries=1)
    def work() -> str:
        return "done"

    async def leave() -> None:
        async for _ in loop:
            break
        use()

    def use() -> None:
        breaker.trip()
        clock.advance(30)
        with ThreadPoolExecutor(1) as threads, release():
            probe = threads.submit(slow)
            begun.wait(20)
            with pytest.raises(BreakerOpenError):
                work()
        assert probe.result() is None
        assert work() == "done"

    @opero(breaker=breaker, retries=1)
    def slow() -> None:
        begun.set()
        end.wait(20)

    @contextmanager
    def release() -> Any:
        try:
            yield
        finally:
            end.set()

    begun, end = threading.Event(), threading.Event()
    with manual_clock() as clock:
        breaker.trip()
        clock.advance(30)
        if asynchronous:
            asyncio.run(leave())
        else:
            for _ in loop:
                break
            use()
