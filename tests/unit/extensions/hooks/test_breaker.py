"""The breaker against a plain description of it, and the cases that are easy to get wrong."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from magmobo.extensions.hooks.breaker import FAILURES, OPEN_S, WINDOW_S, Breaker


def opened(at_s: float = 0.0) -> Breaker:
    breaker = Breaker()
    assert [breaker.failed(at_s) for _ in range(FAILURES)] == [False] * (FAILURES - 1) + [True]
    return breaker


def test_five_failures_in_ten_seconds_open_it() -> None:
    breaker = Breaker()
    for number in range(FAILURES - 1):
        assert not breaker.failed(number * WINDOW_S / FAILURES)
    assert breaker.failed(WINDOW_S)
    assert not breaker.lets(WINDOW_S)


def test_slower_failures_do_not() -> None:
    breaker = Breaker()
    assert not any(breaker.failed(number * (WINDOW_S / (FAILURES - 1) + 0.01)) for number in range(100))
    assert breaker.lets(0.0)


def test_it_lets_one_call_through_after_its_time_and_closes_with_its_success() -> None:
    breaker = opened()
    assert not breaker.lets(OPEN_S - 0.1)
    assert breaker.lets(OPEN_S)
    assert not breaker.lets(OPEN_S), "one at a time"
    breaker.succeeded()
    assert breaker.lets(OPEN_S)
    assert breaker.is_closed


def test_a_failed_try_opens_it_again_for_as_long() -> None:
    breaker = opened()
    assert breaker.lets(OPEN_S)
    assert breaker.failed(OPEN_S)
    assert not breaker.lets(2 * OPEN_S - 0.1)
    assert breaker.lets(2 * OPEN_S)


def test_a_try_that_nobody_heard_of_again_does_not_keep_it_open_for_ever() -> None:
    breaker = opened()
    assert breaker.lets(OPEN_S)
    assert breaker.lets(2 * OPEN_S)


def test_failures_before_a_success_do_not_count_for_the_next_opening() -> None:
    breaker = opened()
    assert breaker.lets(OPEN_S)
    breaker.succeeded()
    assert not any(breaker.failed(OPEN_S) for _ in range(FAILURES - 1))


def test_calls_that_one_crash_took_along_are_one_failure() -> None:
    breaker = Breaker()
    assert not any(breaker.failed(0.0, pid=7) for _ in range(50))
    for pid in (8, 9, 10):
        assert not breaker.failed(0.0, pid=pid)
    assert breaker.failed(0.0, pid=11)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 40)), max_size=60))
def test_it_never_lets_a_second_call_through_within_its_time(steps: list[tuple[bool, float]]) -> None:
    breaker, now_s, opened_s = Breaker(), 0.0, -1.0
    for works, later_s in steps:
        now_s += later_s
        if not breaker.lets(now_s):
            assert 0 <= now_s - opened_s < OPEN_S
            continue
        if works:
            if not breaker.is_closed:
                breaker.succeeded()
            opened_s = -1.0
        elif breaker.failed(now_s):
            opened_s = now_s
