"""Keys of values that other libraries make: pydantic, msgspec, pandas, dateutil; in memory and stored."""

from __future__ import annotations

import datetime as dt
import functools
from typing import Any
from zoneinfo import ZoneInfo

import dateutil.tz
import msgspec
import pandas as pd
import pydantic
import pytest

from opero import opero
from opero.exceptions import CacheKeyError
from opero.hotpath import Core


class Query(pydantic.BaseModel):
    """A model whose instances have no hash."""

    name: Any
    tags: dict[str, Any] = {}
    _seen: int = pydantic.PrivateAttr(default=0)

    @functools.cached_property
    def words(self) -> list[str]:
        """Leave a value in the instance."""
        return self.name.split()


class OtherQuery(pydantic.BaseModel):
    """Another class with the same fields."""

    name: Any
    tags: dict[str, Any] = {}


class Open(pydantic.BaseModel, extra="allow", frozen=True):
    """A model that accepts extra values."""

    n: Any = None


class Root(pydantic.RootModel[list[Any]]):
    """A model of one value."""


class Point(msgspec.Struct):
    """A struct whose instances have no hash."""

    x: Any
    y: Any = None


class Frozen(msgspec.Struct, frozen=True):
    """A struct with its own hash, which treats 1 and True as the same."""

    x: Any


DIFFERENT: list[Any] = [
    Query(name="a"),
    Query(name="b"),
    Query(name="a", tags={}),  # `model_dump(exclude_unset=True)` tells it from the first
    Query(name="a", tags={"a": 1}),
    Query(name="a", tags={"a": True}),
    OtherQuery(name="a"),
    {"name": "a", "tags": {}},
    Open(n=1),
    Open(n=True),
    Open(n=1.0),
    Open(n=1, more=2),
    Root([1]),
    Root([True]),
    Point(1),
    Point(True),
    Point(1, 2),
    Point([1]),
    Frozen(1),
    Frozen(1.0),
    pd.NaT,
    None,
    pd.Timestamp("2024-01-01"),
    pd.Timestamp("2024-01-01") + pd.Timedelta(nanoseconds=1),
    pd.Timestamp("2024-01-01", tz="Europe/Berlin"),
    dt.datetime(2024, 1, 1),  # noqa: DTZ001 - one without a time zone is meant
    pd.Timedelta("1s"),
    dt.timedelta(seconds=1),
    dateutil.tz.gettz("Europe/Berlin"),
    dateutil.tz.gettz("Europe/Paris"),
    dateutil.tz.UTC,
    dateutil.tz.tzoffset("X", 3600),
    dateutil.tz.tzoffset("X", 7200),
    ZoneInfo("Europe/Berlin"),
    dt.datetime(2024, 1, 1, tzinfo=dateutil.tz.gettz("Europe/Berlin")),
    dt.datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
]


def test_different_values_have_different_keys(core: Core) -> None:
    """Types count at every depth, and so does the class."""
    freezer, canonical = core.Freezer(), core.Canonical()
    kept = [freezer.freeze(value) for value in DIFFERENT]
    stored = [canonical.encode(value) for value in DIFFERENT]
    for at, value in enumerate(DIFFERENT):
        assert kept.index(freezer.freeze(value)) == at, value
        assert stored.index(canonical.encode(value)) == at, value


@pytest.mark.parametrize(
    "make",
    [
        lambda: Query(name="a b", tags={"x": [1]}),
        lambda: Query(name="a b"),
        lambda: Open(n=(1,), more=[2]),
        lambda: Open(more=[2]),
        lambda: Root([{"a": 1}]),
        lambda: Point([1], {"y": 2}),
        lambda: Frozen((1, "a")),
        lambda: pd.Timestamp("2024-06-01 02:30:00.5", tz="Europe/Berlin"),
        lambda: pd.Timedelta(days=1, nanoseconds=3),
        lambda: dateutil.tz.gettz("Europe/Berlin"),
    ],
)
def test_values_made_alike_share_a_key(core: Core, make: Any) -> None:
    """The content counts, not the object."""
    freezer, canonical = core.Freezer(), core.Canonical()
    assert freezer.freeze(make()) == freezer.freeze(make())
    assert hash(freezer.freeze(make())) == hash(freezer.freeze(make()))
    assert canonical.encode(make()) == canonical.encode(make())


def test_looking_at_a_model_does_not_change_its_key(core: Core) -> None:
    """Neither `cached_property` nor a private attribute counts."""
    freezer, canonical = core.Freezer(), core.Canonical()
    query, seen = Query(name="a b"), Query(name="a b")
    assert seen.words == ["a", "b"]
    seen._seen = 3
    assert freezer.freeze(query) == freezer.freeze(seen)
    assert canonical.encode(query) == canonical.encode(seen)


def test_a_model_that_changes_after_the_call_is_another_argument(core: Core) -> None:
    """A key that is kept holds copies."""
    runs: list[str] = []

    @opero(cache=True, retries=1)
    def ask(query: Query) -> str:
        runs.append(query.name)
        return str(query.name)

    query = Query(name="a", tags={"x": [1]})
    assert (ask(query), ask(query.model_copy(deep=True))) == ("a", "a")
    query.tags["x"].append(2)
    assert ask(query) == "a"
    assert len(runs) == 2


def test_a_field_that_has_no_key_is_refused_by_its_place(core: Core) -> None:
    """For example, a stored key of a model that holds a connection would mean nothing."""
    with pytest.raises(CacheKeyError, match="no stored cache key can be made of object"):
        core.Canonical().encode(Query(name=object()))


def test_a_zone_that_is_not_its_files_is_refused(core: Core) -> None:
    """Two time zones with one file name may have different content."""
    berlin, paris = dateutil.tz.gettz("Europe/Berlin"), dateutil.tz.gettz("Africa/Cairo")
    assert berlin is not None
    assert paris is not None
    forged = dateutil.tz.tzfile(paris._filename)
    forged._filename = berlin._filename
    for make in (core.Freezer().freeze, core.Canonical().encode):
        with pytest.raises(CacheKeyError, match="gettz does not return"):
            make(forged)
