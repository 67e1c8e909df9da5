"""Keys of frames, series and indexes of pandas and polars: by class, labels, types and values."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from opero import CacheKeyError, frames, hotpath, opero

try:
    import polars as pl
except ImportError:  # there is none for this Python
    pl = None

PANDAS: dict[str, Callable[[], Any]] = {
    "frame": lambda: pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
    "columns in another order": lambda: pd.DataFrame({"b": ["x", "y"], "a": [1, 2]}),
    "floats": lambda: pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}),
    "another text": lambda: pd.DataFrame({"a": [1, 2], "b": ["xy", ""]}),
    "objects": lambda: pd.DataFrame({"a": [1, "x", None, [1]]}),
    "objects that look alike": lambda: pd.DataFrame({"a": [True, "x", None, [1]]}),
    "labels": lambda: pd.DataFrame({"a": [1, 2]}, index=["p", "q"]),
    "labels of two levels": lambda: pd.DataFrame(
        {"a": [1, 2]}, index=pd.MultiIndex.from_tuples([(1, "a"), (2, "b")])
    ),
    "empty": lambda: pd.DataFrame(),
    "categories": lambda: pd.Series(["a", "b", "a"], dtype="category"),
    "times in a zone": lambda: pd.Series(pd.date_range("2024-01-01", periods=3, tz="Europe/Paris")),
    "times": lambda: pd.Series(pd.date_range("2024-01-01", periods=3)),
    "index of times": lambda: pd.date_range("2024-01-01", periods=3),
    "index of other times": lambda: pd.DatetimeIndex(["2024-01-01", "2024-01-03"]),
    "index of working days": lambda: working_days("2030-01-01"),
    "index of working days with other holidays": lambda: working_days("2031-01-01"),
    "index of working hours": lambda: pd.date_range("2024-01-01 12:00", periods=2, freq="bh"),
    "index of longer working hours": lambda: pd.date_range(
        "2024-01-01 12:00", periods=2, freq=pd.offsets.BusinessHour(start="08:00")
    ),
    "index of days at midnight": lambda: pd.date_range(
        "2024-01-01", periods=3, freq=pd.offsets.BDay(normalize=True)
    ),
    "categories as a type": lambda: pd.CategoricalDtype(["a", "b"]),
    "categories as a type in another order": lambda: pd.CategoricalDtype(["b", "a"]),
    "categories that nobody knows yet": lambda: pd.CategoricalDtype(),
    "frame without duplicate labels": lambda: pd.DataFrame(
        {"a": [1, 2], "b": ["x", "y"]}
    ).set_flags(allows_duplicate_labels=False),
    "numbers or nothing": lambda: pd.Series([1, None], dtype="Int64"),
    "booleans or nothing": lambda: pd.Series([True, None], dtype="boolean"),
    "texts or nothing": lambda: pd.Series(["a", None], dtype="string"),
    "periods": lambda: pd.Series(pd.period_range("2024-01", periods=2, freq="M")),
    "intervals": lambda: pd.Series(pd.interval_range(0, 2)),
    "index of a range": lambda: pd.RangeIndex(3),
    "index of numbers": lambda: pd.Index([0, 1, 2]),
    "durations": lambda: pd.Series(pd.to_timedelta([1, 2], unit="s")),
    "sparse": lambda: pd.Series(pd.arrays.SparseArray([0, 0, 1])),
    "series": lambda: pd.Series([1, 2]),
    "series with a name": lambda: pd.Series([1, 2], name="n"),
    "nan": lambda: pd.Series([1.0, float("nan")]),
    "missing": lambda: pd.NA,
    "period": lambda: pd.Period("2024-01", freq="M"),
    "interval": lambda: pd.Interval(0, 1),
}


def working_days(holiday: str) -> Any:
    """Return days that are the same for all holidays, with a frequency that is not."""
    return pd.date_range("2024-01-01", periods=3, freq=pd.offsets.CDay(holidays=[holiday]))


def nanoseconds(count: int) -> Any:
    """Return a series of one time of day, which Python's own cannot tell from midnight."""
    return pl.Series("a", [count]).cast(pl.Time)


POLARS: dict[str, Callable[[], Any]] = {
    "frame": lambda: pl.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
    "nothing": lambda: pl.DataFrame({"a": [1, None], "b": ["x", None]}),
    "no nothing": lambda: pl.DataFrame({"a": [1, 0], "b": ["x", None]}),
    "empty": lambda: pl.DataFrame(),
    "series": lambda: pl.Series("a", [1, 2]),
    "another name": lambda: pl.Series("b", [1, 2]),
    "floats": lambda: pl.Series("a", [1.0, 2.0]),
    "smaller numbers": lambda: pl.Series("a", [1, 2], dtype=pl.Int8),
    "times": lambda: pl.Series("a", [dt.datetime(2024, 1, 1)]),  # noqa: DTZ001
    "times in a zone": lambda: pl.Series("a", [dt.datetime(2024, 1, 1, tzinfo=dt.UTC)]),
    "dates": lambda: pl.Series("a", [dt.date(2024, 1, 1), None]),
    "durations": lambda: pl.Series("a", [dt.timedelta(1)]),
    "times of day": lambda: pl.Series("a", [dt.time(1)]),
    "booleans": lambda: pl.Series("a", [True, None]),
    "lists": lambda: pl.Series("a", [[1], [2, 3]]),
    "records": lambda: pl.Series("a", [{"x": 1}]),
    "no record": lambda: pl.Series("a", [None], dtype=pl.Struct({"x": pl.Int64})),
    "a record of nothing": lambda: pl.Series("a", [{"x": None}], dtype=pl.Struct({"x": pl.Int64})),
    "list of nothing, no list": lambda: pl.Series("a", [[None], []], dtype=pl.List(pl.Int64)),
    "no list, list of nothing": lambda: pl.Series("a", [[], [None]], dtype=pl.List(pl.Int64)),
    "list of a nanosecond": lambda: nanoseconds(1).implode(),
    "list of two nanoseconds": lambda: nanoseconds(2).implode(),
    "record of a nanosecond": lambda: pl.DataFrame({"x": nanoseconds(1)}).to_struct("a"),
    "record of two nanoseconds": lambda: pl.DataFrame({"x": nanoseconds(2)}).to_struct("a"),
    "array of a nanosecond": lambda: nanoseconds(1).reshape((1, 1)),
    "array of two nanoseconds": lambda: nanoseconds(2).reshape((1, 1)),
    "wide numbers": lambda: pl.Series("a", [2**64], dtype=pl.Int128),
    "wider numbers": lambda: pl.Series("a", [2**65], dtype=pl.Int128),
    "categories": lambda: pl.Series("a", ["x", "y"], dtype=pl.Categorical),
    "enumeration": lambda: pl.Series("a", ["x", "y"], dtype=pl.Enum(["x", "y"])),
    "decimals": lambda: pl.Series("a", ["1.0"]).cast(pl.Decimal(10, 2)),
    "bytes": lambda: pl.Series("a", [b"x"]),
    "nothing at all": lambda: pl.Series("a", [None, None]),
}


@pytest.mark.parametrize("library", [PANDAS, POLARS], ids=["pandas", "polars"])
def test_frames_count_by_their_content(core: hotpath.Core, library: Any) -> None:
    """The same frame made twice has one key, and no two frames share one, in memory and stored."""
    if library is POLARS and pl is None:
        pytest.skip("this Python has no polars")
    for make in (core.Freezer().freeze, core.Freezer().probe, core.Canonical().encode):
        keys = {name: make(value()) for name, value in library.items()}
        for name, value in library.items():
            key = make(value())
            assert [other for other in keys if keys[other] == key] == [name]
            assert hash(key) == hash(keys[name])


def test_a_frame_that_changes_after_the_call_is_another_argument(
    core: hotpath.Core, tmp_path: Any
) -> None:
    """Even if one cell or its labels change."""
    stored = {"cache_backend": "disk", "cache_dir": tmp_path, "cache_secret": "s" * 32}
    for options in ({}, stored):
        total = opero(cache=True, retries=1, **options)(total_of)  # type: ignore[call-overload]
        frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
        assert total(frame) == total(frame.copy()) == 3
        assert total.stats().hits == 1
        frame.loc[0, "a"] = 5
        assert total(frame) == 7
        assert total(frame.rename(columns={"b": "c"})) == 7
        assert total.stats().hits == 1


def total_of(frame: Any) -> int:
    """Return the sum of a column."""
    return int(frame["a"].sum())


def test_views_and_slices_count_as_copies_do(core: hotpath.Core) -> None:
    """Neither memory layout nor unused levels count."""
    wide = pd.DataFrame({"a": range(6), "b": list("xyzxyz")})
    levels = pd.MultiIndex.from_product([[1, 2], ["a", "b"]])
    encode = core.Canonical().encode
    assert encode(wide[::2]) == encode(wide[::2].copy())
    assert encode(levels[:2]) == encode(pd.MultiIndex.from_tuples([(1, "a"), (1, "b")]))


def test_numbers_count_as_bytes(core: hotpath.Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading their columns value by value would take a thousand times as long."""
    monkeypatch.setattr(frames, "MOST_VALUES", 1)
    index = pd.date_range("2024-01-01", periods=3)
    columns = {1: [1, 2, 3], 2: [1.0, 2.0, 3.0], 3: [True, False, True], 4: index}
    values: list[Any] = [pd.DataFrame(columns, index=[3, 4, 5]), pd.Series([1, 2, 3]), index]
    if pl is not None:
        values.append(pl.DataFrame({"a": [1, 2, 3], "b": [1.0, None, 3.0]}))
    for value in values:
        assert core.Freezer().probe(value) == core.Freezer().freeze(value)
        assert core.Canonical().encode(value)


def test_a_frame_that_takes_too_long_is_refused(
    core: hotpath.Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size decides, before any work begins."""
    monkeypatch.setattr(frames, "MOST_BYTES", 80)
    monkeypatch.setattr(frames, "MOST_VALUES", 10)
    values: list[Any] = [pd.DataFrame({"a": range(11)}), pd.Series(["a"] * 11)]
    if pl is not None:
        values += [pl.DataFrame({"a": range(11)}), pl.Series("a", ["a"] * 11)]
    for value in values:
        for make in (core.Freezer().probe, core.Canonical().encode):
            with pytest.raises(CacheKeyError, match=r"would take too long; use cache_key="):
                make(value)
