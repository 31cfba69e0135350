"""The component `auditexport`: idle until a table is named, then copies while the node runs."""

from __future__ import annotations

import asyncio
from collections.abc import Set

import psycopg

from magmobo.components.auditexport.config import AuditExportConfig
from magmobo.components.auditexport.export import Export
from magmobo.components.auditexport.table import find_table
from magmobo.contracts.component import Component, Context, Needs
from magmobo.contracts.errors import MagError, ReloadRefused
from magmobo.contracts.health import HealthCheck, HealthReport, HealthStatus
from magmobo.contracts.planes import Database


class AuditExport(Component):
    """Audit records in a table of the user's, besides the log."""

    name = "auditexport"
    essential = False
    config_type = AuditExportConfig

    def __init__(self, context: Context, database: Needs[Database]) -> None:
        self._context, self._database = context, database
        self._config = AuditExportConfig()
        self._export: Export | None = None
        self._task: asyncio.Task[None] | None = None
        self._prepared: AuditExportConfig | None = None

    def configure(self, config: AuditExportConfig) -> None:
        self._config = config

    async def start(self) -> None:
        self._begin()

    def _begin(self) -> None:
        if self._config.table is None:
            return
        context = self._context
        self._export = Export(
            self._config.table, self._database.session, context.audit, context.state, context.clock, context.log
        )
        self._task = context.spawn(self._export.run(), name="copy")

    async def stop(self) -> None:
        """What is not in the table yet goes there after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._export = self._task = None

    async def prepare_reload(self, new: AuditExportConfig, changed: Set[str]) -> None:
        """Raises: ReloadRefused when the table is not there, or holds no records as it is."""
        if new.table is not None:
            try:
                async with self._database.session() as connection:
                    await find_table(connection, new.table)
            except MagError as error:
                raise ReloadRefused(f"{error} [{error.code}]. {error.next_step()}") from error
            except psycopg.Error as error:
                raise ReloadRefused(f"{new.table} could not be looked at: {' '.join(str(error).split())}") from error
        self._prepared = new

    def commit_reload(self) -> None:
        """The copy to the other table begins where it was left, or with the oldest record."""
        prepared, self._prepared = self._prepared, None
        if prepared is None or prepared == self._config:
            return
        self._config = prepared
        if self._task is not None:
            self._task.cancel()  # what it did not finish is written again when this table is named again
        self._export = self._task = None
        self._begin()

    async def abort_reload(self) -> None:
        self._prepared = None

    async def health(self) -> HealthReport:
        export = self._export
        if export is None:
            return HealthReport.of()
        if export.problem:
            detail = f"{export.behind} records wait: {export.problem}"
            return HealthReport.of(HealthCheck("export", HealthStatus.DEGRADED, detail, outside=export.outside))
        if export.missing:
            detail = f"{export.missing} records could not be read from the log; run `mag audit:verify`"
            return HealthReport.of(HealthCheck("export", HealthStatus.DEGRADED, detail, outside=True))
        return HealthReport.of(HealthCheck("export", HealthStatus.HEALTHY, f"{export.behind} records behind"))
