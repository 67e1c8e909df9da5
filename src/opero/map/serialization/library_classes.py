"""Classes that are complete once they exist, because nothing can be added to them later."""

from __future__ import annotations

from typing import Any

_OPTIONS = (
    "array_like", "cache_hash", "dict", "eq", "forbid_unknown_fields", "frozen", "gc",
    "omit_defaults", "order", "repr_omit_defaults", "tag", "tag_field", "weakref",
)  # fmt: skip


def of_struct(kind: Any, names: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """Return a function that makes a msgspec struct without its methods, and its arguments.

    Args:
        kind: The struct.
        names: Other names that it has from the start.
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
    """Make the struct that `of_struct` took apart."""
    from msgspec import field

    made = {each: field(default_factory=factory) for each, factory in factories.items()}
    return meta(name, bases, {**names, **made}, **options)


def rest_of_struct(contents: dict[str, Any], kind: Any) -> dict[str, Any]:
    """Return what a struct gets after it is made: the names that are not its fields."""
    early = {"__slots__", "__annotations__", "__annotate_func__", *kind.__struct_fields__}
    return {name: each for name, each in contents.items() if name not in early}
