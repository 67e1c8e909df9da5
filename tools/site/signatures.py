"""Gives a function with overloads the types that an editor shows for a call with options.

The implementation of such a function takes and returns `Any`. The overload with the most parameters
has the types. A type variable by which overloads differ stands for the values that an option takes;
the table of options has those.
"""

from __future__ import annotations

from typing import Any

import griffe

from opero.options import read_by


class TypesOfOverloads(griffe.Extension):
    """Copies types from the fullest overload to the implementation, where that has `Any`."""

    def __init__(self) -> None:
        self._fullest: dict[str, griffe.Function] = {}

    def on_function_instance(self, *, func: griffe.Function, **_kwargs: Any) -> None:
        """Remember an overload, or complete what comes behind the overloads."""
        if any(str(decorator.value) == "overload" for decorator in func.decorators):
            known = self._fullest.get(func.path)
            if known is None or len(known.parameters) < len(func.parameters):
                self._fullest[func.path] = func
        elif fullest := self._fullest.pop(func.path, None):
            _complete(func, fullest)


def _complete(function: griffe.Function, fullest: griffe.Function) -> None:
    types = {option.name: option.type for option in read_by(function.name)}
    typed = {parameter.name: parameter.annotation for parameter in fullest.parameters}
    for parameter in function.parameters:
        annotation = str(typed.get(parameter.name))
        if parameter.default == "_WORKER":  # how the implementation tells it from "worker"
            parameter.default = '"worker"'
        if annotation.endswith("T"):  # a type variable
            parameter.annotation = types[parameter.name]
        elif str(parameter.annotation) == "Any":
            parameter.annotation = typed.get(parameter.name, parameter.annotation)
    if str(function.returns) == "Any":
        function.returns = str(fullest.returns).partition("[")[0]
