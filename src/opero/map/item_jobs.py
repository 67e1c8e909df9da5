"""How a map's items become jobs: what each job calls the function with.

items -> the items themselves, or an `Invocation` for each
item, fallback value -> the item with the value in its place
"""

from __future__ import annotations

from typing import Any

from .invocation import Arguments
from .jobs import Job, Trial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.fallback import Fallback

    from .output import Span


class ItemJobs:
    """Make the jobs of one map.

    Attributes:
        arguments: Finds the arguments of an item's call.
        lends: Whether each item contains its own list of fallback values, without being that list.
        same: Whether all items have the same first fallback value.
    """

    def __init__(
        self,
        fallback: Fallback | None,
        leading: tuple[Any, ...],
        shared: dict[str, Any],
        unpack: bool,
    ) -> None:
        """Set what all jobs share.

        Args:
            fallback: The fallback values of the function; None if it has none.
            leading: What comes before the item in a call: the instance of a method, or its class.
            shared: The keyword arguments of all calls.
            unpack: Whether an item contains the arguments of its call.
        """
        self.arguments: Arguments = Arguments(leading, shared, unpack)
        self._fallback: Any = fallback
        self._leading = leading
        self._shared = shared
        self._unpack = unpack
        named = fallback is not None and fallback.listed is None
        listed = fallback is not None and fallback.listed is not None
        placed = fallback is not None and fallback.position == len(leading)
        # the item is itself the list of fallback values: each attempt gets a copy of the rest
        self._copies = named and placed and not unpack
        self.lends: bool = named and not self._copies
        self.same: bool = listed and not (placed or unpack)  # else it is the item, or a part of it

    def whole(self, span: Span) -> Job | None:
        """Return a job of all items of a span; None if an item cannot be unpacked."""
        if not self._unpack:
            return Job(span, range(len(span.values)), span.values, None)
        try:
            return self.of(span, range(len(span.values)))
        except Exception:  # noqa: BLE001 - a user's row or mapping may raise anything
            return None

    def of(self, span: Span, offsets: Any, trial: Trial | None = None) -> Job:
        """Return a job of some of a span's items, with their first fallback values.

        Args:
            span: The span that the items belong to.
            offsets: Their places in the span.
            trial: The record of the only item, if it has failed before.
        """
        job = Job(span, offsets, [span.values[offset] for offset in offsets], trial)
        if self._unpack:
            arguments = self.arguments
            job.values = [arguments.invocation(*arguments.of(item)) for item in job.values]
            job.invoked = True
        elif self._copies:
            job.values = [self._fallback.choice(item, 0) for item in job.values]
        return job

    def first(self, span: Span, offset: int) -> Job:
        """Return the job of an item's first attempt."""
        lent = None if self._fallback is None else self.lent(span, offset)
        return self.of(span, [offset]) if lent is None else lent

    def again(self, span: Span, offset: int, trial: Trial) -> Job:
        """Return the job of an item's next attempt.

        Args:
            span: The span that the item belongs to.
            offset: Its place in the span.
            trial: The record of its attempts, which gives the fallback value.
        """
        if self._fallback is None:
            return self.of(span, [offset], trial)
        given, _ = self.given(span, offset)
        number = trial.attempts.value
        job = self._with(span, offset, self._fallback.choice(given, number), trial)
        job.number = number
        return job

    def lent(self, span: Span, offset: int) -> Job | None:
        """Return the job of an item that gets a value other than its own; None if it does not."""
        given = self._fallback.given(*self.arguments.of(span.values[offset]))
        first = self._fallback.choice(given, 0)
        return None if first is given else self._with(span, offset, first)

    def given(self, span: Span, offset: int) -> tuple[Any, int]:
        """Return an item's fallback value, or its list of them, and how many there are."""
        fallback = self._fallback
        if fallback is None:
            return None, 1
        given = fallback.given(*self.arguments.of(span.values[offset]))
        return given, fallback.check(given)

    def plain(self, given: Any, number: int) -> Any:
        """Return a fallback value in the form by which breakers distinguish it.

        Args:
            given: What `given` returned for the item.
            number: Which value, counted from 0.
        """
        return self._fallback.plain(given, number)

    def _with(self, span: Span, offset: int, value: Any, trial: Trial | None = None) -> Job:
        """Return a job that calls the function for one item with a fallback value."""
        arguments = self.arguments
        args, named = self._fallback.place(*arguments.of(span.values[offset]), value)
        behind = len(self._leading)
        job = Job(span, [offset], [args[behind]] if args[behind:] else [], trial)
        if self._unpack or len(args) > behind + 1 or named is not self._shared:
            job.values = [arguments.invocation(args, named)]
            job.invoked = True
        return job
