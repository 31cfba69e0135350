"""Schedules: what is taken, what is refused, and that the next time is one of the schedule's."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magmobo.extensions.languages.cron import check_cron, next_after
from magmobo.extensions.languages.errors import CronRefused


def at(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("* * * * *", at(2025, 1, 1, 0, 0, 0), at(2025, 1, 1, 0, 1)),
        ("* * * * *", at(2025, 1, 1, 0, 0, 59) + 0.9, at(2025, 1, 1, 0, 1)),
        ("30 6 * * MON-FRI", at(2025, 1, 3, 6, 30), at(2025, 1, 6, 6, 30)),
        ("0 0 L * *", at(2025, 2, 1), at(2025, 2, 28)),
        ("0 0 29 2 *", at(2025, 1, 1), at(2028, 2, 29)),
        ("0 12 * * 7", at(2025, 1, 1), at(2025, 1, 5, 12)),
        ("0 12 * * 1#1", at(2025, 1, 1), at(2025, 1, 6, 12)),
        ("0 2 30 3 *", at(2025, 3, 29), at(2025, 3, 30, 2)),  # where clocks are set forward this hour is not there
    ],
)
def test_the_next_time_in_utc(text: str, after: float, expected: float) -> None:
    check_cron(text)
    assert next_after(text, after) == expected


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "*/0 * * * *",
     "5-1 * * * *", "a * * * *", "0 0 30 2 *", "0 0 31 2,4 *", "٣ * * * *", "@daily", "1," * 60 + "1 * * * *",
     "0 0 L-3 * *"],
)  # fmt: skip
def test_what_is_not_a_schedule_is_refused(text: str) -> None:
    with pytest.raises(CronRefused):
        check_cron(text)


@pytest.mark.parametrize("time_s", [float("inf"), float("nan"), 1e18, 253_402_300_799.0])
def test_beyond_the_calendar_there_is_no_next_time(time_s: float) -> None:
    assert next_after("0 0 1 1 *", time_s) is None


@given(st.text(alphabet="0123456789*/-,L#WMONFRI ", max_size=60))
def test_any_text_is_a_schedule_or_refused(text: str) -> None:
    try:
        check_cron(text)
    except CronRefused:
        return
    first = next_after(text, 0.0)
    assert first is not None
    assert first > 0
    assert first % 60 == 0
