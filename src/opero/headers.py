"""How long a server that refused has asked to be left alone, as its answer's headers tell.

The answer is found by the shape of the exception, so that no client library is imported:

    error.response.headers                                httpx, requests, and what is built on them
    error.headers                                         aiohttp, urllib
    error.response["ResponseMetadata"]["HTTPHeaders"]     botocore
    error.retry_after                                     a number, if there are no such headers
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from typing import Any

_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?")


def retry_after(error: BaseException) -> float | None:
    """Tell how many seconds a server has asked to be left alone; for `retry_after=`.

    It reads `Retry-After`, in seconds or as an HTTP date, and `retry-after-ms`, of errors of httpx,
    requests, aiohttp, urllib and botocore, and of libraries that hand theirs on; else a number of
    seconds that an error has as its attribute `retry_after`.

    Args:
        error: What an attempt raised.

    Returns:
        Seconds from now, 0 for a date that has passed; None if the error says nothing, or what
        means nothing. It raises nothing.

    Example:
        ```python
        @opero(retries=5, retry_after=opero.retry_after)
        def fetch(url: str) -> bytes: ...
        ```
    """
    try:
        headers = _headers(error)
        said = None if headers is None else _from(headers)
        return _number(error) if said is None else said
    except Exception:  # noqa: BLE001 - headers are the server's, and errors are anybody's
        return None


def _from(headers: Any) -> float | None:
    """Return what headers tell, in seconds."""
    precise = _text(headers, "retry-after-ms")
    if precise is not None and _NUMBER.fullmatch(precise):
        return float(precise) / 1000
    text = _text(headers, "retry-after")
    if text is None:
        return None
    return float(text) if _NUMBER.fullmatch(text) else _until(text)


def _number(error: BaseException) -> float | None:
    """Return what the error itself tells, in seconds."""
    number = getattr(error, "retry_after", None)
    if isinstance(number, (int, float)) and not isinstance(number, bool) and number >= 0:
        return float(number)
    return None


def _headers(error: BaseException) -> Any:
    """Return the headers of the answer that an error is about, None if it is about none."""
    try:
        response = getattr(error, "response", None)
    except Exception:  # noqa: BLE001 - urllib's, come from a process without its body: a KeyError
        response = None
    if isinstance(response, Mapping):
        return response["ResponseMetadata"]["HTTPHeaders"]
    headers = getattr(response, "headers", None)
    return getattr(error, "headers", None) if headers is None else headers


def _text(headers: Any, name: str) -> str | None:
    """Return a header's text, however its name is written."""
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
    from email.utils import mktime_tz, parsedate_tz

    date = parsedate_tz(text)
    if date is None:
        return None
    left = mktime_tz((*date[:9], date[9] or 0)) - time.time()
    return max(0.0, left) if math.isfinite(left) else None
