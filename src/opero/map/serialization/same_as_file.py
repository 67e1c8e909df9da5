"""Whether a module in memory matches the present contents of its file.

The file may have changed since the import, or something such as IPython's `%autoreload` may have
patched the module to match its file. Functions and methods are compared by their code. Numbers,
strings, and lists, sets and dicts of these at the top level are compared by value. Anything else
does not count, nor does a list or dict that is empty in the file or that the module changes.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from .fingerprints import described

_LITERALS = {bool, bytes, complex, dict, float, int, list, set, str, tuple, type(None)}

_SIMPLE = (ast.Constant, ast.operator, ast.unaryop, ast.expr_context, ast.BinOp, ast.UnaryOp)
_DISPLAYS = (ast.Dict, ast.List, ast.Set, ast.Tuple)

_CHANGES = {"add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove"}
_CHANGES |= {"reverse", "setdefault", "sort", "update"}


def same_as_file(namespace: dict[str, Any], path: str) -> bool:
    """Return whether the functions and constants of a module match those in its file.

    Args:
        namespace: The module's namespace.
        path: Its Python file.
    """
    try:
        tree = ast.parse(Path(path).read_bytes(), path)
        code = compile(tree, path, "exec", dont_inherit=True)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return False
    there = {(each.co_name, described(each)) for each in _within(code)}
    return all(
        (each.co_name, described(each)) in there
        for each in _codes(namespace, namespace.get("__name__"), set())
        if each.co_filename == path
    ) and _same_constants(namespace, tree, _bound_once(tree))


# --- code -----------------------------------------------------------------------------------------


def _within(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _within(constant)


def _codes(namespace: Any, module: Any, seen: set[int]) -> Iterator[CodeType]:
    """Yield the code of all functions in a module or in one of its classes."""
    for thing in list(namespace.values()):
        if issubclass(type(thing), type):
            if thing.__module__ == module and id(thing) not in seen:
                seen.add(id(thing))
                yield from _codes(vars(thing), module, seen)
            continue
        for function in _functions(thing):
            if function.__module__ == module:
                yield function.__code__


def _functions(thing: Any) -> list[FunctionType]:
    """Return the functions that an object in a namespace consists of."""
    kind = type(thing)  # a lazy object may do anything when its `__class__` is read
    if issubclass(kind, property):
        found = [thing.fget, thing.fset, thing.fdel]
    elif issubclass(kind, cached_property):
        found = [thing.func]
    elif issubclass(kind, (classmethod, staticmethod)):
        found = [thing.__func__]
    else:
        found = [thing]
    functions: list[FunctionType] = []
    while found and len(functions) < _DEPTH:
        each = found.pop()
        if type(each) is FunctionType:
            functions.append(each)
        inner = _wrapped(each)
        if inner is not None:
            found.append(inner)
    return functions


_DEPTH = 20  # the most wrappers around a function


def _wrapped(thing: Any) -> Any:
    try:
        return object.__getattribute__(thing, "__dict__").get("__wrapped__")
    except AttributeError:
        return None


# --- constants ------------------------------------------------------------------------------------


def _same_constants(namespace: Any, node: ast.Module | ast.ClassDef, constant: set[str]) -> bool:
    """Return whether names have the values that a module, or one of its classes, assigns once."""
    for name, value in _literals(node.body):
        here = namespace.get(name, ...)
        known = name in constant and type(here) in _LITERALS
        if known and (type(here), here) != (type(value), value):
            return False
    return all(
        _same_constants(vars(namespace[inner.name]), inner, constant)
        for inner in node.body
        if isinstance(inner, ast.ClassDef) and type(namespace.get(inner.name)) is type
    )


def _literals(body: list[ast.stmt]) -> Iterator[tuple[str, Any]]:
    """Yield each name to which a literal is assigned, and the literal's value."""
    for node in body:
        if isinstance(node, ast.Assign):
            targets: list[ast.expr] = node.targets
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        else:
            continue
        assert node.value is not None
        if not all(isinstance(each, _SIMPLE + _DISPLAYS) for each in ast.walk(node.value)):
            continue
        value = eval(compile(ast.Expression(node.value), "<constant>", "eval"))
        if value not in ([], {}):  # empty ones are often filled later
            yield from ((each.id, value) for each in targets if isinstance(each, ast.Name))


def _bound_once(tree: ast.Module) -> set[str]:
    """Return the names that a module binds in only one place; others change as it runs."""
    times: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            times[node.id] += 1
        elif isinstance(node, (ast.Attribute, ast.Subscript)):
            times.update(_changed(node))
        elif isinstance(node, ast.Global):
            times.update(node.names)
        elif isinstance(node, ast.alias):
            times[node.asname or node.name] += 1
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            times[node.name] += 1
    return {name for name, count in times.items() if count == 1}


def _changed(node: ast.Attribute | ast.Subscript) -> list[str]:
    """Return the name of the list or dict that a piece of code may change."""
    if isinstance(node, ast.Attribute):
        changes = node.attr in _CHANGES
    else:
        changes = not isinstance(node.ctx, ast.Load)
    return [node.value.id] if changes and isinstance(node.value, ast.Name) else []
