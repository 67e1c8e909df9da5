"""The machine's clocks, for what waits or measures: no test can stop them.

Libraries such as freezegun look through all modules for the functions of `time`, and put others in
their place; a wait that goes by a stopped clock never ends. So these are the functions of a second
instance of that module, which nobody else knows. They are no others' business either: the clock
that `opero.testing` moves is `opero.core.clock.Clock`, and the time of day stays with `time`.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _again() -> Any:
    """Return another instance of `time`, which is made as the first one was."""
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
