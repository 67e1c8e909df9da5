"""What a function has captured counts like an argument, in the keys of stored values."""

from __future__ import annotations

import asyncio
import functools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import stored_functions as functions
from hypothesis import given
from hypothesis import strategies as st

from opero import CacheKeyError, hotpath, opero
from opero.callables import bare_of, face_of
from opero.captures import Captures

SECRET = "a-secret-for-the-tests-of-captured-variables"


@pytest.fixture
def disk(tmp_path: Path) -> dict[str, Any]:
    """Return options by which all functions share a directory, and a namespace."""
    return {
        "cache": True,
        "cache_backend": "disk",
        "cache_dir": tmp_path / "cache",
        "cache_secret": SECRET,
        "cache_namespace": "shared",
    }


@dataclass(frozen=True)
class Scale:
    """Is called, or has a method that is."""

    factor: Any

    def __call__(self, number: Any) -> Any:
        return [number, self.factor]

    def times(self, number: Any) -> Any:
        """Return what a call returns."""
        return [number, self.factor]

    @classmethod
    def name(cls, number: Any) -> Any:
        """Return which class it is."""
        return [number, cls.__name__]


class Scale2(Scale):
    """Has the methods of another class."""


def pair(number: Any, factor: Any = None) -> Any:
    """Return what the functions of all factories return."""
    return [number, factor]


def closure(factor: Any) -> Any:
    """Make a function that captures its factor."""

    def work(number: Any) -> Any:
        return [number, factor]

    return work


def deep_closure(factor: Any) -> Any:
    """Make one that captures it through a function between."""

    def around() -> Any:
        def work(number: Any) -> Any:
            return [number, factor]

        return work

    return around()


def by_lambda(factor: Any) -> Any:
    """Make a lambda."""
    return lambda number: [number, factor]


def by_default(factor: Any) -> Any:
    """Make a function with a default that no caller sees."""

    def inner(number: Any, factor: Any = factor) -> Any:
        return [number, factor]

    def work(number: Any) -> Any:
        return inner(number)

    return work


def by_keyword_default(factor: Any) -> Any:
    """Make one with a default that is given by keyword only."""

    def inner(number: Any, *, factor: Any = factor) -> Any:
        return [number, factor]

    return lambda number: inner(number)


def below_a_wrapper(factor: Any) -> Any:
    """Make one that looks like another one."""

    def work(number: Any) -> Any:
        return [number, factor]

    @functools.wraps(pair)
    def wrapper(*args: Any) -> Any:
        return work(*args)

    return wrapper


def with_hidden_default(factor: Any) -> Any:
    """Make a wrapper whose own default its signature does not show."""

    @functools.wraps(functions.double)
    def wrapper(number: Any, _factor: Any = factor) -> Any:
        return [number, _factor]

    return wrapper


def generated(factor: Any) -> Any:
    """Make a function of a text, with a global variable of its own."""
    names = {"__name__": __name__, "factor": factor}
    exec("def work(number): return [number, factor]", names)
    return names["work"]


def generated_in_a_file(factor: Any) -> Any:
    """Make one of a text that bears the name of a file, for debuggers."""
    names = {"__name__": __name__, "factor": factor}
    exec(compile("def work(number): return [number, factor]", __file__, "exec"), names)
    return names["work"]


def with_other_globals(factor: Any) -> Any:
    """Make one of the code of another one, with global variables of its own."""

    def work(number: Any) -> Any:
        return [number, pair]

    names = {"__name__": __name__, "pair": factor}
    return FunctionType(work.__code__, names, "work")


def of_methods(factor: Any) -> Any:
    """Make one that captures a bound method."""
    times = Scale(factor).times
    return lambda number: times(number)


def of_partials(factor: Any) -> Any:
    """Make one that captures a partial of a function below another decorator."""
    part = functools.partial(functools.lru_cache(pair), factor=factor)
    return lambda number: part(number)


def recursive(factor: Any) -> Any:
    """Make one that captures itself."""

    @opero
    def work(number: Any) -> Any:
        return work([]) if number is None else [number, factor]

    return work


FACTORIES: list[Callable[[Any], Any]] = [
    closure,
    deep_closure,
    by_lambda,
    by_default,
    by_keyword_default,
    below_a_wrapper,
    with_hidden_default,
    generated,
    generated_in_a_file,
    with_other_globals,
    of_methods,
    of_partials,
    recursive,
    lambda factor: functools.partial(pair, factor=factor),
    lambda factor: functools.partial(closure(factor)),
    lambda factor: functools.lru_cache(closure(factor)),
    lambda factor: opero(retries=2)(closure(factor)),
    Scale,
    lambda factor: Scale(factor).times,
    lambda factor: opero(Scale(factor).times),
]

LIKE = {8: 7, 14: 0, 15: 0, 16: 0, 19: 18}
"""The factories whose functions are those of another one, as no more than their file differs, or
below what adds nothing to them."""

FACTORS: list[Any] = [
    2,
    3,
    2.0,
    True,
    "2",
    None,
    [2],
    (2,),
    {"a": 2},
    Scale(2),
    Scale,
    len,
    math,
    math.sqrt,
    "abc".join,
    functions.double,
    Scale(2).times,
    functools.partial(pair, factor=2),
    (lambda: 2),
    (lambda: 3),
]


def stored_key(core: hotpath.Core, function: Any, *args: Any) -> bytes:
    """Return all that a stored key is made of."""
    canonical = core.Canonical()
    bare = bare_of(function)
    owner = canonical.owner_of(face_of(bare))
    code = Captures(bare).read()
    return canonical.stored_key("n", owner, "", args, (), code).full


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda made: made.__qualname__.split(".")[0])
def test_functions_of_one_factory_have_values_of_their_own(
    disk: dict[str, Any], core: hotpath.Core, factory: Any
) -> None:
    """Over one store and one namespace; and those that have captured the same share theirs."""
    work = [opero(**disk)(factory(factor)) for factor in (2, 3, 2.0, 2)]
    assert repr([each(5) for each in work]) == repr([[5, 2], [5, 3], [5, 2.0], [5, 2]])
    assert [each.stats().hits for each in work] == [0, 0, 0, 1]


@given(
    one=st.tuples(st.integers(0, len(FACTORIES) - 1), st.integers(0, len(FACTORS) - 1)),
    two=st.tuples(st.integers(0, len(FACTORIES) - 1), st.integers(0, len(FACTORS) - 1)),
    number=st.integers(0, 1),
)
def test_random_functions_have_one_key_exactly_if_they_are_made_alike(
    core: hotpath.Core, one: Any, two: Any, number: int
) -> None:
    """Whatever is captured, and by whatever kind of function; compiled and plain."""
    keys = [
        stored_key(half, FACTORIES[kind](FACTORS[factor]), number)
        for half in (core, hotpath.load("plain"))
        for kind, factor in (one, two)
    ]
    kinds = [LIKE.get(kind, kind) for kind, _ in (one, two)]
    assert (keys[0] == keys[1]) == (kinds[0] == kinds[1] and one[1] == two[1])
    assert keys[:2] == keys[2:]


def test_functions_of_one_name_differ_by_their_code(
    disk: dict[str, Any], core: hotpath.Core
) -> None:
    """Of two branches, in two lambdas on one line, and in texts that were compiled."""

    def branch(first: bool) -> Any:
        if first:

            def work(number: int) -> int:
                return number + 1
        else:

            def work(number: int) -> int:
                return number + 2

        return work

    def text(summand: int) -> Any:
        names: dict[str, Any] = {"__name__": __name__}
        exec(f"def work(number): return number + {summand}", names)
        return names["work"]

    lambdas = [lambda number: number + 1, lambda number: number + 2]
    for one, two in ((branch(True), branch(False)), (text(1), text(2)), lambdas):
        assert opero(**disk)(one)(1) == 2
        assert opero(**disk)(two)(1) == 3


def test_a_class_method_belongs_to_its_class(disk: dict[str, Any], core: hotpath.Core) -> None:
    """That of a subclass is another function."""
    assert opero(**disk)(Scale.name)(1) == [1, "Scale"]
    assert opero(**disk)(Scale2.name)(1) == [1, "Scale2"]


def test_a_variable_that_changes_makes_other_keys(disk: dict[str, Any], core: hotpath.Core) -> None:
    """It is read when a key is made; what was stored before is found when it has changed back."""
    factor = 1
    seen: list[int] = []

    @opero(**disk)
    def work(number: int) -> int:
        return number * factor + len(seen)

    assert work(1) == 1
    factor = 2
    assert work(1) == 2
    seen.append(0)
    assert work(1) == 3
    seen.clear()
    factor = 1
    assert work(1) == 1
    assert work.stats().hits == 1
    assert work.cache_invalidate(1)
    assert not work.cache_invalidate(1)


def test_functions_that_capture_each_other_have_keys(
    disk: dict[str, Any], core: hotpath.Core
) -> None:
    """Also while one of them is not there yet."""

    def make(start: bool) -> Any:
        @opero(**disk)
        def is_even(number: int) -> bool:
            return start if number == 0 else is_odd(number - 1)

        before = stored_key(core, is_even, 0)

        @opero(**disk)
        def is_odd(number: int) -> bool:
            return (not start) if number == 0 else is_even(number - 1)

        assert stored_key(core, is_even, 0) != before
        return is_even

    assert make(True)(4) is True
    assert make(False)(4) is False
    assert make(True)(3) is False


def test_coroutine_functions_are_told_apart_too(disk: dict[str, Any], core: hotpath.Core) -> None:
    """By the same keys."""

    def make(factor: int) -> Any:
        @opero(**disk)
        async def work(number: int) -> int:
            return number * factor

        return work

    assert asyncio.run(make(2)(5)) == 10
    assert asyncio.run(make(3)(5)) == 15


class Local:
    """Has no content that counts."""


@pytest.mark.parametrize(
    ("captured", "told"),
    [
        (threading.Lock(), "_thread.lock"),
        (Local(), "Local"),
        (open, None),
        ([{"a": object()}], "object"),
        (closure(iter([])), "list_iterator"),
        (functools.partial(pair, factor=threading.Event()), "Event"),
    ],
)
def test_what_has_no_key_is_refused_by_the_name_of_the_variable(
    disk: dict[str, Any], core: hotpath.Core, captured: Any, told: str | None
) -> None:
    """At the call; a namespace is no way out, `cache_key` is."""
    work = opero(**disk)(lambda number: [number, str(captured)])
    if told is None:
        assert work(1) == work(1)
        assert work.stats().hits == 1
        return
    with pytest.raises(CacheKeyError, match=rf"captured variable 'captured'.*{told}.*cache_key="):
        work(1)
    given = opero(**disk, cache_key=lambda number: number)(lambda number: [number, str(captured)])
    assert given(1) == given(1)
    assert given.stats().hits == 1


def test_a_class_from_inside_a_function_is_refused(
    disk: dict[str, Any], core: hotpath.Core
) -> None:
    """There may be many of its name."""

    class Inside:
        pass

    with pytest.raises(CacheKeyError, match=r"captured variable 'Inside'.*not found"):
        opero(**disk)(lambda number: [number, Inside])(1)


def test_a_lock_below_a_wrapper_is_refused_by_its_place(
    disk: dict[str, Any], core: hotpath.Core
) -> None:
    """The message names each variable on the way."""
    with pytest.raises(CacheKeyError, match="captured variable 'work' of which 'factor'"):
        opero(**disk)(below_a_wrapper(threading.Lock()))(1)


def test_a_method_of_a_local_class_that_uses_super_counts_its_class(core: hotpath.Core) -> None:
    """That of a module's class does not, as its name tells it."""

    class Inside(Scale):
        def times(self, number: Any) -> Any:
            return super().times(number)

    with pytest.raises(CacheKeyError, match="captured variable '__class__'"):
        stored_key(core, Inside.times, 1)
    assert stored_key(core, Super.times, 1) == stored_key(core, Super.times, 1)


class Super(Scale):
    """Has a method whose code has a cell for its class."""

    def times(self, number: Any) -> Any:
        """Call that of the base class."""
        return super().times(number)


def test_a_function_of_a_module_has_the_key_that_its_name_makes(core: hotpath.Core) -> None:
    """Nothing is added to it: neither its code nor its defaults."""
    canonical = core.Canonical()
    for function in (pair, functions.double, len, Scale.times, Super.times):
        owner = canonical.owner_of(function)
        assert stored_key(core, function, 1) == canonical.stored_key("n", owner, "", (1,)).full
