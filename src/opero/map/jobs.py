"""What a worker does: attempts at items, and what is known about an item that is retried."""

from __future__ import annotations

from typing import Any

from opero.core.clock import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .gates import Admission
    from .item_history import ItemHistory
    from .output import Span


class Trial:
    """An item that has failed, or whose first fallback value was refused, and will be retried.

    Attributes:
        attempts: The record of its failures.
        deadline: The latest start of its last attempt, in nanoseconds; `NEVER` before the first.
        history: What to report about it at its end; None if nobody listens.
    """

    __slots__ = ("attempts", "deadline", "history")

    def __init__(self, attempts: Any, deadline: int) -> None:
        self.attempts: Any = attempts
        self.deadline: int = deadline
        self.history: ItemHistory | None = None

    def over(self, error: BaseException | None) -> None:
        """Report that the item has its final result, or has failed for good."""
        if self.history is not None:
            self.history.end(self.attempts, error)


class Job:
    """Attempts that one worker makes, one after the other.

    Attributes:
        span: The span that the items belong to.
        offsets: Their places in the span.
        patience: Nanoseconds after which a failure ends the job, so that its gates soon hear of
            the failure, and the other items go back; 0 for never.
        values: What to call the function with: the items, or an `Invocation` for each.
        invoked: Whether the values are invocations.
        trial: The record of its only item, if that has failed before.
        deadline: When an attempt that can be cut must end, in nanoseconds.
        admission: How the job passed the gates, if a gate wants to know the outcome.
        began: When the job was handed out, in nanoseconds.
        delay: How long the item has waited since its last attempt failed, in nanoseconds.
        number: Which fallback value the job uses, counted from 0.
        refused: Since when the job has waited for a breaker, in nanoseconds; 0 if it does not.
        waited: How long the job waited at the gates, in nanoseconds.
    """

    __slots__ = (
        "admission",
        "began",
        "deadline",
        "delay",
        "invoked",
        "number",
        "offsets",
        "patience",
        "refused",
        "span",
        "trial",
        "values",
        "waited",
    )

    def __init__(self, span: Span, offsets: Any, values: list[Any], trial: Trial | None) -> None:
        self.span: Span = span
        self.offsets: Any = offsets
        self.values: list[Any] = values
        self.trial: Trial | None = trial
        self.invoked: bool = False
        self.deadline: int = NEVER
        self.admission: Admission | None = None
        self.began: int = 0
        self.delay: int = 0
        self.number: int = 0
        self.patience: int = 0
        self.refused: int = 0
        self.waited: int = 0


def part_of(job: Job, places: Any) -> Job:
    """Return a job of some of a job's items."""
    part = Job(
        job.span,
        [job.offsets[place] for place in places],
        [job.values[place] for place in places],
        job.trial,
    )
    part.invoked = job.invoked
    part.deadline = job.deadline
    part.began = job.began
    part.delay = job.delay
    part.number = job.number
    part.refused = job.refused
    part.waited = job.waited
    return part
