"""Items that hold several arguments: `unpack=True`, in every mode."""

from __future__ import annotations

import asyncio
import csv
import gc
import io
import sqlite3
from collections import ChainMap, OrderedDict, UserList, defaultdict, deque
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import NamedTuple

import pytest
from crowd import run

from opero import AllFailedError, opmap

QUIET = {"progress": False, "workers": 2, "min_delay": 0, "retries": 2}


def join(a, b=2, *more, c=0, **named):
    if a == "bad":
        raise ValueError(a, b)
    return a, b, more, c, named


async def ajoin(a, b=2, *more, c=0, **named):
    await asyncio.sleep(0)
    return join(a, b, *more, c=c, **named)


WAYS = {"thread": join, "async": ajoin, "process": join, "async_process": ajoin}
every_way = pytest.mark.parametrize("mode", WAYS)
ways = pytest.mark.parametrize("mode", ["thread", "async"])


class Point(NamedTuple):
    """A tuple of another class."""

    x: int
    y: int


ITEMS = [
    ((1,), (1, 2, (), 0, {})),
    ((1, 5), (1, 5, (), 0, {})),
    ((1, 5, 6, 7), (1, 5, (6, 7), 0, {})),
    ({"a": 3}, (3, 2, (), 0, {})),
    ({"c": 9, "a": 3, "d": 4}, (3, 2, (), 9, {"d": 4})),
    (Point(3, 4), (3, 4, (), 0, {})),
    (OrderedDict(b=1, a=2), (2, 1, (), 0, {})),
    (defaultdict(int, a=2), (2, 2, (), 0, {})),
    ([1], (1, 2, (), 0, {})),
    ([1, [5], 6], (1, [5], (6,), 0, {})),
    (range(3), (0, 1, (2,), 0, {})),
    (UserList([4, 5]), (4, 5, (), 0, {})),
    (deque([4, "x"]), (4, "x", (), 0, {})),
    (ChainMap({"a": 3}, {"c": 1}), (3, 2, (), 1, {})),
]


@every_way
def test_a_row_gives_positional_and_a_dict_keyword_arguments(mode):
    """That holds in all forms, and for subclasses."""
    mapped = opmap(mode=mode, unpack=True, **QUIET)(WAYS[mode])
    items = [item for item, _ in ITEMS]
    expected = [result for _, result in ITEMS]
    assert mapped(items) == expected
    assert list(mapped.stream(iter(items))) == expected
    assert run(mapped.amap(items)) == expected


@every_way
def test_items_share_arguments_by_keyword(mode):
    """An item must not have the same argument."""
    mapped = opmap(mode=mode, unpack=True, chunk_size=3, **QUIET)(WAYS[mode])
    items = [(1,), {"a": 2, "d": 5}, (3, 4), {"a": 1, "c": 2}, (1, 2)]
    batch = mapped(items, c=7)
    assert batch[:3] == [(1, 2, (), 7, {}), (2, 2, (), 7, {"d": 5}), (3, 4, (), 7, {})]
    assert batch[4] == (1, 2, (), 7, {})
    (failure,) = batch.failures
    assert failure[:2] == (3, items[3])
    assert "item 3: both the item and what all items share have an argument 'c'" in str(batch[3])


@every_way
@pytest.mark.parametrize("wrong", [5, "ab", b"ab", None, {1, 2}, {1: 2}, {"a": 1, None: 2}])
def test_a_wrong_item_fails_alone_and_says_which_it_is(mode, wrong):
    """It is never attempted."""
    mapped = opmap(mode=mode, unpack=True, **QUIET)(WAYS[mode])
    batch = mapped([(1,), wrong, {"a": 2}])
    assert [batch[0][0], batch[2][0]] == [1, 2]
    assert type(batch[1]) is TypeError
    assert "join: item 1: with unpack=True" in str(batch[1])
    assert [failure[:2] for failure in batch.failures] == [(1, wrong)]
    assert batch.attempts == 2


def pair(a, b):
    return a + b


async def apair(a, b):
    return a + b


@pytest.mark.parametrize(
    ("mode", "function"),
    [("thread", pair), ("process", pair), ("async", apair), ("async_process", apair)],
)
def test_arguments_that_do_not_fit_are_not_tried_again(mode, function):
    """The function's own `TypeError` is the failure."""
    batch = opmap(mode=mode, unpack=True, **QUIET)(function)([(1, 2), (1,), (1, 2, 3), {"c": 1}])
    assert batch[0] == 3
    assert [type(each) for each in batch[1:]] == [TypeError] * 3
    assert batch.attempts == 4
    assert batch.retried == 0


@every_way
def test_what_fails_is_tried_again_with_its_arguments(mode):
    """The final failure shows the item as it was given."""
    mapped = opmap(mode=mode, unpack=True, **QUIET)(WAYS[mode])
    batch = mapped([("bad", 3), {"a": "bad"}, ("good",)])
    assert [type(each) for each in batch] == [AllFailedError, AllFailedError, tuple]
    assert [each.args for each in batch[0].errors] == [("bad", 3)] * 2
    assert [failure.item for failure in batch.failures] == [("bad", 3), {"a": "bad"}]


_SEEN: list[object] = []
"""What has run, where a captured list would be a part of stored keys."""


@ways
@pytest.mark.parametrize("backend", ["memory", "disk"])
def test_equal_calls_share_a_run_and_a_cache_entry(mode, backend, tmp_path):
    """The spelling of their arguments does not matter."""
    seen = _SEEN
    seen.clear()

    def work(a, b=2):
        _SEEN.append((a, b))
        return a + b

    async def awork(a, b=2):
        _SEEN.append((a, b))
        await asyncio.sleep(0.1)
        return a + b

    options = {"cache": True, "cache_namespace": f"unpack {backend} {mode}"}
    if backend == "disk":
        options |= {"cache_backend": "disk", "cache_dir": tmp_path, "cache_secret": 16 * "s"}
    mapped = opmap(mode=mode, unpack=True, **options, **QUIET)(work if mode == "thread" else awork)
    items = [(1, 2), {"a": 1}, (1,), {"b": 2, "a": 1}, (2, 1)]
    assert mapped(items) == [3] * 5
    assert set(seen) == {(1, 2), (2, 1)}
    seen.clear()
    assert mapped([(1,), {"a": 2}], b=2) == [3, 4]
    assert seen == [(2, 2)]
    assert mapped.cache_invalidate(1, b=2)
    assert mapped([(1,)]) == [3]
    assert seen == [(2, 2), (1, 2)]


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_fallback_values_take_the_place_of_any_argument(mode):
    """The argument may be positional, by keyword, or shared by all items."""
    named = opmap(mode=mode, unpack=True, arg_fallback={"b": [8, 9]}, **{**QUIET, "retries": 1})
    batch = named(needs_nine)([(1, 2), (1,), {"a": 3, "b": 4}, {"a": 5}])
    assert batch == [(1, 9), (1, 9), (3, 9), (5, 9)]
    assert named(needs_nine)([{"a": 1}, (2,)], b=3) == [(1, 9), (2, 9)]
    held = opmap(mode=mode, unpack=True, arg_fallback="b", **{**QUIET, "retries": 1})
    given = [1, 2, 9]
    batch = held(needs_nine_first)([(1, given), {"a": 2, "b": given}, (3, [4]), (4, 5)])
    assert batch[:2] == [(1, 9), (2, 9)]
    assert [type(each) for each in batch[2:]] == [AllFailedError, ValueError]
    assert given == [1, 2, 9]
    assert [failure[:2] for failure in batch.failures] == [(2, (3, [4])), (3, (4, 5))]


def needs_nine(a, b=1):
    if b != 9:
        raise ValueError(b)
    return a, b


def needs_nine_first(a, b=(1,)):
    value = b[0]
    if isinstance(b, list):
        b.clear()  # it is a copy
    if value != 9:
        raise ValueError(value)
    return a, value


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_an_executor_gets_them_too(kind):
    """It may run in this process or in others."""
    with kind(2) as executor:
        mapped = opmap(executor=executor, unpack=True, **QUIET)(join)
        items = [item for item, _ in ITEMS if not isinstance(item, defaultdict)]
        assert mapped(items) == [result for item, result in ITEMS if item in items]
        assert mapped([(1,), 2], d=4)[0] == (1, 2, (), 0, {"d": 4})


class Shop:
    """A class with mapped methods."""

    def __init__(self, factor):
        self.factor = factor

    @opmap(mode="thread", unpack=True, **QUIET)
    def price(self, count, each=1, *, tax=0):
        return self.factor * count * each + tax

    @opmap(mode="process", unpack=True, **QUIET)
    def far(self, count, each=1):
        return self.factor * count * each


def test_methods_take_their_instance_first():
    """The item contains the other arguments."""
    shop = Shop(10)
    assert shop.price([(2,), (2, 3), {"each": 4, "count": 1}], tax=1) == [21, 61, 41]
    assert shop.far([(2,), (2, 3), {"each": 4, "count": 1}]) == [20, 60, 40]


@ways
def test_pairs_have_the_item_as_it_was_given(mode):
    """That includes functions with keyword-only arguments."""

    def only(*, a):
        return a

    async def aonly(*, a):
        return a

    mapped = opmap(mode=mode, unpack=True, with_items=True, **QUIET)
    assert mapped(only if mode == "thread" else aonly)([{"a": 1}, {"a": 2}]) == [
        ({"a": 1}, 1),
        ({"a": 2}, 2),
    ]


def test_what_the_function_does_not_take_is_refused_at_once():
    """Without `unpack` it is the same."""
    mapped = opmap(mode="thread", unpack=True, **QUIET)(pair)
    with pytest.raises(TypeError, match=r"pair\(\) got an unexpected keyword argument 'd'"):
        mapped([(1, 2)], d=3)
    assert mapped([(1,), {"a": 2}], b=3) == [4, 5]


def test_rows_of_a_database_are_tuples():
    """Databases are a common source of such items."""
    with sqlite3.connect(":memory:") as connection:
        rows = connection.execute("values (1, 2), (3, 4)")
        assert opmap(mode="thread", unpack=True, **QUIET)(pair)(rows) == [3, 7]
        connection.row_factory = sqlite3.Row
        rows = connection.execute("values (1, 2), (3, 4), (5, null)")
        mapped = opmap(mode="process", unpack=True, with_items=True, **QUIET)(pair)
        (first, one), (_, two), (_, wrong) = mapped(rows.fetchall())
        assert (type(first), one, two, type(wrong)) == (sqlite3.Row, 3, 7, AllFailedError)
    connection.close()
    del rows, first, _
    gc.collect()


def test_rows_of_a_file_are_lists():
    """`csv.reader` yields such rows."""
    reader = csv.reader(io.StringIO("a,b\nc,d\ne\n"))
    first, second, short = opmap(mode="thread", unpack=True, **QUIET)(pair)(reader)
    assert (first, second, type(short)) == ("ab", "cd", TypeError)
    named = csv.DictReader(io.StringIO("b,a\nx,y\n"))
    assert opmap(mode="thread", unpack=True, **QUIET)(pair)(named) == ["yx"]


class Torn(Sequence):
    """A row that cannot be read."""

    def __len__(self):
        return 2

    def __getitem__(self, place):
        raise OSError("torn")


@pytest.mark.parametrize("mode", ["thread", "async"])
@pytest.mark.parametrize("cache", [False, True])
def test_a_row_that_cannot_be_read_fails_alone(mode, cache):
    """It may raise anything."""
    mapped = opmap(mode=mode, unpack=True, cache=cache, **QUIET)(WAYS[mode])
    first, torn, last = mapped([(1,), Torn(), (2,)])
    assert (first[0], type(torn), last[0]) == (1, OSError, 2)


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        (5, "an int: for one argument give (item,), or leave unpack=True out"),
        ("ab", "a str: for one argument give (item,), or leave unpack=True out"),
        ({1}, "a set: give tuple(item)"),
        (iter([1]), "a list_iterator: give tuple(item)"),
    ],
)
def test_a_wrong_item_gets_told_what_to_give(wrong, remedy):
    """The error suggests a row or a dict."""
    (error,) = opmap(mode="thread", unpack=True, **QUIET)(join)([wrong])
    assert str(error).endswith(remedy)
