"""Blocks of code under the policy that `@opero` gives a function.

    policy       attempts(...) -> AttemptLoops -> a loop for each `for` or `async for`
    loop         Loop -> an Attempt for each `with`
    async_loop   the same, awaiting

A loop is a call whose attempts the user's own code makes, so what follows a failure is decided as
for any call, by `core.retrying`. The loop waits where it hands out the next attempt. What a block
has raised is judged where its `with` ends: if no attempt follows, it is raised there.
"""

from __future__ import annotations

from .loop import Attempt
from .policy import AttemptLoops, attempts

__all__ = ["Attempt", "AttemptLoops", "attempts"]
