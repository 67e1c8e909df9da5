"""What all integrations need: functions of other tests, which bear the same names, do not count."""

from __future__ import annotations

import gc

import pytest

from opero import roster


@pytest.fixture(autouse=True)
def functions_of_other_tests_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some live on until the garbage collector finds them."""
    gc.collect()
    monkeypatch.setattr(roster, "_living", {})
