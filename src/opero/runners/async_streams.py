"""Runs asynchronous generator functions: see `streams`.

As with a coroutine function, the caller's own task awaits the first item.
"""

from __future__ import annotations

from opero.tracebacks import shorten, without_top

from .aio import gated, run_until
from .streams import Making, note_unclosed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from typing import Any

    from opero.core.call import AsyncCall


class AsyncOpening(Making):
    """Runs an asynchronous generator function up to its first item."""

    __slots__ = ()

    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Make an attempt.

        Returns:
            The first item; None if the generator ends without one.
        """
        try:
            return await self.call.attempted(self.make(args, kwargs))
        except StopAsyncIteration:
            self.take()
            return None
        except GeneratorExit:
            raise  # nothing can be awaited any more
        except BaseException as error:
            without_top(error)
            await self.close()  # it swallowed the cancellation of a late attempt
            raise

    async def reject(self) -> None:
        """Close a generator whose first item counts as a failure, before anything else happens."""
        try:
            await self.close()
        except Exception as error:  # noqa: BLE001 - judged there
            note_unclosed(self.call, error)

    async def close(self) -> None:
        """Close the generator, which will not be used any further, unless it has ended."""
        generator = self.take()
        if generator is not None:
            await generator.aclose()


async def stream(call: AsyncCall, args: Any, kwargs: Any, first: Any) -> AsyncGenerator[Any, Any]:
    """Yield what a generator function yields, once an attempt has reached its first item.

    Args:
        call: The decorated function.
        args: The positional arguments.
        kwargs: The keyword arguments.
        first: The generator that the function made from them.
    """
    opening: Any = None
    generator: Any = None
    interrupt: BaseException | None = None
    try:
        opening = AsyncOpening(call, first)
        first = None
        try:
            item = await (run_until if call.timeout else gated)(call, opening, args, kwargs)
        except GeneratorExit:
            raise
        except BaseException:
            await opening.close()  # a predicate may have raised
            raise
        generator = opening.take()
        opening = args = kwargs = None  # the function itself may release them from now on
        if generator is None:
            return
        try:
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    await generator.aclose()
                    raise
                except BaseException as thrown:  # noqa: BLE001 - the generator's to handle
                    interrupt = without_top(thrown)
                else:
                    item = None
                    item = await generator.asend(sent)
                    continue
                item = await generator.athrow(interrupt)
                interrupt = None
        except StopAsyncIteration:
            return
    except BaseException as failure:
        shorten(failure)
        raise
    finally:
        # a traceback that holds this frame must not form a cycle
        opening = generator = interrupt = first = None
