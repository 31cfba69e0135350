"""What the kernel itself puts on record in the audit log: that it booted, that it gave a component up, what became of
settings, and which secrets were read for them.

Orders of operators are recorded by the command bus. These are facts that nobody ordered, so an audit log that cannot be
written costs a line in the log and nothing else, and nobody waits for one before the node is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from magmobo.contracts.audit import Audit
from magmobo.contracts.capabilities import Actor
from magmobo.contracts.errors import MagError
from magmobo.contracts.events import ComponentQuarantined, Envelope
from magmobo.kernel.deadline import end
from magmobo.kernel.errors import describe
from magmobo.kernel.services import KERNEL_ACTOR

if TYPE_CHECKING:
    from magmobo.kernel.config.source import SecretRead
    from magmobo.kernel.observe.quiet import QuietLog

_SETTLE_S = 2.0


async def record_reads(audit: Audit, reads: Iterable[SecretRead], actor: Actor) -> None:
    """Put on record which secrets were read for settings, before they count. Raises: AuditUnavailable."""
    records = [
        audit.record(
            "secret.read",
            actor=actor,
            payload={"reference": read.reference, "version": read.version, "setting": read.key},
        )
        for read in reads
    ]
    for outcome in await asyncio.gather(*records, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


class Chronicle:
    """Writes for one kernel."""

    def __init__(self, audit: Audit, log: QuietLog) -> None:
        self._audit, self._log = audit, log
        self._boot: asyncio.Task[None] | None = None

    def booted(self, facts: Mapping[str, Any]) -> None:
        """A boot succeeded. `settle` waits until that is written: it takes as long as two stages of the boot."""
        self._boot = asyncio.create_task(self.note("kernel.boot", facts), name="kernel:chronicle")

    async def settle(self) -> None:
        """Return when nothing is being written, or the disk has had its time. Calling it twice is fine."""
        if self._boot is not None:
            await asyncio.wait({self._boot}, timeout=_SETTLE_S)
            await end(self._boot)
        self._boot = None

    async def quarantined(self, envelope: Envelope[ComponentQuarantined]) -> None:
        """Handler of `component.quarantined`."""
        event = envelope.data
        await self.note("component.quarantined", {"component": event.name, "restart_count": event.restart_count})

    async def note(self, action: str, payload: Mapping[str, Any], actor: Actor = KERNEL_ACTOR) -> None:
        """Record what happened, if that is possible."""
        try:
            await self._audit.record(action, actor=actor, payload=payload)
        except MagError as error:
            self._log.error("not recorded in the audit log", action=action, error=describe(error))
