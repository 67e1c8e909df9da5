"""The attributes of a decorated function that otherwise only a function made by `def` has.

Its code is that of a small function that calls the decorated one, like a `functools.wraps` wrapper.
It has the parameters, the name, the file and the line of the user's function, because tools look
there. It is not the user's code: a copy made from a function's parts, as cloudpickle makes it,
leads to the decoration.
"""

from __future__ import annotations

import builtins
import sys
from types import CellType, CodeType, FunctionType
from typing import Any

from .copies import HANDLE, Handle, is_forwarding
from .exceptions import OperoError

_FORWARD = """\
def outer({handle}):
    def {name}({parameters}):
        return {handle}.function({arguments})
"""

_FORWARD_AWAITED = """\
def outer({handle}):
    async def {name}({parameters}):
        return await {handle}.function({arguments})
"""


_FORWARD_ITEMS = """\
def outer({handle}):
    def {name}({parameters}):
        return (yield from {handle}.function({arguments}))
"""

_FORWARD_AWAITED_ITEMS = """\
def outer({handle}):
    async def {name}({parameters}):
        {handle}_items = {handle}.function({arguments})
        try:
            {handle}_item = await {handle}_items.__anext__()
            while True:
                try:
                    {handle}_sent = yield {handle}_item
                except GeneratorExit:
                    await {handle}_items.aclose()
                    raise
                except BaseException as {handle}_thrown:
                    {handle}_item = await {handle}_items.athrow({handle}_thrown)
                else:
                    {handle}_item = await {handle}_items.asend({handle}_sent)
        except StopAsyncIteration:
            return
"""


def of_function(state: Any, name: str) -> Any:
    """Return `__defaults__`, `__kwdefaults__`, `__globals__` or `__builtins__`."""
    plain = _plain(state)
    if plain is not None and hasattr(plain, name):  # on PyPy, functions have no `__builtins__`
        return getattr(plain, name)
    if name == "__globals__":
        module = sys.modules.get(getattr(state.func, "__module__", None) or "")
        return {} if module is None else vars(module)
    return vars(builtins) if name == "__builtins__" else None


def closure_of(function: Any) -> tuple[CellType]:
    """Return the closure for the code of a decorated function."""
    return (CellType(Handle(function)),)


def code_of(state: Any) -> CodeType:
    """Return the code of a function that only calls the decorated one."""
    plain = _plain(state)
    code: CodeType | None = None if plain is None else plain.__code__
    parameters, arguments, taken = "*args, **kwargs", "*args, **kwargs", {"args", "kwargs"}
    if code is not None and not state.maps:
        parameters, arguments, taken = _spelled(code)
    handle = HANDLE
    while handle in taken:
        handle += "_"
    if not state.maps and state.generate is not None:
        template = _FORWARD_AWAITED_ITEMS if state.awaited else _FORWARD_ITEMS
    else:
        template = _FORWARD_AWAITED if state.awaited else _FORWARD
    text = template.format(
        handle=handle, name="forward", parameters=parameters, arguments=arguments
    )
    made = _inner(_inner(compile(text, "<opero>", "exec")))
    name = getattr(state.func, "__name__", None) or state.name.rpartition(".")[2]
    made = made.replace(co_name=name, co_qualname=state.name)
    if code is not None:
        made = made.replace(co_filename=code.co_filename, co_firstlineno=code.co_firstlineno)
    return made


def check_code(state: Any, code: Any) -> None:
    """Refuse to replace a decorated function's code with that of another function.

    IPython's `%autoreload` replaces the code of functions whose files have changed. A decorated
    function keeps its code; this error makes IPython reload the module.

    Raises:
        OperoError: If the code is that of another function.
    """
    if isinstance(code, CodeType) and not is_forwarding(code):
        raise OperoError(
            f"you cannot replace the code of {state.name}, because it is decorated; its own code "
            f"is in __wrapped__. Decorate the new function, or reload its module"
        )


def _plain(state: Any) -> Any:
    """Return the function that was decorated, if `def` made it; else None."""
    return state.func if type(state.func) is FunctionType else None


def _inner(code: CodeType) -> CodeType:
    """Return the code of the only function in some code."""
    return next(each for each in code.co_consts if isinstance(each, CodeType))


def _spelled(code: CodeType) -> tuple[str, str, set[str]]:
    """Return a function's parameters, the arguments that pass them on, and their names."""
    names = list(code.co_varnames)
    first = names[: code.co_argcount]
    last = names[code.co_argcount :][: code.co_kwonlyargcount]
    rest = names[code.co_argcount + code.co_kwonlyargcount :]
    parameters = list(first)  # the code does not say which have defaults
    arguments = list(first)
    if code.co_posonlyargcount:
        parameters.insert(code.co_posonlyargcount, "/")
    if code.co_flags & 0x04:  # CO_VARARGS
        star = rest.pop(0)
        parameters.append(f"*{star}")
        arguments.append(f"*{star}")
    elif last:
        parameters.append("*")
    parameters += last
    arguments += [f"{name}={name}" for name in last]
    if code.co_flags & 0x08:  # CO_VARKEYWORDS
        starstar = rest.pop(0)
        parameters.append(f"**{starstar}")
        arguments.append(f"**{starstar}")
    return ", ".join(parameters), ", ".join(arguments), {*names}
