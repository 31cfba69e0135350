"""MagDS takes other settings while it serves: the same database over another login, sizes, limits; or refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import psycopg
import pytest
from tests.integration.magds.rotation import require_password

from magmobo.components.magds.component import MagDS
from magmobo.components.magds.config import MagDSConfig
from magmobo.components.magds.dsn import connect
from magmobo.components.magds.errors import LoginRefused
from magmobo.components.magds.multiplexer import Multiplexer
from magmobo.components.magds.pool import Pool
from magmobo.contracts.component import Component, Context, Needs
from magmobo.contracts.errors import ReloadRefused
from magmobo.contracts.events import DatabaseChange, DatabaseChangesLost, DatabaseConnectionFailed
from magmobo.contracts.planes import Changes, Database, Identity, PublishedTable, Statement, TableName
from magmobo.contracts.secret import Secret
from magmobo.kernel.kernel import Kernel
from magmobo.testing.harness import running_kernel
from magmobo.testing.postgres import PostgresServer

LOGIN, OTHER, READER = "rotated_login", "rotated_other", "rotated_reader"
WHOAMI = Statement(b"select session_user::text, current_user::text, pg_backend_pid()::text")
WAITING = Statement(b"select pg_sleep(0.3)::text")


class Probe(Component):
    """Holds what a consumer sees."""

    name = "probe"
    seen: Probe

    def __init__(self, context: Context, database: Needs[Database], changes: Needs[Changes]) -> None:
        self.context, self.database, self.changes = context, database, changes
        Probe.seen = self


@pytest.fixture(scope="module")
def server(postgres: PostgresServer) -> Iterator[PostgresServer]:
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute(
            f"""
            create role {LOGIN} login replication password 'first'; create role {OTHER} login password 'theirs';
            create role {READER}; grant {READER} to {LOGIN}
            """.encode()
        )
    require_password(postgres, LOGIN, OTHER)
    yield postgres
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute(f"drop role {LOGIN}, {OTHER}, {READER}".encode())


@pytest.fixture
def database(server: PostgresServer) -> Iterator[str]:
    """A database that the login owns; its password is `first` again."""
    with server.database() as dsn:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(
                f"""
                alter role {LOGIN} password 'first'; alter database {admin.info.dbname} owner to {LOGIN};
                create table public.item (id int primary key); alter table public.item owner to {LOGIN}
                """.encode()
            )
        yield dsn
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(f"reassign owned by {LOGIN} to postgres; drop owned by {LOGIN}, {OTHER}".encode())
            admin.execute(f"alter role {OTHER} noreplication; revoke {READER} from {OTHER}".encode())
            admin.execute(f"grant {READER} to {LOGIN}".encode())


def as_login(dsn: str, password: str, role: str = LOGIN) -> str:
    return dsn.replace("user=postgres", f"user={role} password={password}")


def execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        for statement in statements:
            admin.execute(statement.encode())


def backends(dsn: str, role: str) -> set[int]:
    """Server processes of a role's sessions in this database."""
    with psycopg.connect(dsn) as admin:
        rows = admin.execute(
            "select pid from pg_stat_activity where usename = %s and datname = current_database()", (role,)
        ).fetchall()
    return {row[0] for row in rows}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)


@asynccontextmanager
async def node(**magds: Any) -> AsyncIterator[tuple[Kernel, MagDS]]:
    with TemporaryDirectory() as scratch:
        async with running_kernel(MagDS, Probe, config={"magds": magds}, data_dir=Path(scratch)) as kernel:
            component = kernel.assembly.board.slot("magds").component
            assert isinstance(component, MagDS)
            yield kernel, component


async def take(kernel: Kernel, component: MagDS, **changed: Any) -> None:
    """What a reload does with this component."""
    now: MagDSConfig = component._config
    await component.prepare_reload(msgspec.structs.replace(now, **changed), changed.keys())
    component.commit_reload()


async def whoami() -> tuple[str, str, int]:
    row = (await Probe.seen.database.run(WHOAMI, Identity(READER), read_only=True)).rows[0]
    return str(row[0], "ascii"), str(row[1], "ascii"), int(row[2])  # type: ignore[arg-type]


async def test_a_new_password_is_taken_without_a_failed_request_and_the_old_connections_end(database: str) -> None:
    failures: list[Exception] = []
    events: list[str] = []
    asked = 0
    async with node(dsn=Secret(as_login(database, "first"))) as (kernel, component):
        probe = Probe.seen
        probe.context.bus.on(DatabaseConnectionFailed, lambda _: events.append("down"))
        probe.context.bus.on(DatabaseChangesLost, lambda _: events.append("lost"))
        done = asyncio.Event()

        async def keep_asking(number: int) -> None:
            nonlocal asked
            while not done.is_set() and len(failures) < 10:
                try:
                    if number == 0:
                        async with probe.database.session() as connection:
                            await connection.execute("select 1")
                    else:
                        assert (await whoami())[:2] == (LOGIN, READER)
                    asked += 1
                except Exception as error:
                    failures.append(error)

        askers = [asyncio.create_task(keep_asking(number)) for number in range(8)]
        waiting = asyncio.create_task(probe.database.run(WAITING, Identity(READER), read_only=True))
        await until(lambda: asked > 100)
        before = backends(database, LOGIN)
        assert len(before) >= 5  # two pipelines, the pool, the watch, the reader's two
        execute(database, f"alter role {LOGIN} password 'second'")
        await take(kernel, component, dsn=Secret(as_login(database, "second")))
        so_far = asked
        await until(lambda: not before & backends(database, LOGIN))
        await until(lambda: asked > so_far + 100)
        done.set()
        await asyncio.gather(*askers)
        assert (await waiting).rows  # it was on an old connection when that was let go
        await probe.changes.caught_up()
        assert (failures, events) == ([], [])
        assert component._multiplexer is not None
        assert component._multiplexer.connected == 2
        assert {c.name: c.state for c in kernel.status().components}["magds"] == "running"


async def test_no_change_is_missed_or_told_twice_while_the_stream_changes_over(database: str) -> None:
    async with node(dsn=Secret(as_login(database, "first"))) as (kernel, component):
        probe = Probe.seen
        seen: list[int] = []
        probe.context.bus.on(DatabaseChange, lambda e: seen.append(msgspec.json.decode(e.data.record)["id"]))
        [answer] = await probe.changes.publish([TableName("public", "item")])
        assert isinstance(answer, PublishedTable)
        epoch, last = probe.changes.epoch, 0

        def write() -> None:
            nonlocal last
            execute(database, *(f"insert into item values ({number})" for number in range(last + 1, last + 51)))
            last += 50

        for password in ("second", "third", "fourth"):
            old = backends(database, LOGIN)
            writing = asyncio.create_task(asyncio.to_thread(write))
            execute(database, f"alter role {LOGIN} password '{password}'")
            await take(kernel, component, dsn=Secret(as_login(database, password)))
            await until(lambda old=old: not old & backends(database, LOGIN))  # type: ignore[misc]
            await writing
        await asyncio.to_thread(write)
        await until(lambda: len(seen) >= last)
        assert seen == list(range(1, last + 1))
        assert probe.changes.epoch == epoch


@pytest.mark.parametrize(
    ("dsn", "reason"),
    [
        ("user={login} password=wrong-guess", "password authentication failed"),
        ("user={login} password=first dbname=postgres", "leads to another database"),
        ("user={login} password=first dbname=none_such", "MAG-DS-005"),
        ("user={login} password=first host=/nonexistent", "MAG-DS-003"),
        ("user=", "MAG-DS"),
        ("postgres://a:b@h:notaport/", "MAG-DS-001"),
        ("user={other} password=theirs", "may not switch to it: GRANT"),
        ("", "restart the node|when the node starts"),
    ],
)
async def test_what_does_not_lead_to_the_same_database_is_refused_and_nothing_changes(
    database: str, dsn: str, reason: str
) -> None:
    base = as_login(database, "first")
    async with node(dsn=Secret(base)) as (kernel, component):
        await whoami()
        before = backends(database, LOGIN)
        given = dsn.format(login=LOGIN, other=OTHER)
        new = given if "://" in given or not given else _override(base, given)
        with pytest.raises(ReloadRefused, match=reason) as refused:
            await take(kernel, component, dsn=Secret(new))
        await component.abort_reload()
        assert "wrong-guess" not in str(refused.value)
        component.commit_reload()  # a stray call takes nothing
        assert (await whoami())[0] == LOGIN
        assert backends(database, LOGIN) >= before - {0}
        assert component._config.dsn == Secret(base)


def _override(base: str, words: str) -> str:
    parts = dict(word.split("=", 1) for word in base.split()) | dict(word.split("=", 1) for word in words.split())
    return " ".join(f"{key}={value}" for key, value in parts.items() if value)


async def test_another_login_is_taken_when_it_can_do_the_same(database: str) -> None:
    execute(database, f"grant {READER} to {OTHER}")
    async with node(dsn=Secret(as_login(database, "first"))) as (kernel, component):
        await Probe.seen.changes.caught_up()
        assert (await whoami())[0] == LOGIN
        new = Secret(as_login(database, "theirs", OTHER))
        with pytest.raises(ReloadRefused, match="WITH REPLICATION"):
            await take(kernel, component, dsn=new)
        execute(database, f"alter role {OTHER} replication")
        with pytest.raises(ReloadRefused, match="MAG-DS"):  # our objects belong to the other one
            await take(kernel, component, dsn=new)
        execute(database, f"grant {LOGIN} to {OTHER}; reassign owned by {LOGIN} to {OTHER}")
        execute(database, f"alter database {database.rpartition('=')[2]} owner to {OTHER}")
        await take(kernel, component, dsn=new)
        await until(lambda: not backends(database, LOGIN))
        assert (await whoami())[:2] == (OTHER, READER)
        assert kernel.status().urls["database"].startswith(f"{OTHER}@")
        execute(database, f"reassign owned by {OTHER} to {LOGIN}", f"revoke {LOGIN} from {OTHER}")


async def test_sizes_and_limits_are_taken_at_once(database: str) -> None:
    async with node(dsn=Secret(as_login(database, "first")), pool_size=2) as (kernel, component):
        multiplexer, pool = component._multiplexer, component._pool
        assert multiplexer is not None
        assert pool is not None
        await whoami()
        await take(kernel, component, multiplexer_connections=4)
        await until(lambda: multiplexer.connected == 4)
        await take(kernel, component, multiplexer_connections=1)
        await until(lambda: multiplexer.connected == len(multiplexer._links) == 1)
        await take(kernel, component, multiplexer_connections=3, multiplexer_depth=1)
        await until(lambda: multiplexer.connected == 3)
        database_ = Probe.seen.database
        async with database_.session(), database_.session():
            with pytest.raises(Exception, match="not available"):
                async with database_.session(timeout_s=0.05):
                    pass
            waiting = asyncio.create_task(_lease(database_))
            await asyncio.sleep(0)
            await take(kernel, component, pool_size=3)
            await waiting  # the room that came is its
        await take(kernel, component, pool_size=1, pool_idle_s=0.05)
        await until(lambda: pool.open_connections == 0)
        links = set(multiplexer._links)
        await take(kernel, component, statement_timeout_s=0.2)
        await until(lambda: multiplexer.connected == 3 and not links & set(multiplexer._links))
        with pytest.raises(psycopg.errors.QueryCanceled):
            await database_.run(Statement(b"select pg_sleep(5)::text"), Identity(READER), read_only=True)
        async with database_.session():
            await take(kernel, component, acquire_timeout_s=0.05, request_timeout_s=0.1)
            with pytest.raises(Exception, match="not available"):
                async with database_.session():
                    pass


async def _lease(database: Database) -> None:
    async with database.session(timeout_s=10) as connection:
        await connection.execute("select 1")


async def test_history_takes_other_limits(database: str) -> None:
    async with node(dsn=Secret(as_login(database, "first"))) as (kernel, component):
        changes = Probe.seen.changes
        await changes.publish([TableName("public", "item")])
        start, epoch = changes.position, changes.epoch
        execute(database, "insert into item select generate_series(1, 3000)")
        await changes.caught_up()
        await until(
            lambda: len(getattr(changes.replay(TableName("public", "item"), epoch, start), "changes", ())) == 3000
        )
        await take(kernel, component, history_bytes=1_048_576)
        assert changes.replay(TableName("public", "item"), epoch, start).reason == "too_old"  # type: ignore[union-attr]


async def test_a_pool_that_was_let_in_waits_for_the_password_that_is_being_changed(database: str) -> None:
    old, new = as_login(database, "first"), as_login(database, "second")
    pool = Pool(partial(connect, old), size=1, idle_s=60)
    async with pool.lease(timeout_s=5):
        pass
    pool.drop_idle()
    execute(database, f"alter role {LOGIN} password 'second'")
    with pytest.raises(LoginRefused):
        async with pool.lease(timeout_s=2):
            pass

    async def ask() -> None:
        async with pool.lease(timeout_s=10):
            pass

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0.05)
    pool.adjust(partial(connect, new), size=1, idle_s=60, renew=True)
    await asking
    assert pool.open_connections == 1
    await pool.close()


async def test_while_the_new_connections_are_not_let_in_the_old_ones_serve(database: str) -> None:
    tasks: list[asyncio.Task[None]] = []
    errors: list[Exception] = []

    def spawn(coroutine: Any, name: str) -> asyncio.Task[None]:
        tasks.append(asyncio.get_running_loop().create_task(coroutine, name=name))
        return tasks[-1]

    settings: dict[str, Any] = {"connections": 2, "depth": 4, "statements": 16, "statement_timeout_s": 5.0}
    mux = Multiplexer(as_login(database, "first"), on_lost=errors.append, **settings)
    await mux.open(spawn)
    try:
        await until(lambda: mux.connected == 2)
        links = set(mux._links)
        mux.adjust(as_login(database, "never"), renew=True, **settings)
        await until(lambda: len(errors) >= 2)
        assert all(isinstance(error, LoginRefused) for error in errors)
        answer = await mux.run(WHOAMI, Identity(READER), read_only=True, timeout_s=5)
        assert answer.rows[0][1] == READER.encode()
        assert mux.roles_in_use() == {READER}
        mux.adjust(as_login(database, "first"), renew=True, **settings)
        errors.clear()
        await until(lambda: mux.connected == 2 and not links & set(mux._links))
        # Connections that were let go are not lost ones; an attempt as the former login may have been under way.
        assert all(isinstance(error, LoginRefused) for error in errors)
    finally:
        await mux.close()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
