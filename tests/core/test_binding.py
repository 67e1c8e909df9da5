"""Binding: every spelling of one call makes one key, and calls that do not fit are refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signatures import PARAMETER, bound_by_python, calls, signatures, told_apart

from opero import CacheKeyError, hotpath

CALLS = calls(st.integers(0, 3))


def binding(core: hotpath.Core, function: Callable[..., Any], skip: int = 0) -> Any:
    """Bind calls of `function`."""
    return core.Binding("f", inspect.signature(function), core.Freezer(), skip)


@settings(max_examples=50)
@given(signature=signatures(), call=CALLS)
def test_arguments_are_bound_as_python_binds_them(
    core: hotpath.Core, signature: inspect.Signature, call: tuple[tuple[Any, ...], dict[str, Any]]
) -> None:
    """For any signature and call, the same values reach the same parameters, or it fails."""
    mine = core.Binding("f", signature, core.Freezer())
    expected = bound_by_python(signature, *call)
    assert (expected is not None) == mine.fits(*call)
    if expected is not None:
        assert expected == mine.arguments(*call)
    else:
        with pytest.raises(TypeError, match=r"^f\(\) "):
            mine.arguments(*call)


@settings(max_examples=60)
@given(signature=signatures(), one=CALLS, other=CALLS)
def test_keys_are_equal_exactly_when_the_calls_are_the_same_call(
    core: hotpath.Core,
    signature: inspect.Signature,
    one: tuple[tuple[Any, ...], dict[str, Any]],
    other: tuple[tuple[Any, ...], dict[str, Any]],
) -> None:
    """Two spellings of one call make one key; two different calls never do."""
    first, second = bound_by_python(signature, *one), bound_by_python(signature, *other)
    if first is None or second is None:
        return
    mine = core.Binding("f", signature, core.Freezer())
    same = told_apart(first) == told_apart(second)
    assert same == (mine.key(*one) == mine.key(*other))


@settings(max_examples=50)
@given(signature=signatures(), call=CALLS)
def test_every_spelling_of_a_call_makes_the_same_key(
    core: hotpath.Core, signature: inspect.Signature, call: tuple[tuple[Any, ...], dict[str, Any]]
) -> None:
    """Even with as many arguments by name as possible, and every default spelled out."""
    values = bound_by_python(signature, *call)
    if values is None:
        return
    mine = core.Binding("f", signature, core.Freezer())
    stars = [name for name in ("rest", "more") if name in signature.parameters]
    bound = dict(zip([*mine.names, *stars], values, strict=True))
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    by_position = bool(bound.get("rest"))
    for name, parameter in signature.parameters.items():
        value = bound[name]
        if parameter.kind is PARAMETER.VAR_POSITIONAL:
            args.extend(value)
        elif parameter.kind is PARAMETER.VAR_KEYWORD:
            kwargs.update(value)
        elif parameter.kind is PARAMETER.POSITIONAL_ONLY or (
            by_position and parameter.kind is PARAMETER.POSITIONAL_OR_KEYWORD
        ):
            args.append(value)
        else:
            kwargs[name] = value
    key = mine.key(*call)
    assert key == mine.key(tuple(args), kwargs)
    assert hash(key) == hash(mine.key(tuple(args), dict(reversed(kwargs.items()))))


def test_four_spellings_of_one_call_share_a_key(core: hotpath.Core) -> None:
    """Position, name and default do not matter."""
    mine = binding(core, lambda a, b=2: None)
    keys = [
        mine.key((1,), None),
        mine.key((1, 2), None),
        mine.key((1,), {"b": 2}),
        mine.key((), {"b": 2, "a": 1}),
    ]
    assert {mine.key((1, 2), {})} == set(keys)


def test_a_default_and_an_equal_value_of_another_type_make_different_keys(
    core: hotpath.Core,
) -> None:
    """Keys distinguish types, even for a default."""
    mine = binding(core, lambda a=1: None)
    keys = {mine.key(args, None) for args in [(), (1,), (1.0,), (True,), ("1",)]}
    assert len(keys) == 4


def test_a_keyword_with_the_name_of_a_positional_only_parameter_is_another_argument(
    core: hotpath.Core,
) -> None:
    """`f(1, a=2)` of `def f(a, /, **more)` has two arguments."""

    def function(a: Any, /, **more: Any) -> None: ...

    mine = binding(core, function)
    assert mine.key((1,), {"a": 2}) != mine.key((1,), None)
    assert mine.arguments((1,), {"a": 2}) == (1, {"a": 2})


def test_extra_arguments_are_not_mistaken_for_each_other(core: hotpath.Core) -> None:
    """A tuple among `*rest`, more of `rest`, and a keyword are different calls."""

    def function(*rest: Any, **more: Any) -> None: ...

    mine = binding(core, function)
    keys = {
        mine.key(*call)
        for call in [
            ((), {}),
            ((1,), {}),
            (((1,),), {}),
            ((1, 2), {}),
            (((1, 2),), {}),
            ((), {"x": 1}),
            ((("x", 1),), {}),
            (({"x": 1},), {}),
        ]
    }
    assert len(keys) == 8


def test_a_changeable_default_is_read_at_each_call(core: hotpath.Core) -> None:
    """A list as a default counts by its current content."""
    default: list[int] = []
    mine = binding(core, lambda a=default: None)
    before = mine.key((), None)
    default.append(1)
    assert before != mine.key((), None)
    assert mine.key(([1],), None) == mine.key((), None)


def test_the_instance_can_be_left_out(core: hotpath.Core) -> None:
    """A method's arguments are bound without `self`, which counts separately."""
    mine = binding(core, lambda self, a, b=2: None).without_first()
    assert mine.names == ("a", "b")
    assert mine.key((1,), None) == mine.key((), {"a": 1, "b": 2})


def test_the_only_argument_is_its_own_key(core: hotpath.Core) -> None:
    """With one parameter there is no tuple around the key, and a string is its own key."""
    mine = binding(core, lambda a: None)
    assert mine.key(("text",), None) == "text"
    assert mine.key((), {"a": "text"}) == "text"


@pytest.mark.parametrize(
    ("args", "kwargs", "complaint"),
    [
        ((), {}, r"f\(\) is missing argument 'a'"),
        ((1, 2, 3), {}, r"f\(\) takes 2 positional arguments but 3 were given"),
        ((1,), {"a": 2}, r"f\(\) got multiple values for argument 'a'"),
        ((1,), {"z": 2}, r"f\(\) got an unexpected keyword argument 'z'"),
    ],
)
def test_a_call_that_does_not_fit_is_refused_in_the_words_of_python(
    core: hotpath.Core, args: tuple[Any, ...], kwargs: dict[str, Any], complaint: str
) -> None:
    """The message names the function and says what is wrong."""
    with pytest.raises(TypeError, match=complaint):
        binding(core, lambda a, b=2: None).key(args, kwargs)


def deep() -> Any:
    """Return a list that contains itself."""
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    ("args", "kwargs", "name"),
    [
        ((deep(),), {}, "'a'"),
        ((1, deep()), {}, "'b'"),
        ((1,), {"b": deep()}, "'b'"),
        ((1, 2, deep()), {}, r"'\*rest'"),
        ((1,), {"x": deep()}, r"'\*\*more'"),
    ],
)
def test_an_argument_that_makes_no_key_is_named(
    core: hotpath.Core, args: tuple[Any, ...], kwargs: dict[str, Any], name: str
) -> None:
    """The message names function and argument, and says what is wrong with the value."""

    def function(a: Any, b: Any = 2, *rest: Any, **more: Any) -> None: ...

    with pytest.raises(CacheKeyError, match=rf"^f\(\): argument {name}: "):
        binding(core, function).key(args, kwargs)
