"""Section [auditexport]."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from magmobo.contracts.settings import ADMINS_ONLY, LIVE

QualifiedName = Annotated[str, Meta(pattern=r"^[^.]{1,63}\.[^.]{1,63}$")]


class AuditExportConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [auditexport]: audit records in Postgres as well. Nothing is written unless `table` says where."""

    table: Annotated[
        QualifiedName | None,
        Meta(description="`schema.name` of a table that exists, such as cp_audit.audit_log; unset: no export"),
        LIVE,
        ADMINS_ONLY,
    ] = None
