"""The audit log as those see it who write to it or read it.

Promise: when `record` returns, the record is on disk and chained to the one before it; a privileged action that cannot
be recorded does not happen. Errors are those of `contracts.errors`. Source: CONTRACTS section 9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from magmobo.contracts.capabilities import Actor

Severity = Literal["info", "notice", "warning", "critical"]


class AuditAction(Struct, frozen=True):
    """One entry of the catalogue. A `privileged` action fails closed when it cannot be recorded."""

    name: str
    severity: Severity
    category: str
    privileged: bool = True


class AuditRecord(Struct, frozen=True, kw_only=True):
    """One line of the log; the first ten fields are the columns of `cp_audit.audit_log`. `created_at` is RFC 3339 UTC.

    `prev_hash` and `hash` are lower-case hex sha256; the hash covers the whole record but itself.
    """

    id: str
    org_id: str | None = None
    project_id: str | None = None
    user_id: str | None = None
    action: str
    payload: Mapping[str, Any]
    ip_address: str | None = None
    immutable: bool = True
    legal_hold_id: str | None = None
    created_at: str
    seq: int
    severity: Severity
    category: str
    actor: str
    trace_id: str = ""
    prev_hash: str
    hash: str


class Audit(Protocol):
    """The one writer of a node's audit log."""

    async def record(
        self,
        action: str,
        *,
        actor: Actor,
        payload: Mapping[str, Any],
        trace_id: str = "",
        severity: Severity | None = None,
    ) -> AuditRecord:
        """Write one record; durable when this returns. Secrets in `payload` are masked, its size is bounded.

        Args:
            action: a name of the catalogue.
            severity: another than the catalogue's, as for break-glass.
        Raises: UnknownAuditAction; AuditUnavailable when it could not be made durable, though it may turn out to be
            there after all, as the record of an action that was not taken.
        """
        ...

    def action(self, name: str) -> AuditAction:
        """The catalogue's entry, for instance whether the action is privileged. Raises: UnknownAuditAction."""
        ...

    async def read(self, *, after_seq: int, limit: int) -> Sequence[AuditRecord]:
        """Durable records behind `after_seq`, oldest first, at most `limit`. What cannot be read is left out, so a hole
        in `seq` means damage: `audit:verify` says which. Raises: AuditUnavailable.
        """
        ...

    @property
    def head_seq(self) -> int:
        """Sequence number of the last durable record, 0 when there is none."""
        ...
