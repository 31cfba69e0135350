"""Who may do what: actors, roles and the catalogue of operators' capabilities.

Boundary: facts only; the gate in the kernel decides. Source: CONTRACTS section 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from msgspec import Struct


class Role(StrEnum):
    """Each role may do what the one before it may, and more."""

    VIEWER = "viewer"
    DEVELOPER = "developer"
    OPERATOR = "operator"
    ADMIN = "admin"


class Actor(Struct, frozen=True, kw_only=True):
    """Who asks. `name` is `uid:<number>`, `console`, `component:<name>` or `kernel`; never a person's name.

    `justification` is set in break-glass mode: the actor asks for more than its role holds, and says why.
    `capabilities` counts for `via` component alone, whose role does not count: exactly those that its class declares.
    """

    name: str
    role: Role
    via: Literal["control", "console", "component", "kernel"]
    address: str = ""
    justification: str = ""
    capabilities: frozenset[str] = frozenset()


CAPABILITIES: Mapping[str, Role] = {
    "kernel.status.read": Role.VIEWER,
    "kernel.events.read": Role.DEVELOPER,
    "kernel.config.read": Role.DEVELOPER,
    "kernel.component.start": Role.OPERATOR,
    "kernel.component.stop": Role.OPERATOR,
    "kernel.component.restart": Role.OPERATOR,
    "kernel.component.register": Role.ADMIN,
    "kernel.config.reload": Role.OPERATOR,
    "kernel.config.patch": Role.OPERATOR,
    "kernel.config.authority": Role.ADMIN,
    "kernel.audit.read": Role.OPERATOR,
    "kernel.diagnostics.dump": Role.OPERATOR,
    "kernel.node.stop": Role.OPERATOR,
    "kernel.node.reset": Role.ADMIN,
    "kernel.secret.write": Role.ADMIN,
    "magds.migrate": Role.OPERATOR,
    "magds.backup": Role.OPERATOR,
    "magds.restore": Role.ADMIN,
    "magds.failover": Role.OPERATOR,
    "extension.install": Role.ADMIN,
    "extension.approve": Role.ADMIN,
    "extension.revoke": Role.OPERATOR,
    "chaos.run": Role.ADMIN,
}
"""The least role that holds each capability."""
