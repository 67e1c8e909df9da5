"""What is in a wheel or a source distribution: everything that should be, and nothing else."""

from __future__ import annotations

import ast
import base64
import csv
import hashlib
import io
import re
import tarfile
from collections.abc import Mapping
from email.parser import HeaderParser
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

SDIST_NEEDS = (
    "LICENSE",
    "PKG-INFO",
    "README.md",
    "examples/demo/__main__.py",
    "pyproject.toml",
    "setup.py",
    "src/opero/py.typed",
)
GENERATED = (".c", ".so", ".pyd", ".pyc")
"""How files end that builds leave and that no source distribution ships."""

_WHEEL = re.compile(
    r"opero-(?P<version>[\w.]+)-(?P<python>\w+)-(?P<abi>\w+)-(?P<platform>\w+)(\.\w+)*\.whl"
)
_METADATA = (
    "METADATA",
    "RECORD",
    "WHEEL",
    "entry_points.txt",
    "licenses/LICENSE",
    "top_level.txt",
)
_WHY_PLAIN = "why_plain.txt"
_HOOK = "opero/_pyinstaller/hook-opero.py"
_FIELDS = {"Name": "opero", "Requires-Python": ">=3.11", "License-Expression": "MIT"}
_GIVEN = ("Summary", "Classifier", "Requires-Dist", "Provides-Extra", "License-File")


class Wheel(NamedTuple):
    """A wheel that was read.

    Attributes:
        path: The file.
        version: Of opero, as its name tells.
        abi: As its name tells: "cp313", "cp314t" or "none".
        platform: As its name tells; the first, if there are several.
        files: What is in it, by path.
        registry: The modules of the core, as opero looks for them in both halves.
    """

    path: Path
    version: str
    abi: str
    platform: str
    files: dict[str, bytes]
    registry: tuple[str, ...]

    @property
    def library(self) -> bytes | None:
        """The file with the compiled modules, if it has the name that the tags ask for."""
        return self.files.get(f"opero/_compiled/library{suffix(self)}")

    @property
    def is_plain(self) -> bool:
        """Whether it is for every platform."""
        return self.platform == "any"


def read_wheel(path: Path) -> Wheel:
    """Read a wheel.

    Raises:
        ValueError: If its name is not that of a wheel of opero.
    """
    told = _WHEEL.fullmatch(path.name)
    if told is None:
        raise ValueError(f"{path.name} is not the name of a wheel of opero")
    with ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        files = {name: archive.read(name) for name in names}
    registry = _registry(files["opero/hotpath.py"])
    return Wheel(path, told["version"], told["abi"], told["platform"], files, registry)


def wheel_faults(wheel: Wheel) -> list[str]:
    """Say what is wrong with the contents of a wheel; an empty list if nothing is."""
    info = f"opero-{wheel.version}.dist-info"
    names = (*_METADATA, _WHY_PLAIN) if wheel.is_plain else _METADATA
    metadata = {f"{info}/{name}" for name in names}
    library = set() if wheel.is_plain else {f"opero/_compiled/library{suffix(wheel)}"}
    sources = {name for name in wheel.files if re.fullmatch(r"opero/(\w+/)*\w+\.py", name)}
    core = {f"opero/core/{name}.py" for name in wheel.registry}
    others = {"opero/py.typed", "opero/__init__.py", _HOOK}
    wanted = metadata | library | sources | core | others
    faults = [f"missing: {name}" for name in sorted(wanted - wheel.files.keys())]
    faults += [f"not wanted: {name}" for name in sorted(wheel.files.keys() - wanted)]
    faults += _record_faults(wheel.files, f"{info}/RECORD")
    faults += _metadata_faults(wheel.files.get(f"{info}/METADATA", b""), wheel.version)
    pure = f"Root-Is-Purelib: {str(wheel.is_plain).lower()}"
    if pure not in wheel.files.get(f"{info}/WHEEL", b"").decode():
        faults.append(f"WHEEL does not say {pure!r}")
    return faults


def sdist_faults(path: Path) -> list[str]:
    """Say what is wrong with the contents of a source distribution."""
    version = path.name.removeprefix("opero-").removesuffix(".tar.gz")
    with tarfile.open(path) as archive:
        names = archive.getnames()
        member = archive.extractfile(f"opero-{version}/PKG-INFO")
        metadata = member.read() if member else b""
    top = f"opero-{version}/"
    inside = {name.removeprefix(top) for name in names}
    faults = [f"outside {top}: {name}" for name in names if not name.startswith(top)]
    faults += [f"missing: {name}" for name in SDIST_NEEDS if name not in inside]
    faults += [f"not wanted: {name}" for name in sorted(inside) if name.endswith(GENERATED)]
    return faults + _metadata_faults(metadata, version)


def suffix(wheel: Wheel) -> str:
    """Return how the name of the library in a wheel with these tags ends."""
    version = wheel.abi.removeprefix("cp")
    if wheel.platform.startswith("win"):
        return f".{wheel.abi}-{wheel.platform}.pyd"
    if wheel.platform.startswith("macosx"):
        return f".cpython-{version}-darwin.so"
    machine = "aarch64" if wheel.platform.endswith("aarch64") else "x86_64"
    return f".cpython-{version}-{machine}-linux-{'musl' if 'musl' in wheel.platform else 'gnu'}.so"


def _registry(source: bytes) -> tuple[str, ...]:
    """Read which modules opero looks for, out of the source of `opero.hotpath`."""
    for node in ast.parse(source).body:
        if (
            isinstance(node, ast.AnnAssign)
            and ast.unparse(node.target) == "_CLASSES"
            and node.value
        ):
            return tuple(ast.literal_eval(node.value))
    raise ValueError("opero/hotpath.py has no _CLASSES")


def _record_faults(files: Mapping[str, bytes], record: str) -> list[str]:
    """Compare `RECORD` with the files."""
    rows = list(csv.reader(io.StringIO(files.get(record, b"").decode())))
    told = {name: (digest, size) for name, digest, size in rows}
    found = {}
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        found[name] = (f"sha256={digest}", str(len(content)))
    found[record] = ("", "")
    wrong = sorted(name for name in told.keys() | found.keys() if told.get(name) != found.get(name))
    repeated = [] if len(rows) == len(told) else ["RECORD tells a file twice"]
    return [f"RECORD is wrong about {name}" for name in wrong] + repeated


def _metadata_faults(text: bytes, version: str) -> list[str]:
    """Compare the metadata with what it has to say."""
    headers = HeaderParser().parsestr(text.decode())
    wanted = {**_FIELDS, "Version": version}
    faults = [
        f"metadata: {field} is {headers[field]!r}, not {value!r}"
        for field, value in wanted.items()
        if headers[field] != value
    ]
    return faults + [f"metadata: no {field}" for field in _GIVEN if not headers.get_all(field)]
