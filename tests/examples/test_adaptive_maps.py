"""`examples/adaptive`: real maps against a real server, for some seconds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.once, pytest.mark.checkout]

PROGRAM = Path(__file__).parents[2] / "examples" / "adaptive"


def test_maps_of_threads_and_tasks_find_out_what_a_real_server_allows():
    """Within generous bounds, as the machine may be busy and the time is short."""
    command = [sys.executable, "-W", "error", str(PROGRAM)]
    given = ["--seconds", "6", "--settled", "2", "--profile", "is constant"]
    done = subprocess.run(
        [*command, *given], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    found = re.findall(r"[|] ([0-9.]+)% [|] ([0-9.]+)% [|]", done.stdout)
    assert len(found) == 4
    for used, rejected in found:
        assert float(used) > 50
        assert float(rejected) < 20
