"""What Postgres said: errors of the statement (MAG-GATE-050 to 059)."""

from __future__ import annotations

from magmobo.components.maggate.errors.base import GateError


class DatabaseRefused(GateError):
    """Postgres refused the statement; `code` is its SQLSTATE."""

    code = "MAG-GATE-050"
    title = "The database refused the request"
    remedy = "`code` is Postgres' SQLSTATE; `message`, `details` and `hint` are its words."

    def __init__(
        self, sqlstate: str, http_status: int, message: str, details: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(sqlstate, http_status, message, details, hint)
        self.sqlstate, self._status, self.message, self._details = sqlstate, http_status, message, details
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    @property
    def status(self) -> int:
        return self._status

    @property
    def postgrest_code(self) -> str:
        return self.sqlstate

    @property
    def details(self) -> str | None:
        return self._details


class PermissionDenied(DatabaseRefused):
    """The role may not do this: a privilege or a row level security policy is missing."""

    code = "MAG-GATE-051"
    title = "Permission denied"
    remedy = "Grant the role what it needs, or send a token of a role that has it."


class Conflict(DatabaseRefused):
    """The write contradicts a unique, exclusion or foreign key constraint."""

    code = "MAG-GATE-052"
    title = "The write conflicts with existing rows"
    remedy = "`details` names the key; change it or the row it refers to."


class ValueRefused(DatabaseRefused):
    """A value does not fit its column's type or constraint."""

    code = "MAG-GATE-053"
    title = "A value was refused"
    remedy = "Correct the value that `message` names."


class StatementTimeout(DatabaseRefused):
    """The statement ran longer than it may and was stopped."""

    code = "MAG-GATE-054"
    title = "The statement took too long"
    remedy = "Narrow the request or add an index; maggate.statement_timeout_s is the limit."


class DatabaseBusy(DatabaseRefused):
    """The database cannot take the statement now; nothing was changed."""

    code = "MAG-GATE-055"
    retryable = True
    title = "The database cannot answer now"
    remedy = "Try again after the time in Retry-After."


class ReadOnly(DatabaseRefused):
    """A write reached a read-only transaction or server."""

    code = "MAG-GATE-056"
    title = "The database is read-only here"
    remedy = "Writes need POST, PATCH or DELETE, and a primary server."


class UnexpectedFailure(GateError):
    """The gateway met something it did not expect; the log has the facts under the request id."""

    code = "MAG-GATE-057"
    http_status = 500
    title = "Internal error"
    rest_code = "PGRSTX00"
    remedy = "Give the operator the X-Request-Id of this response; the log has the rest."

    def __str__(self) -> str:
        return "The gateway met an unexpected failure"
