"""Writes wheels and source distributions again so that the same sources always give the same bytes.

What setuptools packs depends on when and where it did: dates, owners, the umask, the order of a
directory. Here files are sorted, and dates, owners and permissions are set; contents stay as they
are. Dates are `SOURCE_DATE_EPOCH` (https://reproducible-builds.org/specs/source-date-epoch/) or,
where that is not set, one fixed day, so that a rebuild needs to know nothing.
"""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import os
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

WHY_PLAIN = "why_plain.txt"
"""The file in a plain wheel's metadata that says why it is plain; `opero.build_record` reads it."""

EPOCH = "SOURCE_DATE_EPOCH"
"""The variable that gives the date of every file, in seconds since 1970."""

DEFAULT_EPOCH = 1580601600
"""2020-02-02 00:00:00 UTC, which hatchling takes too: the date where none is asked for."""

OLDEST_EPOCH, NEWEST_EPOCH = 315532800, 4354819198
"""The first and the last second that a zip file can tell."""

_LEVEL = 9
_FILE = 0o100644
_PROGRAM = 0o100755
_BINARIES = (".so", ".pyd")


class WrongEpochError(Exception):
    """`SOURCE_DATE_EPOCH` is not a date that a file in an archive can have."""


def epoch(environ: Mapping[str, str]) -> int:
    """Tell the date that every file gets.

    Args:
        environ: The environment.

    Returns:
        Seconds since 1970.

    Raises:
        WrongEpochError: If the variable is no number, or none that a zip file can hold.
    """
    text = environ.get(EPOCH, "").strip()
    if not text:
        return DEFAULT_EPOCH
    if text.isascii() and text.isdigit() and OLDEST_EPOCH <= int(text) <= NEWEST_EPOCH:
        return int(text)
    raise WrongEpochError(
        f"{EPOCH}={text!r}: use seconds since 1970, from {OLDEST_EPOCH} to {NEWEST_EPOCH}"
    )


def rewrite_wheel(wheel: Path, why_plain: str = "") -> None:
    """Write a wheel again, in place.

    Args:
        wheel: The file.
        why_plain: Why it is plain Python, in a sentence that it is to keep; nothing if it is not.
    """
    with ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    record = next(name for name in files if name.endswith(".dist-info/RECORD"))
    del files[record]
    if why_plain:
        files[record.replace("RECORD", WHY_PLAIN)] = f"{why_plain}\n".encode()
    # The specification of wheels wants the metadata last; so does the record of all of them.
    names = sorted(files, key=lambda name: (".dist-info/" in name, name))
    lines = io.StringIO()
    rows = csv.writer(lines, lineterminator="\n")
    rows.writerows((name, _digest(files[name]), len(files[name])) for name in names)
    rows.writerow((record, "", ""))
    files[record] = lines.getvalue().encode()
    date = time.gmtime(epoch(os.environ))[:6]
    staged = wheel.with_name(f".{wheel.name}.new")
    with ZipFile(staged, "w", ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for name in (*names, record):
            entry = ZipInfo(name, date)
            entry.create_system = 3  # Unix, whose permissions follow
            entry.external_attr = (_PROGRAM if name.endswith(_BINARIES) else _FILE) << 16
            archive.writestr(entry, files[name], ZIP_DEFLATED, _LEVEL)
    staged.replace(wheel)


def rewrite_sdist(sdist: Path) -> None:
    """Write a source distribution again, in place.

    Args:
        sdist: The file, a `.tar.gz`.
    """
    date = epoch(os.environ)
    staged = sdist.with_name(f".{sdist.name}.new")
    with (
        tarfile.open(sdist) as source,
        staged.open("wb") as file,
        gzip.GzipFile(
            filename="", mode="wb", fileobj=file, compresslevel=_LEVEL, mtime=date
        ) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        for member in sorted(source.getmembers(), key=lambda member: member.name):
            if not member.isfile():
                continue  # a folder is made for what is in it
            entry = tarfile.TarInfo(member.name)
            entry.size = member.size
            entry.mtime = date
            entry.mode = (_PROGRAM if member.mode & 0o100 else _FILE) & 0o777
            target.addfile(entry, source.extractfile(member))
    staged.replace(sdist)


def _digest(content: bytes) -> str:
    """Return the hash of a file as `RECORD` writes it."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
    return f"sha256={digest.rstrip(b'=').decode()}"
