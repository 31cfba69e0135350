"""Several consumers of one stream: each has its own tables, and what one of them holds is there after a restart."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from tests.integration.magds_changes.harness import Node, execute, query, record, running, table, tables, until

from magmobo.components.magds.changes.positions import lsn_of
from magmobo.contracts.planes import Gap, PublishedTable, RefusedTable, Replay


def in_stream(dsn: str) -> set[str]:
    return {name for (name,) in query(dsn, "select tablename from pg_publication_tables where pubname like 'mag_%'")}


def confirmed(dsn: str) -> int:
    rows = query(
        dsn, "select confirmed_flush_lsn - '0/0' from pg_replication_slots where database = current_database()"
    )
    return int(rows[0][0])


def ids(answer: Replay | Gap) -> list[int]:
    assert isinstance(answer, Replay), answer
    return [record(change)["id"] for change in answer.changes]


def make(dsn: str, names: Iterable[str]) -> None:
    execute(dsn, *(f"create table {name} (id int primary key)" for name in names))


async def test_each_consumer_has_its_own_tables(dsn: str) -> None:
    make(dsn, "abc")
    async with running(dsn) as node:
        service = node.service
        await service.publish(tables("a", "b"))
        answers = await service.publish(tables("c", "b", "absent"), consumer="other")
        assert [type(answer) for answer in answers] == [PublishedTable, PublishedTable, RefusedTable]
        assert [str(answer.table) for answer in answers] == ["public.c", "public.b", "public.absent"]
        assert in_stream(dsn) == {"a", "b", "c"}
        await service.publish(tables("a"))
        assert in_stream(dsn) == {"a", "b", "c"}, "b is wanted by the other one"
        await service.publish((), consumer="other")
        assert in_stream(dsn) == {"a"}
        assert service.published(table("a")) is not None
        assert service.published(table("c")) is None


async def test_who_speaks_first_takes_nothing_from_who_speaks_later(dsn: str) -> None:
    make(dsn, "ab")
    first = Node(dsn, keep_slot=True)
    await first.service.start()
    await first.publish("a")
    await first.service.publish(tables("b"), consumer="other")
    epoch, position = first.service.epoch, first.service.position
    await first.kill()
    execute(dsn, "insert into b values (1)")
    async with running(dsn, "a", ready=False) as second:
        execute(dsn, "insert into b values (2)")
        assert in_stream(dsn) == {"a", "b"}
        assert second.service.published(table("b")) is None
        await second.service.publish(tables("b"), consumer="other")
        await second.service.caught_up()
        await until(lambda: ids(second.service.replay(table("b"), epoch, position)) == [1, 2])


async def test_what_nobody_wants_leaves_when_the_node_is_ready(dsn: str) -> None:
    make(dsn, "ab")
    async with running(dsn, "a", "b"):
        pass
    async with running(dsn, "a", ready=False) as node:
        assert in_stream(dsn) == {"a", "b"}
        node.everybody_asked()
        await until(lambda: in_stream(dsn) == {"a"})


@pytest.mark.parametrize("holds", [True, False])
async def test_what_is_held_is_there_after_a_restart(dsn: str, holds: bool) -> None:
    """Nothing happens on the table itself, so that no history of its own holds the log back."""
    make(dsn, "a")
    execute(dsn, "create table elsewhere (id int)")
    first = Node(dsn, keep_slot=True)
    await first.service.start()
    await first.service.publish(tables("a"), consumer="other")
    await first.service.caught_up()
    epoch, position = first.service.epoch, first.service.position
    if holds:
        first.service.hold("other", position)
    first.everybody_asked()
    execute(dsn, "insert into elsewhere select generate_series(1, 20000)")
    end = int(query(dsn, "select pg_current_wal_lsn() - '0/0'")[0][0])
    await until(lambda: lsn_of(first.service.position) >= end)
    await until(lambda: holds or confirmed(dsn) > lsn_of(position))
    await first.kill()
    assert (confirmed(dsn) <= lsn_of(position)) is holds
    async with running(dsn, ready=False) as second:
        await second.service.publish(tables("a"), consumer="other")
        await second.service.caught_up()
        answer = second.service.replay(table("a"), epoch, position)
        assert isinstance(answer, Replay if holds else Gap)


async def test_before_the_node_is_ready_nothing_more_is_confirmed(dsn: str) -> None:
    make(dsn, "a")
    async with running(dsn, keep_slot=True):
        execute(dsn, "create table elsewhere (id int)")
    before = confirmed(dsn)
    async with running(dsn, ready=False) as node:
        await node.service.caught_up()
        execute(dsn, "insert into elsewhere select generate_series(1, 20000)")
        end = int(query(dsn, "select pg_current_wal_lsn() - '0/0'")[0][0])
        await until(lambda: lsn_of(node.service.position) >= end)
        await node.service.publish(tables("a"))  # a few rounds with the server
        assert confirmed(dsn) == before
        node.everybody_asked()
        await until(lambda: confirmed(dsn) >= end)


async def test_a_hold_that_is_taken_back_lets_go(dsn: str) -> None:
    make(dsn, "a")
    execute(dsn, "create table elsewhere (id int)")
    async with running(dsn, "a") as node:
        await node.service.caught_up()
        node.service.hold("one", node.service.position)
        node.service.hold("other", node.service.position)
        execute(dsn, "insert into elsewhere select generate_series(1, 20000)")
        end = int(query(dsn, "select pg_current_wal_lsn() - '0/0'")[0][0])
        await until(lambda: lsn_of(node.service.position) >= end)
        node.service.hold("one", node.service.position)
        node.service.hold("other", "no position at all")
        assert confirmed(dsn) < end
        node.service.hold("other", None)
        await until(lambda: confirmed(dsn) >= end)


async def test_a_hold_ends_where_the_slot_keeps_too_much(dsn: str) -> None:
    make(dsn, "a")
    execute(dsn, "create table elsewhere (body text)", "alter table elsewhere alter body set storage external")
    async with running(dsn, "a", wal_limit_bytes=64 * 1_048_576) as node:
        await node.service.caught_up()
        position = node.service.position
        node.service.hold("other", position)
        for _ in range(10):
            execute(dsn, "insert into elsewhere select repeat('x', 10000) from generate_series(1, 200)")
        await until(lambda: confirmed(dsn) > lsn_of(position))
        assert node.lost == [], "the stream itself goes on"
