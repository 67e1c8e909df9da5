"""What a limit or a breaker asks its server, while that fails and when it is back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from crowd import until

from opero.clients.redis import Script
from opero.limits.redis_contact import RedisContact

pytestmark = [pytest.mark.once, pytest.mark.redis]

ONE = Script("return 1")
PING = "run", "PING"
SCRIPT = "script", ONE, [], []


@pytest.fixture(params=["threads", "tasks"])
def ask(request: pytest.FixtureRequest) -> Any:
    """Ask in a thread, or in a task."""
    if request.param == "threads":
        return RedisContact.ask
    return lambda contact, *what: asyncio.run(contact.ask_async(*what))


@pytest.mark.parametrize("fails", [PING, SCRIPT])
@pytest.mark.parametrize("then", [PING, SCRIPT])
def test_whatever_fails_first_and_whatever_is_asked_then_it_is_back(ask, own_server, fails, then):
    """A request that only changes something recovers without another one that reads."""
    contact = RedisContact(own_server.url, "the limit 'x'", "calls go on")
    assert ask(contact, *fails)
    own_server.stop()
    assert ask(contact, *fails) is None
    assert contact.blocks()
    assert ask(contact, *then) is None
    own_server.start()
    until(lambda: ask(contact, *then))
    assert not contact.blocks()
