"""Where a user has no home, an odd umask or a directory that is gone, calls go on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import deployments
import pytest

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the program forks"),
]


@pytest.fixture(scope="module")
def found() -> Iterator[dict[str, Any]]:
    """What came of the program in all its surroundings."""
    place = tempfile.mkdtemp()  # where another user gets to
    os.chmod(place, 0o711)  # noqa: PTH101
    run = subprocess.run(
        [sys.executable, deployments.__file__, place],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    cases: dict[str, Any] = {}
    for line in run.stdout.splitlines():
        cases |= json.loads(line)
    yield cases
    for each in os.scandir(place):
        os.chmod(each, 0o700)  # noqa: PTH101
    shutil.rmtree(place)


@pytest.mark.parametrize("case", [each.__name__ for each in deployments.OFF])
def test_without_a_usable_place_the_cache_is_off_with_one_warning(found, case):
    """Decoration and calls go on."""
    told = found[case]
    assert "raised" not in told
    assert told["values"] == [2, 2, 4]
    assert told["runs"] == [1, 1, 2]
    (warning,) = told["told"]
    assert "calls go on without it" in warning


@pytest.mark.parametrize("case", [each.__name__ for each in deployments.ON])
def test_in_a_usable_place_values_are_kept_whatever_the_umask_is(found, case):
    """And nothing is said."""
    told = found[case]
    assert "raised" not in told
    assert told["told"] == []
    assert set(told["values"]) == {2, 4}
    assert told["runs"][:2] == [1, 2]
    if case != "parent_directories_are_deleted":
        assert told["runs"] == [1, 2]


def test_directories_that_were_deleted_are_made_again_as_they_were(found):
    """For us alone, and what was in them is run again once."""
    told = found["parent_directories_are_deleted"]
    assert told["runs"] == [1, 2, 1]
    assert told["modes"] == ["700"] * 3
