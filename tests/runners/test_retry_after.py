"""A server that says when to come back is heeded: its wait is kept, or the call gives up at once."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import email.message
import io
import logging
import math
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import opero as package
from opero import (
    AllFailedError,
    DeadlineExceeded,
    RateLimiter,
    RetryConfig,
    get_retry_decorator,
    hotpath,
    opero,
    opmap,
    retry_after,
)
from opero.core.attempts import AGAIN, GIVE_UP, LATE, PROPAGATE, REFUSED
from opero.core.clock import NEVER
from opero.map.serialization.errors import pack_error, unpack_error
from opero.testing import skip_waits

once = pytest.mark.once
SECOND = 10**9


class Busy(Exception):
    """An error that says how long to wait."""

    def __init__(self, seconds: Any = None) -> None:
        super().__init__(seconds)
        self.seconds = seconds


def asks(error: Exception) -> Any:
    return error.seconds if isinstance(error, Busy) else None


# What headers say.


class Folded(Mapping[str, str]):
    """Headers with case-insensitive names, like those of httpx, requests and aiohttp."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = {name.lower(): value for name, value in headers.items()}

    def __getitem__(self, name: str) -> str:
        return self.headers[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self.headers)

    def __len__(self) -> int:
        return len(self.headers)


class Response:
    def __init__(self, headers: Any) -> None:
        self.status_code = 429
        self.headers = headers


class ByResponse(Exception):
    """Shaped like `httpx.HTTPStatusError` and `requests.HTTPError`."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__("429 Too Many Requests")
        self.response = Response(Folded(headers))


class ByHeaders(Exception):
    """Shaped like `aiohttp.ClientResponseError`."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__("429, message='Too Many Requests'")
        self.status = 429
        self.headers = Folded(headers)


class ByDict(Exception):
    """Shaped like `botocore.exceptions.ClientError`."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__("An error occurred (ThrottlingException)")
        metadata = {"HTTPStatusCode": 429, "HTTPHeaders": dict(Folded(headers))}
        self.response = {"Error": {"Code": "ThrottlingException"}, "ResponseMetadata": metadata}


def by_urllib(headers: Mapping[str, str]) -> urllib.error.HTTPError:
    message = email.message.Message()
    for name, value in headers.items():
        message[name] = value
    body = io.BytesIO()  # which does not travel, when it is closed, nor does a socket
    error = urllib.error.HTTPError("http://host/", 429, "Too Many Requests", message, body)
    error.close()  # Python 3.14 warns of one that was not
    return error


def by_plain_dict(headers: Mapping[str, str]) -> Exception:
    error = ByResponse({})
    error.response = Response(dict(headers))
    return error


SHAPES = [ByResponse, ByHeaders, ByDict, by_urllib, by_plain_dict]


@once
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"retry-after": " 0 "}, 0),
        ({"RETRY-AFTER": "1.5"}, 1.5),
        ({"Retry-After-Ms": "1500", "Retry-After": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"Retry-After": "Sunday, 06-Nov-94 08:49:37 GMT"}, 0),
        ({"Retry-After": "Sun Nov  6 08:49:37 1994"}, 0),
        ({"X-Other": "7"}, None),
        ({}, None),
        *[
            ({"Retry-After": text}, None)
            for text in (
                "",
                "soon",
                "-5",
                "nan",
                "inf",
                "1e3",
                "7 s",
                "\u0667",
                "1,5",
                "21 Oct",
                "0x10",
            )
        ],
    ],
)
def test_the_header_is_understood_in_every_clients_errors(
    shape: Callable[[Any], Exception], headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(shape(headers)) == seconds


@once
@pytest.mark.parametrize("shape", SHAPES)
def test_a_date_is_counted_from_now(shape: Callable[[Any], Exception]) -> None:
    for text in (
        formatdate(time.time() + 100, usegmt=True),
        formatdate(time.time() + 100, localtime=True),
    ):
        seconds = retry_after(shape({"Retry-After": text}))
        assert seconds is not None
        assert 60 < seconds <= 100


@once
def test_an_error_may_say_it_itself() -> None:
    error = Busy()
    for number, seconds in ((3, 3), (0.5, 0.5), (0, 0), (dt.timedelta(minutes=1), 60)):
        error.retry_after = number  # type: ignore[attr-defined]
        assert retry_after(error) == seconds
    for nonsense in (True, "3", -1, math.nan, dt.timedelta(seconds=-3), None, print):
        error.retry_after = nonsense  # type: ignore[attr-defined]
        assert retry_after(error) is None


@once
def test_of_a_group_the_longest_wait_counts() -> None:
    group = ExceptionGroup(
        "g", [ValueError(), ExceptionGroup("h", [by_urllib({"retry-after": "7"})])]
    )
    assert retry_after(group) == 7
    assert retry_after(ExceptionGroup("g", [group, by_plain_dict({"Retry-After": "9"})])) == 9
    assert retry_after(ExceptionGroup("g", [ValueError()])) is None


@once
def test_a_date_that_no_calendar_has_says_nothing() -> None:
    for text in ("Wed, 99 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 27:28:00 GMT"):
        assert retry_after(by_plain_dict({"Retry-After": text})) is None


class Trap:
    """Raises an error for any attribute."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class Trapped(Exception):
    @property
    def response(self) -> Any:
        raise RuntimeError("there is none yet")


@once
def test_it_raises_nothing_and_takes_nothing_for_something() -> None:
    errors: list[BaseException] = [ValueError("no"), KeyboardInterrupt(), Trapped(), ByHeaders({})]
    things = (
        Trap(),
        None,
        7,
        "Retry-After: 7",
        [],
        {"ResponseMetadata": None},
        {"retry-after": b"\xff"},
        {"retry-after": 7},
        {"Error": {}},
        Response(None),
        Response([("Retry-After", "7")]),
        Response(Trap()),
    )
    for thing in things:
        for name in ("response", "headers"):
            error = ValueError("no")
            setattr(error, name, thing)
            errors.append(error)
    assert [retry_after(error) for error in errors] == [None] * len(errors)


@once
@given(text=st.text() | st.text("0123456789.:-+, MonJaGT", max_size=30))
def test_no_text_makes_it_raise(text: str) -> None:
    seconds = retry_after(by_plain_dict({"Retry-After": text}))
    assert seconds is None or seconds >= 0


@once
@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_server_said_survives_the_way_between_processes(
    shape: Callable[[Any], Exception],
) -> None:
    back = unpack_error(pack_error(shape({"Retry-After": "7"})))
    assert retry_after(back) == 7
    assert retry_after(unpack_error(pack_error(shape({})))) is None


# What the core makes of it.


def attempts(core: hotpath.Core, answer: Any, width: int = 1, **changes: Any) -> Any:
    options: dict[str, Any] = {
        "rounds": 3,
        "factor": 2.0,
        "min_delay": 1.0,
        "max_delay": 30.0,
        "jitter": False,
        "types": (Exception,),
        "predicate": None,
        "retry_after": answer,
        "fallback_types": (Exception,) if width > 1 else None,
        **changes,
    }
    return core.Policy(**options).attempts(width)


@given(
    asked=st.floats(0, 30),
    shortest=st.floats(0, 30),
    jitter=st.booleans(),
    rounds=st.integers(2, 5),
)
def test_the_delay_is_never_below_what_was_asked_for_nor_below_the_backoff(
    core: hotpath.Core, asked: float, shortest: float, jitter: bool, rounds: int
) -> None:
    state = attempts(core, asks, min_delay=shortest, jitter=jitter, rounds=rounds)
    for _ in range(rounds - 1):
        assert state.failed(Busy(asked), 0, NEVER) == AGAIN
        assert state.delay >= asked * SECOND
        assert state.delay >= int(shortest * SECOND)
        assert state.delay <= 30 * SECOND
        if state.heeds:
            assert state.delay == math.ceil(asked * 1e9)
    assert state.failed(Busy(asked), 0, NEVER) == GIVE_UP


@pytest.mark.parametrize(
    "answer", [0, 0.0, -3, -math.inf, None, 0.5, pytest.param(-(10**400), id="-huge")]
)
def test_an_answer_below_the_backoff_changes_nothing(core: hotpath.Core, answer: Any) -> None:
    state = attempts(core, asks)
    assert state.failed(Busy(answer), 0, NEVER) == AGAIN
    assert (state.delay, state.heeds, state.trouble) == (SECOND, False, None)


@pytest.mark.parametrize("answer", [7, 7.0, decimal.Decimal(7), dt.timedelta(seconds=7)])
def test_any_number_will_do(core: hotpath.Core, answer: Any) -> None:
    state = attempts(core, asks)
    assert state.failed(Busy(answer), 0, NEVER) == AGAIN
    assert (state.delay, state.heeds) == (7 * SECOND, True)


@pytest.mark.parametrize(
    "answer", [30.001, 31, 1e9, 1e300, math.inf, pytest.param(10**400, id="huge")]
)
def test_a_wait_beyond_the_longest_delay_is_not_begun(core: hotpath.Core, answer: Any) -> None:
    assert attempts(core, asks).failed(Busy(answer), 0, NEVER) == REFUSED


def test_the_longest_delay_itself_is_kept(core: hotpath.Core) -> None:
    state = attempts(core, asks)
    assert state.failed(Busy(30), 0, NEVER) == AGAIN
    assert state.delay == 30 * SECOND


def test_with_a_deadline_it_is_the_deadline_that_counts(core: hotpath.Core) -> None:
    now, deadline = 10**16, 10**16 + 100 * SECOND
    state = attempts(core, asks)
    assert state.failed(Busy(99), now, deadline) == AGAIN
    assert (state.delay, state.heeds) == (99 * SECOND, True)
    for answer in (100, 101, 1e300, math.inf):
        assert attempts(core, asks).failed(Busy(answer), now, deadline) == LATE


def test_values_of_a_round_are_not_delayed_and_its_longest_wait_counts(core: hotpath.Core) -> None:
    state = attempts(core, asks, width=3)
    for seconds, verdict, delay in (
        (5, AGAIN, 0),
        (99, AGAIN, 0),
        (4, REFUSED, None),
    ):
        assert state.failed(Busy(seconds), 0, NEVER) == verdict
        assert delay is None or state.delay == delay
    state = attempts(core, asks, width=3)
    delays = []
    for seconds in (5, 9, None, 3, None, 2):
        assert state.failed(Busy(seconds), 0, NEVER) == AGAIN
        delays.append(state.delay)
    assert delays == [0, 0, 9 * SECOND, 0, 0, 3 * SECOND]


def test_one_round_does_not_remember_the_wait_of_the_one_before(core: hotpath.Core) -> None:
    state = attempts(core, asks)
    assert state.failed(Busy(9), 0, NEVER) == AGAIN
    assert (state.delay, state.heeds) == (9 * SECOND, True)
    assert state.failed(Busy(), 0, NEVER) == AGAIN
    assert (state.delay, state.heeds) == (2 * SECOND, False)


def test_nobody_is_asked_after_the_last_round_nor_about_what_is_not_retried(
    core: hotpath.Core,
) -> None:
    asked: list[Exception] = []
    state = attempts(core, asked.append, rounds=2, types=(Busy,))
    first = Busy()
    assert state.failed(first, 0, NEVER) == AGAIN
    assert state.failed(Busy(), 0, NEVER) == GIVE_UP
    assert asked == [first]
    assert attempts(core, asked.append, types=(Busy,)).failed(ValueError(), 0, NEVER) == PROPAGATE
    assert asked == [first]


NONSENSE = [True, "7", b"7", [7], math.nan, 7j, dt.date(2026, 7, 7), print, object()]


@pytest.mark.parametrize("answer", NONSENSE, ids=[type(each).__name__ for each in NONSENSE])
def test_nonsense_is_told_once_and_the_usual_delay_follows(core: hotpath.Core, answer: Any) -> None:
    state = attempts(core, lambda error: answer)
    assert state.failed(ValueError(), 0, NEVER) == AGAIN
    assert (state.delay, state.heeds) == (SECOND, False)
    assert "it returned" in state.trouble
    assert state.failed(ValueError(), 0, NEVER) == AGAIN
    assert (state.delay, state.trouble) == (2 * SECOND, None)


def test_trouble_is_not_told_again_with_an_error_that_is_not_retried(core: hotpath.Core) -> None:
    state = attempts(core, lambda error: "soon", types=(Busy,))
    assert state.failed(Busy(), 0, NEVER) == AGAIN
    assert state.trouble is not None
    assert state.failed(ValueError(), 0, NEVER) == PROPAGATE
    assert state.trouble is None


# What calls make of it.


KINDS = ["sync", "async"]


def outcome(kind: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Decorate a function of either kind and call it."""
    if kind == "sync":
        return opero(**options)(function)(*args)

    async def coroutine(*inner: Any) -> Any:
        return function(*inner)

    return asyncio.run(opero(**options)(coroutine)(*args))


class Server(ThreadingHTTPServer):
    """Answers 429 as often as its path asks for, then 200."""

    daemon_threads = False
    said: dict[str, int]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        """Answer `/times/header/anything`."""
        times, header = self.path.split("/")[1:3]
        said = self.server.said.get(self.path, 0)
        self.server.said[self.path] = said + 1
        self.send_response(200 if said >= int(times) else 429)
        self.send_header("Retry-After", urllib.request.unquote(header))
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the base class
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.said = {}
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url: str) -> bytes:
    try:
        with OPENER.open(url, timeout=30) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        error.close()
        raise


async def fetch_async(url: str) -> bytes:
    return fetch(url)


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_waits_as_a_real_server_asks(kind: str, server: str) -> None:
    options = {"retries": 3, "min_delay": 0, "retry_after": package.retry_after}
    with skip_waits() as clock:
        assert outcome(kind, fetch, f"{server}/1/7/{kind}", **options) == b"ok"
        assert 7 <= clock.waited < 11
    with skip_waits() as clock:
        assert outcome(kind, fetch, f"{server}/2/11/{kind}", **options) == b"ok"
        assert 22 <= clock.waited < 30
    date = urllib.request.quote(formatdate(time.time() + 25, usegmt=True))
    with skip_waits() as clock:
        assert outcome(kind, fetch, f"{server}/1/{date}/{kind}", **options) == b"ok"
        assert 5 < clock.waited < 50


@pytest.mark.parametrize("mode", ["thread", "process", "async", "async_process"])
def test_items_of_a_map_wait_as_a_real_server_asks(mode: Any, server: str) -> None:
    function: Any = fetch_async if mode.startswith("async") else fetch
    mapped = opmap(
        mode, workers=2, progress=False, retries=2, min_delay=0, retry_after=retry_after
    )(function)
    urls = [f"{server}/1/0.3/{mode}-{number}" for number in range(3)]
    urls += [f"{server}/0/0.3/{mode}-at-once", f"{server}/1/3600/{mode}-never"]
    start = time.monotonic()
    *served, never = mapped(urls)
    assert time.monotonic() - start >= 0.3
    assert served == [b"ok"] * 4
    assert isinstance(never, AllFailedError)
    assert "the server asked for a wait of 3600 s, but max_delay is 30 s" in str(never)


@pytest.mark.parametrize("kind", KINDS)
def test_beyond_the_longest_delay_the_call_gives_up_at_once(kind: str) -> None:
    def busy() -> None:
        raise Busy(120)

    with skip_waits() as clock, pytest.raises(AllFailedError) as caught:
        outcome(kind, busy, retries=5, retry_after=asks)
    assert clock.waited < 30
    assert len(caught.value.errors) == 1
    assert isinstance(caught.value.__cause__, Busy)
    assert "the server asked for a wait of 120 s, but max_delay is 30 s" in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_beyond_the_deadline_the_call_gives_up_at_once(kind: str) -> None:
    def busy() -> None:
        raise Busy(120)

    with skip_waits() as clock, pytest.raises(DeadlineExceeded) as caught:
        outcome(kind, busy, retries=5, retry_after=asks, timeout=100)
    assert clock.waited < 30
    assert len(caught.value.errors) == 1
    assert "timeout of 100 s: the wait of 120 s before attempt 2 that the server asked for" in str(
        caught.value
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_deadline_that_allows_it_goes_before_the_longest_delay(kind: str) -> None:
    tries: list[int] = []

    def busy() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise Busy(60)
        return "done"

    with skip_waits() as clock:
        assert outcome(kind, busy, retries=5, retry_after=asks, timeout=100) == "done"
        assert 60 <= clock.waited < 90


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_of_the_function_that_tells_is_told_once_and_goes_no_further(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(error: Exception) -> float:
        raise ZeroDivisionError("broken")

    def fails() -> None:
        raise ValueError("no")

    options = {"retries": 4, "min_delay": 1, "backoff_factor": 1, "jitter": False}
    with skip_waits() as clock, pytest.raises(AllFailedError) as caught:
        outcome(kind, fails, retry_after=broken, **options)
    assert len(caught.value.errors) == 4
    assert 3 <= clock.waited < 30
    told = [line.getMessage() for line in caplog.records if "is ignored" in line.getMessage()]
    assert len(told) == 1
    assert re.fullmatch(r".*: retry_after is ignored: ZeroDivisionError: broken", told[0])


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_in_the_function_that_tells_goes_up(kind: str) -> None:
    def interrupted(error: Exception) -> float:
        raise KeyboardInterrupt

    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(KeyboardInterrupt):
        outcome(kind, fails, retry_after=interrupted)


@pytest.mark.parametrize("kind", KINDS)
def test_the_log_says_that_the_server_asked(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    answers = iter([Busy(9), Busy(0.001), None])

    def busy() -> str:
        error = next(answers)
        if error is not None:
            raise error
        return "done"

    with skip_waits(), caplog.at_level(logging.WARNING, "opero"):
        options = {"min_delay": 1, "backoff_factor": 1, "jitter": False}
        assert outcome(kind, busy, retry_after=asks, **options) == "done"
    lines = [line.getMessage() for line in caplog.records]
    assert len(lines) == 2
    assert lines[0].endswith(
        "attempt 1 of 3 failed with Busy: 9; retrying in 9.000 s, as the server asked"
    )
    assert lines[1].endswith("attempt 2 of 3 failed with Busy: 0.001; retrying in 1.000 s")


@pytest.mark.parametrize("kind", KINDS)
def test_a_fallback_value_is_tried_at_once(kind: str) -> None:
    seen: list[str] = []

    def busy(keys: list[str]) -> str:
        seen.append(keys[0])
        if len(seen) <= 2:
            raise Busy({"first": 5, "second": 9}[keys[0]])
        return "done"

    async def busy_async(keys: list[str]) -> str:
        return busy(keys)

    options: Any = {"arg_fallback": "keys", "retry_after": asks, "min_delay": 0}
    with skip_waits() as clock:
        if kind == "sync":
            assert opero(**options)(busy)(["first", "second"]) == "done"
        else:
            assert asyncio.run(opero(**options)(busy_async)(["first", "second"])) == "done"
        assert 9 <= clock.waited < 14
    assert seen == ["first", "second", "first"]


def test_a_call_that_succeeds_asks_nobody() -> None:
    def never(error: Exception) -> float:
        raise AssertionError("asked")

    assert opero(retry_after=never)(lambda: 1)() == 1


# How it is asked for.


def test_each_way_to_ask_for_it_does_the_same() -> None:
    for decorate in (
        opero(retries=2, min_delay=0, retry_after=asks),
        opero(retry=RetryConfig(attempts=2, min_delay=0, retry_after=asks)),
        get_retry_decorator(2, min_delay=0, retry_after=asks),
    ):
        answers = iter([Busy(5), None])

        @decorate
        def busy(answers: Any = answers) -> str:
            error = next(answers)
            if error is not None:
                raise error
            return "done"

        with skip_waits() as clock:
            assert busy() == "done"
            assert 5 <= clock.waited < 30


async def a_coroutine_function(error: Exception) -> float:
    return 1.0


@once
@pytest.mark.parametrize("wrong", [30, "7", True, ValueError, a_coroutine_function, (asks,)])
def test_what_cannot_tell_is_refused_at_decoration(wrong: Any) -> None:
    for ask in (
        lambda: opero(retry_after=wrong),
        lambda: opero(retry=RetryConfig(retry_after=wrong)),
        lambda: opmap(retry_after=wrong),
        lambda: get_retry_decorator(retry_after=wrong),
    ):
        with pytest.raises(TypeError, match=r"retry_after=.* returns seconds or None"):
            ask()


@once
def test_it_is_refused_beside_a_config() -> None:
    with pytest.raises(
        ValueError, match=r"retry_after=.* is not allowed together with retry=RetryConfig"
    ):
        opero(retry=RetryConfig(), retry_after=asks)
    with pytest.raises(TypeError, match="did you mean 'retry_after'"):
        opero(retry_aftr=asks)  # type: ignore[call-overload]


# Others who share the limit.


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_server_asks_for_holds_back_others_who_share_the_limit(
    core: hotpath.Core, kind: str
) -> None:
    """Another function with the same limiter gets no permit meanwhile, whichever retries."""
    limiter = RateLimiter(1000.0, burst=100)
    times: list[float] = []

    with skip_waits() as clock:

        def busy() -> None:
            raise Busy(20)

        for retries in (1, 2):
            with pytest.raises((AllFailedError, Busy)):
                outcome(
                    kind, busy, retries=retries, min_delay=0, retry_after=asks, rate_limit=limiter
                )
            before = clock.waited
            opero(retries=1, rate_limit=limiter)(lambda: times.append(clock.waited))()
            assert 19.9 < clock.waited - before < 21


@pytest.mark.parametrize("options", [{}, {"timeout": 60}], ids=["no timeout", "timeout"])
def test_a_pause_that_nobody_would_wait_for_is_not_imposed(
    core: hotpath.Core, options: dict[str, Any]
) -> None:
    """Without a deadline others wait at most `max_delay`; with one they give up immediately."""
    limiter = RateLimiter(1000.0)
    with skip_waits() as clock:

        @opero(retries=2, retry_after=asks, rate_limit=limiter, max_delay=30, **options)
        def busy(seconds: float) -> float:
            if seconds:
                raise Busy(seconds)
            return clock.waited

        with pytest.raises((AllFailedError, DeadlineExceeded)):
            busy(3600)
        if options:
            with pytest.raises(DeadlineExceeded, match="permit"):
                busy(0)
        else:
            assert 29 < busy(0) < 31


def test_fallback_values_are_not_held_back(core: hotpath.Core) -> None:
    """One key's limit is not another's: the next value is tried immediately."""
    with skip_waits() as clock:

        @opero(
            retries=1,
            retry_after=asks,
            rate_limit=1000.0,
            burst=9,
            arg_fallback={"seconds": [0]},
        )
        def busy(seconds: float) -> float:
            if seconds:
                raise Busy(seconds)
            return clock.waited

        assert busy(20) < 1


@pytest.mark.parametrize("scope", ["worker", "total"])
def test_items_of_a_map_are_held_back_together(core: hotpath.Core, scope: Any) -> None:
    """Whether each worker has a limit, or all share one."""
    seen: list[float] = []
    with skip_waits() as clock:

        def fetch(item: int) -> int:
            seen.append(clock.waited)
            if len(seen) == 1:
                raise Busy(20)
            return item

        mapped = opmap(
            "thread",
            workers=2,
            progress=False,
            retries=2,
            min_delay=0,
            retry_after=asks,
            rate_limit=1000.0,
            rate_limit_scope=scope,
        )(fetch)
        assert mapped(range(10)) == list(range(10))
    late = [each for each in seen if each > 19]
    assert len(late) >= 8  # but for those that were out already
