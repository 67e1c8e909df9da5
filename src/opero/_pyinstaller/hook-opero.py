"""The modules that PyInstaller does not find by itself.

opero chooses its half by name, compiled modules import others out of its sight, and public names
and the progress bar are imported when they are needed.
"""

from __future__ import annotations

from PyInstaller.utils.hooks import collect_submodules

_LEFT_OUT = ("opero.__main__", "opero._pyinstaller", "opero.integrations")
"""What no frozen program runs, and what the program that uses it imports itself."""


def _is_needed(name: str) -> bool:
    return not name.startswith(_LEFT_OUT)


hiddenimports = [*collect_submodules("opero", filter=_is_needed), "tqdm.std"]
