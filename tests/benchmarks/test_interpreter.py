"""Which CPythons the gates run on is decided by how they were built, and the table says it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import interpreter, table  # noqa: E402
from benchmarks.interpreter import Found, chosen, description, free_threaded, with_pgo  # noqa: E402

pytestmark = [pytest.mark.once, pytest.mark.checkout]

GCC = {
    "PGO_PROF_GEN_FLAG": "-fprofile-generate",
    "PGO_PROF_USE_FLAG": "-fprofile-use -fprofile-correction",
}
CLANG = {
    "PGO_PROF_GEN_FLAG": "-fprofile-instr-generate",
    "PGO_PROF_USE_FLAG": '-fprofile-instr-use="$(shell pwd)/code.profclangd"',
}
DEBIAN = {
    "CONFIG_ARGS": "'--enable-shared' '--prefix=/usr' '--enable-ipv6' '--with-dtrace' 'CC=x86_64-linux-gnu-gcc'",
    "PY_CFLAGS": "-fno-strict-overflow -Wsign-compare -DNDEBUG -g -O2 -Wall",
    "PGO_PROF_GEN_FLAG": "-fprofile-generate -fprofile-update=atomic",
    "PGO_PROF_USE_FLAG": "",
    "Py_DEBUG": 0,
    "Py_GIL_DISABLED": 0,
}
"""As Debian's 3.14.10 has it; its rules call `make profile-opt` and delete the flags."""

PYENV = {
    **GCC,
    "CONFIG_ARGS": "'--prefix=/opt/python3.13' '--enable-shared' 'LDFLAGS=-L/opt/python3.13/lib'",
    "PY_CFLAGS": "-fno-strict-overflow -Wsign-compare -DNDEBUG -g -O3 -Wall",
    "PY_CORE_CFLAGS": "-fno-strict-overflow -DNDEBUG -g -O3 -Wall -std=c11 -fvisibility=hidden -DPy_BUILD_CORE",
    "Py_DEBUG": 0,
    "Py_GIL_DISABLED": 0,
}
"""As pyenv builds 3.13.0 unless it is told to optimise."""

DOCKER = {
    **GCC,
    "CONFIG_ARGS": "'--build=x86_64-linux-gnu' '--enable-loadable-sqlite-extensions' '--enable-optimizations' '--enable-option-checking=fatal' '--enable-shared' '--with-lto' '--with-ensurepip'",
}
"""As the official images have it."""

STANDALONE = {
    **CLANG,
    "CONFIG_ARGS": "'--prefix=/install' '--with-openssl=/tools/deps' '--without-ensurepip' '--enable-optimizations' '--enable-bolt' '--with-lto' 'CC=clang'",
}
"""As uv installs it."""


@pytest.mark.parametrize(
    ("optimised", "config"),
    [
        (True, DEBIAN),
        (True, DOCKER),
        (True, STANDALONE),
        (True, {**PYENV, "CONFIG_ARGS": "--enable-optimizations"}),
        (True, {**PYENV, "CONFIG_ARGS": "'--enable-optimizations=yes' '--with-lto=thin'"}),
        (True, {**PYENV, "CONFIG_ARGS": "'--disable-optimizations' '--enable-optimizations'"}),
        (True, {**PYENV, "PY_CORE_CFLAGS": "-O2 -fprofile-use=/build/profile -DPy_BUILD_CORE"}),
        (True, {**PYENV, **CLANG, "PY_CFLAGS_NODIST": "-fprofile-instr-use=code.profclangd"}),
        (True, {**PYENV, "PGO_PROF_USE_FLAG": ""}),
        (False, PYENV),
        (False, {**PYENV, **CLANG}),
        (False, {**PYENV, "PY_CFLAGS": None}),
        (False, {**PYENV, "CONFIG_ARGS": "'--prefix=/opt/built--enable-optimizations-later'"}),
        (False, {**PYENV, "CONFIG_ARGS": "'--enable-optimizations=no'"}),
        (False, {**PYENV, "CONFIG_ARGS": "'--enable-optimizations' '--disable-optimizations'"}),
        (False, {**PYENV, "PY_CFLAGS": "-fprofile-generate -O2"}),
        (False, {"CONFIG_ARGS": "'--prefix=/usr'", "PGO_PROF_GEN_FLAG": "", "PGO_PROF_USE_FLAG": ""}),
        (False, {"CONFIG_ARGS": "", "PGO_PROF_GEN_FLAG": "", "PGO_PROF_USE_FLAG": ""}),
        (False, {"CONFIG_ARGS": "'--prefix=/usr'"}),
        (False, {**DEBIAN, "Py_DEBUG": 1}),
        (False, {**DOCKER, "Py_DEBUG": 1}),
        (None, {}),
        (None, {"EXT_SUFFIX": ".cp313-win_amd64.pyd", "prefix": "C:\\Python313"}),
    ],
)  # fmt: skip
def test_how_a_python_was_built_is_read_from_its_configuration(
    optimised: bool | None, config: dict[str, Any]
) -> None:
    """Real configurations and invented ones; a path that has the option's name in it is no option."""
    assert with_pgo(config) is optimised
    assert not free_threaded(config)


def test_a_free_threaded_build_is_told_from_one_with_the_lock() -> None:
    """Before 3.13 there is no such variable."""
    assert free_threaded({**DEBIAN, "Py_GIL_DISABLED": 1})
    assert not free_threaded({**DEBIAN, "Py_GIL_DISABLED": None})
    assert description({**DEBIAN, "Py_GIL_DISABLED": 1}) == "with PGO, free-threaded"
    assert description(PYENV) == "without PGO"
    assert description({}) == "with or without PGO"


def test_the_table_says_how_its_python_was_built() -> None:
    """Tables and records name it, in the line of the machine."""
    assert f"({description(sysconfig.get_config_vars())}), " in table.machine()


def found(*told: str) -> list[Found]:
    """Pythons from "3.11.2+" with PGO, and "3.11.2" without."""
    return [Found(one.rstrip("+"), f"/{place}/{one}", one.endswith("+")) for place, one in enumerate(told)]  # fmt: skip


@pytest.mark.parametrize(
    ("there", "picked"),
    [
        (["3.13.0", "3.11.2+"], ["3.11.2+"]),
        (["3.13.0", "3.14.10+", "3.12.1", "3.11.2+", "3.15.2+"], ["3.11.2+", "3.15.2+"]),
        (["3.9.1+", "3.10.4+"], ["3.9.1+", "3.10.4+"]),
        (["3.15.0a2+", "3.14.1+", "3.12.1+"], ["3.12.1+", "3.15.0a2+"]),
        (["3.11.7", "3.13.0", "3.12.1"], ["3.13.0"]),
        (["3.11.7", "3.11.2+"], ["3.11.2+"]),
        ([], []),
    ],
)
def test_the_oldest_and_the_newest_with_pgo_are_chosen(there: list[str], picked: list[str]) -> None:
    """Wherever they are; without any, the newest of those that there are."""
    names = [one.path.rpartition("/")[2] for one in chosen(found(*there))]
    assert names == picked


def test_of_a_minor_version_the_first_counts_and_others_may_be_left_out() -> None:
    """The order is that of the path; only versions that there is a wheel for can be measured."""
    there = found("3.12.5+", "3.11.7", "3.12.9+", "3.13.0+")
    assert [one.version for one in chosen(there)] == ["3.12.5", "3.13.0"]
    assert [one.version for one in chosen(there, ["3.11", "3.12"])] == ["3.12.5"]
    assert [one.version for one in chosen(there, ["3.11"])] == ["3.11.7"]
    assert chosen(there, ["3.14"]) == []


@pytest.mark.skipif(os.name != "posix", reason="candidates are scripts")
def test_candidates_are_asked_and_what_is_none_is_named(tmp_path: Path) -> None:
    """As a script of its own, which any Python runs."""
    told = (
        '{"implementation": "%s", "version": "%s", "path": "%s", "config": '
        '{"CONFIG_ARGS": "%s", "Py_GIL_DISABLED": %d}}'
    )
    candidates = {
        "optimised": ("cpython", "3.12.4", "--enable-optimizations", 0),
        "plain": ("cpython", "3.14.0", "", 0),
        "free": ("cpython", "3.14.0", "--enable-optimizations", 1),
        "pypy": ("pypy", "3.11.9", "--enable-optimizations", 0),
    }
    for name, (implementation, version, args, free) in candidates.items():
        script = tmp_path / name
        text = told % (implementation, version, script, args, free)
        script.write_text(f"#!/bin/sh\necho '{text}'\n", encoding="utf-8")
        script.chmod(0o755)
    paths = [str(tmp_path / name) for name in (*candidates, "not-there")]
    ran = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "interpreter.py"), "--minors=3.12,3.14", *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0
    assert ran.stdout == f"3.12 PGO 3.12.4 {tmp_path / 'optimised'}\n"
    complaints = dict(re.findall(r"^no gates on \S+/([\w-]+): (.+)$", ran.stderr, re.MULTILINE))
    assert complaints == {
        "free": "it is free-threaded",
        "pypy": "it is pypy",
        "not-there": "it does not run",
    }
    assert interpreter.main(["--minors=3.13", paths[0]]) == 1


def test_this_python_examines_itself() -> None:
    """What is found is what runs, unless no gate can run on it."""
    if free_threaded(sysconfig.get_config_vars()) or sys.implementation.name != "cpython":
        with pytest.raises(ValueError, match="it is"):
            interpreter.examine(sys.executable)
        return
    one = interpreter.examine(sys.executable)
    assert one.minor == "{}.{}".format(*sys.version_info[:2])
    assert one.pgo is bool(with_pgo(sysconfig.get_config_vars()))
