"""Runs generator functions: an attempt goes as far as the first item.

    next() -> sync.run -> Opening: make a generator, ask it for an item
                            | the first item is out
                            v
              the generator's own items, errors and end, as by `yield from`

The user gets the generator that `stream` makes. `async_streams` does the same for asynchronous
generator functions.
"""

from __future__ import annotations

from opero.core.clock import NEVER
from opero.never_failures import is_never_failure
from opero.tracebacks import shorten, without_top

from .sync import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from opero.core.call import Call


class Making:
    """Makes the generators of one call, one for each attempt.

    Attributes:
        call: The decorated function.
        first: A generator that has not begun, for the first attempt; None if there is none.
        generator: The generator of the latest attempt; None before the first, and once it has
            ended.
    """

    __slots__ = ("call", "first", "generator")

    def __init__(self, call: Any, first: Any) -> None:
        """Begin a call.

        Args:
            call: The decorated function.
            first: The generator for the caller's arguments.
        """
        self.call: Any = call
        self.first: Any = first if call.fallback is None else None  # it may get other arguments
        self.generator: Any = None

    def make(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the generator of an attempt."""
        made: Any = self.first
        if made is None:
            made = self.call.func(*args, **kwargs)
        self.first = None
        self.generator = made
        return made

    def take(self) -> Any:
        """Hand over the generator of the latest attempt."""
        generator: Any = self.generator
        self.generator = None
        return generator


class Opening(Making):
    """Calls a generator function as far as its first item."""

    __slots__ = ()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Make an attempt.

        Returns:
            The first item; what the generator returns, if it ends without one.
        """
        try:
            return next(self.make(args, kwargs))
        except StopIteration as end:
            self.take()
            return end.value

    def reject(self) -> None:
        """Close a generator whose first item counts as a failure, before the next attempt."""
        try:
            self.close()
        except Exception as error:  # noqa: BLE001 - judged there
            note_unclosed(self.call, error)

    def close(self) -> None:
        """Close the generator, unless it has ended or was handed over."""
        generator = self.take()
        if generator is not None:
            generator.close()


def note_unclosed(call: Any, error: Exception) -> None:
    """Log what closing a rejected generator has raised: its attempt has already failed.

    Raises:
        Exception: The error itself, if it is never a failure.
    """
    if is_never_failure(error):
        raise error
    call.events.warn(call.name, f"closing a rejected stream failed: {type(error).__name__}")


def stream(call: Call, args: Any, kwargs: Any, first: Any) -> Generator[Any, Any, Any]:
    """Yield what a generator function yields, once an attempt has come as far as its first item.

    Args:
        call: The decorated function.
        args: The positional arguments.
        kwargs: The keyword arguments.
        first: The generator for these arguments.
    """
    opening: Any = None
    generator: Any = None
    interrupt: BaseException | None = None
    try:
        opening = Opening(call, first)
        first = None
        try:
            until = call.clock.now() + call.timeout if call.timeout else NEVER
            item = run(call, args, kwargs, until, func=opening)
            generator = opening.take()
        finally:
            opening.close()  # after an exception of a predicate, or Ctrl-C
        opening = args = kwargs = None  # release them, as the function itself may
        if generator is None:
            return item
        try:
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    generator.close()
                    raise
                except BaseException as thrown:  # noqa: BLE001 - the generator's to handle
                    interrupt = without_top(thrown)
                else:
                    item = None
                    if sent is None:
                        return (yield from generator)
                    item = generator.send(sent)
                    continue
                item = generator.throw(interrupt)
                interrupt = None
        except StopIteration as end:
            return end.value
    except BaseException as failure:
        shorten(failure)
        raise
    finally:
        # a traceback that holds this frame must not make a cycle
        opening = generator = interrupt = first = None
