"""The extension plane as a component: light until there is an extension, then `plane.Plane` does the work.

A node without extensions pays one question to the database and the table of commands; nothing else is imported, and no
process is started. Invariant: what must be asked before an operation is in place before any component serves, because
`boot` of all comes before `start` of any.
"""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

from magmobo.contracts.component import Announcement, Component, Context, Needs, Wants
from magmobo.contracts.errors import ConfigError, ReloadRefused
from magmobo.contracts.guests import Guests, Migrations
from magmobo.contracts.health import HealthReport
from magmobo.contracts.planes import Changes, Database, Gateway, Listener, Realtime
from magmobo.extensions.commands import answer_commands
from magmobo.extensions.config import ExtensionsConfig, check
from magmobo.extensions.neighbours import Neighbours

if TYPE_CHECKING:
    from magmobo.extensions.plane import Plane

TABLE = "mag.extension_plane"


class ExtensionPlane(Component):
    """Sandboxed extensions beside the data."""

    name = "extensions"
    essential = False
    config_type = ExtensionsConfig

    def __init__(
        self,
        context: Context,
        database: Needs[Database],
        guests: Needs[Guests],
        migrations: Needs[Migrations],
        changes: Wants[Changes],
        realtime: Wants[Realtime],
        gateway: Wants[Gateway],
        listener: Wants[Listener],
    ) -> None:
        self._context = context
        self._neighbours = Neighbours(
            database=database,
            guests=guests,
            migrations=migrations,
            changes=changes,
            realtime=realtime,
            gateway=gateway,
            listener=listener,
        )
        self._config = ExtensionsConfig()
        self._plane: Plane | None = None
        self._serves = False
        self._prepared: ExtensionsConfig | None = None

    def configure(self, config: ExtensionsConfig) -> None:
        """Raises: ConfigError."""
        check(config)
        self._config = config

    async def boot(self) -> None:
        if await self._has_extensions():
            await self.plane().boot()

    async def start(self) -> None:
        answer_commands(self._context.commands, self._serving_plane)
        self._serves = True
        if self._plane is not None:
            await self._plane.start()

    async def stop(self) -> None:
        self._serves = False
        if self._plane is not None:
            await self._plane.stop()

    async def prepare_reload(self, new: ExtensionsConfig, changed: Set[str]) -> None:
        """Raises: ReloadRefused."""
        try:
            check(new)
        except ConfigError as error:
            raise ReloadRefused(str(error)) from error
        self._prepared = new

    def commit_reload(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            self._config = prepared
            if self._plane is not None:
                self._plane.adopt(prepared)

    async def abort_reload(self) -> None:
        self._prepared = None

    async def health(self) -> HealthReport:
        return HealthReport.of() if self._plane is None else self._plane.health()

    def announce(self) -> Announcement:
        return Announcement() if self._plane is None else self._plane.announce()

    def plane(self) -> Plane:
        """The plane, made when it is needed first."""
        if self._plane is None:
            from magmobo.extensions.plane import Plane

            self._plane = Plane(self._context, self._config, self._neighbours)
        return self._plane

    async def _serving_plane(self) -> Plane:
        """The plane for a command. The first extension of a node finds it not started yet."""
        plane = self.plane()
        if self._serves and not plane.is_started:
            await plane.start()
        return plane

    async def _has_extensions(self) -> bool:
        async with self._neighbours.database.session() as connection:
            cursor = await connection.execute("select pg_catalog.to_regclass(%s) is not null", (TABLE,))
            row = await cursor.fetchone()
        return bool(row and row[0])
