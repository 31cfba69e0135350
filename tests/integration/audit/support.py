"""An audit log on a real folder, with the real state store behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from magmobo.admin import audit as offline
from magmobo.admin.data_folder import DataFolder
from magmobo.contracts.capabilities import Actor, Role
from magmobo.kernel.audit.log import AuditLog
from magmobo.kernel.audit.verify import Verdict
from magmobo.kernel.places import audit_dir, state_file
from magmobo.kernel.redact import redact
from magmobo.kernel.state.manager import StateManager

OPERATOR = Actor(name="uid:1000", role=Role.OPERATOR, via="control", address="127.0.0.1")


class Place:
    """A data folder, and what the log on it reported since the last `running`."""

    def __init__(self, path: Path) -> None:
        self.path, self.audit, self.state = path, audit_dir(path), state_file(path)
        self.problems: list[str] = []

    @asynccontextmanager
    async def stored(self) -> AsyncIterator[StateManager]:
        """The state store of this folder."""
        self.state.parent.mkdir(parents=True, exist_ok=True)
        manager = StateManager(self.state)
        await manager.open()
        try:
            yield manager
        finally:
            await manager.close()

    @asynccontextmanager
    async def running(self, **settings: Any) -> AsyncIterator[AuditLog]:
        """The log, open, as a node has it."""
        self.problems = []
        async with self.stored() as manager:
            log = AuditLog(self.audit, manager.scope("audit"), mask=redact, on_problem=self.problems.append, **settings)
            await log.open()
            try:
                yield log
            finally:
                await log.close()

    @asynccontextmanager
    async def stored_elsewhere(self) -> AsyncIterator[StateManager]:
        """Another state store, empty."""
        async with Place(self.path / "elsewhere").stored() as manager:
            yield manager

    def verdict(self, *, patience_s: float = 0.0) -> Verdict:
        """What `mag audit:verify` would say; a log that is being written to needs patience."""
        return offline.verify(DataFolder(self.path), patience_s=patience_s)

    def segments(self) -> list[Path]:
        return sorted(self.audit.glob("audit-*.jsonl"))

    def aside(self) -> list[Path]:
        return sorted(self.audit.glob("torn-*"))


async def write(log: AuditLog, number: int) -> None:
    """Records, one after the other."""
    for turn in range(number):
        await log.record("component.restart", actor=OPERATOR, payload={"component": f"part{turn}"})
