"""What the user holds: a function to whoever looks, whose attributes are the user's own.

What libraries make of it is in `tests/test_consumers.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import gc
import inspect
import pickle
import sys
import types
import typing
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from opero import AllFailedError, OperoError, hotpath, opero, opmap

FORMER = [
    "add",
    "after_fork",
    "attempted",
    "backoff_wait",
    "become_method",
    "binding",
    "bucket",
    "cache_key",
    "call",
    "calls",
    "clock",
    "core",
    "counts",
    "events",
    "face",
    "failures",
    "fallback",
    "fallbacks",
    "fits",
    "func",
    "gate",
    "gates",
    "ground",
    "hits",
    "hits_cleared",
    "instances",
    "keying",
    "lead",
    "limiter",
    "lone",
    "method",
    "misses",
    "misses_cleared",
    "name",
    "observed",
    "options",
    "origin",
    "permit_wait",
    "plan",
    "policy",
    "queues",
    "reserve",
    "retries",
    "runner",
    "shell",
    "single",
    "spare",
    "store",
    "stored_cache",
    "timeout",
    "vectorcall",
    "journal",
    "archive",
]
"""Names that once were opero's own, and those of the state."""

OTHERS = [
    "_locate",
    "_settle",
    "_counting",
    "_stores",
    "_hidden",
    "__private",
    "_is_coroutine",
    "_is_coroutine_marker",
    "mark",
    "pytestmark",
    "__signature__",
    "__isabstractmethod__",
    "__test__",
    "__tracebackhide__",
    "__name__",
    "__qualname__",
    "__doc__",
    "__module__",
    "__annotations__",
    "__code__",
    "__defaults__",
    "__kwdefaults__",
    "__globals__",
    "__closure__",
    "__builtins__",
    "__custom__",
    "__state__",
    "route",
    "methods",
    "name.with.dots",
]

MAPS = ("stream", "amap", "astream")
DOCUMENTED = ("cache_info", "cache_clear", "cache_invalidate", "stats")


def add(a: int, b: int = 2, *, c: int = 3) -> int:
    """Add numbers."""
    return a + b + c


async def later(a: int) -> int:
    """Wait, and return."""
    return a


def decorated() -> list[Any]:
    """Return a decorated function of each kind."""
    return [
        opero(retries=2)(add),
        opero(cache=True)(add),
        opero(cache=True)(later),
        opmap(mode="thread", progress=False)(add),
    ]


def classes() -> tuple[type[Any], type[Any]]:
    """Return a class with decorated methods of each kind, and one that inherits from it."""

    class Thing:
        """Has decorated methods of each kind."""

        def __init__(self, number: int = 1) -> None:
            self.number = number

        @opero(cache=True)
        def get(self, x: int) -> tuple[int, int]:
            """Get it."""
            return self.number, x

        @opero(retries=2)
        async def wait(self, x: int) -> int:
            """Wait for it."""
            return x

        @classmethod
        @opero(cache=True)
        def of_class(cls, x: int) -> tuple[str, int]:
            """Ask the class."""
            return cls.__name__, x

        @staticmethod
        @opero(cache=True)
        def static(x: int) -> int:
            """Ask nobody."""
            return x

        @opero(retries=2)
        def __private(self) -> int:
            return self.number

        def private(self) -> Any:
            """Return a method with a private name."""
            return self.__private

    class Child(Thing):
        """Overrides a method."""

        @opero(cache=True)
        def get(self, x: int) -> tuple[int, int]:
            """Get something else."""
            return -self.number, x

        def inherited(self) -> Any:
            """Return the method of the parent."""
            return super().get

    return Thing, Child


def public(looked_at: Any) -> set[str]:
    """Return the names without underscores that something has."""
    return {name for name in dir(looked_at) if not name.startswith("_")}


def works(function: Any) -> bool:
    """Call one of the decorated functions, and return whether the result is right."""
    if function.__wrapped__ is later:
        return asyncio.run(function(1)) == 1
    return function([1]) == [6] if hasattr(function, "stream") else function(1) == 6


# --- attributes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FORMER, *OTHERS])
def test_any_attribute_can_be_set_read_and_deleted(core: hotpath.Core, name: str) -> None:
    """Whatever its name, except opero's documented ones, and the function still works."""
    for function in decorated():
        before = getattr(function, name, None)
        value = object() if name != "__annotations__" else {"a": int}
        if name in {"__name__", "__qualname__", "__module__", "__doc__"}:
            value = "text"
        setattr(function, name, value)
        assert getattr(function, name) is value
        assert vars(function)[name] is value
        assert works(function)
        assert function.stats().calls == 1
        assert function.cache_invalidate(1) in {True, False}
        delattr(function, name)
        assert name not in vars(function)
        if name in {"__code__", "__closure__"}:
            assert type(getattr(function, name)) is type(before)
        elif name in {"__defaults__", "__kwdefaults__", "__globals__", "__builtins__"}:
            assert getattr(function, name) == before
        elif name in {*FORMER, "route", "_hidden", "__private"}:
            assert not hasattr(function, name)
            with pytest.raises(AttributeError):
                delattr(function, name)


def test_a_function_keeps_the_code_that_leads_to_it(core: hotpath.Core) -> None:
    """IPython, which would replace its code with that in the file, reloads the module instead."""

    @opero(retries=1)
    def decorated(a: int) -> str:
        return "old"

    def another(a: int) -> str:
        return "new"

    with pytest.raises(OperoError, match=r"decorated.*__wrapped__.*reload"):
        decorated.__code__ = another.__code__
    decorated.__code__ = opero(retries=1)(another).__code__
    assert decorated(1) == "old"
    decorated.__wrapped__.__code__ = another.__code__
    assert decorated(1) == "new"


def test_a_function_counts_its_calls_in_an_attribute(core: hotpath.Core) -> None:
    """The classic."""

    @opero(retries=1)
    def visit() -> int:
        visit.calls += 1  # type: ignore[attr-defined]
        return visit.calls  # type: ignore[attr-defined, no-any-return]

    visit.calls = 0  # type: ignore[attr-defined]
    assert [visit(), visit(), visit()] == [1, 2, 3]


def test_it_has_no_public_name_but_the_documented_ones(core: hotpath.Core) -> None:
    """Libraries might misread other names; the same holds for a bound method."""
    thing_class, _ = classes()
    once, cached, awaited, mapped = decorated()
    for function in (once, cached, awaited, thing_class().get):
        assert public(function) == set(DOCUMENTED)
    assert public(mapped) == {*DOCUMENTED, *MAPS}


def test_its_dict_is_that_of_a_wraps_wrapper(core: hotpath.Core) -> None:
    """No state lives there, and it can be replaced."""

    @functools.wraps(add)
    def wrapper() -> None: ...

    names = {*vars(wrapper), *functools.WRAPPER_ASSIGNMENTS, "__annotations__"}
    for function in (opero(add), opmap(add)):
        assert set(vars(function)) <= names
        function.__dict__ = {"mine": 1}
        assert function.mine == 1
        assert vars(function) == {"mine": 1}
        assert function.stats().calls == 0


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_documented_names_win_over_those_of_the_function_underneath(
    core: hotpath.Core, name: str
) -> None:
    """Its own may mean something else; its other names are available."""

    def function(x: int) -> int:
        return x

    setattr(function, name, "another's")
    function.mine = "the user's"  # type: ignore[attr-defined]
    for wrapped in (opero(cache=True)(function), opmap(mode="thread", progress=False)(function)):
        assert callable(getattr(wrapped, name))
        assert wrapped.mine == "the user's"
        assert getattr(function, name) == "another's"


def test_cache_clear_clears_its_own_cache_and_the_one_below(core: hotpath.Core) -> None:
    """That of an `lru_cache`, if it has none itself, and through another `wraps` wrapper."""
    runs = []

    @functools.lru_cache
    def inner(x: int) -> int:
        runs.append(x)
        return x

    outer = opero(cache=True)(inner)
    assert outer(1) == outer(1) == 1
    outer.cache_clear()
    assert outer(1) == 1
    assert runs == [1], "the one below has a cache of its own"
    assert outer.cache_info().misses == 1
    assert inner.cache_info().hits == 1
    uncached = opero(retries=2)(inner)
    uncached.cache_clear()
    assert inner.cache_info().currsize == 0


def test_functools_wraps_above_takes_over_what_it_takes_from_any_function(
    core: hotpath.Core,
) -> None:
    """The name, the docstring, the user's attributes, and `__wrapped__`."""
    inner = opero(cache=True)(add)
    inner.mine = 1  # type: ignore[attr-defined]

    @functools.wraps(inner)
    def outer(*args: Any) -> Any:
        return inner(*args)

    assert (outer.__name__, outer.__doc__, outer.mine) == ("add", "Add numbers.", 1)  # type: ignore[attr-defined]
    assert outer.__wrapped__ is inner  # type: ignore[attr-defined]
    assert inspect.signature(outer) == inspect.signature(add)
    assert "stats" not in vars(outer)
    assert inspect.unwrap(outer) is add


def test_the_state_is_behind_one_handle(core: hotpath.Core) -> None:
    """The runners work with this handle."""
    thing_class, _ = classes()
    function = opero(cache=True)(add)
    assert isinstance(function.__opero__, core.Call)
    assert isinstance(opero(later).__opero__, core.AsyncCall)
    assert opmap(add).__opero__.call.func is add
    assert thing_class.get.__opero__ is thing_class().get.__opero__


# --- what it is -----------------------------------------------------------------------------------


def test_it_is_a_function(core: hotpath.Core) -> None:
    """To `isinstance`, to `inspect`, and to code that reads a function's parts."""
    for function in decorated():
        assert isinstance(function, types.FunctionType)
        assert inspect.isfunction(function)
        assert inspect.isroutine(function)
        assert not inspect.ismethod(function)
        assert not inspect.isbuiltin(function)
        assert not isinstance(function, (types.MethodType, type, functools.partial))
        assert callable(function)
        plain = function.__wrapped__
        assert function.__globals__ is globals()
        if hasattr(plain, "__builtins__"):  # PyPy's functions have none
            assert function.__builtins__ is plain.__builtins__
        assert function.__defaults__ == plain.__defaults__
        assert function.__kwdefaults__ == plain.__kwdefaults__
        assert function.__name__ == plain.__name__
        assert function.__qualname__ == plain.__qualname__
        assert function.__doc__ == plain.__doc__
        assert function.__module__ == __name__
        assert function.__annotations__ == plain.__annotations__
        assert inspect.signature(function) == inspect.signature(plain)
        assert typing.get_type_hints(function) == typing.get_type_hints(plain)
        assert inspect.getsource(function) == inspect.getsource(plain)
        assert inspect.getfile(function) == __file__
        assert inspect.getdoc(function) == plain.__doc__
        assert inspect.getmodule(function) is sys.modules[__name__]
        assert inspect.unwrap(function) is plain


def test_coroutine_functions_are_known_as_such(core: hotpath.Core) -> None:
    """By their code; a map is an ordinary function, whatever it maps."""
    thing_class, _ = classes()
    assert inspect.iscoroutinefunction(opero(later))
    assert inspect.iscoroutinefunction(thing_class().wait)
    assert inspect.iscoroutinefunction(functools.partial(opero(later), 1))
    assert not inspect.iscoroutinefunction(opero(add))
    assert not inspect.iscoroutinefunction(opmap(mode="async")(later))
    for function in decorated():
        assert not inspect.isgeneratorfunction(function)
        assert not inspect.isasyncgenfunction(function)


def test_a_bound_one_is_a_method(core: hotpath.Core) -> None:
    """Like the methods of a class with plain functions."""
    thing_class, _ = classes()
    thing = thing_class()
    for method in (thing.get, thing.wait, thing.of_class, thing_class.of_class, thing.private()):
        assert isinstance(method, types.MethodType)
        assert inspect.ismethod(method)
        assert inspect.isroutine(method)
        assert not inspect.isfunction(method)
        assert isinstance(method.__func__, types.FunctionType)
    assert thing.get.__self__ is thing
    assert thing_class.of_class.__self__ is thing_class
    assert thing.get == thing.get
    assert hash(thing.get) == hash(thing.get)
    assert thing.get != thing_class().get
    assert {thing.get: 1}[thing.get] == 1
    assert str(inspect.signature(thing.get)) == "(x: 'int') -> 'tuple[int, int]'"
    assert (thing.get.__name__, thing.get.__doc__) == ("get", "Get it.")
    assert thing.get.__module__ == __name__
    assert thing.get.__code__ == thing.get.__func__.__code__
    assert inspect.isfunction(thing_class.get)
    assert inspect.isfunction(thing_class.static)
    assert isinstance(vars(thing_class)["of_class"], classmethod)
    assert thing.get.__get__(thing_class()) == thing.get  # it is bound already
    assert type("Other", (), {"get": thing.get})().get == thing.get
    with pytest.raises(AttributeError):
        thing.get.mine = 1  # type: ignore[attr-defined]  # as on any bound method
    kinds = {found.name: found.kind for found in inspect.classify_class_attrs(thing_class)}
    assert {name: kinds[name] for name in ("get", "wait", "of_class", "static")} == {
        "get": "method",
        "wait": "method",
        "of_class": "class method",
        "static": "static method",
    }
    names = {name for name, _ in inspect.getmembers(thing, inspect.ismethod)}
    assert {"get", "wait", "of_class"} <= names


def test_a_bound_one_is_weakly_referable(core: hotpath.Core) -> None:
    """By `WeakMethod`, for as long as its instance lives."""
    thing_class, _ = classes()
    thing = thing_class(5)
    reference = weakref.WeakMethod(thing.get)
    gc.collect()
    found = reference()
    assert found is not None
    assert found(1) == (5, 1)
    assert found == thing.get
    del found, thing
    gc.collect()
    assert reference() is None
    assert weakref.ref(thing_class.get)() is thing_class.get


@pytest.mark.parametrize(
    "function",
    [
        lambda: None,
        lambda a, b=1, /, c=2, *rest, d, e=5, **more: (a, b, c, rest, d, e, more),
        lambda a, *, args, kwargs=2: (a, args, kwargs),
        lambda __opero__, __opero___=1: (__opero__, __opero___),
        lambda *args: args,
        lambda **kwargs: kwargs,
        functools.partial(add, 1),
        len,
        types.MethodType(add, 1),
    ],
)
@pytest.mark.parametrize(
    "arguments", [((), {}), ((1,), {}), ((1, 2, 3, 4), {"d": 5, "f": 6}), ((1,), {"args": 3})]
)
def test_a_function_made_of_its_parts_is_decorated(
    core: hotpath.Core, function: Callable[..., Any], arguments: Any
) -> None:
    """Some libraries copy functions that way; the parts are never those of the bare function."""
    args, kwargs = arguments
    wrapped = opero(retries=1)(function)
    copied = types.FunctionType(
        wrapped.__code__,
        wrapped.__globals__,
        wrapped.__name__,
        wrapped.__defaults__,
        wrapped.__closure__,
    )
    copied.__kwdefaults__ = wrapped.__kwdefaults__
    try:
        expected = function(*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError):
            copied(*args, **kwargs)
    else:
        assert copied(*args, **kwargs) == expected
        assert wrapped.stats().calls == 1
    if type(function) is types.FunctionType:
        assert inspect.getfullargspec(wrapped) == inspect.getfullargspec(function)
        assert wrapped.__code__.co_filename == function.__code__.co_filename
        assert wrapped.__code__.co_firstlineno == function.__code__.co_firstlineno


# --- copies and pickles ---------------------------------------------------------------------------


def test_a_copy_of_a_function_is_the_function(core: hotpath.Core) -> None:
    """Deep or shallow, alone or inside another object."""
    thing_class, _ = classes()
    for function in (*decorated(), thing_class.static, thing_class.get):
        assert copy.copy(function) is function
        assert copy.deepcopy(function) is function
        assert copy.deepcopy({"key": [function]})["key"][0] is function


def test_a_deep_copy_of_a_bound_method_is_bound_to_a_copy(core: hotpath.Core) -> None:
    """A shallow copy is bound to the same instance; both call the same function."""
    thing_class, child_class = classes()
    for method in (thing_class(1).get, thing_class(1).private(), child_class(1).inherited()):
        expected = method() if method.__name__ == "__private" else method(7)
        same, other = copy.copy(method), copy.deepcopy(method)
        assert same == method
        assert other.__self__ is not method.__self__
        assert other.__func__ is method.__func__
        assert isinstance(other, types.MethodType)
        assert expected == (other() if method.__name__ == "__private" else other(7))


def test_an_object_that_keeps_its_own_bound_method_is_copied_whole(core: hotpath.Core) -> None:
    """The copy's method is bound to the copy, even in a cycle."""

    class Timer:
        def __init__(self, name: str) -> None:
            self.name = name
            self.callback = self.__tick

        @opero(retries=2)
        def __tick(self) -> str:
            return self.name

    timer = copy.deepcopy(Timer("a"))
    timer.name = "b"
    assert timer.callback() == "b"


def test_it_is_made_once(core: hotpath.Core) -> None:
    """A call that is under way still needs its state."""
    runs = []

    @opero(retries=2, min_delay=0)
    def function(x: int) -> int:
        runs.append(x)
        other = opero(retries=2, min_delay=0)(add)
        with pytest.raises(TypeError, match="cannot be initialized again"):
            type(function).__init__(function, other.__opero__)
        del other
        gc.collect()
        raise ValueError(x)

    for given in (function.__opero__, None, 3):
        with pytest.raises(TypeError, match=r"cannot be initialized again|incorrect type"):
            type(function).__init__(function, given)  # type: ignore[misc]
    with pytest.raises(AllFailedError):
        function(1)
    assert runs == [1, 1]
    for made in decorated():
        with pytest.raises(TypeError, match="cannot be initialized again"):
            type(made).__init__(made, made.__opero__)
        assert works(made)


def test_a_call_of_a_bound_method_goes_on_whatever_becomes_of_that(core: hotpath.Core) -> None:
    """Other code calls `__init__` again while it runs."""

    class Bell:
        @opero(retries=1)
        def ring(self, x: int) -> int:
            with contextlib.suppress(TypeError):
                type(method).__init__(method, add, 1)
            gc.collect()
            return x

    method: Any = Bell().ring
    assert method(3) == 3


def test_what_type_makes_a_class_method_is_one(core: hotpath.Core) -> None:
    """Without `@classmethod`, as for a function made by `def`; subclasses inherit it."""

    class Shelf:
        @opero(retries=2)
        def __init_subclass__(cls, **options: Any) -> None:
            cls.options = options  # type: ignore[attr-defined]

        @opero(cache=True)
        def __class_getitem__(cls, item: Any) -> tuple[str, Any]:
            return cls.__name__, item

        @opero(retries=2)
        def __new__(cls) -> Any:
            return object.__new__(cls)

        @opero(cache=True)
        @classmethod
        def spelled(cls, item: Any) -> tuple[str, Any]:
            return cls.__name__, item

    class Low(Shelf, height=1):
        """Comes from one."""

    assert Low.options == {"height": 1}  # type: ignore[attr-defined]
    assert (Shelf[3], Shelf[3], Low[3]) == (("Shelf", 3), ("Shelf", 3), ("Low", 3))  # type: ignore[comparison-overlap, type-arg, misc]
    assert type(Shelf()) is Shelf
    assert type(Low()) is Low
    assert Shelf.__class_getitem__.stats().hits == 1  # type: ignore[attr-defined]
    assert isinstance(vars(Shelf)["__class_getitem__"], classmethod)
    assert Low.spelled(1) == ("Low", 1)


def test_a_method_decorated_in_init_belongs_to_the_copy(core: hotpath.Core) -> None:
    """Each instance has a cache, and so do deep copies and pickles."""
    for how in (copy.deepcopy, lambda found: pickle.loads(pickle.dumps(found))):
        frog = Frog(2)
        assert frog.jump(3) == frog.jump(3) == 6
        other = how(frog)
        other.factor = 5
        assert other.jump(3) == 15
        assert frog.jump(3) == 6
        assert (frog.jump.stats().hits, other.jump.stats().hits) == (2, 0)
    reference = weakref.ref(frog)
    del frog
    gc.collect()
    assert reference() is None


class Frog:
    """Decorates a method for each instance."""

    def __init__(self, factor: int) -> None:
        self.factor = factor
        self.jump: Any = opero(cache=True)(self.jump)  # type: ignore[has-type]

    def jump(self, n: int) -> int:  # type: ignore[no-redef]
        """Jump."""
        return self.factor * n


Thing, Child = classes()
for _cls in (Thing, Child):
    _cls.__qualname__ = _cls.__name__
    for _found in vars(_cls).values():
        if inspect.isfunction(_found := getattr(_found, "__func__", _found)):
            _found.__qualname__ = f"{_cls.__name__}.{_found.__name__}"
top = opero(cache=True)(add)
top.__qualname__ = "top"
mapped_top = opmap(mode="thread", progress=False)(add)
mapped_top.__qualname__ = "mapped_top"


@pytest.mark.once
def test_a_function_is_pickled_by_its_name() -> None:
    """Like any other, even in a class and with a private name."""
    private = Thing().private().__func__
    for function in (top, mapped_top, Thing.get, Thing.static, private):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(function, protocol)) is function
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(opero(lambda: None))
    assert pickle.loads(pickle.dumps(top.cache_clear))() is None


@pytest.mark.once
def test_a_bound_method_is_pickled_with_its_instance() -> None:
    """Whatever its name refers to in the instance's class."""
    for method in (Thing(3).get, Child(3).get, Child(3).inherited(), Thing.of_class):
        arrived = pickle.loads(pickle.dumps(method))
        assert arrived(1) == method(1)
        assert arrived.__func__ is method.__func__
    assert pickle.loads(pickle.dumps(Thing(3).private()))() == 3
