"""Values of the standard library: each has a key, or an error that says why it has none."""

from __future__ import annotations

import argparse
import array
import ast
import calendar
import collections
import configparser
import contextvars
import dataclasses
import datetime as dt
import decimal
import email.message
import enum
import fractions
import functools
import importlib
import inspect
import io
import ipaddress
import itertools
import operator
import os
import pathlib
import queue
import random
import re
import socket
import string
import struct
import threading
import time
import types
import typing
import urllib.parse
import uuid
import weakref
import zoneinfo
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pytest

from opero import CacheKeyError, hotpath


class Wrapped(Mapping[Any, Any]):
    """A mapping that has no copy(), and no content that anybody knows."""

    def __init__(self, **content: Any) -> None:
        self.content = content

    def __getitem__(self, key: Any) -> Any:
        return self.content[key]

    def __iter__(self) -> Any:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)


class Table(collections.UserDict[Any, Any]):
    """A class of one's own on top of one of the library's."""


T = typing.TypeVar("T")

SAME: dict[str, Callable[[], Any]] = {
    "Namespace": lambda: argparse.Namespace(a=1, b=[2]),
    "Namespace of another": lambda: argparse.Namespace(a=1.0, b=[2]),
    "SimpleNamespace": lambda: types.SimpleNamespace(a=1, b=[2]),
    "UserDict": lambda: collections.UserDict({"a": [1]}),
    "UserDict of another": lambda: collections.UserDict({"a": [True]}),
    "UserDict of one's own": lambda: Table({"a": [1]}),
    "UserList": lambda: collections.UserList([1]),
    "UserString": lambda: collections.UserString("a"),
    "ChainMap": lambda: collections.ChainMap({"a": 1}, {"b": 2}),
    "ChainMap in another order": lambda: collections.ChainMap({"b": 2}, {"a": 1}),
    "OrderedDict": lambda: collections.OrderedDict(a=1, b=2),
    "defaultdict": lambda: collections.defaultdict(list, a=[1]),
    "Counter": lambda: collections.Counter("aab"),
    "deque": lambda: collections.deque([1, 2], 5),
    "mappingproxy": lambda: types.MappingProxyType({"a": [1]}),
    "mappingproxy of a mapping": lambda: types.MappingProxyType(collections.UserDict({"a": [1]})),
    "mappingproxy of an OrderedDict": lambda: types.MappingProxyType(collections.OrderedDict(a=1)),
    "pattern": lambda: re.compile("a+"),
    "pattern with a flag": lambda: re.compile("a+", re.IGNORECASE),
    "pattern of bytes": lambda: re.compile(b"a+"),
    "union": lambda: int | str,
    "union of three": lambda: int | str | None,
    "union of what has no hash": lambda: list[typing.Annotated[int, []]] | str,
    "union of something else without a hash": lambda: list[typing.Annotated[int, [1]]] | str,
    "Optional": lambda: typing.Optional[list[int]],  # noqa: UP045
    "generic": lambda: list[int],
    "generic of another": lambda: list[float],
    "generic of a value": lambda: list[1],  # type: ignore[valid-type]
    "generic of a like value": lambda: list[True],  # type: ignore[valid-type]
    "generic of typing": lambda: typing.List[int],  # noqa: UP006
    "generic of no class": lambda: typing.List,  # noqa: UP006
    "dict": lambda: dict[str, list[int]],
    "Callable": lambda: Callable[[int], str],
    "Callable of typing": lambda: typing.Callable[[int], str],
    "Callable of anything": lambda: Callable[..., str],
    "Literal": lambda: typing.Literal[1],
    "Literal of a like value": lambda: typing.Literal[True],
    "Annotated": lambda: typing.Annotated[int, 1],
    "ClassVar": lambda: typing.ClassVar[int],
    "Any": lambda: typing.Any,
    "date": lambda: dt.date(2024, 1, 1),
    "datetime": lambda: dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
    "time": lambda: dt.time(1, tzinfo=zoneinfo.ZoneInfo("UTC")),
    "timedelta": lambda: dt.timedelta(1),
    "timezone": lambda: dt.timezone(dt.timedelta(hours=1)),
    "ZoneInfo": lambda: zoneinfo.ZoneInfo("Europe/Paris"),
    "Decimal": lambda: decimal.Decimal("1.0"),
    "Fraction": lambda: fractions.Fraction(1, 3),
    "complex": lambda: complex(0.0, -0.0),
    "IPv4Address": lambda: ipaddress.ip_address("192.0.2.1"),
    "IPv6Network": lambda: ipaddress.ip_network("2001:db8::/32"),
    "UUID": lambda: uuid.UUID(int=1),
    "Path": lambda: pathlib.Path("a") / "b",
    "PurePath": lambda: pathlib.PureWindowsPath("a/b"),
    "array": lambda: array.array("d", [1.0]),
    "range": lambda: range(1, 9, 2),
    "slice": lambda: slice([1], None),
    "memoryview": lambda: memoryview(b"ab"),
    "bytearray": lambda: bytearray(b"ab"),
    "Ellipsis": lambda: ...,
    "NotImplemented": lambda: NotImplemented,
    "struct_time": lambda: time.gmtime(0),
    "stat_result": lambda: os.stat_result(range(10)),
    "ParseResult": lambda: urllib.parse.urlparse("http://a/b"),
    "enum member": lambda: socket.AF_INET,
    "flag": lambda: re.IGNORECASE | re.ASCII,
    "itemgetter": lambda: operator.itemgetter("a", 1),
    "attrgetter": lambda: operator.attrgetter("a.b"),
    "class": lambda: collections.OrderedDict,
    "class that warns": lambda: enum.Enum,
    "FrozenInstance": lambda: dataclasses.MISSING.__class__,
    "month": lambda: calendar.monthrange(2024, 1),
    "Parameter kind": lambda: inspect.Parameter.KEYWORD_ONLY,
}
"""Values that have a key in memory and stored, made anew each time; no two are the same."""

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "function": (lambda: functools.reduce, "code, not data"),
    "module": (lambda: string, "code, not data"),
    "method": (lambda: random.Random().random, "code, not data"),
    "partial": (lambda: functools.partial(int, "1"), "its content is unknown"),
    "lock": (threading.Lock, "its content is unknown"),
    "event": (threading.Event, "its content is unknown"),
    "queue": (queue.Queue, "its content is unknown"),
    "generator": (lambda: (each for each in ()), "its content is unknown"),
    "iterator": (lambda: iter([]), "its content is unknown"),
    "count": (itertools.count, "its content is unknown"),
    "file": (io.StringIO, "its content is unknown"),
    "random": (random.Random, "its content is unknown"),
    "exception": (lambda: ValueError(1), "its content is unknown"),
    "reference": (lambda: weakref.ref(Wrapped), "its content is unknown"),
    "context variable": (lambda: contextvars.ContextVar("a"), "its content is unknown"),
    "context": (contextvars.copy_context, "its content is unknown"),
    "parser": (configparser.ConfigParser, "its content is unknown"),
    "message": (email.message.Message, "its content is unknown"),
    "syntax tree": (lambda: ast.parse("1"), "its content is unknown"),
    "template": (lambda: string.Template("a"), "its content is unknown"),
    "struct": (lambda: struct.Struct("i"), "its content is unknown"),
    "mapping": (lambda: Wrapped(a=1), "its content is unknown"),
    "mappingproxy of a mapping": (
        lambda: types.MappingProxyType(Wrapped(a=1)),
        "its content is unknown",
    ),
    "type variable": (lambda: list[T], "its content is unknown"),
    "views": (lambda: {}.keys(), "its content is unknown"),
    "code": (lambda: (lambda: None).__code__, "code, not data"),
    "released memoryview": (lambda: released(), "released"),
}
"""Values without a stored key, and why."""


def released() -> memoryview:
    """Return a memoryview that shows nothing any more."""
    view = memoryview(b"a")
    view.release()
    return view


def test_values_of_the_library_have_keys_by_their_content(core: hotpath.Core) -> None:
    """The same value made twice has one key, and no two values share one."""
    for made in ("freeze", "probe", "encode"):
        make = getattr(core.Canonical() if made == "encode" else core.Freezer(), made)
        keys = {name: make(value()) for name, value in SAME.items()}
        for name, value in SAME.items():
            key = make(value())
            assert [other for other in keys if keys[other] == key] == [name]
            assert hash(key) == hash(keys[name])


@pytest.mark.parametrize("name", REFUSED)
def test_a_value_without_a_stored_key_is_refused_with_the_reason(
    core: hotpath.Core, name: str
) -> None:
    """It has a key in memory if it has a hash."""
    value, reason = REFUSED[name]
    with pytest.raises(CacheKeyError, match=reason):
        core.Canonical().encode(value())
    try:
        key = core.Freezer().freeze(value())
    except CacheKeyError as error:
        assert "cache_key=" in str(error)  # noqa: PT017 - it may have one
    else:
        assert isinstance(hash(key), int)


MODULES = [
    "abc",
    "argparse",
    "array",
    "ast",
    "asyncio",
    "base64",
    "bisect",
    "builtins",
    "bz2",
    "calendar",
    "cmath",
    "collections",
    "collections.abc",
    "concurrent.futures",
    "configparser",
    "contextlib",
    "contextvars",
    "copy",
    "csv",
    "ctypes",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "dis",
    "email.headerregistry",
    "enum",
    "errno",
    "fnmatch",
    "fractions",
    "functools",
    "gc",
    "gzip",
    "hashlib",
    "heapq",
    "hmac",
    "html",
    "http",
    "http.client",
    "http.cookies",
    "importlib.metadata",
    "inspect",
    "io",
    "ipaddress",
    "itertools",
    "json",
    "keyword",
    "linecache",
    "locale",
    "logging",
    "mailbox",
    "math",
    "mimetypes",
    "multiprocessing",
    "numbers",
    "operator",
    "os",
    "pathlib",
    "pickle",
    "platform",
    "pprint",
    "queue",
    "random",
    "re",
    "sched",
    "select",
    "selectors",
    "shlex",
    "signal",
    "smtplib",
    "socket",
    "sqlite3",
    "ssl",
    "stat",
    "statistics",
    "string",
    "struct",
    "subprocess",
    "sys",
    "tarfile",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "timeit",
    "token",
    "tokenize",
    "traceback",
    "types",
    "typing",
    "unicodedata",
    "urllib.error",
    "urllib.parse",
    "urllib.request",
    "uuid",
    "warnings",
    "weakref",
    "xml.dom.minidom",
    "xml.etree.ElementTree",
    "zipfile",
    "zlib",
    "zoneinfo",
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of names that go in a later Python
def test_whatever_is_in_a_module_of_the_library_has_a_key_or_an_error(core: hotpath.Core) -> None:
    """Thousands of objects; no other exception, and the same result twice."""
    freezer, canonical = core.Freezer(), core.Canonical()
    seen = 0
    for name in MODULES:
        module = importlib.import_module(name)
        for attribute, value in sorted(vars(module).items()):
            if attribute in ("__builtins__", "modules", "path_importer_cache", "__cached__"):
                continue
            seen += 1
            for make in (freezer.freeze, canonical.encode):
                try:
                    first = make(value)
                except CacheKeyError as error:
                    assert str(error).endswith("to make the key yourself"), (name, attribute)  # noqa: PT017
                else:
                    assert first == make(value), (name, attribute)
    assert seen > 3000


def test_instances_of_classes_that_take_no_arguments_have_a_key_or_an_error(
    core: hotpath.Core,
) -> None:
    """Of classes that are safe to instantiate."""
    freezer, canonical = core.Freezer(), core.Canonical()
    quiet = (ast, collections, configparser, contextvars, decimal, email.message, io, ipaddress)
    made = 0
    for module in (*quiet, argparse, calendar, functools, operator, queue, random, string, types):
        for value in list(vars(module).values()):
            if not isinstance(value, type) or value.__name__.startswith("_"):
                continue
            if issubclass(value, type | argparse.ArgumentParser):
                continue
            try:
                instance = value()
            except Exception:  # noqa: BLE001 - it takes arguments
                continue
            made += 1
            for make in (freezer.freeze, canonical.encode):
                try:
                    assert make(instance) == make(instance)
                except CacheKeyError as error:
                    assert str(error).endswith("to make the key yourself")  # noqa: PT017
    assert made > 100


# What only looking at an argument leaves behind.


class werkzeug_cached_property(property):  # noqa: N801 - as werkzeug's, which keeps it in the instance
    """Keeps what it has worked out."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        name = self.fget.__name__  # type: ignore[union-attr]
        if name not in instance.__dict__:
            instance.__dict__[name] = self.fget(instance)  # type: ignore[misc]
        return instance.__dict__[name]


class LazyAttribute:
    """Another one, of no known library."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        found = instance.__dict__[self.name] = self.function(instance)
        return found


@dataclasses.dataclass
class Looked:
    """A dataclass with all that keeps values."""

    text: str
    words_cache: Any = dataclasses.field(default=None, init=False, repr=False, compare=False)

    @functools.cached_property
    def words(self) -> list[str]:
        """Keep the words."""
        return self.text.split()

    @werkzeug_cached_property
    def letters(self) -> list[str]:
        """Keep the letters."""
        return list(self.text)

    @LazyAttribute
    def size(self) -> int:
        """Keep the size."""
        return len(self.text)

    def look(self) -> None:
        """Look at everything."""
        assert self.words
        assert self.letters
        assert self.size
        self.words_cache = self.words


@attrs.define
class LookedAttrs:
    """The same by attrs, which keeps cached properties in slots."""

    text: str
    words_cache: Any = attrs.field(default=None, init=False, repr=False, eq=False)

    @functools.cached_property
    def words(self) -> list[str]:
        """Keep the words."""
        return self.text.split()

    def look(self) -> None:
        """Look at everything."""
        assert self.words
        self.words_cache = self.words


class LookedList(collections.UserList[str]):
    """The same of a class without fields."""

    @functools.cached_property
    def words(self) -> list[str]:
        """Keep the words."""
        return sorted(self)

    def look(self) -> None:
        """Look at everything."""
        assert self.words


class Overridden:
    """Gives an attribute its default, in its own way."""

    def __get__(self, instance: Any, owner: Any = None) -> int:
        return 1


@dataclasses.dataclass
class WithDefault:
    """Has an attribute that is no field, by a descriptor that keeps nothing."""

    text: str
    factor = Overridden()


@pytest.mark.parametrize(
    "make",
    [
        lambda text: Looked(text),
        lambda text: LookedAttrs(text),
        lambda text: LookedList([text]),
        lambda text: pathlib.PurePosixPath(text),
        lambda text: ipaddress.ip_network("192.0.2.0/24"),
    ],
)
def test_looking_at_an_argument_does_not_change_its_key(core: hotpath.Core, make: Any) -> None:
    """Neither in memory nor stored, and everything else about it still counts."""
    freezer, canonical = core.Freezer(), core.Canonical()
    value = make("a b")
    keys = freezer.freeze(value), canonical.encode(value)
    if hasattr(value, "look"):
        value.look()
    else:
        hash(value)
        str(value)
        assert [getattr(value, name) for name in dir(value) if name in ("name", "is_private")]
    assert (freezer.freeze(value), canonical.encode(value)) == keys
    if hasattr(value, "look"):
        assert freezer.freeze(make("a c")) != keys[0]
        assert canonical.encode(make("a c")) != keys[1]


def test_an_attribute_that_replaces_a_default_counts(core: hotpath.Core) -> None:
    """Although a descriptor provides it."""
    one, two = WithDefault("a"), WithDefault("a")
    two.factor = 2  # type: ignore[assignment]
    assert one.factor != two.factor
    assert core.Freezer().freeze(one) != core.Freezer().freeze(two)
    assert core.Canonical().encode(one) != core.Canonical().encode(two)
