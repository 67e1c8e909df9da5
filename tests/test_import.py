"""What `import opero` does, and what it leaves for later."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata

import pytest

import opero

pytestmark = pytest.mark.once

HEAVY = ("asyncio", "uvloop", "tqdm", "cloudpickle", "diskcache", "platformdirs", "redis")


def imported_by(statement: str, **environ: str) -> set[str]:
    """Return the names of all modules that a fresh interpreter has after `statement`."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout))


def test_import_opero_leaves_heavy_modules_alone() -> None:
    """Who only decorates a function pays for none of the modules that other parts need."""
    loaded = imported_by("import opero")
    assert "opero.hotpath" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_a_plain_import_leaves_heavy_modules_alone_too() -> None:
    """The plain half is no heavier."""
    loaded = imported_by("import opero", OPERO_PURE_PYTHON="1", OPERO_REQUIRE_COMPILED="0")
    assert loaded.isdisjoint(HEAVY)
    assert not [name for name in loaded if name.startswith("opero._compiled.")]


def test_decorating_a_plain_function_imports_no_event_loop() -> None:
    """A program without coroutines never loads asyncio because of opero, even when it calls."""
    loaded = imported_by(
        "import opero\n"
        "@opero.opero(cache=True, rate_limit=1000.0, retries=2)\n"
        "def double(x): return 2 * x\n"
        "assert double(21) == double(21) == 42"
    )
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_a_map_of_a_plain_function_imports_no_event_loop(mode: str) -> None:
    """Not even one in processes, which have none either."""
    loaded = imported_by(
        "import opero, operator\n"
        f"index = opero.opmap(mode={mode!r}, workers=1, progress=False)(operator.index)\n"
        "assert index([21, 42]) == [21, 42]"
    )
    assert loaded.isdisjoint(HEAVY)


def test_the_version_is_that_of_the_installed_distribution() -> None:
    """`opero.__version__` and the metadata agree."""
    assert metadata.version("opero") == opero.__version__
