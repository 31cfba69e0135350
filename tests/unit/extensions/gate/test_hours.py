"""Hours of the day."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magmobo.extensions.gate.hours import DAY_S, is_within, parse


@pytest.mark.parametrize(
    ("hours", "second", "expected"),
    [
        ("", 0, True),
        ("09:00-17:00", 9 * 3600, True),
        ("09:00-17:00", 9 * 3600 - 1, False),
        ("09:00-17:00", 17 * 3600 - 1, True),
        ("09:00-17:00", 17 * 3600, False),
        ("22:00-06:00", 23 * 3600, True),
        ("22:00-06:00", 0, True),
        ("22:00-06:00", 6 * 3600, False),
        ("22:00-06:00", 12 * 3600, False),
        ("00:00-00:00", 12 * 3600, True),
    ],
)
def test_the_end_is_not_part_of_it_and_may_lie_past_midnight(hours: str, second: int, expected: bool) -> None:
    assert is_within(hours, 20_000 * DAY_S + second) is expected


@given(st.text(max_size=12) | st.from_regex(r"\d\d:\d\d-\d\d:\d\d", fullmatch=True))
def test_what_is_no_hours_counts_at_no_hour(text: str) -> None:
    if text and parse(text) is None:
        assert not is_within(text, 0.0)


@pytest.mark.parametrize(
    "text", ["24:00-25:00", "9:00-17:00", "09:00-17:60", "09:00-17:00 ", "09:00–17:00", "٠٩:00-17:00"]
)
def test_nothing_else_is_hours(text: str) -> None:
    assert parse(text) is None
