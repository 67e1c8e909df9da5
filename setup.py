"""Declares the extension modules and what opero needs; all else is in `pyproject.toml`.

Each is compiled from the very file that also runs as plain Python, except for the four twins that
are written for C. Their names agree with `opero.hotpath.MODULES`; a test says so.
"""

import sysconfig

from setuptools import Extension, setup

EXTENSIONS = [
    Extension("opero._compiled.attempts", ["src/opero/core/attempts.py"]),
    Extension("opero._compiled.binding", ["src/opero/core/binding.py"]),
    Extension("opero._compiled.bucket", ["src/opero/core/bucket.py"]),
    Extension("opero._compiled.call", ["src/opero/_compiled/call.pyx"]),
    Extension("opero._compiled.canonical", ["src/opero/core/canonical.py"]),
    Extension("opero._compiled.chunk", ["src/opero/core/chunk.py"]),
    Extension("opero._compiled.clock", ["src/opero/_compiled/clock.pyx"]),
    Extension("opero._compiled.decompose", ["src/opero/core/decompose.py"]),
    Extension("opero._compiled.entry", ["src/opero/_compiled/entry.pyx"]),
    Extension("opero._compiled.events", ["src/opero/core/events.py"]),
    Extension("opero._compiled.fallback", ["src/opero/core/fallback.py"]),
    Extension("opero._compiled.flight", ["src/opero/core/flight.py"]),
    Extension("opero._compiled.function", ["src/opero/core/function.py"]),
    Extension("opero._compiled.gate", ["src/opero/core/gate.py"]),
    Extension("opero._compiled.keys", ["src/opero/core/keys.py"]),
    Extension("opero._compiled.outcomes", ["src/opero/core/outcomes.py"]),
    Extension("opero._compiled.retrying", ["src/opero/core/retrying.py"]),
    Extension("opero._compiled.shared_bucket", ["src/opero/core/shared_bucket.py"]),
    Extension("opero._compiled.shared_counters", ["src/opero/_compiled/shared_counters.pyx"]),
    Extension("opero._compiled.state", ["src/opero/core/state.py"]),
    Extension("opero._compiled.store", ["src/opero/core/store.py"]),
]

FREE_THREADED = frozenset(
    {
        "opero._compiled.attempts",
        "opero._compiled.binding",
        "opero._compiled.bucket",
        "opero._compiled.call",
        "opero._compiled.canonical",
        "opero._compiled.chunk",
        "opero._compiled.clock",
        "opero._compiled.decompose",
        "opero._compiled.entry",
        "opero._compiled.events",
        "opero._compiled.fallback",
        "opero._compiled.flight",
        "opero._compiled.function",
        "opero._compiled.gate",
        "opero._compiled.keys",
        "opero._compiled.outcomes",
        "opero._compiled.retrying",
        "opero._compiled.shared_bucket",
        "opero._compiled.shared_counters",
        "opero._compiled.state",
        "opero._compiled.store",
    }
)
"""The modules that are safe where threads run without the interpreter's lock (the GIL).

`tests/test_free_threading.py` has a stress test for each. One that is left out here makes a
free-threaded interpreter turn its lock on for good, so for users it is all of them or none.
"""

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

    setup(install_requires=DEPENDENCIES, **steer(EXTENSIONS, FREE_THREADED))
