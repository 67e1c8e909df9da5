"""Declares what is compiled and what opero needs; all else is in `pyproject.toml`.

Each source becomes a module of `opero._compiled` under its own name; one library holds them all.
They are the very files that also run as plain Python, except for the four twins that are written
for C. Their names agree with `opero.hotpath.MODULES`; a test says so.
"""

import sysconfig

from setuptools import Extension, setup

LIBRARY = Extension(
    "opero._compiled.library",
    [
        "src/opero/core/adaptive_bucket.py",
        "src/opero/core/attempts.py",
        "src/opero/core/binding.py",
        "src/opero/core/breaker.py",
        "src/opero/core/bucket.py",
        "src/opero/_compiled/call.pyx",
        "src/opero/core/canonical.py",
        "src/opero/core/chunk.py",
        "src/opero/_compiled/clock.pyx",
        "src/opero/core/deadline.py",
        "src/opero/core/decompose.py",
        "src/opero/_compiled/entry.pyx",
        "src/opero/core/events.py",
        "src/opero/core/fallback.py",
        "src/opero/core/flight.py",
        "src/opero/core/function.py",
        "src/opero/core/gate.py",
        "src/opero/core/keys.py",
        "src/opero/core/outcomes.py",
        "src/opero/core/rate_control.py",
        "src/opero/core/remote_breaker.py",
        "src/opero/core/retrying.py",
        "src/opero/core/shared_adaptive_bucket.py",
        "src/opero/core/shared_breaker.py",
        "src/opero/core/shared_bucket.py",
        "src/opero/_compiled/shared_counters.pyx",
        "src/opero/core/state.py",
        "src/opero/core/store.py",
        "src/opero/core/traced.py",
    ],
)

HAS_UVLOOP = "(sys_platform == 'linux' or sys_platform == 'darwin')"
"""Where uvloop has wheels, on CPython."""


def requires(for_any_python: bool) -> list[str]:
    """Return what opero depends on: each has wheels for everybody who gets it.

    orjson has none without the interpreter's lock, which no marker tells, and its wheels for 3.15
    on Linux need glibc 2.39. opero works without it, and without uvloop.

    Args:
        for_any_python: Whether every Python may install what is built, not only the present one.
    """
    if for_any_python:
        newest = "3.13"  # from 3.14 on opero is for builds without the lock too
    elif sysconfig.get_config_var("Py_GIL_DISABLED"):
        newest = ""
    else:
        newest = "3.14"
    cpython = "platform_python_implementation == 'CPython'"
    orjson = f"orjson>=3.10; {cpython} and python_version <= '{newest}'"
    return [
        "cloudpickle>=3.0,<4",
        *([orjson] if newest else []),
        "tqdm>=4.66",
        f"uvloop>=0.19; {HAS_UVLOOP} and {cpython}",
        "xxhash>=3.4",
    ]


if __name__ == "__main__":
    from build_backend.hooks import steer

    setup(**steer(LIBRARY, requires))
