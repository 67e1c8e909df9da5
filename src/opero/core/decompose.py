"""Take a value apart into plainer values, which both kinds of cache key treat as its content.

`keys` and `canonical` handle the plain builtins themselves (None, bool, int, float, str, bytes,
tuple, list, dict, set, frozenset). They take any other value apart here and continue with its
parts:

    type(value) -> Decomposer.recipe -> Recipe
    value, Recipe -> Decomposer.parts -> tuple of plainer values

Each class is studied once; its recipe lives as long as the class. Classes known by name
(`datetime.datetime`, `uuid.UUID`, ...) are looked up in the modules that are already loaded. This
imports nothing: a value cannot turn up before the module of its type is imported.

The parts are the whole content, so values with equal parts are interchangeable:

    known types        what `_KNOWN` says below
    subclasses of them the base's content, and the instance's own attributes and slots
    dataclass, attrs   every field, and the instance's other attributes and slots
    enum member        its name and its value; for a flag, the names in it; for a member that its
                       class does not list (`_missing_` can make one), all its content
    numpy array        dtype, shape, bytes in C order; element by element if it holds objects

Values that only reading the instance leaves in it do not count: those of `cached_property`, and
fields that neither the constructor nor comparisons use.

Any other value is opaque: it has no parts, and only its own equality and hash identify it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from gc import get_referents
from types import (
    BuiltinFunctionType,
    FunctionType,
    MappingProxyType,
    SimpleNamespace,
    UnionType,
)
from weakref import ref

from opero import gil, library_values, standard_values
from opero.exceptions import CacheKeyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HEAP_TYPE = 1 << 9
_ABSENT = object()
WAY_OUT = "; use cache_key= to make the key yourself"
DEPTH = 200
TOO_DEEP = (
    f"no cache key can be made of a value that contains itself, or is nested more than {DEPTH} "
    f"levels deep{WAY_OUT}"
)

_OWN_FRAMES = 150
"""A value that uses this many frames is too deep; with fewer, the program's own stack is."""


def name_of(cls: type) -> str:
    """Return the name of a class for messages.

    Args:
        cls: The class.
    """
    module = cls.__module__
    return cls.__qualname__ if module == "builtins" else f"{module}.{cls.__qualname__}"


class Same:
    """Stands for an object without a hash, which is compared by identity.

    Attributes:
        target: The object.
    """

    __slots__ = ("target",)

    def __init__(self, target: object) -> None:
        """Stand for an object and keep it alive.

        Args:
            target: The object.
        """
        self.target: object = target

    def __eq__(self, other: object) -> bool:
        return type(other) is Same and other.target is self.target

    def __hash__(self) -> int:
        return id(self.target) >> 4


def by_its_own_rules(value: Any) -> Any:
    """Return a value that has no parts, or its substitute in a key.

    Args:
        value: The value.

    Raises:
        CacheKeyError: If it has no hash.
    """
    try:
        hash(value)
    except TypeError as error:
        times = sys.modules.get("datetime")
        if times is not None and isinstance(value, times.tzinfo):
            return Same(value)  # several time zone libraries have no hash, and never change
        raise CacheKeyError(
            f"no cache key can be made of {name_of(type(value))}: "
            f"it has no hash, and its content is unknown ({error}){WAY_OUT}"
        ) from error
    return value


class Recipe:
    """How the instances of one class come apart.

    Attributes:
        alive: A weak reference to the class, so that no recipe keeps one alive.
        opaque: Whether instances have no parts.
        whole: Whether the parts of the one known type are all the content.
        takes: One function per known base, value -> tuple of parts.
        fields: The names of the fields of a dataclass or attrs class.
        slots: The slots that the class and its bases add to the known ones: (key, name, slot).
        lazy: The names of attributes and slots that do not count because reading the instance sets
            them, and of the fields, which count separately.
        hidden: Whether a base written in C may hold content that the parts lack.
        member: Whether the class is an enumeration.
        tag: What replaces the class in a key, or None.
        label: Module and name of a known class, the same on every Python version; otherwise None.
    """

    __slots__ = (
        "alive",
        "fields",
        "hidden",
        "label",
        "lazy",
        "member",
        "opaque",
        "slots",
        "tag",
        "takes",
        "whole",
    )

    def __init__(self, alive: ref[type]) -> None:
        """Begin with a class that has not been studied.

        Args:
            alive: A weak reference to the class.
        """
        self.alive: Any = alive
        self.opaque: bool = True
        self.whole: bool = False
        self.takes: tuple[Callable[[Any], tuple[Any, ...]], ...] = ()
        self.fields: tuple[str, ...] | None = None
        self.slots: tuple[tuple[str, str, Any], ...] = ()
        self.lazy: frozenset[str] = frozenset()
        self.hidden: bool = False
        self.member: bool = False
        self.tag: type | None = None
        self.label: tuple[str, str] | None = None


class Decomposer:
    """The recipes of the classes seen so far.

    Attributes:
        recipes: By the id of the class.
    """

    __slots__ = ("recipes",)

    def __init__(self) -> None:
        """Start with no class seen."""
        self.recipes: dict[int, Recipe] = {}

    def recipe(self, cls: type) -> Recipe:
        """Return how the instances of a class come apart.

        Args:
            cls: The class.
        """
        found = (
            gil.look_up(self.recipes, id(cls)) if gil.FREE_THREADED else self.recipes.get(id(cls))
        )
        if found is not None and found.alive() is cls:
            return found
        number = id(cls)
        made = _study(cls, Recipe(ref(cls, partial(_forget, self.recipes, number))))
        self.recipes[number] = made
        return made

    def parts(self, value: Any, recipe: Recipe) -> tuple[Any, ...]:
        """Take a value apart.

        Args:
            value: An instance.
            recipe: Its class's recipe, not an opaque one.

        Returns:
            Plainer values. For a class that is not `whole`: one tuple per known base, the fields
            that are set, and finally None or the rest: the names of the fields that are not set,
            the other attributes, the other slots.

        Raises:
            CacheKeyError: If the content cannot be read.
        """
        if recipe.whole:
            return recipe.takes[0](value)
        found: list[Any] = []
        for take in recipe.takes:
            found.append(take(value))  # noqa: PERF401 - a comprehension is a call before 3.12
        fields = recipe.fields or ()
        unset: list[str] = []
        for name in fields:
            item = getattr(value, name, _ABSENT)
            if item is _ABSENT:
                unset.append(name)
            else:
                found.append(item)
        rest = getattr(value, "__dict__", None)
        if rest:
            rest = {key: item for key, item in rest.items() if key not in recipe.lazy}
        slots: dict[str, Any] = {}
        for key, name, slot in recipe.slots:
            if name not in recipe.lazy:
                item = _read(slot, value)
                if item is not _ABSENT:
                    slots[key] = item
        if unset or rest or slots:
            found.append((tuple(unset), rest or {}, slots))
        else:
            found.append(None)
        return tuple(found)


def _forget(recipes: dict[int, Recipe], number: int, gone: ref[type]) -> None:
    """Drop the recipe of a class that has died.

    Args:
        recipes: The recipes.
        number: The id that the class had.
        gone: The weak reference that has just been cleared.
    """
    held = recipes.get(number)
    if held is not None and held.alive is gone:
        del recipes[number]


def _study(cls: type, recipe: Recipe) -> Recipe:
    """Find out how the instances of a class come apart.

    Args:
        cls: The class.
        recipe: Its recipe, to be filled in.
    """
    if _is_enumeration(cls):
        recipe.opaque = False
        recipe.whole = recipe.member = True
        recipe.takes = (_flag if _is_flag(cls) else _member,)
        return recipe
    numpy = sys.modules.get("numpy")
    if numpy is not None and _study_numpy(cls, recipe, numpy):
        return recipe
    known = library_values.take_of(cls) or standard_values.take_of(cls)
    if known is not None:
        recipe.opaque = False
        recipe.whole = True
        recipe.takes = (known[0],)
        recipe.label = known[1]
        if recipe.label == standard_values.UNION:
            recipe.tag = UnionType  # before 3.14, there are two union classes with equal values
        return recipe
    if _written_in_c(cls) and issubclass(cls, tuple) and "n_sequence_fields" in cls.__dict__:
        recipe.opaque = False
        recipe.whole = True
        recipe.takes = (_reduced,)
        return recipe
    takes: list[Callable[[Any], tuple[Any, ...]]] = []
    slots: list[tuple[str, str, Any]] = []
    covered: set[type] = {object}
    for base in cls.__mro__:
        if base in covered:
            continue
        take = _known(base)
        if take is not None:
            takes.append(take)
            covered.update(base.__mro__)
        elif _written_in_c(base):
            recipe.hidden = True
        else:
            for name, slot in base.__dict__.items():
                if type(slot) is _SLOT:
                    taken = sum(other == name for _, other, _ in slots)
                    slots.append((f"{name}#{taken}" if taken else name, name, slot))
    recipe.takes = tuple(takes)
    recipe.slots = tuple(slots)
    recipe.fields, lazy = _fields(cls)
    recipe.lazy = frozenset((*(recipe.fields or ()), *lazy, *_left_by_looking(cls)))
    recipe.opaque = not takes and recipe.fields is None
    if _known(cls) is not None:
        recipe.label = (cls.__module__.partition(".")[0], cls.__qualname__)
        recipe.whole = recipe.label not in _WITH_ATTRIBUTES
    return recipe


def _written_in_c(cls: type) -> bool:
    """Return whether a class may have content that Python code did not give it.

    Args:
        cls: The class.
    """
    if not cls.__flags__ & _HEAP_TYPE:
        return True
    made = cls.__dict__.get("__new__")
    return type(made) is BuiltinFunctionType and made.__self__ is cls


def _known(cls: type) -> Callable[[Any], tuple[Any, ...]] | None:
    """Return the function that takes a known class apart; None for any other class.

    A class counts as known only if its module, or the C half of that module, holds it under its
    name. So replacing `datetime.datetime` with another class changes nothing here.

    Args:
        cls: The class.
    """
    take = _BUILTIN.get(cls)
    if take is not None:
        return take
    root = cls.__module__.partition(".")[0] if isinstance(cls.__module__, str) else ""
    take = _KNOWN.get((root, cls.__qualname__))
    if take is None:
        return None
    for module in (root, "_" + root):
        if getattr(sys.modules.get(module), cls.__qualname__, None) is cls:
            return take
    return None


def _fields(cls: type) -> tuple[tuple[str, ...] | None, list[str]]:
    """Return the names of the fields of a dataclass or attrs class; None for any other class.

    Args:
        cls: The class.

    Returns:
        The names of the fields that count, and of those that do not: neither the constructor nor
        comparisons use the latter, so their values are derived from the other fields.
    """
    names: list[str] = []
    lazy: list[str] = []
    known = False
    if isinstance(getattr(cls, "__dataclass_fields__", None), dict):
        from dataclasses import fields

        known = True
        for field in fields(cls):
            (names if field.init or field.compare else lazy).append(field.name)
    attributes = getattr(cls, "__attrs_attrs__", None)
    if isinstance(attributes, tuple):
        known = True
        for attribute in attributes:
            (names if attribute.init or attribute.eq else lazy).append(attribute.name)
    return tuple(dict.fromkeys(names)) if known else None, lazy


def _left_by_looking(cls: type) -> set[str]:
    """Return the names under which descriptors of a class cache values in its instances.

    These are `functools.cached_property`, and descriptors of other libraries whose class name shows
    that they do the same. Any other descriptor may be a default that an instance replaces.

    Args:
        cls: The class.
    """
    found: set[str] = set()
    for base in cls.__mro__:
        for name, attribute in base.__dict__.items():
            kind = type(attribute)
            if kind is FunctionType:
                if name == "__getattr__":
                    found.update(_cached_by_attrs(attribute))
            elif hasattr(kind, "__get__"):
                words = "".join([parent.__name__ for parent in kind.__mro__]).lower()
                if any(word in words for word in _LAZY):
                    found.add(name)
    return found


def _cached_by_attrs(function: Any) -> tuple[str, ...]:
    """Return the names of the cached properties of a slotted class made by attrs.

    Args:
        function: The class's `__getattr__`, where attrs keeps their functions.
    """
    code = function.__code__
    defaults = function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    for name, default in zip(names, defaults, strict=True):
        if name == "cached_properties" and isinstance(default, dict):
            return tuple(default)
    return ()


def _read(slot: Any, value: Any) -> Any:
    """Return the content of a slot, or `_ABSENT` if the slot is empty.

    Args:
        slot: The slot's descriptor.
        value: The instance.
    """
    try:
        return slot.__get__(value, type(value))
    except AttributeError:
        return _ABSENT


def _is_enumeration(cls: type) -> bool:
    enum = sys.modules.get("enum")
    return enum is not None and isinstance(cls, enum.EnumMeta)


def _is_flag(cls: type) -> bool:
    return issubclass(cls, sys.modules["enum"].Flag)


def _member(value: Any) -> tuple[Any, ...]:
    if type(value)._member_map_.get(value._name_) is not value:
        return _made_member(value)
    return (value._name_, value._value_)


def _flag(value: Any) -> tuple[Any, ...]:
    cls = type(value)
    bits = value._value_
    if cls._value2member_map_.get(bits) is not value:
        return _made_member(value)
    names = [
        name
        for name, member in cls._member_map_.items()
        if member._value_ and member._value_ & bits == member._value_
    ]
    return (tuple(sorted(names)), bits)


def _made_member(value: Any) -> tuple[Any, ...]:
    """Take apart a member that its class does not list: several may have the same name.

    Args:
        value: The member.
    """
    take = _known(type(value)._member_type_)
    attributes = {name: item for name, item in vars(value).items() if name not in _OF_EVERY_MEMBER}
    return (value._name_, value._value_, () if take is None else take(value), attributes)


def _reduced(value: Any) -> tuple[Any, ...]:
    content: tuple[Any, ...] = value.__reduce__()[1]
    return content


_LAZY = ("cached", "lazy", "reify", "memoize")
"""Words in the class names of descriptors that cache their value in the instance."""
_OF_EVERY_MEMBER = ("_name_", "_value_", "_sort_order_", "__objclass__")
_WITH_ATTRIBUTES = (
    ("argparse", "Namespace"),
    ("collections", "ChainMap"),
    ("collections", "OrderedDict"),
    ("collections", "UserDict"),
    ("collections", "UserList"),
    ("collections", "UserString"),
)
"""The known classes whose instances have attributes, perhaps as their only content."""


class _Slotted:
    """Has a slot, to get the type of a slot's descriptor."""

    __slots__ = ("slot",)


_SLOT = type(_Slotted.__dict__["slot"])


def _nothing(_: Any) -> tuple[Any, ...]:
    return ()


def _str(value: str) -> tuple[Any, ...]:
    return (str.__str__(value),)


def _int(value: int) -> tuple[Any, ...]:
    return (int.__int__(value),)


def _float(value: float) -> tuple[Any, ...]:
    return (float.__float__(value),)


def _complex(value: complex) -> tuple[Any, ...]:
    plain = complex.__pos__(value)
    return (plain.real, plain.imag)


def _bytes(value: bytes) -> tuple[Any, ...]:
    return (bytes.__getitem__(value, slice(None)),)


def _bytearray(value: bytearray) -> tuple[Any, ...]:
    return (bytes(bytearray.__getitem__(value, slice(None))),)


def _tuple(value: tuple[Any, ...]) -> tuple[Any, ...]:
    return (tuple(tuple.__iter__(value)),)


def _list(value: list[Any]) -> tuple[Any, ...]:
    return (list(list.__iter__(value)),)


def _dict(value: dict[Any, Any]) -> tuple[Any, ...]:
    return (dict(dict.items(value)),)


def _set(value: set[Any]) -> tuple[Any, ...]:
    return (set(set.__iter__(value)),)


def _frozenset(value: frozenset[Any]) -> tuple[Any, ...]:
    return (frozenset(frozenset.__iter__(value)),)


def _range(value: range) -> tuple[Any, ...]:
    return (value.start, value.stop, value.step)


def _slice(value: slice) -> tuple[Any, ...]:
    return (value.start, value.stop, value.step)


def _memoryview(value: memoryview) -> tuple[Any, ...]:
    try:
        return (value.format, value.shape, value.readonly, value.tobytes())
    except ValueError as error:
        raise CacheKeyError(f"no cache key can be made of a memoryview: {error}{WAY_OUT}") from None


def _proxy(value: Any) -> tuple[Any, ...]:
    inside = get_referents(value)
    if len(inside) == 1 and isinstance(inside[0], Mapping):
        return (dict(inside[0]) if type(inside[0]) is dict else inside[0],)
    try:
        return (value.copy(),)
    except AttributeError:
        raise CacheKeyError(
            f"no cache key can be made of a mappingproxy of an object without copy(){WAY_OUT}"
        ) from None


def _namespace(value: SimpleNamespace) -> tuple[Any, ...]:
    return (dict(vars(value)),)


def _datetime(value: Any) -> tuple[Any, ...]:
    return (
        value.year,
        value.month,
        value.day,
        value.hour,
        value.minute,
        value.second,
        value.microsecond,
        value.fold,
        value.tzinfo,
    )


def _time(value: Any) -> tuple[Any, ...]:
    return (value.hour, value.minute, value.second, value.microsecond, value.fold, value.tzinfo)


def _date(value: Any) -> tuple[Any, ...]:
    return (value.year, value.month, value.day)


def _timedelta(value: Any) -> tuple[Any, ...]:
    return (value.days, value.seconds, value.microseconds)


def _timezone(value: Any) -> tuple[Any, ...]:
    content: tuple[Any, ...] = value.__getinitargs__()
    return content


def _decimal(value: Any) -> tuple[Any, ...]:
    sign, digits, exponent = value.as_tuple()
    return (sign, "".join(map(str, digits)), exponent)


def _fraction(value: Any) -> tuple[Any, ...]:
    return (value.numerator, value.denominator)


def _uuid(value: Any) -> tuple[Any, ...]:
    return (value.int,)


def _path(value: Any) -> tuple[Any, ...]:
    return (sys.modules["pathlib"].PurePath.__str__(value),)


def _address(value: Any) -> tuple[Any, ...]:
    return (str(value),)


def _ordered(value: Any) -> tuple[Any, ...]:
    return (list(sys.modules["collections"].OrderedDict.items(value)),)


def _deque(value: Any) -> tuple[Any, ...]:
    return (value.maxlen, list(sys.modules["collections"].deque.__iter__(value)))


def _defaultdict(value: Any) -> tuple[Any, ...]:
    return (value.default_factory, dict(dict.items(value)))


def _numbers(value: Any) -> tuple[Any, ...]:
    return (value.typecode, value.tolist())


_BUILTIN: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    type(Ellipsis): _nothing,
    type(NotImplemented): _nothing,
    str: _str,
    int: _int,
    float: _float,
    complex: _complex,
    bytes: _bytes,
    bytearray: _bytearray,
    tuple: _tuple,
    list: _list,
    dict: _dict,
    set: _set,
    frozenset: _frozenset,
    range: _range,
    slice: _slice,
    memoryview: _memoryview,
    MappingProxyType: _proxy,
    SimpleNamespace: _namespace,
}

_KNOWN: dict[tuple[str, str], Callable[[Any], tuple[Any, ...]]] = {
    ("argparse", "Namespace"): _nothing,
    ("array", "array"): _numbers,
    ("collections", "ChainMap"): _nothing,
    ("collections", "OrderedDict"): _ordered,
    ("collections", "UserDict"): _nothing,
    ("collections", "UserList"): _nothing,
    ("collections", "UserString"): _nothing,
    ("collections", "defaultdict"): _defaultdict,
    ("collections", "deque"): _deque,
    ("datetime", "date"): _date,
    ("datetime", "datetime"): _datetime,
    ("datetime", "time"): _time,
    ("datetime", "timedelta"): _timedelta,
    ("datetime", "timezone"): _timezone,
    ("decimal", "Decimal"): _decimal,
    ("fractions", "Fraction"): _fraction,
    ("ipaddress", "IPv4Address"): _address,
    ("ipaddress", "IPv4Interface"): _address,
    ("ipaddress", "IPv4Network"): _address,
    ("ipaddress", "IPv6Address"): _address,
    ("ipaddress", "IPv6Interface"): _address,
    ("ipaddress", "IPv6Network"): _address,
    ("pathlib", "Path"): _path,
    ("pathlib", "PosixPath"): _path,
    ("pathlib", "PurePath"): _path,
    ("pathlib", "PurePosixPath"): _path,
    ("pathlib", "PureWindowsPath"): _path,
    ("pathlib", "WindowsPath"): _path,
    ("uuid", "UUID"): _uuid,
}


def _study_numpy(cls: type, recipe: Recipe, numpy: Any) -> bool:
    """Find out how the instances of a numpy class come apart.

    Args:
        cls: The class.
        recipe: Its recipe, to be filled in.
        numpy: The module.

    Returns:
        Whether it is one of numpy's arrays or scalars.
    """
    array = getattr(numpy, "ndarray", None)
    scalar = getattr(numpy, "generic", None)
    if not isinstance(array, type) or not isinstance(scalar, type):
        return False  # numpy is just being imported
    if cls is array:
        recipe.takes = (_array,)
        recipe.label = ("numpy", "ndarray")
    elif issubclass(cls, array):
        recipe.takes = (_no_array,)
    elif issubclass(cls, scalar):
        recipe.takes = (_scalar,)
        recipe.tag = scalar
        recipe.label = ("numpy", "generic")
    else:
        return False
    recipe.opaque = False
    recipe.whole = True
    return True


def _array(value: Any) -> tuple[Any, ...]:
    return (_element(value.dtype), value.shape, *_content(value))


def _no_array(value: Any) -> tuple[Any, ...]:
    raise CacheKeyError(
        f"no cache key can be made of {name_of(type(value))}: "
        f"it is an array with more content than dtype, shape and bytes{WAY_OUT}"
    )


def _scalar(value: Any) -> tuple[Any, ...]:
    dtype = value.dtype
    if dtype.type is not type(value):
        raise CacheKeyError(
            f"no cache key can be made of {name_of(type(value))}: "
            f"it is a numpy scalar with more content than dtype and bytes{WAY_OUT}"
        )
    if dtype.kind == "U":
        return ("U", str.__str__(value))
    if dtype.kind == "S":
        return ("S", bytes.__getitem__(value, slice(None)))
    return _array(sys.modules["numpy"].asarray(value))


def _element(dtype: Any) -> Any:
    """Describe the elements of an array.

    Byte order counts, as it does for numpy: on every machine, the bytes are in the order that this
    description names.

    Args:
        dtype: The array's dtype.

    Raises:
        CacheKeyError: If its bytes are not its content, or mean something else on another machine.
    """
    notes = dict(dtype.metadata) if dtype.metadata else None
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return ("of", _element(base), shape, notes)
    if dtype.names is not None:
        fields: list[Any] = []
        for name in dtype.names:
            field = dtype.fields[name]
            title = field[2] if len(field) > 2 else None
            fields.append((name, title, field[1], _element(field[0])))
        return (dtype.type.__name__, dtype.itemsize, dtype.isalignedstruct, fields, notes)
    widest = {"f": 8, "c": 16}.get(dtype.kind, dtype.itemsize)
    if (
        dtype.kind not in "biufcmMSUVO"
        or dtype.itemsize > widest
        or dtype.isbuiltin == 2
        or dtype.type.__module__ != "numpy"
    ):
        raise CacheKeyError(
            f"no cache key can be made of numpy's {dtype}: "
            f"its bytes do not mean the same on every machine{WAY_OUT}"
        )
    return dtype.str if notes is None else (dtype.str, notes)


def _content(value: Any) -> list[Any]:
    """Return the content of an array, field by field if it has fields, so padding does not count.

    Args:
        value: The array.
    """
    if value.dtype.names is not None:
        found: list[Any] = []
        for name in value.dtype.names:
            found += _content(value[name])
        return found
    return [list(value.flat) if value.dtype.kind == "O" else value.tobytes()]


def is_of_value(error: RecursionError) -> bool:
    """Return whether a value used up the stack, rather than the calls that led to its key.

    Args:
        error: What making a key of the value raised, as caught there.
    """
    frames = 0
    at = error.__traceback__
    while at is not None:
        frames += 1
        at = at.tb_next
    return frames > _OWN_FRAMES
