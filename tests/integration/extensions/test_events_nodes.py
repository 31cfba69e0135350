"""Several nodes of one database, nodes that end without a word, connections and databases that go away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.extensions.event_support import (
    FakeWorker,
    Node,
    TestNoted,
    binding,
    execute,
    installed,
    query,
    running_node,
    until,
)

from magmobo.components.magds.changes import service, slot
from magmobo.extensions.events import delivery, intake, router, seat
from magmobo.extensions.events.errors import EventsBusy
from magmobo.extensions.package.manifest import JobBinding
from magx import wire

SEATS = "select pid from pg_locks where locktype = 'advisory' and classid = 1835100006 and granted"
LEADER = "select pid from pg_locks where locktype = 'advisory' and classid = 1835100005 and objid = 1 and granted"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at every now and then is looked at often."""
    monkeypatch.setattr(seat, "BEAT_S", 0.05)
    monkeypatch.setattr(seat, "_RETRY_S", 0.05)
    monkeypatch.setattr(delivery, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(delivery, "POLL_S", 0.05)
    monkeypatch.setattr(router, "FOLLOW_EVERY_S", 0.1)
    monkeypatch.setattr(slot, "_LOCK_PATIENCE_S", 0.1)  # a second node does not become the reader of changes
    monkeypatch.setattr(service, "_START_PATIENCE_S", 0.3)


async def die(node: Node) -> None:
    """End as a killed process does: no farewell, its connections closed."""
    tasks, node.router._tasks = node.router._tasks, []
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_of_two_nodes_delivers_what_happens_on_both(dsn: str) -> None:
    async with running_node(dsn) as one:
        first = FakeWorker(installed("listener", binding()))
        await one.router.attach(first)
        one.emit(TestNoted(0))
        await until(lambda: first.numbers() == [0])
        async with running_node(dsn) as two:
            second = FakeWorker(installed("listener", binding()))
            await two.router.attach(second)
            two.emit(TestNoted(1))
            await until(lambda: first.numbers() == [0, 1])
            one.emit(TestNoted(2))
            await until(lambda: first.numbers() == [0, 1, 2])
            assert second.told == []
            assert len(query(dsn, SEATS)) == 2
            assert len(query(dsn, LEADER)) == 1
            await one.router.stop()
            two.emit(TestNoted(3))
            await until(lambda: second.numbers() == [3], "the other one delivers now")
            assert second.gaps() == []


async def test_a_node_that_leaves_in_order_but_slowly_is_not_taken_for_dead(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave = seat.Seat.leave

    async def leave_slowly(self: seat.Seat) -> None:
        await asyncio.sleep(10 * seat.BEAT_S)
        await leave(self)

    async with running_node(dsn) as one, running_node(dsn) as two:
        workers = [FakeWorker(installed("listener", binding())) for _ in range(2)]
        await one.router.attach(workers[0])
        await until(lambda: len(query(dsn, LEADER)) == 1)
        await two.router.attach(workers[1])
        await until(lambda: len(query(dsn, SEATS)) == 2)
        monkeypatch.setattr(seat.Seat, "leave", leave_slowly)
        await one.router.stop()
        two.emit(TestNoted(1))
        await until(lambda: workers[1].numbers() == [1])
        assert workers[1].gaps() == []
        assert len(query(dsn, SEATS)) == 1


async def test_a_node_that_ends_without_a_word_leaves_a_gap_to_those_who_hear_of_nodes(dsn: str) -> None:
    hearers: Callable[[], FakeWorker] = lambda: FakeWorker(  # noqa: E731
        installed(
            "listener", binding(), binding("extension.published", "published"),
            binding("database.change", "rows", tables=["public.t"]),
        )
    )  # fmt: skip
    execute(dsn, "create table public.t (id int primary key)")
    async with running_node(dsn) as one:
        await one.router.attach(hearers())
        async with running_node(dsn) as two:
            second = hearers()
            await two.router.attach(second)
            await die(one)
            await until(lambda: second.gaps())
            [gap] = second.gaps()
            assert gap["reason"] == "node_ended"
            assert 0 <= gap["until_s"] - gap["since_s"] < 30
            two.emit(TestNoted(1))
            await until(lambda: second.numbers() == [1])
            assert (second.gaps("published"), second.gaps("rows")) == ([], [])
            assert len(query(dsn, "select * from mag.extension_source")) == 1
            assert query(dsn, "select count(*) from mag.extension_event where topic = 'extension.gap'") == [(1,)]


async def test_a_lost_connection_is_replaced_and_the_node_is_its_old_self(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = FakeWorker(installed("listener", binding()))
        await node.router.attach(worker)
        node.emit(TestNoted(0))
        await until(lambda: worker.numbers() == [0])
        await until(lambda: query(dsn, "select waiting, cursor_seq from mag.extension_subscription") == [(0, 1)])
        for number in range(1, 4):
            before = query(dsn, LEADER)
            execute(dsn, *(f"select pg_terminate_backend({pid})" for (pid,) in query(dsn, SEATS)))
            node.emit(TestNoted(number))
            await until(lambda number=number: worker.numbers()[-1:] == [number])
            assert query(dsn, LEADER) != before
            await until(
                lambda number=number: query(dsn, "select cursor_seq from mag.extension_subscription") == [(number + 1,)]
            )
        assert worker.numbers() == [0, 1, 2, 3]
        assert worker.gaps() == []
        assert len(query(dsn, "select * from mag.extension_source")) == 1


async def test_a_job_is_run_by_one_node(dsn: str) -> None:
    def tidy() -> FakeWorker:
        return FakeWorker(installed("tidy", jobs=[JobBinding(name="tidy")], grants={"system.background_jobs": {}}))

    async with running_node(dsn) as one, running_node(dsn) as two:
        first, second = tidy(), tidy()
        await one.router.attach(first)
        await two.router.attach(second)
        await two.call(second, "jobs.enqueue", job="tidy")
        await until(lambda: query(dsn, "select * from mag.extension_job") == [])
        assert len(first.asked) + len(second.asked) == 1


async def test_a_rewind_asked_on_one_node_counts_on_the_one_that_delivers(dsn: str) -> None:
    async with running_node(dsn) as one, running_node(dsn) as two:
        first, second = FakeWorker(installed("listener", binding())), FakeWorker(installed("listener", binding()))
        await one.router.attach(first)
        one.emit(TestNoted(0))
        await until(lambda: first.numbers() == [0])
        await two.router.attach(second)
        await two.call(second, "events.replay", subscription="heard", seconds=60)
        await until(lambda: first.numbers() == [0, 0])


async def test_more_than_the_queue_holds_while_the_database_is_slow_is_one_gap(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "MAX_QUEUE", 100)
    async with running_node(dsn) as node:
        worker = FakeWorker(installed("listener", binding()))
        publisher = FakeWorker(installed("publisher", grants={"api.emit_events": {}}))
        await node.router.attach(worker)
        async with node.host.database.session() as connection, connection.transaction():
            await connection.execute("select pg_advisory_xact_lock(1835100005, 0)")  # nobody else can append
            for number in range(1000):
                node.emit(TestNoted(number))
                await asyncio.sleep(0)
            with pytest.raises(EventsBusy):
                await node.call(publisher, "events.publish", name="too.much")
        await until(lambda: worker.gaps())
        node.emit(TestNoted(1000))
        await until(lambda: worker.numbers()[-1:] == [1000])
        [gap] = worker.gaps()
        assert gap["reason"] == "overload"
        assert gap["count"] == 1001 - len(worker.data())
        assert 100 <= len(worker.data()) < 1000


async def test_what_a_hostile_worker_answers_changes_nothing_for_others(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from magmobo.extensions.events import backlog

    monkeypatch.setattr(backlog, "RETRY_AFTER_S", (0.01, 0.01, 0.01))

    class Liar(FakeWorker):
        answer_with: Any = ()

        async def deliver(self, subscription: str, items: Any, timeout_s: float) -> Any:
            await super().deliver(subscription, items, timeout_s)
            return wire.Acked(1, self.answer_with)

    async with running_node(dsn) as node:
        liar, good = Liar(installed("liar", binding())), FakeWorker(installed("good", binding()))
        liar.answer_with = [(-1, "x"), (99, "x"), (0, ""), (0, "a\x00b\ud800" + "y" * 10_000), (2**70, "")]
        await node.router.attach(liar)
        await node.router.attach(good)
        for number in range(5):
            node.emit(TestNoted(number))
        await until(lambda: good.numbers() == [0, 1, 2, 3, 4])
        await until(lambda: query(dsn, "select count(*) from mag.extension_dead where extension_id = 'liar'") == [(5,)])
        [(error,)] = query(dsn, "select distinct error from mag.extension_dead")
        assert len(error) <= 500
        liar.answer_with = [(place, "") for place in range(64)]
        before = len(liar.batches)
        for number in range(5, 8):
            node.emit(TestNoted(number))
        await until(lambda: query(dsn, "select count(*) from mag.extension_dead where extension_id = 'liar'") == [(8,)])
        assert len(liar.batches) - before <= 20, "it cannot put off for ever"
