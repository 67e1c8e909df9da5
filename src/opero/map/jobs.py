"""What a worker is to do: attempts of items, and what is known of one that is tried again."""

from __future__ import annotations

from typing import Any

from opero.core.clock import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .gates import Admission
    from .item_history import ItemHistory
    from .output import Span


class Trial:
    """An item that has failed, or whose first fallback value was refused, and will be tried again.

    Attributes:
        attempts: The account of its failures.
        deadline: When its last attempt must have begun, in nanoseconds; `NEVER` before the first.
        history: What is told of it at its end; None if nobody listens.
    """

    __slots__ = ("attempts", "deadline", "history")

    def __init__(self, attempts: Any, deadline: int) -> None:
        self.attempts: Any = attempts
        self.deadline: int = deadline
        self.history: ItemHistory | None = None

    def over(self, error: BaseException | None) -> None:
        """Tell that the item has its final result, or has failed for good."""
        if self.history is not None:
            self.history.end(self.attempts, error)


class Job:
    """Attempts for one worker to make, one after the other.

    Attributes:
        span: Where the items stand.
        offsets: Their places in it.
        patience: After how many nanoseconds a failure ends the job, so that its gates learn of it
            soon, and the rest goes back; 0 for never.
        values: What to call the function with: the items, or an `Invocation` for each.
        invoked: Whether they are invocations.
        trial: The account of the one item, if it has failed before.
        deadline: When an attempt that can be cut must be over, in nanoseconds.
        admission: How it passed the gates, if one wants to know what comes of it.
        began: When it was handed out, in nanoseconds.
        delay: How long it has waited since the last attempt failed, in nanoseconds.
        number: Which fallback value it holds, counted from 0.
        refused: Since when it waits for a breaker, in nanoseconds; 0 if it does not.
        waited: Nanoseconds that it had to wait at the gates.
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
