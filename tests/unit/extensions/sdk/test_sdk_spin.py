"""How long a loop is kept awake, with a loop and a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magx.spin import MISS, MOST_DOUBT, MOST_S, PAUSE, Spin

TURN_S = 5e-6
MISSES = MOST_DOUBT // MISS


class Loop:
    """Runs what was asked for; each turn takes a while."""

    def __init__(self) -> None:
        self.soon: deque[Callable[[], None]] = deque()
        self.now_s = 1.0
        self.turns = 0
        self.spin = Spin(cast(asyncio.AbstractEventLoop, self), lambda: self.now_s)

    def call_soon(self, callback: Callable[[], None], *_: Any) -> None:
        self.soon.append(callback)

    def run_until_idle(self, most: int = 1000) -> float:
        """Seconds until it would sleep."""
        began_s = self.now_s
        while self.soon:
            self.turns += 1
            self.now_s += TURN_S
            for callback in [self.soon.popleft() for _ in range(len(self.soon))]:
                callback()
            most -= 1
            assert most, "it never sleeps"
        return self.now_s - began_s

    def wait(self, answer_s: float) -> float:
        """Expect something that comes after so long; for how long the loop did not sleep."""
        self.spin.expect()
        awake_s = 0.0
        while self.soon and awake_s < answer_s:
            self.now_s += TURN_S
            awake_s += TURN_S
            self.soon.popleft()()
        self.spin.came()
        return awake_s + self.run_until_idle()


def test_it_is_awake_until_the_answer_and_not_longer() -> None:
    loop = Loop()
    assert loop.wait(20e-6) == pytest.approx(20e-6, abs=2 * TURN_S)


def test_it_sleeps_when_the_answer_takes_its_time() -> None:
    assert Loop().wait(1.0) == pytest.approx(MOST_S, abs=2 * TURN_S)


def test_who_is_always_slow_is_awaited_asleep() -> None:
    loop = Loop()
    awake = [loop.wait(1.0) > 0 for _ in range(MISSES + 2 * (PAUSE + 1))]
    assert awake == [True] * MISSES + 2 * ([False] * PAUSE + [True])


def test_who_becomes_quick_is_awaited_awake_again() -> None:
    loop = Loop()
    for _ in range(MISSES + PAUSE):
        loop.wait(1.0)
    assert all(loop.wait(20e-6) > 0 for _ in range(2 * PAUSE))


@pytest.mark.parametrize(("every", "pays"), [(MISS // 2, False), (2 * MISS, True)])
def test_it_pays_as_long_as_few_are_slow(every: int, pays: bool) -> None:
    loop = Loop()
    awake = [loop.wait(1.0 if number % every == 0 else 20e-6) > 0 for number in range(40 * every)]
    assert all(awake) is pays


@given(st.lists(st.tuples(st.sampled_from(["expect", "came", "turn"]), st.integers(0, 40)), max_size=60))
def test_it_always_comes_to_rest_and_has_one_turn_at_most(steps: list[tuple[str, int]]) -> None:
    loop = Loop()
    for step, turns in steps:
        loop.now_s += turns * TURN_S
        if step == "turn" and loop.soon:
            loop.soon.popleft()()
        elif step != "turn":
            getattr(loop.spin, step)()
        assert len(loop.soon) <= 1
    assert loop.run_until_idle() <= MOST_S + 2 * TURN_S
