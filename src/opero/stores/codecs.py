"""Values to bytes and back, with exactly the same types.

    BYTES    bytes, as they are
    TEXT     str in UTF-8, lone surrogates included
    JSON     trees of nothing but str, int of 64 bits, bool, None, finite floats, lists, and dicts
             with keys of str: no subclasses, no tuples, nothing that JSON would turn into another
             type. A list that such a tree holds twice comes back as two equal lists.
    PICKLE   everything else

Reading a pickle can run code. So read only bytes whose signature has been verified; with
`pickles=False` the last codec is off.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from opero import hotpath
from opero.core.decompose import name_of
from opero.thrown import Thrown, out_of_handler

BYTES, TEXT, JSON, PICKLE = range(4)

_PROTOCOL = 5
"""The newest pickle protocol that every Python version opero supports can read."""


class NotEncodable(Exception):
    """A value cannot be written, or only as a pickle and those are not allowed."""


class Unreadable(Exception):
    """A value cannot be read."""


class Codec:
    """Writes and reads values.

    Attributes:
        pickles: Whether values that nothing else can write become pickles.
    """

    __slots__ = ("_dumps", "_is_plain", "_loads", "pickles")

    def __init__(self, pickles: bool) -> None:
        """Find a JSON library; `pickles` says whether to pickle what JSON cannot write."""
        self.pickles: bool = pickles
        self._is_plain = hotpath.core.Canonical().is_plain
        self._dumps, self._loads = _find_json()

    def write(self, value: Any) -> tuple[int, bytes]:
        """Write a value.

        Args:
            value: The value.

        Returns:
            The codec and the bytes.

        Raises:
            NotEncodable: If the value cannot be written, or only as a pickle and those are not
                allowed.
        """
        kind = type(value)
        if kind is bytes:
            return BYTES, value
        if kind is str:
            return TEXT, value.encode("utf-8", "surrogatepass")
        try:
            if self._is_plain(value):
                return JSON, self._dumps(value)
        except Exception as error:  # noqa: BLE001 - lone surrogates, deep stack, changed meanwhile
            _let_out(error)
        if not self.pickles:
            raise NotEncodable(f"{_describe(value)} cannot be stored without a pickle")
        try:
            return PICKLE, pickle.dumps(value, _PROTOCOL)
        except Exception as error:  # whatever a class does when it is pickled
            _let_out(error)
            raise NotEncodable(
                f"a value of type {name_of(kind)} cannot be pickled: {type(error).__name__}"
            ) from error

    def read(self, codec: int, data: bytes | memoryview) -> Any:
        """Read a value.

        Args:
            codec: The codec.
            data: The bytes; they must be bytes that opero itself wrote.

        Raises:
            Unreadable: If they cannot be read, or are a pickle and those are not allowed.
        """
        if codec == BYTES:
            return bytes(data)
        if codec == PICKLE and not self.pickles:
            raise Unreadable("it is a pickle, and pickles are not allowed")
        try:
            if codec == TEXT:
                return str(data, "utf-8", "surrogatepass")
            if codec == JSON:
                return self._loads(data)
            if codec == PICKLE:
                return pickle.loads(data)
        except Exception as error:  # a class that was removed or changed
            _let_out(error)
            raise Unreadable(f"its value cannot be read: {type(error).__name__}") from error
        raise Unreadable("its format is unknown")


def _let_out(error: Exception) -> None:
    """Raise what a signal handler of the program has raised in the meantime."""
    handled = out_of_handler(error, error.__context__)  # it is that error itself, or none
    if handled is not None:
        raise Thrown(handled) from None


def _find_json() -> tuple[Callable[[Any], bytes], Callable[[bytes | memoryview], Any]]:
    """Return functions that write and read JSON."""
    try:
        from orjson import dumps, loads
    except ImportError:
        return _plain_dumps, _plain_loads
    return dumps, loads


def _plain_dumps(value: Any) -> bytes:
    """Write JSON equivalent to orjson's, where orjson is not installed."""
    import json

    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _plain_loads(data: bytes | memoryview) -> Any:
    """Read JSON as orjson does, where orjson is not installed."""
    import json

    return json.loads(str(data, "utf-8"))


def _describe(value: Any) -> str:
    """Return the type of a value and that of the first part that is not a plain type."""
    whole = name_of(type(value))
    todo = [value]
    seen = set()
    while todo:
        item = todo.pop()
        kind = type(item)
        if kind is list or kind is dict:
            if id(item) not in seen:
                seen.add(id(item))
                todo.extend(item if kind is list else (*item.keys(), *item.values()))
        elif kind not in _PLAIN:
            if item is not value:
                whole += f" that holds a {name_of(kind)}"
            break
    return f"a value of type {whole}"


_PLAIN = (str, int, float, bool, type(None))
