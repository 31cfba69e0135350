"""The component `auditexport`: idle until a table is named, then copies while the node runs."""

from __future__ import annotations

import asyncio

from magmobo.components.auditexport.config import AuditExportConfig
from magmobo.components.auditexport.export import Export
from magmobo.contracts.component import Component, Context, Needs
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

    def configure(self, config: AuditExportConfig) -> None:
        self._config = config

    async def start(self) -> None:
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
