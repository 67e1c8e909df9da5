"""Blocks of code under the policy that `@opero` gives a function.

    policy       attempts(...) -> AttemptLoops -> a loop for each `for` or `async for`
    loop         Loop -> an Attempt for each `with`
    async_loop   the same, awaiting

A loop is a call whose attempts the user's own code makes. So `core.retrying` decides what follows a
failure, as for any call. The loop waits before it hands out the next attempt. The end of a `with`
judges what its block has raised: if no attempt follows, the error is raised there.
"""

from __future__ import annotations

from .loop import Attempt
from .policy import AttemptLoops, attempts

__all__ = ["Attempt", "AttemptLoops", "attempts"]
