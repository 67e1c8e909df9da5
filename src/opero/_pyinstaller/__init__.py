"""What PyInstaller asks for when it freezes a program that uses opero: where the hook is."""

from __future__ import annotations

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """Return the folder of the hook; the entry point `pyinstaller40` leads here."""
    return [str(Path(__file__).parent)]
