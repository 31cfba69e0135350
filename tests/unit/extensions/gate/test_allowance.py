"""Rates and budgets."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

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


class Nodes(RuleBasedStateMachine):
    """Some nodes and what they told of: whatever the order, what all let through is known, or is not told yet."""

    BUDGET = 30

    def __init__(self) -> None:
        super().__init__()
        self.day, self.told = 0, 0
        self.nodes = [Allowance() for _ in range(3)]
        self.untold, self.known = [0, 0, 0], [0, 0, 0]
        self.made = 0

    @rule(node=st.integers(0, 2), wanted=st.integers(1, 12))
    def spend(self, node: int, wanted: int) -> None:
        time_s = self.day * DAY_S + 5.0
        for _ in range(wanted):
            if not self.nodes[node].is_spent(self.BUDGET, time_s):
                self.nodes[node].take(time_s)
                self.made += 1
                self.untold[node] += 1
                self.known[node] += 1

    @rule(node=st.integers(0, 2), between=st.integers(0, 3))
    def tell(self, node: int, between: int) -> None:
        calls = self.nodes[node].unsaid(self.day)
        assert calls == self.untold[node]
        self.spend(node, between)
        self.told += calls
        self.untold[node] -= calls
        self.nodes[node].said(self.day, calls)
        self._hear(node)

    @rule(node=st.integers(0, 2))
    def restart(self, node: int) -> None:
        self.made -= self.untold[node]
        self.untold[node] = 0
        self.nodes[node] = Allowance()
        self._hear(node)

    def _hear(self, node: int) -> None:
        self.nodes[node].heard(self.day, self.told)
        self.known[node] = self.told + self.untold[node]

    @rule()
    def midnight(self) -> None:
        self.day, self.told, self.made, self.untold = self.day + 1, 0, 0, [0, 0, 0]
        self.known = [0, 0, 0]

    @invariant()
    def everything_is_told_or_waits(self) -> None:
        assert self.made == self.told + sum(self.untold)
        for node, untold in zip(self.nodes, self.untold, strict=True):
            assert node.unsaid(self.day) == untold <= self.BUDGET

    @invariant()
    def a_budget_is_spent_when_as_much_is_known(self) -> None:
        for node, known in zip(self.nodes, self.known, strict=True):
            assert node.is_spent(self.BUDGET, self.day * DAY_S + 5.0) == (known >= self.BUDGET)


TestNodes = Nodes.TestCase
TestNodes.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
