"""What HTTP clients' errors say: how long to wait, and whether another attempt may help.

opero looks at the attributes of the exception, and so imports no client library:

    error.response.headers, .status_code                  httpx, requests, and those built on them
    error.headers, .status or .code                       aiohttp, urllib
    error.response["ResponseMetadata"]["HTTPHeaders"], ["HTTPStatusCode"]     botocore
    error.retry_after                                     a number, if there are no such headers

If the server did not answer at all, the names of the exception's classes decide, by library.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?")

_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_NO_ANSWER = {
    "httpx": frozenset({"TimeoutException", "NetworkError", "RemoteProtocolError", "ProxyError"}),
    "httpcore": frozenset({"TimeoutException", "NetworkError", "RemoteProtocolError"}),
    "requests": frozenset({"ConnectionError", "Timeout", "ChunkedEncodingError"}),
    "urllib3": frozenset({"TimeoutError", "ProtocolError", "NewConnectionError", "ProxyError"}),
    "aiohttp": frozenset({"ClientConnectionError", "ClientPayloadError"}),
    "botocore": frozenset({"ConnectionError", "HTTPClientError"}),
    "openai": frozenset({"APIConnectionError"}),
    "anthropic": frozenset({"APIConnectionError"}),
    "socket": frozenset({"gaierror"}),
    "ssl": frozenset({"SSLEOFError", "SSLZeroReturnError"}),
    "http": frozenset({"IncompleteRead"}),
    "asyncio": frozenset({"IncompleteReadError"}),
}
"""The classes of each library that mean a lost connection or a timeout."""
_NO_ANSWER["httpx2"] = _NO_ANSWER["httpx"]
_NO_ANSWER["httpcore2"] = _NO_ANSWER["httpcore"]
_FOR_GOOD = frozenset({"ClientConnectorCertificateError", "SSLCertVerificationError"})
"""Subclasses or causes of those errors that are permanent: the next attempt would fail too."""
_THROTTLED = re.compile(
    r"Throttl|TooManyRequests|SlowDown|RequestTimeout|(Request|Bandwidth)LimitExceeded"
    r"|ProvisionedThroughputExceeded|RequestRateTooLarge"
)
"""AWS error codes that mean "later", although their status is 400."""
_UNREACHABLE = frozenset({"ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "ENETRESET"})
_DEEP = 8
"""How many causes in a chain to look at."""


def transient_error(error: BaseException) -> bool:
    """Return whether another attempt may help; for `retry_on=`.

    A lost connection, a timeout, and the HTTP statuses 408, 425, 429, 500, 502, 503 and 504 are
    transient. This covers errors of Python itself, of httpx, requests, aiohttp, urllib, urllib3
    and botocore, and of libraries that pass those on. An invalid certificate, another status, and
    everything else is not transient. A group is transient if each exception in it is.

    Args:
        error: What an attempt raised. This function neither changes it nor raises anything.

    Example:
        ```python
        @opero(retries=5, retry_on=opero.transient_error, retry_after=opero.retry_after)
        def fetch(url: str) -> bytes: ...
        ```
    """
    try:
        return _is_transient(error)
    except Exception:  # noqa: BLE001 - errors are anybody's
        return False


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_transient(each) for each in error.exceptions)
    status = _status(error)
    if status is not None:
        return status in _TRANSIENT_STATUS or (status == 400 and _is_throttled(error))
    if _is_for_good(error):
        return False
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    for kind in type(error).__mro__:
        if kind.__name__ in _NO_ANSWER.get(kind.__module__.partition(".")[0], ()):
            return True
    reason = _attribute(error, "reason")
    if isinstance(reason, Exception):  # urllib's URLError, urllib3's MaxRetryError
        return _is_transient(reason)
    return isinstance(error, OSError) and _is_unreachable(error)


def _is_for_good(error: BaseException) -> bool:
    """Return whether an error comes from an invalid certificate."""
    cause: Any = error
    for _ in range(_DEEP):
        if any(kind.__name__ in _FOR_GOOD for kind in type(cause).__mro__):
            return True
        inside = (
            _attribute(cause, "reason"),  # urllib3's
            cause.args[0] if cause.args else None,  # requests'
            cause.__cause__,
            None if cause.__suppress_context__ else cause.__context__,
        )
        cause = next((each for each in inside if isinstance(each, BaseException)), None)
        if cause is None:
            break
    return False


def _is_unreachable(error: OSError) -> bool:
    """Return whether the operating system found no route to the host."""
    import errno

    return errno.errorcode.get(error.errno or 0) in _UNREACHABLE


def _is_throttled(error: BaseException) -> bool:
    """Return whether a 400 of AWS means "later"."""
    response = _attribute(error, "response")
    code = response["Error"]["Code"] if isinstance(response, Mapping) else ""
    return isinstance(code, str) and _THROTTLED.search(code) is not None


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of an error's response; None if it has none."""
    response = _attribute(error, "response")
    if isinstance(response, Mapping):
        return _number_of(response["ResponseMetadata"]["HTTPStatusCode"])
    for holder, name in (
        (response, "status_code"),
        (response, "status"),
        (error, "status_code"),
        (error, "status"),
        (error, "code"),
    ):
        status = _number_of(_attribute(holder, name))
        if status is not None:
            return status
    return None


def _number_of(value: Any) -> int | None:
    """Return a value as a number if it is an HTTP status, such as an `http.HTTPStatus`."""
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600:
        return int(value)
    return None


def _attribute(holder: Any, name: str) -> Any:
    """Return an attribute; None if it is missing or cannot be read."""
    try:
        return getattr(holder, name, None)
    except Exception:  # noqa: BLE001 - urllib's error, unpickled without its body, raises KeyError
        return None


def asks_for_less(error: BaseException) -> bool:
    """Return whether a server says that it gets too many requests, with 429 or 503."""
    try:
        if isinstance(error, BaseExceptionGroup):
            return any(asks_for_less(each) for each in error.exceptions)
        status = _status(error)
        return status in {429, 503} or (status == 400 and _is_throttled(error))
    except Exception:  # noqa: BLE001 - errors are anybody's
        return False


def retry_after(error: BaseException) -> float | None:
    """Return how many seconds a server asks you to wait; for `retry_after=`.

    It reads the headers `Retry-After` (seconds or an HTTP date) and `retry-after-ms` from errors
    of httpx, requests, aiohttp, urllib and botocore, and of libraries that pass those on. Without
    them, it reads the error's attribute `retry_after`: a number of seconds or a `timedelta`. For a
    group, it returns the longest wait of its exceptions.

    Args:
        error: What an attempt raised.

    Returns:
        Seconds from now; 0 for a date in the past; None if the error says nothing or something
        invalid. It raises nothing.

    Example:
        ```python
        @opero(retries=5, retry_after=opero.retry_after)
        def fetch(url: str) -> bytes: ...
        ```
    """
    if isinstance(error, BaseExceptionGroup):
        answers = [retry_after(each) for each in error.exceptions]
        return max((each for each in answers if each is not None), default=None)
    try:
        headers = _headers(error)
        said = None if headers is None else _from(headers)
        return _number(error) if said is None else said
    except Exception:  # noqa: BLE001 - headers are the server's, and errors are anybody's
        return None


def _from(headers: Any) -> float | None:
    """Return the wait that headers ask for, in seconds."""
    precise = _text(headers, "retry-after-ms")
    if precise is not None and _NUMBER.fullmatch(precise):
        return float(precise) / 1000
    text = _text(headers, "retry-after")
    if text is None:
        return None
    return float(text) if _NUMBER.fullmatch(text) else _until(text)


def _number(error: BaseException) -> float | None:
    """Return the wait that the error itself asks for, in seconds."""
    number: Any = getattr(error, "retry_after", None)
    if hasattr(type(number), "total_seconds"):
        number = number.total_seconds()
    if isinstance(number, (int, float)) and not isinstance(number, bool) and number >= 0:
        return float(number)
    return None


def _headers(error: BaseException) -> Any:
    """Return the headers of an error's response; None if it has none."""
    response = _attribute(error, "response")
    if isinstance(response, Mapping):
        return response["ResponseMetadata"]["HTTPHeaders"]
    headers = getattr(response, "headers", None)
    return getattr(error, "headers", None) if headers is None else headers


def _text(headers: Any, name: str) -> str | None:
    """Return a header's text, whatever the case of its name."""
    text = headers.get(name)
    if text is None:
        for other in headers:  # a plain dict
            if isinstance(other, str) and other.lower() == name:
                text = headers[other]
                break
    if isinstance(text, bytes):
        text = text.decode("ascii")
    return text.strip() if isinstance(text, str) else None


def _until(text: str) -> float | None:
    """Return how many seconds are left until an HTTP date."""
    import time
    from datetime import UTC
    from email.utils import parsedate_to_datetime

    date = parsedate_to_datetime(text)
    if date.tzinfo is None:  # an old form that means UTC
        date = date.replace(tzinfo=UTC)
    left = date.timestamp() - time.time()
    return max(0.0, left) if math.isfinite(left) else None
