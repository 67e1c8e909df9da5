"""Has one idle worker, and two at work, one of them with a worker of its own; says who they are."""

import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import work
from drive import run_map

from opero.map.engines.processes import pool
from opero.map.engines.processes.engine import ProcessEngine
from opero.map.jobs import Job
from opero.map.output import Span

pool.IDLE = 600.0  # a busy machine may take longer than usual to start the others
method = sys.argv[1]
folder = tempfile.mkdtemp()


def marks(deep):
    """Leave this process's id and stay; or have that done by a worker of this one."""
    from pathlib import Path

    (Path(folder) / str(os.getpid())).touch()
    if deep:
        run_map(marks, [False], workers=1, start_method=method)
    time.sleep(60)


def job(value):
    """Return a job of one item."""
    return Job(Span([value]), range(1), [value], None)


(idle,) = run_map(work.who, [1], workers=1, start_method=method)
spare = ProcessEngine(work.who, {}, 1, start_method=method)
spare.start(0, job(1))
spare.wait(20)
engine = ProcessEngine(marks, {}, 2, start_method=method)
engine.start(0, job(False))
engine.start(1, job(True))
spare.close(abandon=False)
while len(list(Path(folder).iterdir())) < 3:
    engine.wait(0.01)
print(idle, *[path.name for path in Path(folder).iterdir()], flush=True)
try:
    engine.wait(60)
finally:
    engine.close(abandon=True)
