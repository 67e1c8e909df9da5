"""The examples of the pages run as they would with no more installed than they need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from opero import events, roster


@pytest.fixture(autouse=True)
def listeners_of_an_example_go_with_it() -> Iterator[None]:
    """A program that is as short as an example need not end them."""
    before = dict(events._listeners)
    yield
    events._listeners.clear()
    events._listeners.update(before)
    events._forget()


@pytest.fixture(autouse=True)
def functions_of_other_examples_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """They bear the same names."""
    monkeypatch.setattr(roster, "_living", {})


@pytest.fixture(autouse=True)
def stamina_writes_to_logging() -> Iterator[None]:
    """Stamina would print its retries by structlog, which the tests of integrations need."""
    try:
        from stamina.instrumentation import LoggingOnRetryHook, set_on_retry_hooks
    except ImportError:  # where only the installed package is tested
        yield
        return
    set_on_retry_hooks([LoggingOnRetryHook])
    yield
    set_on_retry_hooks(None)
