"""The machine's clocks, for waits and measurements: no test can stop them.

Libraries such as freezegun replace the functions of `time` in all modules, and a wait by a stopped
clock never ends. So these functions come from a second instance of `time` that nobody else knows.
Tests do not need to move them: `opero.testing` moves `opero.core.clock.Clock`, and the time of day
still comes from `time`.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _again() -> Any:
    """Return another instance of `time`, created like the first one."""
    spec = time.__spec__
    loader: Any = None if spec is None else spec.loader
    if loader is None:
        return time
    module = loader.create_module(spec)
    loader.exec_module(module)
    return module


_time = _again()
monotonic: Callable[[], float] = _time.monotonic
monotonic_ns: Callable[[], int] = _time.monotonic_ns
perf_counter: Callable[[], float] = _time.perf_counter
perf_counter_ns: Callable[[], int] = _time.perf_counter_ns
