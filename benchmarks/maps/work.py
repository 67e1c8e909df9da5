"""What is mapped: functions that a worker process can import."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pickle import PickleBuffer
from time import perf_counter_ns, thread_time_ns
from typing import Any

MICROSECOND = 1_000
"""In nanoseconds."""


def same(item: Any) -> Any:
    """Do nothing, so that a figure is the map's own."""
    return item


async def same_later(item: Any) -> Any:
    """Do nothing in a coroutine."""
    return item


def spin(duration: int) -> int:
    """Keep a processor busy.

    Args:
        duration: For how long, in nanoseconds of this thread's processor time.

    Returns:
        How long that took on the wall, in nanoseconds.
    """
    begun = perf_counter_ns()
    end = thread_time_ns() + duration
    while thread_time_ns() < end:
        pass
    return perf_counter_ns() - begun


def even(count: int) -> list[int]:
    """Items for `spin` that take 100 microseconds each."""
    return [100 * MICROSECOND] * count


def skewed(count: int) -> list[int]:
    """Items for `spin` of which 1 in 100, in places drawn once, is 100 times longer."""
    items = [100 * MICROSECOND] * count
    for place in random.Random(7).sample(range(count), max(1, count // 100)):
        items[place] *= 100
    return items


def payloads(count: int) -> list[bytes]:
    """Items of a mebibyte each."""
    return [bytes([place % 256]) * (1 << 20) for place in range(count)]


class Block:
    """A mebibyte that can move without being copied into a pickle, as the memory of arrays can.

    Attributes:
        memory: What it holds.
    """

    __slots__ = ("memory",)

    def __init__(self, memory: Any) -> None:
        self.memory = memory

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Block) and bytes(self.memory) == bytes(other.memory)

    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: Any) -> Any:
        memory = PickleBuffer(self.memory) if protocol >= 5 else bytes(self.memory)
        return Block, (memory,)


def blocks(count: int) -> list[Block]:
    """The same as `payloads`, in objects that offer their memory to the pickle."""
    return [Block(bytearray(payload)) for payload in payloads(count)]


def numbers(count: int) -> Sequence[int]:
    """Items for `same`."""
    return range(count)
