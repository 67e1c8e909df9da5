"""Ends while a daemon thread maps, and its workers are at work."""

import os
import shutil
import sys
import tempfile
import threading
import time
from multiprocessing import resource_tracker
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from drive import run_map


def wait_for_the_tracker(tracker):
    """Do what multiprocessing's tracker does in Python 3.13.5 when the interpreter ends."""
    if tracker._fd is not None and tracker._pid is not None:
        os.close(tracker._fd)
        os.waitpid(tracker._pid, 0)


if sys.argv[2:] == ["waits"]:
    resource_tracker.ResourceTracker.__del__ = wait_for_the_tracker

folder = tempfile.mkdtemp()


def naps(seconds):
    """Say that it is there, and stay."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(seconds)


threading.Thread(
    target=run_map, args=(naps, [60, 60]), kwargs={"start_method": sys.argv[1]}, daemon=True
).start()
end = time.monotonic() + 30
while len(list(Path(folder).iterdir())) < 2 and time.monotonic() < end:
    time.sleep(0.01)
shutil.rmtree(folder)
