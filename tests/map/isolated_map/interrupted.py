"""Maps until it is interrupted: says who is at work, and what came of the interrupt."""

import asyncio
import concurrent.futures
import itertools
import os
import re
import sys
import time

from opero import opmap

mode, method, form = sys.argv[1:4]
bar = "bar" in sys.argv
deaf = "deaf" in sys.argv


def say(*words):
    """Write a line at once, whoever else writes."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def work(item):
    """Be quick with some, and never done with another."""
    if item == 20:
        say("at work", os.getpid())
        if deaf:  # this keeps the interpreter to itself
            re.match("(a+)+$", "a" * 60 + "b")
        time.sleep(0.5 if mode == "executor" else 60)
    return item


async def awork(item):
    """Do the same."""
    if item == 20:
        say("at work", os.getpid())
        if deaf:
            re.match("(a+)+$", "a" * 60 + "b")
        await asyncio.sleep(60)
    return item


options = {"mode": mode, "workers": 2, "chunk_size": 3, "progress": bar, "retries": 1}
if mode.endswith("process"):
    options["start_method"] = method
if mode == "executor":
    pool = concurrent.futures.ThreadPoolExecutor(2)
    options |= {"mode": "thread", "executor": pool}
mapped = opmap(**options)(awork if mode.startswith("async") else work)
items = itertools.chain(range(20), itertools.repeat(20))


async def consume():
    """Iterate in a loop."""
    async for _ in mapped.astream(items):
        pass


if form == "call":
    mapped(range(40) if bar else items)
elif form == "stream":
    for _ in mapped.stream(items):
        pass
elif form == "amap":
    asyncio.run(mapped.amap(items))
else:
    asyncio.run(consume())
