"""Directories and key files that others own, could write to or could read are refused."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from opero import private_places
from opero.exceptions import OperoError, UnsafePlaceError
from opero.private_places import UnusablePlaceError
from opero.stores import directories, secret
from opero.stores.directories import ENTRIES, cache_dir
from opero.stores.secret import read_key_file, secrets_of

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs user ids"),
]

STRANGER = 12345


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory of ours, whatever the umask was."""
    path = tmp_path / "place"
    path.mkdir()
    path.chmod(0o700)
    return path


@pytest.fixture(autouse=True)
def common_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups have more members than one, also where each user has a group of their own."""
    monkeypatch.setattr(grp, "getgrgid", {}.__getitem__)


@pytest.fixture
def config(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory in which the key file is made."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.setenv("HOME", str(place))
    return directories.user_config_directory()


@pytest.fixture(params=[0o022, 0, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a path belong to somebody else, or seem to."""
    if os.geteuid() == 0:
        os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
        return
    real = Path.lstat
    its = path.lstat()

    def lstat(self: Path) -> os.stat_result:
        return seen(real(self))

    def seen(found: os.stat_result) -> os.stat_result:
        if not os.path.samestat(found, its):
            return found
        fields = list(found)
        fields[stat.ST_UID] = STRANGER
        return os.stat_result(fields)

    fstat = os.fstat
    monkeypatch.setattr(Path, "lstat", lstat)
    monkeypatch.setattr(os, "fstat", lambda descriptor: seen(fstat(descriptor)))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def refused(path: Path, kind: type[Exception] = UnsafePlaceError) -> str:
    """Return why a cache directory is refused."""
    with pytest.raises(kind) as caught:
        cache_dir(path)
    text = str(caught.value)
    assert str(path) in text
    assert "cache_dir=" in text or "chmod" in text
    return text


def unusable(path: Path) -> str:
    """Return why a cache directory is of no use, though not unsafe."""
    return refused(path, UnusablePlaceError)


# Cache directories.


def test_the_default_directory_is_made_for_us_alone(config: Path, umask: int) -> None:
    entries = cache_dir(None)
    assert entries == directories.user_cache_directory() / ENTRIES
    assert mode(entries) == mode(entries.parent) == 0o700
    assert entries.parent.name == "opero"
    (entries / "file").touch()
    assert cache_dir(None) == entries


def test_a_chosen_directory_is_made_with_all_its_parents(place: Path, umask: int) -> None:
    entries = cache_dir(place / "a" / "b")
    assert entries == place / "a" / "b" / ENTRIES
    for path in (entries, place / "a" / "b", place / "a"):
        assert mode(path) == 0o700


def test_a_directory_that_others_may_read_is_used_and_the_entries_in_it_are_private(
    place: Path,
) -> None:
    place.chmod(0o755)
    entries = cache_dir(str(place))
    assert mode(place) == 0o755
    assert mode(entries) == 0o700


def test_a_relative_directory_and_one_of_the_users_home_are_found(
    place: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    assert cache_dir("a/../b/./c") == place / "b" / "c" / ENTRIES
    assert cache_dir("~/d") == place / "d" / ENTRIES
    assert cache_dir(".") == place / ENTRIES


def test_a_directory_of_somebody_else_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_away(place, monkeypatch)
    assert f"belongs to user {STRANGER}" in refused(place)


class Users:
    """The users and groups of a machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.users = {
            user: pwd.struct_passwd((name, "x", user, group, "", "/", "/bin/sh"))
            for user, name, group in [(0, "root", 0), (501, "ann", 501), (502, "bob", 502)]
        }
        self.groups = {
            group: grp.struct_group((name, "x", group, members))
            for group, name, members in [
                (0, "root", []),
                (501, "ann", []),
                (502, "bob", ["bob"]),
                (503, "staff", ["ann"]),
            ]
        }
        monkeypatch.setattr(pwd, "getpwuid", self.users.__getitem__)
        monkeypatch.setattr(pwd, "getpwall", lambda: list(self.users.values()))
        monkeypatch.setattr(grp, "getgrgid", self.groups.__getitem__)

    def add(self, user: int, name: str, group: int) -> None:
        self.users[user] = pwd.struct_passwd((name, "x", user, group, "", "/", "/bin/sh"))

    def join(self, group: int, name: str) -> None:
        old = self.groups[group]
        self.groups[group] = grp.struct_group((old.gr_name, "x", group, [*old.gr_mem, name]))


def test_a_group_is_its_users_own_if_it_has_their_name_and_no_other_member(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    users = Users(monkeypatch)
    own = private_places._is_own_group
    assert [own(501, 501), own(502, 502)] == [True, True]
    assert not own(502, 501)  # of somebody else
    assert not own(503, 501)  # of all, though there is only one so far
    assert not own(0, 0)  # in a container, users without a name are in it
    assert not own(501, 999)  # of nobody that is known
    assert not own(999, 501)
    users.join(501, "bob")
    users.add(503, "eve", 502)  # it is her first group
    assert [own(501, 501), own(502, 502)] == [False, False]


def test_a_directory_that_the_users_own_group_may_write_to_is_used(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(private_places, "_is_own_group", lambda *ids: not asked.append(ids))
    place.chmod(0o775)
    (place / "a").mkdir()
    (place / "a").chmod(0o2775)
    assert mode(cache_dir(place / "a")) & 0o777 == 0o700
    assert {*asked} == {(place.stat().st_gid, os.geteuid())}
    place.chmod(0o777)
    assert "by everyone" in refused(place / "a")


def test_directories_of_ours_that_were_left_half_made_heal(place: Path) -> None:
    entries = cache_dir(place)
    for bits in (0o000, 0o100, 0o500, 0o400):
        entries.chmod(bits)
        assert cache_dir(place) == entries
        assert mode(entries) == 0o700


@pytest.mark.parametrize("bits", [0o770, 0o720, 0o702, 0o777, 0o1777])
def test_a_directory_that_others_may_write_to_is_refused(place: Path, bits: int) -> None:
    place.chmod(bits)
    assert f"mode {bits:04o}" in refused(place)
    assert not (place / ENTRIES).exists()


def test_an_ancestor_that_others_may_write_to_is_refused_unless_it_is_sticky(place: Path) -> None:
    inner = place / "a" / "b"
    cache_dir(inner)
    place.chmod(0o777)
    assert f"{place} is writable by everyone" in refused(inner)
    place.chmod(0o770)
    assert "by its group" in refused(inner)
    place.chmod(0o1777)
    assert cache_dir(inner) == inner / ENTRIES


def test_an_ancestor_of_somebody_else_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = place / "a" / "b"
    cache_dir(inner)
    give_away(place / "a", monkeypatch)
    assert f"{place / 'a'} belongs to user {STRANGER}" in refused(inner)
    assert cache_dir(place / "c")


def test_a_link_of_ours_is_followed_and_what_it_leads_over_is_checked(place: Path) -> None:
    real = place / "real" / "deep"
    real.mkdir(parents=True)
    link = place / "link"
    link.symlink_to("real/./deep/../deep")
    assert cache_dir(link) == real / ENTRIES
    assert cache_dir(link / "more") == real / "more" / ENTRIES
    absolute = place / "absolute"
    absolute.symlink_to(real)
    assert cache_dir(absolute / ".." / "beside") == place / "real" / "beside" / ENTRIES
    real.parent.chmod(0o777)
    assert f"{real.parent} is writable by" in refused(link)


def test_a_link_of_somebody_else_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = place / "real"
    real.mkdir()
    link = place / "link"
    link.symlink_to(real)
    give_away(link, monkeypatch)
    assert f"is a symbolic link and belongs to user {STRANGER}" in refused(link)
    assert f"is a symbolic link and belongs to user {STRANGER}" in refused(link / "below")


def test_a_circle_of_links_is_of_no_use(place: Path) -> None:
    (place / "one").symlink_to("two")
    (place / "two").symlink_to("one")
    assert "loop of symbolic links" in unusable(place / "one")


def test_a_file_in_the_place_of_a_directory_is_of_no_use(place: Path) -> None:
    (place / "file").touch()
    assert "is not a directory" in unusable(place / "file")
    assert "is not a directory" in unusable(place / "file" / "below")
    (place / ENTRIES).touch()
    assert "is not a directory" in unusable(place)


@pytest.mark.parametrize("bits", [0o750, 0o701, 0o777])
def test_a_directory_of_entries_that_is_open_to_others_is_refused(place: Path, bits: int) -> None:
    cache_dir(place).chmod(bits)
    assert f"chmod 700 {place / ENTRIES}" in refused(place)
    (place / ENTRIES).chmod(0o700)
    assert cache_dir(place)


def test_a_link_or_strangers_directory_in_the_place_of_the_entries_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    entries = place / ENTRIES
    entries.symlink_to(elsewhere)
    assert "is not a directory" in unusable(place)
    entries.unlink()
    entries.mkdir(0o700)
    give_away(entries, monkeypatch)
    assert f"belongs to user {STRANGER}" in refused(place)


def test_what_is_no_path_is_refused() -> None:
    for wrong in ("", "a\0b"):
        with pytest.raises(ValueError, match="cache_dir="):
            cache_dir(wrong)
    with pytest.raises(TypeError, match="cache_dir="):
        cache_dir(
            os.fsdecode,
        )  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        cache_dir(7)  # type: ignore[arg-type]


def test_a_directory_that_cannot_be_made_is_no_question_of_safety(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mkdir(self: Path, mode: int = 0o777) -> None:
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(OSError, match="Read-only") as caught:
        cache_dir(place / "new")
    assert not isinstance(caught.value, OperoError)


def test_processes_that_make_a_directory_at_once_all_get_it(place: Path) -> None:
    paths = [place / str(turn) / "b" / "c" for turn in range(5)]
    assert at_once("cache_dir", *paths) == [[str(path / ENTRIES)] * 8 for path in paths]


def test_without_user_ids_a_directory_is_made_all_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "geteuid")
    place.chmod(0o777)
    assert cache_dir(place / "a" / "b") == place / "a" / "b" / ENTRIES
    assert len(read_key_file(place / "config")) == 32


def test_an_unsafe_place_is_an_error_of_opero_and_of_a_value() -> None:
    assert issubclass(UnsafePlaceError, OperoError)
    assert issubclass(UnsafePlaceError, ValueError)


# The key file.


def unusable_key(directory: Path) -> str:
    """Return why a key file is of no use, though not unsafe."""
    return refused_key(directory, UnusablePlaceError)


def refused_key(directory: Path, kind: type[Exception] = UnsafePlaceError) -> str:
    """Return why a key file is refused."""
    with pytest.raises(kind) as caught:
        read_key_file(directory)
    text = str(caught.value)
    assert str(directory) in text
    assert "OPERO_CACHE_SECRET" in text
    return text


def test_the_key_file_is_made_once_and_for_us_alone(config: Path, umask: int) -> None:
    (made,) = secrets_of(None, {})
    path = config / "cache.key"
    assert len(made) == 32
    assert path.read_bytes() == made
    assert mode(path) == 0o600
    assert mode(config) == 0o700
    assert path.lstat().st_nlink == 1
    assert os.listdir(config) == ["cache.key"]  # noqa: PTH208
    assert secrets_of(None, {}) == [made]


def test_the_key_file_is_outside_of_the_entries(config: Path) -> None:
    secrets_of(None, {})
    assert config / "cache.key" != cache_dir(None)
    assert cache_dir(None) not in (config / "cache.key").parents


def test_two_users_have_two_keys(place: Path) -> None:
    assert read_key_file(place / "one") != read_key_file(place / "two")


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602, 0o610, 0o666])
def test_a_key_file_that_others_may_read_or_write_is_refused(place: Path, bits: int) -> None:
    read_key_file(place)
    (place / "cache.key").chmod(bits)
    assert f"mode {bits:04o}" in refused_key(place)


@pytest.mark.parametrize("size", [0, 1, 31, 33, 1000])
def test_a_key_file_of_another_size_is_of_no_use(place: Path, size: int) -> None:
    path = place / "cache.key"
    path.write_bytes(b"x" * size)
    path.chmod(0o600)
    assert "32 bytes" in unusable_key(place)
    path.unlink()
    assert len(read_key_file(place)) == 32


def test_a_key_file_of_somebody_else_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_key_file(place)
    give_away(place / "cache.key", monkeypatch)
    assert f"belongs to user {STRANGER}" in refused_key(place)


def test_a_directory_or_fifo_or_socket_in_the_place_of_the_key_file_is_of_no_use(
    place: Path,
) -> None:
    path = place / "cache.key"
    path.mkdir(0o700)
    assert "not a regular file" in unusable_key(place)
    path.rmdir()
    os.mkfifo(path, 0o600)
    assert "not a regular file" in unusable_key(place)  # and it does not wait for a writer
    path.unlink()


@pytest.mark.parametrize("target", ["real", "missing", "cache.key"])
def test_a_link_in_the_place_of_the_key_file_is_of_no_use(place: Path, target: str) -> None:
    (place / "real").write_bytes(b"x" * 32)
    (place / "real").chmod(0o600)
    (place / "cache.key").symlink_to(target)
    assert "symbolic link" in unusable_key(place)
    assert not (place / "missing").exists()


def test_a_key_file_with_a_second_name_is_refused(place: Path) -> None:
    read_key_file(place)
    os.link(place / "cache.key", place / "copy")
    assert "hard link" in refused_key(place)


def test_the_draft_of_a_process_that_died_is_tidied_away(place: Path) -> None:
    made = read_key_file(place)
    os.link(place / "cache.key", place / ".cache.key.0123456789abcdef")
    (place / ".cache.key.of-another").touch()
    assert read_key_file(place) == made
    assert sorted(os.listdir(place)) == [".cache.key.of-another", "cache.key"]  # noqa: PTH208


def test_a_directory_of_the_key_file_that_others_may_write_to_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.chmod(0o777)
    assert "mode 0777" in refused_key(place)
    assert "mode 0777" in refused_key(place / "below")
    place.chmod(0o700)
    give_away(place, monkeypatch)
    assert f"belongs to user {STRANGER}" in refused_key(place)


def test_a_key_file_that_cannot_be_made_says_what_to_do(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assert "Operation not permitted" in unusable_key(place)
    assert os.listdir(place) == []  # noqa: PTH208


def test_a_disk_that_is_full_leaves_no_half_key(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", lambda descriptor, data: 5)
    assert "No space left" in unusable_key(place)
    assert os.listdir(place) == []  # noqa: PTH208


def test_processes_that_make_the_key_file_at_once_all_read_the_same(place: Path) -> None:
    paths = [place / str(turn) / "config" for turn in range(10)]
    for path, keys in zip(paths, at_once("read_key_file", *paths), strict=True):
        assert keys == [str((path / "cache.key").read_bytes())] * 8
        assert os.listdir(path) == ["cache.key"]  # noqa: PTH208


def test_a_process_that_reads_while_the_draft_is_still_there_gets_the_key(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link
    read: list[bytes] = []

    def link(draft: Path, path: Path) -> None:
        real(draft, path)
        assert path.lstat().st_nlink == 2
        read.append(read_key_file(place))

    monkeypatch.setattr(os, "link", link)
    assert [read_key_file(place)] == read


def test_a_process_that_is_slower_takes_the_key_of_the_faster_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link
    first: list[bytes] = []

    def link(draft: Path, path: Path) -> None:
        monkeypatch.setattr(os, "link", real)
        first.append(read_key_file(place))
        real(draft, path)

    monkeypatch.setattr(os, "link", link)
    assert [read_key_file(place)] == first


def test_without_platformdirs_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    for ask in (lambda: cache_dir(None), lambda: secrets_of(None, {})):
        with pytest.raises(ImportError, match=r"pip install 'platformdirs"):
            ask()
    assert secrets_of(None, {secret.VARIABLE: "x" * 16}) == [b"x" * 16]


def test_nothing_of_this_is_imported_with_opero() -> None:
    code = "import sys, opero; print([name for name in sys.modules if 'opero.stores' in name])"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPERO_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=kept, check=True
    )
    assert done.stdout.strip() == "[]"


ONE_OF_MANY = """
import sys, time
from pathlib import Path
from opero.stores.directories import cache_dir
from opero.stores.secret import read_key_file
print("ready", flush=True)
for line in sys.stdin:
    moment, name, path = line.rstrip("\\n").split(" ", 2)
    while time.monotonic() < float(moment):
        pass
    try:
        print({"cache_dir": cache_dir, "read_key_file": read_key_file}[name](Path(path)), flush=True)
    except Exception as error:
        print(repr(error), flush=True)
"""


def at_once(what: str, *paths: Path) -> list[list[str]]:
    """Call a function of each path in eight processes at the same moment."""
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_MANY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    try:
        answers = [[line(process) for process in crowd]]
        for path in paths:
            moment = time.monotonic() + 0.02
            for process in crowd:
                assert process.stdin is not None
                process.stdin.write(f"{moment} {what} {path}\n")
                process.stdin.flush()
            answers.append([line(process) for process in crowd])
    finally:
        for process in crowd:
            process.communicate(timeout=30)
    return answers[1:]


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
