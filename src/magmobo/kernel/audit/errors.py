"""What can be wrong with an audit log on disk. Errors of single calls are in `contracts.errors`."""

from __future__ import annotations

from magmobo.contracts.errors import AuditUnavailable, MagError


class AuditLogInUse(AuditUnavailable):
    """Another process writes to this audit log; a second writer would fork its chain."""

    code = "MAG-AUDIT-003"
    retryable = False
    remedy = "Stop the other process, or start this node with another data folder."

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.folder = folder

    def __str__(self) -> str:
        return f"another process writes to the audit log in {self.folder}"


class AuditLogMissing(MagError):
    """There is no audit log where one was asked for."""

    code = "MAG-AUDIT-004"
    exit_code = 2
    http_status = 404
    remedy = "Name the data folder of a node that ran at least once (--data-dir)."

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.folder = folder

    def __str__(self) -> str:
        return f"there is no audit log in {self.folder}"
