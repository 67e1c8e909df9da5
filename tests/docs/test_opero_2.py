"""The page for users of opero 2.x names all that 2.7.5 had, and offers what 3.0 has.

What 2.7.5 had is data here: its wheel does not import, so `ast` read it. To read it again, take
`opero-2.7.5-py3-none-any.whl` from PyPI, with the digest below.
"""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

import pytest
from documents import DOCS, blocks, section

import opero
from opero.options import read_by

PAGE = DOCS / "migration" / "opero-2.md"
NAME = "docs/migration/opero-2.md"

WHEEL = "029d0863cfd57985b89bf171ad294dbf3bdd973857fc68add3e77452e4c14545"
"""The SHA-256 of the wheel that the signatures are from."""

_CACHE = (
    "cache=True, cache_ttl=None, cache_backend='memory', cache_key=None, cache_namespace='opero'"
)
_RETRY = "retries=3, backoff_factor=1.5, min_delay=0.1, max_delay=30.0"
_MAP = "mode='process', workers=4, ordered=True, progress=True"
SIGNATURES = {
    "opero": f"{_CACHE}, {_RETRY}, retry_on=Exception, arg_fallback=None, rate_limit=None, **kwargs",
    "opmap": f"{_CACHE}, {_RETRY}, retry_on=Exception, arg_fallback=None, rate_limit=None, {_MAP}, **kwargs",
    "get_cache_decorator": f"{_CACHE}, **kwargs",
    "get_retry_decorator": f"{_RETRY}, retry_on=(Exception,), jitter=True, **kwargs",
    "get_fallback_decorator": "arg_fallback=None",
    "get_rate_limit_decorator": "rate_limit=None",
    "get_parallel_executor": f"{_MAP}, **kwargs",
    "get_parallel_map_decorator": f"{_MAP}, **kwargs",
    "get_cache_context": "cache_backend='memory', cache_namespace='opero', **kwargs",
    "clear_cache": "namespace='opero', cache_backend=None, **kwargs",
    "FallbackError": "message, errors",
    "RateLimiter": "rate_limit",
    "configure_logging": "level=20, format_string=None, stream=None, verbose=False",
    "get_logger": "name=None",
    "ensure_async": "func",
    "is_async_function": "func",
    "run_async": "func, *args, **kwargs",
}
"""What could be called, of `opero.__all__`."""
VALUES = ("__version__", "logger")
"""The rest of `opero.__all__`."""
ELSEWHERE = ("exceptions.AllFailedError", "exceptions.OperoError")
"""What only a module of the package exported."""
ATTRIBUTES = {
    "RateLimiter": (
        *("wait", "wait_async", "rate_limit"),
        *("min_interval", "last_call_time", "async_limiter"),
    ),
    "FallbackError": ("errors",),
}
EXTRAS = ("pathos", "aiomultiprocess", "all", "dev", "test")

DECORATORS = ("opero", "opmap", "get_cache_decorator", "get_retry_decorator")


def arguments(signature: str) -> ast.arguments:
    [function] = ast.parse(f"def function({signature}): ...").body
    assert isinstance(function, ast.FunctionDef)
    return function.args


def parameters() -> set[str]:
    """The parameters of all that could be called."""
    found = {"**kwargs"}
    for signature in SIGNATURES.values():
        found |= {each.arg for each in arguments(signature).args}
    return found


def table(heading: str) -> list[list[str]]:
    """The cells of the rows of a section; they may be empty."""
    lines = [line for line in section(NAME, heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def offers() -> list[str]:
    """What the page offers in the place of names and parameters."""
    rows = table("## Every public name") + table("## Every parameter")
    return [offer for row in rows for offer in quoted(row[1])]


def resolved(path: ast.expr) -> Any:
    """What a name of 3.0 means."""
    if isinstance(path, ast.Attribute):
        return getattr(resolved(path.value), path.attr)
    assert isinstance(path, ast.Name)
    return getattr(opero, path.id)


def accepted(function: Any) -> set[str]:
    """The keywords that a function of 3.0 takes."""
    found = set(inspect.signature(function).parameters)
    return found | {option.name for option in read_by("opero") if option.backends}


@pytest.mark.once
def test_every_public_name_has_its_line() -> None:
    """What a program may have imported from 2.7.5, and the attributes of its objects."""
    told = {name for row in table("## Every public name") for name in quoted(row[0])}
    assert {*SIGNATURES, *VALUES, *ELSEWHERE} - told == set()
    everywhere = " ".join(" ".join(row) for row in table("## Every public name"))
    for attributes in ATTRIBUTES.values():
        assert [each for each in attributes if each not in everywhere] == []


@pytest.mark.once
def test_every_parameter_has_its_line() -> None:
    """Of every function and class."""
    told = {name for row in table("## Every parameter") for name in quoted(row[0])}
    assert parameters() - told == set()


@pytest.mark.once
def test_every_extra_has_its_line() -> None:
    """2.7.5 had no commands and read no variables."""
    told = {name for row in table("## Extras, commands, variables") for name in quoted(row[0])}
    assert set(EXTRAS) - told == set()


@pytest.mark.once
def test_every_line_says_what_takes_the_place_or_why_nothing_does() -> None:
    """No cell for 3.0 is empty without a remark."""
    for heading in ("## Every public name", "## Every parameter"):
        for row in table(heading):
            assert len(row) == 3, row
            assert row[1] or row[2], row


@pytest.mark.once
@pytest.mark.parametrize("offer", sorted(set(offers())))
def test_what_the_page_offers_exists(offer: str) -> None:
    """Each name is one of 3.0, takes the keywords that stand there, and with these values."""
    expression = ast.parse(offer, mode="eval").body
    if not isinstance(expression, ast.Call):
        assert resolved(expression) is not None
        return
    function = resolved(expression.func)
    given = {str(keyword.arg): keyword.value for keyword in expression.keywords}
    assert given.keys() <= accepted(function)
    if isinstance(expression.func, ast.Name) and expression.func.id in DECORATORS:
        assert callable(eval(offer, vars(opero).copy()))


@pytest.mark.once
def test_the_programs_for_2_x_use_what_it_had() -> None:
    """They cannot run; they import names of 2.7.5 and give parameters that those took."""
    programs = [block for block in blocks(PAGE) if block.mark == "opero 2"]
    assert len(programs) >= 4
    for program in programs:
        tree = ast.parse(program.text)
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "opero"
            for alias in node.names
        }
        assert imported
        assert imported <= {*SIGNATURES, *VALUES}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                taken = {each.arg for each in arguments(SIGNATURES.get(node.func.id, "")).args}
                given = {keyword.arg for keyword in node.keywords}
                assert given <= taken or node.func.id not in imported


@pytest.mark.once
def test_defaults_that_differ_are_told_at_the_top() -> None:
    """A default of 2.7.5 that is another one now has its line where changes without an error stand."""
    top = section(NAME, "## What changes without an error")
    differing = set()
    for name in ("opero", "opmap"):
        now = inspect.signature(getattr(opero, name)).parameters
        then = arguments(SIGNATURES[name])
        for argument, default in zip(then.args, then.defaults, strict=True):
            was = eval(ast.unparse(default))
            new = now[argument.arg].default
            if was != new and new != (was,):  # `(Exception,)` means `Exception`
                differing.add(argument.arg)
    assert differing == {"cache", "cache_namespace"}
    assert "`cache=True`" in top
    assert "are not read" in top  # of a namespace of any name
