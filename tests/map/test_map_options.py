"""The options of `opmap`, and the functions that it takes: what is wrong fails at decoration."""

from __future__ import annotations

import asyncio
import functools
import inspect
import operator
import os
import pickle
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

import opero as package
from opero import (
    CacheConfig,
    Progress,
    RateLimitConfig,
    RateLimiter,
    RetryConfig,
    hotpath,
    opero,
    operomap,
    opmap,
)
from opero.functions import Mapped
from opero.map.mapped import MappedFunction
from opero.map.options import map_options

NAN, INF = float("nan"), float("inf")
QUIET: dict[str, Any] = {"mode": "thread", "workers": 2, "progress": False}


def double(item: Any, plus: Any = 0) -> Any:
    return 2 * item + plus


async def adouble(item: Any, plus: Any = 0) -> Any:
    return 2 * item + plus


FUNCTIONS = {"thread": double, "process": double, "async": adouble, "async_process": adouble}

MODES = "one of 'thread', 'process', 'async', 'async_process'"
PROGRESS = "True, False, 'log' or an ordinary function that takes a Progress"
WRONG: list[tuple[str, Any, type[Exception], str]] = [
    ("mode", "threads", ValueError, MODES),
    ("mode", "Thread", ValueError, MODES),
    ("mode", b"thread", ValueError, MODES),
    ("mode", None, ValueError, MODES),
    ("mode", 8, ValueError, MODES),
    ("mode", ["thread"], ValueError, MODES),
    ("workers", "4", TypeError, "a whole number"),
    ("workers", 4.0, TypeError, "a whole number"),
    ("workers", True, TypeError, "a whole number"),
    ("workers", NAN, TypeError, "a whole number"),
    ("workers", 0, ValueError, "1 or more"),
    ("workers", -1, ValueError, "1 or more"),
    ("workers", 1_000_001, ValueError, "at most 1000000"),
    ("workers", 10**30, ValueError, "a whole number up to"),
    ("ordered", 1, TypeError, "True or False"),
    ("ordered", None, TypeError, "True or False"),
    ("ordered", "yes", TypeError, "True or False"),
    ("progress", None, TypeError, PROGRESS),
    ("progress", 1, TypeError, PROGRESS),
    ("progress", "tqdm", TypeError, PROGRESS),
    ("progress", adouble, TypeError, PROGRESS),
    ("chunk_size", "4", TypeError, "a whole number"),
    ("chunk_size", 4.0, TypeError, "a whole number"),
    ("chunk_size", True, TypeError, "a whole number"),
    ("chunk_size", 0, ValueError, "1 or more"),
    ("chunk_size", -5, ValueError, "1 or more"),
    ("chunk_size", 10**30, ValueError, "a whole number up to"),
    ("rate_limit_scope", "all", ValueError, "one of 'worker', 'total'"),
    ("rate_limit_scope", None, ValueError, "one of 'worker', 'total'"),
    ("rate_limit_scope", True, ValueError, "one of 'worker', 'total'"),
    ("attempt_timeout", "5", TypeError, "a number"),
    ("attempt_timeout", True, TypeError, "a number"),
    ("attempt_timeout", [5], TypeError, "a number"),
    ("attempt_timeout", 0, ValueError, "above 0"),
    ("attempt_timeout", -1, ValueError, "above 0"),
    ("attempt_timeout", NAN, ValueError, "a finite number"),
    ("attempt_timeout", INF, ValueError, "a finite number"),
    ("attempt_timeout", 1e10, ValueError, "up to 1e9"),
    ("start_method", "clone", ValueError, "one of 'f"),
    ("start_method", True, ValueError, "one of 'f"),
    ("start_method", "", ValueError, "one of 'f"),
    ("executor", 4, TypeError, "a concurrent.futures.Executor"),
    ("executor", "dask", TypeError, "a concurrent.futures.Executor"),
    ("executor", ThreadPoolExecutor, TypeError, "a concurrent.futures.Executor"),
    ("on_error", "ignore", ValueError, "one of 'return', 'raise'"),
    ("on_error", None, ValueError, "one of 'return', 'raise'"),
    ("on_error", ValueError, ValueError, "one of 'return', 'raise'"),
    ("loop", "trio", ValueError, "one of 'auto', 'uvloop', 'asyncio'"),
    ("loop", None, ValueError, "one of 'auto', 'uvloop', 'asyncio'"),
    ("retries", -1, ValueError, "0 or more"),
    ("retries", "3", TypeError, "a whole number"),
    ("backoff_factor", 0.5, ValueError, "a number from 1"),
    ("min_delay", -1, ValueError, "a number of seconds from 0"),
    ("max_delay", INF, ValueError, "a finite number"),
    ("retry_on", "ValueError", TypeError, "an exception type, a tuple of them"),
    ("arg_fallback", ["key"], TypeError, "a parameter's name, or a dict"),
    ("cache", 1, TypeError, "True, False or a CacheConfig"),
    ("cache_ttl", 0, ValueError, "above 0"),
    ("cache_key", adouble, TypeError, "an ordinary function"),
    ("cache_namespace", "", ValueError, "at least one character"),
    ("cache_maxsize", 0, ValueError, "1 or more entries"),
    ("rate_limit", 0, ValueError, "permits per second"),
    ("rate_limit", "5", TypeError, "a number"),
    ("burst", 0, ValueError, "1 permit or more"),
    ("timeout", 0, ValueError, "above 0"),
    ("jitter", 1, TypeError, "True or False"),
    ("retry", 3, TypeError, "a RetryConfig"),
]


def names(entry: Any) -> str:
    """Name a test by its option and value."""
    if callable(entry):
        return str(entry.__name__)
    return entry if isinstance(entry, str) else repr(entry)[:20]


# --- workers and their rate -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", FUNCTIONS)
def test_no_number_of_workers_means_the_cpus(core: hotpath.Core, mode: str) -> None:
    """These are the CPUs that this process may use."""
    mapped = opmap(mode=mode, workers=None, progress=False)(FUNCTIONS[mode])
    plan = map_options({"mode": mode, "workers": None})
    cpus = getattr(os, "process_cpu_count", lambda: len(os.sched_getaffinity(0)))()
    assert plan.workers == cpus
    assert mapped(range(5)) == [0, 2, 4, 6, 8]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no system call binds a process")
@pytest.mark.once
def test_a_process_that_is_bound_to_one_cpu_has_one_worker() -> None:
    """The machine may have more CPUs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert map_options({"workers": None}).workers == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rate_limit": 20}, "^rate_limit=20 applies to each of 4 workers, 80 per second in all:"),
        ({"rate_limit": 20, "workers": 3}, "each of 3 workers, 60 per second in all"),
        ({"rate_limit": 0.5, "mode": "async"}, "each of 4 workers, 2 per second in all"),
        ({"rate_limit": RateLimitConfig(5), "mode": "thread"}, "workers, 20 per second in all"),
        ({"rate_limit": 5}, "scope='worker' if you want that, .*='total' for 5 per second in all"),
    ],
    ids=str,
)
@pytest.mark.once
def test_a_rate_for_each_worker_warns_unless_it_is_asked_for(
    options: dict[str, Any], words: str
) -> None:
    """The warning states both totals, and where the map is decorated."""
    with pytest.warns(UserWarning, match=words) as caught:
        opmap(**options)
    assert [each.filename for each in caught] == [__file__]


@pytest.mark.parametrize(
    "options",
    [
        {"rate_limit": 20, "rate_limit_scope": "worker"},
        {"rate_limit": 20, "rate_limit_scope": "total"},
        {"rate_limit": 20, "workers": 1},
        {"rate_limit": RateLimitConfig(None)},
        {},
    ],
    ids=str,
)
@pytest.mark.once
def test_who_says_what_the_rate_counts_for_is_not_warned(options: dict[str, Any]) -> None:
    """One worker, no rate, or a limiter that all share need no warning either."""
    assert opmap(**options)
    assert opmap(**{**options, "rate_limit": RateLimiter(5)})


@pytest.mark.once
def test_an_executors_workers_are_warned_of_without_a_number() -> None:
    """Their number is not known yet."""
    with pytest.warns(UserWarning, match="^rate_limit=5 applies to each of the executor's workers"):
        opmap(executor=Nowhere(), workers=None, rate_limit=5)


# --- wrong values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "value", "kind", "allowed"), WRONG, ids=names)
@pytest.mark.once
def test_a_wrong_value_fails_before_there_is_a_function(
    option: str, value: Any, kind: type[Exception], allowed: str
) -> None:
    """The error names the option, the value and what is allowed."""
    pattern = rf"^{option}={re.escape(repr(value))} is not allowed: use "
    with pytest.raises(kind, match=pattern + ".*" + re.escape(allowed)) as caught:
        opmap(**{option: value})
    assert kind is type(caught.value)


@pytest.mark.once
def test_a_client_of_dask_is_no_executor_but_has_one() -> None:
    """The error says where the executor is."""

    class Client:
        def submit(self, function: Any, *args: Any) -> Any: ...

        def get_executor(self) -> Any: ...

    with pytest.raises(
        TypeError, match=r"Executor, such as the one that its get_executor\(\) returns$"
    ):
        opmap(executor=Client())


class Nowhere(Executor):
    """An executor that runs nothing."""

    def __repr__(self) -> str:
        return "nowhere"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "thread", "attempt_timeout": 1}, "^attempt_timeout=1: .* use mode='process'"),
        ({"executor": Nowhere(), "attempt_timeout": 1}, "^attempt_timeout=1: .* executor"),
        ({"mode": "thread", "start_method": "spawn"}, "^start_method='spawn': only mode='process'"),
        ({"mode": "async", "start_method": "spawn"}, "^start_method='spawn': only mode='process'"),
        ({"executor": Nowhere(), "start_method": "spawn"}, "^start_method='spawn': the executor"),
        (
            {"mode": "async", "executor": Nowhere()},
            "^executor=nowhere is not allowed with mode='async'",
        ),
        ({"mode": "async_process", "executor": Nowhere()}, "not allowed with mode='async_process'"),
        ({"mode": "thread", "loop": "asyncio"}, "^loop='asyncio': only mode='async' and"),
        ({"mode": "process", "loop": "asyncio"}, "^loop='asyncio': only mode='async' and"),
        ({"executor": Nowhere(), "loop": "asyncio"}, "^loop='asyncio': only mode='async' and"),
        (
            {"cache": CacheConfig(True), "cache_ttl": 5},
            "^cache_ttl=5 is not allowed together with cache=CacheConfig",
        ),
        (
            {"cache": CacheConfig(True), "cache_namespace": "x"},
            "^cache_namespace='x' is not allowed together with",
        ),
        (
            {"retry": RetryConfig(2), "retries": 5},
            "^retries=5 is not allowed together with retry=RetryConfig",
        ),
        (
            {"rate_limit": RateLimiter(5), "burst": 2},
            "^burst=2 is not allowed together with rate_limit=RateLimiter",
        ),
        (
            {"rate_limit": RateLimitConfig(5), "burst": 2},
            "^burst=2 is not allowed together with rate_limit=",
        ),
        ({"cache_dir": "x"}, "^cache_dir='x' has no effect without cache=True and cache_back"),
        ({"cache": True, "cache_dir": "x"}, "^cache_dir='x' is not read by cache_backend='mem"),
        ({"rate_limit_scope": "total"}, "^rate_limit_scope='total' has no effect without rate_"),
        ({"burst": 3}, "^burst=3 has no effect without rate_limit="),
        ({"fallback_on": OSError}, "^fallback_on=.* has no effect without arg_fallback="),
        ({"chunk_size": 4, "timeout": 5}, "^chunk_size=4 has no effect with timeout=, which"),
        (
            {"chunk_size": 4, "rate_limit": RateLimiter(5)},
            "^chunk_size=4 has no effect with rate",
        ),
        (
            {"chunk_size": 2, "rate_limit": RateLimitConfig(5), "rate_limit_scope": "total"},
            "^chunk_size=2 has no effect with rate_limit=",
        ),
    ],
    ids=lambda entry: " ".join(map(str, entry)) if isinstance(entry, dict) else "",
)
@pytest.mark.once
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], words: str) -> None:
    """Every option must have an effect."""
    with pytest.raises(ValueError, match=words):
        opmap(**options)


@pytest.mark.once
def test_uvloop_is_refused_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoration fails, not the map; "auto" works without uvloop."""
    monkeypatch.setattr("opero.map.options.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^loop='uvloop': uvloop is not installed; use 'auto'"):
        opmap(mode="async", loop="uvloop")
    assert opmap(mode="async")(adouble).__opero__.plan.loop == "auto"


# --- misspelt options -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("worker", "workers"),
        ("max_workers", "workers"),
        ("num_workers", "workers"),
        ("modes", "mode"),
        ("order", "ordered"),
        ("progres", "progress"),
        ("progress_bar", "progress"),
        ("chunksize", "chunk_size"),
        ("chunk", "chunk_size"),
        ("ratelimit_scope", "rate_limit_scope"),
        ("rate_scope", "rate_limit_scope"),
        ("attempts_timeout", "attempt_timeout"),
        ("startmethod", "start_method"),
        ("executer", "executor"),
        ("onerror", "on_error"),
        ("on_errors", "on_error"),
        ("loops", "loop"),
        ("retris", "retries"),
        ("cache_tll", "cache_ttl"),
        ("ratelimit", "rate_limit"),
        ("time_out", "timeout"),
        ("cache_directory", "cache_dir"),
    ],
)
@pytest.mark.once
def test_a_misspelt_option_names_its_nearest_neighbour(option: str, meant: str) -> None:
    """The suggestions include the options of `opmap`, not only those of `opero`."""
    pattern = rf"^opmap\(\) has no option '{option}'; did you mean '{meant}'\?$"
    with pytest.raises(TypeError, match=pattern):
        opmap(**{option: 1})


@pytest.mark.once
def test_an_option_that_resembles_nothing_is_answered_with_all_there_are() -> None:
    """The error lists the options of the map and of each item."""
    with pytest.raises(TypeError, match=r"^opmap\(\) has no option 'zzz'; it has ") as caught:
        opmap(zzz=1)
    told = set(str(caught.value).partition("it has ")[2].split(", "))
    assert told >= set(inspect.signature(opmap).parameters) - {"kwargs"}


# --- what is accepted -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "thread", "workers": 1},
        {"mode": "thread", "ordered": False},
        {"mode": "thread", "chunk_size": 1},
        {"mode": "thread", "chunk_size": 1, "timeout": 60},
        {"mode": "thread", "chunk_size": 4, "rate_limit": RateLimitConfig(None)},
        {"mode": "thread", "chunk_size": 10**9},
        {"mode": "thread", "on_error": "raise"},
        {"mode": "thread", "rate_limit_scope": "worker"},
        {"mode": "thread", "rate_limit": None, "rate_limit_scope": "worker"},
        {"mode": "thread", "rate_limit": 1e9, "rate_limit_scope": "total"},
        {"mode": "thread", "rate_limit": RateLimiter, "rate_limit_scope": "total"},
        {
            "mode": "thread",
            "rate_limit": RateLimitConfig(1e9, burst=5),
            "rate_limit_scope": "worker",
        },
        {"mode": "thread", "retry": RetryConfig(2)},
        {"mode": "thread", "cache": CacheConfig(True)},
        {"mode": "thread", "cache": CacheConfig(True, namespace="x", ttl=5)},
        {"mode": "thread", "cache": True, "cache_maxsize": None},
        {"mode": "thread", "progress": list},
        {"mode": "thread", "timeout": 60},
        {"mode": "async", "chunk_size": 5},
        {"mode": "async", "attempt_timeout": Decimal(60)},
        {"mode": "async", "loop": "asyncio"},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_an_allowed_value_is_accepted(core: hotpath.Core, options: dict[str, Any]) -> None:
    """Options of a disabled mechanism are allowed, so one argument can switch it."""
    if options.get("rate_limit") is RateLimiter:  # one that goes by the clock of this half
        options = {**options, "rate_limit": RateLimiter(1e9)}
    mapped = opmap(**{"progress": False, **options})(FUNCTIONS[options["mode"]])
    assert sorted(mapped([1, 2, 3])) == [2, 4, 6]


def test_numbers_of_numpy_are_numbers(core: hotpath.Core) -> None:
    """The plan contains Python's own numbers."""
    numpy = pytest.importorskip("numpy")
    mapped = opmap(
        mode="async",
        progress=False,
        workers=numpy.int64(2),
        chunk_size=numpy.uint8(3),
        attempt_timeout=numpy.float32(60),
    )(adouble)
    assert mapped([1, 2]) == [2, 4]
    plan = mapped.__opero__.plan
    found = [type(value) for value in (plan.workers, plan.chunk_size, plan.attempt_timeout)]
    assert found == [int, int, float]
    for option in ("workers", "chunk_size"):
        for value in (numpy.True_, numpy.array([4, 5]), numpy.float64(4)):
            with pytest.raises(TypeError, match=rf"^{option}=.* use a whole number"):
                opmap(**{option: value})


def test_the_reference_gives_the_order_of_what_may_be_given_by_position(
    core: hotpath.Core,
) -> None:
    """`opmap(mode, workers, ordered, progress, retries, ...)`."""
    mapped = opmap("thread", 3, False, False, 7)(double)
    plan = mapped.__opero__.plan
    assert (plan.mode, plan.workers, plan.ordered, plan.progress) == ("thread", 3, False, False)
    assert mapped.__opero__.call.policy.rounds == 7


def test_a_cache_config_keeps_its_own_namespace(core: hotpath.Core) -> None:
    """The default of `cache_namespace=` does not override it."""
    mapped = opmap(cache=CacheConfig(True, namespace="of the config"), **QUIET)(double)
    other = opmap(cache=True, **QUIET)(double)
    assert mapped([1]) == other([1]) == [2]
    package.clear_cache("of the config")
    assert (mapped.cache_info().currsize, other.cache_info().currsize) == (0, 1)
    package.clear_cache("opero_opmap_item")
    assert other.cache_info().currsize == 0


# --- what is decorated ----------------------------------------------------------------------------


class Caller:
    """A class whose instances are called as functions."""

    def __call__(self, item: int) -> int:
        return -item


class AsyncCaller:
    """A class whose instances are called as coroutine functions."""

    async def __call__(self, item: int) -> int:
        return -item


class Shop:
    """A class with methods and static methods."""

    def __init__(self, price: int = 1) -> None:
        self.price = price

    def total(self, count: int) -> int:
        return self.price * count

    def worth(self) -> int:
        return self.price

    @staticmethod
    @opmap(**QUIET)
    def inside(item: int, plus: int = 0) -> int:
        return -item + plus

    @opmap(**QUIET)
    @staticmethod
    def outside(item: int, plus: int = 0) -> int:
        return -item + plus


THINGS: list[tuple[str, Any, list[Any], list[Any]]] = [
    ("a lambda", lambda item: -item, [1, 2], [-1, -2]),
    ("a partial", functools.partial(double, plus=3), [1, 2], [5, 7]),
    ("a partial by position", functools.partial(operator.sub, 10), [1, 2], [9, 8]),
    ("a builtin", len, ["a", "bb"], [1, 2]),
    ("a builtin without a signature", dict.fromkeys, [[1], [2]], [{1: None}, {2: None}]),
    ("a method of a builtin type", str.upper, ["a", "b"], ["A", "B"]),
    ("a bound method of a builtin", "a,b".split, [","], [["a", "b"]]),
    ("a bound method", Shop(3).total, [1, 2], [3, 6]),
    ("a method of its class", Shop.worth, [Shop(4), Shop(5)], [4, 5]),
    ("an object", Caller(), [1, 2], [-1, -2]),
    ("an item getter", operator.itemgetter(0), [[1], [2]], [1, 2]),
    ("any number of arguments", lambda *items: sum(items), [1, 2], [1, 2]),
    ("a default", lambda item=5: item, [1], [1]),
]


@pytest.mark.parametrize("mode", ["thread", "process"])
@pytest.mark.parametrize(
    ("function", "items", "results"), [thing[1:] for thing in THINGS], ids=[t[0] for t in THINGS]
)
def test_whatever_takes_an_item_can_be_mapped(
    core: hotpath.Core, mode: str, function: Any, items: list[Any], results: list[Any]
) -> None:
    """Functions can be mapped, and so can other callables."""
    mapped = opmap(mode=mode, workers=1, progress=False)(function)
    assert mapped(items) == results
    assert mapped.__name__
    assert mapped.__wrapped__ is function or mapped.__wrapped__ == function


@pytest.mark.parametrize(
    "function", [functools.partial(adouble, plus=3), AsyncCaller()], ids=["partial", "object"]
)
def test_a_coroutine_function_is_known_in_any_shape(core: hotpath.Core, function: Any) -> None:
    """Its results are values, not coroutines, and other modes refuse it."""
    expected = [5, 7] if isinstance(function, functools.partial) else [-1, -2]
    assert opmap(mode="async", progress=False)(function)([1, 2]) == expected
    with pytest.raises(ValueError, match=r"is a coroutine function; use mode='async'$"):
        opmap(mode="thread")(function)
    with pytest.raises(ValueError, match=r"is a coroutine function; use mode='async_process'$"):
        opmap(function)


def generator(item: int) -> Iterator[int]:
    yield item


async def async_generator(item: int) -> Any:
    yield item


class Mapping:
    """A class, which is not a function."""


NO_FUNCTIONS: list[tuple[str, Any, str]] = [
    (
        "a generator function",
        generator,
        r"but generator is a generator function: .*: return list\(generator\(\.\.\.\)\)$",
    ),
    (
        "an async generator function",
        async_generator,
        "but async_generator is a generator function: map a function that returns a list",
    ),
    ("a class", Mapping, "opero decorates functions, but Mapping is a class: decorate its methods"),
    ("a builtin class", int, "but int is a class: .*: lambda x: int\\(x\\)"),
    ("a property", property(double), "put it below @property, not above"),
    ("a map", opmap(**QUIET)(double), "maps functions of one item, but .* is already a map: "),
    (
        "no parameter",
        lambda: 1,
        r"passes the item by position, .*\(\) takes no positional argument",
    ),
    (
        "none by position",
        lambda *, item: 1,
        r"position, but .*\(\*, item\) takes no positional argument: ",
    ),
    (
        "two by position",
        lambda a, b, /: 1,
        r"item by keyword, .*\(a, b, /\) takes 'b' by position only",
    ),
]


@pytest.mark.parametrize("bare", [True, False], ids=["bare", "with options"])
@pytest.mark.parametrize(
    ("thing", "words"), [row[1:] for row in NO_FUNCTIONS], ids=[row[0] for row in NO_FUNCTIONS]
)
@pytest.mark.once
def test_what_takes_no_item_is_refused_at_decoration(bare: bool, thing: Any, words: str) -> None:
    """The decorator may have parentheses or not."""
    with pytest.raises(TypeError, match=words):
        opmap(thing) if bare else opmap(mode="thread", workers=2)(thing)


@pytest.mark.parametrize("thing", [None, 5, "thread", []], ids=repr)
@pytest.mark.once
def test_what_cannot_be_called_is_refused(thing: Any) -> None:
    """The error shows the value."""
    with pytest.raises(TypeError, match=re.escape(f"opero decorates functions, not {thing!r}")):
        opmap(mode="thread")(thing)


@pytest.mark.parametrize("owner", [Shop, Shop()], ids=["class", "instance"])
@pytest.mark.parametrize("name", ["inside", "outside"])
@pytest.mark.once
def test_a_static_method_is_mapped_in_both_orders_of_the_decorators(owner: Any, name: str) -> None:
    """It works on the class and on an instance."""
    mapped = getattr(owner, name)
    assert mapped([1, 2], plus=3) == [2, 1]
    assert list(mapped.stream([1])) == [-1]
    assert mapped.cache_info().hits == 0


@pytest.mark.once
def test_a_static_method_can_be_given_without_parentheses() -> None:
    """The decorator gets the object that `@staticmethod` makes."""
    made = opmap(staticmethod(double))
    assert isinstance(made, staticmethod)
    assert made.__func__.__opero__.plan.mode == "process"


@pytest.mark.once
def test_the_decorator_works_without_parentheses() -> None:
    """It does the same as `@opmap()`."""
    bare, called = opmap(double), opmap()(double)
    assert type(bare) is MappedFunction
    assert bare.__opero__.plan == called.__opero__.plan
    assert bare.__opero__.plan.mode == "process"
    assert opmap(double, workers=2, ordered=False).__opero__.plan.workers == 2
    assert operomap is opmap


@pytest.mark.once
def test_a_fallback_parameter_that_is_not_there_is_refused_at_decoration() -> None:
    """`opero` does the same."""
    with pytest.raises(ValueError, match=r"^arg_fallback='key': double has no parameter of that"):
        opmap(mode="thread", arg_fallback="key")(double)


# --- together with opero --------------------------------------------------------------------------

calls: list[int] = []


@opmap(mode="process", workers=1, progress=False)
@opero(retries=2, min_delay=0, max_delay=0)
def below_process(item: int) -> int:
    calls.append(item)
    if calls.count(item) < 2:
        raise ValueError(item)
    return -item


@opmap(mode="async_process", workers=1, progress=False)
@opero(cache=True)
async def below_async_process(item: int) -> int:
    return -item


@pytest.mark.once
def test_a_resilient_function_can_be_mapped_in_processes() -> None:
    """It travels by name, and opero's part runs in the worker."""
    assert below_process([1, 2, 3]) == [-1, -2, -3]
    assert below_process.stats().retries == 0
    assert below_async_process([1, 2, 1]) == [-1, -2, -1]


@pytest.mark.parametrize("mode", ["thread", "async"])
def test_a_resilient_function_can_be_mapped_and_keeps_what_it_has(
    core: hotpath.Core, mode: str
) -> None:
    """Single calls and maps share one cache."""
    made: list[int] = []

    def work(item: int) -> int:
        made.append(item)
        return -item

    async def awork(item: int) -> int:
        return work(item)

    one = opero(cache=True)(work if mode == "thread" else awork)
    many = opmap(mode=mode, workers=1, progress=False)(one)
    assert many([1, 2, 1]) == [-1, -2, -1]
    assert made == [1, 2]
    assert (asyncio.run(one(2)) if mode == "async" else one(2)) == -2
    assert (made, one.stats().hits, many.stats().calls) == ([1, 2], 2, 3)


def test_a_map_can_be_made_resilient_as_a_whole(core: hotpath.Core) -> None:
    """`@opero` above the map sees one call with one list."""
    whole = opero(cache=True)(opmap(**QUIET)(double))
    assert whole([1, 2]) == whole([1, 2]) == [2, 4]
    assert (whole.stats().hits, whole.stats().calls) == (1, 2)


# --- calls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f: f(), "is missing the items"),
        (lambda f: f(items=[1]), "is missing the items"),
        (lambda f: f([1], 5), r"takes only the items by position, .* write double\(items, plus=5\)$"),
        (lambda f: f([1], minus=5), "unexpected keyword argument 'minus'"),
        (lambda f: f([1], item=5), "multiple values for argument 'item'"),
        (lambda f: f(None), "not iterable"),
        (lambda f: f.stream(5), "not iterable"),
        (lambda f: f.stream([1], minus=5), "unexpected keyword argument 'minus'"),
        (lambda f: f.amap([1], minus=5), "unexpected keyword argument 'minus'"),
        (lambda f: f.astream([1], minus=5), "unexpected keyword argument 'minus'"),
        (lambda f: f.cache_invalidate(1, minus=5), "unexpected keyword argument 'minus'"),
    ],
    ids=[
        "nothing", "items by keyword", "shared by position", "no such parameter", "item twice",
        "None", "stream of no iterable", "stream", "amap", "astream", "cache_invalidate",
    ],
)  # fmt: skip
def test_a_call_that_does_not_fit_fails_before_any_attempt(
    core: hotpath.Core, call: Callable[[Any], Any], words: str
) -> None:
    """It fails immediately, even if the results come later."""
    mapped = opmap(cache=True, **QUIET)(double)
    with pytest.raises(TypeError, match=words):
        call(mapped)
    assert mapped.stats().attempts == 0


@pytest.mark.parametrize("name", ["items", "self", "shared", "function", "args", "call"])
def test_shared_arguments_may_have_any_name(core: hotpath.Core, name: str) -> None:
    """That includes names that opero uses inside."""
    mapped = opmap(**QUIET)(lambda x, **named: (x, named))
    assert mapped([1], **{name: 5}) == [(1, {name: 5})]
    assert list(mapped.stream([1], **{name: 5})) == [(1, {name: 5})]
    assert asyncio.run(mapped.amap([1], **{name: 5})) == [(1, {name: 5})]


# --- what a checker is told -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "remedy"),
    [
        ("tea", r"list\(value\) to map over its characters$"),
        ("", r"list\(value\) to map over its characters$"),
        (b"tea", r"list\(value\) to map over its numbers$"),
        (bytearray(b"tea"), r"list\(value\) to map over its numbers$"),
    ],
)
@pytest.mark.once
def test_a_text_is_one_value_and_not_many(items: Any, remedy: str) -> None:
    """With a missing pair of brackets, a map would run over its characters."""
    mapped = opmap(**QUIET)(len)
    for form in (mapped, mapped.stream, mapped.amap, mapped.astream):
        with pytest.raises(
            TypeError, match=rf"^len\(\): the items are a .*, a single value: .*{remedy}"
        ):
            form(items)
    assert mapped([items]) == [len(items)]
    assert opmap(**QUIET)(ord)(list("ab")) == [97, 98]
    assert mapped({"a": 1, "bc": 2}) == [1, 2]  # the keys


def several(item: int, factor: int, name: str = "", *, last: int = 0) -> int:
    return item


@pytest.mark.parametrize(
    ("function", "more", "remedy"),
    [
        (several, (2,), r"write several\(items, factor=2\)$"),
        (several, (2.5, "secret"), r"write several\(items, factor=2\.5, name=\.\.\.\)$"),
        (several, ([2],), r"factor=\.\.\.\); for several arguments per item, .* unpack=True$"),
        (several, (1, 2, 3), r"pass what all items share by keyword$"),
        (lambda item, /, plus: 1, (None,), r"write .*<lambda>\(items, plus=None\)$"),
        (len, ([2],), r"by keyword; for several .* write len\(zip\(a, b\)\) with unpack=True$"),
        (lambda *items: 1, (True,), r"pass what all items share by keyword$"),
        (dict.fromkeys, (True,), r"pass what all items share by keyword$"),
    ],
)
@pytest.mark.once
def test_what_is_given_by_position_is_told_how_to_go(
    function: Any, more: tuple[Any, ...], remedy: str
) -> None:
    """The error suggests the keyword, and shows no values."""
    mapped = opmap(**QUIET)(function)
    words = rf"takes only the items by position, but got {1 + len(more)} arguments: .*{remedy}"
    with pytest.raises(TypeError, match=words):
        mapped([1], *more)
    with pytest.raises(TypeError, match=r"\.stream\(\) takes only the items by position"):
        mapped.stream([1], *more)


def takes_workers(item: int, workers: int = 0) -> int:
    return item + workers


@pytest.mark.once
@pytest.mark.parametrize("unpack", [False, True])
@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"total": 3}, "total=3"),
        ({"progress": "log"}, r"progress=\.\.\."),
        ({"mode": print}, "mode="),
    ],
)
def test_an_option_in_a_call_belongs_to_the_decorator(
    unpack: bool, given: dict[str, Any], shown: str
) -> None:
    """The function has no such parameter."""
    mapped = opmap(**QUIET, unpack=unpack)(takes_workers)
    for form in (mapped, mapped.stream, mapped.amap, mapped.astream):
        words = rf"unexpected keyword argument '\w+': \w+ is an option of .*: opmap\({shown}"
        with pytest.raises(TypeError, match=words):
            form([[1]] if unpack else [1], workers=2, **given)
    assert mapped([[1]] if unpack else [1], workers=2) == [3]
    with pytest.raises(TypeError, match=r"keyword argument 'other'$"):
        mapped([1], other=2, total=3)


@pytest.mark.once
@pytest.mark.parametrize(
    ("items", "words"),
    [
        (
            5,
            r"the items are an int, which is not iterable: for one item pass a list, several\(\[5\]\)$",
        ),
        (object(), r"the items are an object, .* several\(\[item\]\)$"),
        (None, r"the items are None, .* or \[\] for none$"),
    ],
)
def test_what_holds_no_items_says_how_to_give_one(items: Any, words: str) -> None:
    """A function without a return gives None."""
    with pytest.raises(TypeError, match=words):
        opmap(**QUIET)(several)(items, factor=1)


@pytest.mark.once
@pytest.mark.parametrize("items", [[1], (1, 2), iter([1]), range(3), "ab"])
def test_a_decorator_that_is_given_items_says_how_to_map_them(items: Any) -> None:
    """The call looks like that of the builtin map."""
    with pytest.raises(TypeError, match=r"^opmap is a decorator and .*write opmap\(len\)\(items\)"):
        opmap(len, items)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"write opmap\(function\)\(items\)"):
        opmap(lambda item: item, items)  # type: ignore[call-overload]


@pytest.mark.once
def test_a_class_is_mapped_by_a_function_that_calls_it() -> None:
    """The message suggests that; it works in processes too."""
    for mode in ("thread", "process"):
        assert opmap(mode=mode, workers=1, progress=False)(lambda x: int(x))(["3", "4"]) == [3, 4]  # type: ignore[call-overload]


@pytest.mark.once
def test_a_function_of_several_arguments_says_how_to_give_them() -> None:
    """The error suggests shared arguments or `unpack`; other mistakes keep their message."""
    mapped = opmap(**QUIET)(several)
    words = r"^several\(\) is missing argument 'factor': pass it for all .* several\(items, factor=\.\.\.\)"
    with pytest.raises(TypeError, match=words):
        mapped([(1, 2)])
    with pytest.raises(TypeError, match=r"^several\(\) got an unexpected keyword argument 'x'$"):
        mapped([1], factor=1, x=2)
    with pytest.raises(
        TypeError, match=r"'total': total is an option of the decorator: opmap\(total=3\)"
    ):
        mapped([1], factor=1, total=3)
    several_for_each = opmap(**QUIET, unpack=True)(several)
    assert several_for_each([(1, 2), {"item": 2, "factor": 1}], last=3) == [1, 2]

    class Owner:
        @opmap(**QUIET)
        def price(self, item: int, factor: int) -> int:
            return item * factor

        @opmap(**QUIET, unpack=True)
        def named(self, *, item: int) -> int:
            return item

    with pytest.raises(TypeError, match=r"argument 'factor': .* \S*Owner\.price\(items, factor="):
        Owner().price([1])
    assert Owner().named([{"item": 1}]) == [1]


@pytest.mark.once
def test_a_map_has_what_a_checker_is_told() -> None:
    """It has every member of the protocol, with the declared parameters."""
    mapped = opmap(**QUIET)(double)
    for name in dir(Mapped):
        if name.startswith("_") and name not in {"__call__", "__wrapped__", "__name__"}:
            continue
        assert hasattr(mapped, name), name
    for name in ("__call__", "stream", "amap", "astream", "cache_invalidate"):
        first = next(iter(inspect.signature(getattr(mapped, name)).parameters.values()))
        assert first.kind in {first.POSITIONAL_ONLY, first.VAR_POSITIONAL}
    stream = mapped.stream([1, 2, 3])
    assert inspect.isgenerator(stream)
    assert next(stream) == 2
    stream.close()
    assert inspect.isasyncgen(mapped.astream([]))
    assert asyncio.run(mapped.amap([])) == []


@pytest.mark.once
def test_the_signature_of_a_map_is_that_of_its_call() -> None:
    """`help` and editors show it."""
    mapped = opmap(**QUIET)(double)
    assert mapped.__doc__ == double.__doc__
    assert (mapped.__name__, mapped.__module__) == (double.__name__, double.__module__)


@pytest.mark.once
def test_a_map_pickles_by_reference() -> None:
    """A map that no module contains says so."""
    assert pickle.loads(pickle.dumps(below_process)) is below_process
    with pytest.raises((pickle.PicklingError, AttributeError)):  # the latter until Python 3.13
        pickle.dumps(opmap(**QUIET)(lambda item: item))


@pytest.mark.once
def test_a_map_of_a_partial_pickles_by_what_it_was_made_from() -> None:
    """It has no name, but the partial can be pickled."""
    arrived = pickle.loads(pickle.dumps(opmap(**QUIET)(functools.partial(double, plus=1))))
    assert arrived([1, 2]) == [3, 5]


@pytest.mark.once
def test_a_progress_is_public() -> None:
    """A function given as `progress=` receives it."""
    told: list[Progress] = []
    opmap(mode="thread", progress=told.append)(double)([1, 2])
    assert type(told[-1]) is Progress
    assert told[-1].done == 2
