"""How values of other libraries come apart: pydantic, msgspec, pandas, polars, dateutil.

`decompose.py` calls this module once for each class. It imports nothing: if a library is not
loaded, no value is from it.
"""

from __future__ import annotations

import sys

from opero import frames
from opero.exceptions import CacheKeyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def take_of(cls: type) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[str, str] | None] | None:
    """Return how the instances of a library's class come apart.

    Args:
        cls: The class.

    Returns:
        A function from a value to its parts, which are simpler values, and the names of the class
        that are the same everywhere (None to use its own module and name); None if the class
        belongs to none of the libraries.
    """
    model = _loaded("pydantic", "BaseModel")
    if hasattr(model, "model_dump") and issubclass(cls, model):  # not of pydantic 1
        return _model, None
    meta = _loaded("msgspec", "StructMeta") or type(_loaded("msgspec", "Struct"))
    if meta is not type(None) and meta is not type and isinstance(cls, meta):
        return _struct, None
    for (library, name), take in _KNOWN.items():
        found = _loaded(library, name)
        if found is not None and cls is (found if isinstance(found, type) else type(found)):
            return take, (library, name)
    return None


def _loaded(library: str, name: str) -> Any:
    """Return an attribute of a module; None if the module is not loaded or lacks it."""
    return getattr(sys.modules.get(library), name, None)


def _model(value: Any) -> tuple[Any, ...]:
    """A pydantic model is compared by its fields, which of them were set, and its extra values.

    Private attributes do not count, nor do values that `cached_property` stores in the instance.
    """
    cls = type(value)
    names = getattr(cls, "__pydantic_fields__", None)
    if names is None:  # before pydantic 2.10
        names = cls.model_fields
    held = value.__dict__
    fields = {name: held[name] for name in names if name in held}
    extra = getattr(value, "__pydantic_extra__", None) or None
    given = getattr(value, "__pydantic_fields_set__", fields)
    unset = tuple(name for name in fields if name not in given)
    return (fields, extra, unset) if unset else (fields, extra)


def _struct(value: Any) -> tuple[Any, ...]:
    """A msgspec struct is compared by its fields."""
    missing = object()
    fields = {name: getattr(value, name, missing) for name in type(value).__struct_fields__}
    return ({name: item for name, item in fields.items() if item is not missing},)


def _timestamp(value: Any) -> tuple[Any, ...]:
    return value.unit, int(value.asm8.view("i8")), value.tzinfo, value.fold


def _timedelta(value: Any) -> tuple[Any, ...]:
    return value.unit, int(value.asm8.view("i8"))


def _nothing(_: Any) -> tuple[Any, ...]:
    return ()


def _period(value: Any) -> tuple[Any, ...]:
    return value.ordinal, value.freqstr


def _interval(value: Any) -> tuple[Any, ...]:
    return value.left, value.right, value.closed


def _zone_file(value: Any) -> tuple[Any, ...]:
    """A dateutil time zone is compared by its file, if it has the contents of that file."""
    path = getattr(value, "_filename", None)
    gettz = _loaded("dateutil.tz", "gettz")
    if not isinstance(path, str) or gettz is None or gettz(path) != value:
        raise CacheKeyError(
            "no cache key can be made of a dateutil.tz.tzfile that dateutil.tz.gettz does not "
            "return; use cache_key= to make the key yourself"
        )
    return (path,)


def _zone_offset(value: Any) -> tuple[Any, ...]:
    return value.tzname(None), value.utcoffset(None)


_KNOWN: dict[tuple[str, str], Callable[[Any], tuple[Any, ...]]] = {
    ("pandas", "CategoricalDtype"): frames.pandas_categories,
    ("pandas", "CategoricalIndex"): frames.pandas_index,
    ("pandas", "DataFrame"): frames.pandas_frame,
    ("pandas", "DatetimeIndex"): frames.pandas_index,
    ("pandas", "Index"): frames.pandas_index,
    ("pandas", "Interval"): _interval,
    ("pandas", "IntervalIndex"): frames.pandas_index,
    ("pandas", "MultiIndex"): frames.pandas_index,
    ("pandas", "NA"): _nothing,
    ("pandas", "NaT"): _nothing,
    ("pandas", "Period"): _period,
    ("pandas", "PeriodIndex"): frames.pandas_index,
    ("pandas", "RangeIndex"): frames.pandas_index,
    ("pandas", "Series"): frames.pandas_series,
    ("pandas", "Timedelta"): _timedelta,
    ("pandas", "TimedeltaIndex"): frames.pandas_index,
    ("pandas", "Timestamp"): _timestamp,
    ("polars", "DataFrame"): frames.polars_frame,
    ("polars", "Series"): frames.polars_series,
    ("dateutil.tz", "tzfile"): _zone_file,
    ("dateutil.tz", "tzoffset"): _zone_offset,
    ("dateutil.tz", "UTC"): _nothing,
}
"""How classes come apart that are known by name, or have only one value."""
