"""What can be wrong with the table that audit records are copied to."""

from __future__ import annotations

from magmobo.contracts.errors import MagError


class TableUnfit(MagError):
    """Audit records cannot be copied to the configured table as it is; they wait in the audit log."""

    code = "MAG-AUDIT-010"
    remedy = (
        "Create the table, or grant the node's role SELECT and INSERT on it. It needs at least the columns id uuid, "
        "action, payload jsonb and created_at timestamptz."
    )

    def __init__(self, table: str, reason: str) -> None:
        super().__init__(table, reason)
        self.table, self.reason = table, reason

    def __str__(self) -> str:
        return f"audit records cannot be copied to {self.table}: {self.reason}"
