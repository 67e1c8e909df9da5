"""Entries that cannot be forged: with write access to a store one can only destroy them.

    b"opero"  version  MAC       made_at  fresh_until  made_in  codec   value
    5 bytes   1 byte   32 bytes  double   double       double   1 byte  the rest

The MAC is BLAKE2b, with a key derived from the secret, over the name and version of the format, the
length of the entry's full key, that key, and everything after the MAC. So an entry that was
changed, cut, made by somebody else or moved from another key does not open. Nothing of an entry is
read before its MAC has been verified, in constant time.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from hmac import compare_digest
from struct import Struct
from typing import Any

from .codecs import Codec, NotEncodable, Unreadable

__all__ = ["Forged", "NotEncodable", "Signed", "Signer"]

_FORMAT = b"opero\x02"
_MAC_SIZE = 32
_HEADER = Struct(">dddB")
_MAC_END = len(_FORMAT) + _MAC_SIZE
_LARGE = 2**14
_BODY = _MAC_END + _HEADER.size


class Forged(Exception):
    """An entry is not what was stored under its key; the message says what is wrong.

    Attributes:
        authentic: Whether its signature is valid, but it cannot be used: it is a pickle where
            pickles are not allowed, or its class no longer exists.
    """

    def __init__(self, reason: str, authentic: bool = False) -> None:
        """Keep what is wrong, and whether the signature is valid."""
        super().__init__(reason)
        self.authentic = authentic


class Signed:
    """The content of an entry.

    Attributes:
        value: The value.
        made_at: When it was made, in Unix time.
        fresh_until: When it stops being fresh, in Unix time; infinity means never.
        made_in: How many seconds the run that made it took.
    """

    __slots__ = ("fresh_until", "made_at", "made_in", "value")

    def __init__(self, value: Any, made_at: float, fresh_until: float, made_in: float) -> None:
        self.value: Any = value
        self.made_at: float = made_at
        self.fresh_until: float = fresh_until
        self.made_in: float = made_in


class Signer:
    """Signs entries and opens them."""

    __slots__ = ("_codec", "_keyed")

    def __init__(self, secrets: Sequence[bytes], pickles: bool) -> None:
        """Take the secrets; keep only keys derived from them, where nobody can read them.

        Args:
            secrets: The first one signs, and all verify.
            pickles: Whether values may be stored as pickles.
        """
        if not secrets:
            raise ValueError("a signer needs a secret")
        self._keyed = [_keyed(secret) for secret in secrets]
        self._codec = Codec(pickles)

    def __repr__(self) -> str:
        return f"<Signer with {len(self._keyed)} secrets, pickles={self._codec.pickles}>"

    def close(
        self, key: bytes, value: Any, made_at: float, fresh_until: float, made_in: float
    ) -> bytes:
        """Make an entry.

        Args:
            key: The full key.
            value: The value.
            made_at: When it was made, in Unix time.
            fresh_until: When it stops being fresh, in Unix time; infinity means never.
            made_in: How many seconds the run that made it took.

        Returns:
            The entry.

        Raises:
            NotEncodable: If the value cannot be written, or only as a pickle and those are not
                allowed.
        """
        codec, body = self._codec.write(value)
        header = _HEADER.pack(made_at, fresh_until, made_in, codec)
        mac = self._keyed[0].copy()
        _update(mac, _FORMAT + _sized(key) + header, body)
        return b"".join((_FORMAT, mac.digest(), header, body))

    def open(self, key: bytes, data: bytes) -> Signed:
        """Open an entry.

        Args:
            key: The full key.
            data: The entry, as the store returned it.

        Raises:
            Forged: If `close` did not make it for this key, or it cannot be read.
        """
        if type(data) is not bytes or len(data) < _BODY:
            raise Forged("it is not a complete entry")
        scope = data[: len(_FORMAT)] + _sized(key)
        rest = data[_MAC_END:] if len(data) < _LARGE else memoryview(data)[_MAC_END:]
        for keyed in self._keyed:
            mac = keyed.copy()
            _update(mac, scope, rest)
            if compare_digest(mac.digest(), data[len(_FORMAT) : _MAC_END]):
                break
        else:
            raise Forged("it was not signed with this secret for this call")
        if not data.startswith(_FORMAT):
            raise Forged("it has a different format", authentic=True)
        made_at, fresh_until, made_in, codec = _HEADER.unpack_from(rest)
        try:
            value = self._codec.read(codec, rest[_HEADER.size :])
        except Unreadable as error:
            raise Forged(str(error), authentic=True) from error
        return Signed(value, made_at, fresh_until, made_in)


def _sized(key: bytes) -> bytes:
    """Put a key's length before it, so that no part of it can pass for what follows."""
    return len(key).to_bytes(8, "big") + key


def _update(mac: blake2b, start: bytes, rest: bytes | memoryview) -> None:
    """Update a MAC; one step is faster than two, unless there is much to copy."""
    if len(rest) < _LARGE:
        mac.update(start + rest)
    else:
        mac.update(start)
        mac.update(rest)


def _keyed(secret: bytes) -> blake2b:
    """Begin a MAC."""
    key = blake2b(secret, person=b"opero cache key").digest()
    return blake2b(key=key, digest_size=_MAC_SIZE, person=b"opero cache mac")
