"""The compiled half and the plain one behave the same: random options, random sequences of calls.

Each scenario is played once by the active half and once by the plain one, with a clock that only
the scenario moves and without jitter. Every step leaves a trace: result or exception, what the
function saw, figures, size of the cache, log records and time waited. The two traces have to be
equal. Where opero is built as plain Python, it plays against itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signatures import bound_by_python, calls, function_of, signatures, told_apart

from opero import BreakerConfig, OperoError, RateLimiter, hotpath, opero
from opero.testing import manual_clock

pytestmark = pytest.mark.once


class Custom(Exception):
    """An error that some predicates like and some do not."""


class Abort(BaseException):
    """An error that is no `Exception`."""


def likes_values(error: BaseException) -> bool:
    """Be a predicate."""
    return isinstance(error, ValueError)


def waits(error: BaseException) -> Any:
    """Be a function that tells what a server asks for: something, too much, nothing, or nonsense."""
    return {ValueError: 1.5, KeyError: 40, Custom: "soon"}.get(type(error))


def is_early(value: str) -> bool:
    """Be a predicate of `retry_on_result`: it rejects what the first two attempts return."""
    return value in {"value 1", "value 2"}


def key_of_everything(*args: Any, **kwargs: Any) -> Any:
    """Be a key function that knows more spellings than there are calls."""
    return [len(args), sorted(kwargs)]


def with_effect(options: dict[str, Any]) -> dict[str, Any]:
    """Leave out the options that would have no effect beside the others, and so be refused."""
    return {
        name: value
        for name, value in options.items()
        if (not name.startswith("cache_") or options["cache"])
        and (name != "cache_stale" or "cache_ttl" in options)
        and (name != "burst" or "rate_limit" in options)
        and (name != "fallback_on" or "arg_fallback" in options)
    }


OPTIONS = st.fixed_dictionaries(
    {"jitter": st.just(False), "cache": st.booleans()},
    optional={
        "retries": st.integers(0, 4),
        "backoff_factor": st.sampled_from([1, 1.5, 4]),
        "min_delay": st.sampled_from([0, 0.25, 2]),
        "max_delay": st.sampled_from([2, 5]),
        "retry_on": st.sampled_from(
            [ValueError, (ValueError, KeyError), (Exception,), (), (BaseException,), likes_values]
        ),
        "arg_fallback": st.sampled_from(["x", "y", {"x": ["p", "q"]}, {"y": [None]}]),
        "fallback_on": st.sampled_from([KeyError, (ValueError, Custom), likes_values]),
        "retry_on_result": st.just(is_early),
        "reraise": st.booleans(),
        "cache_ttl": st.sampled_from([0.5, 3]),
        "cache_stale": st.sampled_from([2, 30]),
        "cache_maxsize": st.sampled_from([1, 2, 30, None]),
        "cache_key": st.just(key_of_everything),
        "rate_limit": st.sampled_from([0.5, 4.0]),
        "burst": st.sampled_from([1, 2]),
        "timeout": st.sampled_from([0.1, 1, 6]),
        "retry_after": st.sampled_from([waits, "soon".index]),
        "breaker": st.sampled_from(
            [True, BreakerConfig(minimum=1, open_for=2), BreakerConfig(minimum=2, probes=2)]
        ),
    },
).map(with_effect)
VALUES = st.sampled_from([1, 1, 1, 2, True, "a", None, ["s", "t"], ("s", "t", "u"), [], {"k": [1]}])
CALLS = st.tuples(st.just("call"), VALUES, VALUES, st.integers(0, 3)) | st.tuples(
    st.just("misfit"),
    st.lists(VALUES, max_size=3).map(tuple),
    st.dictionaries(st.sampled_from(["x", "y", "z"]), VALUES, max_size=2),
)
DEEDS = st.lists(
    st.sampled_from(
        ["return", "return", ValueError, ValueError, KeyError, Custom, TypeError, Abort, 0.3, 5]
    ),
    max_size=8,
)
STEPS = st.lists(
    st.one_of(
        CALLS,
        CALLS,
        st.tuples(st.just("together"), st.lists(CALLS, min_size=2, max_size=4)),
        st.tuples(st.just("advance"), st.sampled_from([0.2, 1, 10])),
        st.tuples(st.just("invalidate"), CALLS),
        st.just(("clear",)),
    ),
    min_size=1,
    max_size=8,
)
SHAPES: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "one": lambda body: lambda x: body(x, "only"),
    "two": lambda body: lambda x, y=("s", 2): body(x, y),
    "by name": lambda body: lambda *, x=1, y=2: body(x, y),
    "by place": lambda body: lambda x=("s",), y=2, /: body(x, y),
    "all": lambda body: lambda x, *y, **z: body(x, y, tuple(z.items())),
    "none": lambda body: lambda: body("nothing"),
}
"""Functions of several signatures, by name."""

SPELLINGS: dict[str, list[Callable[[Any, Any], Any]]] = {
    "one": [lambda x, y: ((x,), {}), lambda x, y: ((), {"x": x})],
    "two": [
        lambda x, y: ((x,), {}),
        lambda x, y: ((x, y), {}),
        lambda x, y: ((x,), {"y": y}),
        lambda x, y: ((), {"y": y, "x": x}),
    ],
    "by name": [
        lambda x, y: ((), {}),
        lambda x, y: ((), {"x": x}),
        lambda x, y: ((), {"y": y, "x": x}),
    ],
    "by place": [lambda x, y: ((), {}), lambda x, y: ((x,), {}), lambda x, y: ((x, y), {})],
    "all": [
        lambda x, y: ((x,), {}),
        lambda x, y: ((x, y), {}),
        lambda x, y: ((x,), {"z": y}),
        lambda x, y: ((x, y, x), {"x2": x, "y": y}),
    ],
    "none": [lambda x, y: ((), {})],
}
"""Calls that fit them."""


@contextlib.contextmanager
def played_by(half: hotpath.Core) -> Iterator[Any]:
    """Make `half` the active one, and stop its clock."""
    before = hotpath.core
    hotpath.core = half
    try:
        with manual_clock() as clock:
            yield clock
    finally:
        hotpath.core = before


class Records(logging.Handler):
    """Keeps what is written to the log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.lines.append(f"{record.levelname} {record.getMessage()}")


@contextlib.contextmanager
def recorded(level: int) -> Iterator[list[str]]:
    """Record the log from `level` on."""
    logger, records = logging.getLogger("opero"), Records()
    before, propagate = logger.level, logger.propagate
    logger.addHandler(records)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield records.lines
    finally:
        logger.removeHandler(records)
        logger.setLevel(before)
        logger.propagate = propagate


def told(error: BaseException) -> Any:
    """Tell an exception so that two of them can be compared."""
    errors = [told(each) for each in getattr(error, "errors", ())]
    return type(error).__name__, str(error), errors, type(error.__cause__).__name__


class Play:
    """One half's performance of a scenario."""

    def __init__(self, half: hotpath.Core, clock: Any, scenario: dict[str, Any]) -> None:
        self.clock = half.clock
        self.movable = clock
        self.deeds: list[Any] = list(scenario["deeds"])
        self.seen: list[Any] = []
        self.is_async = scenario["is_async"]
        self.spellings = SPELLINGS[scenario["shape"]]
        options = dict(scenario["options"])
        if scenario["shares_limiter"] and "rate_limit" in options:
            options["rate_limit"] = RateLimiter(options["rate_limit"], options.pop("burst", 1))
        plain = SHAPES[scenario["shape"]](self.body)
        if self.is_async:
            signature = inspect.signature(plain)

            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                await asyncio.sleep(0)
                return plain(*args, **kwargs)

            coroutine.__signature__ = signature  # type: ignore[attr-defined]
            function: Any = coroutine
        else:
            function = plain
        function.__qualname__ = "played"
        if scenario["is_method"]:

            class Thing:
                def __repr__(self) -> str:
                    return "<thing>"

            function.__qualname__ = f"{Thing.__qualname__}.played"
            decorated = opero(**options)(self.with_instance(function))
            Thing.played = decorated  # type: ignore[attr-defined]
            decorated.__set_name__(Thing, "played")
            self.thing = Thing()
            self.function = self.thing.played  # type: ignore[attr-defined]
        else:
            self.function = opero(**options)(function)

    def with_instance(self, function: Any) -> Any:
        """Add a first parameter, which is the instance."""
        signature = inspect.signature(function)
        instance = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        method: Any
        if self.is_async:

            async def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
                return await function(*args, **kwargs)

        else:

            def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
                return function(*args, **kwargs)

        parameters = list(signature.parameters.values())
        method.__signature__ = inspect.Signature([instance, *parameters])
        method.__qualname__ = function.__qualname__
        return method

    def body(self, *seen: Any) -> Any:
        """Do the next deeds: let time pass, then return or raise."""
        self.seen.append(seen)
        while self.deeds and isinstance(self.deeds[0], (int, float)):
            self.movable.advance(self.deeds.pop(0))
        deed = self.deeds.pop(0) if self.deeds else "return"
        if deed == "return":
            return f"value {len(self.seen)}"
        raise deed(f"error {len(self.seen)}")

    def spelt(self, x: Any, y: Any, style: int) -> Any:
        """Return the arguments of a call that fits the signature."""
        return self.spellings[style % len(self.spellings)](x, y)

    async def step(self, step: tuple[Any, ...]) -> Any:
        """Do a step and return what came of it."""
        name, *given = step
        try:
            if name == "advance":
                return self.movable.advance(given[0])
            if name == "clear":
                return self.function.cache_clear()
            if name == "together":
                if not self.is_async:
                    return [await self.step(call) for call in given[0]]
                return await asyncio.gather(*[self.step(call) for call in given[0]])
            call = given[0] if name == "invalidate" else step
            args, kwargs = call[1:] if call[0] == "misfit" else self.spelt(*call[1:])
            if name == "invalidate":
                return self.function.cache_invalidate(*args, **kwargs)
            result = self.function(*args, **kwargs)
            return await result if self.is_async else result
        except (Exception, Abort) as error:  # noqa: BLE001 - compared with the other half's
            return told(error)

    def flights(self) -> list[Any]:
        """Return what the stores know of runs that are under way."""
        function = self.function
        if function.__opero__.store is None:
            return []
        return [
            key
            for store in (function.__opero__.store, *function.__opero__.instances.all())
            for key in [*store.flights, *[None] * store.under_way]
        ]

    async def trace(self, steps: list[Any], lines: list[str]) -> list[Any]:
        """Do all steps and return what can be observed after each."""
        found = []
        for step in steps:
            outcome = await self.step(step)
            found.append(
                {
                    "step": step,
                    "outcome": outcome,
                    "seen": list(self.seen),
                    "stats": self.function.stats(),
                    "info": self.function.cache_info(),
                    "lines": list(lines),
                    "waited": round(self.movable.waited, 6),
                    "flights": self.flights(),
                }
            )
        return found


SCENARIOS = st.fixed_dictionaries(
    {
        "options": OPTIONS,
        "deeds": DEEDS,
        "shape": st.sampled_from(list(SHAPES)),
        "is_async": st.booleans(),
        "is_method": st.booleans(),
        "shares_limiter": st.booleans(),
        "level": st.sampled_from([logging.DEBUG, logging.WARNING, logging.ERROR]),
    }
)


def performance(half: hotpath.Core, scenario: dict[str, Any], steps: list[Any]) -> Any:
    """Have `half` play a scenario; return the trace, or the error of the decoration."""
    with played_by(half) as clock, recorded(scenario["level"]) as lines:
        try:
            play = Play(half, clock, scenario)
        except (TypeError, ValueError) as error:
            return told(error)
        return asyncio.run(play.trace(steps, lines))


@settings(max_examples=150)
@given(scenario=SCENARIOS, steps=STEPS)
def test_both_halves_do_the_same_whatever_the_options_and_the_calls(
    core: hotpath.Core, scenario: dict[str, Any], steps: list[Any]
) -> None:
    """Step by step: outcomes, what the function sees, figures, cache, log and waits."""
    mine = performance(core, scenario, steps)
    plain = performance(hotpath.load("plain"), scenario, steps)
    if isinstance(mine, list) and isinstance(plain, list):
        for one, other in zip(mine, plain, strict=True):
            assert one == other
    assert mine == plain


@settings(max_examples=30)
@given(scenario=SCENARIOS, steps=STEPS)
def test_whatever_happens_the_figures_add_up(
    core: hotpath.Core, scenario: dict[str, Any], steps: list[Any]
) -> None:
    """In any scenario, on either half."""
    for half in (core, hotpath.load("plain")):
        trace = performance(half, scenario, steps)
        if not isinstance(trace, list):
            continue
        for moment in trace:
            stats = moment["stats"]
            assert stats.attempts >= len(moment["seen"])
            assert stats.attempts <= stats.calls + stats.retries + stats.fallbacks
            if scenario["options"].get("cache"):
                assert stats.hits + stats.misses <= stats.calls
            maxsize = scenario["options"].get("cache_maxsize", 1024)
            if maxsize is not None:
                assert moment["info"].currsize <= maxsize
            assert not moment["flights"], "nothing is left behind per key"


@settings(max_examples=100)
@given(
    signature=signatures(),
    given_calls=st.lists(calls(), min_size=1, max_size=6),
    is_async=st.booleans(),
    is_method=st.booleans(),
)
def test_a_call_is_a_hit_exactly_when_the_same_call_was_made_before(
    core: hotpath.Core,
    signature: inspect.Signature,
    given_calls: list[Any],
    is_async: bool,
    is_method: bool,
) -> None:
    """For any signature, any spelling and any kind of value, through the calls of both halves."""
    for half in (core, hotpath.load("plain")):
        runs: list[Any] = []
        function = function_of(
            signature, "runs.append({bound}); return len(runs), {bound}", runs=runs
        )
        with played_by(half):
            cached = decorated_like(function, signature, is_async, is_method)

            async def play(cached: Any, runs: list[Any]) -> None:
                known: dict[str, Any] = {}
                for args, kwargs in given_calls:
                    expected = bound_by_python(signature, args, kwargs)
                    before = len(runs)
                    if expected is None:
                        with pytest.raises(TypeError):
                            cached(*args, **kwargs)
                        assert before == len(runs), "a call that does not fit does not begin"
                        continue
                    found = cached(*args, **kwargs)
                    found = await found if is_async else found
                    assert known.setdefault(told_apart(expected), found) is found
                    assert found[1] == expected
                assert len(runs) == len(known)

            asyncio.run(play(cached, runs))


def decorated_like(
    function: Any, signature: inspect.Signature, is_async: bool, is_method: bool
) -> Any:
    """Decorate a function as it is, as a coroutine function, or as a method of an instance."""
    if is_method:
        instance = inspect.Parameter("instance", inspect.Parameter.POSITIONAL_ONLY)
        kinds = [
            parameter.replace(kind=inspect.Parameter.POSITIONAL_ONLY)
            if parameter.kind is parameter.POSITIONAL_ONLY
            else parameter
            for parameter in signature.parameters.values()
        ]
        signature = inspect.Signature([instance, *kinds])

    def method(*args: Any, **kwargs: Any) -> Any:
        return function(*args[is_method:], **kwargs)

    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    target: Any = coroutine if is_async else method
    target.__signature__ = signature
    if not is_method:
        return opero(cache=True, retries=1)(target)

    class Thing:
        pass

    target.__qualname__ = f"{Thing.__qualname__}.method"
    decorated = opero(cache=True, retries=1)(target)
    Thing.method = decorated  # type: ignore[attr-defined]
    decorated.__set_name__(Thing, "method")
    thing = Thing()
    decorated.kept_alive = thing
    return thing.method  # type: ignore[attr-defined]


def test_errors_of_opero_are_the_same_classes_in_both_halves(core: hotpath.Core) -> None:
    """So an `except` clause does not care which half raised."""
    for half in (core, hotpath.load("plain")):
        with played_by(half):
            function = opero(retries=2, min_delay=0)(lambda: 1 / 0)
            with pytest.raises(OperoError):
                function()
