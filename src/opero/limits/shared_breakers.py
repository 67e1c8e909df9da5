"""The common parts of shared breakers: how they are identified, and how they are created.

Names and keys never show a fallback value, which may be an API key. Instead, a digest identifies
it, so processes with the same value share a breaker. The digest also covers the breaker's settings:
processes that disagree on them, such as old and new ones during a deployment, have separate
breakers instead of resetting each other's.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from opero import hotpath
from opero.core.shared_breaker import word_count
from opero.core.shared_counters import STRIDE
from opero.exceptions import CacheKeyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Settings = tuple[int, float, int, int, int]
"""Window in nanoseconds, failure ratio, minimum, nanoseconds for which it is open, probes."""


class Identity(NamedTuple):
    """What a breaker is known as.

    Attributes:
        name: What the user calls it.
        digest: Of its settings and of the fallback value that it is for, in hexadecimal.
    """

    name: str
    digest: str


def identity(name: str, settings: Settings, value: Any, number: int, by_value: bool) -> Identity:
    """Return what a breaker is known as.

    Args:
        name: What the user calls it.
        settings: Its settings.
        value: The fallback value that it is for.
        number: The place of that among the values, which counts if the value has no faithful key.
        by_value: Whether it is for one.
    """
    digest = sha256(repr((name, settings)).encode("utf-8", "surrogatepass"))
    if by_value:
        try:
            digest.update(b"value" + hotpath.core.Canonical().encode(value))
        except CacheKeyError:
            digest.update(b"place%d" % number)
    return Identity(name, digest.hexdigest()[:32])


def private_words(core: Any, probes: int) -> Any:
    """Return words that no other process has."""
    count = word_count(probes)
    return core.SharedCounters(bytearray((count + 1) * STRIDE), 0, count, -1)


def shared_breaker(core: Any, words: Any, settings: Settings) -> Any:
    """Return a breaker on words."""
    window, failure_ratio, minimum, open_for, probes = settings
    return core.SharedBreaker(
        words,
        core.new_lock(),
        core.clock,
        core.Clock(),
        window,
        failure_ratio,
        minimum,
        open_for,
        open_for,  # a probe that takes longer is replaced
        probes,
    )
