"""Redis URLs: redis-py reads them; those where it would guess are refused before any connection.

    redis://[user:password@]host[:port][/db]            valkey:// is the same
    rediss://...                                        over TLS; valkeys:// is the same
    unix://[user:password@]/path/of/the/socket[?db=N]

An unencoded `/`, `?` or `#` in a password would end the part of the URL that contains it. The rest
of the password would become a host, a port or a database, and messages would show it as such. So
such a URL is refused, and no message shows a URL or a piece that may belong to a password.
"""

from __future__ import annotations

import inspect
import re
from typing import Any, Final

from redis.connection import AbstractConnection, Connection, UnixDomainSocketConnection, parse_url

_SCHEMES: Final = {
    "redis": "redis",
    "rediss": "rediss",
    "valkey": "redis",
    "valkeys": "rediss",
    "unix": "unix",
}
"""redis-py's names of the schemes."""

_USAGE: Final = (
    "not a Redis URL: use redis://[user:password@]host[:port][/db], rediss://... for TLS, or "
    "unix://[user:password@]/path/of/the/socket (valkey:// and valkeys:// are the same as redis:// "
    "and rediss://); percent-encode special characters in the user and the password"
)
_ENCODE: Final = (
    "the Redis URL is ambiguous: percent-encode special characters in the user and the password, "
    "with urllib.parse.quote(password, safe='')"
)
CLUSTER: Final = (
    "opero does not use Redis Cluster, where several servers share the keys: give the Redis URL of "
    "a server that is not in a cluster"
)
SENTINEL: Final = (
    "opero does not ask a Sentinel for the server: give the Redis URL of the server itself, or of "
    "a name or proxy that leads to the current master"
)

_OURS: Final = (
    "timeout",
    "decode_responses",
    "encoding",
    "encoding_errors",
    "health_check_interval",
    "retry_on_timeout",
    "retry_on_error",
)
"""Settings of redis-py in a URL that would change the form of replies, or retry."""

_KNOWN: Final = inspect.signature(AbstractConnection.__init__).parameters
_DATABASE: Final = re.compile(r"/?|/[0-9]+/?")
_BARE_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def read(url: Any) -> dict[str, Any]:
    """Read a URL.

    Returns:
        The settings of redis-py's connections, including the connection class.

    Raises:
        ValueError: If it is not such a URL, or leads to anything but one server; the message does
            not show it.
    """
    trouble, address = _look_at(url)
    if not trouble:
        try:
            settings = dict(parse_url(address))  # type: ignore[no-untyped-call]
            if str(settings.setdefault("protocol", 2)) not in {"2", "3"}:
                trouble = "the Redis URL has a protocol that is not 2 or 3"
        except (ValueError, TypeError, AttributeError):  # the message might show the password
            trouble = _USAGE
    if trouble:
        raise ValueError(trouble)
    for name in _OURS:
        settings.pop(name, None)
    settings.setdefault("connection_class", Connection)
    if settings["connection_class"] is not UnixDomainSocketConnection:
        settings.setdefault("socket_keepalive", True)
    for name in ("driver_info", "lib_name", "lib_version"):  # not worth a round trip
        if name in _KNOWN:
            settings.setdefault(name, None)
            if name == "driver_info":
                break
    return settings


def take_number(settings: dict[str, Any], name: str, usual: float) -> float:
    """Take a setting that is a number above 0 from the settings of a URL.

    Raises:
        ValueError: If it is anything else.
    """
    value = settings.pop(name, usual)
    if not isinstance(value, (int, float)) or not 0 < value < 1e6:
        raise ValueError(f"the Redis URL has {name}={value!r}: use a number above 0")
    return float(value)


def _look_at(url: Any) -> tuple[str, str]:
    """Return what is wrong with a URL ("" for nothing), and the URL in redis-py's form."""
    if not isinstance(url, str):
        return _USAGE, ""
    scheme, separator, rest = url.strip().partition("://")
    scheme = scheme.lower()
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path, _, query = rest[len(authority) :].partition("?")
    user, at, host = authority.rpartition("@")
    if separator and "sentinel" in scheme:
        return SENTINEL, ""
    if separator and ("cluster" in scheme or (scheme in _SCHEMES and "," in host)):
        return CLUSTER, ""
    if not separator or scheme not in _SCHEMES:
        return _USAGE, ""
    for part in query.split("&"):
        if part and "=" not in part:
            return _ENCODE, ""
    if (
        "#" in rest
        or _BARE_PERCENT.search(user)
        or any(each < " " or each == "\x7f" for each in rest)
        or ("@" in path and (scheme != "unix" or authority))
        or ("@" in query and not at and ":" in host)
    ):
        return _ENCODE, ""
    if host if scheme == "unix" else not _DATABASE.fullmatch(path):
        return _USAGE, ""
    return "", f"{_SCHEMES[scheme]}://{rest}"


def refusal(url: str, error: Exception) -> str:
    """Return which setting redis-py has refused, unless its name may be a piece of a password.

    Args:
        url: The URL.
        error: What redis-py has raised.
    """
    said = "the Redis URL has a setting that redis-py does not take"
    name = re.search(r"keyword argument '(\w+)'", str(error))
    query = url.partition("?")[2]
    if name is None or "@" in query or "password" in query:
        return said
    return f"{said}: {name[1]}"
