"""The examples and signatures of the API reference hold as they are printed there.

`enabled` of `CacheConfig` is True by default, where the reference has False.

What belongs to the parallel map is not part of this release.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from loopback import Requests, Server, serving

import opero as package
from opero import AllFailedError, OperoError, opero
from opero.testing import manual_clock, skip_waits

BASIC = """
@opero(retries=3, cache=True, cache_ttl=300)
def fetch_data(id: str):
    return api.get(f"/data/{id}")
"""

FALLBACK = """
@opero(arg_fallback="endpoint", retries=2)
def call_api(data, endpoint=["primary.com", "backup.com"]):
    return requests.post(endpoint[0], json=data)
"""

ALL_FAILED = """
try:
    result = unreliable_function()
except AllFailedError as e:
    print(f"All attempts failed: {e}")
    for i, error in enumerate(e.errors):
        print(f"  Attempt {i+1}: {error}")
"""

COMBINED = '''
from opero import opero, AllFailedError

@opero(
    retries=3,
    backoff_factor=2.0,
    cache=True,
    cache_ttl=600,
    rate_limit=5.0,
    arg_fallback="api_key"
)
def resilient_api_call(
    endpoint: str,
    api_key: list[str] = ["primary_key", "backup_key"]
):
    """
    Make API call with full resilience stack.
    
    - Checks cache first
    - Respects rate limit
    - Retries with exponential backoff
    - Falls back to backup API key
    """
    headers = {"Authorization": f"Bearer {api_key[0]}"}
    response = requests.get(endpoint, headers=headers)
    response.raise_for_status()
    return response.json()
'''  # noqa: W293 - as it is printed

SIGNATURES = """
def opero(
    retries: int = 3,
    backoff_factor: float = 1.5,
    min_delay: float = 0.1,
    max_delay: float = 30.0,
    retry_on: tuple[type[Exception], ...] = (Exception,),
    arg_fallback: str | None = None,
    cache: bool = False,
    cache_ttl: int | None = None,
    cache_key: Callable | None = None,
    cache_namespace: str = "opero",
    cache_backend: str = "memory",
    rate_limit: float | None = None,
    **kwargs: Any
) -> Callable[[F], F]: ...

def get_cache_decorator(
    cache: bool = True,
    cache_ttl: int | None = None,
    cache_key: Callable | None = None,
    cache_namespace: str = "opero",
    cache_backend: str = "memory",
    **kwargs: Any
) -> Callable: ...

def get_retry_decorator(
    retries: int = 3,
    backoff_factor: float = 1.5,
    min_delay: float = 0.1,
    max_delay: float = 30.0,
    retry_on: tuple[type[Exception], ...] = (Exception,),
    **kwargs: Any
) -> Callable: ...

def get_rate_limit_decorator(
    rate_limit: float,
    **kwargs: Any
) -> Callable: ...

def get_fallback_decorator(
    arg_fallback: str,
    **kwargs: Any
) -> Callable: ...

def RateLimiter(rate_limit: float): ...

def AllFailedError(message: str, errors: list[Exception] | None = None): ...

def CacheConfig(
    enabled: bool = True,
    ttl: int | None = None,
    backend: str = "memory",
    namespace: str = "opero",
    key_function: Callable | None = None,
): ...

def RetryConfig(
    attempts: int = 3,
    backoff_factor: float = 1.5,
    min_delay: float = 0.1,
    max_delay: float = 30.0,
    retry_on: tuple[type[Exception], ...] = (Exception,),
): ...

def RateLimitConfig(
    rate: float | None = None,
    burst: int = 1,
): ...
"""


class Api:
    """The client of the first example."""

    def __init__(self, requests: Requests) -> None:
        self.requests = requests

    def get(self, path: str) -> Any:
        """Ask the server."""
        return self.requests.get(f"https://api.example.com{path}").json()


@pytest.fixture
def loopback() -> Iterator[tuple[Server, Requests]]:
    """A server, and the module that finds it."""
    with serving() as pair:
        yield pair


def run(text: str, **names: Any) -> dict[str, Any]:
    """Run an example as it is printed, with these names, and return what it defined."""
    namespace: dict[str, Any] = {"__name__": "example", "opero": opero, **names}
    with skip_waits():
        exec(compile(text, "reference", "exec", dont_inherit=True), namespace)
    return namespace


def test_basic_retry_with_caching(loopback: tuple[Server, Requests]) -> None:
    """The first example fetches once and answers from the cache afterwards."""
    server, requests = loopback
    fetch_data = run(BASIC, api=Api(requests))["fetch_data"]

    assert [fetch_data("7"), fetch_data(id="7"), fetch_data("8")] == [
        {"id": "7"},
        {"id": "7"},
        {"id": "8"},
    ]
    assert server.seen == ["GET /data/7", "GET /data/8"]
    assert fetch_data.stats().hits == 1


def test_basic_retry_goes_on_when_the_host_is_down(loopback: tuple[Server, Requests]) -> None:
    """The first example tries three times in all, and succeeds when the host is back."""
    server, requests = loopback
    up, down = requests.hosts["api.example.com"], requests.hosts["primary.com"]

    class Flaky(Api):
        def get(self, path: str) -> Any:
            tried.append(path)
            requests.hosts["api.example.com"] = up if len(tried) == 3 else down
            return super().get(path)

    tried: list[str] = []
    fetch_data = run(BASIC, api=Flaky(requests))["fetch_data"]
    with skip_waits():
        assert fetch_data("7") == {"id": "7"}

    assert len(tried) == 3
    assert server.seen == ["GET /data/7"]


def test_fallback_parameters(loopback: tuple[Server, Requests]) -> None:
    """The second example turns to the backup host, in the first round and without a delay."""
    server, requests = loopback
    call_api = run(FALLBACK, requests=requests)["call_api"]

    assert call_api({"item": "tea"}).json() == {"item": "tea"}
    assert server.seen == ["POST /"]
    stats = call_api.stats()
    assert (stats.attempts, stats.fallbacks, stats.retries) == (2, 1, 0)
    assert stats.backoff_wait == 0


def test_fallback_parameters_that_all_fail(loopback: tuple[Server, Requests]) -> None:
    """With both hosts down the second example makes two rounds of two attempts."""
    _, requests = loopback
    requests.hosts["backup.com"] = requests.hosts["primary.com"]
    call_api = run(FALLBACK, requests=requests)["call_api"]

    with skip_waits(), pytest.raises(AllFailedError) as caught:
        call_api({"item": "tea"})
    hosts = [str(error).partition(":")[0] for error in caught.value.errors]
    assert hosts == ["primary.com", "backup.com"] * 2


def test_all_failed_error_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The example of `AllFailedError` prints the message and each attempt's error."""

    @opero(retries=2)
    def unreliable_function() -> None:
        raise ConnectionError("no route to host")

    run(ALL_FAILED, unreliable_function=unreliable_function, AllFailedError=AllFailedError)

    head, *attempts = capsys.readouterr().out.splitlines()
    assert head.startswith("All attempts failed: ")
    assert head.endswith("ConnectionError: no route to host")
    assert attempts == ["  Attempt 1: no route to host", "  Attempt 2: no route to host"]


def test_combined_resilience_features(loopback: tuple[Server, Requests]) -> None:
    """The combined example falls back to the second key, waits for its permit, and caches."""
    server, requests = loopback
    call = run(COMBINED, requests=requests)["resilient_api_call"]

    with manual_clock():
        assert call("https://api.example.com/report") == {"report": "ready"}
        assert call("https://api.example.com/report") == {"report": "ready"}
    assert server.seen == ["GET /report", "GET /report"]
    stats = call.stats()
    assert (stats.hits, stats.attempts, stats.fallbacks) == (1, 2, 1)
    assert stats.permit_wait == pytest.approx(1 / 5.0)
    assert call.__doc__.strip().startswith("Make API call")


@pytest.mark.once
@pytest.mark.parametrize(
    "printed",
    [node for node in ast.parse(SIGNATURES).body if isinstance(node, ast.FunctionDef)],
    ids=lambda node: node.name,
)
def test_signatures_are_those_of_the_reference(printed: ast.FunctionDef) -> None:
    """Names, order and defaults of the reference's parameters; more may follow behind them."""
    actual = inspect.signature(getattr(package, printed.name)).parameters
    names = [argument.arg for argument in printed.args.args]
    defaults = [eval(ast.unparse(default)) for default in printed.args.defaults]

    assert list(actual)[: len(names)] == names
    assert [actual[name].default for name in names[len(names) - len(defaults) :]] == defaults
    if printed.args.kwarg is not None:
        assert actual[printed.args.kwarg.arg].kind is inspect.Parameter.VAR_KEYWORD


@pytest.mark.once
def test_classes_are_those_of_the_reference() -> None:
    """The exceptions derive as the reference says, and the limiter works with `async with`."""
    assert OperoError.__bases__ == (RuntimeError,)
    assert issubclass(AllFailedError, OperoError)
    error = AllFailedError("all", [ValueError("x")])
    assert (error.message, [type(each) for each in error.errors]) == ("all", [ValueError])
    assert AllFailedError("none").errors == []
    limiter = package.RateLimiter(2.0)
    assert limiter.rate_limit == 2.0
    assert inspect.iscoroutinefunction(limiter.acquire)
    assert hasattr(limiter, "__aenter__")
    assert hasattr(limiter, "__aexit__")
    assert package.CacheConfig().backend_options == {}
