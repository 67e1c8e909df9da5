"""The row of unhashable arguments: a hit whose key is made from a nested dict."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from . import peers
from .calls import all_hits, cached_with_ttl, identity
from .measure import Shape, one_argument
from .rows import CallRow, Function, Side, Target

ORJSON = "orjson.dumps(sorted)"

REQUEST: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "user": "u-1029",
    "prompt": "Write a haiku about the sea",
    "temperature": 0.7,
    "max_tokens": 256,
    "stream": False,
    "stop": None,
    "seed": 7,
    "tags": ["a", "b", "c"],
    "options": {"top_p": 0.9, "n": 1},
}
"""A JSON-shaped argument: ten keys, one of them a list and one a dict."""


def _dumps(function: Function) -> Any:
    return import_module("orjson").dumps


def _sorted() -> Shape:
    return one_argument(REQUEST, option=import_module("orjson").OPT_SORT_KEYS)


def _json_key(function: Function) -> Any:
    """What people write around cachetools for an argument that has no hash."""
    cachetools = import_module("cachetools")
    json = import_module("json")
    cache = cachetools.TTLCache(maxsize=peers.MAXSIZE, ttl=peers.TTL)

    def key(argument: object) -> str:
        text: str = json.dumps(argument, sort_keys=True)
        return text

    return cachetools.cached(cache, key=key)(function)


ROWS: tuple[CallRow, ...] = (
    CallRow(
        "hit, one nested dict of 10 keys",
        one_argument(REQUEST),
        identity,
        cached_with_ttl,
        (
            Side(ORJSON, _dumps, calls_through=False, shape=_sorted),
            Side("cachetools, json key", _json_key, calls_through=False),
        ),
        (Target(ORJSON, 1.5),),
        with_bare=False,
        check=all_hits,
    ),
)

HAS_ORJSON = sys.version_info < (3, 15) or find_spec("orjson") is not None
"""Whether there is the yardstick: no wheels of it are published for newer Pythons."""

GATED: tuple[CallRow, ...] = ROWS if HAS_ORJSON else ()
"""The rows whose promises can be judged on this Python."""
