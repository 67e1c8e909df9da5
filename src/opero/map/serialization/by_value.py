"""cloudpickle, which sends by value what no worker can import, as the functions of a script.

Decorated functions among them arrive decorated (see `opero.copies`).
"""

from __future__ import annotations

import sys
from typing import Any

import cloudpickle

if sys.version_info < (3, 14):
    dumps = cloudpickle.dumps
else:
    import io
    from types import FunctionType

    from annotationlib import Format, get_annotations

    class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        """Also sends a function whose annotations name what is not there: they become texts."""

        def reducer_override(self, thing: Any) -> Any:
            try:
                return super().reducer_override(thing)
            except Exception:
                if not isinstance(thing, FunctionType) or _has_annotations(thing):
                    raise
            return super().reducer_override(_with_texts(thing))

    def _has_annotations(function: FunctionType) -> bool:
        try:
            _ = function.__annotations__
        except Exception:  # noqa: BLE001 - they are expressions, and may raise anything
            return False
        return True

    def _with_texts(function: FunctionType) -> FunctionType:
        copy = FunctionType(
            function.__code__, function.__globals__, function.__name__,
            function.__defaults__, function.__closure__, function.__kwdefaults__,
        )  # fmt: skip
        for name in ("__qualname__", "__module__", "__doc__", "__type_params__"):
            setattr(copy, name, getattr(function, name))
        vars(copy).update(vars(function))
        copy.__annotations__ = get_annotations(function, format=Format.STRING)
        return copy

    def dumps(thing: Any, protocol: int, buffer_callback: Any = None) -> bytes:
        """Pickle something, functions of `__main__` and the like by value."""
        with io.BytesIO() as file:
            _Pickler(file, protocol, buffer_callback).dump(thing)
            return file.getvalue()
