"""How many failures end a map, and the results of the items that do not run then."""

from __future__ import annotations

from opero.exceptions import NotRun

from .output import Output

_ENOUGH = 20
"""How many items must be done before a share of failures counts."""


class ErrorLimit:
    """The limit of `max_errors` in one map."""

    def __init__(self, most: float, name: str, output: Output) -> None:
        """Store the limit.

        Args:
            most: The number of failures at which it is reached; a float is a share of the items
                done.
            name: The mapped function, for messages.
            output: Counts the failures.
        """
        self._most: int | float = most
        self._name = name
        self._output = output

    def is_reached(self) -> bool:
        """Return whether that many items have failed for good."""
        most, done, failed = self._most, self._output.settled, self._output.failed
        if isinstance(most, int):
            return failed >= most
        return done >= _ENOUGH and failed > 0 and failed >= most * done

    @property
    def failed(self) -> str:
        """How many items have failed, in words."""
        failed = self._output.failed
        return "1 item has failed" if failed == 1 else f"{failed} items have failed"

    def not_run(self, index: int, error: BaseException | None = None) -> NotRun:
        """Return the result of an item that does not run.

        Args:
            index: Its position in the input.
            error: Its last failure, if it was waiting for a retry.
        """
        what = "did not run" if error is None else "was not tried again"
        made = NotRun(
            f"{self._name}: item {index} {what}, as {self.failed} (max_errors={self._most})"
        )
        made.index = index
        made.__cause__ = error
        return made
