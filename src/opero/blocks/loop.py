"""The loop over the attempts of a block, and the attempts that it hands out."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from opero.core.clock import NEVER
from opero.exceptions import OperoError
from opero.runners import sync
from opero.runners.effects import ATTEMPT, SLEEP, WAIT
from opero.tracebacks import shorten

if TYPE_CHECKING:
    from typing import Self

WAITING, HANDED_OUT, INSIDE, OVER = range(4)
"""The stages of a loop: before an attempt, before its `with`, inside it, after the last one."""


class MisusedLoopError(OperoError):
    """The code of a loop over attempts is wrong; the block is not retried."""


class Attempt:
    """One attempt of a block; write `with attempt:` around the code.

    Attributes:
        number: Its number, counted from 1.
    """

    __slots__ = ("_loop", "number")

    def __init__(self, loop: Loop, number: int) -> None:
        self._loop: Loop = loop
        self.number: int = number

    def __enter__(self) -> Self:
        """Begin the attempt.

        Raises:
            OperoError: If the attempt has already begun or is over.
        """
        loop = self._loop
        if loop.current != self.number or loop.stage != HANDED_OUT:
            what = "has already begun" if loop.is_inside(self.number) else "is over"
            raise MisusedLoopError(
                f"{loop.name}: attempt {self.number} {what}: use each attempt in one `with`; the "
                f"loop gives you the next"
            )
        loop.enter()
        loop.stage = INSIDE
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """End the attempt; return whether another one follows.

        Raises:
            OperoError: If the loop fails with an error other than the block's own.
        """
        loop = self._loop
        failure: BaseException | None = None
        try:
            loop.stage = OVER
            try:
                loop.leave(error)
            except BaseException:
                loop.end()
                raise
            if loop.stage == WAITING:
                return True
            failure = loop.end()
            if failure is not None and failure is not error:
                raise failure
            return False
        finally:
            error = failure = None  # their frames hold this one

    def __aenter__(self) -> NoReturn:
        raise TypeError("write `with attempt:`, without `async`: only the loop awaits")

    def __aexit__(self, *_: object) -> None: ...

    def __del__(self) -> None:
        loop = self._loop
        if loop.current == self.number and loop.stage == HANDED_OUT:
            loop.withdraw()  # the loop was left before its `with`

    def __repr__(self) -> str:
        return f"<attempt {self.number} of {self._loop.name}>"


class Loop:
    """The attempts of one `for` loop.

    Attributes:
        name: The name of the block in messages.
        call: Counts and reports events, as for a decorated function.
        retrying: Decides what follows, and when.
        current: The number of the latest attempt.
        stage: The stage of the loop.
    """

    __slots__ = ("call", "current", "name", "retrying", "stage")

    def __init__(self, call: Any) -> None:
        call.add("calls", 1)
        deadline = call.clock.now() + call.timeout if call.timeout else NEVER
        self.name: str = call.name
        self.call: Any = call
        self.retrying: Any = call.retrying(call, (), {}, deadline, None, None, 0, 0, None, False)
        self.current: int = 0
        self.stage: int = WAITING

    def __iter__(self) -> Loop:
        return self

    def __next__(self) -> Attempt:
        call, retrying = self.call, self.retrying
        if self.is_over():
            raise StopIteration
        try:
            while True:
                todo = retrying.next()
                if todo == ATTEMPT:
                    return self.hand_out()
                if todo == SLEEP:
                    retrying.slept(sync.sleep(call.clock, retrying.delay))
                elif todo == WAIT:
                    try:
                        waited = sync.drive(retrying.queue().steps(retrying.deadline, 1))
                    except BaseException:
                        retrying.abandoned()
                        raise
                    retrying.waited(waited)
                else:
                    raise retrying.error
        except BaseException as failure:
            self.end()
            shorten(failure)
            raise
        finally:
            retrying = None

    def is_over(self) -> bool:
        """Return whether no attempt follows.

        Raises:
            MisusedLoopError: If the last attempt was not made, or is still running.
        """
        if self.stage == WAITING:
            return False
        if self.stage == OVER:
            return True
        name, number = self.name, self.current
        if self.stage == INSIDE:
            raise MisusedLoopError(
                f"{name}: the loop goes on inside attempt {number}: end its `with` block first"
            )
        self.withdraw()
        raise MisusedLoopError(
            f"{name}: attempt {number} was not made: write `with attempt:` around the code in the "
            f"loop, so that the loop sees its errors and ends when it succeeds"
        )

    def withdraw(self) -> None:
        """Note that an attempt that was handed out is not made."""
        self.retrying.withdrawn()
        self.end()

    def end(self) -> BaseException | None:
        """End the loop, release its errors, whose frames refer to it, and return its failure."""
        failure: BaseException | None = self.retrying.error
        self.stage = OVER
        self.retrying = None
        return failure

    def is_inside(self, number: int) -> bool:
        """Return whether the block of an attempt is running."""
        return self.current == number and self.stage == INSIDE

    def hand_out(self) -> Attempt:
        """Return the next attempt."""
        self.current += 1
        self.stage = HANDED_OUT
        return Attempt(self, self.current)

    def enter(self) -> None:
        """Note that a block begins."""

    def leave(self, error: BaseException | None) -> None:
        """Note how a block has ended."""
        if error is None:
            self.retrying.returned(None)
        else:
            self.judge(error)

    def judge(self, error: BaseException) -> None:
        """Decide whether another attempt follows a failure."""
        retrying = self.retrying
        try:
            retrying.failed(error)
            retrying.judge()
        except BaseException:  # the user's predicates may raise anything
            retrying.abandoned()
            raise
        finally:
            error = None  # type: ignore[assignment]  # its frames hold this one
        if retrying.over:
            retrying.next()  # reports the failure
        else:
            self.stage = WAITING


class BareLoop(Loop):
    """A loop while opero is switched off: one attempt, as if there were no loop."""

    __slots__ = ()

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.call: Any = None
        self.retrying: Any = None
        self.current: int = 0
        self.stage: int = WAITING

    def __next__(self) -> Attempt:
        if self.is_over():
            raise StopIteration
        return self.hand_out()

    def __aiter__(self) -> BareLoop:
        return self

    async def __anext__(self) -> Attempt:
        if self.is_over():
            raise StopAsyncIteration
        return self.hand_out()

    def leave(self, error: BaseException | None) -> None:
        """Note how the block has ended."""

    def withdraw(self) -> None:
        """Note that the attempt is not made."""
        self.stage = OVER

    def end(self) -> BaseException | None:
        """End the loop; only the block's own error is raised."""
        self.stage = OVER
        return None
