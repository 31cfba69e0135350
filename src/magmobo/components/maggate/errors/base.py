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

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self.role = role

    def __str__(self) -> str:
        return (
            f"maggate.anonymous_role = {self.role!r}: requests may not use this role (it does not exist, the node "
            "cannot switch to it, it is a superuser or bypasses row level security, or it is the node's own)"
        )


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
