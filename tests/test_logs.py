"""The log: silent unless asked for, and then with names, numbers and errors, never arguments."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from opero import (
    AllFailedError,
    DeadlineExceeded,
    Event,
    configure_logging,
    get_logger,
    hotpath,
    logs,
    opero,
)
from opero.testing import manual_clock, skip_waits

LOGGER = logging.getLogger("opero")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Take back whatever a test does to the logger."""
    handlers, level, propagate = list(LOGGER.handlers), LOGGER.level, LOGGER.propagate
    yield
    LOGGER.handlers[:] = handlers
    LOGGER.setLevel(level)
    LOGGER.propagate = propagate
    LOGGER.disabled = False
    logging.disable(logging.NOTSET)


def messages(caplog: pytest.LogCaptureFixture, level: int = logging.NOTSET) -> list[str]:
    """Return what opero has written at `level`, or at all levels."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "opero" and level in {logging.NOTSET, record.levelno}
    ]


def fails_twice(**options: Any) -> Any:
    """Make a function that succeeds in its third attempt."""
    left = [ValueError("first"), KeyError("second")]

    @opero(min_delay=1, backoff_factor=2, jitter=False, **options)
    def function(*args: Any, **kwargs: Any) -> str:
        if left:
            raise left.pop(0)
        return "value"

    return function


# --- what is written ------------------------------------------------------------------------------


def test_a_retry_is_written_at_warning_with_function_attempt_delay_and_error(
    core: hotpath.Core, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for each failed attempt that is followed by another."""
    function = fails_twice()
    with skip_waits():
        function()
    name = function.__qualname__
    assert messages(caplog) == [
        f"{name}: attempt 1 of 3 failed with ValueError: first; retrying in 1.000 s",
        f"{name}: attempt 2 of 3 failed with KeyError: 'second'; retrying in 2.000 s",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_a_fallback_is_written_at_warning(
    core: hotpath.Core, caplog: pytest.LogCaptureFixture
) -> None:
    """With function, attempt and error; there is no delay to tell."""

    @opero(arg_fallback="key", retries=1)
    def function(key: list[str]) -> str:
        if key[0] == "secret a":
            raise ValueError("refused")
        return "value"

    function(["secret a", "secret b"])
    what = "attempt 1 of 2 failed with ValueError: refused; trying the next fallback value"
    assert messages(caplog) == [f"{function.__qualname__}: {what}"]
    assert caplog.records[0].levelno == logging.WARNING


def test_awaited_functions_write_the_same(
    core: hotpath.Core, caplog: pytest.LogCaptureFixture
) -> None:
    """Line by line."""

    @opero(retries=2, min_delay=1, jitter=False, arg_fallback={"x": ["b"]})
    async def function(x: str) -> None:
        raise ValueError(len(x))

    with skip_waits(), pytest.raises(AllFailedError):
        asyncio.run(function("a"))  # type: ignore[arg-type]
    name = function.__qualname__
    next_value = "trying the next fallback value"
    assert messages(caplog) == [
        f"{name}: attempt 1 of 4 failed with ValueError: 1; {next_value}",
        f"{name}: attempt 2 of 4 failed with ValueError: 1; retrying in 1.000 s",
        f"{name}: attempt 3 of 4 failed with ValueError: 1; {next_value}",
        f"{name}: attempt 4 of 4 failed with ValueError: 1; giving up",
    ]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_hits_and_permits_are_written_at_debug(
    core: hotpath.Core, caplog: pytest.LogCaptureFixture, is_async: bool
) -> None:
    """With the function, and how long a permit took."""
    function: Any
    if is_async:

        @opero(cache=True, rate_limit=2.0)
        async def function(x: int) -> int:
            return x
    else:

        @opero(cache=True, rate_limit=2.0)
        def function(x: int) -> int:
            return x

    async def main() -> None:
        for x in (1, 1, 2):
            await function(x)

    caplog.set_level(logging.DEBUG, "opero")
    with manual_clock():
        if is_async:
            asyncio.run(main())
        else:
            list(map(function, (1, 1, 2)))
    name = function.__qualname__
    assert messages(caplog, logging.DEBUG) == [
        f"{name}: waited 0.000 s for a permit",
        f"{name}: cache hit",
        f"{name}: waited 0.500 s for a permit",
    ]


def test_arguments_are_never_written(core: hotpath.Core, caplog: pytest.LogCaptureFixture) -> None:
    """They hold keys; neither retries, fallbacks, hits, permits nor failures tell them."""
    caplog.set_level(logging.DEBUG, "opero")

    @opero(
        cache=True,
        rate_limit=1e6,
        burst=9,
        min_delay=0,
        retries=2,
        arg_fallback={"key": ["S3CR3T"]},
    )
    def function(key: str, *, password: str = "S3CR3T") -> str:
        if key == "S3CR3T":
            return key
        raise ValueError("no")

    @opero(cache=True, min_delay=0, retries=2, arg_fallback="key")
    def failing(key: list[str]) -> None:
        raise ValueError("no")

    for _ in range(2):
        function("other S3CR3T", password="S3CR3T")
        function({"x": "S3CR3T"})  # type: ignore[arg-type]
    with pytest.raises(AllFailedError) as caught:
        failing(["S3CR3T", "S3CR3T 2"])
    assert len(messages(caplog)) > 8
    assert "S3CR3T" not in caplog.text
    assert "S3CR3T" not in str(caught.value)


def test_an_error_that_propagates_is_not_written(
    core: hotpath.Core, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever gets it decides what to do with it."""
    function = opero(retry_on=KeyError)(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        function()
    last = opero(retries=1)(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        last()
    assert messages(caplog) == []


def test_a_success_writes_nothing_above_debug(
    core: hotpath.Core, caplog: pytest.LogCaptureFixture
) -> None:
    """All is well, and nobody needs to know."""
    caplog.set_level(logging.INFO, "opero")
    function = opero(cache=True, rate_limit=1e6, burst=9)(lambda x: x)
    assert [function(1), function(1), function(2)] == [1, 1, 2]
    assert messages(caplog) == []


# --- one line, and fields ------------------------------------------------------------------------


class JsonLines(logging.Handler):
    """Writes what structured logging would: JSON, of a record's text and of all its own fields."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        own = {name: value for name, value in vars(record).items() if name.startswith("opero_")}
        self.lines.append(json.loads(json.dumps({"text": record.getMessage(), **own})))


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """Collect the log as JSON."""
    handler = JsonLines()
    LOGGER.addHandler(handler)
    yield handler.lines
    LOGGER.removeHandler(handler)


def test_a_record_has_the_fields_of_its_event(
    core: hotpath.Core, lines: list[dict[str, Any]]
) -> None:
    """Those that do not apply are there too, so that a format may name any."""

    @opero(min_delay=1, jitter=False, retries=2, cache=True, cache_namespace="shop")
    def function() -> None:
        raise ValueError("no")

    with skip_waits(), pytest.raises(AllFailedError):
        function()
    first, last = lines
    assert {name for name in first if name != "text"} == {f"opero_{name}" for name in logs.FIELDS}
    assert first.keys() == last.keys()
    number = first.pop("opero_call")
    assert last.pop("opero_call") == number is not None
    assert {name: value for name, value in first.items() if value is not None} == {
        "text": f"{function.__qualname__}: attempt 1 of 2 failed with ValueError: no; "
        "retrying in 1.000 s",
        "opero_kind": "retry",
        "opero_function": function.__qualname__,
        "opero_module": __name__,
        "opero_namespace": "shop",
        "opero_backend": "memory",
        "opero_mode": "sync",
        "opero_attempt": 1,
        "opero_of": 2,
        "opero_delay": 1.0,
        "opero_error": "ValueError: no",
    }
    assert last["text"].endswith("attempt 2 of 2 failed with ValueError: no; giving up")
    assert (last["opero_kind"], last["opero_delay"]) == ("give_up", None)


def test_no_field_is_one_of_a_record_already() -> None:
    """`logging` refuses those; but for two that are no text, a record has an event's fields."""
    record = logging.LogRecord("opero", 30, "", 0, "", (), None)
    assert not {f"opero_{name}" for name in logs.FIELDS} & {*vars(record), "message", "asctime"}
    others = {"time", "history"}
    assert tuple(each for each in Event._fields if each not in others) == logs.FIELDS


def test_a_format_may_name_the_fields(core: hotpath.Core) -> None:
    """Also for warnings that are no events."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(opero_kind)s %(opero_attempt)s %(levelname)s"))
    LOGGER.addHandler(handler)
    function = opero(min_delay=0, retry_after=lambda _: "soon")(lambda: 1 / 0)
    with pytest.raises(AllFailedError):
        function()
    assert stream.getvalue().splitlines() == [
        "None None WARNING",
        "retry 1 WARNING",
        "retry 2 WARNING",
        "give_up 3 WARNING",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines", r"two\nlines"),
        ("a\r\nb\x0b\x0c\x1c\x85\u2028\u2029c", r"a\r\nb\x0b\x0c\x1c\x85\u2028\u2029c"),
        ("\x1b[31mred\x1b[0m\a", r"\x1b[31mred\x1b[0m\x07"),
        ("half a pair: \ud800", r"half a pair: \ud800"),
        ("née 東京", "née 東京"),
        ("100 %s %d", "100 %s %d"),
    ],
)
def test_whatever_an_error_says_is_one_line(
    core: hotpath.Core, lines: list[dict[str, Any]], text: str, shown: str
) -> None:
    """What cannot be printed is escaped: no error writes a line of its own into the log."""

    @opero(retries=2, min_delay=0)
    def function() -> None:
        raise ValueError(text)

    with pytest.raises(AllFailedError):
        function()
    assert len(lines) == 2
    for line in lines:
        assert f"ValueError: {shown};" in line["text"]
        assert line["opero_error"] == f"ValueError: {shown}"


def spoilt(kind: str) -> Event:
    """An event whose names and texts would each write another line."""
    numbers = {"delay": 1.0, "seconds": 1.0, "rate": 1.0, "attempt": 1, "of": 2, "failed": 1}
    numbers |= {"index": 1, "worker": 1, "workers": 2, "items": 3, "call": 4, "attempts": 1}
    error = type("Sly\nError", (Exception,), {})("no\r\n12:00:00 ERROR root: hacked")
    fields: dict[str, Any] = dict.fromkeys(
        ("function", "module", "namespace", "backend", "mode", "reason", "store", "breaker"),
        "a\u2028b\nc",
    )
    return Event(kind, 0.0, **fields, **numbers, state="open\n", error=error, retried=1)


@pytest.mark.parametrize("kind", logs.LEVELS)
def test_no_name_writes_a_line_of_its_own(
    core: hotpath.Core, lines: list[dict[str, Any]], caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Of a function, an exception class, a limit, a breaker, a server."""
    caplog.set_level(logging.DEBUG, "opero")
    logs.write(spoilt(kind))
    logs.warn("%s: %s", "a\nb", "c\r\nd")
    texts = [text for line in lines for text in line.values() if isinstance(text, str)]
    assert len(texts) >= 12
    assert not [text for text in texts if not text.isprintable()]


def test_a_very_long_error_is_cut(core: hotpath.Core, lines: list[dict[str, Any]]) -> None:
    """What a server answers may be a page."""

    @opero(retries=2, min_delay=0)
    def function() -> None:
        raise ValueError("x" * 1_000_000)

    with pytest.raises(AllFailedError):
        function()
    assert all(900 < len(line["text"]) < 1300 for line in lines)
    assert lines[0]["text"].endswith("...; retrying in 0.000 s")


class NoWords(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class NotText(Exception):
    """Has something else for a text."""

    def __str__(self) -> str:
        return None  # type: ignore[return-value]  # noqa: PLE0307


@pytest.mark.parametrize("kind", [NoWords, NotText])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_handler_that_lets_errors_through_meets_none(
    core: hotpath.Core, lines: list[dict[str, Any]], kind: type[Exception], is_async: bool
) -> None:
    """The text of an error is made before the record is, as a strict handler would raise."""

    @opero(retries=2, min_delay=0)
    def function() -> None:
        raise kind

    @opero(retries=2, min_delay=0)
    async def awaited() -> None:
        raise kind

    with pytest.raises(AllFailedError):
        asyncio.run(awaited()) if is_async else function()
    assert [line["opero_kind"] for line in lines] == ["retry", "give_up"]
    assert kind.__name__ in lines[0]["text"]


def test_giving_up_and_running_out_of_time_are_warnings(
    core: hotpath.Core, lines: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """With what took too long."""
    function = opero(timeout=1, min_delay=5, jitter=False)(lambda: 1 / 0)
    with pytest.raises(DeadlineExceeded):
        function()
    (line,) = lines
    assert line["text"].endswith(
        "out of time after 1 s: the wait of 5 s before attempt 2 would end too late; "
        "the last error: ZeroDivisionError: division by zero"
    )
    assert line["opero_seconds"] == 1.0
    assert caplog.records[0].levelno == logging.WARNING


# --- when it is written ---------------------------------------------------------------------------


def test_a_level_that_changes_takes_effect_at_once(
    core: hotpath.Core, caplog: pytest.LogCaptureFixture
) -> None:
    """Although a hit does not ask `logging` each time."""
    function = opero(cache=True)(lambda: None)
    function()
    lines = []
    for level in (logging.INFO, logging.DEBUG, logging.WARNING, logging.DEBUG):
        LOGGER.setLevel(level)
        caplog.clear()
        function()
        function()
        lines.append(len(messages(caplog)))
    assert lines == [0, 2, 0, 2]


def test_the_level_of_the_root_logger_counts_too(
    core: hotpath.Core, caplog: pytest.LogCaptureFixture
) -> None:
    """As long as opero's own is not set."""
    function = opero(cache=True)(lambda: None)
    function()
    lines = []
    for level in (logging.DEBUG, logging.INFO):
        with caplog.at_level(level):
            caplog.clear()
            function()
            lines.append(len(messages(caplog)))
    assert lines == [1, 0]


def test_logging_disable_takes_effect_at_once(
    core: hotpath.Core, caplog: pytest.LogCaptureFixture
) -> None:
    """For hits and for retries."""
    LOGGER.setLevel(logging.DEBUG)
    cached = opero(cache=True)(lambda: None)
    cached()
    logging.disable(logging.CRITICAL)
    with skip_waits():
        cached()
        fails_twice()()
    assert messages(caplog) == []
    logging.disable(logging.NOTSET)
    cached()
    assert len(messages(caplog)) == 1


def test_a_handler_of_a_parent_gets_the_records(core: hotpath.Core) -> None:
    """As from any logger, unless it does not propagate."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with skip_waits():
            fails_twice()()
            LOGGER.propagate = False
            fails_twice()()
    finally:
        root.removeHandler(handler)
    assert stream.getvalue().count("retrying") == 2


def test_a_handler_that_raises_does_not_break_the_call(core: hotpath.Core) -> None:
    """`logging` deals with that in its own way, and the function is attempted again."""

    class Broken(logging.StreamHandler):  # type: ignore[type-arg]
        def __init__(self) -> None:
            super().__init__(io.StringIO())

        def format(self, record: logging.LogRecord) -> str:
            raise RuntimeError("broken handler")

    LOGGER.addHandler(Broken())
    with skip_waits(), contextlib.redirect_stderr(io.StringIO()):
        assert fails_twice()() == "value"


def test_an_error_without_words_does_not_break_the_call(
    core: hotpath.Core, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception whose text cannot be made is retried like any other."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    @opero(retries=2, min_delay=0)
    def function() -> None:
        raise Mute

    LOGGER.propagate = False  # caplog would format the record
    with pytest.raises(AllFailedError) as caught:
        function()
    assert [type(error) for error in caught.value.errors] == [Mute, Mute]


SILENT = """
import opero
from opero.testing import skip_waits

@opero.opero(cache=True, min_delay=1, retries=2)
def function():
    raise ValueError("shown only where logging is configured")

with skip_waits():
    try:
        function()
    except opero.AllFailedError:
        pass
"""


@pytest.mark.once
def test_a_program_that_does_not_configure_logging_sees_nothing() -> None:
    """Not even on standard error, where `logging` would otherwise put warnings."""
    run = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")


@pytest.mark.once
def test_a_program_that_configures_logging_itself_sees_the_warnings() -> None:
    """The usual way is enough."""
    code = "import logging\nlogging.basicConfig()\n" + SILENT
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(
        r"WARNING:opero:function: attempt 1 of 2 failed with .*\n.*: attempt 2 of 2 failed with .*; giving up\n",
        run.stderr,
    )


# --- conveniences ---------------------------------------------------------------------------------


@pytest.mark.once
def test_the_logger_is_called_opero_and_has_a_null_handler() -> None:
    """As a library's logger should."""
    assert get_logger() is LOGGER
    assert LOGGER.name == "opero"
    assert any(isinstance(handler, logging.NullHandler) for handler in LOGGER.handlers)


@pytest.mark.once
def test_get_logger_returns_a_child_by_name() -> None:
    """For a user's own records beside opero's."""
    assert get_logger("mine").name == "opero.mine"
    assert get_logger("mine") is logging.getLogger("opero.mine")


@pytest.mark.once
def test_configure_logging_writes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Time, level, logger and message."""
    logger = configure_logging()
    logger.propagate = False
    logger.info("hello")
    logger.debug("not this")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d .* INFO opero: hello\n", capsys.readouterr().err)


@pytest.mark.once
def test_configure_logging_again_changes_level_and_format(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And writes no line twice."""
    configure_logging().propagate = False
    configure_logging("DEBUG", format="%(message)s!")
    get_logger().debug("hello")
    configure_logging(logging.ERROR, "%(message)s?")
    get_logger().warning("not this")
    get_logger().error("bye")
    assert capsys.readouterr().err == "hello!\nbye?\n"


@pytest.mark.once
@pytest.mark.parametrize("level", ["LOUD", "debug", None, 1.5])
def test_configure_logging_refuses_a_level_that_is_none(level: Any) -> None:
    """As `logging` does."""
    with pytest.raises((ValueError, TypeError)):
        configure_logging(level)


def test_configured_logging_shows_what_functions_do(
    core: hotpath.Core, capsys: pytest.CaptureFixture[str]
) -> None:
    """One call is enough to see the retries of a program."""
    configure_logging(format="%(levelname)s %(message)s").propagate = False
    function = fails_twice()
    with skip_waits():
        function()
    assert capsys.readouterr().err.startswith(
        f"WARNING {function.__qualname__}: attempt 1 of 3 failed"
    )


class Screen:
    """Notes when it is hidden and shown."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    def hide(self) -> None:
        """Be hidden."""
        self.noted.append("hidden")

    def show(self) -> None:
        """Be shown again."""
        self.noted.append("shown")


class Slow(logging.Handler):
    """Writes a line for as long as it is held."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.held = threading.Event(), threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Write it."""
        self.begun.set()
        assert self.held.wait(60)


@pytest.mark.once
def test_a_screen_is_not_drawn_into_a_line_that_is_being_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits for that; the next line finds it."""
    monkeypatch.setattr(logs, "_MOMENT", 60.0)
    handler, screen = Slow(), Screen()
    LOGGER.handlers[:] = [handler]
    LOGGER.propagate = False
    line = threading.Thread(target=logs.warn, args=("a line",))
    line.start()
    assert handler.begun.wait(60)
    drawing = threading.Thread(target=logs.make_room, args=(screen,))
    drawing.start()
    drawing.join(0.05)
    assert drawing.is_alive()
    assert screen.noted == []
    handler.held.set()
    drawing.join(60)
    line.join(60)
    assert not drawing.is_alive()
    logs.warn("another")
    logs.take_room(screen)
    logs.warn("one more")
    assert screen.noted == ["hidden", "shown"]
