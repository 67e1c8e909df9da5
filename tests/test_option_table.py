"""The table of options, and everything that repeats it: signatures, config objects, pages."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import opero as package
from opero import Breaker, BreakerConfig, CacheConfig, FallbackConfig, RateLimitConfig, RetryConfig
from opero.map.options import map_options
from opero.options import OPTIONS, POSITIONAL, Reading, call_options, read_by
from opero.options.checked import RetryOptions
from opero.options.table import fields_of

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
NEEDED: dict[str, Any] = {"rate_limit": 5.0, "arg_fallback": "values"}
"""What functions take that have no default for it."""
CONFIGS = (BreakerConfig, CacheConfig, FallbackConfig, RateLimitConfig, RetryConfig)


@pytest.mark.checkout
def test_what_repeats_the_table_is_up_to_date() -> None:
    """Signatures, typed dicts, docstrings and tables of pages: `python -m tools.write_options`."""
    command = [sys.executable, "-m", "tools.write_options", "--check"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"run `python -m tools.write_options`: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("function", POSITIONAL)
def test_a_signature_has_the_options_of_the_table(function: str) -> None:
    """In their order, with their defaults; the others come by `**kwargs`."""
    parameters = inspect.signature(getattr(package, function)).parameters
    named = [each for each in parameters.values() if each.kind is not each.VAR_KEYWORD]
    rows = [option for option in read_by(function) if option.name in parameters]
    assert [option.name for option in rows] == [each.name for each in named]
    assert all(name in parameters for name in POSITIONAL[function])
    for option, parameter in zip(rows, named, strict=True):
        if parameter.default is not parameter.empty:
            assert parameter.default == option.default_of(function)


@pytest.mark.parametrize("function", [name for name in POSITIONAL if name.endswith("decorator")])
def test_an_option_of_the_table_is_taken_by_who_reads_it_and_by_nobody_else(function: str) -> None:
    """Also those that stand in no signature."""
    own = {option.name for option in read_by(function)}
    for option in OPTIONS.values():
        needed = {name: value for name, value in NEEDED.items() if name in own}
        given = {**needed, option.name: NEEDED.get(option.name, option.default_of(function))}
        if option.name in own:
            if option.backends and "memory" not in option.backends:
                given = {"cache_backend": option.backends[0], **given}
            assert call_options(function, given)
        else:
            with pytest.raises(TypeError, match=f"has no option '{option.name}'"):
                getattr(package, function)(**given)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_a_config_object_has_the_fields_and_defaults_of_the_table(config: Any) -> None:
    """Those of a backend are in its `backend_options`."""
    rows = fields_of(config)
    fields = {each.name: each for each in dataclasses.fields(config)}
    backend = {name for name, option in rows.items() if option.backends}
    assert fields.keys() - rows.keys() <= {"backend_options"}
    assert rows.keys() - fields.keys() == backend
    assert ("backend_options" in fields) == bool(backend)
    for name, option in rows.items():
        if name in fields and fields[name].default is not dataclasses.MISSING:
            default = True if name == "enabled" else option.default
            assert fields[name].default == default


def test_a_breaker_has_the_parameters_of_its_config_object() -> None:
    """With the same defaults."""
    parameters = inspect.signature(Breaker.__init__).parameters
    fields = dataclasses.fields(BreakerConfig)
    assert {name: each.default for name, each in parameters.items() if name != "self"} == {
        each.name: each.default for each in fields
    }


def test_checked_options_have_the_fields_of_the_config_object() -> None:
    """What is checked has the same names."""
    assert [each.name for each in dataclasses.fields(RetryOptions)] == [
        each.name for each in dataclasses.fields(RetryConfig)
    ]


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_a_row_is_whole(option: Any) -> None:
    """Its default passes its own check, its line is one, and what it needs is an option."""
    if option.name not in {"retry", "cache"}:
        option.check(option.name, option.default)
    assert option.doc.endswith(".")
    assert "\n" not in option.doc + option.each + option.more
    assert option.readers
    assert set(option.readers) <= set(POSITIONAL)
    assert set(option.needs) <= set(OPTIONS)
    assert bool(option.config) == bool(option.field)


def test_every_default_may_be_spelled_out() -> None:
    """Whatever is on or off: a default asks for nothing."""
    options = [
        each for each in read_by("opmap") if not each.backends or each.name == "cache_maxsize"
    ]
    given = {option.name: option.default_of("opmap") for option in options}
    assert call_options("opmap", given) == call_options("opmap", {})
    assert map_options(given) == map_options({})


def test_a_reading_knows_what_was_given_and_what_it_was_called() -> None:
    """A default spelled out is not given; what is in a config object has the field's name."""
    config = RetryConfig(attempts=5)
    reading = Reading("opero", {"timeout": None, "cache": True, "retry": config, "cache_ttl": 5})
    assert reading.given == {"cache", "retry", "cache_ttl"}
    assert (reading.values["retries"], reading.name_of("retries")) == (5, "attempts")
    assert (reading.values["cache_ttl"], reading.name_of("cache_ttl")) == (5, "cache_ttl")
