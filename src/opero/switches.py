"""The switches that choose between compiled and plain, and the only parser of them.

    OPERO_BUILD=auto|compiled|plain     what a build makes; also `build=` as a config setting
    OPERO_REQUIRE_COMPILED=1            builds and imports without compiled modules are errors
    OPERO_PURE_PYTHON=1                 plain Python at run time, whatever is installed

The build backend loads this file by its path, before opero exists; so it imports the standard
library only, and a switch cannot mean one thing to the build and another to the import.
"""

from __future__ import annotations

from collections.abc import Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Literal

if TYPE_CHECKING:
    Choice = Literal["auto", "compiled", "plain"]
    """What is wanted: "auto" takes compiled modules if it can, the others insist."""

CHOICES: Final[tuple[Choice, ...]] = ("auto", "compiled", "plain")
"""Every `Choice`."""

SETTING: Final = "build"
"""The config setting of the build, as in `pip install . -C build=plain`."""

BUILD: Final = "OPERO_BUILD"
"""The environment twin of the config setting; the config setting goes before it."""

REQUIRE_COMPILED: Final = "OPERO_REQUIRE_COMPILED"
"""If on, whatever lacks a compiled module fails: the build, the import, the tests."""

PURE_PYTHON: Final = "OPERO_PURE_PYTHON"
"""If on, an import of opero chooses plain Python. Builds do not read it."""

_OFF: Final = ("", "0", "false", "no", "off")
_ON: Final = ("1", "true", "yes", "on")


class SwitchError(ValueError):
    """A switch has a value that means nothing, or two switches contradict each other."""


def is_on(name: str, environ: Mapping[str, str]) -> bool:
    """Read a switch that is on or off.

    Args:
        name: The environment variable.
        environ: The environment.

    Returns:
        True for 1, true, yes and on; False for 0, false, no, off, nothing, and a variable that is
        not set. Case and surrounding spaces do not count.

    Raises:
        SwitchError: If it has any other value.
    """
    word = environ.get(name, "").strip().lower()
    if word in _ON:
        return True
    if word in _OFF:
        return False
    raise SwitchError(
        f"{name}={environ[name]!r}: use one of {', '.join(_ON)} for on, "
        f"or one of {', '.join(_OFF[1:])} or nothing for off"
    )


def wanted_at_import(environ: Mapping[str, str]) -> Choice:
    """Tell which implementation an import of opero has to choose.

    Args:
        environ: The environment.

    Returns:
        "plain" or "compiled" if a switch insists on it, else "auto".

    Raises:
        SwitchError: If both switches are on, or one has a value that means nothing.
    """
    plain = is_on(PURE_PYTHON, environ)
    compiled = is_on(REQUIRE_COMPILED, environ)
    if plain and compiled:
        raise SwitchError(
            f"{PURE_PYTHON} and {REQUIRE_COMPILED} are both on, but they contradict each other"
        )
    return "plain" if plain else "compiled" if compiled else "auto"


def wanted_at_build(environ: Mapping[str, str], setting: Any = None) -> Choice:
    """Tell what a build has to make.

    Args:
        environ: The environment.
        setting: The value of the config setting `build`; a list if it was given more than once;
            None if it was not given. It goes before the environment variable.

    Returns:
        "compiled" if nothing else is allowed, "plain" likewise, "auto" for compiled if possible.

    Raises:
        SwitchError: If a value is none of `CHOICES`, or plain is asked for where compiled is
            required.
    """
    values = setting if isinstance(setting, (list, tuple)) else [setting]
    choices = {_choice(SETTING, value) for value in values if value not in (None, "")}
    if len(choices) > 1:
        raise SwitchError(f"{SETTING}= was given more than once, as {', '.join(sorted(choices))}")
    choice = choices.pop() if choices else _choice(BUILD, environ.get(BUILD, ""))
    if is_on(REQUIRE_COMPILED, environ):
        if choice == "plain":
            raise SwitchError(
                f"a plain build was asked for, but {REQUIRE_COMPILED} is on and forbids it"
            )
        return "compiled"
    return choice


def _choice(name: str, value: object) -> Choice:
    """Read `value` of the setting or variable `name`; nothing means "auto"."""
    word = str(value).strip().lower()
    if not word:
        return "auto"
    for choice in CHOICES:
        if word == choice:
            return choice
    raise SwitchError(f"{name}={value!r}: use one of {', '.join(CHOICES)}")
