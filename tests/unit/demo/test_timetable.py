"""The replay's timetable: order kept, nothing lost, nothing early, pauses shortened."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from magmobo.components.demo.replay import BATCH_ROWS, LONGEST_PAUSE_S, Departure, Timetable

MORNING = datetime(2013, 1, 1, 10, tzinfo=UTC)


def departures(*minutes: int) -> list[Departure]:
    return [
        Departure(MORNING + timedelta(hours=minute // 60), minute % 60, number) for number, minute in enumerate(minutes)
    ]


def test_the_first_leaves_at_once_and_the_others_when_their_time_has_come() -> None:
    timetable = Timetable(speed=60)
    timetable.feed(departures(0, 1, 1, 3))
    assert [d.flight_id for d in timetable.take_due(100.0)] == [0]
    assert timetable.take_due(100.9) == []
    assert [d.flight_id for d in timetable.take_due(101.0)] == [1, 2]
    assert [d.flight_id for d in timetable.take_due(103.0)] == [3]


def test_a_quiet_night_is_shortened() -> None:
    timetable = Timetable(speed=60)
    timetable.feed(departures(0, 600))
    timetable.take_due(0.0)
    assert timetable.take_due(0.1) == []
    assert len(timetable.take_due(0.1 + LONGEST_PAUSE_S / 60)) == 1


def test_a_stalled_database_is_followed_by_no_burst() -> None:
    timetable = Timetable(speed=1)
    timetable.feed(departures(0))
    timetable.take_due(0.0)
    assert timetable.take_due(50.0) == []  # nothing fed: the clock stands
    timetable.feed(departures(1))
    assert timetable.take_due(100.0) == []
    assert len(timetable.take_due(110.0)) == 1


@given(
    minutes=st.lists(st.integers(0, 3_000), max_size=1_200).map(sorted),
    steps=st.lists(st.floats(0, 100), max_size=60),
    speed=st.floats(0.1, 100_000),
)
def test_all_leave_once_in_order_in_bounded_batches(minutes: list[int], steps: list[float], speed: float) -> None:
    timetable, fed = Timetable(speed), departures(*minutes)
    timetable.feed(fed)
    now_s, left = 0.0, []
    for step in steps:
        now_s += step
        batch = timetable.take_due(now_s)
        assert len(batch) <= BATCH_ROWS
        left += batch
    assert left == fed[: len(left)]
    assert len(timetable) == len(fed) - len(left)
