"""Decorated functions in the hands of other libraries, each the real one.

What works with a plain function, or with a `functools.wraps` wrapper, has to work with these.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import doctest
import functools
import gc
import inspect
import pydoc
import subprocess
import sys
import textwrap
import typing
import warnings
from enum import Enum, IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import blinker
import pluggy
import pydantic
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from opero import hotpath, opero, opmap

if TYPE_CHECKING:
    from starlette.testclient import TestClient
else:
    with warnings.catch_warnings():  # it asks for another library than httpx
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient

QUIET: dict[str, Any] = {"mode": "thread", "progress": False}


# --- pydantic -------------------------------------------------------------------------------------


def test_pydantic_takes_decorated_methods_for_methods(core: hotpath.Core) -> None:
    """Public or private, of an instance or a class, ordinary or awaited: none is a field."""

    class Shop(pydantic.BaseModel):
        factor: float

        @opero(retries=2)
        def price(self, item: str) -> float:
            return self.factor * len(item)

        @opero(retries=2)
        def _price(self, item: str) -> float:
            return -self.factor * len(item)

        @opero(retries=2)
        async def later(self, item: str) -> float:
            return self.factor

        @classmethod
        @opero(retries=2)
        def default(cls) -> Any:
            return cls(factor=1)

        @staticmethod
        @opero(retries=2)
        def helper(x: int) -> int:
            return x

        mapped = staticmethod(opmap(**QUIET)(lambda x: x))

        @opmap(**QUIET, cache=True)
        def prices(self, item: str) -> float:
            return self.price(item)

        @opmap(**QUIET)
        @classmethod
        def many(cls, factor: float) -> Any:
            return cls(factor=factor)

    shop = Shop(factor=2)
    assert set(Shop.model_fields) == {"factor"}
    assert (shop.price("tea"), shop._price("tea"), shop.helper(1)) == (6.0, -6.0, 1)
    assert asyncio.run(shop.later("tea")) == 2
    assert Shop.default() == Shop(factor=1)
    assert Shop.mapped([1]) == [1]
    assert shop.prices(["tea", "tea"]) == copy.deepcopy(shop).prices(["tea", "tea"]) == [6.0, 6.0]
    assert Shop.many([1, 2]) == [Shop(factor=1), Shop(factor=2)]
    assert copy.deepcopy(shop).price("tea") == 6.0


def test_pydantic_validates_the_arguments_above_and_below(core: hotpath.Core) -> None:
    """By `validate_call`; below, the key is made of the arguments as they were given."""

    @opero(cache=True, retries=1)
    @pydantic.validate_call
    def below(n: int) -> int:
        return n + 1

    @pydantic.validate_call
    @opero(cache=True)
    def above(n: int) -> int:
        return n + 1

    class Thing:
        @pydantic.validate_call
        @opero(retries=2)
        def method(self, n: int) -> int:
            return n + 1

    assert below("1") == above("1") == above(1) == Thing().method("1") == 2  # type: ignore[arg-type]
    assert above.__name__ == "above"
    for function in (below, above):
        with pytest.raises(pydantic.ValidationError):
            function("one")  # type: ignore[arg-type]


def test_pydantic_takes_a_decorated_function_as_a_value(core: hotpath.Core) -> None:
    """Of a field, as its default, as a default factory, and as a validator."""

    @opero(cache=True)
    def double(n: int = 2) -> int:
        return 2 * n

    class Config(pydantic.BaseModel):
        given: typing.Callable[..., int]
        preset: typing.Callable[..., int] = double
        made: int = pydantic.Field(default_factory=double)
        checked: typing.Annotated[int, pydantic.AfterValidator(double)] = 1

    config = Config(given=double, checked=5)
    assert config.given is config.preset is double
    assert (config.given(4), config.made, config.checked) == (8, 4, 10)


# --- web frameworks -------------------------------------------------------------------------------


def test_starlette_takes_decorated_functions_as_endpoints(core: hotpath.Core) -> None:
    """Ordinary, awaited and bound ones; it asks `inspect` what they are."""

    @opero(retries=2)
    def plain(request: Any) -> PlainTextResponse:
        return PlainTextResponse("plain")

    @opero(retries=2)
    async def awaited(request: Any) -> PlainTextResponse:
        return PlainTextResponse("awaited")

    class Endpoints:
        @opero(retries=2)
        async def bound(self, request: Any) -> PlainTextResponse:
            return PlainTextResponse("bound")

    endpoints = {"plain": plain, "awaited": awaited, "bound": Endpoints().bound}
    routes = [Route(f"/{name}", endpoint) for name, endpoint in endpoints.items()]
    with TestClient(Starlette(routes=routes)) as client:
        for name in endpoints:
            assert client.get(f"/{name}").text == name
    assert routes[1].name == "awaited"


def test_fastapi_takes_decorated_functions_as_routes_and_dependencies(core: hotpath.Core) -> None:
    """Their parameters become those of the request."""
    app = FastAPI()

    @opero(cache=True)
    def factor(unit: str = "g") -> int:
        """Tell the factor."""
        return len(unit)

    @app.get("/weight/{item}")
    @opero(cache=True)
    async def weight(item: str, n: int = 1, factor: int = Depends(factor)) -> dict[str, int]:
        """Weigh it."""
        return {"weight": len(item) * n * factor}

    class Shop:
        @opero(retries=2)
        def price(self, item: str, n: int) -> int:
            return len(item) * n

    app.get("/price/{item}")(Shop().price)
    with TestClient(app) as client:
        assert client.get("/weight/tea?n=2&unit=kg").json() == {"weight": 12}
        assert client.get("/weight/tea?n=x").status_code == 422
        assert client.get("/price/tea?n=2").json() == 6
        described = client.get("/openapi.json").json()["paths"]["/weight/{item}"]["get"]
    assert described["description"] == "Weigh it."
    assert {each["name"] for each in described["parameters"]} == {"item", "n", "unit"}


# --- signals, hooks and mocks ---------------------------------------------------------------------


def test_blinker_holds_a_bound_receiver_for_as_long_as_its_owner_lives(core: hotpath.Core) -> None:
    """Weakly, by `WeakMethod`; a function as long as somebody else holds it."""

    class Listener:
        @opero(retries=2)
        def receive(self, sender: Any) -> None:
            got.append(sender)

    @opero(retries=2)
    def receive(sender: Any) -> None:
        got.append(sender)

    got: list[Any] = []
    signal, listener = blinker.Signal(), Listener()
    signal.connect(listener.receive)
    signal.connect(receive)
    gc.collect()
    signal.send("shop")
    assert got == ["shop", "shop"]
    signal.disconnect(receive)
    del listener
    gc.collect()
    signal.send("shop")
    assert got == ["shop", "shop"]


def test_pluggy_finds_the_arguments_of_a_decorated_hook(core: hotpath.Core) -> None:
    """Above or below its marker, which is an attribute."""
    spec, impl = pluggy.HookspecMarker("shop"), pluggy.HookimplMarker("shop")

    class Spec:
        @spec
        def weigh(self, item: str, unit: str) -> int: ...

    class Plugin:
        @impl
        @opero(retries=2)
        def weigh(self, item: str) -> int:
            return len(item)

    class Other:
        @opero(retries=2)
        @impl(tryfirst=True)
        def weigh(self, unit: str) -> int:
            return len(unit)

    manager = pluggy.PluginManager("shop")
    manager.add_hookspecs(Spec)
    manager.register(Plugin())
    manager.register(Other())
    assert manager.hook.weigh(item="tea", unit="kg") == [2, 3]


def test_mock_makes_autospecs_of_decorated_functions(core: hotpath.Core) -> None:
    """Which know `self`, refuse wrong arguments, and are awaited where the function is."""

    class Shop:
        @opero(retries=2)
        def price(self, item: str) -> int:
            return len(item)

        @opero(cache=True)
        async def later(self, item: str) -> int:
            return len(item)

        @staticmethod
        @opero(cache=True)
        def static(item: str) -> int:
            return len(item)

    @opero(retries=2)
    def price(item: str) -> int:
        return len(item)

    @opero(retries=2)
    async def later(item: str) -> int:
        return len(item)

    for made in (mock.create_autospec(Shop)(), mock.create_autospec(Shop, instance=True)):
        made.price.return_value = 5
        assert made.price("tea") == 5
        made.price.assert_called_once_with("tea")
        with pytest.raises(TypeError):
            made.price("tea", "too many")
        with pytest.raises(TypeError):
            made.static()
        made.later.return_value = 6
        assert asyncio.run(made.later("tea")) == 6
    specced = mock.create_autospec(price, return_value=7)
    assert inspect.isfunction(specced)
    assert specced("tea") == 7
    with pytest.raises(TypeError):
        specced()
    assert asyncio.run(mock.create_autospec(later, return_value=8)("tea")) == 8
    with mock.patch.object(Shop, "price", autospec=True) as patched:
        shop = Shop()
        shop.price("tea")
        patched.assert_called_once_with(shop, "tea")
        with pytest.raises(TypeError):
            shop.price(1, 2, 3)  # type: ignore[call-arg]
    with mock.patch.object(Shop, "later") as patched:
        assert isinstance(patched, mock.AsyncMock)
    with mock.patch.object(price, "cache_clear") as patched:
        price.cache_clear()
    patched.assert_called_once_with()
    assert price.cache_clear() is None


# --- documentation --------------------------------------------------------------------------------

DOCUMENTED = '''
    """A module."""

    from opero import opero, opmap

    @opero(cache=True)
    def price(item: str, tax: float = 0.2) -> float:
        """Tell the price.

        >>> price("tea")
        3.6
        """
        return round(len(item) * (1 + tax), 2)

    @opero(retries=2)
    async def later(item: str) -> float:
        """Tell it later."""

    @opmap(mode="thread")
    def mapped(item: str) -> float:
        """Tell many."""

    def inner(): pass

    undocumented = opero(retries=2)(inner)

    class Base:
        def total(self, n):
            """Documented in the base."""

    class Shop(Base):
        """A shop."""

        @opero(cache=True)
        def price(self, item: str) -> float:
            """Tell the price of the shop.

            >>> Shop().price("x")
            1.0
            """
            return 1.0

        @opero(retries=2)
        def total(self, n): return n

        @classmethod
        @opero(retries=2)
        def make(cls):
            """Make one."""

        @staticmethod
        @opero(retries=2)
        def util(n):
            """Help."""
'''


@pytest.fixture
def documented(
    core: hotpath.Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> typing.Iterator[Any]:
    """A module with decorated functions and methods that have docstrings."""
    (tmp_path / "documented.py").write_text(textwrap.dedent(DOCUMENTED))
    monkeypatch.syspath_prepend(str(tmp_path))
    import documented  # type: ignore[import-not-found]

    yield documented
    del sys.modules["documented"]


def test_help_shows_decorated_functions_as_functions(documented: Any) -> None:
    """With their signatures and docstrings; of a module, a class, a function and a method."""
    text = pydoc.plain(pydoc.render_doc(documented))
    for piece in (
        "price(item: str, tax: float = 0.2) -> float",
        "later(item: str) -> float",
        "mapped(item: str) -> float",
        "price(self, item: str) -> float",
        "Tell the price.",
        "Tell the price of the shop.",
        "Make one.",
        "Help.",
        "Methods defined here",
    ):
        assert piece in text
    assert "price(item: str, tax" in pydoc.plain(pydoc.render_doc(documented.price))
    assert "Tell the price of" in pydoc.plain(pydoc.render_doc(documented.Shop().price))
    assert documented.undocumented.__doc__ is None
    assert inspect.getdoc(documented.Shop.total) == "Documented in the base."
    assert inspect.getdoc(documented.Shop().total) == "Documented in the base."


def test_doctest_finds_the_examples_of_decorated_functions(documented: Any) -> None:
    """And runs them."""
    tests = [each for each in doctest.DocTestFinder().find(documented) if each.examples]
    assert {each.name for each in tests} == {"documented.price", "documented.Shop.price"}
    runner = doctest.DocTestRunner(verbose=False)
    for each in tests:
        assert runner.run(each).failed == 0


@pytest.mark.slow
@pytest.mark.once
def test_sphinx_documents_decorated_functions(tmp_path: Path) -> None:
    """By autodoc: functions, methods, class and static methods, coroutine functions."""
    (tmp_path / "documented.py").write_text(textwrap.dedent(DOCUMENTED))
    (tmp_path / "conf.py").write_text(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"extensions = ['sphinx.ext.autodoc', 'sphinx.ext.viewcode']\n"
    )
    (tmp_path / "index.rst").write_text(
        "x\n=\n\n.. automodule:: documented\n   :members:\n   :undoc-members:\n"
    )
    out = tmp_path / "out"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "text", str(tmp_path), str(out)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    text = (out / "index.txt").read_text()
    for piece in (
        "documented.price(item, tax=0.2)",
        "async documented.later(item)",
        "documented.mapped(item)",
        "price(item)",
        "classmethod make()",
        "static util(n)",
        "Tell the price of the shop.",
    ):
        plain = text.replace(": str", "").replace(": float", "").replace(" -> float", "")
        assert piece in plain.replace(" = 0.2", "=0.2")


# --- pytest ---------------------------------------------------------------------------------------


@pytest.mark.once
def test_pytest_takes_decorated_functions_as_fixtures_and_tests(tmp_path: Path) -> None:
    """With their arguments, marks and parameters; also in a class."""
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent("""
        import pytest
        from opero import opero

        tries = []

        @pytest.fixture
        @opero(retries=3, min_delay=0)
        def resource():
            tries.append(1)
            if len(tries) < 3:
                raise OSError
            return "resource"

        @opero(retries=2, min_delay=0)
        def test_it(resource):
            assert resource == "resource"

        @pytest.mark.parametrize("n", [1, 2])
        @opero(retries=2, min_delay=0)
        def test_parameters(n, tmp_path):
            assert n and tmp_path.exists()

        class TestThing:
            @opero(retries=2, min_delay=0)
            @pytest.mark.parametrize("n", [1, 2])
            def test_method(self, n):
                assert isinstance(self, TestThing) and n

        def test_not_collected_twice(): pass
        """)
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "6 passed" in run.stdout, run.stdout


# --- the standard library -------------------------------------------------------------------------


def test_singledispatch_takes_decorated_functions(core: hotpath.Core) -> None:
    """As the general one, as registered ones by annotation and by type, and in a class."""

    @functools.singledispatch
    @opero(retries=2)
    def describe(value: Any) -> str:
        return "thing"

    @describe.register
    @opero(cache=True)
    def of_int(value: int) -> str:
        return "int"

    describe.register(str)(opero(cache=True)(lambda value: "text"))
    assert [describe(1), describe("a"), describe(None)] == ["int", "text", "thing"]

    class Describer:
        @functools.singledispatchmethod
        @opero(retries=2)
        def describe(self, value: Any) -> str:
            return "thing"

        @describe.register
        @opero(cache=True)
        def of_int(self, value: int) -> str:
            return "int"

    assert [Describer().describe(1), Describer().describe(None)] == ["int", "thing"]
    above = opero(cache=True)(describe)
    assert [above(1), above("a"), above.register] == ["int", "text", describe.register]


def test_partials_and_partial_methods_take_decorated_functions(core: hotpath.Core) -> None:
    """And are taken, as before."""

    class Thing:
        @opero(cache=True)
        def add(self, a: int, b: int) -> int:
            return a + b

        add_one = functools.partialmethod(add, 1)

        @property
        @opero(retries=2)
        def name(self) -> str:
            return "thing"

        @functools.cached_property
        @opero(retries=2)
        def cached(self) -> str:
            return "cached"

    thing = Thing()
    assert (thing.add_one(2), thing.name, thing.cached) == (3, "thing", "cached")
    assert functools.partial(thing.add, 1)(2) == 3
    assert functools.reduce(opero(retries=1)(lambda a, b: a + b), [1, 2, 3]) == 6


def test_abstract_methods_stay_abstract(core: hotpath.Core) -> None:
    """The mark is an attribute of the function."""
    import abc

    class Base(abc.ABC):
        @opero(retries=2)
        @abc.abstractmethod
        def run(self) -> int: ...

    with pytest.raises(TypeError, match="abstract"):
        Base()  # type: ignore[abstract]

    class Derived(Base):
        @opero(retries=2)
        def run(self) -> int:
            return 1

    assert Derived().run() == 1


def test_type_hints_are_those_of_the_function(core: hotpath.Core) -> None:
    """Of functions and of methods."""

    @opero(retries=2)
    def function(a: int, b: list[str] | None = None) -> bytes:
        return b""

    class Thing:
        @opero(retries=2)
        def method(self, a: int) -> bytes:
            return b""

    assert typing.get_type_hints(function) == {"a": int, "b": list[str] | None, "return": bytes}
    for method in (Thing.method, Thing().method):
        assert typing.get_type_hints(method) == {"a": int, "return": bytes}


def test_a_dataclass_takes_a_decorated_function_as_a_default(core: hotpath.Core) -> None:
    """As it takes any other."""
    function = opero(retries=2)(lambda: 1)

    @dataclasses.dataclass
    class Config:
        run: Any = function
        made: int = dataclasses.field(default_factory=function)

    assert Config().run is function
    assert Config().made == 1
    assert dataclasses.asdict(Config())["run"] is function


def test_warnings_deprecated_and_other_decorators_go_above(core: hotpath.Core) -> None:
    """`contextlib` decorators among them."""
    import contextlib

    class Recorder(contextlib.ContextDecorator):
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    @Recorder()
    @opero(retries=2)
    def function(a: int) -> int:
        return a

    assert function(1) == 1
    assert function.__name__ == "function"


# --- by value, to other processes -----------------------------------------------------------------

BY_VALUE = '''
import functools, os, sys
from opero import opero, opmap

@opero(retries=3, min_delay=0)
def square(n, *, power=2):
    """Square it."""
    global failures
    failures = globals().get("failures", 0) + 1
    if failures % 3:
        raise OSError("not yet")
    return n ** power

@opero(cache=True)
def factorial(n, one=1):
    return one if n < 2 else n * factorial(n - 1)

@opero(cache=True)
async def later(n):
    return n + 1

@opmap(mode="thread", progress=False)
def mapped(n, plus=0):
    return n + plus

class Shop:
    def __init__(self, factor):
        self.factor = factor

    @opero(cache=True)
    def price(self, n):
        return self.factor * n

    @classmethod
    @opero(retries=2)
    def of_class(cls, n):
        return cls(3).price(n)

def uses(n):
    import asyncio
    assert square.stats().calls == square.cache_info().misses == 0 or True
    first = [square(n), factorial(5), factorial(5), asyncio.run(later(n)), mapped([n], plus=1)]
    shop = Shop(2)
    assert shop.price(n) == shop.price(n)
    hits = factorial.stats().hits
    factorial.cache_clear()
    return [*first, hits > 0, factorial.cache_info().currsize, shop.price.stats().hits > 0]

def told(function):
    """What a function is over there, and what its own code is."""
    return [function.__name__, function.__doc__, callable(function.stats),
            function.__wrapped__ is not function, os.getpid()]

def check(run):
    """Run everything by `run(function, argument)`."""
    assert run(square, 3) == 9
    assert run(functools.partial(square, power=3), 3) == 27
    assert run(factorial, 5) == 120
    assert run(uses, 3) == [9, 120, 120, 4, [4], True, 0, True], run(uses, 3)
    assert run(Shop(2).price, 4) == 8
    assert run(Shop.of_class, 4) == 12
    assert run(mapped, [1, 2]) == [1, 2]
    name, doc, has_stats, wrapped, pid = run(told, square)
    assert (name, doc, has_stats, wrapped) == ("square", "Square it.", True, True)
    local = opero(retries=3, min_delay=0)(lambda n: n + 1)
    assert run(local, 1) == 2
    assert run(told, local)[2]
    print("fine")

if __name__ == "__main__":
'''


RUNS = {
    "cloudpickle": """
        import cloudpickle, pickle
        def run(f, n):
            f, n = pickle.loads(cloudpickle.dumps((f, n)))
            return f(n)
        check(run)
    """,
    "joblib": """
        from joblib import Parallel, delayed
        check(lambda f, n: Parallel(n_jobs=2)([delayed(f)(n)])[0])
    """,
    "loky": """
        import loky
        with loky.get_reusable_executor(max_workers=1) as executor:
            check(lambda f, n: executor.submit(f, n).result())
    """,
    "dask": """
        from distributed import Client, LocalCluster
        with LocalCluster(n_workers=1, processes=True, dashboard_address=None) as cluster:
            with Client(cluster) as client:
                check(lambda f, n: client.submit(f, n, pure=False).result())
    """,
}
"""How each library runs a function in another process."""


@pytest.mark.parametrize(
    "library",
    [
        pytest.param(name, marks=pytest.mark.slow if name in {"dask", "joblib", "loky"} else ())
        for name in RUNS
    ],
)
def test_a_function_of_a_script_arrives_decorated(
    core: hotpath.Core, tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it travels by value: retries, cache and counts are there, and so are the options."""
    script = tmp_path / "script.py"
    script.write_text(BY_VALUE + textwrap.indent(textwrap.dedent(RUNS[library]), "    "))
    monkeypatch.setenv("OPERO_PURE_PYTHON", "1" if core.name == "plain" else "0")
    monkeypatch.setenv("OPERO_REQUIRE_COMPILED", "0" if core.name == "plain" else "1")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


@pytest.mark.once
def test_cloudpickle_sends_a_function_that_can_be_imported_by_its_name() -> None:
    """Where the worker's own is the same function, with its cache."""
    import cloudpickle
    import stored_functions

    pickled = cloudpickle.dumps(top_of_a_module)
    assert len(pickled) < 200
    assert cloudpickle.loads(pickled) is top_of_a_module
    assert stored_functions


@opero(cache=True)
def top_of_a_module(n: int) -> int:
    """Return it."""
    return n


@pytest.mark.once
def test_what_has_arrived_can_be_sent_on() -> None:
    """A worker's worker gets it decorated, too, and the attributes that the user has set."""
    import cloudpickle

    @opero(cache=True)
    def function(n: int) -> int:
        return n + 1

    function.mine = "mine"  # type: ignore[attr-defined]
    arrived: Any = function
    for _ in range(3):
        arrived = cloudpickle.loads(cloudpickle.dumps(arrived))
        assert (arrived(1), arrived(1), arrived.stats().hits) == (2, 2, 1)
        assert arrived.mine == "mine"
        assert inspect.signature(arrived) == inspect.signature(function)
    assert function.stats().calls == 0


# --- instances that cannot be referred to weakly --------------------------------------------------


def test_methods_of_values_are_cached_by_what_they_are(core: hotpath.Core) -> None:
    """Named tuples, enums, slotted dataclasses, numbers: what equals is the same instance."""

    class Point(NamedTuple):
        x: int

        @opero(cache=True)
        def norm(self, k: int) -> int:
            runs.append(self)
            return self.x * k

    class Level(IntEnum):
        LOW = 1
        HIGH = 2

        @opero(cache=True)
        def norm(self, k: int) -> int:
            runs.append(self)
            return self.value * k

    class Color(Enum):
        RED = 1

        @opero(cache=True)
        def norm(self, k: int) -> int:
            runs.append(self)
            return self.value * k

    @dataclasses.dataclass(slots=True, frozen=True)
    class Frozen:
        x: int

        @opero(cache=True)
        def norm(self, k: int) -> int:
            runs.append(self)
            return self.x * k

    @dataclasses.dataclass(slots=True)
    class Slotted:
        x: int

        @opero(cache=True)
        def norm(self, k: int) -> int:
            runs.append(self)
            return self.x * k

    @dataclasses.dataclass(slots=True, weakref_slot=True)
    class Referable:
        x: int

        @opero(cache=True)
        def norm(self, k: int) -> int:
            runs.append(self)
            return self.x * k

    class Cents(int):
        @opero(cache=True)
        def norm(self, k: int) -> int:
            runs.append(self)
            return self * k

    runs: list[Any] = []
    for one, other in (
        (Point(2), Point(3)),
        (Level.LOW, Level.HIGH),
        (Frozen(2), Frozen(3)),
        (Slotted(2), Slotted(3)),
        (Referable(2), Referable(3)),
        (Cents(2), Cents(3)),
    ):
        runs.clear()
        assert one.norm(5) == one.norm(5) != other.norm(5)
        assert one.norm(k=5) == one.norm(5)
        assert len(runs) == 2
        assert one.norm.cache_invalidate(5)
        assert one.norm(5)
        assert len(runs) == 3
    assert Color.RED.norm(1) == Color.RED.norm(1) == 1
    runs.clear()
    assert [Point(7).norm(1), Point(7).norm(1), Frozen(7).norm(1), Frozen(7).norm(1)] == [7] * 4
    assert len(runs) == 2
    slotted = Slotted(1)
    assert slotted.norm(1) == 1
    slotted.x = 2
    assert slotted.norm(1) == 2
