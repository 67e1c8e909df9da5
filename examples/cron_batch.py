"""A batch for cron and Docker: one log line for each event, exit codes, a clean end at SIGTERM.

    pip install '.[disk]'                # in a checkout of opero
    python examples/cron_batch.py        # or see cron_batch.Dockerfile

Exit codes: 0 if all is done, 1 if items have failed, 143 if SIGTERM ended it. What is done is
stored in the directory that BATCH_FOLDER names, so the next run goes on where this one ended.
`--check` checks its promises: it terminates a run in the middle, and runs it again.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time

from opero import opmap

try:
    import diskcache  # noqa: F401 - only to say so if it is missing
except ImportError:
    sys.exit("This recipe needs diskcache: pip install '.[disk]'")

log = logging.getLogger("batch")


@opmap(
    mode="process",
    workers=2,
    retries=2,
    progress="log",
    cache=True,
    cache_backend="disk",
    cache_dir=os.environ.get("BATCH_FOLDER"),
)
def convert(number: int) -> int:
    """Convert one document; what it logs in its process appears here, too."""
    time.sleep(0.02)
    if number % 25 == 0:
        log.info("document %d is converted", number)
    return number * number


def run(count: int) -> int:
    """Run the batch; return the exit code."""
    logging.basicConfig(
        stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    log.info("begin: process %d", os.getpid())
    try:
        batch = convert(range(count))
    except SystemExit:
        log.warning("ended by SIGTERM; what is done is stored")
        raise
    for failure in batch.failures:
        log.error("item %d failed: %r", failure.index, failure.error)
    log.info("end: %d new, %s", batch.attempts, batch.summary())
    return 1 if batch.failures else 0


def check() -> int:
    """Terminate a batch in the middle, and run it again; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "100"]
        environment = {**os.environ, "BATCH_FOLDER": folder}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as first:
            assert first.stdout is not None
            for line in first.stdout:
                print(line, end="")
                if "document 25" in line:
                    first.terminate()
        again = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        print(again.stdout, end="")
    resumed = "end: 100 new" not in again.stdout
    return 0 if first.returncode == 143 and again.returncode == 0 and resumed else 1


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(check() if words == ["--check"] else run(int(words[0]) if words else 100))
