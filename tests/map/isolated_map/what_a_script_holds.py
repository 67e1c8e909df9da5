"""A program whose functions use all that programs define; a line for each check that fails."""

import abc
import collections
import contextvars
import ctypes
import dataclasses
import decimal
import enum
import functools
import random
import sys
import tempfile
import threading
import typing
import weakref
from pathlib import Path

from opero import opero, opmap

method = sys.argv[-1]
count, FILE = 0, globals().get("__file__")
LOCK, OWNER, LOCAL = threading.Lock(), threading.RLock(), threading.local()
SET, READY = threading.Event(), threading.Condition()
SET.set()
ROOM, BOUND = threading.Semaphore(2), threading.BoundedSemaphore(1)
BOUND.acquire()
LOCK.acquire()
LOCAL.value = 1
WHO = contextvars.ContextVar("WHO")
SHADE = contextvars.ContextVar("SHADE", default="grey")
REGISTRY = {}
DICE, EXACT = random.Random(7), decimal.Context(prec=5)
T = typing.TypeVar("T")
UserId = typing.NewType("UserId", int)
HERE = tempfile.NamedTemporaryFile("w", suffix=".log")  # noqa: SIM115
LOG = Path(HERE.name).open("w", encoding="utf-8")  # noqa: SIM115
LOG.write("first\n")
SQUARES = (number * number for number in iter(range(5)))
next(SQUARES)


def chain(first, /, *more, last=9):
    yield first
    yield from more
    yield last


CHAIN = chain(1, 2, 3, last=4)


@functools.lru_cache(maxsize=7)
def fib(number):
    """Refer to itself through its cache."""
    return number if number < 2 else fib(number - 1) + fib(number - 2)


@functools.cache
def bump():
    """Be called once in a map."""
    global count
    count += 1
    return count


@functools.singledispatch
def kind(_):
    return "anything"


@kind.register
def _(_: int):
    return "int"


class Registered(type):
    """Registers what is not there yet when a class is made without its contents."""

    def __init__(cls, name, bases, names):
        super().__init__(name, bases, names)
        REGISTRY[names["key"]] = cls


class Known(metaclass=Registered):
    key = "known"


class Plugin:
    """Does the same by another hook, and takes an argument."""

    def __init_subclass__(cls, label, **more):
        super().__init_subclass__(**more)
        REGISTRY[cls.key] = label, cls


class Loud(Plugin, label="loud"):
    key = "plugin"


class Base(abc.ABC):
    @abc.abstractmethod
    def area(self): ...


class Square(Base):
    def __init__(self, side):
        super().__init__()
        self.side = side

    @functools.lru_cache  # noqa: B019
    def area(self):
        return self.side**2

    @functools.cached_property
    def name(self):
        return f"a square of {self.side}"

    @functools.singledispatchmethod
    def scale(self, by):
        raise TypeError(by)

    @scale.register
    def _(self, by: int):
        return Square(self.side * by)


class Box(typing.Generic[T]):
    def __init__(self, value: T):
        self.value = value


class Pair(typing.NamedTuple):
    one: int
    two: int = 2


Spot = collections.namedtuple("Spot", "x y")  # noqa: PYI024


@dataclasses.dataclass(slots=True)
class Slotted:
    one: int
    more: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Frozen:
    one: int

    def next(self):
        return dataclasses.replace(self, one=self.one + 1)


@dataclasses.dataclass(frozen=True, slots=True)
class Deeper(Frozen):
    two: int = 2


class Private:
    __slots__ = ("__hidden", "__weakref__")

    def __init__(self, hidden):
        self.__hidden = hidden

    def shown(self):
        return self.__hidden


class Planet(enum.Enum):
    """Its members get more than their values."""

    EARTH = (1, 6.4)
    MARS = (2, 3.4)
    HOME = (1, 6.4)  # noqa: PIE796

    def __init__(self, place, radius):
        self.place, self.radius = place, radius


class Right(enum.Flag):
    READ = 1
    WRITE = 2
    BOTH = 3


class Size(str, enum.Enum):  # noqa: UP042
    SMALL = "s"


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_int))


class Trouble(Exception):
    def __init__(self, code, *, detail):
        super().__init__(f"code {code}")
        self.code, self.detail = code, detail


class Counter:
    """Counts what is made, in the process that makes it."""

    made = 0
    guard = threading.Lock()

    def __init__(self):
        with self.guard:
            Counter.made += 1


class Outer:
    """Has a class within, and class methods that others hold."""

    class Inner:
        """Is found by two names."""

    @classmethod
    def make(cls):
        return cls.Inner()

    @classmethod
    def _hidden(cls):
        return cls.__name__

    bound = None


Outer.bound = Outer._hidden
del Outer._hidden
MAKE = Outer.make
KEPT = Square(3)
WEAK, WEAK_METHOD = weakref.ref(KEPT), weakref.WeakMethod(KEPT.area)
VALUES = weakref.WeakValueDictionary(kept=KEPT)


@opero(cache=True, retries=2)
def decorated(number):
    return number + 1


def trouble():
    raise Trouble(5, detail=Pair(1))


def both_ways():
    before = SHADE.get(), WHO.get()
    SHADE.set("pink")
    return before, SHADE.get()


def logged():
    LOG.write("from a worker\n")
    LOG.flush()


def here(*values):
    return values


# what the function does with an item, and what must come of it
CHECKS = {
    "lru_cache": (lambda: (fib(20), fib.cache_info().maxsize), lambda r: r == (6765, 7)),
    "cache, once in a map": (lambda: bump(), lambda r: r == 1),
    "again": (lambda: (bump(), count), lambda r: r == (1, 1)),
    "singledispatch": (lambda: (kind(1), kind("")), lambda r: r == ("int", "anything")),
    "metaclass": (lambda: REGISTRY["known"], lambda r: r is Known),
    "__init_subclass__": (lambda: REGISTRY["plugin"], lambda r: r == ("loud", Loud)),
    "ABC, super, caches in a class": (
        lambda: (Square(4).area(), Square(4).name, isinstance(Square(1), Base)),
        lambda r: r == (16, "a square of 4", True),
    ),
    "singledispatchmethod": (
        lambda: Square(2).scale(3),
        lambda r: type(r) is Square and r.side == 6,
    ),
    "generic": (lambda: Box[int](1), lambda r: type(r) is Box and r.value == 1),
    "NamedTuple": (lambda: Pair(1), lambda r: type(r) is Pair and r == (1, 2)),
    "namedtuple": (lambda: Spot(1, y=2), lambda r: type(r) is Spot),
    "NewType": (lambda: (UserId(3), UserId), lambda r: r == (3, UserId)),
    "slots": (lambda: Slotted(1), lambda r: r == Slotted(1) and type(r) is Slotted),
    "no dict in the worker": (lambda: hasattr(Slotted(1), "__dict__"), lambda r: r is False),
    "frozen slots": (lambda: Frozen(1).next(), lambda r: r == Frozen(2) and r < Frozen(3)),
    "inherited slots": (lambda: Deeper(1).next(), lambda r: r == Deeper(2)),
    "private slots": (lambda: Private(5), lambda r: type(r) is Private and r.shown() == 5),
    "missing default": (
        lambda: dataclasses.fields(Frozen)[0].default is dataclasses.MISSING,
        lambda r: r,
    ),
    "enum": (lambda: Planet(1, 6.4) if False else Planet.EARTH, lambda r: r is Planet.EARTH),
    "enum, its attributes": (
        lambda: (Planet.MARS.radius, Planet.HOME.name),
        lambda r: r == (3.4, "EARTH"),
    ),
    "flag": (lambda: Right.READ | Right.WRITE, lambda r: r is Right.BOTH),
    "str enum": (lambda: Size("s"), lambda r: r is Size.SMALL),
    "ctypes": (
        lambda: (Point(1, y=2).y, issubclass(Point, ctypes.Structure)),
        lambda r: r == (2, True),
    ),
    "a lock that is held here": (lambda: LOCK.acquire(timeout=5), lambda r: r is True),
    "RLock": (lambda: OWNER.acquire() and OWNER.acquire(), lambda r: r is True),
    "event": (lambda: SET.wait(5), lambda r: r is True),
    "condition": (lambda: READY.__enter__() and READY.notify_all(), lambda r: r is None),
    "semaphores": (
        lambda: (ROOM.acquire(timeout=5), ROOM.acquire(timeout=5), BOUND.acquire(timeout=5)),
        lambda r: all(r),
    ),
    "thread-local": (lambda: hasattr(LOCAL, "value"), lambda r: r is False),
    "context variables": (both_ways, lambda r: r == (("grey", "me"), "pink")),
    "weak references": (
        lambda: (WEAK().side, WEAK_METHOD()(), VALUES["kept"].side, len(VALUES)),
        lambda r: r == (3, 9, 3, 1),
    ),
    "random": (lambda: DICE.random() < 1, lambda r: r),
    "decimal": (lambda: EXACT.divide(decimal.Decimal(1), 3), lambda r: str(r) == "0.33333"),
    "generators": (
        lambda: (list(SQUARES), list(CHAIN)),
        lambda r: r == ([1, 4, 9, 16], [1, 2, 3, 4]),
    ),
    "bound methods, a class within": (
        lambda: (Outer.bound(), MAKE(), type(MAKE()).__qualname__),
        lambda r: r[0] == "Outer" and type(r[1]) is Outer.Inner and r[2] == "Outer.Inner",
    ),
    "opero": (
        lambda: (decorated(1), decorated(1), decorated.cache_info().hits),
        lambda r: r == (2, 2, 1),
    ),
    "a log file": (logged, lambda r: r is None),
    "classes count where they are": (
        lambda: (Counter(), Counter.made),
        lambda r: r[1] == 1 and type(r[0]) is Counter,
    ),
    "functions come back as themselves": (
        lambda: (here, Square.area, fib, Planet),
        lambda r: r == (here, Square.area, fib, Planet),
    ),
    "exceptions": (trouble, lambda r: type(r) is Trouble and r.code == 5 and r.detail == (1, 2)),
    "the file and the name": (
        lambda: (__name__, globals().get("__file__")),
        lambda r: r == (__name__, FILE),
    ),
}
if sys.implementation.name == "pypy":  # there, such a class holds what no name leads to
    del CHECKS["ctypes"]


@opmap(workers=1, start_method=method, retries=1, progress=False, chunk_size=4)
def run(name):
    return CHECKS[name][0]()


@opmap(workers=1, start_method=method, retries=1, progress=False, chunk_size=1)
def call(function):
    return function()


def up():
    global count
    count += 1
    return count


class Item:
    """Comes as an item, and changes a global of the program."""

    def __call__(self):
        return up()


before = Square.area, Counter.__init__, Frozen.next
WHO.set("me")
LOG.flush()
for again in range(2):
    for name, result in zip(CHECKS, run(CHECKS), strict=True):
        if not CHECKS[name][1](result):
            print(f"{name}, map {again}: {result!r}")
if call([up, Item(), lambda: up(), Item()]) != [1, 2, 3, 4]:
    print("items share their globals")
if (Square.area, Counter.__init__, Frozen.next) != before or Counter.made or count:
    print("the classes and globals here have changed")
count = 10
if call([up, up]) != [11, 12]:
    print("a map sees what has been set before it")
if Path(HERE.name).read_text(encoding="utf-8") != "first\n" + 2 * "from a worker\n":
    print("the log file", Path(HERE.name).read_text(encoding="utf-8"))
print("that is all")
