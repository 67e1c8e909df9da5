"""Suggests the nearest parameter when a class of opero gets an unknown keyword."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class KnownParameters:
    """Base of a class whose `__init__` accepts only the keywords that it names."""

    __slots__ = ()

    if not TYPE_CHECKING:

        def __new__(cls, *_: Any, **given: Any) -> Any:
            """Refuse other keywords before `__init__` does it in other words."""
            code = cls.__init__.__code__
            known = code.co_varnames[1 : 1 + code.co_argcount - 1 + code.co_kwonlyargcount]
            for name in given:
                if name not in known and cls.__module__.startswith("opero."):  # others take more
                    from opero.options.hints import no_parameter

                    raise TypeError(no_parameter(cls.__name__, name, known))
            return super().__new__(cls)
