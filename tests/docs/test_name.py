"""No text tells you to install `opero` from an index: PyPI has an older implementation by that name.

A command may name a checkout or a wheel file, or pin a version of the older one, as in
`opero==2.7.5`. Hints in error messages name the library that is missing, not an extra of opero.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import ROOT

pytestmark = [pytest.mark.once, pytest.mark.checkout]

INSTALLS = re.compile(
    r"""
    \b(?:
        pip3?\ +(?:install|download|wheel) | pipx\ +(?:install|run|inject)
        | uv\ +(?:add|tool\ +(?:install|run)|run) | uvx
        | (?:poetry|pdm|rye|pixi|hatch)\ +(?:add|install) | (?:conda|mamba|micromamba)\ +install
        | easy_install
    )\b
    [^\n`;|&#]*?                        # options, and other packages
    (?<![\w./:@+-])["']?opero(?:\[[\w,\ -]*\])?
    (?!\[|[\w/.-]|["']?\ *@|["']?\ *==2\.)
    """,
    re.VERBOSE,
)
"""A command that takes opero from an index, whatever stands around it."""

EXTRA = re.compile(r"(?<![\w.`])opero\[(?:[a-z]+)(?:, ?[a-z]+)*\](?! *@)")
"""A requirement of opero with extras, as in a requirements file or a hint."""

PLACES = ("src", "docs", "examples", "benchmarks", "build_backend", "release", "tests", "tools")

OURS = {
    'all = ["opero[disk,redis,dask,otel,prometheus,structlog]"]',  # pyproject.toml names itself
}


def found(text: str) -> list[str]:
    """Return the lines of `text` that take opero from an index."""
    lines = (line.strip() for line in text.splitlines())
    return [
        line for line in lines if line not in OURS and (INSTALLS.search(line) or EXTRA.search(line))
    ]


def files() -> Iterator[Path]:
    """Yield every text of the repository but this one."""
    yield from (path for path in ROOT.iterdir() if path.is_file())
    yield from (ROOT / ".github").rglob("*.yml")
    yield from (ROOT / ".ci").rglob("*")
    for place in PLACES:
        yield from (ROOT / place).rglob("*")


def test_nobody_is_told_to_install_opero_from_an_index() -> None:
    """Not in the sources, the pages, the examples, the workflows, or anywhere else."""
    read: list[str] = []
    for path in files():
        if not path.is_file() or path == Path(__file__):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a library, bytecode, a picture
        read.append(path.name)
        told = found(text)
        assert not told, f"{path.relative_to(ROOT)} installs opero from an index: {told}"
    assert len(read) > 300
    assert {"Dockerfile", "ipynb", "md", "py", "yaml"} <= {name.rpartition(".")[2] for name in read}


@pytest.mark.parametrize(
    "line",
    [
        "pip install opero",
        "    pip install --upgrade opero  # the newest",
        "Run `pip install opero` first.",
        "pip install 'opero[disk]'",
        'pip install "opero[disk,redis]>=3"',
        "python -m pip install -q httpx opero",
        "pip install opero==3.0.0",
        "!pip install opero",
        "RUN pip3 install opero && pip3 cache purge",
        "uv add opero",
        "uv pip install opero",
        "uvx --from opero python",
        "uv run --with opero script.py",
        "poetry add opero",
        "conda install -c conda-forge opero",
        'raise ImportError("caches on disk need opero[disk]")',
        "opero[redis]>=3",
    ],
)
def test_a_line_that_takes_it_from_an_index_is_found(line: str) -> None:
    """Whatever the installer, the options and the quotes are."""
    assert found(f"before\n{line}\nafter") == [line.strip()]


@pytest.mark.parametrize(
    "line",
    [
        "pip install .",
        "pip install '.[disk]'",
        "pip install ./opero",
        "pip install opero-3.0.0-py3-none-any.whl",
        "pip install 'opero-3.0.0-py3-none-any.whl[disk]'",
        "pip install dist/opero-*.whl",
        "uv add /path/to/opero",
        "pip install 'opero[disk] @ file:///wheels/opero-3.0.0-py3-none-any.whl'",
        "pip download opero==2.7.5",
        "pip install 'diskcache>=5.6.3,<6' platformdirs",
        "PyPI's opero is another one.",
        "from opero import opero",
        "functions[opero[0]]",
    ],
)
def test_a_line_that_names_a_checkout_a_file_or_the_older_one_is_not(line: str) -> None:
    """Those install what they say."""
    assert found(line) == []
