"""After any fault: the same positions again, or a gap that says so."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import psycopg
import pytest
from tests.integration.magds_changes.harness import Node, execute, query, record, running, table, until

from magmobo.components.magds.changes.errors import AnotherReader
from magmobo.components.magds.changes.positions import lsn_of, position_text
from magmobo.contracts.events import DatabaseChange
from magmobo.contracts.planes import Gap, Replay
from magmobo.testing.postgres import PostgresServer

START = position_text(1)


def slot_rows(dsn: str) -> list[tuple[object, ...]]:
    return query(
        dsn, "select slot_name, confirmed_flush_lsn from pg_replication_slots where database = current_database()"
    )


def missed(node: Node, name: str, position: str, epoch: str | None = None) -> list[int]:
    answer = node.service.replay(table(name), epoch or node.service.epoch, position)
    assert isinstance(answer, Replay), answer
    return [record(change)["id"] for change in answer.changes]


def gap(node: Node, name: str, epoch: str, position: str) -> str:
    answer = node.service.replay(table(name), epoch, position)
    assert isinstance(answer, Gap), answer
    return answer.reason


@pytest.mark.parametrize("ending", ["kill", "stop"])
async def test_a_new_reader_rebuilds_the_same_history(dsn: str, ending: str) -> None:
    execute(dsn, "create table t (id int primary key)")
    first = Node(dsn, keep_slot=True)
    await first.service.start()
    await first.publish("t")
    await first.service.caught_up()
    execute(dsn, "insert into t values (1)", "insert into t values (2), (3)", "insert into t values (4)")
    await until(lambda: len(first.changes) == 4)
    await (first.kill() if ending == "kill" else first.service.stop(clean=True))
    execute(dsn, "insert into t values (5)")
    async with running(dsn, "t") as second:
        await second.service.caught_up()
        execute(dsn, "insert into t values (6)")
        await until(lambda: len(second.changes) == 6)
        assert second.service.epoch == first.service.epoch
        assert [c.position for c in second.changes[:4]] == [c.position for c in first.changes]
        assert [c.replayed for c in second.changes] == [True] * 5 + [False]
        assert missed(second, "t", first.changes[1].position) == [3, 4, 5, 6]
        assert missed(second, "t", first.service.position) == [5, 6]


async def test_the_same_service_stopped_and_started_goes_on(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key)")
    node = Node(dsn, keep_slot=True)
    await node.service.start()
    await node.publish("t")
    execute(dsn, "insert into t values (1)")
    await until(lambda: len(node.changes) == 1)
    await node.service.stop(clean=True)
    execute(dsn, "insert into t values (2)")
    await node.service.start()
    await until(lambda: len(node.changes) == 2)
    assert [record(c)["id"] for c in node.changes] == [1, 2]
    assert not node.lost
    await node.service.shutdown()


async def test_killing_the_server_under_writes_loses_and_repeats_nothing() -> None:
    with restartable_postgres() as server:
        dsn = server.dsn()
        execute(dsn, "create table t (id int primary key)")
        committed: list[int] = []
        over = threading.Event()

        def write() -> None:
            number = 0
            while not over.is_set():
                try:
                    with psycopg.connect(dsn, autocommit=True, connect_timeout=2) as client:
                        while not over.is_set():
                            number += 1
                            client.execute("insert into t values (%s)", (number,))
                            committed.append(number)
                except psycopg.Error:
                    time.sleep(0.01)

        async with running(dsn, "t") as node:
            await node.service.caught_up()
            thread = threading.Thread(target=write)
            thread.start()
            epoch = node.service.epoch
            for _ in range(2):
                seen = len(node.changes)
                await until(lambda seen=seen: len(node.changes) > seen + 50)
                server.crash()
                server.start()
            seen = len(node.changes)
            await until(lambda: len(node.changes) > seen + 50)
            over.set()
            thread.join()
            rows = [row[0] for row in query(dsn, "select id from t order by id")]
            await until(lambda: len(node.changes) >= len(rows))
            assert [record(c)["id"] for c in node.changes] == rows
            assert set(committed) <= set(rows)
            assert node.service.epoch == epoch
            assert not node.lost
            assert not any(c.replayed for c in node.changes)


async def test_a_connection_lost_inside_a_transaction_repeats_nothing(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key, body text)")
    async with running(dsn, "t") as node:
        await node.service.caught_up()
        execute(dsn, "insert into t select g, repeat('x', 500) from generate_series(1, 30000) g")
        await until(lambda: node.changes)
        query(dsn, "select pg_terminate_backend(active_pid) from pg_replication_slots where active")
        assert len(node.changes) < 30_000
        await until(lambda: len(node.changes) >= 30_000, "all rows")
        execute(dsn, "insert into t values (0)")
        await until(lambda: record(node.changes[-1])["id"] == 0)
        assert [record(c)["id"] for c in node.changes] == [*range(1, 30_001), 0]
        assert not node.lost


async def test_a_slot_waits_for_open_transactions_and_the_wait_is_said(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magmobo.components.magds.changes.service._START_PATIENCE_S", 0.5)
    execute(dsn, "create table t (id int primary key)")
    with psycopg.connect(dsn) as writer:
        writer.execute("insert into t values (1)")
        async with running(dsn) as node:
            assert any("transactions that are open" in notice for notice in node.service.notices())
        async with running(dsn) as node:
            writer.commit()
            await node.publish("t")
            await node.service.caught_up()
            execute(dsn, "insert into t values (2)")
            await until(lambda: node.changes)
    assert [record(c)["id"] for c in node.changes] == [2]


async def test_a_subscriber_that_resumes_after_many_kills_sees_every_row_once(dsn: str) -> None:
    execute(dsn, "create table t (id bigserial primary key)")
    over = threading.Event()

    def write() -> None:
        with psycopg.connect(dsn) as client:
            while not over.wait(0.001):  # no faster than a reader that has to wait for a processor
                client.execute("insert into t select from generate_series(1, 40)")
                client.rollback()
                client.execute("insert into t select from generate_series(1, 7)")
                client.commit()

    seen: list[DatabaseChange] = []
    epoch = position = ""
    writers = [threading.Thread(target=write) for _ in range(2)]
    for round_number in range(8):
        node = Node(dsn, keep_slot=True)
        await node.service.start()
        await node.publish("t")
        await node.service.caught_up()
        if round_number == 0:
            epoch, position = node.service.epoch, node.service.position
            for writer in writers:
                writer.start()
        if round_number == 7:
            over.set()
            for writer in writers:
                await asyncio.to_thread(writer.join)
            await until(lambda node=node: node.service.position > position_text(end_of_log(dsn) - 1))
        answer = node.service.replay(table("t"), epoch, position)
        assert isinstance(answer, Replay), answer
        seen += answer.changes
        live = len(node.changes)
        await until(lambda node=node, live=live: over.is_set() or len(node.changes) > live + 200)
        received = node.changes[live : live + 150]  # the subscriber is killed too, behind the reader
        assert not any(change.replayed for change in received)
        seen += received
        position = seen[-1].position
        await node.kill()
    positions = [change.position for change in seen]
    assert positions == sorted(set(positions))
    assert sorted(record(change)["id"] for change in seen) == [
        row[0] for row in query(dsn, "select id from t order by 1")
    ]


def end_of_log(dsn: str) -> int:
    return int(query(dsn, "select pg_current_wal_flush_lsn() - '0/0'")[0][0])


async def test_every_kind_of_gap(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key, body text)", "create table quiet (id int primary key)")
    async with running(dsn, "t", "quiet", history_bytes=1_048_576) as node:
        service = node.service
        await service.caught_up()
        execute(dsn, "insert into quiet values (1)")
        await until(lambda: node.changes)
        start = node.changes[0].position
        assert missed(node, "t", start) == []
        execute(dsn, "insert into t select g, repeat('x', 1000) from generate_series(1, 3000) g")
        await until(lambda: len(node.changes) == 3001)
        assert gap(node, "t", service.epoch, start) == "too_old"
        assert missed(node, "quiet", start) == []
        newest = node.changes[-1].position
        assert len(missed(node, "t", node.changes[-100].position)) == 99
        assert missed(node, "t", newest) == []
        assert gap(node, "t", service.epoch, position_text(lsn_of(newest) + 2**40)) == "ahead"
        assert gap(node, "t", "0" * 16, newest) == "epoch_changed"
        for bad in ("", "x", newest + "0", newest.upper() + " ", "９" * 25, "a" * 10_000):
            assert gap(node, "t", service.epoch, bad) == "malformed"
        assert gap(node, "unknown", service.epoch, newest) == "lost"


async def test_a_table_published_later_has_no_history_before(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key)", "create table u (id int primary key)")
    node = Node(dsn, keep_slot=True)
    await node.service.start()
    await node.publish("t")
    await node.service.caught_up()
    execute(dsn, "insert into u values (1)", "insert into t values (1)")
    await until(lambda: node.changes)
    before = node.changes[-1].position
    await node.publish("t", "u")
    fresh = node.service.position
    assert gap(node, "u", node.service.epoch, before) == "too_old"
    assert missed(node, "u", fresh) == []
    execute(dsn, "insert into u values (2)")
    await until(lambda: len(node.changes) == 2)
    assert missed(node, "u", fresh) == [2]
    await node.kill()
    async with running(dsn, "t", "u") as second:  # the window of the log reaches back before u was published
        await second.service.caught_up()
        assert missed(second, "t", before) == []
        assert gap(second, "u", second.service.epoch, before) == "too_old"
        assert missed(second, "u", fresh) == [2]


async def test_a_table_that_left_and_came_back_answers_a_gap(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key)")
    async with running(dsn, "t") as node:
        before = node.service.position
        await node.publish()
        execute(dsn, "insert into t values (1)")
        assert gap(node, "t", node.service.epoch, before) == "lost"
        await node.publish("t")
        assert gap(node, "t", node.service.epoch, before) == "too_old"
        assert missed(node, "t", node.service.position) == []


async def test_a_slot_dropped_from_outside_is_a_new_epoch_and_says_so(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key)")
    async with running(dsn, "t") as node:
        await node.service.caught_up()
        execute(dsn, "insert into t values (1)")
        await until(lambda: node.changes)
        epoch, position = node.service.epoch, node.service.position
        with psycopg.connect(dsn, autocommit=True) as admin:
            while not node.lost:
                admin.execute("select pg_terminate_backend(active_pid) from pg_replication_slots where active")
                try:
                    admin.execute(
                        "select pg_drop_replication_slot(slot_name) from pg_replication_slots "
                        "where database = current_database()"
                    )
                    break
                except psycopg.errors.ObjectInUse:
                    continue
        await until(lambda: node.lost and node.service._reader.streaming)
        assert node.lost[0].reason == "slot_lost"
        assert node.lost[0].epoch == node.service.epoch != epoch
        assert node.lost[0].from_position == position
        assert gap(node, "t", epoch, position) == "epoch_changed"
        execute(dsn, "insert into t values (2)")
        await until(lambda: len(node.changes) == 2)
        assert any("began anew" in notice for notice in node.service.notices())


async def test_a_slot_moved_forward_by_somebody_is_said_so(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key)")
    node = Node(dsn, keep_slot=True)
    await node.service.start()
    await node.publish("t")
    await node.service.caught_up()
    position = node.service.position
    await node.service.stop(clean=True)
    execute(dsn, "insert into t values (1)")
    await until(
        lambda: not query(dsn, "select 1 from pg_replication_slots where active and database=current_database()")
    )
    query(
        dsn,
        "select pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) from pg_replication_slots "
        "where database = current_database()",
    )
    await node.service.start()
    await until(lambda: node.lost)
    assert node.lost[0].reason == "slot_advanced"
    assert gap(node, "t", node.service.epoch, position) == "too_old"
    await node.service.shutdown()


async def test_a_second_node_is_refused_and_takes_over(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magmobo.components.magds.changes.slot._LOCK_PATIENCE_S", 0.2)
    execute(dsn, "create table t (id int primary key)")
    first, second = Node(dsn, keep_slot=True), Node(dsn)
    await first.service.start()
    await first.publish("t")
    await second.service.start()
    with pytest.raises(AnotherReader):
        await second.service.caught_up()
    assert any("MAG-DS-106" in notice for notice in second.service.notices())
    assert [answer.code for answer in await second.publish("t")] == ["MAG-DS-106"]
    execute(dsn, "insert into t values (1)")
    await until(lambda: first.changes)
    await first.kill()
    await until(lambda: second.service.published(table("t")), "takes over")
    await second.service.caught_up()
    assert missed(second, "t", START if not second.changes else position_text(lsn_of(second.changes[0].position))) == [
        1
    ]
    await second.service.shutdown()


async def test_a_clean_stop_leaves_alone_what_another_node_took_over(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key)")
    first, second = Node(dsn, keep_slot=False), Node(dsn)
    await first.service.start()
    await first.publish("t")
    first.service._tasks[0].cancel()  # cut off from the server, as by a network
    await second.service.start()
    await second.publish("t")
    await second.service.caught_up()
    epoch = second.service.epoch
    await first.service.stop(clean=True)
    execute(dsn, "insert into t values (1)")
    await until(lambda: second.changes)
    assert (second.service.epoch, second.lost) == (epoch, [])
    await second.service.shutdown()


async def test_an_older_copy_of_the_server_is_a_new_epoch() -> None:
    with restartable_postgres() as server:
        dsn, data, copy = server.dsn(), server.socket_dir / "data", server.socket_dir / "copy"
        execute(dsn, "create table t (id int primary key)")
        async with running(dsn, "t") as node:
            await node.service.caught_up()
            epoch = node.service.epoch
            server.crash()
            subprocess.run(["cp", "-a", data, copy], check=True)
            server.start()
            execute(dsn, "insert into t select generate_series(1, 1000)")
            await until(lambda: len(node.changes) == 1000)
            server.crash()
            data.rename(server.socket_dir / "future")
            copy.rename(data)
            server.start()
            execute(dsn, "insert into t values (7)")
            await until(lambda: node.lost)
            assert (node.lost[0].reason, node.service.epoch != epoch) == ("log_rewound", True)
            execute(dsn, "insert into t values (8)")
            await until(lambda: record(node.changes[-1])["id"] == 8)


async def test_the_confirmed_position_trails_by_the_window_and_follows_foreign_writes(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key)", "create table bulk (id int)")
    async with running(dsn, "t", history_s=1.0) as node:
        execute(dsn, "insert into t values (1)")
        await until(lambda: node.changes)
        written = lsn_of(node.changes[0].position)
        confirmed = "confirmed_flush_lsn - '0/0' from pg_replication_slots where slot_name like 'mag%'"
        reached = lambda: query(dsn, f"select {confirmed} and database = current_database()")[0][0]  # noqa: E731
        assert reached() <= written
        execute(dsn, "insert into bulk select generate_series(1, 20000)")
        end = query(dsn, "select pg_current_wal_lsn() - '0/0'")[0][0]
        await until(lambda: reached() >= end, "the slot follows")


@pytest.mark.parametrize(
    ("keep_slot", "managed", "kept"),
    [(None, False, False), (None, True, True), (True, False, True), (False, True, False)],
)
async def test_a_clean_stop_keeps_the_slot_only_where_its_log_is_bounded(
    dsn: str, keep_slot: bool | None, managed: bool, kept: bool
) -> None:
    node = Node(dsn, keep_slot=keep_slot, retention_managed=managed)
    await node.service.start()
    assert len(slot_rows(dsn)) == 1
    assert any("max_slot_wal_keep_size" in notice for notice in node.service.notices())
    await node.service.stop(clean=True)
    assert len(slot_rows(dsn)) == int(kept)


async def test_above_the_limit_of_log_the_reader_gives_its_slot_up(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key)", "create table bulk (id int, body text)")
    async with running(dsn, "t", wal_limit_bytes=16 * 1_048_576) as node:
        await node.service.caught_up()
        epoch = node.service.epoch
        with psycopg.connect(dsn) as hog:
            hog.execute("insert into t values (1)")  # an open transaction pins the slot's restart position
            execute(dsn, "insert into bulk select g, repeat('y', 900) from generate_series(1, 30000) g", "checkpoint")
            hog.commit()
        await until(lambda: node.lost, "slot given up")
        assert node.lost[0].reason == "wal_limit"
        assert node.service.epoch != epoch
        execute(dsn, "insert into t values (2)")
        await until(lambda: any(record(c)["id"] == 2 for c in node.changes))


async def test_dropped_publications_come_back_with_a_gap(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key)")
    async with running(dsn, "t", watch=True) as node:
        await node.service.caught_up()
        before = node.service.position
        execute(dsn, "drop publication mag_changes", "insert into t values (1)")
        await until(lambda: node.lost, "loss is said")
        await until(lambda: query(dsn, "select 1 from pg_publication_rel"))
        await until(lambda: node.service._reader.streaming)
        assert isinstance(node.service.replay(table("t"), node.service.epoch, before), Gap)
        execute(dsn, "insert into t values (2)")
        await until(lambda: any(record(c)["id"] == 2 for c in node.changes))


class restartable_postgres(PostgresServer):
    """A server that a test may kill and start again."""

    def __init__(self) -> None:
        from magmobo.testing.postgres import running_postgres

        self._running = running_postgres()

    def __enter__(self) -> restartable_postgres:
        inner = self._running.__enter__()
        super().__init__(inner.socket_dir, inner.pid)
        self._command = Path(f"/proc/{inner.pid}/cmdline").read_bytes().split(b"\0")[:-1]
        self._process: subprocess.Popen[bytes] | None = None
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(20)
        self._running.__exit__(None, None, None)

    def crash(self) -> None:
        """kill -9 the postmaster; its children notice and leave."""
        os.kill(self.pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        else:
            deadline = time.monotonic() + 10
            while Path(f"/proc/{self.pid}/stat").read_text().split()[2] != "Z" and time.monotonic() < deadline:
                time.sleep(0.005)

    def start(self) -> None:
        user = "nobody" if os.geteuid() == 0 else None
        for _ in range(200):
            for name in (".s.PGSQL.5432.lock", "data/postmaster.pid"):
                (self.socket_dir / name).unlink(missing_ok=True)
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user, cwd=self.socket_dir
            )
            self.pid = self._process.pid
            while self._process.poll() is None:
                try:
                    psycopg.connect(self.dsn(), connect_timeout=2).close()
                    return
                except psycopg.OperationalError:
                    time.sleep(0.02)
        raise RuntimeError("Postgres did not come back")
