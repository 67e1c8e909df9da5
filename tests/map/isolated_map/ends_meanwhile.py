"""Ends while a daemon thread maps."""

import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import work
from drive import run_map

threading.Thread(target=run_map, args=(work.naps, [0, 60, 60]), daemon=True).start()
time.sleep(0.6)
