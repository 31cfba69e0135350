"""Every action that the audit log knows. What is not here cannot be recorded; CONTRACTS section 9.

`privileged` actions do not happen when they cannot be recorded; the others are recorded when that is possible.
"""

from __future__ import annotations

from collections.abc import Mapping

from magmobo.contracts.audit import AuditAction

BREAK_FOUND, CHECKPOINT, TORN_RECORD = "audit.break_found", "audit.checkpoint", "audit.torn_record"
OWN = "audit"
"""Category of what the log says of itself."""

_ACTIONS = (
    AuditAction("kernel.boot", "info", "kernel", privileged=False),
    # A node whose disk is full, or whose log is broken, must still be one that its operators can stop.
    AuditAction("kernel.stop", "notice", "kernel", privileged=False),
    AuditAction("kernel.reset", "warning", "kernel"),
    AuditAction("component.start", "notice", "component"),
    AuditAction("component.stop", "notice", "component"),
    AuditAction("component.restart", "notice", "component"),
    AuditAction("component.disable", "notice", "component"),
    AuditAction("component.enable", "notice", "component"),
    AuditAction("component.register", "warning", "component"),
    AuditAction("component.unregister", "warning", "component"),
    # What the supervisor does to protect the node must not wait for a disk.
    AuditAction("component.quarantined", "warning", "component", privileged=False),
    AuditAction("config.reload", "notice", "config"),
    AuditAction("config.patch", "warning", "config"),
    AuditAction("config.rollback", "warning", "config"),
    # What was decided before, or protects the node, does not wait for a disk.
    AuditAction("config.patch_expired", "notice", "config", privileged=False),
    AuditAction("config.rolled_back", "warning", "config", privileged=False),
    AuditAction("config.reloaded", "info", "config", privileged=False),
    AuditAction("config.reload_failed", "warning", "config", privileged=False),
    AuditAction("secret.read", "info", "security"),
    AuditAction("secret.write", "warning", "security"),
    AuditAction("secret.rotate", "warning", "security"),
    AuditAction("secret.remove", "warning", "security"),
    AuditAction("secret.import", "warning", "security"),
    AuditAction("vault.rekey", "warning", "security"),
    # A refusal stands whether or not it can be recorded; an override does not.
    AuditAction("security.denied", "warning", "security", privileged=False),
    AuditAction("security.breakglass", "critical", "security"),
    AuditAction("extension.install", "warning", "extension"),
    AuditAction("extension.approve", "warning", "extension"),
    AuditAction("extension.grant", "warning", "extension"),
    AuditAction("extension.revoke", "warning", "extension"),
    AuditAction("extension.enable", "notice", "extension"),
    # What takes an extension out of the way must not wait for a disk.
    AuditAction("extension.disable", "notice", "extension", privileged=False),
    AuditAction("extension.kill", "warning", "extension", privileged=False),
    AuditAction("extension.upgrade", "warning", "extension"),
    AuditAction("extension.rollback", "warning", "extension"),
    AuditAction("extension.uninstall", "warning", "extension"),
    AuditAction("extension.configure", "notice", "extension"),
    AuditAction("extension.trust", "warning", "extension"),
    AuditAction("extension.events", "notice", "extension"),
    AuditAction("extension.run", "notice", "extension"),
    # What the plane did by itself, and what extensions did: one record for each privileged call, one for a batch of
    # the others.
    AuditAction("extension.lifecycle", "notice", "extension", privileged=False),
    AuditAction("extension.call", "notice", "extension"),
    AuditAction("extension.calls", "info", "extension", privileged=False),
    AuditAction("extension.denied", "warning", "extension", privileged=False),
    AuditAction("extension.escape_attempt", "critical", "extension", privileged=False),
    AuditAction("diagnostics.dump", "notice", "diagnostics"),
    AuditAction(BREAK_FOUND, "critical", OWN, privileged=False),
    AuditAction(CHECKPOINT, "info", OWN, privileged=False),
    AuditAction(TORN_RECORD, "warning", OWN, privileged=False),
)
CATALOGUE: Mapping[str, AuditAction] = {action.name: action for action in _ACTIONS}
"""Name -> entry."""
