"""The rows of the cache options."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

from . import checks
from .checks import optional, without_brackets
from .option import CALLS, Option

BACKENDS: tuple[str, ...] = ("memory", "disk", "redis")
STORED: tuple[str, ...] = ("disk", "redis")
"""The backends that keep values outside the process."""

_CACHE = (*CALLS, "get_cache_decorator")
_STORE = (*_CACHE, "get_cache_context")
_KEY = "an ordinary function of the call's arguments"


def _cache(name: str, value: Any) -> Any:
    """Check `cache=`, or `enabled` of a `CacheConfig`."""
    if name != "cache":
        return checks.flag(name, value)
    hint = without_brackets(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in BACKENDS:
        hint = f"write cache=True, cache_backend={value!r}"
    elif isinstance(value, (int, float, timedelta)) and value:
        hint = f"write cache=True, cache_ttl={value!r}"
    return checks.wrong(name, value, "True, False or a CacheConfig", TypeError, hint)


def _cache_ttl(name: str, value: Any) -> float:
    hint = "None means forever; to cache nothing, leave out cache=True"
    return checks.positive(name, value, hint)


def _maxsize(name: str, value: Any) -> int:
    if checks.whole(name, value) < 1:
        checks.wrong(
            name,
            value,
            "1 or more entries, or None for no limit",
            hint="" if value else "leave cache=True out to cache nothing",
        )
    return int(value)


def _size_limit(name: str, value: Any) -> int:
    allowed = "a number of bytes, or None for no limit"
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**63:
        checks.wrong(name, value, allowed)
    return value


def _url(name: str, value: Any) -> str:
    if not isinstance(value, str):
        checks.wrong(name, value, "a URL such as redis://localhost:6379/0", TypeError)
    return value


def _backend(name: str, value: Any) -> str:
    return checks.choice(name, value, BACKENDS)


CACHE_ROWS: tuple[Option, ...] = (
    # --- the cache --------------------------------------------------------------------------------
    Option(
        "cache",
        False,
        "bool | CacheConfig",
        _cache,
        "Whether to cache returned values; or a `CacheConfig`.",
        _CACHE,
        config="CacheConfig",
        field="enabled",
        also=("cached", "memoize", "caching", "use_cache"),
        defaults={"get_cache_decorator": True},
    ),
    Option(
        "cache_ttl",
        None,
        "Seconds | None",
        partial(optional, _cache_ttl),
        "How many seconds a value stays valid; None means forever.",
        _STORE,
        config="CacheConfig",
        field="ttl",
        needs=("cache",),
        also=("ttl", "expire", "expires", "expiry", "max_age", "cache_timeout", "lifetime"),
    ),
    Option(
        "cache_key",
        None,
        "CacheKey | None",
        partial(optional, lambda name, value: checks.function(name, value, _KEY)),
        "A function that makes the key from the call's arguments; None uses all arguments.",
        _CACHE,
        config="CacheConfig",
        field="key_function",
        needs=("cache",),
        also=(
            "key",
            "keyfunc",
            "key_func",
            "key_function",
            "key_builder",
            "cache_key_fn",
            "hash_func",
        ),
    ),
    Option(
        "cache_namespace",
        "opero",
        "str",
        checks.name,
        "The name by which `clear_cache` finds the values.",
        _STORE,
        config="CacheConfig",
        field="namespace",
        needs=("cache",),
        also=("namespace", "cache_name", "prefix", "key_prefix", "cache_prefix"),
        defaults={"opmap": "opero_opmap_item"},
    ),
    Option(
        "cache_backend",
        "memory",
        "CacheBackend",
        _backend,
        'Where to keep values: "memory"; "disk", which outlives the process and which all '
        'processes on this machine share; or "redis", which machines share too.',
        _STORE,
        config="CacheConfig",
        field="backend",
        needs=("cache",),
        also=("backend", "cache_type", "store", "storage", "cache_store"),
        more="See [choosing a backend](backends.md).",
    ),
    Option(
        "cache_maxsize",
        1024,
        "int | None",
        partial(optional, _maxsize),
        "The most values to keep (for a method: for each instance); None for no limit.",
        _STORE,
        config="CacheConfig",
        field="maxsize",
        backends=("memory",),
        needs=("cache",),
        also=(
            "maxsize",
            "max_size",
            "cache_size",
            "max_entries",
            "cache_max_size",
            "limit_entries",
        ),
    ),
    Option(
        "cache_refresh",
        None,
        "Seconds | None",
        partial(optional, checks.seconds),
        "How many seconds before the end of `cache_ttl` a hit starts to refresh the value in the "
        "background; the hit itself returns immediately.",
        _CACHE,
        config="CacheConfig",
        field="refresh",
        backends=BACKENDS,
        needs=("cache",),
        also=(
            "refresh",
            "refresh_ahead",
            "refresh_after",
            "early_ttl",
            "early_expiration",
            "stale_while_revalidate",
            "background_refresh",
        ),
        more="See [refreshing](refresh.md).",
    ),
    Option(
        "cache_stale",
        None,
        "Seconds | None",
        partial(optional, checks.seconds),
        "How many seconds after `cache_ttl` an outdated value may still be served if the run "
        "fails.",
        _STORE,
        config="CacheConfig",
        field="stale",
        backends=BACKENDS,
        needs=("cache",),
        also=("stale", "stale_if_error", "grace", "stale_ttl"),
        more="See [outdated values](refresh.md#outdated-values).",
    ),
    # --- stores outside the process ---------------------------------------------------------------
    Option(
        "cache_secret",
        None,
        "str | bytes | Sequence[str | bytes] | None",
        checks.anything,
        "The secret that signs entries: a `str` or `bytes` of 16 bytes or more; or a list of "
        "them: the first signs, and all verify. None uses the environment variable "
        "`OPERO_CACHE_SECRET`, or else the user's key file.",
        _STORE,
        config="CacheConfig",
        field="secret",
        backends=STORED,
        needs=("cache",),
        also=("secret", "cache_signing_key", "signing_key", "secret_key"),
        more="See [secrets](security.md#secrets).",
        secret=True,
    ),
    Option(
        "cache_version",
        "",
        "str",
        checks.text,
        "A version of your choice; entries of other versions are not found.",
        _STORE,
        config="CacheConfig",
        field="version",
        backends=STORED,
        needs=("cache",),
        also=("version", "tag"),
    ),
    Option(
        "cache_pickle",
        True,
        "bool",
        checks.flag,
        "Whether values may be pickled.",
        _STORE,
        config="CacheConfig",
        field="pickle",
        backends=STORED,
        needs=("cache",),
        also=("pickle", "serializer", "allow_pickle"),
    ),
    Option(
        "cache_dir",
        None,
        "str | PathLike[str] | None",
        checks.path,
        "The directory; None for the user's cache directory.",
        _STORE,
        config="CacheConfig",
        field="dir",
        backends=("disk",),
        needs=("cache",),
        also=("dir", "directory", "path", "cache_path", "location", "cache_directory", "cachedir"),
    ),
    Option(
        "cache_size_limit",
        2**30,
        "int | None",
        partial(optional, _size_limit),
        "How many bytes the cache may take before the oldest entries are evicted; None for no "
        "limit.",
        _STORE,
        config="CacheConfig",
        field="size_limit",
        backends=("disk",),
        needs=("cache",),
        also=("size_limit", "max_bytes", "bytes_limit"),
        written="1 GiB",
    ),
    Option(
        "cache_url",
        "redis://localhost:6379/0",
        "str",
        _url,
        "The server's address: `redis://`, `rediss://` or `unix://`.",
        _STORE,
        config="CacheConfig",
        field="url",
        backends=("redis",),
        needs=("cache",),
        also=("url", "redis_url", "cache_host", "redis", "dsn"),
        secret=True,
    ),
)
