"""How often a test injects the same fault.

`OPERO_REPEATS` says it. The default keeps the suite short; `.ci/run` takes ten with the newest
Python, `.ci/stress` takes a hundred.
"""

from __future__ import annotations

import os

REPEATS = int(os.environ.get("OPERO_REPEATS", "3"))


def scaled(times: int) -> int:
    """Return how often to do what is done `times` times when others are done a hundred times."""
    return max(1, times * REPEATS // 100)
