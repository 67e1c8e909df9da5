"""What a cached call finds: its own value or none, in whichever way its arguments are looked up.

A compiled call looks at the entries that were looked up last before it asks the dict of the store,
and compares arguments where they are. Here random calls are played against a dict that knows them
by what tells their arguments apart. Each is made several times in a row, with other objects of the
same values, so that it is found in every way there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import gc
import inspect
import random
import re
import struct
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signatures import function_of, signatures

from opero import hotpath, opero
from opero.core import state as states
from opero.testing import manual_clock


class Text(str):
    """A subclass of str with the same hash as others."""

    __slots__ = ()


class Level(enum.IntEnum):
    """Numbers with names."""

    LOW = 1
    HIGH = 2


class Equal:
    """Compared and hashed by Python code, and equal to others with its number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal) and self.number == other.number

    def __hash__(self) -> int:
        return hash(self.number)

    def __repr__(self) -> str:
        return f"Equal({self.number})"


def anew(text: str) -> str:
    """Return another object of the same text."""
    return text.encode().decode()


VALUES: tuple[Callable[[], Any], ...] = (
    lambda: 1,
    lambda: float("1"),
    lambda: True,
    lambda: "1",
    lambda: b"1",
    lambda: Text("1"),
    lambda: Level.LOW,
    lambda: 0,
    lambda: float("0"),
    lambda: float("-0"),
    lambda: False,
    lambda: None,
    lambda: -1,
    lambda: -2,  # the hash of -1
    lambda: float("-1"),
    lambda: int("2305843009213693951"),  # the hash of 0
    lambda: int("1180591620717411303424"),
    lambda: int("-1180591620717411303424"),
    lambda: float("1180591620717411303424"),
    lambda: int("1073741823"),  # one digit of CPython's
    lambda: int("1073741824"),  # two
    lambda: float("inf"),
    lambda: struct.unpack(">d", b"\x7f\xf8\0\0\0\0\0\0")[0],  # nan
    lambda: struct.unpack(">d", b"\xff\xf8\0\0\0\0\0\0")[0],  # another nan
    lambda: "",
    lambda: anew("a long text, which is compared byte by byte"),
    lambda: anew("ét"),
    lambda: anew("€t"),
    lambda: anew("😀t"),
    lambda: anew("None"),
    lambda: [1, "1"],
    lambda: (1, "1"),
    lambda: {"a": 1},
    lambda: Equal(1),
    lambda: Equal(2),
)
"""What makes values of which several are equal or have one hash, as new objects if they can be."""

KINDS = ("function", "coroutine", "method", "slotted method")


def told(value: Any) -> str:
    """Describe a value, so that two descriptions match exactly if a cache may mix up the values."""
    if type(value) is float:
        return struct.pack(">d", value).hex()
    if isinstance(value, (list, tuple)):
        return f"{type(value)} {[told(each) for each in value]}"
    if isinstance(value, dict):
        return f"{type(value)} {sorted((told(key), told(each)) for key, each in value.items())}"
    return f"{type(value)} {value!r}"


class Outcome:
    """What a function has returned for one call."""

    def __init__(self, who: Any, bound: Any) -> None:
        self.who = who
        self.call = told(bound)


class Subject:
    """A cached function of some signature, or a method with two instances.

    Attributes:
        who: Tells the instances of the method.
    """

    def __init__(self, kind: str, signature: inspect.Signature, **options: Any) -> None:
        self.kind = kind
        self.bind = function_of(signature)
        self.who = [0, 1] if "method" in kind else [0]
        self.decorated: Any
        bind = self.bind
        if kind == "function":
            inner = function_of(signature, "return make(0, {bound})", make=Outcome)
            self.decorated = opero(cache=True, **options)(inner)
            return
        if kind == "coroutine":

            async def coroutine(*args: Any, **kwargs: Any) -> Outcome:
                return Outcome(0, bind(*args, **kwargs))

            coroutine.__signature__ = signature  # type: ignore[attr-defined]
            self.decorated = opero(cache=True, **options)(coroutine)
            return

        def method(self: Any, /, *args: Any, **kwargs: Any) -> Outcome:
            return Outcome(self.who, bind(*args, **kwargs))

        first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        method.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[first, *signature.parameters.values()]
        )
        method.__qualname__ = "Thing.method"
        self.decorated = opero(cache=True, **options)(method)
        body: dict[str, Any] = {"method": self.decorated, "__qualname__": "Thing"}
        if kind == "slotted method":
            body["__slots__"] = ("__weakref__", "who")
        self.thing: Any = type("Thing", (), body)
        self.things = [self.thing(), self.thing()]
        for who, thing in enumerate(self.things):
            thing.who = who

    def renew(self, who: int) -> None:
        """Let an instance end, and another one take its place, maybe at its address."""
        if "method" in self.kind:
            self.things[who] = None
            self.things[who] = self.thing()
            self.things[who].who = who

    def of(self, who: int) -> Any:
        """Return the function, or the method of an instance."""
        return self.things[who].method if "method" in self.kind else self.decorated

    def call(self, who: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call."""
        if self.kind == "coroutine":
            return asyncio.run(self.awaited(args, kwargs))
        return self.of(who)(*args, **kwargs)

    async def awaited(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call in an event loop."""
        return await self.decorated(*args, **kwargs)


class Model:
    """What a cache has to know of the calls of a subject, told by what they bind.

    Attributes:
        known: The outcome of each call that is stored, and when it ends.
        now: Seconds since the start.
    """

    def __init__(self, subject: Subject, ttl: float | None) -> None:
        self.subject = subject
        self.ttl = float("inf") if ttl is None else ttl
        self.known: dict[tuple[int, str], tuple[Any, float]] = {}
        self.now = 0.0

    def check(self, who: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Make a call, and compare its result with what is known."""
        try:
            call = told(self.subject.bind(*args, **kwargs))
        except TypeError:
            with pytest.raises(TypeError):
                self.subject.call(who, args, kwargs)
            return
        outcome = self.subject.call(who, args, kwargs)
        assert (outcome.who, outcome.call) == (who, call)
        kept, end = self.known.get((who, call), (None, 0.0))
        if self.now < end:
            assert outcome is kept
        else:
            assert all(outcome is not each for each, _ in self.known.values())
            self.known[who, call] = outcome, self.now + self.ttl

    def invalidate(self, who: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Invalidate a call."""
        with contextlib.suppress(TypeError):
            call = told(self.subject.bind(*args, **kwargs))
            self.known.pop((who, call), None)
            self.subject.of(who).cache_invalidate(*args, **kwargs)

    def forget(self, who: int) -> None:
        """Forget everything about an instance."""
        self.known = {call: kept for call, kept in self.known.items() if call[0] != who}


@st.composite
def plays(draw: st.DrawFn) -> tuple[inspect.Signature, list[Any]]:
    """Draw a signature, and actions for a function with it."""
    signature = draw(signatures())
    parameters = list(signature.parameters.values())
    first = [each for each in parameters if each.kind <= each.POSITIONAL_OR_KEYWORD]
    value = st.sampled_from(VALUES)
    calls: list[Any] = []
    for _ in range(draw(st.integers(1, 6))):
        given_first = draw(st.integers(0, len(first)))
        args = draw(st.lists(value, min_size=given_first, max_size=given_first))
        names = [
            each.name
            for each in parameters
            if each not in first[:given_first]
            and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        ]
        kwargs = {name: draw(value) for name in draw(st.permutations(names)) if draw(st.booleans())}
        calls.append((tuple(args), kwargs))
        if draw(st.booleans()):  # and one that differs in one value, or in nothing
            calls.append(((draw(value), *args[1:]) if args else (), kwargs))
    call = st.sampled_from(calls)
    step = st.one_of(
        *[st.tuples(st.just("call"), st.integers(0, 1), call, st.integers(1, 4))] * 5,
        st.tuples(st.just("invalidate"), st.integers(0, 1), call),
        st.tuples(st.just("clear"), st.just(0)),
        st.tuples(st.just("renew"), st.integers(0, 1)),
        st.tuples(st.just("wait"), st.sampled_from([1, 3])),
    )
    return signature, draw(st.lists(step, min_size=1, max_size=30))


def made(call: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return new objects for the arguments of a call."""
    args, kwargs = call
    return tuple(make() for make in args), {name: make() for name, make in kwargs.items()}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50)
@given(play=plays(), ttl=st.sampled_from([None, 2]))
def test_a_call_finds_what_is_stored_of_this_very_call(
    core: hotpath.Core, kind: str, play: Any, ttl: float | None
) -> None:
    """Whatever the signature and the values, and whatever happens in between."""
    signature, steps = play
    options: dict[str, Any] = {"cache_maxsize": None} | ({} if ttl is None else {"cache_ttl": ttl})
    with manual_clock() as clock:
        subject = Subject(kind, signature, **options)
        model = Model(subject, ttl)
        for name, at, *more in steps:
            who = subject.who[at % len(subject.who)]
            if name == "call":
                for _ in range(more[1]):
                    model.check(who, *made(more[0]))
            elif name == "invalidate":
                model.invalidate(who, *made(more[0]))
            elif name == "clear":
                subject.decorated.cache_clear()
                model.known.clear()
            elif name == "renew" and "method" in kind:
                subject.renew(who)
                model.forget(who)
            elif name == "wait":
                clock.advance(at)
                model.now += at


@pytest.mark.parametrize("maxsize", [1, 3, 40])
@pytest.mark.parametrize("kind", KINDS)
def test_a_small_cache_never_returns_what_belongs_to_another_call(
    core: hotpath.Core, kind: str, maxsize: int
) -> None:
    """Entries come and go and replace each other; each call returns its own value."""

    def two(first: Any, second: Any = None) -> None: ...

    draw = random.Random(5)
    subject = Subject(kind, inspect.signature(two), cache_maxsize=maxsize)
    count = 150 if kind == "coroutine" else 1500
    for _ in range(count):
        args = tuple(draw.choice(VALUES)() for _ in range(draw.choice([1, 1, 2])))
        who = draw.choice(subject.who)
        for _ in range(draw.choice([1, 2, 3])):
            outcome = subject.call(who, args, {})
            assert (outcome.who, outcome.call) == (who, told(subject.bind(*args)))
        if not draw.randrange(20):
            subject.renew(who)
    info = subject.decorated.cache_info()
    assert info.hits > 0
    assert info.currsize <= maxsize * len(subject.who)


def test_every_entry_of_a_great_cache_is_found(core: hotpath.Core) -> None:
    """It has more entries than there are places for recent lookups."""
    draw = random.Random(6)
    numbers = list(range(-700, 700))
    one = opero(cache=True, cache_maxsize=None)(lambda value: [value])
    three = opero(cache=True, cache_maxsize=None)(lambda a, b, c: [a, b, c])
    kinds: list[Callable[[int], Any]] = [int, float, str]
    for _ in range(3):
        draw.shuffle(numbers)
        for number in numbers:
            for kind in kinds:
                value = kind(number)
                assert one(value) == [value]
                assert type(one(value)[0]) is kind
                assert three(value, c=number, b=None) == [value, None, number]
                assert type(three(value, None, number)[0]) is kind
        assert one.cache_info().misses == three.cache_info().misses == 3 * len(numbers)
    assert one.cache_info().hits == three.cache_info().hits == (6 * 3 - 3) * len(numbers)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 40])
def test_functions_of_any_number_of_parameters_are_cached(core: hotpath.Core, count: int) -> None:
    """All positional, all by keyword, and half of each."""
    names = [f"parameter_{at}" for at in range(count)]
    function = function_of(
        inspect.Signature(
            [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        )
    )
    cached = opero(cache=True)(function)
    values = [VALUES[at % 30]() for at in range(count)]
    expected = function(*values)
    for given_first in (count, 0, count // 2):
        named = dict(zip(names[given_first:], values[given_first:], strict=True))
        for _ in range(3):
            assert told(cached(*values[:given_first], **named)) == told(expected)
    assert cached.cache_info().misses == 1


def test_names_that_are_made_at_run_time_are_names(core: hotpath.Core) -> None:
    """Keywords are compared by their text."""
    cached = opero(cache=True)(lambda alpha, beta=2: [alpha, beta])
    first = cached(1, beta=3)
    for name in (anew("beta"), Text("beta")):
        for _ in range(3):
            assert cached(1, **{name: 3}) is first
            assert cached(**{"alpha": 1, name: 3}) is first
            with pytest.raises(TypeError):
                cached(1, 3, **{name: 3})
            with pytest.raises(TypeError):
                cached(1, **{name: 3, name + "s": 3})


# --- what a cache keeps alive ---------------------------------------------------------------------


class Value:
    """A value that supports weak references."""


def hit(function: Any, argument: float) -> weakref.ref[Any]:
    """Store a value and look it up: it is among the recent lookups, and still on probation."""
    found = function(argument)
    assert function(argument) is found
    return weakref.ref(found)


@pytest.mark.refcounts
@pytest.mark.parametrize(
    ("kind", "how"),
    [
        *[
            (kind, how)
            for kind in ("function", "method")
            for how in ("clear", "invalidate", "evict", "expire", "end of all")
        ],
        ("method", "end"),
    ],
)
def test_no_value_outlives_its_entry(core: hotpath.Core, how: str, kind: str) -> None:
    """Nor does it wait for the garbage collector."""

    class Thing:
        @opero(cache=True, cache_ttl=2, cache_maxsize=2)
        def method(self, *, number: float) -> Value:
            return Value()

    @opero(cache=True, cache_ttl=2, cache_maxsize=2)
    def function(number: float) -> Value:
        return Value()

    cached: Any = function
    thing = Thing()
    if kind == "method":
        bound = thing.method

        def cached(number: float) -> Any:
            return bound(number=number)

        cached.cache_info = bound.cache_info  # type: ignore[attr-defined]
    with manual_clock() as clock:
        refs = [hit(cached, 1), hit(cached, 2.5)]
        assert all(ref() is not None for ref in refs)
        if how == "clear":
            Thing.method.cache_clear()
            function.cache_clear()
        elif how == "invalidate":
            for number in (1, 2.5):
                thing.method.cache_invalidate(number=number)
                function.cache_invalidate(number)
        elif how == "evict":
            for number in range(10, 20):
                cached(number)
        elif how == "expire":
            clock.advance(5)
            hit(cached, 1)
            hit(cached, 2.5)
        elif how == "end":
            del thing, cached, bound
        else:
            del thing, cached, function
            if kind == "method":
                del bound
            del Thing
            gc.collect()
        assert [ref() for ref in refs] == [None, None]


@pytest.mark.refcounts
@pytest.mark.parametrize("how", ["clear", "invalidate"])
def test_no_argument_outlives_its_entry(core: hotpath.Core, how: str) -> None:
    """Neither one alone nor one of several."""
    one = opero(cache=True)(lambda value: 5)
    two = opero(cache=True)(lambda value, other: 5)
    for value in (make() for make in VALUES):
        before = sys.getrefcount(value)
        for _ in range(4):
            one(value)
            two(1, value)
            two(other=value, value=value)
        if how == "clear":
            one.cache_clear()
            two.cache_clear()
        else:
            one.cache_invalidate(value)
            two.cache_invalidate(1, value)
            two.cache_invalidate(value, value)
        after = sys.getrefcount(value)
        assert after == before or before > 100, value  # many hold the number 1


def test_an_instance_at_the_address_of_one_that_ended_has_values_of_its_own(
    core: hotpath.Core,
) -> None:
    """Whether the old one ends at once, or by the garbage collector."""

    class Slotted:
        __slots__ = ("__weakref__", "cycle", "number")

        def __init__(self, number: int) -> None:
            self.number = number

        @opero(cache=True)
        def method(self, value: int) -> tuple[int, int]:
            return self.number, value

    addresses = set()
    for number in range(2000):
        thing = Slotted(number)
        if number % 10 == 0:
            thing.cycle = thing
        addresses.add(id(thing))
        for value in (1, 2, 1, 2, 1):
            assert thing.method(value) == (number, value)
        del thing
        if number % 500 == 0:
            gc.collect()
    assert len(addresses) < 1990
    gc.collect()
    assert Slotted.method.cache_info().currsize == 0


@pytest.mark.refcounts
def test_many_instances_take_turns(core: hotpath.Core) -> None:
    """More than fit at hand, all equal to each other, each with its own values."""

    class Thing:
        def __init__(self, number: int) -> None:
            self.number = number

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Thing)

        def __hash__(self) -> int:
            return 1

        @opero(cache=True)
        def method(self, value: float, more: Any = None) -> tuple[int, float]:
            return self.number, value

    things = [Thing(number) for number in range(300)]
    for _ in range(4):
        for number, thing in enumerate(things):
            assert thing.method(1) == (number, 1)
            assert thing.method(2.5, more="x") == (number, 2.5)
    assert Thing.method.cache_info().misses == 600
    del things[::2]
    del thing
    assert Thing.method.cache_info().currsize == 300
    for thing in things:
        assert thing.method(1) == (thing.number, 1)
    assert Thing.method.cache_info().misses == 600


# --- what runs in the middle ----------------------------------------------------------------------


@pytest.mark.refcounts
@pytest.mark.parametrize("deed", ["call", "clear", "invalidate", "call others"])
@pytest.mark.parametrize("kind", ["function", "method"])
def test_the_end_of_a_value_may_use_the_cache(core: hotpath.Core, kind: str, deed: str) -> None:
    """It happens while an entry is evicted, replaced, invalidated or cleared."""
    ended = []
    cached: Any

    class Ending:
        def __init__(self, number: float) -> None:
            self.number = number

        def __del__(self) -> None:
            ended.append(self.number)
            if len(ended) > 400:
                return
            if deed == "call":
                assert cached(self.number).number == self.number
            elif deed == "clear":
                target.cache_clear()
            elif deed == "invalidate":
                target.cache_invalidate(self.number + 1)
            else:
                for number in range(3):
                    assert cached(number).number == number

    class Thing:
        @opero(cache=True, cache_maxsize=2)
        def method(self, number: float, other: Any = None) -> Ending:
            return Ending(number)

    @opero(cache=True, cache_maxsize=2)
    def function(number: float, other: Any = None) -> Ending:
        return Ending(number)

    thing = Thing()
    cached = thing.method if kind == "method" else function
    target: Any = thing.method if kind == "method" else function
    for number in [1, 2.5, 3, 4, 1, 2.5, 6, 7.5] * 3:
        for _ in range(3):
            assert cached(number).number == number
        if number == 3:
            target.cache_invalidate(2.5)
        if number == 7.5:
            target.cache_clear()
    assert ended
    assert target.cache_info().currsize <= 2
    target.cache_clear()
    ended.extend([0] * 401)
    target.cache_clear()


def test_a_listener_that_clears_the_cache_does_not_take_the_value_away(
    core: hotpath.Core,
) -> None:
    """The caller owns the value of a hit before any listener is called."""
    import opero as package

    cached = opero(cache=True)(lambda value: [value])
    end = package.subscribe(lambda event: cached.cache_clear(), "hit")
    try:
        for _ in range(50):
            assert cached(2.5) == [2.5]
            assert cached("text") == ["text"]
    finally:
        end()
    assert cached.cache_info().currsize <= 1


def test_functions_and_values_in_a_circle_end_while_they_call_each_other(
    core: hotpath.Core,
) -> None:
    """The garbage collector clears them in any order, and finalizers make lookups."""
    ended = []

    def turn(number: int) -> None:
        class Thing:
            @opero(cache=True)
            def method(self, value: Any) -> Any:
                return Holder(self, value)

            def __del__(self) -> None:
                ended.append("thing")
                for value in (1, 2.5, "text"):
                    self.method(value)

        @opero(cache=True)
        def function(value: Any, other: Any = None) -> Any:
            return Holder(None, value)

        class Holder:
            def __init__(self, *parts: Any) -> None:
                self.parts = parts
                self.all = Thing, function, things

            def __del__(self) -> None:
                ended.append("holder")
                for value in (1, 2.5, "text"):
                    function(value)
                    function(value, other=value)
                    for thing in self.all[2]:
                        thing.method(value)

        things = [Thing() for _ in range(3)]
        for _ in range(3):
            for value in (1, 2.5, "text"):
                function(value)
                function(value, value)
                for thing in things:
                    thing.method(value)

    for number in range(10):
        turn(number)
        gc.collect()
    for _ in range(3):
        gc.collect()
    assert ended.count("thing") >= 30
    assert ended.count("holder") >= 10 * 15


def test_threads_find_their_own_values_while_others_clear(core: hotpath.Core) -> None:
    """They call functions of three arguments, and methods, with few values, all the time."""
    failed: list[Any] = []

    class Thing:
        def __init__(self, number: int) -> None:
            self.number = number

        @opero(cache=True, cache_maxsize=20)
        def method(self, value: Any, *, more: Any = 1) -> Any:
            return self.number, value, more

    three = opero(cache=True, cache_maxsize=20)(lambda a, b, c=None: (a, b, c))
    things = [Thing(number) for number in range(3)]
    values = [1, 1.0, True, "1", None, 2.5]

    def work(seed: int) -> None:
        draw = random.Random(seed)
        try:
            for turn in range(1500):
                a, b, c = (draw.choice(values) for _ in range(3))
                found = [three(a, b, c), three(a, b, c=c), three(b=b, a=a, c=c)]
                assert all(told(each) == told((a, b, c)) for each in found)
                thing = draw.choice(things)
                assert told(thing.method(a, more=b)) == told((thing.number, a, b))
                if not turn % 50:
                    three.cache_clear()
                    three.cache_invalidate(a, b, c)
                    thing.method.cache_invalidate(a, more=b)
                if not turn % 100:
                    mine = Thing(seed)
                    assert mine.method(a) == mine.method(a) == (seed, a, 1)
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(10, 14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert three.cache_info().currsize <= 20


@pytest.mark.parametrize("maxsize", [1, 2, 5])
def test_a_cache_is_within_its_bound_when_a_renewal_fails(maxsize: int) -> None:
    """A value stored during the run may replace the one being renewed."""
    broken: list[int] = []

    @opero(retries=1, cache=True, cache_ttl=60, cache_maxsize=maxsize)
    def double(number: int) -> int:
        if number in broken:
            for other in range(100, 100 + 2 * maxsize):
                double(other)
            raise ValueError(number)
        return 2 * number

    with manual_clock() as clock:
        for number in range(maxsize):
            double(number)
        clock.advance(61)
        broken.extend(range(maxsize))
        for number in range(maxsize):
            with contextlib.suppress(ValueError):
                double(number)
            assert double.cache_info().currsize <= maxsize


@pytest.mark.checkout
@pytest.mark.once
def test_there_is_room_for_the_arguments_that_are_looked_up_where_they_are() -> None:
    """They are in an array of fixed size on the C stack."""
    source = Path(hotpath.__file__).with_name("_compiled") / "lookup.pxi"
    [room] = re.findall(r"^ *MOST_PARTS = (\d+)$", source.read_text("utf-8"), re.MULTILINE)
    assert int(room) == states._MOST_STRAIGHT
