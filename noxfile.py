"""What a developer runs: `nox -l` lists it, `nox` alone runs lint and types.

    nox -s tests                              every test of both halves, on every CPython on PATH
    nox -s tests-3.13 -- tests/core/test_keys.py   whatever stands behind -- goes to pytest
    nox -R -s tests-3.13 -- -k flight         the same environment again, with nothing built anew
    nox -s plain-3.11                         opero built as plain Python

Each session has an environment of its own and installs opero there, so none touches the checkout's
own editable install. `uv` makes the environments where it is installed, else `virtualenv`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from subprocess import DEVNULL, call

import nox

CPYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.14t", "3.15", "3.15t")
COMPILED = {"OPERO_BUILD": "compiled", "OPERO_REQUIRE_COMPILED": "1"}
PLAIN = {"OPERO_BUILD": "plain"}
PROJECT = nox.project.load_toml("pyproject.toml")["project"]


def runs(version: str) -> bool:
    """Return whether PATH has this CPython; one of pyenv's shims may lead nowhere."""
    python = shutil.which(f"python{version}")
    return python is not None and call([python, "-c", ""], stderr=DEVNULL) == 0


FOUND = [version for version in CPYTHONS if runs(version)]

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_external_run = True
nox.options.sessions = ["lint", "types"]


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, its format, and cython-lint."""
    session.install(*PROJECT["optional-dependencies"]["lint"])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("cython-lint", "src")
    session.run("zizmor", "--offline", "--no-progress", ".github/workflows")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy over opero itself; mypy and pyright over what users write; every exported type known."""
    session.install(".[lint,slow,test]", env=PLAIN)
    session.run("mypy")
    session.run("pytest", "-q", "--everything", "tests/test_typing.py", *session.posargs)


@nox.session(python=FOUND)
def tests(session: nox.Session) -> None:
    """Every test, slow ones too, of the compiled half and of the plain one beside it."""
    session.install(".[slow,test]", env=COMPILED)
    session.run("pytest", "--everything", *(session.posargs or ("-n", "auto")), env=COMPILED)


@nox.session(python=FOUND)
def plain(session: nox.Session) -> None:
    """Every test of opero built as plain Python; no compiler is needed."""
    session.install(".[slow,test]", env=PLAIN)
    session.run("pytest", "--everything", *(session.posargs or ("-n", "auto")))


@nox.session
def community(session: nox.Session) -> None:
    """The tests of the cache on disk where diskcache-community is in the place of diskcache."""
    session.install(".[test]", env=PLAIN)
    session.run("python", "-m", "pip", "uninstall", "-y", "diskcache")
    chosen = ("--everything", "tests/stores", "-k", "disk")
    session.run("pytest", *chosen, *(session.posargs or ("-n", "auto")))


@nox.session
def bench(session: nox.Session) -> None:
    """What a call costs, beside the libraries that do the same; options behind --."""
    session.install(".[bench]", env=COMPILED)
    session.run("python", "-m", "benchmarks", *session.posargs, env=COMPILED)


@nox.session
def gates(session: nox.Session) -> None:
    """Time and instructions against what is promised; needs valgrind; `-- --accept` accepts."""
    session.install(".[bench]", env=COMPILED)
    session.run("python", "-m", "benchmarks.gates", *session.posargs, env=COMPILED)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, strictly, in `site/`."""
    session.install(".[docs]", env=PLAIN)
    session.run("python", "-m", "tools.site")


@nox.session
def wheels(session: nox.Session) -> None:
    """An sdist and a compiled wheel in `dist/`; what they hold, and whether they work elsewhere."""
    session.install(*PROJECT["optional-dependencies"]["release"])
    session.run("python", "-m", "build", *session.posargs, env=COMPILED)
    made = sorted(map(str, Path("dist").glob("opero-*")))
    session.run("python", "-m", "release.check", *made)
    session.run("python", "-m", "release.fresh", *made)
