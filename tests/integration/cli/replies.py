"""One plausible reply to every command that a node answers, with text in it that must not drive a terminal."""

from __future__ import annotations

from typing import Any

from magmobo.contracts import operations as ops
from magmobo.contracts.audit import AuditRecord
from magmobo.contracts.planes import ComponentStatus, NodeStatus

EVIL = "a\x1b[31mb\nc"
SINCE = "2026-11-22T10:00:00.000+00:00"
FINE = ComponentStatus("magds", "running", "healthy", 2, SINCE, EVIL)
NODE = NodeStatus("id1", "ready", "production", "1.2", 61.5, [FINE], {"http": "http://h/"}, ["curl x"], ["wal"])
SICK = NodeStatus("id1", "degraded", "production", "1.2", 61.5, [ComponentStatus("a", "failed", "unknown", 0, SINCE)])
EVENT = {
    "specversion": "1.0", "id": "i/component.failed/1", "source": "/mag/id1", "time": "2026-11-22T10:00:00Z",
    "type": "dev.magmobo.component.failed.v1", "data": {"name": "magds", "error": EVIL},
}  # fmt: skip
RECORD = AuditRecord(
    id="7", action="component.restart", payload={"component": EVIL}, created_at=SINCE, seq=41, severity="notice",
    category="component", actor="uid:0", prev_hash="0" * 64, hash="1" * 64,
)  # fmt: skip
BOOT = ops.BootReport(
    boot_s=2.0,
    started_at=SINCE,
    interrupted=True,
    entries=[
        ops.BlameEntry("pre_boot", "", "", 0.0, 0.5, True),
        ops.BlameEntry("component_load", "", "", 0.5, 1.5, True),
        ops.BlameEntry("component_load", "magds", "boot", 0.5, 1.5, True),
        ops.BlameEntry("component_load", "listener", "boot", 0.5, 0.1, False),
    ],
)
DETAIL = ops.ComponentDetail(
    status=FINE, version="3", source="magmobo.components.magds.component:MagDS", provides=["Database"],
    needs=["listener"], wants=["cache"], after=["state"], needed_by=["maggate"], capabilities=["database.read"],
    checks=[ops.HealthNote("pool", "degraded", EVIL)], caused_by="listener",
    restarts=[ops.RestartNote(SINCE, "supervisor", EVIL, 1.25)], budget_left=2, tasks=4, subscriptions=5,
)  # fmt: skip
GRAPH = ops.Graph(
    [["listener"], ["magds", "maggate"]], [ops.GraphEdge("maggate", "magds", "needs", "Database")], "digraph {\n}\n"
)
CATALOGUE = ops.CommandCatalogue(
    [ops.CommandInfo("kernel:status", "State.", "kernel.status.read", False, False, {"type": "object"}, {})]
)
REPLIES: dict[str, Any] = {
    "kernel:status": NODE,
    "kernel:blame": BOOT,
    "kernel:events": ops.EventPage([EVENT], 12, 0),
    "kernel:reset": NODE,
    "component:list": ops.ComponentList([FINE]),
    "component:show": DETAIL,
    "component:restart": FINE,
    "component:stop": FINE,
    "component:start": FINE,
    "component:disable": FINE,
    "component:enable": FINE,
    "component:register": FINE,
    "component:unregister": ops.ComponentList([FINE]),
    "component:graph": GRAPH,
    "audit:tail": ops.AuditPage([RECORD], 41),
    "diagnostics:dump": ops.Diagnostics([ops.DiagnosticsPart("status.json", "{}")]),
    "kernel:commands": CATALOGUE,
}
"""`node:stop` is answered by the fake node itself."""
