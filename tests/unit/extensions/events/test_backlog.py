"""What waits for a subscription: order by key, retries, gaps, and that nothing is forgotten."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from magmobo.extensions.events.backlog import LIMITED, MAX_BATCH, NOT_TRIED, Backlog, Waiting


def filled(count: int, *, limit: int = 10_000, keys: int = 1) -> Backlog:
    backlog = Backlog(0, limit)
    for seq in range(1, count + 1):
        backlog.offer(seq, f"k{seq % keys}", float(seq))
    return backlog


def seqs(batch: Any) -> list[int]:
    return [one.seq for one in batch]


def test_batches_are_in_order_and_bounded() -> None:
    backlog = filled(100)
    first = backlog.take(0.0)
    assert seqs(first) == list(range(1, MAX_BATCH + 1))
    assert backlog.cursor == 0
    assert backlog.settle(first, {}, 0.0) == []
    assert backlog.cursor == MAX_BATCH
    assert seqs(backlog.take(0.0)) == list(range(MAX_BATCH + 1, 101))


def test_what_does_not_concern_it_moves_the_cursor() -> None:
    backlog = Backlog(7, 10)
    backlog.pass_over(12)
    assert backlog.cursor == 12
    assert backlog.due_in_s(0.0) is None


def test_an_event_that_fails_is_tried_after_1_5_and_25_seconds_and_then_given_up() -> None:
    backlog = filled(3)
    now_s, tries = 0.0, []
    while True:
        batch = backlog.take(now_s)
        assert batch[0].seq == 1
        tries.append(now_s)
        given_up = backlog.settle(batch, {0: "no"}, now_s)
        if given_up:
            break
        assert backlog.take(now_s) == [], "those behind it wait for it"
        wait_s = backlog.due_in_s(now_s)
        assert wait_s
        assert backlog.take(now_s + wait_s - 0.01) == []
        now_s += wait_s
    assert tries == [0.0, 1.0, 6.0, 31.0]
    assert [(one.seq, one.tries, reason) for one, reason in given_up] == [(1, 4, "no")]
    assert backlog.cursor == 0, "not before it is kept elsewhere"
    backlog.bury(given_up[0][0])
    assert backlog.cursor == 1
    assert seqs(backlog.take(now_s)) == [2, 3], "they come again, behind it"


def test_another_key_goes_on_beside_one_that_fails() -> None:
    backlog = filled(6, keys=2)
    batch = backlog.take(0.0)
    backlog.settle(batch, {0: "no"}, 0.0)  # 1 of key k1
    assert backlog.waiting == 3
    assert backlog.cursor == 0
    again = backlog.take(1.0)
    assert seqs(again) == [1], "alone, as it may fail again"
    backlog.settle(again, {}, 1.0)
    assert seqs(backlog.take(1.0)) == [3, 5]


def test_what_a_worker_did_not_come_to_is_no_try() -> None:
    backlog = filled(4, keys=2)
    backlog.settle(backlog.take(0.0), {1: "no", 2: NOT_TRIED, 3: NOT_TRIED}, 0.0)
    batch = backlog.take(0.0)
    assert [(one.seq, one.tries) for one in batch] == [(3, 0)]
    again = backlog.take(1.0)
    assert [(one.seq, one.tries) for one in again] == [(2, 1)]
    backlog.settle(again, {}, 1.0)
    assert [(one.seq, one.tries) for one in backlog.take(1.0)] == [(4, 0)]


def test_a_limit_of_the_node_is_no_try_however_often_it_is_met() -> None:
    backlog, now_s = filled(6, keys=2), 0.0
    batch = backlog.take(now_s)
    assert backlog.settle(batch, {2: LIMITED}, now_s) == []  # 3, of key k1
    backlog.hold_until(now_s + 30.0)
    assert backlog.cursor == 2
    assert backlog.due_in_s(now_s) == 30.0
    backlog.offer(7, "other", 7.0)
    for _ in range(20):
        assert backlog.take(now_s + 29.9) == (), "nobody is told anything until it is over"
        now_s += 30.0
        batch = backlog.take(now_s)
        assert seqs(batch) == [3], "alone: little is let through at its end"
        assert backlog.settle(batch, {0: LIMITED}, now_s) == []
        backlog.hold_until(now_s + 30.0)
    now_s += 30.0
    batch = backlog.take(now_s)
    assert [one.tries for one in batch] == [0]
    backlog.settle(batch, {}, now_s)
    assert seqs(backlog.take(now_s)) == [5, 7], "what is of its key comes again behind it"


def test_what_waits_for_a_limit_is_bounded_like_the_rest() -> None:
    backlog = filled(10, limit=10)
    backlog.settle(backlog.take(0.0), dict.fromkeys(range(10), LIMITED), 0.0)
    backlog.hold_until(60.0)
    for seq in range(11, 16):
        backlog.offer(seq, "k0", float(seq))
    [gap] = backlog.take(60.0)
    assert (gap.key, gap.count, gap.since_s, gap.until_s) == (None, 6, 1.0, 6.0)
    backlog.settle([gap], {}, 60.0)
    taken = []
    while batch := backlog.take(60.0):
        taken += seqs(batch)
        backlog.settle(batch, {}, 60.0)
    assert taken == list(range(7, 16))


def test_a_worker_that_ends_is_asked_for_one_at_a_time_until_it_is_known_which_one_ends_it() -> None:
    backlog, now_s = filled(5), 0.0
    assert backlog.break_off(backlog.take(now_s), "ended", now_s) == ()
    assert backlog.take(now_s) == []
    delivered: list[int] = []
    dead: list[int] = []
    while backlog.waiting:
        now_s += backlog.due_in_s(now_s) or 0.0
        batch = backlog.take(now_s)
        if any(one.seq == 3 for one in batch):
            for one, _ in backlog.break_off(batch, "ended", now_s):
                dead.append(one.seq)
                backlog.bury(one)
        else:
            delivered += seqs(batch)
            backlog.settle(batch, {}, now_s)
    assert (delivered, dead) == ([1, 2, 4, 5], [3])


def test_batches_grow_again_and_shrink_where_they_take_long() -> None:
    backlog = filled(500)
    backlog.break_off(backlog.take(0.0), "ended", 0.0)
    sizes = []
    for _ in range(8):
        batch = backlog.take(10.0)
        sizes.append(len(batch))
        backlog.settle(batch, {}, 10.0)
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 64]
    backlog.slow_down()
    assert len(backlog.take(10.0)) == 16


def test_nobody_asked_is_no_try() -> None:
    backlog = filled(2)
    batch = backlog.take(0.0)
    backlog.put_back(batch)
    assert [(one.seq, one.tries) for one in backlog.take(0.0)] == [(1, 0), (2, 0)]


def test_too_many_become_one_gap_that_grows() -> None:
    backlog = filled(15, limit=10)
    assert (backlog.waiting, backlog.dropped) == (10, 6)
    [gap] = backlog.take(0.0)
    assert (gap.seq, gap.key, gap.count, gap.since_s, gap.until_s) == (1, None, 6, 1.0, 6.0)
    assert gap.reason == "backlog"
    backlog.offer(16, "", 16.0)
    assert gap.count == 6, "it is being told, so another one begins"
    assert backlog.waiting == 10
    backlog.settle([gap], {}, 0.0)
    [second] = backlog.take(0.0)
    assert (second.seq, second.count) == (7, 2)
    backlog.settle([second], {}, 0.0)
    assert seqs(backlog.take(0.0)) == list(range(9, 17))


def test_events_under_way_are_not_replaced() -> None:
    backlog = filled(5, limit=5)
    batch = backlog.take(0.0)
    for seq in range(6, 9):
        backlog.offer(seq, "", float(seq))
    assert backlog.waiting == 6, "five are under way"
    backlog.settle(batch, {}, 0.0)
    [gap] = backlog.take(0.0)
    assert gap.count == 3
    assert backlog.cursor == 5


def test_a_gap_waits_for_what_is_before_it_and_holds_back_what_is_behind_it() -> None:
    backlog = Backlog(0, 100)
    backlog.offer(1, "a", 1.0)
    backlog.offer(2, None, 2.0, 0.5)
    backlog.offer(3, "b", 3.0)
    first = backlog.take(0.0)
    assert seqs(first) == [1]
    backlog.settle(first, {0: "no"}, 0.0)
    assert backlog.take(0.0) == []
    assert backlog.due_in_s(0.0) == 1.0
    backlog.settle(backlog.take(1.0), {}, 1.0)
    gap = backlog.take(1.0)
    assert [(one.seq, one.since_s, one.until_s) for one in gap] == [(2, 0.5, 2.0)]
    backlog.settle(gap, {}, 1.0)
    assert seqs(backlog.take(1.0)) == [3]


def test_what_was_removed_from_the_log_becomes_a_gap() -> None:
    backlog = filled(5)
    backlog.lose(3, 100.0)
    [gap] = backlog.take(0.0)
    assert (gap.seq, gap.count, gap.reason) == (1, 3, "expired")
    backlog.settle([gap], {}, 0.0)
    assert seqs(backlog.take(0.0)) == [4, 5]
    backlog.lose(9, 100.0)
    assert backlog.scanned == 9
    backlog.settle(backlog.take(0.0), {}, 0.0)


def test_rows_removed_before_anybody_looked_are_a_gap_too() -> None:
    backlog = Backlog(4, 100)
    backlog.lose(9, 100.0)
    [gap] = backlog.take(0.0)
    assert (gap.seq, gap.key, gap.until_s, gap.reason, gap.count) == (5, None, 100.0, "expired", 0)
    assert backlog.cursor == 4
    backlog.settle([gap], {}, 0.0)
    assert backlog.cursor == 9


def test_a_stuck_key_keeps_no_memory_of_those_that_passed_it() -> None:
    backlog = Backlog(0, 100)
    backlog.offer(1, "stuck", 0.0)
    backlog.settle(backlog.take(0.0), {0: "no"}, 0.0)
    for seq in range(2, 20_000):
        backlog.offer(seq, "free", 0.0)
        if seq % 50 == 0:
            backlog.settle(backlog.take(0.5), {}, 0.5)
    assert len(backlog._line) < 4000
    assert backlog.cursor == 0


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_happens_order_holds_and_nothing_is_forgotten(data: st.DataObject) -> None:
    limit = data.draw(st.integers(3, 30))
    backlog, now_s, seq = Backlog(0, limit), 0.0, 0
    order: dict[str, list[int]] = defaultdict(list)
    passed: set[int] = set()
    gaps: list[Waiting] = []

    def finished(one: Waiting) -> None:
        if one.key is None:
            gaps.append(one)
        else:
            order[one.key].append(one.seq)

    steps = data.draw(
        st.lists(st.sampled_from(["offer", "deliver", "limit", "wait", "pass", "break", "back"]), max_size=60)
    )
    for step in [*steps, *["drain"] * 400]:
        before = backlog.cursor
        if step == "offer":
            for _ in range(data.draw(st.integers(1, 12))):
                seq += 1
                backlog.offer(seq, data.draw(st.sampled_from("abc")), float(seq))
        elif step == "pass":
            seq += 1
            backlog.pass_over(seq)
            passed.add(seq)
        elif step == "wait":
            now_s += data.draw(st.sampled_from([0.5, 1.0, 5.0, 25.0]))
        else:
            if step == "drain":
                now_s += backlog.due_in_s(now_s) or 0.0
            batch = backlog.take(now_s)
            assert len(batch) <= MAX_BATCH
            assert all(one.due_s <= now_s for one in batch)
            if not batch or step == "back":
                backlog.put_back(batch)
                continue
            if step == "break":
                given_up = backlog.break_off(batch, "ended", now_s)
            elif step == "deliver":
                failing = data.draw(st.sets(st.integers(0, len(batch) - 1), max_size=5))
                given_up = backlog.settle(batch, dict.fromkeys(failing, "no"), now_s)
            elif step == "limit":
                met = data.draw(st.sets(st.integers(0, len(batch) - 1), min_size=1, max_size=5))
                tries = [one.tries for one in batch]
                given_up = backlog.settle(batch, dict.fromkeys(met, LIMITED), now_s)
                assert [one.tries for one in batch] == tries
                backlog.hold_until(now_s + data.draw(st.sampled_from([0.5, 40.0])))
                assert not backlog.take(now_s)
            else:
                given_up = backlog.settle(batch, {}, now_s)
            for one in batch:
                if one.settled:
                    finished(one)
            for one, _ in given_up:
                backlog.bury(one)
                finished(one)
        assert backlog.cursor >= before
        assert backlog.waiting <= limit + MAX_BATCH
        known = {*passed, *(one for seen in order.values() for one in seen)}
        for settled in set(range(before + 1, backlog.cursor + 1)) - known:
            assert any(gap.since_s <= settled <= gap.until_s for gap in gaps), f"{settled} was forgotten"
        if step == "drain" and not backlog.waiting:
            break
    assert (backlog.waiting, backlog.cursor) == (0, seq)
    for key, seen in order.items():
        assert seen == sorted(set(seen)), f"key {key} out of order: {seen}"
    assert sum(gap.count for gap in gaps) == backlog.dropped == seq - len(passed) - sum(map(len, order.values()))
