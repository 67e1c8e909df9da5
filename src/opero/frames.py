"""Cache keys of pandas and polars frames: columns count as arrays, not as objects.

`library_values` calls this module. A key contains numbers and times as the bytes of an array,
strings as one long string with the lengths of its parts, and anything else value by value. Frames
above a size limit have no key, because it would take too long; use `cache_key=` for them.
"""

from __future__ import annotations

import sys

from opero.exceptions import CacheKeyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST_BYTES = 2**30
"""The greatest number of bytes in a column of numbers: about a second's work."""
MOST_VALUES = 2**24
"""The greatest number of other values in a column: a few seconds' work."""
_NOT_OF_NUMPY = ("Decimal", "Int128", "UInt128")
"""The numeric types of polars for which numpy has no arrays."""


def pandas_frame(value: Any) -> tuple[Any, ...]:
    """A frame is compared by its class, labels, and columns in their order."""
    columns = [_column(value.iloc[:, at]) for at in range(value.shape[1])]
    return (_labels(value.columns), _labels(value.index), columns, *_notes(value))


def pandas_series(value: Any) -> tuple[Any, ...]:
    """A series is compared by its name, labels and values."""
    return (value.name, _labels(value.index), _column(value), *_notes(value))


def pandas_index(value: Any) -> tuple[Any, ...]:
    """An index is compared by its names and values, and one of times also by its frequency."""
    return _labels(value)


def pandas_categories(value: Any) -> tuple[Any, ...]:
    """A categorical type is compared by its ordered categories; its own equality ignores order."""
    categories = value.categories
    return (None if categories is None else _labels(categories), bool(value.ordered))


def polars_frame(value: Any) -> tuple[Any, ...]:
    """A frame is compared by its columns in their order."""
    return (value.height, [polars_series(column) for column in value.get_columns()])


def polars_series(value: Any) -> tuple[Any, ...]:
    """A series is compared by its name, type and values; a nested one by the series inside it.

    Python's own times, which `to_list` makes, have no nanoseconds.
    """
    polars = sys.modules["polars"]
    dtype = value.dtype
    told = (value.name, str(dtype))
    if dtype == polars.Struct:
        inside = [polars_series(value.struct.field(name)) for name in value.struct.fields]
        return (*told, polars_series(value.is_null()), inside)
    if dtype == polars.List:
        return (*told, polars_series(value.list.len()), polars_series(value.explode()))
    if dtype == polars.Array:
        return (*told, polars_series(value.is_null()), polars_series(value.explode()))
    if dtype in (polars.Categorical, polars.Enum):
        value = value.cast(polars.String)
    elif not str(dtype).startswith(_NOT_OF_NUMPY) and (
        dtype.is_numeric() or dtype.is_temporal() or dtype == polars.Boolean
    ):
        plain = value.to_physical()
        missing = plain.is_null()
        if missing.any():
            plain = plain.fill_null(False if dtype == polars.Boolean else 0)
            return (*told, _numbers(plain.to_numpy()), _numbers(missing.to_numpy()))
        return (*told, _numbers(plain.to_numpy()))
    _check(len(value), MOST_VALUES, "values that are not numbers")
    return (*told, _values(value.to_list()))


def _labels(index: Any) -> tuple[Any, ...]:
    pandas = sys.modules["pandas"]
    if isinstance(index, pandas.RangeIndex):
        return ("range", index.start, index.stop, index.step, index.name)
    kind = type(index).__name__
    names = list(index.names)
    if isinstance(index, pandas.MultiIndex):
        levels = [_column(index.get_level_values(at)) for at in range(index.nlevels)]
        return (kind, names, levels)
    return (kind, names, _column(index), _frequency(index))


def _frequency(index: Any) -> Any:
    """Return the parts of a frequency: its name leaves out holidays, hours and the like."""
    name = getattr(index, "freqstr", None)
    if name is None:
        return None
    given = dict(index.freq.kwds)
    calendar = given.pop("calendar", None)
    if calendar is not None:
        given["calendar"] = (calendar.weekmask, calendar.holidays)
    return (name, index.freq.normalize, given) if given or index.freq.normalize else name


def _notes(value: Any) -> tuple[Any, ...]:
    """Return the metadata of a frame or series."""
    return dict(value.attrs), value.flags.allows_duplicate_labels


def _column(column: Any) -> tuple[Any, ...]:
    """Return the values of a pandas series or index as simpler values."""
    numpy, pandas = sys.modules["numpy"], sys.modules["pandas"]
    dtype = column.dtype  # not the dtype of its array, which is numpy's own only for times
    if isinstance(dtype, numpy.dtype) and dtype.kind != "O":
        return ("numpy", _numbers(column.to_numpy()))
    values = column.array
    if isinstance(dtype, pandas.CategoricalDtype):
        codes = _numbers(numpy.asarray(values.codes))
        return ("category", codes, _labels(values.categories), bool(values.ordered))
    if isinstance(dtype, pandas.DatetimeTZDtype):
        return ("zoned", dtype.unit, dtype.tz, _numbers(numpy.asarray(values.asi8)))
    if isinstance(dtype, pandas.PeriodDtype):
        return ("period", str(dtype), _numbers(numpy.asarray(values.asi8)))
    name = str(dtype)
    if name.endswith("[pyarrow]") and "time64[ns]" in name:
        raise CacheKeyError(
            f"no cache key can be made of a column of {name}: Python's times have no nanoseconds; "
            f"use cache_key= to make the key yourself"
        )
    _check(len(values), MOST_VALUES, "values that are not numbers")
    return (name, _values(list(values)))


def _numbers(array: Any) -> Any:
    _check(array.nbytes, MOST_BYTES, "bytes")
    return array


def _values(values: list[Any]) -> Any:
    """Return values as one string with the lengths of its parts, if all are strings."""
    if {*map(type, values)} != {str}:
        return values
    numpy = sys.modules.get("numpy")
    lengths = [*map(len, values)]
    sizes = lengths if numpy is None else numpy.array(lengths, dtype="<i8")
    return ("texts", sizes, "".join(values).encode("utf-8", "surrogatepass"))


def _check(size: int, most: int, what: str) -> None:
    if size > most:
        raise CacheKeyError(
            f"no cache key can be made of a frame or series with {size} {what} in a column: more "
            f"than {most} would take too long; use cache_key= to make the key yourself"
        )
