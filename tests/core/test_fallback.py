"""Argument fallback: which values a parameter takes, one attempt after the other."""

from __future__ import annotations

import asyncio
import inspect
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opero import AllFailedError, RateLimitConfig, get_fallback_decorator, hotpath, opero, opmap
from opero.testing import skip_waits


class MyList(list):  # type: ignore[type-arg]
    """A subclass of list."""


class MyTuple(tuple):  # type: ignore[type-arg]
    """A subclass of tuple."""

    __slots__ = ()


Pair = namedtuple("Pair", "one two")  # noqa: PYI024 - the untyped kind has to work


def fallback(
    core: hotpath.Core, function: Callable[..., Any], listed: tuple[Any, ...] | None = None
) -> Any:
    """Make the fallback of the parameter `key` of `function`."""
    return core.Fallback("f", inspect.signature(function), "key", listed)


def failing(seen: list[Any], good: object = None) -> Callable[..., Any]:
    """Make a function that records its arguments, and fails until it gets `good`."""

    def attempt(key: Any) -> Any:
        seen.append(key)
        first = key[0] if isinstance(key, (list, tuple)) else key
        if first != good:
            raise ValueError(first)
        return first

    return attempt


# --- a parameter that holds the values ------------------------------------------------------------


def test_the_value_to_try_is_at_index_0_and_the_others_behind_it(core: hotpath.Core) -> None:
    """Each attempt gets a sequence without the values already tried."""
    seen: list[Any] = []
    attempt = failing(seen)

    @opero(retries=1, arg_fallback="key")
    def function(key: list[str]) -> None:
        attempt(key)

    with pytest.raises(AllFailedError):
        function(["a", "b", "c"])
    assert seen == [["a", "b", "c"], ["b", "c"], ["c"]]


@pytest.mark.parametrize("kind", [list, tuple, MyList, MyTuple])
def test_the_function_always_gets_a_sequence_of_the_same_type(
    core: hotpath.Core, kind: type
) -> None:
    """The annotation stays correct for lists, tuples and their subclasses."""
    seen: list[Any] = []
    attempt = failing(seen)
    function = opero(retries=2, min_delay=0, arg_fallback="key")(attempt)
    with pytest.raises(AllFailedError):
        function(kind(["a", "b"]))
    assert [kind] * 4 == [type(value) for value in seen]


def test_a_named_tuple_may_hold_the_values_too(core: hotpath.Core) -> None:
    """Its first field is the value to try; it needs all its values, so none is left out."""
    seen: list[Any] = []
    attempt = failing(seen, good="b")
    function = opero(arg_fallback="key")(attempt)
    assert function(Pair("a", "b")) == "b"
    assert [Pair("a", "b"), Pair("b", "a")] == seen
    assert {Pair} == {type(value) for value in seen}


def test_the_default_holds_the_values_as_well(core: hotpath.Core) -> None:
    """A caller who passes none gets those of the signature."""
    seen: list[Any] = []
    attempt = failing(seen, good="backup.com")

    @opero(arg_fallback="endpoint", retries=2)
    def call_api(data: str, endpoint: list[str] = ["primary.com", "backup.com"]) -> str:  # noqa: B006
        return f"{data} to {attempt(endpoint)}"

    assert call_api("x") == "x to backup.com"
    assert call_api("y", ["backup.com"]) == "y to backup.com"
    assert call_api(endpoint=["backup.com"], data="z") == "z to backup.com"


def test_the_callers_own_list_is_left_as_it_was(core: hotpath.Core) -> None:
    """The fallback makes new sequences."""
    mine = ["a", "b", "c"]
    attempt = failing([], good="c")
    function = opero(arg_fallback="key")(attempt)
    function(mine)
    assert mine == ["a", "b", "c"]


def test_one_value_is_enough(core: hotpath.Core) -> None:
    """There is no other value to fall back to, so the round fails immediately."""
    attempt = failing([])
    function = opero(retries=1, arg_fallback="key")(attempt)
    with pytest.raises(AllFailedError) as caught:
        function(["only"])
    assert [error.args[0] for error in caught.value.errors] == ["only"]


@pytest.mark.parametrize("value", ["text", b"bytes", 5, None, {"a": 1}, {1}, iter([1])])
def test_a_value_that_is_no_list_or_tuple_is_an_error_at_the_call(
    core: hotpath.Core, value: object
) -> None:
    """A string does not count as a list of values, and the function does not run."""
    seen: list[Any] = []
    attempt = failing(seen)
    function = opero(arg_fallback="key")(attempt)
    with pytest.raises(ValueError, match=rf"'key' .* list or tuple .* not {type(value).__name__}$"):
        function(value)
    assert seen == []


@pytest.mark.parametrize("value", [[], ()])
def test_an_empty_sequence_is_an_error_at_the_call(core: hotpath.Core, value: object) -> None:
    """There is no value to try."""
    function = opero(arg_fallback="key")(lambda key: key)
    with pytest.raises(ValueError, match=r"at least one, not an empty one$"):
        function(value)


@pytest.mark.parametrize("value", ["text", []])
def test_a_wrong_value_is_an_error_of_the_awaited_call_too(
    core: hotpath.Core, value: object
) -> None:
    """Coroutine functions check in the same way."""

    @opero(arg_fallback="key")
    async def function(key: list[str]) -> None: ...

    async def main() -> None:
        await function(value)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="list or tuple"):
        asyncio.run(main())


def test_a_missing_argument_is_the_functions_own_complaint(core: hotpath.Core) -> None:
    """A missing value is not a wrong value: Python's own error says what is missing."""
    function = opero(arg_fallback="key")(lambda key: key)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'key'"):
        function()


# --- values listed beside the parameter -----------------------------------------------------------


def test_listed_values_follow_the_callers_own(core: hotpath.Core) -> None:
    """The function gets one plain value at a time."""
    seen: list[Any] = []
    attempt = failing(seen)

    @opero(retries=1, arg_fallback={"model": ["gpt-4o-mini", "gpt-3.5"]})
    def ask(model: str) -> None:
        attempt(model)

    with pytest.raises(AllFailedError):
        ask("gpt-4")
    assert seen == ["gpt-4", "gpt-4o-mini", "gpt-3.5"]


def test_listed_values_follow_the_default(core: hotpath.Core) -> None:
    """Without an argument, the default comes first."""
    seen: list[Any] = []
    attempt = failing(seen, good="small")

    @opero(arg_fallback={"model": ("medium", "small")})
    def ask(question: str, *, model: str = "large") -> str:
        return f"{question} {attempt(model)}"

    assert ask("who?") == "who? small"
    assert seen == ["large", "medium", "small"]


@pytest.mark.parametrize("value", [None, [], "x", ["a", "b"]])
def test_any_value_of_the_caller_is_fine_beside_listed_ones(
    core: hotpath.Core, value: object
) -> None:
    """A list passed as the argument is one plain value."""
    function = opero(arg_fallback={"key": ["other"]})(lambda key: key)
    assert function(value) is value


def test_the_list_of_values_is_fixed_at_decoration(core: hotpath.Core) -> None:
    """Later changes to the list have no effect."""
    listed = ["b"]
    seen: list[Any] = []
    attempt = failing(seen)
    function = opero(retries=1, arg_fallback={"key": listed})(attempt)
    listed.append("c")
    with pytest.raises(AllFailedError):
        function("a")
    assert seen == ["a", "b"]


# --- rounds ---------------------------------------------------------------------------------------


def test_a_round_tries_every_value_before_the_backoff_begins(core: hotpath.Core) -> None:
    """There is no delay within a round, but one between rounds."""
    seen: list[tuple[str, float]] = []

    with skip_waits() as clock:

        @opero(retries=3, min_delay=10, jitter=False, backoff_factor=2, arg_fallback="key")
        def function(key: list[str]) -> None:
            seen.append((key[0], clock.waited // 10))
            raise ValueError

        with pytest.raises(AllFailedError):
            function(["a", "b"])
    assert seen == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 3), ("b", 3)]


def test_an_exception_that_retry_on_does_not_match_leads_to_the_next_value_only(
    core: hotpath.Core,
) -> None:
    """Later rounds skip such a value; when none is left, the call gives up."""
    seen: list[Any] = []
    attempt = failing(seen)
    function = opero(arg_fallback="key", retry_on=KeyError)(attempt)
    with pytest.raises(AllFailedError, match=r"all 2 attempts; .*; retry_on matches no error"):
        function(["a", "b"])
    assert seen == [["a", "b"], ["b"]]


# --- what the function does to its sequence -------------------------------------------------------


class Tagged(list):  # type: ignore[type-arg]
    """A list with an attribute that its `__init__` requires."""

    def __init__(self, values: Any, *, tag: str) -> None:
        super().__init__(values)
        self.tag = tag


@pytest.mark.parametrize("make", [list, MyList, lambda values: Tagged(values, tag="mine")])
@pytest.mark.parametrize("damage", ["pop", "clear", "reverse", "append"])
@pytest.mark.parametrize("options", [{}, {"rate_limit": 1e6, "burst": 9}, {"cache": True}], ids=str)
def test_what_the_function_does_to_its_sequence_changes_nothing(
    core: hotpath.Core, make: Callable[[Any], Any], damage: str, options: dict[str, Any]
) -> None:
    """It affects neither the next values, nor the caller's own list, nor the type."""
    mine = make(["a", "b", "c"])
    before = list(mine)
    seen: list[Any] = []

    def spoil(key: list[str]) -> None:
        seen.append(list(key))
        assert type(key) is type(mine)
        assert vars(key) == vars(mine) if hasattr(mine, "__dict__") else True
        getattr(key, damage)(*(["x"] if damage == "append" else []))
        raise ValueError

    async def aspoil(key: list[str]) -> None:
        spoil(key)

    expected = [["a", "b", "c"], ["b", "c"], ["c"]] * 2
    with pytest.raises(AllFailedError):
        opero(retries=2, min_delay=0, arg_fallback="key", **options)(spoil)(mine)
    assert seen == expected
    seen.clear()

    async def main() -> None:
        await opero(retries=2, min_delay=0, arg_fallback="key", **options)(aspoil)(key=mine)

    with pytest.raises(AllFailedError):
        asyncio.run(main())
    assert seen == expected
    assert list(mine) == before


def test_all_values_failing_once_is_still_all_failed(core: hotpath.Core) -> None:
    """One round of two values makes two attempts."""
    attempt = failing([])
    function = get_fallback_decorator("key")(attempt)
    with pytest.raises(AllFailedError) as caught:
        function(["a", "b"])
    assert [error.args[0] for error in caught.value.errors] == ["a", "b"]
    assert caught.value.__cause__ is caught.value.errors[-1]


# --- every kind of parameter ----------------------------------------------------------------------


def positional_only(a: Any, key: Any = ("x", "y"), /) -> Any:
    """Take `key` by position only."""
    return a, key


def in_the_middle(a: Any, key: Any = ("x", "y"), *rest: Any, z: Any = 0) -> Any:
    """Take `key` by position or name."""
    return a, key, rest, z


def keyword_only(*rest: Any, key: Any = ("x", "y"), **more: Any) -> Any:
    """Take `key` by name only."""
    return rest, key, more


@given(
    function=st.sampled_from([positional_only, in_the_middle, keyword_only]),
    given_key=st.sampled_from(["no", "position", "name"]),
    extra=st.integers(0, 2),
    number=st.integers(0, 3),
    length=st.integers(1, 4),
)
def test_the_chosen_value_lands_in_the_parameter_however_it_was_given(
    core: hotpath.Core,
    function: Callable[..., Any],
    given_key: str,
    extra: int,
    number: int,
    length: int,
) -> None:
    """By position, by name or by default: only that argument changes."""
    values = tuple(range(length))
    args: tuple[Any, ...] = ("first",)
    kwargs: dict[str, Any] = {}
    if given_key == "position" and function is not keyword_only:
        args += (values,) + (("rest",) * extra if function is in_the_middle else ())
    elif given_key == "name" and function is not positional_only:
        kwargs["key"] = values
    else:
        values = ("x", "y")
    number = min(number, len(values) - 1)
    before = function(*args, **kwargs)

    mine = fallback(core, function)
    found = mine.given(args, kwargs)
    assert values == found
    assert len(values) == mine.check(found)
    placed = mine.place(args, kwargs, mine.choice(found, number))

    at = 1  # where each of the three functions returns its key
    after = function(*placed[0], **placed[1])
    assert values[number:] == after[at]
    assert before[:at] + before[at + 1 :] == after[:at] + after[at + 1 :]


def test_a_keyword_with_the_name_of_a_positional_only_parameter_is_not_its_value(
    core: hotpath.Core,
) -> None:
    """It belongs to `**more`."""

    def function(key: Any = ("x",), /, **more: Any) -> Any: ...

    assert fallback(core, function).given((), {"key": ["y"]}) == ("x",)


def test_where_there_is_no_value_at_all_one_attempt_is_made(
    core: hotpath.Core,
) -> None:
    """So Python itself reports the error."""
    mine = fallback(core, lambda key: None)
    assert mine.check(mine.given((), {})) == 1


@pytest.mark.parametrize(
    ("function", "has"),
    [
        (lambda a, b: None, "a, b"),
        (lambda: None, "none"),
        (lambda *key: None, "key"),
        (lambda **key: None, "key"),
    ],
)
@pytest.mark.parametrize("option", ["key", {"key": [1, 2]}])
def test_a_missing_parameter_is_an_error_at_decoration(
    core: hotpath.Core, function: Callable[..., Any], has: str, option: Any
) -> None:
    """The message names the option, the parameter, the function and its parameters."""
    with pytest.raises(ValueError, match=rf"^arg_fallback='key': .*<lambda> .* it has {has}$"):
        opero(arg_fallback=option)(function)


# --- methods and coroutine functions --------------------------------------------------------------


def test_a_method_falls_back_like_a_function(core: hotpath.Core) -> None:
    """The instance is not in the way."""
    seen: list[Any] = []
    attempt = failing(seen, good="b")

    class Client:
        @opero(arg_fallback="key")
        def get(self, key: list[str]) -> str:
            return f"{self.name} {attempt(key)}"

        name = "mine"

    assert Client().get(["a", "b"]) == "mine b"
    assert Client().get(key=("a", "b")) == "mine b"


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("timeout", [None, 5])
@pytest.mark.parametrize("rate_limit", [None, 1e6])
def test_coroutine_functions_fall_back_alike(
    core: hotpath.Core, cache: bool, timeout: float | None, rate_limit: float | None
) -> None:
    """Whatever other options are set."""
    seen: list[Any] = []
    attempt = failing(seen, good="c")

    limit = RateLimitConfig(rate_limit, burst=9)

    @opero(retries=1, arg_fallback="key", cache=cache, timeout=timeout, rate_limit=limit)
    async def function(key: list[str]) -> Any:
        await asyncio.sleep(0)
        return attempt(key)

    async def main() -> Any:
        return await function(["a", "b", "c"])

    with skip_waits():
        assert asyncio.run(main()) == "c"
    assert seen == [["a", "b", "c"], ["b", "c"], ["c"]]


# --- maps -----------------------------------------------------------------------------------------


def spoils_item(hosts: list[str]) -> list[str]:
    """Empty the list, and fail before the second value."""
    seen = list(hosts)
    hosts.clear()
    if seen[0] == "a":
        raise OSError
    return seen


def spoils_shared(item: int, hosts: list[str]) -> list[str]:
    """Do the same with a list that all items share."""
    return spoils_item(hosts)


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_what_an_item_does_to_its_sequence_changes_nothing(core: hotpath.Core, mode: Any) -> None:
    """Neither for its own attempts nor for other items."""
    options: dict[str, Any] = {"workers": 2, "progress": False, "retries": 1}
    items = [["a", "b"], ["c"], ["a", "d"]] * 4
    results = opmap(mode, arg_fallback="hosts", **options)(spoils_item)(items)
    assert results == [["b"], ["c"], ["d"]] * 4
    assert items == [["a", "b"], ["c"], ["a", "d"]] * 4
    shared = ["a", "b"]
    results = opmap(mode, arg_fallback="hosts", **options)(spoils_shared)(range(12), hosts=shared)
    assert results == [["b"]] * 12
    assert shared == ["a", "b"]
