"""cloudpickle, extended: it sends by value what no worker can import, such as a script's functions.

On top of cloudpickle, functions and classes have tokens (see `arrivals`), code keeps its file and
lines, and `stand_ins` handles further types. Decorated functions arrive decorated (see
`opero.copies`).
"""

from __future__ import annotations

import io
import linecache
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from . import arrivals, handles, library_classes, module_by_value, stand_ins
from .cloud import cloudpickle as cloud

_MAIN = frozenset({"__main__", "__mp_main__"})
_LATER = sys.version_info[:2] >= (3, 14)  # annotations are evaluated lazily


TYPE_CHECKING = False
if TYPE_CHECKING:
    from pickle import Pickler as _Pickler

    class _CloudPickler(_Pickler):
        def __init__(self, file: Any, protocol: int, buffer_callback: Any) -> None: ...
        def _dynamic_function_reduce(self, func: Any) -> Any: ...
        def _function_getnewargs(self, func: Any) -> Any: ...
        def _function_reduce(self, func: Any) -> Any: ...

else:
    _CloudPickler = cloud.Pickler


class Pickler(_CloudPickler):
    """Pickle functions and classes by value if workers cannot import them by name.

    Attributes:
        apart: The names of modules whose functions and classes go by value, importable or not.
        back: Whether what came from the other side goes back there by its token.
        fresh: Whether to recreate objects of one process, such as a lock; 0 to refuse them. What
            functions and classes refer to is always recreated.
        files: The files of code, and whether they exist.
        trial: Whether nobody will unpickle the result, so that modules need no contents.
    """

    trial = False

    def __init__(
        self,
        file: io.BytesIO,
        protocol: int = 5,
        buffer_callback: Callable[[Any], Any] | None = None,
        *,
        back: bool = False,
        fresh: bool = False,
        apart: frozenset[str] = frozenset(),
    ) -> None:
        """Pickle into a file.

        Args:
            file: The file.
            protocol: The protocol.
            buffer_callback: See `pickle.Pickler`.
            back: See above.
            fresh: See above.
            apart: The names of modules other than the main one, see above.
        """
        super().__init__(file, protocol, buffer_callback)
        self.back = back
        self.fresh: int = int(fresh)
        self.apart: frozenset[str] = apart | _MAIN
        self.files: dict[str, bool] = {}
        self._reducers: dict[type, Callable[[Pickler, Any], Any]] = {}
        self._namespaces: dict[int, arrivals.Namespace] = {}

    def reducer_override(self, thing: Any) -> Any:
        """Return an object's reduced form; `NotImplemented` if pickle handles it as usual."""
        kind = type(thing)
        reducer = self._reducers.get(kind)
        if reducer is None:
            if issubclass(kind, type):
                reducer = _class
            elif isinstance(thing, FunctionType):
                reducer = _function
            elif kind is CodeType:
                reducer = _code
            elif kind is ModuleType:
                reducer = _module
            elif kind is arrivals.Inside:
                reducer = _inside
            else:
                reducer = stand_ins.reducer_of(kind) or handles.reducer_of(kind) or _as_usual
            self._reducers[kind] = reducer
        return reducer(self, thing)

    def wrap(self, thing: Any, make: Any, args: Any, settle: Any, state: Any) -> Any:
        """Return the reduced form of an object with a token.

        Args:
            thing: The function or class.
            make: The function that makes it without its contents.
            args: The arguments of `make`.
            settle: The function that gives it its contents.
            state: The contents.
        """
        token = arrivals.token_of(thing)
        if token is not None and self.back and arrivals.is_guest(token):
            return arrivals.at_home, (token, getattr(thing, "__qualname__", "it"))
        contents = token, settle, arrivals.Inside(1), state, arrivals.Inside(-1)
        return arrivals.arrive, (token, make, args), contents, None, None, arrivals.settle

    def _function_getnewargs(self, func: FunctionType) -> Any:
        made, names, *more = super()._function_getnewargs(func)
        place = func.__globals__
        shared = self._namespaces.get(id(place))
        if shared is None:
            token = arrivals.token_of_globals(place)
            shared = self._namespaces[id(place)] = arrivals.Namespace(token, names)
        return made, shared, *more


def _as_usual(pickler: Pickler, thing: Any) -> Any:  # noqa: ARG001 - as all reducers
    return NotImplemented


def _inside(pickler: Pickler, mark: arrivals.Inside) -> Any:
    pickler.fresh += mark.step
    return int, ()


def _function(pickler: Pickler, function: Any) -> Any:
    """Reduce a function: by its name, or by value."""
    if cloud.PYPY and isinstance(function.__code__, cloud.builtin_code_type):
        return NotImplemented
    try:
        found = _found(pickler, function, function)
    except Exception:
        if not _LATER or _has_annotations(function):
            raise
        found = _found(pickler, function, _with_texts(function))
    if found is NotImplemented:
        return found
    make, args, (attributes, parts) = found[:3]
    state = {name: each for name, each in attributes.items() if name not in _PARTS}, parts
    return pickler.wrap(function, make, args, arrivals.settle_function, state)


_PARTS = {"__builtins__", "__closure__", "__code__", "__globals__"}
"""The attributes that `%autoreload` may set on a decorated function."""


def _found(pickler: Pickler, function: Any, described: Any) -> Any:
    if getattr(function, "__module__", None) in pickler.apart:
        return pickler._dynamic_function_reduce(described)
    return pickler._function_reduce(described)


def _class(pickler: Pickler, kind: Any) -> Any:
    """Reduce a class: by its name, or by value."""
    module = getattr(kind, "__module__", None)
    if module == "_ctypes" and issubclass(kind, type):
        import ctypes

        for base in (ctypes.Structure, ctypes.Union, ctypes.Array, ctypes._Pointer):
            if type(base) is kind:  # these have no importable name
                return type, (base,)
    apart = module in pickler.apart
    found = cloud._dynamic_class_reduce(kind) if apart else cloud._class_reduce(kind)
    if found is NotImplemented or len(found) < 6:
        return found
    make, args, state, _, _, settle = found
    if issubclass(kind, Enum):
        members = {name: member.value for name, member in kind.__members__.items()}
        args = (*args[:3], members, *args[4:])
        contents = {name: each for name, each in state[0].items() if name not in members}
        more = {name: vars(member) for name, member in kind.__members__.items()}
        return pickler.wrap(kind, make, args, arrivals.settle_enum, (contents, state[1], more))
    if type(kind).__module__ == "msgspec._core":
        made = library_classes.of_struct(kind, args[3])
        contents = library_classes.rest_of_struct(state[0], kind)
        return pickler.wrap(kind, *made, arrivals.settle_class, (contents, *state[1:]))
    if type(kind).__name__ == "_TypedDictMeta":
        return pickler.wrap(kind, make, args, settle, state)
    names = args[3]
    early, contents = _made_with(kind, state[0])
    args = (*args[:2], kind.__bases__, {**names, **early}, *args[4:])
    state = contents, *state[1:]
    return pickler.wrap(kind, arrivals.skeleton, args, arrivals.settle_class, state)


def _made_with(kind: Any, contents: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a class must have when it is made, and what it gets later."""
    names = vars(kind)
    early = {name: names[name] for name in ("__slots__", "__orig_bases__") if name in names}
    early["__qualname__"] = kind.__qualname__
    if "_fields_" in names and type(kind).__module__ == "_ctypes":
        early.update((name, names[name]) for name in _OF_CTYPES if name in names)
        contents = {
            name: each for name, each in contents.items() if type(each).__name__ != "CField"
        }
    at_birth = {*early, *_private_slots(kind)}
    return early, {name: each for name, each in contents.items() if name not in at_birth}


def _private_slots(kind: Any) -> set[str]:
    """Return the names of a class's slots that begin with `__`, as mangled in the class."""
    slots = vars(kind).get("__slots__", ())
    names = [slots] if isinstance(slots, str) else slots
    prefix = "_" + kind.__name__.lstrip("_")
    return {prefix + name for name in names if name[:2] == "__" != name[-2:]}


_OF_CTYPES = ("_anonymous_", "_align_", "_pack_", "_layout_", "_fields_")


def _module(pickler: Pickler, module: ModuleType) -> Any:
    """Reduce a module: by its name, or by value."""
    name = module.__name__
    if name in _MAIN or (name not in pickler.apart and sys.modules.get(name) is module):
        return NotImplemented
    return module_by_value.reduced(pickler, module)


def _code(pickler: Pickler, code: CodeType) -> Any:
    """Reduce code with its file name, and with its lines if a worker cannot read the file."""
    file = code.co_filename
    lines: list[str] | None = None
    by_code = False
    if file not in pickler.files:
        pickler.files[file] = Path(file).exists()
    if not pickler.files[file]:
        lines = _lines_of_code(code)
        by_code = lines is not None
        if not by_code and file != "<string>":
            lines = linecache.getlines(file, vars(sys.modules["__main__"])) or None
    made, args = cloud._code_reduce(code)
    return arrivals.code, (made, args, file, lines, by_code)


def _lines_of_code(code: CodeType) -> list[str] | None:
    """Return the lines that this Python keeps of code that was typed in or passed to `-c`."""
    find: Any = getattr(linecache, "_getlines_from_code", None)
    return (find(code) or None) if find is not None else None


def _has_annotations(function: Any) -> bool:
    try:
        _ = function.__annotations__
    except Exception:  # noqa: BLE001 - they are expressions, and may raise anything
        return False
    return True


def _with_texts(function: FunctionType) -> FunctionType:
    """Return a copy of a function with string annotations, because they name what is missing."""
    from annotationlib import Format, get_annotations  # type: ignore[import-not-found, unused-ignore]

    copy = FunctionType(  # type: ignore[call-arg, unused-ignore]
        function.__code__, function.__globals__, function.__name__,
        function.__defaults__, function.__closure__, function.__kwdefaults__,
    )  # fmt: skip
    for name in ("__qualname__", "__module__", "__doc__", "__type_params__"):
        setattr(copy, name, getattr(function, name))
    vars(copy).update(vars(function))
    copy.__annotations__ = get_annotations(function, format=Format.STRING)
    return copy


def dumps(
    thing: Any,
    protocol: int = 5,
    buffer_callback: Callable[[Any], Any] | None = None,
    *,
    back: bool = False,
    fresh: bool = False,
    apart: frozenset[str] = frozenset(),
) -> bytes:
    """Pickle a value, with functions and classes of `__main__` and the like by value.

    Args:
        thing: The value.
        protocol: The protocol.
        buffer_callback: See `pickle.Pickler`.
        back: Whether it goes back to the process that sent the functions and classes.
        fresh: Whether to recreate locks and the like, rather than refuse them.
        apart: The names of further modules whose functions and classes go by value.

    Raises:
        Exception: Whatever a value that cannot be pickled raises.
    """
    with io.BytesIO() as file:
        pickler = Pickler(file, protocol, buffer_callback, back=back, fresh=fresh, apart=apart)
        pickler.dump(thing)
        pickler.clear_memo()
        return file.getvalue()
