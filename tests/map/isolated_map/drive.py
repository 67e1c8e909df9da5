"""A map over processes in a few lines: what the library's own driver does, for tests."""

from __future__ import annotations

from itertools import islice
from typing import Any

from opero import opero
from opero.core.chunk import ChunkSizer
from opero.map.engines.base import Report
from opero.map.engines.processes.engine import ProcessEngine
from opero.map.scheduler import Scheduler


def run_map(
    function: Any,
    items: Any,
    workers: int = 2,
    chunk: int = 0,
    retries: int = 1,
    shared: Any = None,
    seen: Any = None,
    **options: Any,
) -> list[Any]:
    """Return what came of each item, in order; exceptions stand for themselves."""
    function_of_one = opero(retries=retries, min_delay=0, jitter=False)(lambda value, **_: value)
    call = function_of_one.__opero__
    sizer = ChunkSizer(workers, 10**7, chunk, -1)
    scheduler = Scheduler(call, shared or {}, sizer, 100_000, True)
    engine = ProcessEngine(function, shared or {}, workers, **options)
    source = iter(items)
    idle = list(range(engine.slots))
    results: list[Any] = []
    done = False
    try:
        while not scheduler.over:
            for slot in idle.copy():
                job = scheduler.assign(slot, call.clock.now())
                if job is None and (count := scheduler.demand()):
                    values = list(islice(source, count))
                    scheduler.feed(values)
                    if len(values) < count:
                        scheduler.close()
                    job = scheduler.assign(slot, call.clock.now())
                if job is not None:
                    idle.remove(slot)
                    engine.start(slot, job)
            if len(idle) < engine.slots:
                events = engine.wait(None if not scheduler._heap else 0.001)
                for event in events:
                    idle.append(event.slot)
                    if seen is not None:
                        seen.append(event)
                    if isinstance(event, Report):
                        scheduler.report(event.job, event.results, event.failures, event.elapsed)
                    else:
                        scheduler.crash(
                            event.job, event.results, event.failures, event.at, event.error
                        )
            results += scheduler.collect()
        done = True
    finally:
        engine.close(abandon=not done)
    return results + scheduler.collect()
