"""The switches that choose between compiled and plain, and the only parser of them.

    OPERO_BUILD=auto|compiled|plain     what to build; also `build=` as a config setting
    OPERO_REQUIRE_COMPILED=1            fail builds and imports without compiled modules
    OPERO_PURE_PYTHON=1                 use plain Python at run time, whatever is installed

The build backend loads this file by its path, before opero is installed, so that a switch means the
same to the build and to the import. Import only the standard library here.
"""

from __future__ import annotations

from collections.abc import Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Literal

if TYPE_CHECKING:
    Choice = Literal["auto", "compiled", "plain"]
    """Which implementation to use: "auto" prefers compiled modules, the others insist."""

CHOICES: Final[tuple[Choice, ...]] = ("auto", "compiled", "plain")
"""Every `Choice`."""

SETTING: Final = "build"
"""The config setting of the build, as in `pip install . -C build=plain`."""

BUILD: Final = "OPERO_BUILD"
"""The environment variable for the config setting, which takes precedence."""

REQUIRE_COMPILED: Final = "OPERO_REQUIRE_COMPILED"
"""If on, the build, the import and the tests fail if a compiled module is missing."""

PURE_PYTHON: Final = "OPERO_PURE_PYTHON"
"""If on, an import of opero chooses plain Python. Builds do not read it."""

_OFF: Final = ("", "0", "false", "no", "off")
_ON: Final = ("1", "true", "yes", "on")


class SwitchError(ValueError):
    """A switch has an invalid value, or two switches contradict each other."""


def is_on(name: str, environ: Mapping[str, str]) -> bool:
    """Read a switch that is on or off.

    Args:
        name: The environment variable.
        environ: The environment.

    Returns:
        True for 1, true, yes and on; False for 0, false, no, off, an empty value, and a variable
        that is not set. Case and surrounding spaces do not matter.

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
        f"or one of {', '.join(_OFF[1:])} or an empty value for off"
    )


def wanted_at_import(environ: Mapping[str, str]) -> Choice:
    """Return which implementation an import of opero must choose.

    Args:
        environ: The environment.

    Returns:
        "plain" or "compiled" if a switch insists on it, else "auto".

    Raises:
        SwitchError: If both switches are on, or one has an invalid value.
    """
    plain = is_on(PURE_PYTHON, environ)
    compiled = is_on(REQUIRE_COMPILED, environ)
    if plain and compiled:
        raise SwitchError(
            f"{PURE_PYTHON} and {REQUIRE_COMPILED} are both on and contradict each other: "
            f"unset one of them"
        )
    return "plain" if plain else "compiled" if compiled else "auto"


def wanted_at_build(environ: Mapping[str, str], setting: Any = None) -> Choice:
    """Return what a build must produce.

    Args:
        environ: The environment.
        setting: The value of the config setting `build`; a list if it was given more than once;
            None if it was not given. It takes precedence over the environment variable.

    Returns:
        "compiled" or "plain" if the build must be that; "auto" for compiled if possible.

    Raises:
        SwitchError: If a value is not one of `CHOICES`, or if it is "plain" and
            `OPERO_REQUIRE_COMPILED` is on.
    """
    values = setting if isinstance(setting, (list, tuple)) else [setting]
    choices = {_choice(SETTING, value) for value in values if value not in (None, "")}
    if len(choices) > 1:
        raise SwitchError(f"{SETTING}= was given more than once, as {', '.join(sorted(choices))}")
    choice = choices.pop() if choices else _choice(BUILD, environ.get(BUILD, ""))
    if is_on(REQUIRE_COMPILED, environ):
        if choice == "plain":
            raise SwitchError(
                f"you asked for a plain build, but {REQUIRE_COMPILED} is on: change one of them"
            )
        return "compiled"
    return choice


def _choice(name: str, value: object) -> Choice:
    """Read `value` of the setting or variable `name`; empty means "auto"."""
    word = str(value).strip().lower()
    if not word:
        return "auto"
    for choice in CHOICES:
        if word == choice:
            return choice
    raise SwitchError(f"{name}={value!r}: use one of {', '.join(CHOICES)}")
