"""The public names, their parameters and their defaults: exactly those of the reference."""

from __future__ import annotations

import inspect
import re
from typing import Any, get_args

import pytest

import opero
import opero.testing
from opero import hotpath
from opero.options.cache_rows import BACKENDS
from opero.options.map_rows import MODES

pytestmark = pytest.mark.once

NAMES = [
    "COMPILED",
    "AllFailedError",
    "Attempt",
    "AttemptLoops",
    "AttemptRecord",
    "AttemptTimeout",
    "Breaker",
    "BreakerConfig",
    "CacheBackend",
    "CacheConfig",
    "BreakerOpenError",
    "CacheKeyError",
    "DeadlineExceeded",
    "Event",
    "FailedItem",
    "FallbackConfig",
    "MapResult",
    "NotRun",
    "OperoError",
    "ParallelMode",
    "Progress",
    "RateLimitConfig",
    "RateLimiter",
    "ResultRejected",
    "RetryConfig",
    "WorkerCrashedError",
    "__version__",
    "attempts",
    "clear_cache",
    "configure_logging",
    "get_cache_context",
    "get_cache_decorator",
    "get_fallback_decorator",
    "get_logger",
    "get_rate_limit_decorator",
    "get_retry_decorator",
    "opero",
    "operomap",
    "opmap",
    "retry_after",
    "subscribe",
    "transient_error",
]

PARAMETERS: dict[str, dict[str, Any]] = {
    "opero": {
        "retries": 3,
        "backoff_factor": 1.5,
        "min_delay": 0.1,
        "max_delay": 30.0,
        "retry_on": (Exception,),
        "arg_fallback": None,
        "cache": False,
        "cache_ttl": None,
        "cache_key": None,
        "cache_namespace": "opero",
        "cache_backend": "memory",
        "rate_limit": None,
    },
    "opmap": {
        "mode": "process",
        "workers": 4,
        "ordered": True,
        "progress": True,
        "retries": 3,
        "backoff_factor": 1.5,
        "min_delay": 0.1,
        "max_delay": 30.0,
        "retry_on": (Exception,),
        "arg_fallback": None,
        "cache": False,
        "cache_ttl": None,
        "cache_namespace": "opero_opmap_item",
        "rate_limit": None,
    },
    "get_cache_decorator": {
        "cache": True,
        "cache_ttl": None,
        "cache_key": None,
        "cache_namespace": "opero",
        "cache_backend": "memory",
    },
    "attempts": {
        "retries": 3,
        "backoff_factor": 1.5,
        "min_delay": 0.1,
        "max_delay": 30.0,
        "retry_on": (Exception,),
    },
    "get_retry_decorator": {
        "retries": 3,
        "backoff_factor": 1.5,
        "min_delay": 0.1,
        "max_delay": 30.0,
        "retry_on": (Exception,),
    },
    "get_rate_limit_decorator": {"rate_limit": inspect.Parameter.empty},
    "get_fallback_decorator": {"arg_fallback": inspect.Parameter.empty},
    "get_cache_context": {"cache_backend": "memory", "cache_namespace": "opero"},
    "clear_cache": {"namespace": None},
    "retry_after": {"error": inspect.Parameter.empty},
    "transient_error": {"error": inspect.Parameter.empty},
    "Breaker": {"name": None},
    "RateLimiter": {"rate_limit": inspect.Parameter.empty, "burst": 1},
    "AllFailedError": {"message": inspect.Parameter.empty, "errors": None},
    "BreakerOpenError": {"message": inspect.Parameter.empty, "errors": None},
    "DeadlineExceeded": {"message": inspect.Parameter.empty, "errors": None},
}
"""What each takes by position, in order, as the reference prints it."""

MORE_OF_OPERO = {
    "jitter": True,
    "burst": 1,
    "adaptive": False,
    "rate_floor": None,
    "timeout": None,
    "attempt_timeout": None,
    "retry": None,
    "retry_after": None,
    "retry_on_result": None,
    "fallback_on": Exception,
    "breaker": None,
    "reraise": False,
    "cache_maxsize": 1024,
    "cache_refresh": None,
    "cache_stale": None,
}
"""What `opero` takes by keyword only."""

MORE_OF_OPMAP = {
    **MORE_OF_OPERO,
    "cache_key": None,
    "cache_backend": "memory",
    "chunk_size": None,
    "rate_limit_scope": "worker",
    "start_method": None,
    "worker_init": None,
    "max_items_per_worker": None,
    "max_memory_per_worker": None,
    "executor": None,
    "on_error": "return",
    "unpack": False,
    "with_items": False,
    "max_errors": None,
    "read_ahead": None,
    "read_in": "thread",
    "total": None,
    "loop": "auto",
}
"""What `opmap` takes by keyword only."""


def test_all_is_exact() -> None:
    """No more, no less, and sorted as it stands."""
    assert sorted(NAMES) == sorted(opero.__all__)
    assert len(set(opero.__all__)) == len(opero.__all__)


def test_every_name_of_all_is_there() -> None:
    """And a star import brings them."""
    scope: dict[str, Any] = {}
    exec("from opero import *", scope)
    assert all(scope[name] is getattr(opero, name) for name in NAMES)


def test_nothing_else_without_an_underscore_is_public() -> None:
    """What is not in `__all__` is a submodule."""
    others = {name for name in vars(opero) if not name.startswith("_")} - set(NAMES)
    modules = {name for name in others if inspect.ismodule(getattr(opero, name))}
    assert others - modules <= {"annotations", "Any", "TYPE_CHECKING"}
    assert all(getattr(opero, name).__name__ == f"opero.{name}" for name in modules)


def test_all_of_the_testing_module_is_exact() -> None:
    """It lists what the module defines without an underscore, and nothing else."""
    defined = {
        name
        for name, thing in vars(opero.testing).items()
        if not name.startswith("_") and getattr(thing, "__module__", None) == "opero.testing"
    }
    assert sorted(defined) == sorted(opero.testing.__all__)
    assert sorted(opero.testing.__all__) == [
        "AttemptsRecord",
        "MovableClock",
        "disabled",
        "enabled",
        "manual_clock",
        "record_attempts",
        "skip_waits",
    ]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_defaults_are_those_of_the_reference(name: str) -> None:
    """In this order, so that calls by position mean what the reference says."""
    parameters = inspect.signature(getattr(opero, name)).parameters.values()
    positional = {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }
    assert PARAMETERS[name] == positional
    assert list(PARAMETERS[name]) == list(positional)


@pytest.mark.parametrize(
    ("name", "more"), [("opero", MORE_OF_OPERO), ("opmap", MORE_OF_OPMAP)], ids=["opero", "opmap"]
)
def test_what_came_after_the_reference_is_keyword_only(name: str, more: dict[str, Any]) -> None:
    """So the positions of the reference stay as they are."""
    parameters = inspect.signature(getattr(opero, name)).parameters.values()
    keywords = {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert keywords == more


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_documented(name: str) -> None:
    """In a sentence at least; functions tell their arguments too."""
    thing = getattr(opero, name)
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return
    doc = inspect.getdoc(thing)
    assert doc
    assert doc.splitlines()[0].endswith((".", ":"))
    if inspect.isfunction(thing):
        for parameter in inspect.signature(thing).parameters.values():
            assert re.search(rf"^ *\**{parameter.name}: ", doc, re.MULTILINE), parameter.name


def test_the_version_is_a_version() -> None:
    """Three numbers."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", opero.__version__)


def test_compiled_tells_which_half_is_active() -> None:
    """The same that `hotpath` says."""
    assert opero.COMPILED is (hotpath.core.name == "compiled") is hotpath.COMPILED


def test_a_rate_limiter_has_the_attributes_and_methods_of_the_reference() -> None:
    """Its rate, its burst, and a way to wait for threads and for tasks."""
    limiter = opero.RateLimiter(5.0, burst=2)
    assert (limiter.rate_limit, limiter.burst) == (5.0, 2)
    assert inspect.iscoroutinefunction(limiter.acquire)
    assert inspect.iscoroutinefunction(limiter.__aenter__)
    assert not inspect.iscoroutinefunction(limiter.acquire_sync)
    assert limiter.try_acquire() is True
    with limiter as entered:
        assert entered is limiter


def test_the_types_of_the_reference_name_what_is_allowed() -> None:
    """And the checks allow exactly that."""
    assert get_args(opero.ParallelMode) == MODES
    assert get_args(opero.CacheBackend) == BACKENDS


def test_the_map_has_an_alias() -> None:
    """Two names of one function."""
    assert opero.operomap is opero.opmap


def test_the_module_and_the_decorator_share_a_name_and_nothing_else() -> None:
    """`import opero` and `from opero import opero` both work."""
    assert inspect.ismodule(opero)
    assert inspect.isfunction(opero.opero)


SHOWN = {
    "RateLimiter": """acquire acquire_sync adaptive burst floor name pause rate rate_limit scope
        try_acquire windows""",
    "Breaker": "failure_ratio minimum name open_for probes reset scope state trip window",
}


@pytest.mark.parametrize("name", SHOWN)
def test_limiters_and_breakers_show_only_what_is_documented(name):
    """What is inside of them is private."""
    made = opero.RateLimiter(5.0) if name == "RateLimiter" else opero.Breaker()
    assert [each for each in dir(made) if not each.startswith("_")] == SHOWN[name].split()
