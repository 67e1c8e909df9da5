"""The metrics: what each tells of what happens, and that nothing falls that should only rise."""

from __future__ import annotations

import gc
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from opero import (
    AllFailedError,
    Breaker,
    BreakerOpenError,
    DeadlineExceeded,
    RateLimiter,
    events,
    hotpath,
    opero,
    opmap,
    roster,
)
from opero.clients.outages import Outage
from opero.core.gate import REJECTED
from opero.integrations import measures as module
from opero.integrations.measures import COUNTED, METRICS, MOST, OTHER, Measures, error_type
from opero.stats import COUNTERS
from opero.testing import manual_clock, skip_waits

NAME = "code.function.name"


@pytest.fixture
def measures() -> Iterator[Measures]:
    """Count during a test."""
    made = Measures()
    yield made
    made.close()
    assert not roster.keeping
    assert "retry" not in events._listeners


def told(measures: Measures, name: str, part: str = __name__) -> dict[str, float]:
    """Return the values of a metric, by the ends of functions' names and further labels."""
    (metric,) = [each for each in METRICS if each.name == name]
    return {
        " ".join(text.rpartition(".")[2] for text in labels): value
        for labels, value in measures.values(metric).items()
        if any(part in text for text in labels)
    }


def flaky(failures: int, **options: Any) -> Any:
    """Make a function that fails so often before it succeeds."""
    left = [failures]

    @opero(**options)
    def fetch(key: object = None) -> object:
        left[0] -= 1
        if left[0] >= 0:
            raise TimeoutError("a secret")
        return key

    return fetch


def test_each_counter_of_a_function_is_a_metric() -> None:
    """A counter more needs a row here."""
    assert set(COUNTED) == set(COUNTERS)


def test_names_and_units_are_those_of_the_conventions() -> None:
    """Lower case, words with dots, units in UCUM, no name twice, no name within another's."""
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"opero(\.[a-z]+(_[a-z]+)*)+", metric.name)
        assert re.fullmatch(r"s|1|\{[a-z]+\}", metric.unit)
        assert metric.text[0].isupper()
        assert not metric.text.endswith(".")
    from opentelemetry.semconv.attributes import code_attributes, error_attributes

    assert code_attributes.CODE_FUNCTION_NAME == module.FUNCTION
    assert error_attributes.ERROR_TYPE == module.ERROR
    assert error_attributes.ErrorTypeValues.OTHER.value == module.OTHER


def test_calls_hits_and_attempts_are_read(core: hotpath.Core, measures: Measures) -> None:
    """Also those from before anybody read."""
    fetch = flaky(2, cache=True, min_delay=0)
    for key in (1, 1, 2):
        fetch(key)
    assert told(measures, "opero.calls") == {"fetch": 3}
    assert told(measures, "opero.cache.hits") == {"fetch": 1}
    assert told(measures, "opero.cache.misses") == {"fetch": 2}
    assert told(measures, "opero.attempts") == {"fetch": 4}
    assert told(measures, "opero.retries") == {"fetch": 2}
    assert told(measures, "opero.attempt.errors") == {"fetch TimeoutError": 2}
    assert told(measures, "opero.failures") == {"fetch": 0}
    assert told(measures, "opero.give_ups") == {}


def test_hits_are_not_listened_to(core: hotpath.Core, measures: Measures) -> None:
    """They cost what they cost without."""
    assert not events._listeners.keys() & {"hit", "miss", "permit_wait", "call_end"}
    assert not roster.tracing


def test_giving_up_fallbacks_and_deadlines(core: hotpath.Core, measures: Measures) -> None:
    """Each by the type of its error."""
    with skip_waits():
        with pytest.raises(AllFailedError):
            flaky(9, retries=2)()
        with pytest.raises(DeadlineExceeded):
            flaky(9, retries=5, min_delay=2, timeout=3)()
        flaky(1, arg_fallback="key")(["a", "b"])
        limited = flaky(0, rate_limit=1)
        limited()
        limited()
    assert told(measures, "opero.give_ups") == {"fetch TimeoutError": 1}
    assert told(measures, "opero.deadlines") == {"fetch": 1}
    assert told(measures, "opero.fallbacks") == {"fetch": 1}
    assert told(measures, "opero.permit.wait") == {"fetch": pytest.approx(1, abs=0.1)}
    assert told(measures, "opero.backoff.wait")["fetch"] >= 2.1


def test_figures_outlive_their_functions(core: hotpath.Core, measures: Measures) -> None:
    """So no sum falls, however functions come and go."""
    before = 0.0
    for _ in range(5):
        fetch = flaky(0)
        fetch()
        del fetch
        gc.collect()
        now = told(measures, "opero.calls")["fetch"]
        assert now == before + 1
        before = now
    many = [flaky(0) for _ in range(3)]
    for each in many:
        each()
    assert told(measures, "opero.calls")["fetch"] == 8
    many.clear()
    gc.collect()
    assert told(measures, "opero.calls")["fetch"] == 8


def test_figures_of_many_functions_that_are_gone_take_no_room(
    core: hotpath.Core, measures: Measures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are added up, though nobody collects."""
    monkeypatch.setattr(roster, "_MOST_LOOSE", 50)
    for _ in range(200):
        opero(retries=2)(abs)(1)
    gc.collect()
    assert len(roster._loose) <= roster._MOST_LOOSE
    assert told(measures, "opero.calls", "builtins.abs")["abs"] == 200


def test_nothing_is_kept_where_nobody_reads(core: hotpath.Core) -> None:
    """A function's figures go with it."""
    fetch = flaky(0)
    fetch()
    del fetch
    gc.collect()
    assert (len(roster._loose), len(roster._gone)) == (0, 0)


def test_threads_that_decorate_call_and_read(core: hotpath.Core, measures: Measures) -> None:
    """Nothing is lost, and no sum ever falls."""
    seen: list[float] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.append(told(measures, "opero.calls").get("fetch", 0))

    def work() -> None:
        for _ in range(200):
            flaky(0)()

    reader = threading.Thread(target=read)
    workers = [threading.Thread(target=work) for _ in range(4)]
    for thread in (reader, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    over.set()
    reader.join()
    gc.collect()
    assert told(measures, "opero.calls")["fetch"] == 800


def test_a_map_is_told_while_it_is_under_way(core: hotpath.Core, measures: Measures) -> None:
    """How many items are done and left, and in the end what has failed; no sum falls."""
    seen = []

    @opmap(mode="thread", workers=1, retries=1, chunk_size=1)
    def price(item: int) -> int:
        return 1 // (item % 5)

    stream = price.stream([*range(20)])
    for _ in stream:
        seen.append(told(measures, "opero.map.items").get("price succeeded", 0))
        assert told(measures, "opero.map.running") == {"price": 1}
        left = told(measures, "opero.map.items_left")["price"]
        done = told(measures, "opero.map.items")
        assert left + sum(done.values()) == pytest.approx(20, abs=1)
    assert seen == sorted(seen)
    assert told(measures, "opero.map.items") == {"price failed": 4, "price succeeded": 16}
    assert told(measures, "opero.map.running") == {}
    assert told(measures, "opero.maps") == {"price": 1}
    price([1, 2])
    assert told(measures, "opero.map.items") == {"price failed": 4, "price succeeded": 18}


def test_an_outage_of_a_store_is_told(core: hotpath.Core, measures: Measures) -> None:
    """While it lasts, and how many there were."""
    outage = Outage("the test cache")
    outage.leave(outage.enter(), error=OSError("a secret"))
    assert told(measures, "opero.store.up", "test cache") == {"the test cache": 0}
    outage.leave(0)
    assert told(measures, "opero.store.up", "test cache") == {"the test cache": 1}
    assert told(measures, "opero.store.outages", "test cache") == {"the test cache": 1}


def test_a_cut_of_an_adaptive_limit_is_told(core: hotpath.Core, measures: Measures) -> None:
    """Under the name that its events have, and as often as there are events."""
    limiter = RateLimiter(5, adaptive=True)
    name = "the rate limit of 5 per second"
    with manual_clock() as clock:
        for _ in range(2):
            clock.advance(2)
            limiter._queue.report(REJECTED, core.clock.now())
    assert told(measures, "opero.limit.cuts", name) == {name: 2}


def test_a_circuit_breaker_is_told(core: hotpath.Core, measures: Measures) -> None:
    """Its state, each change, and what it refuses and lets wait."""
    breaker = Breaker("prices", minimum=2, open_for=10)
    fetch = flaky(2, retries=1, breaker=breaker, timeout=60)
    with manual_clock() as clock:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                fetch()
        states = {"prices closed": 0, "prices half_open": 0, "prices open": 1}
        assert told(measures, "opero.breaker.state", "prices") == states
        with pytest.raises(BreakerOpenError):
            flaky(0, breaker=breaker)()
        clock.advance(1)
        fetch()  # which waits for the rest of the time
    states = {"prices closed": 1, "prices half_open": 0, "prices open": 0}
    assert told(measures, "opero.breaker.state", "prices") == states
    changes = {"prices closed": 1, "prices half_open": 1, "prices open": 1}
    assert told(measures, "opero.breaker.transitions", "prices") == changes
    assert told(measures, "opero.breaker.refused") == {"fetch": 2}
    assert told(measures, "opero.breaker.wait") == {"fetch": 9}


def test_a_renewal_in_the_background_is_told(core: hotpath.Core, measures: Measures) -> None:
    """How often one began, and what it failed with."""
    errors: list[BaseException] = []
    done = threading.Event()

    @opero(cache=True, cache_ttl=10, cache_refresh=5, retries=1)
    def rate() -> int:
        if errors:
            raise errors.pop()
        return 1

    end = events.subscribe(lambda event: done.set(), "refresh")
    with manual_clock() as clock:
        rate()
        for error in (None, ConnectionError()):
            if error is not None:
                errors.append(error)
            done.clear()
            clock.advance(6)
            rate()
            assert done.wait(10)
    end()
    assert told(measures, "opero.cache.refreshes") == {"rate": 2}
    assert told(measures, "opero.cache.refresh_errors") == {"rate ConnectionError": 1}


def test_the_types_of_errors_have_their_full_names() -> None:
    """Builtin ones have no module, as the conventions have it."""

    class LocalError(Exception):
        pass

    assert error_type(ValueError()) == "ValueError"
    assert error_type(AllFailedError("", [])) == "opero.exceptions.AllFailedError"
    assert error_type(LocalError()).endswith("test_measures." + LocalError.__qualname__)
    assert error_type(None) == ""


def test_labels_have_a_bound(core: hotpath.Core, measures: Measures) -> None:
    """A program that makes names, or types, does not make a metric for each."""
    for number in range(MOST + 50):
        measures.function("made", f"f{number}")
        measures.error(type(f"Error{number}", (Exception,), {})())
    assert measures.function("made", "f3") == "made.f3"
    assert measures.function("made", "another") == OTHER
    assert measures.error(type("Another", (Exception,), {})()) == OTHER
    assert measures.error(None) == OTHER  # it came too late, too


def test_no_argument_and_no_text_of_an_error_is_told(
    core: hotpath.Core, measures: Measures
) -> None:
    """Whatever the metric."""
    with skip_waits(), pytest.raises(AllFailedError):
        flaky(9, cache=True)("an argument")
    text = repr(list(measures.read()))
    assert "TimeoutError" in text
    assert "a secret" not in text
    assert "an argument" not in text
