"""What all tests of stores need."""

from __future__ import annotations

import pytest

from opero import hotpath


@pytest.fixture(autouse=True)
def the_time_that_others_have(core: hotpath.Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what earlier tests have added to the clock: entries say when they were made."""
    monkeypatch.setattr(core.clock, "offset", 0)
