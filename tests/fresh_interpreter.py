"""Scripts that a test runs in an interpreter of their own."""

from __future__ import annotations

import subprocess
import sys


def printed_by(script: str, *arguments: object) -> str:
    """Run a script with warnings as errors, and return what it prints; it must succeed quietly."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout
