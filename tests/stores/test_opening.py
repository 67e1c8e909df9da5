"""A cache whose place cannot be used is off, with one warning; only an unsafe place is refused."""

from __future__ import annotations

import asyncio
import logging
import os
import pwd

import pytest

from opero import clear_cache, get_cache_context, get_cache_decorator, opero, opmap
from opero.exceptions import OperoError, UnsafePlaceError
from opero.stores import opening


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of this test's own, and nothing told yet."""
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "OPERO_CACHE_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(opening, "_reasons", set())
    monkeypatch.setattr(opening, "_stores", {})
    return tmp_path


def no_home(home, monkeypatch):
    """As in a container whose user is in no list of users."""

    def nobody(*_):
        raise KeyError("no such user")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(pwd, "getpwnam", nobody)
    monkeypatch.chdir(home)
    return {}


def home_is_no_directory(home, monkeypatch):
    """As of users who are not to log in."""
    monkeypatch.setenv("HOME", os.devnull)
    return {}


def home_cannot_be_made(home, monkeypatch):
    """Nor anything below it."""
    monkeypatch.setenv("HOME", "/proc/nowhere")
    return {}


def file_instead(home, monkeypatch):
    """A file where the directory should be."""
    (home / "file").touch()
    return {"cache_dir": home / "file", "cache_secret": "0123456789abcdef"}


def damaged_key(home, monkeypatch):
    """Half a key, written by something else."""
    place = home / ".config" / "opero"
    place.mkdir(parents=True, mode=0o700)
    (place / "cache.key").write_bytes(b"half")
    (place / "cache.key").chmod(0o600)
    return {"cache_dir": home / "cache"}


def link_for_a_key(home, monkeypatch):
    """A link that opero does not follow."""
    place = home / ".config" / "opero"
    place.mkdir(parents=True, mode=0o700)
    (place / "cache.key").symlink_to("elsewhere")
    return {"cache_dir": home / "cache"}


def home_of_nobody(home, monkeypatch):
    """A user that this machine does not know."""
    return {"cache_dir": "~no-such-user-here/cache", "cache_secret": "0123456789abcdef"}


UNUSABLE = [
    no_home,
    home_is_no_directory,
    home_cannot_be_made,
    file_instead,
    damaged_key,
    link_for_a_key,
    home_of_nobody,
]


def warnings_of(caplog):
    """Return the messages of all warnings."""
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize("case", UNUSABLE)
def test_without_a_usable_place_the_function_runs_each_time(case, home, monkeypatch, caplog):
    """Decorated, called, cleared and asked: nothing is raised, and one warning says why."""
    options = case(home, monkeypatch)
    runs = []

    @opero(cache=True, cache_backend="disk", cache_namespace="mine", retries=1, **options)
    def double(x):
        runs.append(x)
        return 2 * x

    @get_cache_decorator(cache_backend="disk", cache_namespace="mine", **options)
    async def triple(x):
        runs.append(x)
        return 3 * x

    assert [double(1), double(1), double(2)] == [2, 2, 4]

    async def main():
        return [await triple(1), await triple(1)]

    assert asyncio.run(main()) == [3, 3]
    assert runs == [1, 1, 2, 1, 1]
    assert double.cache_info().hits == 0
    assert double.cache_info().currsize == 0
    assert double.cache_invalidate(1) is False
    double.cache_clear()
    clear_cache()
    told = warnings_of(caplog)
    assert len(told) == 1, told
    assert "the cache is off, and calls go on without it" in told[0]
    assert not (home / "~").exists()


def test_the_warning_waits_until_logging_is_set_up(home, monkeypatch, caplog):
    """Functions are decorated before `main` sets up logging, and nobody hears a warning then."""
    options = damaged_key(home, monkeypatch)
    root = logging.getLogger()
    handlers = root.handlers
    monkeypatch.setattr(root, "handlers", [])

    @opero(cache=True, cache_backend="disk", retries=1, **options)
    def double(x):
        return 2 * x

    @opmap(mode="thread", progress=False, retries=1, cache=True, cache_backend="disk", **options)
    def square(x):
        return x * x

    assert double(1) == 2
    assert not warnings_of(caplog)
    monkeypatch.setattr(root, "handlers", handlers)
    assert square([1, 2]) == [1, 4]
    assert double(1) == 2
    (told,) = warnings_of(caplog)
    assert "the cache is off" in told


@pytest.mark.parametrize("case", UNUSABLE)
def test_maps_and_caches_by_hand_go_on_as_well(case, home, monkeypatch, caplog):
    """What is put by hand is not there afterwards."""
    options = case(home, monkeypatch)
    given = {"cache": True, "cache_backend": "disk", "cache_namespace": "mine", **options}
    square = opmap(mode="thread", progress=False, retries=1, **given)(lambda x: x * x)
    assert square([1, 2, 3, 1]) == [1, 4, 9, 1]
    with get_cache_context("disk", "by hand", **options) as context:
        context.set("a", 1)
        assert context.get("a", "nothing") == "nothing"
        assert len(context) == 0
        assert context.delete("a") is False
        context.clear()
    assert len(warnings_of(caplog)) == 1


@pytest.mark.parametrize("case", [no_home, home_is_no_directory, damaged_key])
def test_a_redis_without_a_secret_is_off_too(case, home, monkeypatch, caplog):
    """The server is not even asked."""
    case(home, monkeypatch)

    @opero(cache=True, cache_backend="redis", cache_url="redis://127.0.0.1:1/0", retries=1)
    def double(x):
        return 2 * x

    assert [double(1), double(1)] == [2, 2]
    (told,) = warnings_of(caplog)
    assert "cache_secret=" in told
    assert "cache_dir=" not in told  # Redis does not take it


def test_two_reasons_are_two_warnings(home, monkeypatch, caplog):
    """A second function with the first reason adds none."""
    options = file_instead(home, monkeypatch)
    for _ in range(3):
        get_cache_decorator(cache_backend="disk", **options)(len)
    get_cache_decorator(cache_backend="disk", **home_of_nobody(home, monkeypatch))(len)
    assert len(warnings_of(caplog)) == 2


@pytest.mark.parametrize("case", ["the directory", "its parent", "the key", "the key's directory"])
def test_what_others_can_write_to_is_refused_at_decoration(case, home):
    """The cache is not turned off silently there: somebody may be waiting for that."""
    key = home / ".config" / "opero"
    key.mkdir(parents=True, mode=0o700)
    (key / "cache.key").write_bytes(b"x" * 32)
    (key / "cache.key").chmod(0o600)
    (home / "parent" / "cache").mkdir(parents=True, mode=0o700)
    {
        "the directory": home / "parent" / "cache",
        "its parent": home / "parent",
        "the key": key / "cache.key",
        "the key's directory": key,
    }[case].chmod(0o777)
    with pytest.raises(UnsafePlaceError) as caught:
        opero(cache=True, cache_backend="disk", cache_dir=home / "parent" / "cache")(len)
    assert isinstance(caught.value, (OperoError, ValueError))
