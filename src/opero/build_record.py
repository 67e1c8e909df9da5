"""The build's record of why this installation is plain Python, if it is.

The build backend stores the reason with the metadata of a plain wheel. Only the doctor reads it:
importing opero does not read metadata.
"""

from __future__ import annotations

from importlib import metadata
from typing import Final

WHY_PLAIN: Final = "why_plain.txt"
"""The name of the file in the `.dist-info` folder; `build_backend/_archive.py` writes it."""


def why_plain() -> str:
    """Return why opero was built as plain Python; an empty string if there is no record of it."""
    try:
        return (metadata.distribution("opero").read_text(WHY_PLAIN) or "").strip()
    except metadata.PackageNotFoundError:
        return ""
