"""The storage component: which Postgres, then connections, then changes.

`boot` gets a server (our own child, or the one at the DSN) and opens the connections, so that other components may use
the database from their own `boot`; `start` begins to read changes. A stop keeps the server, so a restart of this
component is short; `shutdown` ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from magmobo.components.magds.bootstrap import DATABASE, NODE_ROLE, bootstrap
from magmobo.components.magds.changes.service import ChangeService
from magmobo.components.magds.cluster import prepare_cluster
from magmobo.components.magds.config import MagDSConfig
from magmobo.components.magds.database import MagDatabase
from magmobo.components.magds.dsn import complete_dsn, connect, describe_dsn
from magmobo.components.magds.errors import ServerStartFailed
from magmobo.components.magds.multiplexer import Multiplexer
from magmobo.components.magds.outage import Outage
from magmobo.components.magds.pool import Pool
from magmobo.components.magds.schema_watch import SchemaWatch
from magmobo.components.magds.supervisor import PostgresServer
from magmobo.contracts.bus import Subscription
from magmobo.contracts.component import Announcement, Component, Context
from magmobo.contracts.errors import MagError
from magmobo.contracts.events import DatabaseSchemaChanged, Envelope
from magmobo.contracts.health import HealthCheck, HealthReport, HealthStatus
from magmobo.contracts.planes import Changes, Database

DRAIN_S = 5.0


class MagDS(Component):
    """Storage: serves `Database` and `Changes`."""

    name = "magds"
    provides = (Database, Changes)
    config_type = MagDSConfig

    def __init__(self, context: Context) -> None:
        self._context = context
        self._outage = Outage(context.bus, context.clock)
        self._server: PostgresServer | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._target = ""
        self._database: MagDatabase
        self._multiplexer: Multiplexer | None = None
        self._pool: Pool | None = None
        self._changes: ChangeService | None = None
        self._watch: SchemaWatch | None = None
        self._subscription: Subscription | None = None

    def configure(self, config: MagDSConfig) -> None:
        self._config = config

    # ------------------------------------------------------------ life

    async def boot(self) -> None:
        """Raises: StorageError in its many forms; each names the next step."""
        config = self._config
        if config.dsn is not None and config.dsn.reveal():
            conninfo = complete_dsn(config.dsn.reveal(), connect_timeout_s=config.connect_timeout_s)
            self._target, reader = describe_dsn(conninfo), conninfo
        else:
            conninfo, reader = await self._start_server()
        name = await self._check_server(conninfo)
        self._conninfo = conninfo
        self._make_connections(conninfo, name)
        self._make_changes(reader, name)
        await self._open()

    async def start(self) -> None:
        if self._multiplexer is None or not self._multiplexer.is_open:
            self._make_connections(self._conninfo, self._database.database_name)
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

    def implementation(self, protocol: type) -> Any:
        return self._changes if protocol is Changes else self._database

    # ------------------------------------------------------------ what people see

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

    # ------------------------------------------------------------ the server

    async def _start_server(self) -> tuple[str, str]:
        """Connection strings of the node's own role and of the change reader (the superuser)."""
        config = self._config
        prepare = partial(
            prepare_cluster, self._context.data_dir, bin_dir=config.bin_dir, system_dir=Path(config.system_dir)
        )
        cluster = await asyncio.to_thread(prepare)
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
        node = server.conninfo(user=NODE_ROLE, password=cluster.passwords.node, database=DATABASE)
        reader = server.conninfo(database=DATABASE)
        return (
            complete_dsn(node, connect_timeout_s=config.connect_timeout_s),
            complete_dsn(reader, connect_timeout_s=config.connect_timeout_s),
        )

    async def _check_server(self, conninfo: str) -> str:
        """The name of the database, once it has let us in."""
        connection = await connect(conninfo)
        try:
            return connection.info.dbname
        finally:
            await connection.close()

    # ------------------------------------------------------------ connections

    def _make_connections(self, conninfo: str, database_name: str) -> None:
        config = self._config
        self._pool = Pool(partial(connect, conninfo), size=config.pool_size, idle_s=config.pool_idle_s)
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
            database_name=database_name,
            request_timeout_s=config.request_timeout_s,
            acquire_timeout_s=config.acquire_timeout_s,
        )

    def _make_changes(self, conninfo: str, source: str) -> None:
        around: dict[str, Any] = {
            "conninfo": conninfo,
            "bus": self._context.bus,
            "clock": self._context.clock,
            "log": self._context.log,
            "spawn": self._spawn,
        }
        retention_managed = self._server is not None
        self._changes = ChangeService(source=source, config=self._config, retention_managed=retention_managed, **around)
        self._watch = SchemaWatch(**around)

    async def _open(self) -> None:
        if self._multiplexer is not None:
            await self._multiplexer.open(self._spawn)
        await self._database.refresh_roles()

    async def _close(self) -> None:
        if self._multiplexer is not None:
            await self._multiplexer.drain(DRAIN_S)
            await self._multiplexer.close()
        if self._pool is not None:
            await self._pool.close()

    def _connection_lost(self, error: Exception) -> None:
        self._context.log.warning("magds.connection_lost", error=" ".join(str(error).split())[:500])
        if self._multiplexer is not None and self._multiplexer.connected == 0:
            self._outage.begin(error)
            if self._pool is not None:
                self._pool.drop_idle()

    async def _schema_changed(self, _: Envelope[DatabaseSchemaChanged]) -> None:
        try:
            await self._database.refresh_roles()
        except (MagError, psycopg.Error) as error:
            self._context.log.warning("magds.roles_not_refreshed", error=str(error))

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._context.spawn(coroutine, name=name)
