"""The retry and fallback state machine: what next, after this failure?"""

from __future__ import annotations

import asyncio
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opero import AllFailedError, DeadlineExceeded, hotpath
from opero.core.attempts import AGAIN, GIVE_UP, LATE, NO_FAILURE, PROPAGATE
from opero.core.clock import NEVER

STOPS = (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError)


def policy(core: hotpath.Core, **changes: Any) -> Any:
    """Make a policy that differs from opero's defaults in `changes`."""
    options: dict[str, Any] = {
        "rounds": 3,
        "factor": 1.5,
        "min_delay": 0.1,
        "max_delay": 30.0,
        "jitter": False,
        "types": (Exception,),
        "predicate": None,
        "fallback_types": (Exception,),
        **changes,
    }
    return core.Policy(**options)


def history(attempts: Any, limit: int = 10_000) -> list[tuple[int, int]]:
    """Fail until the machine gives up; return value and delay of each attempt that followed."""
    found = []
    for _ in range(limit):
        verdict = attempts.failed(ValueError("no"), 0, NEVER)
        if verdict != AGAIN:
            assert verdict == GIVE_UP
            break
        found.append((attempts.value, attempts.delay))
    return found


DELAYS = st.floats(0, 1e9)
FACTORS = st.floats(1, 1e9)


@given(rounds=st.integers(1, 12), width=st.integers(1, 6))
def test_there_are_never_more_attempts_than_rounds_times_values(
    core: hotpath.Core, rounds: int, width: int
) -> None:
    """Each round tries each value once, and the last round ends the call."""
    followed = history(policy(core, rounds=rounds).attempts(width))
    assert rounds * width == 1 + len(followed)


@given(rounds=st.integers(1, 6), width=st.integers(1, 6))
def test_the_values_of_a_round_are_tried_in_order(
    core: hotpath.Core, rounds: int, width: int
) -> None:
    """Each round begins with the first value."""
    followed = history(policy(core, rounds=rounds).attempts(width))
    values = [number % width for number in range(rounds * width)]
    assert values == [0] + [value for value, _ in followed]


@given(rounds=st.integers(1, 6), width=st.integers(2, 6), jitter=st.booleans())
def test_there_is_no_delay_between_the_values_of_a_round(
    core: hotpath.Core, rounds: int, width: int, jitter: bool
) -> None:
    """The backoff begins only when all values have failed."""
    followed = history(policy(core, rounds=rounds, jitter=jitter).attempts(width))
    assert {0} == {delay for value, delay in followed if value > 0}
    assert all(delay >= 100_000_000 for value, delay in followed if value == 0)


@given(rounds=st.integers(2, 30), factor=st.floats(1, 100), shortest=DELAYS, longest=DELAYS)
def test_without_jitter_the_delay_is_the_ceiling(
    core: hotpath.Core, rounds: int, factor: float, shortest: float, longest: float
) -> None:
    """Before attempt n+1 it is `min(max_delay, min_delay * backoff_factor ** (n - 1))`."""
    longest = max(shortest, longest)
    delays = [
        delay
        for _, delay in history(
            policy(
                core, rounds=rounds, factor=factor, min_delay=shortest, max_delay=longest
            ).attempts(1)
        )
    ]
    for n, delay in enumerate(delays, 1):
        ceiling = min(longest, shortest * factor ** (n - 1))
        assert math.isclose(delay, ceiling * 1e9, rel_tol=1e-9, abs_tol=1)


@given(
    rounds=st.integers(2, 60), factor=FACTORS, shortest=DELAYS, longest=DELAYS, seed=st.integers()
)
def test_with_jitter_the_delay_lies_between_the_shortest_and_the_ceiling(
    core: hotpath.Core, rounds: int, factor: float, shortest: float, longest: float, seed: int
) -> None:
    """No delay leaves the range that the options promise."""
    longest = max(shortest, longest)
    rules = policy(
        core, rounds=rounds, factor=factor, min_delay=shortest, max_delay=longest, jitter=True
    )
    random.seed(seed)
    ceiling = shortest
    for _, delay in history(rules.attempts(1)):
        assert int(shortest * 1e9) <= delay <= min(longest, ceiling * (1 + 1e-9)) * 1e9 + 1
        ceiling = min(longest, ceiling * factor)


def test_jitter_draws_from_the_whole_range(core: hotpath.Core) -> None:
    """Draws of a second delay between 1 s and 3 s fill every tenth of that range."""
    random.seed(42)
    tenths = set()
    for _ in range(500):
        attempts = policy(core, factor=3.0, min_delay=1.0, jitter=True).attempts(1)
        (_, first), (_, second) = history(attempts)
        assert first == 1_000_000_000
        tenths.add((second - 1_000_000_000) // 200_000_000)
    assert set(range(10)) == tenths


@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize("factor", [1.0, 1.5, 1e9])
@pytest.mark.parametrize(("shortest", "longest"), [(0.0, 1e9), (0.1, 30.0), (1e9, 1e9)])
def test_no_number_of_attempts_overflows(
    core: hotpath.Core, jitter: bool, factor: float, shortest: float, longest: float
) -> None:
    """After thousands of rounds the delay is still within its bounds."""
    rules = policy(
        core, rounds=3000, factor=factor, min_delay=shortest, max_delay=longest, jitter=jitter
    )
    followed = history(rules.attempts(1))
    assert len(followed) == 2999
    assert all(shortest * 1e9 <= delay <= longest * 1e9 for _, delay in followed)


@given(
    now=st.integers(0, 10**18),
    left=st.integers(-(10**9), 10**12),
    width=st.integers(1, 3),
    jitter=st.booleans(),
)
def test_no_wait_that_would_end_after_the_deadline_is_ever_begun(
    core: hotpath.Core, now: int, left: int, width: int, jitter: bool
) -> None:
    """`AGAIN` means there is time for the delay and more; otherwise the answer is `LATE`."""
    attempts = policy(core, rounds=5, jitter=jitter).attempts(width)
    for _ in range(5 * width - 1):
        verdict = attempts.failed(ValueError(), now, now + left)
        assert (AGAIN if attempts.delay < left else LATE) == verdict


def test_the_last_failure_is_the_end_even_when_the_deadline_has_passed(core: hotpath.Core) -> None:
    """There is no wait to be refused after the last attempt."""
    attempts = policy(core, rounds=1).attempts(1)
    assert attempts.failed(ValueError(), 10, 5) == GIVE_UP


def test_errors_are_kept_in_order(core: hotpath.Core) -> None:
    """The same exceptions that the attempts raised."""
    attempts = policy(core).attempts(1)
    errors = [ValueError(1), KeyError(2), OSError(3)]
    for error in errors:
        attempts.failed(error, 0, NEVER)
    assert len(errors) == len(attempts.errors)
    assert all(one is other for one, other in zip(errors, attempts.errors, strict=True))


def test_an_exception_of_another_type_propagates_and_is_not_counted(core: hotpath.Core) -> None:
    """An exception that `retry_on` does not name ends the call immediately."""
    attempts = policy(core, types=(OSError, KeyError), fallback_types=None).attempts(1)
    assert attempts.failed(ValueError(), 0, NEVER) == PROPAGATE
    assert attempts.errors == []


@pytest.mark.parametrize("error", [TimeoutError(), FileNotFoundError(), KeyError()])
def test_a_subclass_matches_like_its_base(core: hotpath.Core, error: Exception) -> None:
    """Types match as in an `except` clause."""
    assert policy(core, types=(OSError, LookupError)).matches(error)


def test_no_type_at_all_means_no_retry(core: hotpath.Core) -> None:
    """An empty tuple matches nothing."""
    assert not policy(core, types=()).matches(ValueError())


@pytest.mark.parametrize(("answer", "verdict"), [(True, AGAIN), (1, AGAIN), (0, PROPAGATE)])
def test_a_predicate_decides_by_the_exception(
    core: hotpath.Core, answer: object, verdict: int
) -> None:
    """It gets the exception itself, and its answer counts as true or false."""
    seen = []

    def worth_it(error: Exception) -> object:
        seen.append(error)
        return answer

    error = ValueError()
    attempts = policy(core, types=None, predicate=worth_it, fallback_types=None).attempts(1)
    assert verdict == attempts.failed(error, 0, NEVER)
    assert seen == [error]


@pytest.mark.parametrize("kind", STOPS)
def test_exceptions_that_end_a_program_or_task_are_never_retried(
    core: hotpath.Core, kind: type[BaseException]
) -> None:
    """Not even for the widest type, or for a predicate that returns True."""
    for error in (kind(), BaseExceptionGroup("g", [ValueError(), kind()])):
        for rules in (
            policy(core, types=(BaseException,)),
            policy(core, types=(kind,)),
            policy(core, types=None, predicate=lambda error: True),
        ):
            assert not rules.matches(error)
            assert rules.attempts(1).failed(error, 0, NEVER) == NO_FAILURE


def test_a_base_exception_of_ones_own_can_be_retried_if_asked_for(core: hotpath.Core) -> None:
    """`retry_on` can name anything except `never_failures`."""

    class Abort(BaseException):
        pass

    assert policy(core, types=(Abort,)).matches(Abort())
    assert not policy(core).matches(Abort())


@pytest.mark.parametrize("kind", [RecursionError, MemoryError, StopIteration])
def test_a_signal_that_is_named_itself_is_a_failure(
    core: hotpath.Core, kind: type[Exception]
) -> None:
    """`retry_on=RecursionError` applies; a wider type does not, nor does a group."""
    named = policy(core, types=(OSError, kind))
    assert named.matches(kind())
    assert not named.matches(ExceptionGroup("g", [kind()]))
    assert not policy(core, types=(RuntimeError, OSError)).matches(kind())
    assert named.attempts(1).failed(kind(), 0, NEVER) == AGAIN
    assert policy(core).attempts(1).failed(kind(), 0, NEVER) == NO_FAILURE


# --- groups ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leaves", "matches"),
    [
        ([ConnectionError()], True),
        ([ConnectionResetError(), TimeoutError()], True),
        ([ConnectionError(), ExceptionGroup("inner", [TimeoutError()])], True),
        ([ConnectionError(), ValueError()], False),
        ([ExceptionGroup("inner", [ValueError()]), ConnectionError()], False),
    ],
)
def test_a_group_matches_if_each_of_its_exceptions_does(
    core: hotpath.Core, leaves: list[Exception], matches: bool
) -> None:
    """However deeply groups are nested."""
    rules = policy(core, types=(ConnectionError, TimeoutError))
    assert matches == rules.matches(ExceptionGroup("g", leaves))


def test_a_group_matches_by_its_own_type_too(core: hotpath.Core) -> None:
    """`retry_on=ExceptionGroup` means groups, whatever they contain."""
    assert policy(core, types=(ExceptionGroup,)).matches(ExceptionGroup("g", [ValueError()]))


def test_a_predicate_gets_the_group_itself(core: hotpath.Core) -> None:
    """It is called once, with the exception that was raised."""
    seen: list[Exception] = []
    group = ExceptionGroup("g", [ValueError(), OSError()])
    assert policy(core, types=None, predicate=lambda e: seen.append(e) or True).matches(group)
    assert seen == [group]


# --- which value next -----------------------------------------------------------------------------

KINDS = (ConnectionError, PermissionError, ValueError)


def by_hand(
    rounds: int,
    width: int,
    retry_on: tuple[type[Exception], ...],
    fallback_on: tuple[type[Exception], ...],
    kinds: list[type[Exception]],
) -> tuple[list[int], str, int]:
    """Try values as the documentation says; return which, how it ends, and how many have failed."""
    tried: list[int] = []
    failed = 0
    values = list(range(width))
    for _ in range(rounds):
        later = list(values)
        for value in values:
            if len(tried) == len(kinds):
                return tried, "open", failed
            tried.append(value)
            kind = kinds[len(tried) - 1]
            if kind not in retry_on and kind not in fallback_on:
                return tried, "propagate", failed
            failed += 1
            if kind not in retry_on:
                later.remove(value)
            if kind not in fallback_on:
                break
        values = later
        if not values:
            break
    return tried, "give up", failed


@given(
    rounds=st.integers(1, 4),
    width=st.integers(1, 4),
    retry_on=st.sets(st.sampled_from(KINDS)),
    fallback_on=st.sets(st.sampled_from(KINDS)),
    kinds=st.lists(st.sampled_from(KINDS), min_size=16, max_size=16),
)
def test_values_are_tried_as_the_documentation_says(
    core: hotpath.Core,
    rounds: int,
    width: int,
    retry_on: set[type[Exception]],
    fallback_on: set[type[Exception]],
    kinds: list[type[Exception]],
) -> None:
    """`fallback_on` decides on the next value, `retry_on` on later rounds."""
    rules = policy(
        core,
        rounds=rounds,
        types=tuple(retry_on),
        fallback_types=tuple(fallback_on),
    )
    attempts = rules.attempts(width)
    tried = [0]
    verdict = AGAIN
    for kind in kinds:
        before = attempts.round
        verdict = attempts.failed(kind(), 0, NEVER)
        if verdict != AGAIN:
            break
        tried.append(attempts.value)
        assert (attempts.delay > 0) == (attempts.round > before)
    expected, end, failed = by_hand(rounds, width, tuple(retry_on), tuple(fallback_on), kinds)
    assert tried == expected
    assert len(attempts.errors) == failed
    assert verdict == {"give up": GIVE_UP, "propagate": PROPAGATE}[end]


def test_without_fallback_values_only_retry_on_counts(core: hotpath.Core) -> None:
    """There is nothing for `fallback_on` to decide."""
    rules = policy(core, types=(OSError,), fallback_types=None)
    assert rules.attempts(1).failed(KeyError(), 0, NEVER) == PROPAGATE


def test_a_predicate_decides_on_the_next_value(core: hotpath.Core) -> None:
    """It gets the exception, like the predicate of `retry_on`."""
    rules = policy(core, types=(), fallback_types=None)
    assert not rules.falls_back(ValueError())
    asked = policy(
        core,
        types=(),
        fallback_types=None,
        fallback_predicate=lambda error: isinstance(error, KeyError),
    )
    assert asked.falls_back(KeyError())
    assert not asked.falls_back(ValueError())
    assert not asked.falls_back(RecursionError())


# --- rejected results, and what another call of the function gave up ------------------------------


def test_a_rejected_value_is_tried_again_whatever_retry_on_says(core: hotpath.Core) -> None:
    """The predicate decided that the attempt failed."""
    rules = policy(core, types=(OSError,), rejects=lambda value: value is None)
    assert rules.rejection("value") is None
    rejection = rules.rejection(None)
    assert rejection is not None
    assert rules.attempts(1).failed(rejection, 0, NEVER) == AGAIN
    assert not policy(core, types=(OSError,)).matches(rejection)  # it is another function's


def test_what_a_predicate_of_the_result_raises_is_raised(core: hotpath.Core) -> None:
    """Opero does not guess what the predicate would have returned."""
    rules = policy(core, rejects=lambda value: value["status"] == 503)
    with pytest.raises(KeyError):
        rules.rejection({})


@pytest.mark.parametrize("kind", [AllFailedError, DeadlineExceeded])
def test_what_an_inner_call_of_the_function_gave_up_is_given_up(
    core: hotpath.Core, kind: type[AllFailedError | DeadlineExceeded]
) -> None:
    """Even in a group; another function's failure is an exception like any other."""
    mine, other = policy(core, fallback_types=(Exception,)), policy(core)
    error = kind("f failed")
    error._origin = mine
    for raised in (error, ExceptionGroup("g", [error])):
        assert mine.attempts(2).failed(raised, 0, NEVER) == PROPAGATE
        assert other.attempts(1).failed(raised, 0, NEVER) == AGAIN


@pytest.mark.once
@given(
    rounds=st.integers(1, 20),
    width=st.integers(1, 3),
    factor=st.floats(1, 10),
    jitter=st.booleans(),
    seed=st.integers(),
)
def test_both_halves_decide_alike(
    core: hotpath.Core, rounds: int, width: int, factor: float, jitter: bool, seed: int
) -> None:
    """With the same seed, the active half and the plain one draw the same delays."""
    found = []
    for half in (core, hotpath.load("plain")):
        random.seed(seed)
        rules = policy(half, rounds=rounds, factor=factor, jitter=jitter)
        found.append(history(rules.attempts(width)))
    assert found[0] == found[1]
