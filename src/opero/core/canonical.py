"""Stored cache keys: the same value gives the same bytes on every machine and Python version.

"The same value" means what it means for the in-memory keys in `keys`: the same types and the same
content at every depth, in any order of dicts and sets. A value has exactly one encoding, and no two
values share one. The first byte gives the format of the rest:

    J text                JSON by orjson, keys sorted, for a value made only of exact str (that
                          UTF-8 can write), 64-bit int, bool, None, list, and dict with such str
                          as keys; no floats, because each JSON writer chooses their digits
    N  T  F               None, True, False
    I size ":" bytes      int, two's complement, big-endian, the fewest bytes for bit_length + 1
    D 8 bytes             float, IEEE 754, big-endian; a nan keeps its bits
    S size ":" bytes      str in UTF-8, lone surrogates included
    B size ":" bytes      bytes
    L count ":" items     list; U: tuple
    E count ":" items     set, sorted by their encodings; Z: frozenset
    M count ":" pairs     dict, key and value, sorted by their encodings
    C module name         a class, as two S
    O module name fields count ":" items
                          any other value: its class, the names of its fields (U of S), its parts
    K bound code          a captured function: what it is bound to, then either R, if it is one of
                          the functions around it, or F with its module, its name, a digest of its
                          code (S; "" if the name identifies it) and its captured variables
    H 32 bytes            the SHA-256 of an encoding longer than 1024 bytes, which it replaces
    R number ":"          inside K: a function that is being written, counted from the outermost

H keeps the size of an encoding, and the time it takes, independent of how often a value holds the
same part: a long part is encoded once. The bounds on J serve the same purpose.

Bound and captured values are written as a count, then pairs of a name (S) and a value. If the
called function has bound values, captured variables or code of its own to identify it, its stored
key ends with V and these, after the arguments.

J never occurs inside another encoding. Sizes and counts are decimal. `shapes` decides what the
parts of a value are. A class is written as its module and qualified name, and must be importable
under them; in `__main__` the module is the script's resolved path, or the name after `-m`. An
array's bytes are in the byte order of its dtype, which is a part too.

No `repr`, no `hash`, no `id`, no pickle. A value without parts (an open file, a lock, an instance
of a plain class) raises a `CacheKeyError` that says where it was found. So does a function or a
module as an argument; as a captured variable, it is part of the function.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from struct import pack
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType

from opero.captures import Code, code_inside, is_found, place_of
from opero.exceptions import CacheKeyError

from .decompose import (
    DEPTH,
    TOO_DEEP,
    WAY_OUT,
    Decomposer,
    Recipe,
    Same,
    by_its_own_rules,
    is_of_value,
    name_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOST_NODES = 2**24
_MOST_JSON = 2**17
_LONG = 1024
_CODE = (BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType)

_MOST_CODES = 256
_AT, _ATTRIBUTE, _INSIDE, _ROOT, _VARIABLE = range(5)
"""How a value was reached from its container: by index or key, as an attribute, ..."""

if TYPE_CHECKING:
    _Where = tuple[Any, int, Any] | None
    """Where a value was found: its container, how it was reached from there, and its name there."""


class StoredKey:
    """The key of a stored entry.

    Attributes:
        name: Printable ASCII: format, namespace, module, qualified name, version and a digest of
            `full`, separated by colons.
        full: Everything that went into the digest, to check that an entry belongs to this key.
    """

    __slots__ = ("full", "name")

    def __init__(self, name: str, full: bytes) -> None:
        self.name: str = name
        self.full: bytes = full


class Writing:
    """The state while one value is written.

    Attributes:
        code: Whether the value is captured, so that it may contain functions.
        functions: The functions that are being written, from the outermost.
        references: How many references to these have been written.
        shortened: How many digests have been written instead of something longer.
        known: The bytes of values that contain something shortened, by the ids of the values. Each
            comes with its value, to keep that alive.
        leaves: For an in-memory key, the classes and objects that have no encoding, by the name of
            the class; each is written as that name and a number. Otherwise None.
        numbers: The numbers of the leaves.
    """

    __slots__ = ("code", "functions", "known", "leaves", "numbers", "references", "shortened")

    def __init__(self, code: bool, leaves: dict[str, list[Any]] | None = None) -> None:
        """Begin.

        Args:
            code: Whether the value may contain functions.
            leaves: Collects classes and objects without an encoding; None to refuse them.
        """
        self.code: bool = code
        self.functions: list[Any] = []
        self.references: int = 0
        self.shortened: int = 0
        self.known: dict[int, tuple[Any, bytes]] = {}
        self.leaves: dict[str, list[Any]] | None = leaves
        self.numbers: dict[Any, int] = {}

    def leaf(self, cls: type, name: Any, leaf: Any) -> bytes:
        """Return the bytes for a leaf: the name of its class and a number.

        Args:
            cls: The class, or the class of the object.
            name: Identifies the leaf; equal for equal leaves.
            leaf: The leaf.
        """
        assert self.leaves is not None
        text = f"{cls.__module__}:{cls.__qualname__}"
        found = self.numbers.get(name)
        if found is None:
            alike = self.leaves.setdefault(text, [])
            found = self.numbers[name] = len(alike)
            alike.append(leaf)
        data = text.encode("utf-8", "surrogatepass")
        return b"%d:%d:" % (found, len(data)) + data


class Canonical:
    """Makes stored keys.

    Attributes:
        shapes: Takes values apart.
        dumps: Writes canonical JSON; None until first needed.
        hexdigest: Returns the digest of bytes as text; None until first needed.
        codes: The digests of the code of functions, by the id of the code, which is kept alive.
        common: Namespace, module, qualified name and version of the last key, and how all keys with
            these begin: the next key is most often of the same scope.
    """

    __slots__ = ("codes", "common", "dumps", "hexdigest", "shapes")

    def __init__(self) -> None:
        """Begin without recipes: each class is studied when its first value comes."""
        self.shapes: Decomposer = Decomposer()
        self.dumps: Callable[[Any], bytes] | None = None
        self.hexdigest: Callable[[bytes], str] | None = None
        self.codes: dict[int, tuple[CodeType, str]] = {}
        self.common: tuple[tuple[str, ...], bytes, str] = ((), b"", "")

    def encode(self, value: Any) -> bytes:
        """Encode a value.

        Args:
            value: The value.

        Returns:
            Bytes that are equal for two values exactly when these are the same value.

        Raises:
            CacheKeyError: If the value cannot be encoded faithfully.
        """
        return self._encode(value, None)

    def identify(self, value: Any) -> tuple[bytes, tuple[Any, ...] | None]:
        """Return a short identity of a value, valid within this process.

        Args:
            value: The value.

        Returns:
            The SHA-256 of its encoding, in which classes and objects without parts are numbers; and
            these classes and objects in order, or None if there are none. In equal sets, objects
            without parts that share a class may get different numbers.

        Raises:
            CacheKeyError: If the value cannot be reliably distinguished from others.
        """
        leaves: dict[str, list[Any]] = {}
        out = bytearray()
        self._write(out, value, 0, None, Writing(False, leaves))
        found = [leaf for name in sorted(leaves) for leaf in leaves[name]]
        return _sha256(out).digest(), tuple(found) or None

    def digest(self, data: bytes) -> str:
        """Return the XXH3 digest of bytes: 32 hexadecimal digits.

        Args:
            data: The bytes.

        Raises:
            ImportError: If xxhash is not installed.
        """
        if self.hexdigest is None:
            self.hexdigest = _find_digest()
        return self.hexdigest(data)

    def is_plain(self, value: Any) -> bool:
        """Return whether JSON brings a value back unchanged, except text that UTF-8 cannot write.

        It does if the value is made only of exact str, 64-bit int, bool, None, finite float, list,
        and dict with exact str as keys, and is neither too deep nor too large.

        Args:
            value: The value.
        """
        return self._count_plain(value, 0, _MOST_NODES, False) >= 0

    def stored_key(
        self,
        namespace: str,
        owner: tuple[str, str],
        version: str,
        arguments: Sequence[Any],
        names: Sequence[str] = (),
        code: Code | None = None,
    ) -> StoredKey:
        """Make the key of a call's result.

        Args:
            namespace: The cache's namespace.
            owner: Module and qualified name of the function, as `owner_of` returns them.
            version: The version that the user changes to retire old results.
            arguments: The values of all parameters in order.
            names: The names of the parameters, for messages.
            code: What identifies the function besides its name, and what it has captured.

        Raises:
            CacheKeyError: If an argument or a captured variable cannot be encoded faithfully; the
                message names it.
        """
        scope = (namespace, *owner, version)
        common = self.common
        if scope != common[0]:
            self.common = common = self._common(scope)
        full = bytearray(common[1])
        full += b"U%d:" % len(arguments)
        for at, value in enumerate(arguments):
            name = names[at] if at < len(names) else f"argument {at + 1}"
            encoded = self._encode(value, (None, _ROOT, name))
            full += b"%d:" % len(encoded)
            full += encoded
        if code is not None and (code.code is not None or code.bound or code.captured):
            full += self._captured(code)
        data = bytes(full)
        return StoredKey(common[2] + self.digest(data), data)

    def _common(self, scope: tuple[str, ...]) -> tuple[tuple[str, ...], bytes, str]:
        """Return a scope, and how the full keys and the names in it begin."""
        beginning = bytearray(_FORMAT.encode())
        for part in scope:
            self._write_text(beginning, part)
        return scope, bytes(beginning), self.prefix(*scope)

    def prefix(self, *scope: str) -> str:
        """Return how the names of all stored keys of a scope begin.

        Args:
            *scope: The namespace; optionally module, qualified name, version.
        """
        return ":".join([_FORMAT, *map(_escape, scope), ""])

    # The owner of a result.

    def owner_of(self, func: Callable[..., Any]) -> tuple[str, str]:
        """Return what identifies a function in its stored keys.

        Args:
            func: The function.

        Returns:
            Its module and its qualified name. For a function of `__main__`, the module is the
            script's resolved path, or the name after `-m`; in a notebook, or at a prompt, it is a
            digest of the function's source.

        Raises:
            ValueError: If it is not a function and so has no name.
        """
        module = getattr(func, "__module__", None)
        name = getattr(func, "__qualname__", None)
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError(
                f"a stored cache needs a function with a module and a name, not a "
                f"{name_of(type(func))}: wrap it in a function"
            )
        return place_of(module) or self._source(func), name

    def _source(self, func: Any) -> str:
        from inspect import getsource

        try:
            return f"source:{self.digest(getsource(func).encode('utf-8', 'surrogatepass'))}"
        except (OSError, TypeError):
            code = getattr(func, "__code__", None)
        if code is None:
            raise ValueError(
                f"{func.__qualname__} has no source, so its stored results cannot be told from "
                f"those of other functions: wrap it in a function"
            )
        return f"code:{self._code_digest(code)}"

    def _code_digest(self, code: CodeType) -> str:
        """Return a digest of a function's code."""
        found = self.codes.get(id(code))
        if found is None:
            if len(self.codes) >= _MOST_CODES:
                self.codes.clear()
            found = code, self.digest(self.encode(_instructions(code)))
            self.codes[id(code)] = found
        return found[1]

    def _captured(self, code: Code) -> bytes:
        """Write what identifies the called function besides its name."""
        out = bytearray(b"V")
        try:
            self._write_code(out, code, 0, None, Writing(True))
        except RecursionError as error:
            if not is_of_value(error):
                raise
            raise _too_deep(None) from error
        return bytes(out)

    # Encoding.

    def _encode(self, value: Any, where: _Where) -> bytes:
        if self._count_plain(value, 0, _MOST_JSON, True) >= 0:
            if self.dumps is None:
                self.dumps = _find_json()
            return b"J" + self.dumps(value)
        out = bytearray()
        try:
            self._write(out, value, 0, where, Writing(False))
        except RecursionError as error:
            if not is_of_value(error):
                raise
            raise _too_deep(where) from error
        return bytes(out)

    def _count_plain(self, value: Any, depth: int, left: int, written: bool) -> int:
        """Return how many of `left` nodes remain after those of `value`; -1 if it is not plain.

        Without a bound, a list that holds the same list twice, which holds another list twice, and
        so on, would take forever.

        Args:
            value: The value.
            depth: How deep it is inside another one.
            left: How many nodes it may have.
            written: Whether to check for an encoding in JSON, which allows no floats and only text
                that UTF-8 can write, and counts a long text as several nodes.
        """
        kind = type(value)
        if kind is str:
            if not written:
                return left - 1
            return left - 1 - (len(value) >> 6) if self._is_utf8(value) else -1
        if kind is bool or value is None:
            return left - 1
        if kind is int:
            return left - 1 if _LEAST <= value <= _GREATEST else -1
        if kind is float:
            return left - 1 if value - value == 0.0 and not written else -1
        if depth >= DEPTH:
            return -1
        if kind is list:
            for item in value:
                left = self._count_plain(item, depth + 1, left, written)
                if left < 0:
                    return -1
            return left - 1
        if kind is dict:
            for key, item in value.items():
                if type(key) is not str or (written and not self._is_utf8(key)):
                    return -1
                left = self._count_plain(item, depth + 1, left, written)
                if left < 0:
                    return -1
            return left - 1
        return -1

    def _is_utf8(self, text: str) -> bool:
        if text.isascii():
            return True
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
        return True

    def _write(self, out: bytearray, value: Any, depth: int, where: _Where, run: Writing) -> None:
        kind = type(value)
        if kind is str and len(value) <= _LONG:
            self._write_text(out, value)
        elif kind is int:
            size = (value.bit_length() + 8) // 8
            out += b"I%d:" % size
            out += value.to_bytes(size, "big", signed=True)
        elif value is None:
            out += b"N"
        elif kind is bool:
            out += b"T" if value else b"F"
        elif kind is float:
            out += b"D"
            out += pack(">d", value)
        elif kind is bytes and len(value) <= _LONG:
            self._write_bytes(out, value)
        elif depth >= DEPTH and kind is not str and kind is not bytes:
            raise _too_deep(where) if run.leaves is None else CacheKeyError(TOO_DEEP)
        else:
            known = run.known.get(id(value)) if run.known else None
            if known is not None:
                out += known[1]
                return
            start = len(out)
            references = run.references
            shortened = run.shortened
            self._write_parts(out, value, depth, where, run)
            if len(out) - start > _LONG:
                short = b"H" + _sha256(out[start:]).digest()
                del out[start:]
                out += short
                run.shortened += 1
            elif kind is str or kind is bytes:
                run.shortened += 1
            if run.shortened != shortened and run.references == references:
                run.known[id(value)] = value, bytes(out[start:])

    def _write_parts(
        self, out: bytearray, value: Any, depth: int, where: _Where, run: Writing
    ) -> None:
        kind = type(value)
        if kind is str:
            self._write_text(out, value)
        elif kind is bytes:
            self._write_bytes(out, value)
        elif kind is list:
            self._write_items(out, b"L", value, depth + 1, where, _AT, run)
        elif kind is tuple:
            self._write_items(out, b"U", value, depth + 1, where, _AT, run)
        elif kind is dict:
            self._write_dict(out, value, depth + 1, where, run)
        elif kind is set:
            self._write_set(out, b"E", value, depth + 1, where, run)
        elif kind is frozenset:
            self._write_set(out, b"Z", value, depth + 1, where, run)
        elif issubclass(kind, type):
            out += b"C"
            self._write_class(out, value, self.shapes.recipe(value), False, where, run)
        else:
            self._write_object(out, value, depth + 1, where, run)

    def _write_text(self, out: bytearray, text: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        self._write_long(out, b"S%d:" % len(data), data)

    def _write_bytes(self, out: bytearray, data: bytes) -> None:
        self._write_long(out, b"B%d:" % len(data), data)

    def _write_long(self, out: bytearray, head: bytes, data: bytes) -> None:
        if len(head) + len(data) <= _LONG:
            out += head
            out += data
        else:
            digest = _sha256(head)
            digest.update(data)
            out += b"H"
            out += digest.digest()

    def _write_items(
        self,
        out: bytearray,
        tag: bytes,
        items: Sequence[Any],
        depth: int,
        where: _Where,
        how: int,
        run: Writing,
    ) -> None:
        out += tag
        out += b"%d:" % len(items)
        for at, item in enumerate(items):
            self._write(out, item, depth, (where, how, at), run)

    def _write_set(
        self, out: bytearray, tag: bytes, items: Any, depth: int, where: _Where, run: Writing
    ) -> None:
        found: list[bytes] = []
        for item in items:
            one = bytearray()
            self._write(one, item, depth, (where, _INSIDE, None), run)
            found.append(bytes(one))
        found.sort()
        out += tag
        out += b"%d:" % len(found)
        out += b"".join(found)

    def _write_dict(
        self, out: bytearray, items: dict[Any, Any], depth: int, where: _Where, run: Writing
    ) -> None:
        found: list[tuple[bytes, bytes]] = []
        if run.leaves is not None:
            items = _in_order(items)
        for key, item in items.items():
            one = bytearray()
            self._write(one, key, depth, (where, _INSIDE, None), run)
            two = bytearray()
            self._write(two, item, depth, (where, _AT, key), run)
            found.append((bytes(one), bytes(two)))
        found.sort()
        out += b"M%d:" % len(found)
        for pair in found:
            out += pair[0]
            out += pair[1]

    def _write_object(
        self, out: bytearray, value: Any, depth: int, where: _Where, run: Writing
    ) -> None:
        cls = type(value)
        recipe = self.shapes.recipe(cls)
        if recipe.opaque and run.leaves is not None:
            own = by_its_own_rules(value)
            out += b"X"
            out += run.leaf(cls, (id(cls), own), (Same(cls), own))
            return
        if recipe.opaque:
            code = code_inside(value) if run.code else None
            if code is not None:
                out += b"K"
                self._write_code(out, code, depth, where, run)
                return
            key = _zone(value)
            if key is None:
                raise _refusal(cls, where, _why_opaque(value))
            out += b"O"
            self._write_text(out, "zoneinfo")
            self._write_text(out, "ZoneInfo")
            out += b"U0:1:"
            self._write_text(out, key)
            return
        if recipe.hidden and run.leaves is None:
            raise _refusal(cls, where, "only its class can read some of its content")
        try:
            parts = self.shapes.parts(value, recipe)
        except CacheKeyError as error:
            raise CacheKeyError(f"{_path(where)}{error}") from error
        if recipe.member and len(parts) == 2 and not self._has_key(parts[1], depth, where, run):
            parts = parts[:1]  # the class lists this member, so its name is enough
        if recipe.hidden:
            own = by_its_own_rules(value)
            out += b"X"
            out += run.leaf(cls, (id(cls), own), (Same(cls), own))
        out += b"O"
        self._write_class(out, cls, recipe, True, where, run)
        names = recipe.fields if recipe.fields is not None else _tuple_fields(cls)
        out += b"U%d:" % len(names)
        for name in names:
            self._write_text(out, name)
        out += b"%d:" % len(parts)
        bases = len(recipe.takes)
        rest = None if recipe.whole else parts[len(parts) - 1]
        unset = () if rest is None else rest[0]
        there = [name for name in recipe.fields or () if name not in unset]
        for at, part in enumerate(parts):
            if type(part) is bytes:
                self._write_bytes(out, part)  # made for this encoding, so never seen again
                if len(part) > _LONG:
                    run.shortened += 1
            elif not recipe.whole and bases <= at < bases + len(there):
                self._write(out, part, depth, (where, _ATTRIBUTE, there[at - bases]), run)
            else:
                self._write(out, part, depth, (where, _INSIDE, None), run)

    def _has_key(self, value: Any, depth: int, where: _Where, run: Writing) -> bool:
        around = len(run.functions)
        try:
            self._write(bytearray(), value, depth, where, run)
        except CacheKeyError:
            del run.functions[around:]
            return False
        return True

    def _write_code(
        self, out: bytearray, code: Code, depth: int, where: _Where, run: Writing
    ) -> None:
        self._write_named(out, code.bound, depth, where, run)
        for at, function in enumerate(run.functions):
            if function is code.function:
                out += b"R%d:" % at
                run.references += 1
                return
        run.functions.append(code.function)
        out += b"F"
        self._write_text(out, code.module)
        self._write_text(out, code.name)
        self._write_text(out, "" if code.code is None else self._code_digest(code.code))
        self._write_named(out, code.captured, depth, where, run)
        run.functions.pop()

    def _write_named(
        self,
        out: bytearray,
        named: Sequence[tuple[str, Any]],
        depth: int,
        where: _Where,
        run: Writing,
    ) -> None:
        out += b"%d:" % len(named)
        for name, value in named:
            self._write_text(out, name)
            self._write(out, value, depth, (where, _VARIABLE, name), run)

    def _write_class(
        self,
        out: bytearray,
        cls: type,
        recipe: Recipe,
        instance: bool,
        where: _Where,
        run: Writing,
    ) -> None:
        if run.leaves is not None:
            cls = recipe.tag if instance and recipe.tag is not None else cls
            out += run.leaf(cls, id(cls), Same(cls))
            return
        if recipe.label is not None and (instance or recipe.tag is None):
            module, name = recipe.label
        else:
            module = cls.__module__
            name = cls.__qualname__
            place = place_of(module)
            if place is None:
                raise _refusal(cls, where, "the class was made in a notebook or at a prompt")
            if not is_found(cls, module, name):
                raise _refusal(cls, where, "the class is not found under its module and name")
            module = place
        self._write_text(out, module)
        self._write_text(out, name)


_FORMAT = "opero1"
_LEAST = -(2**63)
_GREATEST = 2**64 - 1


def _sha256(data: Any) -> Any:
    from hashlib import sha256

    return sha256(data)


def _in_order(items: dict[Any, Any]) -> dict[Any, Any]:
    """Return a dict sorted by its keys, if they are all text."""
    if all(type(key) is str for key in items):
        return {key: items[key] for key in sorted(items)}
    return items


def _find_json() -> Callable[[Any], bytes]:
    """Return a function that writes JSON without spaces and with sorted keys."""
    try:
        from orjson import OPT_SORT_KEYS, dumps
    except ImportError:
        return _plain_json
    return lambda value: dumps(value, option=OPT_SORT_KEYS)


def _plain_json(value: Any) -> bytes:
    """Write the same JSON as orjson does.

    Args:
        value: A value that `Canonical` has found to be plain.
    """
    import json

    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode()


def _find_digest() -> Callable[[bytes], str]:
    """Return the function that makes digests.

    Raises:
        ImportError: If xxhash is not installed.
    """
    try:
        from xxhash import xxh3_128_hexdigest
    except ImportError as error:
        raise ImportError(
            "stored cache keys need the xxhash package: pip install xxhash", name="xxhash"
        ) from error
    digest: Callable[[bytes], str] = xxh3_128_hexdigest
    return digest


def _escape(text: str) -> str:
    """Write a text in printable ASCII without colons, so that colons can separate such texts.

    Args:
        text: The text.
    """
    return "".join(
        [
            chr(byte) if 0x20 < byte < 0x7F and byte not in b":%" else f"%{byte:02X}"
            for byte in text.encode("utf-8", "surrogatepass")
        ]
    )


def _tuple_fields(cls: type) -> tuple[str, ...]:
    """Return the names of the fields of a named tuple class, or () for any other class.

    Args:
        cls: The class.
    """
    names = getattr(cls, "_fields", None) if issubclass(cls, tuple) else None
    if isinstance(names, tuple) and all(type(name) is str for name in names):
        return names
    return ()


def _zone(value: Any) -> str | None:
    """Return the key of a time zone that `zoneinfo` returns for that key; None for anything else.

    Args:
        value: The value.
    """
    zoneinfo = sys.modules.get("zoneinfo")
    if zoneinfo is None or type(value) is not zoneinfo.ZoneInfo:
        return None
    key: str | None = value.key
    return key if key is not None and zoneinfo.ZoneInfo(key) is value else None


def _instructions(code: CodeType) -> tuple[Any, ...]:
    """Return what a function does, as plain values.

    Args:
        code: Its code.
    """
    return (
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags,
        code.co_varnames,
        code.co_freevars,
        code.co_names,
        code.co_code,
        getattr(code, "co_exceptiontable", b""),
        tuple(
            [
                _instructions(constant) if type(constant) is CodeType else constant
                for constant in code.co_consts
            ]
        ),
    )


def _why_opaque(value: Any) -> str:
    """Say why a value that has no parts cannot be encoded.

    Args:
        value: The value.
    """
    if isinstance(value, _CODE):
        return "it is code, not data"
    return "its content is unknown"


def _refusal(cls: type, where: _Where, reason: str) -> CacheKeyError:
    """Make the error for a value that cannot be encoded.

    Args:
        cls: The class of the value, or the class that was the value.
        where: Where it was found.
        reason: Why it cannot be encoded.
    """
    return CacheKeyError(
        f"{_path(where)}no stored cache key can be made of {name_of(cls)}: {reason}{WAY_OUT}"
    )


def _too_deep(where: _Where) -> CacheKeyError:
    """Make the error for a value that contains itself or is too deep.

    Args:
        where: Where the walk stopped.
    """
    while where is not None and where[0] is not None:
        where = where[0]
    return CacheKeyError(
        f"{_path(where) if where is not None and where[1] == _ROOT else ''}"
        f"no stored cache key can be made of a value that contains itself, or is nested more than "
        f"{DEPTH} levels deep{WAY_OUT}"
    )


def _path(where: _Where) -> str:
    """Describe where a value was found, as in `name['a'][3]: `.

    Args:
        where: Where it was found.
    """
    steps: list[str] = []
    while where is not None:
        around, how, name = where
        if how == _ROOT:
            steps.append(str(name))
        elif how == _ATTRIBUTE:
            steps.append(f".{name}")
        elif how == _VARIABLE:
            steps.append(f"captured variable {name!r}" if around is None else f" of which {name!r}")
        elif how == _AT:
            plain = type(name) is str or type(name) is int
            steps.append(f"[{name!r}]" if plain else f"[a {name_of(type(name))}]")
        where = around
    text = "".join(reversed(steps))
    return f"{text}: " if text else ""
