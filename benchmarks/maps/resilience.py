"""Rows of resilience that nothing needs: what retries, a cache, deadlines and permits cost an item.

Nothing fails and nobody waits; the function is trivial. What opero costs as it comes (three
attempts) stands beside the same map without retries and with more than that. Permits and `timeout`
count from an item's own start, so items are handed out one at a time then: that is what they cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import peers
from benchmarks.implementations import NAMES, Implementation
from benchmarks.measure import Effort
from benchmarks.rows import COMPILED, OPERO, Function, Measured, Target

from . import sides, work
from .sides import Mapper
from .turns import in_turns

_MAXSIZE = 1 << 20

_ONE_BY_ONE = 5_000
"""How many items a side gets that hands them out one at a time."""

HITS = "cache, all hits"
MISSES = "cache, all misses"

OPTIONS: Mapping[str, tuple[dict[str, Any], int | None]] = {
    "retries=1": ({"retries": 1}, None),
    MISSES: ({"cache": True, "cache_maxsize": _MAXSIZE}, None),
    HITS: ({"cache": True, "cache_maxsize": _MAXSIZE}, None),
    "timeout": ({"timeout": 3600.0}, _ONE_BY_ONE),
    "rate_limit": (
        {"rate_limit": peers.PLENTY, "rate_limit_scope": "worker"},
        _ONE_BY_ONE,
    ),
}
"""What each side but the first has, and how many items it gets at most; by name."""

ATTEMPT_TIMEOUT: Mapping[str, tuple[dict[str, Any], int | None]] = {
    "attempt_timeout": ({"attempt_timeout": 3600.0}, None),
}
"""The same for modes that can cut an attempt."""


@dataclass(frozen=True)
class ResilienceRow:
    """A mode of opero with one more option at a time.

    Args:
        mode: The mode.
        function: What is mapped.
        workers: How many there are.
        variants: The options of each side but the first, and how many items it gets; by name.
        count: How many items the others get.
        implementations: The halves of opero that take part.
    """

    mode: str
    function: Function
    workers: int
    variants: Mapping[str, tuple[dict[str, Any], int | None]]
    count: int = 100_000
    implementations: tuple[Implementation, ...] = NAMES
    targets: tuple[Target, ...] = ()
    unit: str = "ns/item"

    @property
    def name(self) -> str:
        """How the table calls it."""
        return f"{self.mode}, three attempts, nothing fails"

    def against(self, *names: str) -> ResilienceRow:
        """The same row with the compiled half and only the named sides."""
        variants = {name: self.variants[name] for name in names if name in self.variants}
        return replace(self, variants=variants, implementations=("compiled",))

    def slowed(self, calls: int) -> ResilienceRow:
        """The same row; it has no gate."""
        return self

    def measure(self, effort: Effort) -> Measured:
        """Takes the figures of every side in turns."""
        items = work.numbers(min(self.count, effort.items or self.count))
        taking: dict[str, tuple[Mapper, Sequence[Any]]] = {}
        before: dict[str, Callable[[], object]] = {}
        missing: dict[str, str] = {}
        for name, implementation in OPERO.items():
            if implementation not in self.implementations:
                continue
            try:
                taking[name] = self._map(implementation), items
            except ImportError as error:
                missing[name] = str(error)
        core: Implementation = "plain" if COMPILED in missing else "compiled"
        for name, (options, most) in self.variants.items():
            mapped = self._map(core, **options)
            taking[name] = mapped, items[:most]
            if name == MISSES:
                before[name] = mapped.cache_clear
        if HITS in taking:
            mapper, some = taking[HITS]
            mapper(some)
        return Measured(in_turns(taking, effort, before=before), missing)

    def _map(self, implementation: Implementation, **options: Any) -> Any:
        return sides.opero_map(
            self.function, implementation, mode=self.mode, workers=self.workers, **options
        )


ROWS: tuple[ResilienceRow, ...] = (
    ResilienceRow("process", work.same, sides.PROCESSES, {**OPTIONS, **ATTEMPT_TIMEOUT}),
    ResilienceRow("thread", work.same, sides.THREADS, OPTIONS),
    ResilienceRow("async", work.same_later, sides.SLOTS, {**OPTIONS, **ATTEMPT_TIMEOUT}),
)
