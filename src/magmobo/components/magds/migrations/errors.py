"""Errors of migrations, codes MAG-DS-080 to 089."""

from __future__ import annotations

from magmobo.components.magds.errors import StorageError


class MigrationFailed(StorageError):
    """A migration did not run to its end; nothing of this call was kept."""

    code = "MAG-DS-080"
    http_status = 422
    remedy = "Correct the migration that is named and run it again."

    def __init__(self, namespace: str, version: str, reason: str) -> None:
        super().__init__(namespace, version, reason)
        self.namespace, self.version, self.reason = namespace, version, reason

    def __str__(self) -> str:
        return f"migration {self.version} of {self.namespace}: {self.reason}"


class MigrationChanged(MigrationFailed):
    """A migration that ran has another text now; none of this call's ran."""

    code = "MAG-DS-081"
    http_status = 409
    remedy = "Put its former text back and write what should change as a new migration."


class MigrationIrreversible(MigrationFailed):
    """A migration that should be undone has no way back; nothing was undone."""

    code = "MAG-DS-082"
    http_status = 409
    remedy = "Stay at this version, or restore a backup that is older."


class MigrationsBusy(MigrationFailed):
    """Another node runs migrations of the same namespace, or somebody holds a table that this one needs."""

    code = "MAG-DS-083"
    http_status = 503
    retryable = True
    remedy = "Try again; `select * from pg_locks where not granted` shows who waits for whom."
