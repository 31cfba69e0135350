"""What the bus remembers: bounded twice, gaps told exactly, floods not kept, failures kept with their reason."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magmobo.contracts.events import ComponentStarted, DatabaseChange, Envelope, Event
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.bus.errors import BadPattern
from magmobo.kernel.bus.history import History
from magmobo.kernel.bus.ring import size_of


class Noted(Event, frozen=True, gc=False):
    topic = "bus_history_tests.noted"
    number: int
    text: str = ""


class Other(Event, frozen=True, gc=False):
    topic = "bus_history_tests.other"


def still() -> float:
    return 0.0


def change(number: int) -> DatabaseChange:
    return DatabaseChange("magds", "public", "t", "insert", str(number), "2026-01-01T00:00:00Z")


def numbers_of(bus: EventBus, pattern: str = Noted.topic) -> list[int]:
    return [envelope.data.number for _, envelope in bus.history.page(0, 10_000, pattern)[0]]


def test_a_page_gives_events_in_order_and_a_cursor_to_go_on_with() -> None:
    bus = EventBus(origin="n", time_s=lambda: 7.0, monotonic_s=still)
    for number in range(5):
        bus.emit(Noted(number=number))
    first, cursor, missed = bus.history.page(0, 2, "**")
    assert [envelope.data.number for _, envelope in first] == [0, 1]
    assert (cursor, missed) == (2, 0)
    rest, cursor, missed = bus.history.page(cursor, 10, "**")
    assert [envelope.data.number for _, envelope in rest] == [2, 3, 4]
    assert (cursor, missed) == (5, 0)
    assert bus.history.page(cursor, 10, "**") == ([], 5, 0)


def test_a_page_holds_what_its_pattern_means_and_moves_past_the_rest() -> None:
    bus = EventBus(monotonic_s=still)
    bus.emit(Other())
    bus.emit(Noted(number=1))
    bus.emit(Other())
    found, cursor, missed = bus.history.page(0, 10, "bus_history_tests.noted")
    assert [envelope.data for _, envelope in found] == [Noted(number=1)]
    assert (cursor, missed) == (3, 0)
    with pytest.raises(BadPattern):
        bus.history.page(0, 10, "bus_history_tests.")


def test_a_nested_event_comes_after_its_cause() -> None:
    bus = EventBus(monotonic_s=still)
    bus.on(Noted, lambda _: bus.emit(Other()))
    bus.emit(Noted(number=1))
    assert [envelope.topic for _, envelope in bus.history.page(0, 9, "**")[0]] == [Noted.topic, Other.topic]


def test_what_is_forgotten_is_counted() -> None:
    bus = EventBus(history_limit=3, monotonic_s=still)
    for number in range(10):
        bus.emit(Noted(number=number))
    found, cursor, missed = bus.history.page(2, 10, "**")
    assert [envelope.data.number for _, envelope in found] == [7, 8, 9]
    assert (cursor, missed) == (10, 5)


def test_large_events_take_the_room_of_many_and_too_large_ones_none() -> None:
    bus = EventBus(history_limit=1000, history_bytes=100_000, monotonic_s=still)
    for number in range(20):
        bus.emit(Noted(number=number, text="x" * 20_000))
    assert numbers_of(bus) == [16, 17, 18, 19]
    bus.emit(Noted(number=20, text="x" * 200_000))
    bus.emit(Noted(number=21))
    assert numbers_of(bus)[-2:] == [19, 21]
    assert bus.history.page(bus.history.cursor - 2, 9, "**")[2] == 1


def test_traffic_never_pushes_out_what_happened_to_the_node() -> None:
    bus = EventBus(history_limit=10, monotonic_s=still)
    bus.emit(ComponentStarted(name="magds"))
    for number in range(100):
        bus.emit(change(number))
    found, cursor, missed = bus.history.page(0, 100, "**")
    assert [envelope.topic for _, envelope in found] == ["component.started", *["database.change"] * 10]
    assert (cursor, missed) == (101, 90)


def test_history_can_be_off() -> None:
    bus = EventBus(history_limit=0)
    for number in range(200):
        bus.emit(Noted(number=number))
    assert bus.history.page(0, 10, "**") == ([], 0, 0)


def test_a_cursor_of_another_run_starts_from_the_beginning() -> None:
    bus = EventBus(monotonic_s=still)
    bus.emit(Noted(number=1))
    assert len(bus.history.page(10_000, 10, "**")[0]) == 1


@settings(deadline=None)  # a busy machine is not a failure
@given(
    steps=st.lists(st.tuples(st.integers(1, 300), st.floats(0.0001, 0.1)), max_size=12),
    limit=st.sampled_from([1, 7, 100, 5_000]),
    page=st.integers(1, 400),
)
def test_however_fast_events_come_remembered_and_missed_are_all_of_them(
    steps: list[tuple[int, float]], limit: int, page: int
) -> None:
    now_s = [0.0]
    bus = EventBus(history_limit=limit, monotonic_s=lambda: now_s[0])
    emitted = 0
    for count, pause_s in steps:
        for _ in range(count):
            now_s[0] += 0.000001
            bus.emit(Noted(number=emitted))
            emitted += 1
        now_s[0] += pause_s
        bus._calm()
    found: list[int] = []
    cursor = missed_in_all = 0
    while cursor < bus.history.cursor:
        entries, cursor, missed = bus.history.page(cursor, page, "**")
        found += [envelope.data.number for _, envelope in entries]
        missed_in_all += missed
    assert found == sorted(set(found))
    assert len(found) + missed_in_all == emitted


def test_a_flood_is_remembered_now_and_then_and_a_calm_topic_in_full() -> None:
    now_s = [0.0]
    bus = EventBus(monotonic_s=lambda: now_s[0])
    for number in range(10_000):
        now_s[0] += 0.000001
        bus.emit(Noted(number=number))
    assert len(numbers_of(bus)) < 200
    bus._calm()
    now_s[0] += 1
    for number in range(10_000, 10_020):
        now_s[0] += 0.1
        bus.emit(Noted(number=number))
    assert numbers_of(bus)[-20:] == list(range(10_000, 10_020))
    assert bus.counts()[Noted.topic].emitted == 10_020


async def test_a_flooding_topic_calms_down_by_itself() -> None:
    bus = EventBus()
    while not bus._directory.topics[Noted.topic].flooding:
        for number in range(1_000):
            bus.emit(Noted(number=number))
    async with asyncio.timeout(30):
        while bus._directory.topics[Noted.topic].flooding:
            await asyncio.sleep(0.01)
    bus.emit(Noted(number=-1))
    assert numbers_of(bus)[-1] == -1


async def test_waiting_ends_with_the_next_event_or_with_time() -> None:
    bus = EventBus(monotonic_s=still)
    bus.emit(Noted(number=1))
    assert await bus.history.wait(0, 30)
    assert not await bus.history.wait(1, 0.001)
    waiting = asyncio.create_task(bus.history.wait(1, 30))
    await asyncio.sleep(0)
    bus.emit(Noted(number=2))
    async with asyncio.timeout(20):
        assert await waiting
        closing = asyncio.create_task(bus.history.wait(2, 30))
        await asyncio.sleep(0)
        await bus.close()
        assert not await closing


async def test_failed_deliveries_are_kept_with_their_reason() -> None:
    bus = EventBus(time_s=lambda: 42.0, handler_timeout_s=0.02, dead_letter_limit=3)

    def broken(envelope: Envelope[Noted]) -> None:
        raise RuntimeError("broken on purpose")

    async def hangs(envelope: Envelope[Noted]) -> None:
        await asyncio.Event().wait()

    bus.scoped("magds").on(Noted, broken)
    bus.emit(Noted(number=1))
    (letter,) = bus.dead_letters
    assert (letter.owner, letter.error, letter.time_s) == ("magds", "RuntimeError: broken on purpose", 42.0)
    assert letter.handler.endswith("broken")
    assert letter.envelope.data == Noted(number=1)
    bus.cancel_all("magds")
    bus.on(Noted, hangs)
    for number in range(2, 6):
        async with asyncio.timeout(20):
            await bus.publish(Noted(number=number))
    assert [kept.envelope.data.number for kept in bus.dead_letters] == [3, 4, 5]
    assert {kept.error for kept in bus.dead_letters} == {"TimeoutError: the handler passed its deadline"}
    assert bus.dead_letters.total == 5


def test_a_dead_letter_does_not_keep_a_text_of_any_length() -> None:
    bus = EventBus()

    def broken(envelope: Envelope[Noted]) -> None:
        raise RuntimeError("x" * 1_000_000)

    bus.on(Noted, broken)
    bus.emit(Noted(number=1))
    assert [len(letter.error) for letter in bus.dead_letters] == [2_000]


def test_the_size_of_an_event_is_about_what_it_holds() -> None:
    assert 10_000 <= size_of(Noted(number=1, text="x" * 10_000)) <= 10_500
    assert 1_000_000 <= size_of(Noted(number=1, text="\U0001f600" * 250_000)) <= 1_001_000


def test_an_empty_history_has_nothing_to_tell() -> None:
    assert History(limit=10, limit_bytes=10).page(0, 5, "**") == ([], 0, 0)
