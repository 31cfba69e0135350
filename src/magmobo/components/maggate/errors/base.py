"""The root of the gateway's errors, and those that stop it from starting (MAG-GATE-000 to 008)."""

from __future__ import annotations

from typing import Any, ClassVar

from magmobo.contracts.errors import MagError


class GateError(MagError):
    """Something the gateway refuses."""

    code = "MAG-GATE-000"
    http_status = 400
    title: ClassVar[str] = "The request was refused"
    rest_code: ClassVar[str] = "PGRST100"
    remedy = "Read `message` and `details`; docs/rest.md describes what a request may hold."

    hint: str | None = None

    @property
    def status(self) -> int:
        """HTTP status of this error."""
        return self.http_status

    @property
    def postgrest_code(self) -> str:
        """The `code` PostgREST's clients know: PGRSTnnn or a SQLSTATE."""
        return self.rest_code

    @property
    def details(self) -> Any:
        """More facts for `details`: text, a list, or None."""
        return None


class AnonymousRoleRefused(GateError):
    """`maggate.anonymous_role` names a role that requests may not use: missing, superuser, or the node's own."""

    code = "MAG-GATE-001"
    exit_code = 5
    http_status = 500
    title = "The anonymous role cannot be used"
    remedy = (
        "Create a plain role and let the node's role switch to it: CREATE ROLE web_anon NOLOGIN; GRANT web_anon TO "
        '<the user of the DSN>; then set maggate.anonymous_role = "web_anon" and grant it what everybody may see.'
    )

    def __init__(self, role: str, reason: str = "requests may not use it", statement: str = "") -> None:
        super().__init__(role, reason, statement)
        self.role, self.reason, self.statement = role, reason, statement

    def __str__(self) -> str:
        return f"maggate.anonymous_role = {self.role!r}: {self.reason}"

    def next_step(self) -> str:
        return f"Run {self.statement} and start again." if self.statement else self.remedy


class JwtSettingsRefused(GateError):
    """The settings under `maggate.jwt` contradict each other or hold no usable key."""

    code = "MAG-GATE-002"
    exit_code = 5
    http_status = 500
    title = "The JWT settings cannot be used"
    remedy = (
        "Set either maggate.jwt.secret (at least 32 bytes, HS256/384/512) or maggate.jwt.public_key (PEM; RS, PS, ES "
        "or EdDSA), and leave maggate.jwt.algorithms empty to let the key decide."
    )

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"maggate.jwt: {self.reason}"
