"""What the kernel itself puts on record in the audit log: that it booted, and that it gave a component up.

Orders of operators are recorded by the command bus. These are facts that nobody ordered, so an audit log that cannot be
written costs a line in the log and nothing else, and nobody waits for one before the node is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from magmobo.contracts.audit import Audit
from magmobo.contracts.errors import MagError
from magmobo.contracts.events import ComponentQuarantined, Envelope
from magmobo.kernel.deadline import end
from magmobo.kernel.errors import describe
from magmobo.kernel.services import KERNEL_ACTOR

if TYPE_CHECKING:
    from magmobo.kernel.observe.quiet import QuietLog

_SETTLE_S = 2.0


class Chronicle:
    """Writes for one kernel."""

    def __init__(self, audit: Audit, log: QuietLog) -> None:
        self._audit, self._log = audit, log
        self._boot: asyncio.Task[None] | None = None

    def booted(self, facts: Mapping[str, Any]) -> None:
        """A boot succeeded. `settle` waits until that is written: it takes as long as two stages of the boot."""
        self._boot = asyncio.create_task(self._record("kernel.boot", facts), name="kernel:chronicle")

    async def settle(self) -> None:
        """Return when nothing is being written, or the disk has had its time. Calling it twice is fine."""
        if self._boot is not None:
            await asyncio.wait({self._boot}, timeout=_SETTLE_S)
            await end(self._boot)
        self._boot = None

    async def quarantined(self, envelope: Envelope[ComponentQuarantined]) -> None:
        """Handler of `component.quarantined`."""
        event = envelope.data
        await self._record("component.quarantined", {"component": event.name, "restart_count": event.restart_count})

    async def _record(self, action: str, payload: Mapping[str, Any]) -> None:
        try:
            await self._audit.record(action, actor=KERNEL_ACTOR, payload=payload)
        except MagError as error:
            self._log.error("not recorded in the audit log", action=action, error=describe(error))
