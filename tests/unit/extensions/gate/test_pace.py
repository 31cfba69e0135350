"""How often something that goes on is put on record."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from magmobo.extensions.gate.pace import LAST_S, MOST_PER_MINUTE, Pace


def records(moments: list[float]) -> list[float]:
    """When it is on record, of those moments when it could be."""
    pace, found = Pace(), []
    for now_s in moments:
        if pace.due_s(now_s) <= 0:
            pace.wrote(now_s)
            found.append(now_s)
    return found


def test_at_once_and_then_less_and_less_often() -> None:
    flood = [number / 4 for number in range(4 * 300)]
    assert records(flood) == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]


def test_behind_a_quiet_minute_at_once_again() -> None:
    assert records([0.0, 0.5, 1.0, 61.9, 62.0, 62.9, 63.0]) == [0.0, 1.0, 61.9]
    assert records([0.0, 61.0, 61.5, 62.0]) == [0.0, 61.0, 62.0]


@given(st.lists(st.floats(0, 200) | st.floats(0, 1), min_size=1, max_size=300))
def test_no_choice_of_moments_gives_more(steps: list[float]) -> None:
    now_s, moments = 0.0, []
    for step_s in steps:
        now_s += step_s
        moments.append(now_s)
    found = records(moments)
    assert found[0] == moments[0]
    for first in found:
        assert sum(first <= one < first + 60 for one in found) <= MOST_PER_MINUTE
    for before, now in itertools.pairwise(moments):
        assert now - before < 2 * LAST_S or now in found, "what comes behind a quiet time is on record at once"
