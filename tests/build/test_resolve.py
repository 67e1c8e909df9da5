"""Whoever can install a wheel of opero gets wheels of all that it requires: nobody needs a compiler."""

from __future__ import annotations

import zipfile
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from test_build import make_tree

pytestmark = [pytest.mark.checkout, pytest.mark.once]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module `release.resolve`, from the checkout."""
    monkeypatch.syspath_prepend(str(ROOT))
    return import_module("release.resolve")


def wheel_with(folder: Path, *requirements: str) -> Path:
    """Write a wheel for any platform with these requirements."""
    wheel = folder / "opero-1-py3-none-any.whl"
    lines = [f"Requires-Dist: {each}" for each in requirements]
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("opero-1.dist-info/METADATA", "\n".join(["Name: opero", *lines, ""]))
    return wheel


def test_targets_are_those_of_the_tags(resolve: ModuleType) -> None:
    """A compiled wheel has one; the plain one goes everywhere, also to PyPy."""
    assert resolve.targets(
        "opero-3.0.0-cp314-cp314t-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"
    ) == [("cp314t", "manylinux", "x86_64")]
    assert resolve.targets("opero-3.0.0-cp315-cp315-win_amd64.whl") == [("cp315", "win", "amd64")]
    anywhere = resolve.targets("opero-3.0.0-py3-none-any.whl")
    assert {each.python for each in anywhere} == {*resolve.PYTHONS, "pp311"}
    assert {each.system for each in anywhere} == set(resolve.SYSTEMS)


def test_a_target_takes_what_its_oldest_system_takes(resolve: ModuleType) -> None:
    """A wheel for Debian 12, whose glibc is 2.36, needs no more than 2.28."""
    options = resolve.Target("cp315", "manylinux", "x86_64").pip_options()
    assert "manylinux_2_28_x86_64" in options
    assert "manylinux_2_17_x86_64" in options
    assert "manylinux_2_29_x86_64" not in options
    assert "abi3" in options
    assert "abi3" not in resolve.Target("cp315t", "win", "amd64").pip_options()


def test_markers_are_those_of_the_target(resolve: ModuleType, tmp_path: Path) -> None:
    """Not those of the Python that runs the check; extras that users run with count too."""
    wheel = wheel_with(
        tmp_path,
        "a>=1; python_version >= '3.15'",
        "b; platform_python_implementation == 'PyPy'",
        "c; sys_platform == 'win32'",
        "d<2; extra == 'disk'",
        "e; extra == 'docs'",
    )
    there = {
        each: resolve.requirements(wheel, resolve.Target(*each))
        for each in (("cp315t", "win", "amd64"), ("pp311", "manylinux", "x86_64"))
    }
    assert list(there.values()) == [["a>=1", "c", "d<2"], ["b", "d<2"]]


@pytest.mark.slow
def test_pip_needs_no_compiler_on_debian_12_with_the_newest_python(
    resolve: ModuleType, tmp_path: Path
) -> None:
    """With the lock and without it: all that the wheel for any platform requires has wheels there."""
    tree = make_tree(tmp_path / "tree")
    wheel = tree.out / tree.wheel({"build": "plain"}).returned
    with resolve.pip() as pip:
        for python in ("cp315", "cp315t"):
            assert resolve.fault(wheel, resolve.Target(python, "manylinux", "x86_64"), pip) == ""


@pytest.mark.slow
def test_a_requirement_without_wheels_is_told(resolve: ModuleType, tmp_path: Path) -> None:
    """Such as orjson, on a Python without the interpreter's lock."""
    wheel = wheel_with(tmp_path, "orjson>=3.10")
    with resolve.pip() as pip:
        told = resolve.fault(wheel, resolve.Target("cp315t", "manylinux", "x86_64"), pip)
    assert "No matching distribution found for orjson" in told
