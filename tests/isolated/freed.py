"""What nobody needs any more goes at once, without the garbage collector: it is off here."""

from __future__ import annotations

import gc
import weakref

import common

from opero import AllFailedError, get_logger, opero
from opero.testing import manual_clock

gc.disable()
get_logger().setLevel("CRITICAL")
fast = {"min_delay": 0, "max_delay": 0}


class Thing:
    """What is watched."""

    @opero(retries=1, cache=True)
    def method(self, x):
        """Be cached for each instance."""
        return Thing()


class Failure(Exception):
    """What is watched too."""


def gone(name, *watched):
    """Fail if one of the weak references is alive."""
    for ref in watched:
        if ref() is not None:
            held = [type(holder).__name__ for holder in gc.get_referrers(ref())]
            raise SystemExit(f"{name}: still held by {held}")


def fail(x):
    """Raise."""
    raise Failure


for options in (
    {"retries": 1},
    {"retries": 3, **fast},
    {"retries": 1, "cache": True},
    {"retries": 3, "cache": True, "timeout": 5, "rate_limit": 1e6, **fast},
    {"retries": 2, "arg_fallback": {"x": [1, 2]}, **fast},
):
    argument = Thing()
    try:
        opero(**options)(fail)(argument)
    except Failure as error:
        watched = [weakref.ref(error)]
    except AllFailedError as error:
        watched = [weakref.ref(error), *map(weakref.ref, error.errors)]
    watched.append(weakref.ref(argument))
    del argument
    gone(f"a failure of {options}", *watched)

make = opero(retries=1, cache=True, cache_maxsize=1)(lambda x: Thing())
value = weakref.ref(make(1))
assert value() is not None
make(2)
gone("an evicted value", value)
value = weakref.ref(make(3))
make.cache_clear()
gone("a cleared value", value)

make = opero(retries=1, cache=True)(lambda x: Thing())
value = weakref.ref(make(1))
make.cache_invalidate(1)
for number in range(70):  # a dead entry may stay in its queue for a while, but not for long
    make(f"other {number}")
    make.cache_invalidate(f"other {number}")
gone("an invalidated value", value)

make = opero(retries=1, cache=True, cache_ttl=1)(lambda x: Thing())
with manual_clock() as clock:
    value = weakref.ref(make(1))
    clock.advance(2)
    make(1)
    gone("a value that was replaced after its time", value)

instance = Thing()
value = weakref.ref(instance.method(1))
watched = weakref.ref(instance)
bound = instance.method
del instance
assert watched() is not None
del bound
gone("an instance, and what was cached for it", watched, value)

gc.collect()
function = opero(retries=2, cache=True, rate_limit=5, timeout=5)(lambda x: Thing())
value = weakref.ref(function(1))
watched = weakref.ref(function)
del function
gc.collect()  # a function that is given away with its wrapper may be in a cycle
gone("a decorated function, and its cache", watched, value)
common.blocks()
