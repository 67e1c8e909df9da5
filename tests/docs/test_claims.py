"""The documentation says what is so: its tables, names and numbers are those of the code."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

import pytest
from documents import DOCS, REDIS, ROOT, file_of, name_of, quoted, section, table, text_of

import opero as package
from opero import opero, opmap, switches
from opero.clients import outages
from opero.clients import redis as redis_clients
from opero.options import BACKENDS, CacheConfig, CacheOptions, call_options, read_by
from opero.stats import CacheInfo, Stats
from opero.stores import (
    connections,
    database,
    disk,
    in_threads,
    leases,
    renewer,
    secret,
    stored_cache,
)

sys.path.insert(0, str(ROOT))

from benchmarks import excerpt

pytestmark = pytest.mark.once

OPTIONS = ("docs/opero.md", "\n## Options\n")
BACKENDS_OPTIONS = ("docs/opero.md", "their own options. An option that the chosen backend")
OFFERS = "## What the decorated function offers"


def signature_of(function: Any) -> list[tuple[str, str]]:
    """The options of a decorator with their defaults, as the tables write them."""
    written = {(Exception,): "(Exception,)", Exception: "Exception"}
    return [
        (
            parameter.name,
            written.get(parameter.default) or repr(parameter.default).replace("'", '"'),
        )
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]


def cached(config: CacheConfig) -> CacheOptions:
    """The options of a cache, checked."""
    checked = call_options("opero", {"cache": config}).cache
    assert checked is not None
    return checked


def test_the_table_of_options_is_the_signature() -> None:
    """Names, order and defaults of the options in the table are those of `@opero`."""
    rows = table(*OPTIONS)
    assert [(quoted(name), quoted(default)) for name, default, _ in rows] == signature_of(opero)
    assert all(meaning for _, _, meaning in rows)


def test_the_table_of_the_maps_options_has_what_opero_does_not_have() -> None:
    """With their defaults; the others mean what they mean for `@opero`, as the text says."""
    told = {
        quoted(name): quoted(default)
        for name, default, _ in table("docs/opmap.md", "\n## Options\n")
    }
    every = dict(signature_of(opmap))
    also = dict(signature_of(opero))
    # they mean for an item what they do not mean for a call
    others = {"attempt_timeout", "breaker", "rate_limit", "timeout"}
    assert told.keys() - others == every.keys() - also.keys()
    assert told == {name: every[name] for name in told}
    differing = {name for name in every.keys() & also.keys() if every[name] != also[name]}
    assert differing == {"cache_namespace"}
    assert every["cache_namespace"] in section("docs/opmap.md", "## Options").replace("`", '"')


def test_the_reference_names_every_option_once() -> None:
    """The table by mechanism has those of both decorators, and no others."""
    named = [
        option
        for _, options, _ in table("docs/reference/index.md", "\n## Options by mechanism\n")
        for option in re.findall(r"`(\w+)`", options)
    ]
    every = dict([*signature_of(opero), *signature_of(opmap)])
    assert sorted(named) == sorted(every)


def test_the_decorators_of_one_mechanism_take_the_options_in_their_table() -> None:
    """Each of the four takes its options, and none of the others that `@opero` has."""
    every = inspect.signature(opero).parameters
    given: dict[str, Any] = {
        name: parameter.default for name, parameter in every.items() if name != "kwargs"
    }
    needed = {"rate_limit": 5.0, "arg_fallback": "values"}
    rows = {
        quoted(name): re.findall(r"`(\w+)`", own)
        for name, own in table("docs/opero.md", "Four decorators")
    }
    assert set(rows) == {name for name in package.__all__ if name.endswith("_decorator")}
    for name, cell in rows.items():
        make = getattr(package, name)
        own = {option for option in cell if option in given}
        required = {option: needed[option] for option in own & needed.keys()}
        assert {option for option in cell if option not in given} <= {"True"}
        for option in own:
            assert callable(make(**{option: given[option], **required}))
        for option in given.keys() - own:
            with pytest.raises(TypeError, match=option):
                make(**{option: given[option], **required})


def test_the_table_of_backends_options_is_what_each_of_them_reads() -> None:
    """The others are an error that names the option and the backend."""
    rows = {quoted(name): readers for name, readers, _, _ in table(*BACKENDS_OPTIONS)}
    assert set(rows) == {
        option.name
        for option in read_by("opero")
        if option.backends and "memory" not in option.backends
    }
    values = {"cache_pickle": False, "cache_size_limit": 1}
    for option, readers in rows.items():
        given = {option.removeprefix("cache_"): values.get(option, "x")}
        for backend in BACKENDS:
            config = CacheConfig(True, ttl=1, backend=backend, backend_options=given)
            if backend in readers.split(", "):
                cached(config)
            else:
                bare = option.removeprefix("cache_")
                with pytest.raises(ValueError, match=f"^{bare}.*{backend}"):
                    cached(config)


def test_the_defaults_of_the_backends_options_are_true() -> None:
    """As the table has them."""
    defaults = {quoted(name): cell for name, _, cell, _ in table(*BACKENDS_OPTIONS)}
    on_disk = cached(CacheConfig(backend="disk"))
    redis = cached(CacheConfig(backend="redis"))
    assert defaults == {
        "cache_secret": f"`{on_disk.secret}`",
        "cache_version": f'`"{on_disk.version}"`',
        "cache_pickle": f"`{on_disk.pickles}`",
        "cache_dir": f"`{on_disk.directory}`",
        "cache_size_limit": "1 GiB" if on_disk.size_limit == 2**30 else on_disk.size_limit,
        "cache_url": f'`"{redis.url}"`',
    }
    assert redis.url == REDIS


def test_the_table_of_attributes_is_complete() -> None:
    """The decorated function has what its table says, and nothing public beside its figures."""

    @opero(cache=True)
    def function() -> None:
        """Has attributes."""

    rows = table("docs/opero.md", OFFERS)
    named = {re.sub(r"^f\.|\(.*", "", quoted(name)) for name, _ in rows}
    assert named == {"__wrapped__", "cache_info", "cache_clear", "cache_invalidate", "stats"}
    assert all(hasattr(function, name) for name in named)


def test_the_fields_of_the_figures_are_named() -> None:
    """`cache_info` and `stats` have the fields that the text names."""
    text = section("docs/opero.md", OFFERS).partition("```")[0]
    info = next(line for line in text.splitlines() if line.startswith("| `f.cache_info"))
    stats = text.partition("`stats()` has the fields")[2]

    assert tuple(re.findall(r"`(\w+)`", info)) == CacheInfo._fields
    assert tuple(re.findall(r"`(\w+)`", stats)) == Stats._fields


def test_switches_are_the_real_ones() -> None:
    """The environment variables and build settings in the text exist, and none is left out."""
    install = text_of("docs/install.md")
    assert set(re.findall(r"OPERO_[A-Z_]+", install)) == {
        switches.BUILD,
        switches.REQUIRE_COMPILED,
        switches.PURE_PYTHON,
    }
    assert set(re.findall(r"OPERO_[A-Z_]+", text_of("docs/security.md"))) == {secret.VARIABLE}
    assert set(re.findall(r"-C (\w+)=(\w+)", install)) == {
        (switches.SETTING, choice) for choice in switches.CHOICES
    }


def test_the_extras_that_are_named_are_all_that_users_may_want() -> None:
    """Those for development have no place on that page."""
    install = text_of("docs/install.md")
    named = re.findall(r"^\| `pip install '\.\[(\w+)\]'`", install, re.MULTILINE)
    assert named == ["disk", "redis", "dask", "otel", "prometheus", "structlog", "all"]


def test_the_modes_are_those_of_the_code() -> None:
    """On the page about them."""
    from opero.options.map_rows import MODES

    rows = table("docs/modes.md", "# Choosing a mode")
    assert {quoted(row[1]).strip('"') for row in rows} == set(MODES)


def test_the_times_that_a_failing_store_costs_are_those_of_the_code() -> None:
    """The table says them in words."""
    words = {
        0.5: "half a second",
        1.0: "a second at most",
        2.0: "two seconds",
        3.0: "three seconds",
        5.0: "five seconds",
    }
    text = section("docs/backends.md", "## When the store fails")
    for seconds in (
        disk.WAIT,
        database.LONGEST,
        redis_clients.LIMIT,
        outages.FIRST,
        connections.FORK_WAIT,
    ):
        assert words[seconds] in text, seconds
    assert outages.LAST == 10.0
    assert "ten seconds" in text
    assert (in_threads._READERS, in_threads._WRITERS, in_threads._PATIENCE) == (8, 4, 5.0)
    assert "eight for reading and four for writing" in text
    assert "five seconds at most for what is still to be written" in text


def test_the_times_that_processes_wait_for_each_other_are_those_of_the_code() -> None:
    """The list says them in words."""
    text = " ".join(
        section("docs/backends.md", "## When several processes miss the same value").split()
    )
    assert (leases.SECONDS, leases.SECONDS + leases._GRACE, renewer._PATIENCE) == (5.0, 5.5, 2.0)
    for words in ("five seconds", "five and a half seconds", "two seconds"):
        assert words in text, words
    assert stored_cache._NEAR == 10
    assert "last tenth" in section("docs/backends.md", "## How long a value is valid")


def test_what_the_limit_of_a_directory_bounds_is_what_the_code_keeps_to() -> None:
    """In words, beside the table of figures."""
    text = " ".join(section("docs/backends.md", "## On disk").split())
    assert database.CHECKPOINT == 4 << 20
    assert "4 MiB or an eighth of the limit" in text
    assert database.LEAST == 512 << 10
    assert "A limit below 512 KiB counts as 512 KiB" in text
    assert database.PATIENCE == 0.1
    assert "a tenth of a second at most" in text
    assert connections.FORK_WAIT == 3.0
    assert "three seconds at most" in text


@pytest.mark.parametrize(
    ("page", "what"),
    [
        ("performance", "measured"),
        ("performance", "measured maps"),
        ("performance", "measured stores"),
        ("backends", "measured load of caches"),
        ("limits", "measured load of limits"),
    ],
)
def test_measured_figures_have_their_place(page: str, what: str) -> None:
    """A measured table goes between two markers, each on a line of its own."""
    text = text_of(f"docs/{page}.md")
    begin, end = f"\n<!-- {what}:begin -->\n", f"\n<!-- {what}:end -->\n"
    assert text.count(begin) == text.count(end) == 1
    assert text.index(begin) < text.index(end)


@pytest.mark.checkout
def test_the_figures_of_the_readme_are_those_that_were_measured() -> None:
    """They are what `python -m benchmarks.excerpt` takes from the page on performance, and few."""
    readme = text_of("README.md")
    assert readme == excerpt.written(readme, text_of("docs/performance.md"))
    assert readme.count("<!-- figures:begin -->") == readme.count("<!-- figures:end -->") == 1
    assert len(excerpt.LINES) <= 6


@pytest.mark.checkout
@pytest.mark.parametrize("lost", ["| awaited hit |", "| pybreaker |"])
def test_a_figure_that_the_page_does_not_have_is_an_error(lost: str) -> None:
    """Nothing is left out in silence."""
    page = text_of("docs/performance.md")
    assert lost in page
    with pytest.raises(KeyError):
        excerpt.table(page.replace(lost, "| lost |"))


def test_every_public_name_is_explained_in_the_text() -> None:
    """No public name stands in the reference alone."""
    pages = [path for path in DOCS.glob("*.md") if file_of(text_of(name_of(path))) is None]
    text = "".join(text_of(name_of(path)) for path in pages)
    assert [name for name in package.__all__ if name not in text and name != "__version__"] == []
