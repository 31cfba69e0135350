"""What operators are told about extensions: records of the registry and workers of this node, in the replies' words.

Boundary: reads only. Invariant: no secret and no text of an extension's that was not bounded before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from magmobo.contracts.extensions import (
    EXTENSION_CAPABILITIES,
    BindingInfo,
    ExtensionDetail,
    ExtensionInfo,
    ExtensionPage,
    GrantInfo,
    Risk,
    TrustedKey,
    TrustedKeys,
    UpgradeInfo,
)
from magmobo.extensions.installed import Grant
from magmobo.extensions.lifecycle.core import Core
from magmobo.extensions.lifecycle.grants import effective, with_waiting
from magmobo.extensions.lifecycle.records import GRANTED, PENDING, Decision, Entry, Version
from magmobo.extensions.lifecycle.settings import shown
from magmobo.extensions.lifecycle.states import State
from magmobo.extensions.package.manifest import CapabilityRequest, Manifest
from magmobo.extensions.package.upgrades import capability_diff, highest_risk
from magmobo.extensions.standing import Standing

UNKNOWN_HEALTH = "unknown"


class Views:
    """Answers about extensions. `problems` says why something enabled does not run on this node."""

    def __init__(self, core: Core, problems: Mapping[str, str]) -> None:
        self._core, self._problems = core, problems

    async def page(self) -> ExtensionPage:
        """Every extension, a line each."""
        registry, tier = self._core.registry, await self._core.ports.tier()
        lines = [self._info(entry, tier) for entry in registry.entries.values()]
        lines += [_damaged(extension_id, reason) for extension_id, reason in sorted(registry.damaged.items())]
        return ExtensionPage(sorted(lines, key=lambda line: line.id), tier, registry.stopped)

    async def detail(self, entry: Entry) -> ExtensionDetail:
        """Everything about one."""
        ports, current = self._core.ports, entry.current
        manifest = current.manifest
        running = self._core.stage.running.get(entry.id)
        grants = effective(manifest, current.decisions, self._core.now_s)
        standing = Standing() if entry.uid == 0 else await ports.events.standing(entry.id, grants)
        reads, writes = self._tables(entry, grants)
        upgrade = self._upgrade(entry, entry.versions[entry.pending]) if entry.pending else None
        versions = [version.version for version in entry.versions.values()]
        return ExtensionDetail(
            info=self._info(entry, await ports.tier()),
            description=manifest.description,
            author=manifest.author,
            sha256=entry.sha256,
            grants=list(self._grants(entry)),
            reads=reads,
            writes=writes,
            bindings=list(_bindings(manifest)),
            settings=shown(entry, manifest),
            versions=versions,
            backlog=standing.backlog,
            dead=standing.dead,
            figures={} if running is None else running.worker.figures(),
            pending_sha256=entry.pending,
            limits=standing.limits,
            waits=standing.waits,
            upgrade=upgrade,
        )

    def keys(self) -> TrustedKeys:
        """Every trusted key."""
        import base64

        return TrustedKeys(
            [
                TrustedKey(key.key_id, key.label, base64.b64encode(key.public).decode(), _rfc3339(key.added_at_s))
                for key in self._core.registry.keys.values()
            ]
        )

    def _info(self, entry: Entry, tier: str) -> ExtensionInfo:
        manifest, running = entry.current.manifest, self._core.stage.running.get(entry.id)
        detail = entry.halt_reason or self._problems.get(entry.id) or entry.detail
        if not detail and running is not None:
            detail = running.book.said.detail
        key = self._core.registry.keys.get(entry.current.signer)
        return ExtensionInfo(
            id=entry.id,
            name=manifest.name,
            version=entry.current.version,
            state=entry.state,
            health=UNKNOWN_HEALTH if running is None else running.book.said.status,
            risk=highest_risk([request.name for request in manifest.capabilities]) or Risk.LOW,
            signer=entry.current.signer,
            tier=tier,
            since=_rfc3339(entry.since_s),
            restarts=0 if running is None else int(running.worker.figures().get("restarts", 0)),
            detail=detail,
            pending_version=entry.versions[entry.pending].version if entry.pending else "",
            signer_name="" if key is None else key.label,
        )

    def _grants(self, entry: Entry) -> Iterable[GrantInfo]:
        """Those of the version that counts; of a pending one what it asks for beyond that."""
        current = entry.current
        for request in current.manifest.capabilities:
            yield self._grant(entry, request, current.decisions.get(request.name), new=False)
        if entry.pending:
            pending = entry.versions[entry.pending]
            more = capability_diff(current.manifest, pending.manifest).more
            for request in pending.manifest.capabilities:
                if request.name in more:
                    yield self._grant(entry, request, pending.decisions.get(request.name), new=True)

    def _grant(self, entry: Entry, request: CapabilityRequest, decision: Decision | None, *, new: bool) -> GrantInfo:
        known = EXTENSION_CAPABILITIES[request.name]
        scope = {} if decision is None else {kind: names for kind, names in decision.scope.items() if names}
        ends_s = None if decision is None or decision.state != GRANTED else decision.expires_at_s
        return GrantInfo(
            capability=request.name,
            risk=known.risk,
            state=PENDING if decision is None else decision.state,
            reason=request.reason,
            optional=request.optional,
            scope=scope,
            rate_per_minute=known.rate_per_minute if decision is None else decision.rate_per_minute,
            expires_at="" if ends_s is None else _rfc3339(ends_s),
            new=new,
            used=0 if new else self._core.ports.used(entry.id, request.name),
            budget_per_day=None if decision is None else decision.budget_per_day,
            hours="" if decision is None else decision.hours,
        )

    def _upgrade(self, entry: Entry, after: Version) -> UpgradeInfo:
        """What changes with a version that waits."""
        before = entry.current.manifest
        diff = capability_diff(before, after.manifest)
        had, has = list(_bindings(before)), list(_bindings(after.manifest))
        reads, writes = self._tables(entry, effective(after.manifest, with_waiting(after.decisions), self._core.now_s))
        return UpgradeInfo(
            version=after.version,
            risk=diff.risk or "",
            added=diff.added,
            widened=diff.widened,
            removed=diff.removed,
            bindings_added=[binding for binding in has if binding not in had],
            bindings_removed=[binding for binding in had if binding not in has],
            reads=reads,
            writes=writes,
        )

    def _tables(self, entry: Entry, grants: Mapping[str, Grant]) -> tuple[Sequence[str], Sequence[str]]:
        # Until it is first given rights on storage, it has no schema that could be named.
        named = f" ({self._core.ports.guests.schema_of(entry.guest)})" if entry.guest else ""
        own = [f"its own tables{named}"] if "database.schema" in grants else []
        read, write = grants.get("database.read"), grants.get("database.write")
        return (
            [*(read.scope["tables"] if read else ()), *own],
            [*(write.scope["tables"] if write else ()), *own],
        )


def _bindings(manifest: Manifest) -> Iterable[BindingInfo]:
    for hook in manifest.hooks:
        fails = f", on error {hook.on_error}" if hook.on_error else ""
        yield BindingInfo("hook", hook.point, f"priority {hook.priority}{fails}")
    for event in manifest.events:
        yield BindingInfo("event", event.name, " ".join([event.topic, *event.tables]))
    for endpoint in manifest.endpoints:
        path = f"{endpoint.method} /ext/{manifest.id}{endpoint.path}"
        yield BindingInfo("endpoint", path, "for everybody" if endpoint.public else "")
    for command in manifest.commands:
        yield BindingInfo("command", command.name, command.summary)
    for job in manifest.jobs:
        yield BindingInfo("job", job.name, job.cron or "when it is enqueued")


def _damaged(extension_id: str, reason: str) -> ExtensionInfo:
    return ExtensionInfo(
        id=extension_id, name=extension_id, version="", state=State.ERROR, health=UNKNOWN_HEALTH, risk=Risk.LOW,
        signer="", tier="", since="", restarts=0, detail=f"its entry in the registry is damaged: {reason}",
    )  # fmt: skip


def _rfc3339(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
