"""One plausible reply to every command that a node answers, with text in it that must not drive a terminal."""

from __future__ import annotations

from typing import Any

from magmobo.contracts import configuration as conf
from magmobo.contracts import operations as ops
from magmobo.contracts import vaults
from magmobo.contracts.audit import AuditRecord
from magmobo.contracts.planes import ComponentStatus, NodeStatus, SecretInfo
from magmobo.contracts.settings import Effect

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
TREE = conf.ConfigTree(
    version=6,
    environment="production",
    entries=[
        conf.ConfigEntry("listener.port", 8787, "default", "default", Effect.COMPONENT),
        conf.ConfigEntry("logging.level", "debug", "config:set", "patch", Effect.LIVE, expires_at=SINCE),
        conf.ConfigEntry("magds.dsn", "***", "mag.toml line 3", "file", Effect.LIVE, True, reference="vault:db"),
        conf.ConfigEntry("magds.schema", EVIL, f"environment {EVIL}", "environment", Effect.NODE, waiting=True),
        conf.ConfigEntry("magds.password", None, "default", "default", Effect.LIVE, is_secret=True),
    ],
    held=True,
    refused=EVIL,
)
PLAN = conf.ReloadPlan(
    changes=[
        conf.ConfigChange("health.interval_s", 10.0, 5.0, "mag.toml line 7", Effect.LIVE),
        conf.ConfigChange("magds.dsn", "***", "***", "secrets/production.toml line 2", Effect.LIVE, is_secret=True),
        conf.ConfigChange("magws.name", None, EVIL, EVIL, Effect.COMPONENT),
        conf.ConfigChange("kernel.data_dir", "a", "b", "mag.toml line 2", Effect.NODE),
    ],
    live=["core", "magds"],
    restarts=["magws"],
    waiting=["kernel.data_dir"],
)
PLANNED = conf.ReloadOutcome(6, False, PLAN)
APPLIED = conf.ReloadOutcome(7, True, PLAN, 0.0125)
VERSIONS = conf.ConfigVersions(
    [
        conf.ConfigVersion(7, SINCE, "file", "kernel", [f"a.k{number}" for number in range(9)], True, True, EVIL),
        conf.ConfigVersion(1, SINCE, "boot", "kernel", [], False, False),
    ]
)
SECRET = SecretInfo("db", 3, [2, 3], SINCE, SINCE)
CONTENTS = vaults.VaultContents(
    "local", "secrets/vault.key", [vaults.SecretUse(SECRET, ["magds.dsn"]), vaults.SecretUse(SECRET, [])]
)


def outcome(asked: Any) -> conf.ReloadOutcome:
    """The plan to who asks for a dry run, else the deed."""
    return PLANNED if asked.dry_run else APPLIED


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
    "config:show": TREE,
    "config:diff": PLAN,
    "config:reload": APPLIED,
    "config:rollback": APPLIED,
    "config:history": VERSIONS,
    "config:set": APPLIED,
    "config:unset": APPLIED,
    "vault:list": CONTENTS,
    "vault:set": vaults.SecretChanged(SECRET, ["magds.dsn"], 7),
    "vault:rotate": vaults.SecretChanged(SECRET, [], 6),
    "vault:remove": CONTENTS,
    "vault:import": vaults.ImportReport(["mail"], ["db"], [EVIL], ["magds.dsn"]),
    "vault:rekey": CONTENTS,
}
"""`node:stop` is answered by the fake node itself."""
