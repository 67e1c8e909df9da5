"""`diskcache-community` in the place of diskcache, and both on one directory."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from fresh_interpreter import printed_by

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(
        importlib.util.find_spec("diskcache_community") is None,
        reason="diskcache-community is not installed",
    ),
]

SCRIPT = """
import os, sys
from pathlib import Path
hidden = sys.argv[2]
sys.modules[hidden] = None
from opero import opero
from opero.stores import database
from opero.stores.disk import DiskBackend
from opero.stores.operations import Operations

assert database.diskcache.__name__ != hidden
place = Path(sys.argv[1])
backend = Operations(DiskBackend(place, 1 << 20))
found = [name for name in ("diskcache", "diskcache_community") if backend.get(f"by:{name}")]
backend.put("app:1", b"1", 60)
assert backend.get_and_take("app:2", "me", 10) == (None, None)
assert backend.settle("app:2", "me", b"2", None)
assert backend.get_many(["app:1", "app:2", "app:3"]) == [b"1", b"2", None]
assert backend.count("app:") == 2 and backend.clear("app:") == 2
backend.put_many([(f"many:{number}", os.urandom(20_000)) for number in range(100)], None)
assert 10 < backend.count("many:") < 40
backend.clear("many:")
for name in (*found, database.diskcache.__name__):
    backend.put(f"by:{name}", b"1", None)

@opero(cache=True, cache_backend="disk", cache_dir=place / "function", retries=1)
def double(number):
    return 2 * number

assert double(1) == double(1) == 2
assert double.stats().store_failures == 0
print(*found)
"""


def run(place, hidden):
    """Run the script without one of the two packages; return who was there before."""
    return printed_by(SCRIPT, place, hidden).split()


def test_the_fork_does_all_that_diskcache_does(tmp_path):
    assert run(tmp_path / "cache", "diskcache") == []
    assert run(tmp_path / "cache", "diskcache") == ["diskcache_community"]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("diskcache") is None, reason="diskcache is not installed"
)
@pytest.mark.parametrize("first", ["diskcache", "diskcache_community"])
def test_programs_with_the_one_and_with_the_other_share_a_directory(tmp_path, first):
    second = {"diskcache": "diskcache_community", "diskcache_community": "diskcache"}[first]
    place = tmp_path / "cache"
    assert run(place, first) == []
    assert run(place, second) == [second]
    assert run(place, first) == ["diskcache", "diskcache_community"]
    assert not list(place.glob("*damaged*"))


def test_neither_of_them_is_told_with_what_to_install():
    script = """
import sys
sys.modules["diskcache"] = sys.modules["diskcache_community"] = None
try:
    import opero.stores.disk
except ImportError as error:
    print(error.name, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == (
        "diskcache a cache on disk needs the diskcache package, or its fork diskcache-community: "
        "pip install 'diskcache>=5.6.3,<6' platformdirs"
    )
