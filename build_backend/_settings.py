"""What a build was asked for: config settings and environment in, a choice out.

The switches have one parser, `src/opero/switches.py`. It is loaded here by its path, because opero
is not installed where it is built.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

ROOT = Path(__file__).resolve().parent.parent
"""The source tree that this backend belongs to."""

ConfigSettings: TypeAlias = Mapping[str, "str | list[str] | None"]
"""What a front end passes for `-C key=value`."""

CYTHON = "Cython>=3.3"
"""What compiles; asked for only where something may be compiled."""

PASSED_ON = frozenset(
    {
        "--build-option",
        "--global-option",
        "--quiet",
        "--verbose",
        "editable-mode",
        "editable_mode",
        "quiet",
        "verbose",
    }
)
"""Config settings that setuptools reads itself."""


def _load_switches() -> ModuleType:
    """Import the parser of the switches from its file."""
    path = ROOT / "src" / "opero" / "switches.py"
    spec = spec_from_file_location("_opero_switches", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


switches = _load_switches()
"""The module `opero.switches`."""


def read(config_settings: ConfigSettings | None) -> tuple[str, dict[str, str | list[str] | None]]:
    """Split the config settings into opero's own and those of setuptools.

    Args:
        config_settings: As the front end passed them.

    Returns:
        What to build ("auto", "compiled" or "plain"), and what to hand on to setuptools.

    Raises:
        SwitchError: If a key or a value means nothing, or settings contradict each other.
    """
    rest = dict(config_settings or {})
    choice: str = switches.wanted_at_build(os.environ, rest.pop(switches.SETTING, None))
    unknown = sorted(rest.keys() - PASSED_ON)
    if unknown:
        raise switches.SwitchError(
            f"unknown config setting {', '.join(unknown)}: use "
            f"{switches.SETTING}={'|'.join(switches.CHOICES)} "
            f"or what setuptools knows: {', '.join(sorted(PASSED_ON))}"
        )
    for key in ("editable-mode", "editable_mode"):
        if rest.get(key) == "strict":
            raise switches.SwitchError(
                f"{key}=strict is not supported: the library is put into the source tree"
            )
    return choice, rest
