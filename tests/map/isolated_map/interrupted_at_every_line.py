"""Is interrupted at each line of the modules named that one map runs; says what that has left behind."""

import asyncio
import gc
import os
import signal
import sys
import warnings
from importlib import import_module
from pathlib import Path

from opero import opmap

loop, *names = sys.argv[1:]
files = {import_module(name).__file__ for name in names}


@opmap(mode="async", workers=2, progress=False, retries=1, loop=loop)
async def double(item):
    """Give others a turn."""
    await asyncio.sleep(0)
    return 2 * item


def interrupted(place):
    """Interrupt a map at the line that is the `place`-th; say where that is, and how it ended."""
    number, where, ending = 0, None, "result"

    def at_a_line(frame, event, _):
        nonlocal number, where
        if event in ("line", "return"):
            if number == place:
                where = f"{frame.f_code.co_name}:{frame.f_lineno}"
                os.kill(os.getpid(), signal.SIGINT)
            number += 1
        return at_a_line

    sys.settrace(lambda frame, *_: at_a_line if frame.f_code.co_filename in files else None)
    try:
        double([1, 2, 3])
    except KeyboardInterrupt:
        ending = "interrupt"
    finally:
        sys.settrace(None)
    return where, ending


def open_files():
    """Count the open files."""
    return len(list(Path("/proc/self/fd").iterdir()))


double([1, 2, 3])
before = open_files()
place = 0
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    while True:
        where, ending = interrupted(place)
        if where is None:
            break
        gc.collect()
        left = [str(each.message) for each in told]
        if open_files() != before:
            left.append(f"{open_files()} files, not {before}")
        if (
            ending != "interrupt"
            or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        ):
            left.append(f"{ending}, {signal.getsignal(signal.SIGINT)}")
        if left:
            print(where, left)
        told.clear()
        before = open_files()
        place += 1
print(place, "places")
