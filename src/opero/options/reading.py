"""Reads what a caller gave: refuses what is wrong, and returns all options checked.

given -> Reading, which unpacks config objects -> checks by the rows -> effects -> CallOptions

A value that equals the default counts as not given, so you may spell out a default anywhere. An
option that has no effect is an error, unless its mechanism is switched off on purpose: by
`CacheConfig(enabled=False)`, `get_cache_decorator(cache=False)` or `retries=1`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from opero.core.gate import SharedGate

from . import checks, hints
from .checked import CacheOptions, CallOptions, RetryOptions
from .configs import (
    BreakerConfig,
    CacheConfig,
    Config,
    FallbackConfig,
    RateLimitConfig,
    RetryConfig,
)
from .option import Option
from .table import OPTIONS, fields_of, read_by

_HOLDERS = {
    "arg_fallback": FallbackConfig,
    "breaker": BreakerConfig,
    "cache": CacheConfig,
    "rate_limit": RateLimitConfig,
    "retry": RetryConfig,
}
"""The options that take a config object."""
_WHOLE = frozenset({"breaker"})
"""Those whose config object has fields that are not options."""
_MISSED = {
    "arg_fallback": "without arg_fallback=: add it",
    "cache": "without cache=True: add it",
    "rate_limit": "without rate_limit=: add it",
    "adaptive": "without adaptive=True: add it",
}
"""The end of the message for an option that has no effect, by what it needs."""


class Reading:
    """The options given to one function, config objects unpacked.

    Attributes:
        function: The function that reads them.
        values: The value of every option, by name.
        given: The names of the keywords whose value is not the default.
        called: The fields given in a config object, by the names of their options.
    """

    def __init__(self, function: str, given: Mapping[str, Any]) -> None:
        """Read the options, and unpack config objects.

        Args:
            function: The function that reads them.
            given: What the caller gave, by name; the rest have their defaults.

        Raises:
            TypeError: If there is no such option.
            ValueError: If an option is given together with a config object that contains it.
        """
        known = {option.name: option for option in read_by(function)}
        for name in given:
            if name not in known:
                raise TypeError(hints.no_option(function, name))
            if isinstance(given[name], Config):
                self._refuse_misplaced(name, given[name], known)
        self.function: str = function
        self.values: dict[str, Any] = {
            name: option.default_of(function) for name, option in OPTIONS.items()
        }
        if "retries" not in known:
            self.values["retries"] = 1
        self.values.update(given)
        self.given: set[str] = {name for name in given if _says(known[name], given[name], function)}
        self.called: dict[str, str] = {}
        self._checked: dict[str, Any] = {}
        holders = {**_HOLDERS, "retries": RetryConfig} if "retry" not in known else _HOLDERS
        for name in (self.given & holders.keys()) - _WHOLE:
            if isinstance(given[name], holders[name]):
                self._take_apart(name, given[name])

    @staticmethod
    def _refuse_misplaced(name: str, value: Any, known: Mapping[str, Option]) -> None:
        """Refuse a config object where it does not belong, and say where it does."""
        for holder, kind in _HOLDERS.items():
            if not isinstance(value, kind) or name == holder:
                continue
            if name == "retries" and holder == "retry" and holder not in known:
                continue
            what = f"{kind.__name__}(...)"
            where = f"write {holder}={what}"
            if holder not in known:
                readers = [f"{each}()" for each in OPTIONS[holder].readers]
                if holder == "retry":
                    readers.append("get_retry_decorator()")  # which takes it as `retries`
                where = f"give it to {', '.join(readers[:-1])} or {readers[-1]}"
            raise TypeError(f"{name}={what} is not allowed: {where}")

    def _take_apart(self, name: str, config: Any) -> None:
        """Set options from the fields of a config object.

        Args:
            name: The option that it was given to.
            config: The config object.
        """
        kind = type(config).__name__
        backend_options = getattr(config, "backend_options", {})
        if not isinstance(backend_options, Mapping):
            checks.wrong("backend_options", backend_options, "a dict of options", TypeError)
        fields = fields_of(config)
        for field in backend_options:
            if field not in fields or not fields[field].backends:
                raise TypeError(hints.no_backend_option(field))
        if name == "retry":
            self.values["retry"] = None
        for field, option in fields.items():
            if option.name != name and option.name in self.given:
                raise ValueError(
                    f"{self._shown(option)} is not allowed together with {name}={kind}(...): give "
                    f"it to {kind}(...) instead"
                )
            if not option.backends:
                self.values[option.name] = getattr(config, field)
            elif backend_options.get(field) is not None:
                self.values[option.name] = backend_options[field]
            else:
                continue
            self.called[option.name] = field

    def check(self, name: str) -> Any:
        """Check the value of one option, and return it as opero keeps it."""
        if name not in self._checked:
            value = self.values[name]
            if value is OPTIONS[name].default:
                self._checked[name] = _checked_default(name)
            else:
                self._checked[name] = OPTIONS[name].check(self.name_of(name), value)
        return self._checked[name]

    def name_of(self, name: str) -> str:
        """Return what the caller called an option."""
        return self.called.get(name, name)

    def refuse_idle(self) -> None:
        """Refuse options that were given and have no effect.

        Raises:
            ValueError: If an option has no effect.
        """
        for option in read_by(self.function):
            if option.name not in self.given or option.name in self.called:
                continue
            if not option.needs or any(self.is_on(need) for need in option.needs):
                continue
            missed = _MISSED[option.needs[0]]
            if option.backends and "memory" not in option.backends:
                backends = " or ".join(map(repr, option.backends))
                missed = f"without cache=True and cache_backend={backends}: add them"
            raise ValueError(
                f"{self._shown(option)} has no effect {missed}, or leave {option.name} out"
            )

    def refuse_unread(self) -> None:
        """Refuse options that the chosen backend does not read.

        Raises:
            ValueError: If the backend does not read an option.
        """
        backend = self.values["cache_backend"]
        for option in OPTIONS.values():
            if not option.backends or backend in option.backends:
                continue
            if option.name in self.given or option.name in self.called:
                readers = " or ".join(map(repr, option.backends))
                chosen = self.name_of("cache_backend")
                raise ValueError(
                    f"{self._shown(option)} is not read by {chosen}={backend!r}: it is an option "
                    f"of {readers}"
                )

    def is_on(self, need: str) -> bool:
        """Return whether a mechanism is on, or is the only one and was switched off on purpose."""
        value = self.values[need]
        if need == "cache":
            return bool(value) or self.function not in {"opero", "opmap"}
        return value is not None and value is not False

    def _shown(self, option: Option) -> str:
        value = "..." if option.secret else checks.shown(self.values[option.name])
        return f"{self.name_of(option.name)}={value}"


def call_options(function: str, given: Mapping[str, Any]) -> CallOptions:
    """Check the options of one function.

    Args:
        function: The decorator that reads them.
        given: What the caller gave, by name; the rest have their defaults.

    Raises:
        TypeError: If there is no such option, or one has the wrong type.
        ValueError: If an option's value is not allowed, conflicts with another, or has no effect.
    """
    reading = Reading(function, given)
    limiter = reading.values["rate_limit"]
    if isinstance(limiter, SharedGate) and limiter._option == "rate_limit":
        reading.values["rate_limit"] = None
        for name in ("burst", "adaptive", "rate_floor"):
            if name in reading.given:
                raise ValueError(
                    f"{name}={checks.shown(reading.values[name])} is not allowed together with "
                    f"rate_limit=RateLimiter(...): give it to RateLimiter(...) instead"
                )
    else:
        limiter = None
    for option in read_by(function):
        reading.check(option.name)
    if function == "attempts":
        _refuse_for_blocks(reading)
    cache = _cache_options(reading)
    retry = _retry_options(reading)
    rate = reading.check("rate_limit")
    if limiter is None and rate is not None:
        limiter = _rate_limit(reading, rate)
    timeout = _nanoseconds(reading.check("timeout"))
    attempt_timeout = 0  # a map ends its attempts itself
    if function != "opmap":
        attempt_timeout = _attempt_timeout(reading, timeout)
    reading.values["rate_limit"] = limiter
    reading.refuse_idle()
    reading.refuse_unread()
    return CallOptions(
        retry=retry,
        arg_fallback=reading.check("arg_fallback"),
        fallback_on=reading.check("fallback_on"),
        cache=cache if reading.check("cache") else None,
        limit=limiter,
        timeout=timeout,
        attempt_timeout=attempt_timeout,
        breaker=reading.check("breaker"),
    )


def cache_options(function: str, given: Mapping[str, Any]) -> CacheOptions:
    """Check the options of a cache; see `call_options`."""
    reading = Reading(function, given)
    checked = _cache_options(reading)
    reading.refuse_unread()
    return checked


def _cache_options(reading: Reading) -> CacheOptions:
    reading.check("cache")
    backend = reading.check("cache_backend")
    ttl = reading.check("cache_ttl")
    stale = reading.check("cache_stale")
    refresh = reading.check("cache_refresh")
    for option, given, why in (
        ("cache_stale", stale, "without it, values never become outdated"),
        ("cache_refresh", refresh, "without it, values never expire, so none needs a refresh"),
    ):
        if given and ttl is None:
            name, needed = reading.name_of(option), f"{reading.name_of('cache_ttl')}="
            if option in reading.given and not reading.is_on("cache"):
                needed = f"cache=True and {needed}"  # one error for both, not one after the other
            shown = checks.shown(reading.values[option])
            raise ValueError(f"{name}={shown} needs {needed}: {why}")
    if refresh and refresh >= ttl:
        name, than = reading.name_of("cache_refresh"), reading.name_of("cache_ttl")
        longest = checks.shown(reading.values["cache_ttl"])
        checks.wrong(name, reading.values["cache_refresh"], f"less than {than}, which is {longest}")
    return CacheOptions(
        ttl=_nanoseconds(ttl),
        maxsize=reading.check("cache_maxsize") or 0,
        namespace=reading.check("cache_namespace"),
        key_function=reading.check("cache_key"),
        backend=backend,
        directory=reading.check("cache_dir"),
        size_limit=reading.check("cache_size_limit"),
        url=reading.check("cache_url"),
        secret=reading.check("cache_secret"),
        refresh=_nanoseconds(refresh or None),
        stale=_nanoseconds(stale or None),
        version=reading.check("cache_version"),
        pickles=reading.check("cache_pickle"),
    )


def _refuse_for_blocks(reading: Reading) -> None:
    """Refuse the options that have no effect on a block of code."""
    if reading.values["retry_on_result"] is not None:
        name = reading.name_of("retry_on_result")
        raise ValueError(
            f"{name}=... has no effect on a block of code, which returns nothing: leave it out"
        )
    for name, what in {"rate_limit": "RateLimiter", "breaker": "Breaker"}.items():
        value = reading.values[name]
        if value is None or value is False or isinstance(value, SharedGate):
            continue
        of = "..."
        if isinstance(value, (int, float)):
            of = "" if value is True else checks.shown(value)
        raise ValueError(
            f"{name}={checks.shown(value)} would make a new one for each loop: make one for all of "
            f"them outside the function, SHARED = {what}({of}), and write {name}=SHARED"
        )


def _attempt_timeout(reading: Reading, timeout: int) -> int:
    """Return how long an awaited attempt may take, in nanoseconds; 0 for no bound."""
    length = _nanoseconds(reading.check("attempt_timeout"))
    if 0 < timeout <= length:
        attempt, whole = reading.values["attempt_timeout"], reading.values["timeout"]
        raise ValueError(
            f"attempt_timeout={checks.shown(attempt)} has no effect: "
            f"timeout={checks.shown(whole)} ends the whole call by then; give a shorter "
            f"attempt_timeout=, or leave one of them out"
        )
    return length


def _rate_limit(reading: Reading, rate: float) -> RateLimitConfig:
    burst, adaptive = reading.check("burst"), reading.check("adaptive")
    floor = reading.values["rate_floor"]
    lowest = checks.lowest_rate(reading.name_of("rate_floor"), floor, rate, burst, adaptive)
    return RateLimitConfig(rate, burst, adaptive, lowest)


def _retry_options(reading: Reading) -> RetryOptions:
    checked = {field: reading.check(each.name) for field, each in fields_of(RetryConfig).items()}
    shortest, longest = checked["min_delay"], checked["max_delay"]
    if longest < shortest:
        least, most = reading.values["min_delay"], reading.values["max_delay"]
        if "max_delay" in reading.given or "max_delay" in reading.called:
            checks.wrong("max_delay", most, f"at least min_delay, which is {checks.shown(least)}")
        hint = "or give a max_delay= too"
        checks.wrong("min_delay", least, f"at most max_delay, which is {most!r}", hint=hint)
    return RetryOptions(**checked)


@functools.cache
def _checked_default(name: str) -> Any:
    """Return the default of an option as opero keeps it."""
    return OPTIONS[name].check(name, OPTIONS[name].default)


def _nanoseconds(seconds: float | None) -> int:
    """Return a time in nanoseconds; 0 for None."""
    return 0 if seconds is None else max(1, int(1e9 * seconds))


def _says(option: Option, value: Any, function: str) -> bool:
    """Return whether a value differs from the default."""
    if option.backends and "memory" not in option.backends:
        return value is not None  # no signature shows these
    default = option.default_of(function)
    if value is default:
        return False
    try:
        return bool(value != default)
    except Exception:  # noqa: BLE001 - comparing may run the user's code
        return True
