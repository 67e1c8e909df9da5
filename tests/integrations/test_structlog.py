"""structlog: the real library, with the entries that it would print."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import structlog as library
from structlog.testing import capture_logs

from opero import AllFailedError, events, hotpath, opero, opmap
from opero.clients.outages import Outage
from opero.integrations import structlog
from opero.testing import skip_waits


@pytest.fixture(autouse=True)
def nobody_listens_afterwards() -> Any:
    """Leave no listener behind, nor a line diverted."""
    from opero import logs

    yield
    assert events._listeners == {}
    assert logs._diverted == []


def failing() -> None:
    raise ConnectionError("no\nroute")


def test_what_goes_wrong_is_an_entry(core: hotpath.Core, caplog: Any) -> None:
    """With its level and the fields that say something, and no line in the log besides."""
    end = structlog.instrument()
    try:
        with skip_waits(), capture_logs() as entries, pytest.raises(AllFailedError):
            opero(retries=2, min_delay=1, jitter=False)(failing)()
    finally:
        end()
    retry, give_up = entries
    call = retry.pop("call")
    assert retry == {
        "event": "opero.retry",
        "log_level": "warning",
        "function": "failing",
        "module": __name__,
        "mode": "sync",
        "attempt": 1,
        "of": 2,
        "delay": 1.0,
        "error": "ConnectionError: no\\nroute",
    }
    assert (give_up["event"], give_up["call"]) == ("opero.give_up", call)
    assert caplog.records == []


def test_afterwards_lines_go_to_the_log_again(core: hotpath.Core, caplog: Any) -> None:
    """It can be ended twice; who began twice ends both."""
    ends = [structlog.instrument(), structlog.instrument()]
    ends[0]()
    ends[0]()
    function = opero(retries=1 + 1, min_delay=0)(failing)
    with capture_logs() as entries, pytest.raises(AllFailedError):
        function()
    assert (len(entries), len(caplog.records)) == (2, 0)
    ends[1]()
    with capture_logs() as entries, pytest.raises(AllFailedError):
        function()
    assert (len(entries), len(caplog.records)) == (0, 2)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (logging.DEBUG, ["hit", "map_start", "map_end", "store_down", "store_up"]),
        (logging.INFO, ["store_down", "store_up"]),
        (logging.WARNING, ["store_down"]),
    ],
)
def test_a_level_leaves_out_what_is_below(
    core: hotpath.Core, level: int, expected: list[str]
) -> None:
    """Hits are listened to only if they are wanted."""
    end = structlog.instrument(level=level)
    try:
        assert ("hit" in events._listeners) == (level == logging.DEBUG)
        with capture_logs() as entries:
            cached = opero(cache=True)(lambda: 1)
            cached()
            cached()
            opmap(mode="thread", workers=1)(abs)([1])
            outage = Outage("the test cache")
            outage.leave(outage.enter(), error=OSError())
            outage.leave(0)
    finally:
        end()
    assert [entry["event"] for entry in entries] == [f"opero.{kind}" for kind in expected]


def test_a_logger_of_ones_own_is_used(core: hotpath.Core) -> None:
    """With what is bound to it."""
    with capture_logs() as entries:
        end = structlog.instrument(library.get_logger().bind(service="shop"))
        with pytest.raises(AllFailedError):
            opero(retries=2, min_delay=0)(failing)()
        end()
    assert {entry["service"] for entry in entries} == {"shop"}
