"""Ends while a daemon thread maps, and its workers are at work."""

import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from drive import run_map

folder = tempfile.mkdtemp()


def naps(seconds):
    """Say that it is there, and stay."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(seconds)


threading.Thread(target=run_map, args=(naps, [60, 60]), daemon=True).start()
end = time.monotonic() + 30
while len(list(Path(folder).iterdir())) < 2 and time.monotonic() < end:
    time.sleep(0.01)
shutil.rmtree(folder)
