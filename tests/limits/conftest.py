"""Processes that share a limit or a breaker, and a server that a test may stop."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from redis_server import RedisServer
from sharers import Sharers


@pytest.fixture(scope="module")
def helper() -> Iterator[Sharers]:
    """A helper that forks processes."""
    if not hasattr(os, "fork"):
        pytest.skip("the helper forks")
    with Sharers() as helper:
        yield helper


@pytest.fixture
def sharers(helper: Sharers) -> Iterator[Sharers]:
    """The helper for one test."""
    yield helper
    helper.clear()


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server that a test may stop."""
    with RedisServer() as server:
        yield server
