"""The module of cloudpickle, imported here for all of opero.

From 7.3.22 on, PyPy's `pickle.Pickler` is built in, like CPython's. cloudpickle up to 3.1 expects
the one written in Python, so its import fails (its issue 592). This module provides that one during
the import.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any

_pickle: Any = pickle
_usual = pickle.Pickler

if sys.implementation.name == "pypy" and not hasattr(_usual, "dispatch"):
    _pickle.Pickler = _pickle._Pickler
try:
    from cloudpickle import cloudpickle as cloudpickle  # noqa: PLC0414 - for others to import
finally:
    _pickle.Pickler = _usual
