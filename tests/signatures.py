"""Random signatures and random calls, and how Python itself binds the ones to the others."""

from __future__ import annotations

import inspect
from typing import Any

from hypothesis import strategies as st

NAMES = ("a", "b", "c", "d")
PARAMETER = inspect.Parameter
VALUES = st.sampled_from([0, 1, 2, 1.0, True, "1", None, (1,), [1], {"a": 1}, -0.0, "default a"])


@st.composite
def signatures(draw: st.DrawFn) -> inspect.Signature:
    """Draw any signature that Python allows, with up to four named parameters."""
    kinds = sorted(
        draw(
            st.lists(
                st.sampled_from(
                    [
                        PARAMETER.POSITIONAL_ONLY,
                        PARAMETER.POSITIONAL_OR_KEYWORD,
                        PARAMETER.KEYWORD_ONLY,
                    ]
                ),
                max_size=len(NAMES),
            )
        )
    )
    parameters, defaulted = [], False
    for name, kind in zip(NAMES, kinds, strict=False):
        if kind is PARAMETER.KEYWORD_ONLY:
            has_default = draw(st.booleans())
        else:
            has_default = defaulted = defaulted or draw(st.booleans())
        default = draw(st.just(f"default {name}") | VALUES) if has_default else PARAMETER.empty
        parameters.append(PARAMETER(name, kind, default=default))
    if draw(st.booleans()):
        at = sum(kind is not PARAMETER.KEYWORD_ONLY for kind in kinds)
        parameters.insert(at, PARAMETER("rest", PARAMETER.VAR_POSITIONAL))
    if draw(st.booleans()):
        parameters.append(PARAMETER("more", PARAMETER.VAR_KEYWORD))
    return inspect.Signature(parameters)


def calls(values: st.SearchStrategy[Any] = VALUES) -> st.SearchStrategy[Any]:
    """Draw positional and keyword arguments, which may or may not fit a signature."""
    return st.tuples(
        st.lists(values, max_size=5).map(tuple),
        st.dictionaries(st.sampled_from([*NAMES, "e", "more", "rest"]), values, max_size=4),
    )


def function_of(signature: inspect.Signature, body: str = "return {bound}", **scope: Any) -> Any:
    """Make a function of a signature.

    Args:
        signature: The signature; its defaults have to be what their `repr` says.
        body: The body; `{bound}` stands for the tuple of the named parameters in order, then
            `rest` and `more` if there are any.
        **scope: What the body refers to.
    """
    names = [name for name in signature.parameters if name not in {"rest", "more"}]
    names += [name for name in ("rest", "more") if name in signature.parameters]
    bound = f"({''.join(f'{name}, ' for name in names)})"
    exec(f"def function{signature}: " + body.replace("{bound}", bound), scope)
    return scope["function"]


def told_apart(value: Any) -> str:
    """Tell a value so that no two different ones read the same, whatever the order of a dict."""
    if isinstance(value, dict):
        return f"dict {sorted((told_apart(key), told_apart(each)) for key, each in value.items())}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__} {[told_apart(each) for each in value]}"
    return f"{type(value).__name__} {value!r}"


def bound_by_python(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...] | None:
    """Return the values that a function of this signature sees, or None if the call does not fit.

    The standard library's own `Signature.bind` is no judge, since on some Pythons it refuses
    `f(a=1)` of `def f(a=0, /, **more)`.
    """
    try:
        return function_of(signature)(*args, **kwargs)  # type: ignore[no-any-return]
    except TypeError:
        return None
