"""Rates and budgets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from magmobo.extensions.gate.allowance import Allowance
from magmobo.extensions.gate.hours import DAY_S


def calls(allowance: Allowance, rate: int, at_s: float, wanted: int) -> int:
    """How many of `wanted` calls are let through."""
    made = 0
    for _ in range(wanted):
        if allowance.retry_s(rate, at_s) == 0:
            allowance.take(at_s)
            made += 1
    return made


def test_a_minutes_worth_at_once_and_then_as_it_fills() -> None:
    allowance = Allowance()
    assert calls(allowance, 60, 0.0, 100) == 60
    assert allowance.retry_s(60, 0.0) == 1.0
    assert calls(allowance, 60, 10.0, 100) == 10
    assert calls(allowance, 60, 10_000.0, 100) == 60
    assert allowance.used == 130


def test_a_lower_rate_counts_at_once() -> None:
    allowance = Allowance()
    assert calls(allowance, 100, 0.0, 1) == 1
    assert calls(allowance, 5, 0.0, 100) == 5


def test_a_higher_rate_does_not_fill_it() -> None:
    allowance = Allowance()
    assert calls(allowance, 5, 0.0, 100) == 5
    assert calls(allowance, 1000, 0.0, 100) == 0


@given(st.integers(1, 1000), st.lists(st.tuples(st.floats(0, 30), st.integers(1, 200)), max_size=30))
def test_never_more_than_a_full_bucket_and_what_came_since(rate: int, steps: list[tuple[float, int]]) -> None:
    allowance, now_s, made = Allowance(), 0.0, 0
    for later_s, wanted in steps:
        now_s += later_s
        made += calls(allowance, rate, now_s, wanted)
        assert made <= rate + now_s * rate / 60 + 1e-6


@given(st.integers(1, 1000), st.floats(0, 100))
def test_who_waits_as_told_is_let_through(rate: int, at_s: float) -> None:
    allowance = Allowance()
    calls(allowance, rate, at_s, rate + 1)
    retry_s = allowance.retry_s(rate, at_s)
    assert retry_s > 0
    assert allowance.retry_s(rate, at_s + retry_s * 0.9) > 0
    assert allowance.retry_s(rate, at_s + retry_s + 1e-6) == 0


def test_a_budget_is_of_one_day() -> None:
    allowance = Allowance()
    day_s = 20_000.0 * DAY_S
    for _ in range(3):
        assert not allowance.is_spent(3, day_s)
        allowance.take(day_s)
    assert allowance.is_spent(3, day_s + DAY_S - 1)
    assert not allowance.is_spent(4, day_s)
    assert not allowance.is_spent(3, day_s + DAY_S)
