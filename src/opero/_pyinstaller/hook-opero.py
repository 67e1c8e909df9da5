"""The modules that PyInstaller does not find.

It misses them because opero imports its compiled or plain half by name, compiled modules import
others in C, and opero imports public names and the progress bar on first use.
"""

from __future__ import annotations

from PyInstaller.utils.hooks import collect_submodules

_LEFT_OUT = ("opero.__main__", "opero._pyinstaller", "opero.integrations")
"""Modules that a frozen program never runs, or imports itself if it uses them."""


def _is_needed(name: str) -> bool:
    return not name.startswith(_LEFT_OUT)


hiddenimports = [*collect_submodules("opero", filter=_is_needed), "tqdm.std"]
