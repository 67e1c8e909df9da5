"""Celery tasks: opero retries for seconds, celery for minutes, and a soft time limit ends both.

    pip install . celery                 # in a checkout of opero
    python examples/celery_tasks.py

It starts a worker with two processes, whose broker is a temporary directory, and sends it tasks
that fail, recover and hang. Exits with 1 if one of them does not end as it should. In your
project the broker is Redis or RabbitMQ, and you start the worker.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from opero import AllFailedError, opero

try:
    from celery import Celery
    from celery.exceptions import SoftTimeLimitExceeded
except ImportError:
    sys.exit("This recipe needs celery: pip install celery")

FOLDER = Path(os.environ.get("CELERY_FOLDER", ".")).resolve()  # yours is a Redis or RabbitMQ
app = Celery("celery_tasks", broker="filesystem://", backend=(FOLDER / "results").as_uri())
app.conf.broker_transport_options = {
    "data_folder_in": str(FOLDER / "queue"),
    "data_folder_out": str(FOLDER / "queue"),
    "control_folder": str(FOLDER / "control"),
}


def attempt(name: str) -> int:
    """Count the attempts for a name, over all processes."""
    path = FOLDER / name
    with path.open("a") as file:
        file.write(".")
    return path.stat().st_size


@app.task(
    name="fetch",
    acks_late=True,
    autoretry_for=(AllFailedError,),
    max_retries=3,
    default_retry_delay=1,  # yours is a minute
)
@opero(retries=3, min_delay=0.01, retry_on=ConnectionError)
def fetch(name: str, recovers_after: int) -> int:
    """Ask something that fails for a while; return the number of attempts that it took."""
    number = attempt(name)
    if number <= recovers_after:
        raise ConnectionError(f"{name} is down")
    return number


@app.task(name="report", soft_time_limit=1, time_limit=10)
@opero(retries=3, min_delay=0.01)
def report(name: str) -> None:
    """Hang; celery's limit ends the task, and opero does not start it again."""
    attempt(name)
    time.sleep(30)


def results(*waiting: Any) -> list[Any]:
    """Wait for results, or for what was raised in their place."""
    return [task.get(timeout=60, propagate=False, interval=0.05) for task in waiting]


def main() -> int:
    """Run a worker and tasks; return the exit code."""
    command = ["celery", "--quiet", "-A", "celery_tasks", "worker", "-c", "2", "-l", "CRITICAL"]
    worker = subprocess.Popen([sys.executable, "-m", *command], cwd=Path(__file__).parent)
    try:
        sent = fetch.delay("blip", 2), fetch.delay("outage", 4), report.delay("slow")
        blip, outage, slow = results(*sent)
    finally:
        worker.terminate()  # what runs is finished
        worker.wait(30)
    print(f"a blip: {blip} attempts; an outage: {outage}, by two tasks; slow: {slow!r}")
    once = (FOLDER / "slow").stat().st_size == 1
    ended = isinstance(slow, SoftTimeLimitExceeded)
    return 0 if (blip, outage) == (3, 5) and ended and once else 1


def in_folder() -> int:
    """Run this program in a temporary folder; return its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("queue", "control", "results"):
            Path(folder, name).mkdir()
        environment = {**os.environ, "CELERY_FOLDER": folder}
        return subprocess.run([sys.executable, __file__], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main() if "CELERY_FOLDER" in os.environ else in_folder())
