"""In-memory cache keys: equal exactly when they are keys of the same value.

"The same value" means the same types and the same content at every depth: `1`, `1.0`, `True` and
`"1"` differ, and so do a dataclass and its dict. Only the order of dicts and sets does not count.

    exact str, exact int, None            their own key
    trees of plain builtins               a `Key` with a hash of the whole tree, and the tree
    trees with other values in them       the same, with a `Node` in place of each other value

Making these keys builds no bytes and sorts nothing. Looking up a plain tree copies nothing either:
`probe` makes a key that holds the caller's own objects. One walk through them computes the hash; a
second walk, side by side, compares the key with a stored one. A key that outlives the lookup must
not change when the caller's objects do, so `freeze` and `keep` make it from copies.

In such a copy, a dict with exact str keys is a `Table`. Any value that is not a plain builtin, or
has no order, is a `Node`: its class, its parts from `Decomposer`, and the part that compares by its
own rules.

A value may hold the same part many times, and so be a much larger tree than its memory suggests:
forty lists, each holding the next one twice, are a tree of 2**40 nodes. So walks are bounded. On
the way down, they add up the bits of the sizes they meet; two to the power of that sum bounds the
number of nodes. If that is too many, and counting does not find fewer, the key is a digest of what
`Canonical` writes, which visits each part once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from math import copysign
from struct import pack

from opero import bits, gil
from opero.exceptions import CacheKeyError

from .canonical import Canonical
from .decompose import DEPTH, TOO_DEEP, Decomposer, by_its_own_rules, is_of_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOST_NODES = 2**17
_WIDEST = 22  # bits, of a tree of plain builtins
_WIDEST_OBJECT = 18  # bits, of a tree with other values in it, which takes longer to walk through
_WIDER = 1  # returned instead of a hash for a tree that is wider than that
_COUNTED = -(2**30)  # bits to begin with if a tree is known to be small enough
_DIGEST_ABOVE = 4096
_ABSENT = object()

# Odd 64-bit numbers with scattered bits, from xxHash and the golden ratio.
_MASK = 0xFFFFFFFFFFFFFFFF
_FACTOR = 0x9E3779B97F4A7C15
_SPREAD = 0xC2B2AE3D27D4EB4F
_NONE = 0x165667B19E3779F9
_TRUE = 0x27D4EB2F165667C5
_FALSE = 0x85EBCA77C2B2AE63
_FLOAT = 0x61C8864E7A143579
_LIST = 0x2545F4914F6CDD1D
_TUPLE = 0x5851F42D4C957F2D
_DICT = 0x14057B7EF767814F
_BYTES = 0x369DEA0F31A53F85


class Table:
    """The copy of a dict whose keys are exact str.

    Attributes:
        flat: Key, value, key, value, ... as the dict had them.
        entries: The same as a dict, or None until a comparison needs it.
    """

    __slots__ = ("entries", "flat")

    def __init__(self, flat: tuple[Any, ...]) -> None:
        """Make a table.

        Args:
            flat: Key, value, key, value, ...
        """
        self.flat: tuple[Any, ...] = flat
        self.entries: dict[Any, Any] | None = None

    def mapping(self) -> dict[Any, Any]:
        """Return the table as a dict."""
        found = self.entries
        if found is None:
            found = dict(zip(self.flat[::2], self.flat[1::2], strict=True))
            if not gil.FREE_THREADED:  # without the GIL, others could read the half-written field
                self.entries = found
        return found


class Node:
    """Any other value, in a key that is kept.

    Attributes:
        hash: The hash of the fields below.
        cls: The class of the value, or its substitute.
        items: The parts of the value, from `Decomposer`.
        own: The object that compares and hashes by its own rules, or None.
    """

    __slots__ = ("cls", "hash", "items", "own")

    cls: type
    hash: int
    items: tuple[Any, ...]
    own: Any


class Digest:
    """Stands for the class of long bytes of which a key holds only the SHA-256."""

    __slots__ = ()


class Key:
    """A key of a value that is not its own key; only a `Freezer` makes it.

    Attributes:
        hash: The hash of the value.
        live: Whether `value` is the caller's own object.
        value: The value, or a copy in which a `Table` or `Node` replaces what cannot be kept.
    """

    __slots__ = ("hash", "live", "value")

    hash: int
    live: bool
    value: Any

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return type(other) is Key and self._is(other)

    def _is(self, other: Key) -> bool:
        return self.hash == other.hash and self._same(self.value, other.value)

    def _same(self, one: Any, two: Any) -> bool:
        if one is two:
            return True
        kind = type(one)
        if kind is dict:
            if type(two) is Table:
                return self._same_dict(one, two)
            return type(two) is dict and self._same_dict(one, Table(_flat(two)))
        if kind is Table:
            if type(two) is dict:
                return self._same_dict(two, one)
            return type(two) is Table and self._same_dict(one.mapping(), two)
        if kind is not type(two):
            return False
        if kind is str:
            return self._same_text(one, two)
        if kind is int or kind is bytes:
            return bool(one == two)
        if kind is list:
            return self._same_list(one, two)
        if kind is tuple:
            return self._same_tuple(one, two)
        if kind is float:
            return self._same_float(one, two)
        return kind is Node and self._same_node(one, two)

    def _same_text(self, one: str, two: str) -> bool:
        return one == two

    def _same_float(self, one: float, two: float) -> bool:
        if one == two:
            return one != 0.0 or copysign(1.0, one) == copysign(1.0, two)
        return one != one and two != two and pack(">d", one) == pack(">d", two)

    def _same_dict(self, one: dict[Any, Any], two: Table) -> bool:
        flat = two.flat
        if 2 * len(one) != len(flat):
            return False
        at = 0
        for name, mine in one.items():
            if flat[at] is not name and not self._same_text(name, flat[at]):
                return self._same_mapping(one, two.mapping())  # the order differs
            other = flat[at + 1]
            at += 2
            if mine is other:
                continue
            if type(mine) is str:
                if type(other) is not str or not self._same_text(mine, other):
                    return False
            elif type(mine) is dict and type(other) is Table:
                if not self._same_dict(mine, other):
                    return False
            elif not self._same(mine, other):
                return False
        return True

    def _same_mapping(self, one: dict[Any, Any], two: dict[Any, Any]) -> bool:
        for name, mine in one.items():
            other = two.get(name, _ABSENT)
            if mine is not other and not self._same(mine, other):
                return False
        return True

    def _same_list(self, one: list[Any], two: list[Any]) -> bool:
        size = len(one)
        if size != len(two):
            return False
        for at in range(size):
            mine = one[at]
            other = two[at]
            if mine is not other and not self._same(mine, other):
                return False
        return True

    def _same_tuple(self, one: tuple[Any, ...], two: tuple[Any, ...]) -> bool:
        size = len(one)
        if size != len(two):
            return False
        for at in range(size):
            mine = one[at]
            other = two[at]
            if mine is not other and not self._same(mine, other):
                return False
        return True

    def _same_node(self, one: Node, two: Node) -> bool:
        if one.hash != two.hash or one.cls is not two.cls:
            return False
        if not self._same_tuple(one.items, two.items):
            return False
        return one.own is two.own or bool(one.own == two.own)


class _TooWideError(Exception):
    """Raised for a tree that is too wide and holds values other than plain builtins."""


class Freezer:
    """Makes in-memory keys.

    Attributes:
        canonical: Writes values that are too wide for a walk; None until there is one.
        shapes: Takes values apart.
        true: The key of True.
        false: The key of False.
    """

    __slots__ = ("canonical", "false", "shapes", "true")

    def __init__(self) -> None:
        """Begin without recipes: each class is studied when its first value comes."""
        self.shapes: Decomposer = Decomposer()
        self.canonical: Canonical | None = None
        self.true: Key = self._key(_TRUE, False, True)
        self.false: Key = self._key(_FALSE, False, False)

    def probe(self, value: Any) -> Hashable:
        """Make a key for an immediate lookup only: it may hold the value itself.

        Args:
            value: The value.

        Returns:
            A key that equals another key exactly when both are keys of the same value.

        Raises:
            CacheKeyError: If the value cannot be reliably distinguished from others.
        """
        kind = type(value)
        if kind is str or kind is int or value is None:
            return value  # type: ignore[no-any-return]
        if kind is bool:
            return self.true if value else self.false
        try:
            found = self._walk(value, 0, False)
            if not 0 <= found <= _WIDER:
                return self._key(found, True, value)
            return self._wider(value, found)  # type: ignore[no-any-return]
        except RecursionError as error:
            if not is_of_value(error):
                raise
            raise CacheKeyError(TOO_DEEP) from error

    def freeze(self, value: Any) -> Hashable:
        """Make a key that can be kept: later changes of the value do not change it.

        Args:
            value: The value.

        Returns:
            A key that equals another key exactly when both are keys of the same value.

        Raises:
            CacheKeyError: If the value cannot be reliably distinguished from others.
        """
        return self.keep(self.probe(value))

    def keep(self, key: Hashable) -> Hashable:
        """Turn a key from `probe` into one that can be kept.

        Args:
            key: The key, or a tuple of keys, of values that have not changed since.

        Returns:
            An equal key, or tuple of keys; the same object if it can be kept unchanged.
        """
        if type(key) is Key:
            return self._kept(key)
        if type(key) is tuple:
            return tuple([self._kept(part) if type(part) is Key else part for part in key])
        return key

    def is_constant(self, value: Any) -> bool:
        """Return whether a value cannot change, so that one key serves forever.

        Args:
            value: The value.

        Returns:
            True for exact immutable builtins, and for tuples and frozensets of these.
        """
        return self._is_constant(value, 0)

    def _is_constant(self, value: Any, depth: int) -> bool:
        kind = type(value)
        if kind is tuple or kind is frozenset:
            depth += bits.width(len(value))
            if depth > _WIDEST:
                return False
            for item in value:  # noqa: SIM110 - a generator would be slower
                if not self._is_constant(item, depth):
                    return False
            return True
        return value is None or value is Ellipsis or kind in _CONSTANT

    def _key(self, number: int, live: bool, value: Any) -> Key:
        key = Key.__new__(Key)
        key.hash = number
        key.live = live
        key.value = value
        return key

    def _kept(self, key: Key) -> Key:
        if not key.live:
            return key
        try:
            return self._key(key.hash, False, self._copy(key.value, _COUNTED))
        except RecursionError as error:
            if not is_of_value(error):
                raise
            raise CacheKeyError(TOO_DEEP) from error

    def _wider(self, value: Any, found: int) -> Any:
        """Make a key of a value that a bounded walk did not find to be a tree of plain builtins.

        Args:
            value: The value.
            found: The result of the walk.
        """
        if found == _WIDER:
            left = self._count(value, _MOST_NODES, 0)
            if left >= 0:
                return self._key(self._walk(value, _COUNTED, False), True, value)
            if left == -1:
                return self._large(value)
        try:
            return self._frozen(value, 0)
        except _TooWideError:
            return self._large(value)

    def _large(self, value: Any) -> Key:
        """Make a key of a tree that is too large to walk through."""
        canonical = self.canonical
        if canonical is None:
            canonical = self.canonical = Canonical()
        digest, leaves = canonical.identify(value)
        node = self._node(Digest, (digest,), leaves)
        return self._key(node.hash, False, node)

    def _count(self, value: Any, left: int, depth: int) -> int:
        """Return how many of `left` nodes remain after those of a tree of plain builtins.

        Returns:
            -1 if the tree has more nodes or is too deep; -2 if it holds other values.
        """
        kind = type(value)
        if kind in _ATOMS:
            return left - 1
        if kind is dict:
            if depth >= DEPTH:
                return -1
            for name, item in value.items():
                if type(name) is not str:
                    return -2
                left = self._count(item, left, depth + 1)
                if left < 0:
                    return left
            return left - 1
        if kind is not list and kind is not tuple:
            return -2
        if depth >= DEPTH:
            return -1
        for item in value:
            left = self._count(item, left, depth + 1)
            if left < 0:
                return left
        return left - 1

    # The hash of a tree. For a live tree, 0 means that it holds a value that must be taken apart
    # first, and `_WIDER` that it may be too large. (If a tree happens to have this hash, the only
    # cost is a needless copy.)

    def _walk(self, value: Any, depth: int, kept: bool) -> int:
        kind = type(value)
        if kind is str:
            return hash(value)
        if kind is int:
            return hash(value) ^ _SPREAD
        if value is None:
            return _NONE
        if kind is dict:
            return self._walk_dict(value, depth)
        if kind is list:
            return self._walk_list(value, depth, kept)
        if kind is tuple:
            return self._walk_tuple(value, depth, kept)
        if kind is bool:
            return _TRUE if value else _FALSE
        if kind is float:
            return self._walk_float(value, value)
        if kind is bytes:
            return hash(value) ^ _BYTES
        if kept:
            if kind is Table:
                return self._walk_table(value)
            return self._walk_node(value)
        return 0

    def _walk_float(self, value: float, number: float) -> int:
        if number != number:
            return _FLOAT  # Python hashes a nan by the identity of its object
        return hash(value) ^ _FLOAT

    def _walk_list(self, value: list[Any], depth: int, kept: bool) -> int:
        depth += bits.width(len(value))
        if depth > _WIDEST:
            return _WIDER
        total = _LIST
        for item in value:
            if type(item) is str:
                found = hash(item)
            else:
                found = self._walk(item, depth, kept)
                if 0 <= found <= _WIDER:
                    return found
            total = ((total ^ found) * _FACTOR) & _MASK
            total ^= total >> 32
        return total

    def _walk_tuple(self, value: tuple[Any, ...], depth: int, kept: bool) -> int:
        depth += bits.width(len(value))
        if depth > _WIDEST:
            return _WIDER
        total = _TUPLE
        for item in value:
            if type(item) is str:
                found = hash(item)
            else:
                found = self._walk(item, depth, kept)
                if 0 <= found <= _WIDER:
                    return found
            total = ((total ^ found) * _FACTOR) & _MASK
            total ^= total >> 32
        return total

    def _walk_dict(self, value: dict[Any, Any], depth: int) -> int:
        depth += bits.width(len(value))
        if depth > _WIDEST:
            return _WIDER
        total = _DICT
        for name, item in value.items():
            if type(name) is not str:
                return 0
            if type(item) is str:
                found = hash(item)
            elif type(item) is int:
                found = hash(item) ^ _SPREAD
            elif type(item) is dict:
                found = self._walk_dict(item, depth)
                if 0 <= found <= _WIDER:
                    return found
            else:
                found = self._walk(item, depth, False)
                if 0 <= found <= _WIDER:
                    return found
            found = ((hash(name) * _FACTOR) ^ found) & _MASK
            found = ((found ^ (found >> 32)) * _SPREAD) & _MASK
            total = (total + (found ^ (found >> 29))) & _MASK
        return total ^ (total >> 32)

    def _walk_table(self, value: Table) -> int:
        total = _DICT
        flat = value.flat
        for at in range(0, len(flat), 2):
            found = self._walk(flat[at + 1], _COUNTED, True)
            found = ((hash(flat[at]) * _FACTOR) ^ found) & _MASK
            found = ((found ^ (found >> 32)) * _SPREAD) & _MASK
            total = (total + (found ^ (found >> 29))) & _MASK
        return total ^ (total >> 32)

    def _walk_node(self, value: Node) -> int:
        return value.hash

    # The copy of a tree.

    def _frozen(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str or kind is int or value is None:
            return value
        if kind is bool:
            return self.true if value else self.false
        copy = self._copy(value, depth)
        found = self._walk(value, _COUNTED, False)
        if 0 <= found <= _WIDER:
            found = self._walk(copy, _COUNTED, True)
        return self._key(found, False, copy)

    def _copy(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in _ATOMS:
            return value
        if kind is list:
            depth = self._down(depth, len(value))
            return [self._copy(item, depth) for item in value]
        if kind is tuple:
            depth = self._down(depth, len(value))
            return tuple([self._copy(item, depth) for item in value])
        if kind is dict:
            return self._copy_dict(value, self._down(depth, len(value)))
        if kind is set or kind is frozenset:
            depth = self._down(depth, len(value))
            return self._node(kind, (), _bag([self._frozen(item, depth) for item in value]))
        return self._take_apart(value, depth)

    def _down(self, depth: int, size: int) -> int:
        depth += bits.width(size)
        if depth > _WIDEST_OBJECT:
            raise _TooWideError
        return depth

    def _copy_dict(self, value: dict[Any, Any], depth: int) -> Any:
        flat: list[Any] = []
        for name, item in value.items():
            if type(name) is not str:
                break
            flat.append(name)
            flat.append(self._copy(item, depth))
        else:
            return Table(tuple(flat))
        pairs = [
            (self._frozen(name, depth), self._frozen(item, depth)) for name, item in value.items()
        ]
        return self._node(dict, (), _bag(pairs))

    def _take_apart(self, value: Any, depth: int) -> Node:
        cls = type(value)
        recipe = self.shapes.recipe(cls)
        if recipe.opaque:
            return self._node(cls, (), by_its_own_rules(value))
        items: list[Any] = []
        parts = self.shapes.parts(value, recipe)
        depth = self._down(depth, len(parts))
        if recipe.member and len(parts) == 2:
            try:
                self._copy(parts[1], depth)
            except CacheKeyError:
                parts = parts[:1]  # the class lists this member, so its name is enough
        for part in parts:
            if type(part) is bytes and len(part) > _DIGEST_ABOVE:
                from hashlib import sha256

                digest = (len(part), sha256(part).digest())
                items.append(self._node(Digest, digest, None))
            else:
                items.append(self._copy(part, depth))
        own = by_its_own_rules(value) if recipe.hidden else None
        return self._node(cls if recipe.tag is None else recipe.tag, tuple(items), own)

    def _node(self, cls: type, items: tuple[Any, ...], own: Any) -> Node:
        total = self._walk_tuple(items, _COUNTED, True)
        total = ((total ^ id(cls)) * _FACTOR) & _MASK
        if own is not None:
            total = ((total ^ hash(own)) * _SPREAD) & _MASK
        node = Node.__new__(Node)
        node.hash = total ^ (total >> 32)
        node.cls = cls
        node.items = items
        node.own = own
        return node


def _flat(value: dict[Any, Any]) -> tuple[Any, ...]:
    """Return key, value, key, value, ... of a dict."""
    return tuple([part for pair in value.items() for part in pair])


def _bag(items: list[Any]) -> frozenset[Any]:
    """Return keys without their order.

    A set may hold several elements with the same key (two nans, for example); these are counted.

    Args:
        items: The keys.
    """
    bag = frozenset(items)
    return bag if len(bag) == len(items) else frozenset(Counter(items).items())


_ATOMS = frozenset((str, int, type(None), bool, float, bytes))
_CONSTANT = frozenset((*_ATOMS, complex, range))
