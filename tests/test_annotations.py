"""Annotations that name what is not there yet when a function is decorated.

Since Python 3.14 such a name needs no quotes; before, it stands in them here.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import typing
from types import SimpleNamespace
from typing import Any

import pytest

from opero import hotpath, opero, opmap
from opero.map.serialization import by_value

LATER = "Node" if sys.version_info >= (3, 14) else "'Node'"
SOURCE = f"""
def plain(node: {LATER}, depth: int = 1) -> {LATER}:
    return node

cached = opero(cache=True)(plain)
fallback = opero(arg_fallback={{"node": [0]}})(plain)
mapped = opmap(mode="thread")(plain)
in_processes = opmap(mode="process", workers=1)(plain)

def countdown(node: {LATER}) -> {LATER}:
    return node and countdown(node - 1)

countdown.mark = "mine"
countdown_cached = opero(cache=True)(countdown)

class Tree:
    def plain(self, node: {LATER}, depth: int = 1) -> {LATER}:
        return node

    cached = opero(cache=True)(plain)
    of_class = classmethod(plain)
    of_class_cached = opero(cache=True)(of_class)
"""


ELSEWHERE = """
import json, pickle, sys
arrived = pickle.load(sys.stdin.buffer)
itself = arrived.__globals__["countdown"] is arrived
print(json.dumps([arrived(3), arrived.__annotations__, arrived.mark, arrived.__qualname__, itself]))
"""
"""What another process finds; in this one a function that goes by value comes back as itself."""


@pytest.fixture
def written(core: hotpath.Core) -> SimpleNamespace:
    """What `SOURCE` defines; `Node` is not among it."""
    names: dict[str, Any] = {"__name__": "__main__", "opero": opero, "opmap": opmap}
    exec(compile(SOURCE, "source", "exec", dont_inherit=True), names)
    names["globals"] = names
    return SimpleNamespace(**names)


def parameters_of(function: Any) -> list[str] | str:
    """Name the parameters of a function, or the error that its signature is since Python 3.14."""
    try:
        return list(inspect.signature(function).parameters)
    except NameError as error:
        return str(error)


def test_a_function_is_decorated_and_called_before_its_annotations_make_sense(
    written: SimpleNamespace,
) -> None:
    """No type is needed to call it, or to tell its arguments apart."""
    tree = written.Tree()
    for call in (written.cached, written.fallback, tree.cached, tree.of_class_cached):
        assert [call(7), call(node=7, depth=1)] == [7, 7]
    assert [written.cached.stats().hits, tree.cached.stats().hits] == [1, 1]
    assert written.mapped([7, 8], depth=2) == [7, 8]
    assert parameters_of(tree.cached) == parameters_of(tree.plain)
    with pytest.raises(ValueError, match="has no parameter of that name"):
        opero(arg_fallback="leaf")(written.plain)


def test_annotations_are_read_when_they_are_asked_for(written: SimpleNamespace) -> None:
    """As those of an undecorated function are, with the same result."""
    node = written.globals["Node"] = type("Node", (), {})
    tree = written.Tree()
    for wrapper, function in [
        *((each, written.plain) for each in (written.cached, written.fallback, written.mapped)),
        (written.Tree.cached, written.Tree.plain),
        (tree.cached, tree.plain),
        (tree.of_class_cached, tree.of_class),
    ]:
        assert wrapper.__annotations__ == function.__annotations__
        assert typing.get_type_hints(wrapper) == {"node": node, "depth": int, "return": node}
        assert inspect.signature(wrapper) == inspect.signature(function)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated at once")
def test_an_annotation_that_names_nothing_is_the_same_error_as_without_opero(
    written: SimpleNamespace,
) -> None:
    """A wrapper does not hide it, and has other formats for those who ask."""
    import annotationlib

    for wrapper in (written.cached, written.mapped, written.Tree().cached):
        with pytest.raises(NameError, match="'Node' is not defined"):
            _ = wrapper.__annotations__
        texts = annotationlib.get_annotations(wrapper, format=annotationlib.Format.STRING)
        assert texts == {"node": "Node", "depth": "int", "return": "Node"}


def test_a_function_travels_although_its_annotations_name_nothing(
    written: SimpleNamespace,
) -> None:
    """As a text says what is not there, texts arrive; all else is as it was."""
    assert written.in_processes([7, 8], depth=2) == [7, 8]
    for function in (written.countdown, written.countdown_cached):
        ran = subprocess.run(
            [sys.executable, "-c", ELSEWHERE],
            input=by_value.dumps(function, 5), capture_output=True, check=True,
        )  # fmt: skip
        result, annotations, *names, again = json.loads(ran.stdout)
        assert [result, *names] == [0, "mine", "countdown"]
        assert annotations == {"node": "Node", "return": "Node"}
        assert again == (function is written.countdown)


def test_what_cannot_travel_is_told_whatever_the_annotations(written: SimpleNamespace) -> None:
    """The error is that of what the function refers to."""
    names = {"__name__": "__main__", "stuck": sys._getframe()}
    source = f"def function(node: {LATER}) -> object:\n    return stuck"
    exec(compile(source, "source", "exec", dont_inherit=True), names)
    with pytest.raises(TypeError, match="frame"):
        by_value.dumps(names["function"], 5)
