"""Tells PyInstaller where the hook is when it freezes a program that uses opero."""

from __future__ import annotations

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """Return the folder of the hook; the entry point `pyinstaller40` names this function."""
    return [str(Path(__file__).parent)]
