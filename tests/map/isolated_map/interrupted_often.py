"""Is interrupted again and again at any moment of a map; says what that has left behind."""

import asyncio
import gc
import itertools
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import census

from opero import opmap
from opero.map.engines.processes import pool

mode, method, form, times = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
options = {"mode": mode, "workers": 2, "chunk_size": 3, "progress": False, "retries": 1}
if mode.endswith("process"):
    options["start_method"] = method
if mode == "executor":
    options |= {"mode": "thread", "executor": ThreadPoolExecutor(2)}


def work(item):
    """Take a moment."""
    time.sleep(0.001)
    return item


async def awork(item):
    """Take a moment."""
    await asyncio.sleep(0.001)
    return item


mapped = opmap(**options)(awork if mode.startswith("async") else work)
dice = random.Random(f"{mode} {method} {form}")


def forever():
    """Map until the interrupt comes."""
    if form == "call":
        mapped(itertools.count())
    elif form == "stream":
        for _ in mapped.stream(itertools.count()):
            pass
    else:
        asyncio.run(consume())


async def consume():
    """Do the same in a loop."""
    if form == "amap":
        await mapped.amap(itertools.count())
    else:
        async for _ in mapped.astream(itertools.count()):
            pass


def one(longest):
    """Have one map interrupted."""
    delay = dice.uniform(0, longest)
    heard = threading.Event()

    def ring():
        time.sleep(delay)
        while True:  # an interrupt within a finalizer is lost: Python only prints it
            os.kill(os.getpid(), signal.SIGINT)
            if heard.wait(3):
                return
            rings.append(delay)

    bell = threading.Thread(target=ring)
    try:
        bell.start()
        forever()
        print("the map has ended")
    except KeyboardInterrupt:
        heard.set()
    bell.join()


rings = []
mapped([1, 2, 3])  # the servers of the standard library stay until the program ends
for _ in range(3):
    one(0.1)
gc.collect()
pool.shut()
before = census.count()
for number in range(times):
    if number % 4 == 0:
        pool.shut()
    one(0.02 if number % 2 else 0.08)
gc.collect()
pool.shut()
end = time.monotonic() + 10
while (after := census.count()) != before and time.monotonic() < end:
    time.sleep(0.05)
print(json.dumps([before, after, len(rings)]))
if "executor" in options:
    ending = threading.Thread(target=options["executor"].shutdown, daemon=True)
    ending.start()
    ending.join(20)
    if (
        ending.is_alive()
    ):  # CPython may hold its lock for ever if an interrupt meets `submit` as it takes it
        sys.stdout.flush()
        stacks = ["".join(traceback.format_stack(each)) for each in sys._current_frames().values()]
        ours = [
            each for each in stacks if "_worker" in each and "opero" in each.partition("_worker")[2]
        ]
        print(*ours, file=sys.stderr, flush=True)
        os._exit(1 if ours else 0)
