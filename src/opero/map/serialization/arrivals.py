"""Where functions and classes arrive that travel by value.

A worker does not run the script that it works for. What arrives from it forms a `World`: one
namespace for each of the script's modules, and each function and class once, however many pickles
contain it. So functions share their globals, as in the script, and keep what they set there until
the map ends.

Each has a token that both sides know. On the way back the token is enough: the caller uses it to
find its own function or class in its current state.
"""

from __future__ import annotations

import contextvars
import linecache
import os
import sys
import threading
import types
import weakref
from importlib import import_module
from typing import Any

from opero.locks import Lock


class World:
    """What has arrived by value for one map.

    Attributes:
        namespaces: The globals of functions, by the token of their module; None to share none.
        things: Functions and classes, by token.
        bare: The tokens of those that exist but do not have their contents yet.
        values: The context variables that arrived with a value, and that value.
        modules: The modules whose namespaces are the globals of functions, by the `id` of these.
    """

    def __init__(self, namespaces: dict[str, dict[str, Any]] | None = None) -> None:
        self.namespaces = namespaces
        self.things: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        self.bare: set[str | None] = set()
        self.modules: dict[int, types.ModuleType] = {}
        self.values: dict[contextvars.ContextVar[Any], Any] = {}
        self._before: list[contextvars.Token[Any]] = []

    def set(self, variable: contextvars.ContextVar[Any], value: Any) -> None:
        """Set a context variable while this world is the current one."""
        self.values[variable] = value
        self._before.append(variable.set(value))

    def begin(self) -> None:
        """Set the context variables to their values."""
        self._before = [variable.set(value) for variable, value in self.values.items()]

    def end_unchanged(self) -> None:
        """Reset the variables that still have these values; the others stay."""
        self._before = [each for each in self._before if each.var.get() is self.values[each.var]]
        self.end()

    def end(self) -> None:
        """Reset the variables."""
        while self._before:
            token = self._before.pop()
            try:
                token.var.reset(token)
            except ValueError:
                pass  # another context, now gone, set it


class Origin:
    """A snapshot of a world, from which further worlds begin.

    It resets the world's context variables, unless they have other values by now.
    """

    def __init__(self, world: World) -> None:
        world.end_unchanged()
        self._namespaces = {
            token: (space, dict(space)) for token, space in (world.namespaces or {}).items()
        }
        self._things = dict(world.things)

    def world(self) -> World:
        """Return a world that begins from the snapshot; this ends earlier ones."""
        spaces: dict[str, dict[str, Any]] = {}
        for token, (space, names) in self._namespaces.items():
            space.update(names)
            for name in [name for name in space if name not in names]:
                del space[name]
            spaces[token] = space
        world = World(spaces)
        world.things.update(self._things)
        return world


class _Current(threading.local):
    """The world into which a thread currently unpickles."""

    def __init__(self) -> None:
        self.world = World()


_current = _Current()
_tokens: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
_known: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_classes: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
"""Classes that have arrived: every world has the same ones, because objects outlive a map."""

_variables: dict[str, contextvars.ContextVar[Any]] = {}
_variable_tokens: dict[contextvars.ContextVar[Any], str] = {}
_making = Lock()

_owners: dict[int, weakref.ref[Any]] = {}
"""Functions that share globals outside modules, by the `id` of the globals."""

_home = ""
_made = 0
_process = 0


def enter(world: World | None = None) -> World:
    """Make this thread unpickle into a world, a new one by default; return it."""
    if _current.world is not world:
        _current.world.end()
        _current.world = World({}) if world is None else world
        _current.world.begin()
    return _current.world


def _here() -> str:
    """Return the prefix of this process's tokens."""
    global _home, _process
    if _process != os.getpid():
        _home, _process = os.urandom(8).hex(), os.getpid()
    return _home


def token_of(thing: Any) -> str | None:
    """Return an object's token; None if it cannot have one."""
    global _made  # noqa: PLW0603 - a counter
    try:
        token = _tokens.get(thing)
        if token is None:
            _made += 1
            token = _tokens.setdefault(thing, f"{_here()}-{_made}-{id(thing):x}")
            _known[token] = thing
    except TypeError:  # it allows no weak references, or has no hash
        return None
    return token


def share_globals(function: Any) -> None:
    """Share a function's globals with others, although they belong to no module."""
    while not hasattr(function, "__globals__"):
        for name in ("func", "__func__", "__wrapped__"):
            if hasattr(function, name):
                function = getattr(function, name)
                break
        else:
            return
    place = id(function.__globals__)
    if _owner_of(function.__globals__) is None:
        _owners[place] = weakref.ref(function, lambda _: _owners.pop(place, None))


def _owner_of(place: dict[str, Any]) -> Any:
    """Return the function that shares these globals, if there is one."""
    known = _owners.get(id(place))
    owner = None if known is None else known()
    return owner if owner is not None and owner.__globals__ is place else None


def token_of_globals(place: dict[str, Any]) -> str | None:
    """Return the token of a function's globals; None if nothing shares them."""
    module = sys.modules.get(place.get("__name__", ""))
    if module is not None and getattr(module, "__dict__", None) is place:
        return token_of(module)
    owner = _owner_of(place)
    return None if owner is None else f"{token_of(owner)}-globals"


def is_guest(token: str) -> bool:
    """Return whether the token belongs to something from another process."""
    return not token.startswith(_here())


class Inside:
    """A mark in a pickle where what code refers to begins or ends."""

    def __init__(self, step: int) -> None:
        """Take the change of depth: 1 where it begins, -1 where it ends."""
        self.step = step


def code_of(function: Any) -> tuple[Inside, Any, Inside]:
    """Return a function between marks that say that it is code."""
    return Inside(1), function, Inside(-1)


# --- what pickles call ----------------------------------------------------------------------------


def at_home(token: str, name: str) -> Any:
    """Return this process's own object that has come back."""
    thing = _known.get(token)
    if thing is None:
        raise LookupError(f"{name} is gone: nothing in this process refers to it anymore")
    return thing


def arrive(token: str | None, make: Any, args: tuple[Any, ...]) -> Any:
    """Return the function or class with a token: the known one, or a new one."""
    if token is None:
        return make(*args)
    if not is_guest(token) and token in _known:
        return at_home(token, "it")
    world = _current.world
    thing = world.things.get(token)
    if thing is None:
        thing = _classes.get(token)
        if thing is None:
            thing = make(*args)
            _tokens[thing] = token
            _known[token] = thing
            if isinstance(thing, type):
                _classes[token] = thing
        world.things[token] = thing
        world.bare.add(token)
    return thing


def settle(thing: Any, state: tuple[str | None, Any, Any, Any, Any]) -> None:
    """Give an object its contents, unless it has them."""
    token, give, _, contents, _ = state
    bare = _current.world.bare
    if token is None or token in bare:
        bare.discard(token)
        give(thing, contents)


def settle_function(function: types.FunctionType, state: Any) -> None:
    """Give a function its contents; its namespace keeps its present values."""
    from .cloud import cloudpickle

    attributes, slots = state
    present = function.__globals__
    given = slots["__globals__"]
    slots["__globals__"] = {name: given[name] for name in given if name not in present}
    cloudpickle._function_setstate(function, (attributes, slots))


def settle_class(kind: type, state: Any) -> None:
    """Give a class its contents; decorated functions among them bind as they do in the script."""
    from opero.copies import leave_places

    from .cloud import cloudpickle

    cloudpickle._class_setstate(kind, state)
    leave_places(kind, state[0], take_place)


def take_place(before: Any, after: Any) -> None:
    """Give an object the token of the one that it replaces."""
    token = _tokens.get(before)
    if token is not None:
        _tokens[after] = token
        _known[token] = after
        _current.world.things[token] = after


def settle_enum(kind: Any, state: Any) -> None:
    """Give an enumeration its contents, and its members what their `__init__` set."""
    from .cloud import cloudpickle

    contents, slots, members = state
    cloudpickle._class_setstate(kind, (contents, slots))
    for name, attributes in members.items():
        vars(kind.__members__[name]).update(attributes)


def skeleton(
    meta: Any,
    name: str,
    bases: tuple[Any, ...],
    names: dict[str, Any],
    tracker: str | None,
    extra: Any,  # noqa: ARG001 - cloudpickle has one to spare
) -> Any:
    """Make a class without its contents, and without running the script's hooks.

    The effects of a base's `__init_subclass__` or a metaclass's `__init__` travel as contents.
    """
    from .cloud import cloudpickle

    names = {sys.intern(each): value for each, value in names.items()}
    hooks = [
        (base, vars(base)["__init_subclass__"])
        for base in dict.fromkeys(each for base in bases for each in base.__mro__)
        if "__init_subclass__" in vars(base) and _has_arrived(base)
    ]
    maker = next(each for each in meta.__mro__ if not _has_arrived(each))
    with _making:
        for base, _ in hooks:
            del base.__init_subclass__
        try:
            if maker is meta:
                made = types.new_class(
                    name, bases, {"metaclass": meta}, lambda space: space.update(names)
                )
            else:
                made = maker.__new__(meta, name, bases, names)
        finally:
            for base, hook in hooks:
                base.__init_subclass__ = hook
    return cloudpickle._lookup_class_or_track(tracker, made)


def _has_arrived(kind: type) -> bool:
    token = _tokens.get(kind)
    return token is not None and is_guest(token)


def token_of_variable(variable: contextvars.ContextVar[Any]) -> str:
    """Return the token of a context variable."""
    token = _variable_tokens.get(variable)
    if token is None:
        token = _variable_tokens.setdefault(variable, f"{_here()}-{id(variable):x}")
        _variables[token] = variable
    return token


def variable(
    token: str, name: str, place: tuple[str, str] | None, default: list[Any]
) -> contextvars.ContextVar[Any]:
    """Return the context variable with a token: the known one, or a new one."""
    known = _variables.get(token)
    if known is None:
        if place is not None:
            known = getattr(import_module(place[0]), place[1])
        elif default:
            known = contextvars.ContextVar(name, default=default[0])
        else:
            known = contextvars.ContextVar(name)
        _variables[token] = known
        _variable_tokens[known] = token
    return known


def set_variable(variable: contextvars.ContextVar[Any], value: list[Any]) -> None:
    """Give a context variable the caller's value, once per world."""
    if value and variable not in _current.world.values:
        _current.world.set(variable, value[0])


class Namespace:
    """The globals of a function, on their way."""

    def __init__(self, token: str | None, names: dict[str, Any]) -> None:
        """Identify the namespace.

        Args:
            token: Its token; None if it belongs to no module and only this pickle shares it.
            names: Its initial contents.
        """
        self._token = token
        self._names = names

    def __reduce__(self) -> Any:
        return namespace, (self._token, self._names)


def namespace(token: str | None, names: dict[str, Any]) -> dict[str, Any]:
    """Return the globals with a token: the known ones, or new ones."""
    shared = _current.world.namespaces
    if token is None or shared is None:
        return names
    if token not in shared:
        module = types.ModuleType(names.get("__name__", "?"))
        own = vars(module)
        own.clear()
        own.update(names)
        shared[token] = own
        _current.world.modules[id(own)] = module
    return shared[token]


def module_of(namespace: dict[str, Any]) -> types.ModuleType | None:
    """Return the module in this world with this namespace; None if there is none."""
    return _current.world.modules.get(id(namespace))


def code(
    make: Any, args: tuple[Any, ...], file: str, lines: list[str] | None, by_code: bool
) -> Any:
    """Return a code object with its file name, whose lines tracebacks and warnings can show.

    Args:
        make: What makes the code object.
        args: Its arguments.
        file: The name of the file.
        lines: The lines of the file, if they cannot be read from it.
        by_code: Whether to keep the lines for this code alone, because files share this name.
    """
    made = make(*args)
    if made.co_filename != file:
        made = made.replace(co_filename=file)
    if lines is not None:
        register: Any = getattr(linecache, "_register_code", None)
        if by_code and register is not None:
            register(made, "".join(lines), file)
        else:
            linecache.cache[file] = sum(map(len, lines)), None, lines, file
    return made
