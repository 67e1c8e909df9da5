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

DEPENDENCIES = [
    "cloudpickle>=3.0,<4",
    "tqdm>=4.66",
    "uvloop>=0.19; sys_platform != 'win32' and platform_python_implementation != 'PyPy'",
    "xxhash>=3.4",
]
if not sysconfig.get_config_var("Py_GIL_DISABLED"):
    # It has no wheels without the lock, which no marker tells, nor on 3.15. opero works without it.
    DEPENDENCIES.append(
        "orjson>=3.10; platform_python_implementation != 'PyPy' and python_version < '3.15'"
    )

if __name__ == "__main__":
    from build_backend.hooks import steer

    setup(install_requires=DEPENDENCIES, **steer(LIBRARY))
