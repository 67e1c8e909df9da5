"""Looks into a finished wheel and refuses one whose contents and name disagree.

A wheel with a platform tag and no code, or with code and no platform tag, gets cached and shared
before anybody notices; so a wheel that does not hold exactly what it should is never handed on.
"""

from __future__ import annotations

import re
from pathlib import Path
from zipfile import ZipFile

_EXTENSION_MODULE = re.compile(r"(?P<module>[^.]+)\.(?:[^/]+\.)?(?:so|pyd)")
PLAIN_TAG = "py3-none-any"
"""The tag of a wheel without a library."""


class WrongContentsError(Exception):
    """A wheel does not hold exactly what it should."""


def check(wheel: Path, sources: Path, expected: str) -> None:
    """Compare a wheel with the sources it was made from.

    Args:
        wheel: The file.
        sources: The folder that holds the package, `src`.
        expected: The full name of the library it has to hold; empty if it is plain.

    Raises:
        WrongContentsError: If a file is missing or should not be there, or the tags do not fit.
    """
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        metadata = next(name for name in names if name.endswith(".dist-info/WHEEL"))
        headers = archive.read(metadata).decode().splitlines()
    code = [name for name in names if ".dist-info/" not in name]
    binaries = [name for name in code if name.endswith((".so", ".pyd"))]
    faults = []

    found = sorted(_module_name(name) for name in binaries)
    if found != ([expected] if expected else []):
        faults.append(f"binaries {found} instead of {expected or 'none'}")

    package = {
        path.relative_to(sources).as_posix()
        for path in sources.rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    rest = set(code) - set(binaries)
    if rest != package:
        faults.append(f"missing {sorted(package - rest)}, not wanted {sorted(rest - package)}")

    tags = {line.partition(": ")[2] for line in headers if line.startswith("Tag: ")}
    is_pure = "Root-Is-Purelib: true" in headers
    is_plain = tags == {PLAIN_TAG} and wheel.name.endswith(f"-{PLAIN_TAG}.whl") and is_pure
    is_tagged = PLAIN_TAG not in tags and not wheel.name.endswith("-any.whl") and not is_pure
    if not (is_tagged if expected else is_plain):
        faults.append(f"tags {sorted(tags)}, pure: {is_pure}, under the name {wheel.name}")
    if faults:
        raise WrongContentsError(f"{wheel.name} is not handed on: " + "; ".join(faults))


def unpack_binaries(wheel: Path, folder: Path) -> list[Path]:
    """Take the files that are not Python out of a wheel.

    Args:
        wheel: The file.
        folder: Where to put them, without the folders they are in.

    Returns:
        The paths of the unpacked files.
    """
    with ZipFile(wheel) as archive:
        paths = []
        for name in archive.namelist():
            if name.endswith((".so", ".pyd")):
                path = folder / Path(name).name
                path.write_bytes(archive.read(name))
                paths.append(path)
    return paths


def _module_name(path: str) -> str:
    """Return the dotted name of the module that the file at `path` in a wheel defines."""
    folder, _, name = path.rpartition("/")
    match = _EXTENSION_MODULE.fullmatch(name)
    return f"{folder.replace('/', '.')}.{match['module'] if match else name}"
