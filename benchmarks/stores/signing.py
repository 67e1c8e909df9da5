"""Rows of shares: how much of a whole call is signing: the MAC and what is around it.

The whole call, signing with serialising, and serialising alone take turns. A share is what the
fastest turns say: signing without serialising over the whole; both over the whole stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.implementations import Implementation, using
from benchmarks.measure import Effort
from benchmarks.rows import COMPILED, OPERO, Function, Measured, Target
from opero.stores.codecs import Codec
from opero.stores.signing import Signer

from . import turns, values
from .place import SECRET, MissingError, Place
from .sides import decorated

_KEY = b"a full key has about so many bytes" * 3


@dataclass(frozen=True)
class ShareRow:
    """A row of percentages.

    Args:
        name: How the table calls it.
        function: What is cached.
        backend: Where.
        new: Whether the calls are misses that store, and not hits.
        unit: What the figures count.
        targets: The promises.
        halves: The sides of opero that take part.
    """

    name: str
    function: Function
    backend: str
    new: bool
    unit: str = "%"
    targets: tuple[Target, ...] = ()
    halves: tuple[str, ...] = tuple(OPERO)

    def against(self, *names: str) -> ShareRow:
        """The same row with the compiled half; it has no peers."""
        return replace(self, halves=(COMPILED,))

    def slowed(self, calls: int) -> ShareRow:
        """The same row: it has no seeded regression."""
        return self

    def measure(self, effort: Effort) -> Measured:
        """Takes the figures of both halves."""
        figures: dict[str, float] = {}
        beside: dict[str, float] = {}
        missing: dict[str, str] = {}
        for name in self.halves:
            half = OPERO[name]
            try:
                whole, both, alone = self._parts(half, effort)
            except (ImportError, MissingError) as error:
                missing[name] = str(error)
                continue
            figures[name] = 100 * max(0.0, both - alone) / whole
            beside[f"with serialising, {half}"] = 100 * both / whole
        return Measured({**figures, **beside}, missing)

    def _parts(self, half: Implementation, effort: Effort) -> tuple[float, float, float]:
        """Nanoseconds of the whole call, of signing with serialising, and of serialising alone."""
        with Place() as place, ExitStack() as stack:
            call = stack.enter_context(decorated(place, self.function, half, self.backend))
            with using(half):
                signer, codec = Signer([SECRET.encode()], pickles=True), Codec(pickles=True)
            both, alone = self._steps(signer, codec)
            loops = {
                "whole": turns.each(call, self.new),
                "both": turns.bare(both),
                "alone": turns.bare(alone),
            }
            loops["whole"](3)
            rounds = 40 if self.new else 150
            effort = replace(effort, rounds=min(effort.rounds, rounds))
            found = turns.in_turns(loops, effort)
        return found["whole"], found["both"], found["alone"]

    def _steps(self, signer: Signer, codec: Codec) -> tuple[Callable[[], Any], Callable[[], Any]]:
        value = self.function(0)
        if self.new:
            return (
                lambda: signer.close(_KEY, value, 0.0, math.inf, 0.0),
                lambda: codec.write(value),
            )
        data = signer.close(_KEY, value, 0.0, math.inf, 0.0)
        kind, body = codec.write(value)
        return lambda: signer.open(_KEY, data), lambda: codec.read(kind, body)


ROWS = tuple(
    ShareRow(f"signing, share of a {what}, {kind}", function, backend, new)
    for what, backend, new in (
        ("disk hit", "disk", False),
        ("disk miss and store", "disk", True),
        ("Redis hit", "redis", False),
    )
    for kind, function in values.KINDS.items()
)
