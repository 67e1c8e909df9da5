"""Classes that are complete once they are made: nothing can be added to them afterwards."""

from __future__ import annotations

from typing import Any

_OPTIONS = (
    "array_like", "cache_hash", "dict", "eq", "forbid_unknown_fields", "frozen", "gc",
    "omit_defaults", "order", "repr_omit_defaults", "tag", "tag_field", "weakref",
)  # fmt: skip


def of_struct(kind: Any, names: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """Return what makes a msgspec struct, with its fields but without its methods, and of what.

    Args:
        kind: The struct.
        names: What else it has from the start.
    """
    from msgspec import NODEFAULT  # type: ignore[import-not-found, unused-ignore]

    fields: tuple[str, ...] = kind.__struct_fields__
    defaults = dict(zip(reversed(fields), reversed(kind.__struct_defaults__), strict=False))
    annotations = dict(kind.__annotations__)
    own = [name for name in annotations if name in fields]
    given: dict[str, Any] = {}
    factories: dict[str, Any] = {}
    for name in own:
        default = defaults.get(name, NODEFAULT)
        if type(default).__module__ == "msgspec._core" and hasattr(default, "factory"):
            factories[name] = default.factory
        elif default is not NODEFAULT:
            given[name] = default
    config = kind.__struct_config__
    options = {name: getattr(config, name) for name in _OPTIONS if hasattr(config, name)}
    renamed = dict(zip(fields, kind.__struct_encode_fields__, strict=True))
    options["rename"] = {name: new for name, new in renamed.items() if name != new}
    options["kw_only"] = bool(own) and not set(own) & set(kind.__match_args__)
    names = {**names, "__qualname__": kind.__qualname__, "__annotations__": annotations, **given}
    return make_struct, (type(kind), kind.__name__, kind.__bases__, names, factories, options)


def make_struct(
    meta: Any,
    name: str,
    bases: tuple[type, ...],
    names: dict[str, Any],
    factories: dict[str, Any],
    options: dict[str, Any],
) -> Any:
    """Make what `of_struct` has taken apart."""
    from msgspec import field

    made = {each: field(default_factory=factory) for each, factory in factories.items()}
    return meta(name, bases, {**names, **made}, **options)


def rest_of_struct(contents: dict[str, Any], kind: Any) -> dict[str, Any]:
    """Return what a struct gets once it is made: the names that are no fields of it."""
    early = {"__slots__", "__annotations__", "__annotate_func__", *kind.__struct_fields__}
    return {name: each for name, each in contents.items() if name not in early}
