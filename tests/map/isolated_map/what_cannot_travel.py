"""A program whose functions use what cannot travel: what the errors say, a line for each."""

import functools
import sqlite3
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from opero import opmap

DB = sqlite3.connect(":memory:")
STATE = {"size": 1, "stores": [None, DB]}
THREAD, EXECUTOR = threading.Thread(), ThreadPoolExecutor(1)
BEGUN = (inner for outer in [[1, 2], [3]] for inner in outer)
next(BEGUN)


class Pool:
    """Holds one deep inside."""

    __slots__ = ("idle",)

    def __init__(self):
        self.idle = {"main": (1, DB)}


class Shop:
    """Has a method that uses one, and an attribute that is one."""

    def price(self, value):
        return DB.execute(value)


class Stock:
    store = DB


POOL = Pool()


@functools.lru_cache
def helper(value):
    return DB.execute(value)


def through_helper(value):
    return helper(value)


def around():
    store = DB

    def within(value):
        return store, value

    return within


def by_default(value, store=DB):
    return store, value


functions = {
    "itself": lambda _: DB,
    "element": lambda _: STATE,
    "attribute": lambda _: POOL,
    "helper": through_helper,
    "method": lambda _: Shop().price(1),
    "class": lambda _: Stock,
    "closure": around(),
    "default": by_default,
    "thread": lambda _: THREAD,
    "executor": lambda _: EXECUTOR,
    "generator": lambda _: BEGUN,
    "partial": functools.partial(lambda _, store: store, store=POOL),
}


def plain(value, **_):
    return value


options = {"workers": 1, "retries": 1, "progress": False}
for name, function in functions.items():
    try:
        opmap(**options)(function)([1])
    except TypeError as error:
        print(name, error, sep=": ")
for name, shared in {
    "connection": {"fine": 1, "store": DB},
    "lock": {"lock": threading.Lock()},
    "deep": {"pool": POOL},
}.items():
    try:
        opmap(**options)(plain)([1], **shared)
    except TypeError as error:
        print(name, error, sep=": ")
for result in opmap(**options)(plain)([[POOL], threading.RLock(), sys.stdin, (n for n in ())]):
    print("item", result, sep=": ")
print("result", opmap(**options)(lambda _: {"locks": [threading.Lock()]})([1])[0], sep=": ")
print("after all", opmap(**options)(lambda value: value + 1)([1]))
DB.close()
