"""The window against a model that keeps everything."""

from __future__ import annotations

import tracemalloc

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import Raw

from magmobo.components.magds.changes.history import OVERHEAD_BYTES, History
from magmobo.components.magds.changes.positions import lsn_of, position_text
from magmobo.contracts.events import DatabaseChange
from magmobo.contracts.planes import Gap, Replay, TableName

TABLES = [TableName("public", name) for name in "abc"]
LIMIT_BYTES, LIMIT_S = 20 * OVERHEAD_BYTES, 10.0


def change(table: TableName, position: str, body: bytes = b"{}") -> DatabaseChange:
    return DatabaseChange("s", table.schema, table.name, "insert", position, "now", Raw(body))


class WindowAgainstEverything(RuleBasedStateMachine):
    """Whatever replay gives is exactly what happened; what it may not know it calls a gap; limits hold."""

    def __init__(self) -> None:
        super().__init__()
        self.history = History(limit_bytes=LIMIT_BYTES, limit_s=LIMIT_S)
        self.everything: list[tuple[float, DatabaseChange]] = []
        self.raised = {table: position_text(0) for table in TABLES}
        self.lsn, self.sequence, self.now_s = 1, 0, 0.0
        self.given = [position_text(0)]

    @rule(table=st.sampled_from(TABLES), size_bytes=st.integers(0, 3000))
    def insert(self, table: TableName, size_bytes: int) -> None:
        self.sequence += 1
        made = change(table, position_text(self.lsn, self.sequence), b"x" * size_bytes)
        self.everything.append((self.now_s, made))
        self.history.append(self.history.table(table), made, self.now_s)
        self.given.append(made.position)

    @rule(step=st.integers(1, 5))
    def commit(self, step: int) -> None:
        self.lsn, self.sequence = self.lsn + step, 0
        self.history.advance(self.lsn)
        self.given.append(self.history.head)

    @rule(seconds=st.floats(0, 6))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.history.expire(self.now_s)
        times = {c.position: at for at, c in self.everything}
        held = [c for table in TABLES for c in self.history.table(table).changes]
        assert all(self.now_s - times[c.position] <= LIMIT_S for c in held)

    @rule(back=st.integers(0, 10))
    def trim(self, back: int) -> None:
        self.history.trim_before(self.lsn - back)
        held = [c for table in TABLES for c in self.history.table(table).changes]
        assert all(lsn_of(c.position) >= self.lsn - back for c in held)

    @rule(table=st.sampled_from(TABLES))
    def enter_again(self, table: TableName) -> None:
        self.raised[table] = self.history.head
        self.history.raise_floor(table, self.history.head)

    @rule(table=st.sampled_from(TABLES), data=st.data())
    def resume(self, table: TableName, data: st.DataObject) -> None:
        position = data.draw(st.sampled_from(self.given))
        answer = self.history.after(table, position)
        of_table = [c for _, c in self.everything if c.table == table.name]
        expected = [c for c in of_table if c.position > position]
        if isinstance(answer, Replay):
            assert list(answer.changes) == expected
            assert answer.position == self.history.head
            assert position >= self.raised[table]
        else:
            assert answer.reason == "too_old"
            held = self.history.table(table).changes
            assert position < self.raised[table] or len(expected) > len([c for c in held if c.position > position])

    @invariant()
    def limits_hold(self) -> None:
        held = [c for table in TABLES for c in self.history.table(table).changes]
        assert self.history.size_bytes == sum(OVERHEAD_BYTES + len(c.record or b"") for c in held) <= LIMIT_BYTES
        assert sorted(c.position for c in held) == [c.position for _, c in self.everything[-len(held) :]] * bool(held)

    @invariant()
    def the_confirmed_position_covers_the_window(self) -> None:
        for table in TABLES:
            for held in self.history.table(table).changes:
                assert self.history.confirmable_lsn <= lsn_of(held.position)
        assert self.history.confirmable_lsn <= lsn_of(self.history.head)


TestWindow = WindowAgainstEverything.TestCase
TestWindow.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_what_is_ahead_or_no_position_is_said() -> None:
    history = History(limit_bytes=LIMIT_BYTES, limit_s=LIMIT_S)
    history.reset(100)
    for position, reason in ((position_text(101), "ahead"), (position_text(99), "too_old"), ("x", "malformed")):
        answer = history.after(TABLES[0], position)
        assert isinstance(answer, Gap)
        assert answer.reason == reason
    assert history.after(TABLES[0], position_text(100)) == Replay([], position_text(100))


def test_one_transaction_larger_than_the_window_keeps_its_end() -> None:
    history = History(limit_bytes=LIMIT_BYTES, limit_s=LIMIT_S)
    for sequence in range(1, 101):
        history.append(history.table(TABLES[0]), change(TABLES[0], position_text(5, sequence)), 0.0)
    answer = history.after(TABLES[0], position_text(5, 90))
    assert isinstance(answer, Replay)
    assert [c.position for c in answer.changes] == [position_text(5, n) for n in range(91, 101)]
    assert isinstance(history.after(TABLES[0], position_text(5, 50)), Gap)
    assert history.confirmable_lsn == 5


def test_age_and_log_distance_evict() -> None:
    history = History(limit_bytes=LIMIT_BYTES, limit_s=LIMIT_S)
    for lsn in range(1, 6):
        history.append(history.table(TABLES[0]), change(TABLES[0], position_text(lsn, 1)), float(lsn))
    history.expire(LIMIT_S + 2.5)
    assert history.confirmable_lsn == 3
    history.trim_before(5)
    assert history.confirmable_lsn == 5
    history.expire(1000.0)
    assert history.confirmable_lsn == 5
    history.advance(9)
    assert history.confirmable_lsn == 9


def test_the_counted_size_is_not_below_the_real_one() -> None:
    history = History(limit_bytes=2**40, limit_s=LIMIT_S)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for sequence in range(1, 5001):
        body = b'{"id":%d,"name":"something of a length"}' % sequence
        made = DatabaseChange(
            "s", "public", "a", "update", position_text(5, sequence), "now", Raw(body + b""), Raw(body[:-1] + b"}")
        )
        history.append(history.table(TABLES[0]), made, float(sequence))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before <= history.size_bytes
