"""The storage component: which Postgres, then connections, then changes.

`boot` gets a server (our own child, or the one at the DSN) and opens the connections, so that other components may use
the database from their own `boot`; `start` begins to read changes. A stop keeps the server, so a restart of this
component is short; `shutdown` ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Set
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from msgspec import Struct

from magmobo.components.magds.bootstrap import DATABASE, NODE_ROLE, bootstrap
from magmobo.components.magds.changes.service import ChangeService
from magmobo.components.magds.cluster import Cluster, prepare_cluster
from magmobo.components.magds.config import MagDSConfig
from magmobo.components.magds.database import MagDatabase
from magmobo.components.magds.dsn import complete_dsn, connect, describe_dsn
from magmobo.components.magds.errors import ServerStartFailed
from magmobo.components.magds.multiplexer import Multiplexer
from magmobo.components.magds.other_checks import checks_of
from magmobo.components.magds.outage import Outage
from magmobo.components.magds.pool import Connection, Pool
from magmobo.components.magds.query_watch import QueryWatch
from magmobo.components.magds.reload import Server, check_dsn, read_identity
from magmobo.components.magds.schema_watch import SchemaWatch
from magmobo.components.magds.supervisor import PostgresServer
from magmobo.contracts.bus import Subscription
from magmobo.contracts.component import Announcement, Component, Context
from magmobo.contracts.errors import MagError, ReloadRefused
from magmobo.contracts.events import DatabaseSchemaChanged, Envelope
from magmobo.contracts.guests import Guests, Migrations
from magmobo.contracts.health import HealthCheck, HealthReport, HealthStatus
from magmobo.contracts.hooks import HealthContext, HookPoint
from magmobo.contracts.planes import Changes, Database

if TYPE_CHECKING:
    from magmobo.components.magds.guests.service import GuestService
    from magmobo.components.magds.migrations.service import MigrationService

DRAIN_S = 5.0
STANDING_SESSIONS = 4
"""Connections beside `pool_size` that are held for good; made when they are asked for. `MagDSConfig` counts them, too,
for who chooses max_connections.
"""


class _Ways(Struct, frozen=True):
    """Connection strings of the node's own role and of the change reader; both may hold a password."""

    node: str
    reader: str


class _Prepared(Struct, frozen=True):
    """A section that can be taken. `renew`: over new connections."""

    config: MagDSConfig
    ways: _Ways
    found: Server
    renew: bool


class MagDS(Component):
    """Storage: serves `Database`, `Changes`, `Guests` and `Migrations`."""

    name = "magds"
    provides = (Database, Changes, Guests, Migrations)
    config_type = MagDSConfig

    def __init__(self, context: Context) -> None:
        self._context = context
        self._outage = Outage(context.bus, context.clock)
        self._server: PostgresServer | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._target = ""
        self._cluster: Cluster | None = None
        self._ways: _Ways
        self._found: Server
        self._prepared: _Prepared | None = None
        self._database: MagDatabase
        self._multiplexer: Multiplexer | None = None
        self._pool: Pool | None = None
        self._standing: Pool | None = None
        self._queries: QueryWatch
        self._health_point: HookPoint[HealthContext] = context.hooks.point("database.health_check")
        self._guests: GuestService | None = None
        self._migrations: MigrationService | None = None
        self._changes: ChangeService | None = None
        self._watch: SchemaWatch | None = None
        self._subscription: Subscription | None = None

    def configure(self, config: MagDSConfig) -> None:
        self._config = config
        self._queries = QueryWatch(self._context.hooks, self._context.bus, slow_query_s=config.slow_query_s)

    # ------------------------------------------------------------ life

    async def boot(self) -> None:
        """Raises: StorageError in its many forms; each names the next step."""
        if not _is_attached(self._config):
            await self._start_server()
        self._ways = self._ways_for(self._config)
        self._found = await self._find_server()
        self._make_connections()
        self._make_changes()
        await self._open()

    async def start(self) -> None:
        if self._multiplexer is None or not self._multiplexer.is_open:
            self._make_connections()
            await self._open()
        else:
            await self._database.refresh_roles()  # others may have made roles since our boot, as a demo does
        self._subscription = self._context.bus.on(DatabaseSchemaChanged, self._schema_changed, priority=100)
        if self._watch is not None and self._changes is not None:
            await self._watch.start()
            await self._changes.start()

    async def stop(self) -> None:
        if self._subscription is not None:
            self._subscription.cancel()
            self._subscription = None
        if self._watch is not None and self._changes is not None:
            await self._changes.stop(clean=False)  # a restart resumes where it was
            await self._watch.stop()
        await self._close()

    async def shutdown(self, timeout_s: float) -> None:
        if self._changes is not None:
            await self._changes.stop(clean=True)
            await self._changes.shutdown()
        await self._close()
        if self._server is not None:
            await self._server.stop()
        if self._supervision is not None:
            self._supervision.cancel()
            await asyncio.gather(self._supervision, return_exceptions=True)

    # ------------------------------------------------------------ other settings

    async def prepare_reload(self, new: MagDSConfig, changed: Set[str]) -> None:
        """Raises: ReloadRefused when `dsn` leads elsewhere, or its role could not do what is being done."""
        if _is_attached(new) != _is_attached(self._config):
            raise ReloadRefused("magds.dsn: a database of yours or the embedded one is chosen when the node starts")
        found, renew = self._found, "dsn" in changed
        try:
            ways = self._ways_for(new)
        except MagError as error:
            raise ReloadRefused(f"{error} [{error.code}]. {error.next_step()}") from error
        if renew and self._multiplexer is not None and self._changes is not None:
            found = await check_dsn(
                ways.node, found, roles=self._multiplexer.roles_in_use(), reads_changes=self._changes.reads
            )
        self._prepared = _Prepared(new, ways, found, renew)

    def commit_reload(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            return
        config = self._config = prepared.config
        self._ways, self._found = prepared.ways, prepared.found
        if self._server is not None:
            self._server.adjust(start_timeout_s=config.start_timeout_s, stop_timeout_s=config.stop_timeout_s)
        else:
            self._target = describe_dsn(self._ways.node)
        self._database.adjust(request_timeout_s=config.request_timeout_s, acquire_timeout_s=config.acquire_timeout_s)
        self._queries.slow_query_s = config.slow_query_s
        self._adjust_connections(renew=prepared.renew)
        if prepared.renew:
            self._spawn(self._refresh_roles(), "roles")

    async def abort_reload(self) -> None:
        self._prepared = None

    def _adjust_connections(self, *, renew: bool) -> None:
        config, ways = self._config, self._ways
        for pool, size in ((self._pool, config.pool_size), (self._standing, STANDING_SESSIONS)):
            if pool is not None:
                pool.adjust(partial(connect, ways.node), size=size, idle_s=config.pool_idle_s, renew=renew)
        if self._multiplexer is not None:
            self._multiplexer.adjust(
                ways.node,
                connections=config.multiplexer_connections,
                depth=config.multiplexer_depth,
                statements=config.multiplexer_statements,
                statement_timeout_s=config.statement_timeout_s,
                renew=renew,
            )
        if self._guests is not None:
            self._guests.adjust(ways.node, acquire_timeout_s=config.acquire_timeout_s, renew=renew)
        if self._changes is not None and self._watch is not None:
            self._changes.adjust(ways.reader, config, renew=renew)
            self._watch.adjust(ways.reader, renew=renew)

    # ------------------------------------------------------------ what people see

    def implementation(self, protocol: type) -> Any:
        if protocol is Guests or protocol is Migrations:
            guests, migrations = self._for_guests()
            return guests if protocol is Guests else migrations
        return self._changes if protocol is Changes else self._database

    async def health(self) -> HealthReport:
        checks = [self._connections_check()]
        if self._server is not None:
            running = self._server.pid is not None
            detail = f"restarts: {self._server.restarts}" if running else self._server.last_error[:500]
            status = HealthStatus.HEALTHY if running else HealthStatus.UNHEALTHY
            # `outside` for both: the server has a supervisor of its own, and connections come back by themselves.
            checks.append(HealthCheck("postgres", status, detail, outside=True))
        notices = self._changes.notices() if self._changes is not None else []
        checks.append(HealthCheck("changes", HealthStatus.HEALTHY, notices[0] if notices else ""))
        if self._health_point.chain is not None:
            checks += checks_of(await self._health_point.chain.gather(HealthContext(component=self.name)))
        return HealthReport.of(*checks)

    def announce(self) -> Announcement:
        notices = self._changes.notices() if self._changes is not None else []
        if notices and self._server is None:
            notices = [*notices, "`mag doctor DSN` lists everything this database allows or lacks."]
        return Announcement(urls={"database": self._target}, notices=notices)

    def _connections_check(self) -> HealthCheck:
        connected = self._multiplexer.connected if self._multiplexer is not None else 0
        wanted = self._config.multiplexer_connections
        detail = f"{connected} of {wanted} pipelined connections"
        if connected == 0:
            return HealthCheck("connections", HealthStatus.UNHEALTHY, self._outage.error or detail, outside=True)
        return HealthCheck(
            "connections", HealthStatus.HEALTHY if connected == wanted else HealthStatus.DEGRADED, detail
        )

    def _for_guests(self) -> tuple[GuestService, MigrationService]:
        """Made when somebody asks for it first, and imported then: most nodes have no guests."""
        if self._guests is None or self._migrations is None:
            from magmobo.components.magds.guests.service import GuestService
            from magmobo.components.magds.migrations.service import MigrationService

            self._guests = guests = GuestService(
                self._ways.node,
                self._session,
                database_oid=self._found.database_oid,
                acquire_timeout_s=self._config.acquire_timeout_s,
            )
            self._migrations = MigrationService(self._session, guests, hooks=self._context.hooks, bus=self._context.bus)
        return self._guests, self._migrations

    def _session(self) -> AbstractAsyncContextManager[Connection]:
        """A session of the present database: after a restart of this component it is another one."""
        return self._database.session()

    # ------------------------------------------------------------ the server

    async def _start_server(self) -> None:
        config = self._config
        prepare = partial(
            prepare_cluster, self._context.data_dir, bin_dir=config.bin_dir, system_dir=Path(config.system_dir)
        )
        self._cluster = cluster = await asyncio.to_thread(prepare)
        self._server = server = PostgresServer(
            cluster,
            max_slot_wal_keep_size_bytes=config.max_slot_wal_keep_size_bytes,
            start_timeout_s=config.start_timeout_s,
            stop_timeout_s=config.stop_timeout_s,
            log=self._context.log,
            on_down=self._outage.begin,
        )
        await server.start()
        try:
            await bootstrap(server, node_password=cluster.passwords.node)
        except psycopg.Error as error:
            raise ServerStartFailed("the set-up of the embedded database", str(error).strip()) from error
        self._supervision = self._spawn(server.supervise(), "postgres")
        self._target = f"embedded Postgres {cluster.binaries.version} (`mag magds:psql` opens it)"

    def _ways_for(self, config: MagDSConfig) -> _Ways:
        """How to connect: as the DSN says, or to our own server as the node's role and, for changes, the superuser.

        Raises: DsnMalformed.
        """
        if self._server is None or self._cluster is None:
            dsn = config.dsn.reveal() if config.dsn is not None else ""
            way = complete_dsn(dsn, connect_timeout_s=config.connect_timeout_s)
            return _Ways(way, way)
        node = self._server.conninfo(user=NODE_ROLE, password=self._cluster.passwords.node, database=DATABASE)
        reader = self._server.conninfo(database=DATABASE)
        return _Ways(*(complete_dsn(way, connect_timeout_s=config.connect_timeout_s) for way in (node, reader)))

    async def _find_server(self) -> Server:
        """Which database it is, once it has let us in."""
        if self._server is None:
            self._target = describe_dsn(self._ways.node)
        connection = await connect(self._ways.node)
        try:
            return await read_identity(connection)
        finally:
            await connection.close()

    # ------------------------------------------------------------ connections

    def _make_connections(self) -> None:
        config, conninfo = self._config, self._ways.node
        self._pool = Pool(partial(connect, conninfo), size=config.pool_size, idle_s=config.pool_idle_s)
        self._standing = Pool(partial(connect, conninfo), size=STANDING_SESSIONS, idle_s=config.pool_idle_s)
        self._multiplexer = Multiplexer(
            conninfo,
            connections=config.multiplexer_connections,
            depth=config.multiplexer_depth,
            statements=config.multiplexer_statements,
            statement_timeout_s=config.statement_timeout_s,
            on_lost=self._connection_lost,
            on_connected=self._outage.end,
        )
        self._database = MagDatabase(
            self._multiplexer,
            self._pool,
            database_name=self._found.database_name,
            request_timeout_s=config.request_timeout_s,
            acquire_timeout_s=config.acquire_timeout_s,
            watch=self._queries,
            standing=self._standing,
        )

    def _make_changes(self) -> None:
        around: dict[str, Any] = {
            "conninfo": self._ways.reader,
            "bus": self._context.bus,
            "clock": self._context.clock,
            "log": self._context.log,
            "spawn": self._spawn,
        }
        retention_managed = self._server is not None
        self._changes = ChangeService(
            source=self._found.database_name, config=self._config, retention_managed=retention_managed, **around
        )
        self._watch = SchemaWatch(**around)

    async def _open(self) -> None:
        if self._multiplexer is not None:
            await self._multiplexer.open(self._spawn)
        await self._database.refresh_roles()

    async def _close(self) -> None:
        if self._multiplexer is not None:
            await self._multiplexer.drain(DRAIN_S)
            await self._multiplexer.close()
        if self._guests is not None:
            await self._guests.close()
        for pool in (self._pool, self._standing):
            if pool is not None:
                await pool.close()

    def _connection_lost(self, error: Exception) -> None:
        self._context.log.warning("magds.connection_lost", error=" ".join(str(error).split())[:500])
        if self._multiplexer is not None and self._multiplexer.connected == 0:
            self._outage.begin(error)
            for pool in (self._pool, self._standing):
                if pool is not None:
                    pool.drop_idle()

    async def _schema_changed(self, _: Envelope[DatabaseSchemaChanged]) -> None:
        await self._refresh_roles()

    async def _refresh_roles(self) -> None:
        try:
            await self._database.refresh_roles()
        except (MagError, psycopg.Error) as error:
            self._context.log.warning("magds.roles_not_refreshed", error=str(error))

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._context.spawn(coroutine, name=name)


def _is_attached(config: MagDSConfig) -> bool:
    return config.dsn is not None and bool(config.dsn.reveal())
