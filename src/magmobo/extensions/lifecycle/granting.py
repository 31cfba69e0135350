"""What an extension may do, changed while it runs: approved, granted in part, taken back, ended by time; its settings.

A revocation counts in this process before the database is told, a grant only after: whatever fails, nobody may more
than was decided. Both reach rights on tables in the same transaction as the registry, and other nodes with the
generation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from magmobo.contracts.extensions import EXTENSION_CAPABILITIES, PLANNED_CAPABILITIES
from magmobo.extensions.lifecycle.core import Core
from magmobo.extensions.lifecycle.errors import AnotherWaits, ConfirmationMissing, GrantRefused, LifecycleBusy
from magmobo.extensions.lifecycle.grants import (
    critical,
    effective,
    expired,
    granted,
    granted_less,
    missing,
    revoked,
)
from magmobo.extensions.lifecycle.records import PENDING, Decisions, Entry, Version
from magmobo.extensions.lifecycle.states import State
from magmobo.extensions.lifecycle.storage import Storage
from magmobo.extensions.lifecycle.versions import VersionChange, Way
from magmobo.extensions.package.manifest import CapabilityRequest

if TYPE_CHECKING:
    from magmobo.contracts.extensions import GrantCapability
    from magmobo.extensions.lifecycle.store import Connection

BY_TIME = "time"
"""Who decides that a grant for a time is over."""
_END_WAIT_S = 0.2


class Granting:
    """Approves, grants, revokes and configures."""

    def __init__(self, core: Core, storage: Storage, versions: VersionChange) -> None:
        self._core, self._storage, self._versions = core, storage, versions
        self._store, self._stage = core.store, core.stage

    # ------------------------------------------------------------ decisions

    async def approve(
        self,
        extension_id: str,
        capabilities: Sequence[str],
        confirm: str,
        by: str,
        *,
        sha256: str = "",
        dry_run: bool = False,
    ) -> Entry:
        """Grant what an extension, or its pending upgrade, asks for; with all it needs, the upgrade goes on. The
        extension as it is now, or would be. `sha256`: the version that was looked at, empty: whichever it is.

        Raises: AnotherWaits, GrantRefused, ConfirmationMissing, UpgradeFailed; TierTooLow and other reasons not to try.
        """
        async with self._core.change() as connection:
            entry = self._core.entry(extension_id)
            version = entry.versions[entry.pending or entry.sha256]
            if sha256 and sha256 != version.sha256:
                raise AnotherWaits(extension_id, version.version)
            decisions = _approved(version, capabilities, confirm, by)
            approved = entry.with_decisions(version.sha256, decisions)
            goes_on = bool(entry.pending) and not missing(version.manifest, decisions, self._core.now_s)
            if goes_on and entry.state is State.ENABLED:
                await self._core.check_may_run(approved, approved.versions[version.sha256])
            if dry_run:
                return approved
            async with connection.transaction():
                await self._store.decide(connection, version.sha256, decisions)
                if not entry.pending:
                    await self._give_rights(connection, approved)
            if goes_on:
                await self._versions.take(connection, Way(approved, approved.versions[version.sha256]))
            elif not entry.pending:
                await self.adopt(approved)
        return self._core.entry(extension_id)

    async def grant(self, wanted: GrantCapability, by: str) -> None:
        """Grant one capability, perhaps less than asked; for a pending upgrade that asks for it too.

        Raises: GrantRefused, ConfirmationMissing.
        """
        async with self._core.change() as connection:
            entry = self._core.entry(wanted.id)
            _check_confirmed(entry.id, [wanted.wanted], wanted.confirm)
            expires_at_s = None if wanted.ttl_s is None else self._core.now_s + wanted.ttl_s
            changed = entry
            for sha256 in filter(None, (entry.sha256, entry.pending)):
                version = entry.versions[sha256]
                request = version.manifest.request(wanted.wanted)
                if request is not None:
                    decision = granted_less(request, wanted, expires_at_s=expires_at_s, by=by)
                    _check_planned(entry.id, request)
                    changed = changed.with_decisions(sha256, {**version.decisions, request.name: decision})
            if changed is entry:
                raise GrantRefused(entry.id, wanted.wanted, "its manifest does not ask for it")
            async with connection.transaction():
                await self._note(connection, entry, changed)
                await self._give_rights(connection, changed)
            await self.adopt(changed)

    async def revoke(self, extension_id: str, capability: str, by: str) -> None:
        """Take a capability back, in every version that is kept. Raises: GrantRefused."""
        entry = self._core.entry(extension_id)
        changed = self._without(entry, capability, by)
        self._take_effect(changed)  # whatever becomes of the rest
        async with self._core.change() as connection:
            entry = self._core.entry(extension_id)
            changed = self._without(entry, capability, by)
            async with connection.transaction():
                await self._note(connection, entry, changed)
                await self._take_rights(connection, changed)
            await self.adopt(changed)

    async def configure(self, extension_id: str, values: Mapping[str, Any]) -> None:
        """Set settings. Raises: SettingsRefused; those of the vault."""
        async with self._core.change() as connection:
            entry = self._core.entry(extension_id)
            change = await self._core.settings.plan(entry, entry.current.manifest, values)
            async with connection.transaction():
                await self._store.configure(connection, entry.id, change.plain, change.secrets)
                await self._core.settings.keep_secrets(entry, change)
            await self.adopt(replace(entry, settings=change.plain, secrets=change.secrets))

    async def _note(self, connection: Connection, before: Entry, after: Entry) -> None:
        for sha256, version in after.versions.items():
            if version.decisions != before.versions[sha256].decisions:
                await self._store.decide(connection, sha256, version.decisions)

    async def _give_rights(self, connection: Connection, entry: Entry) -> None:
        await self._storage.give_rights(connection, entry.guest, self._core.bare(entry, entry.sha256))

    async def _take_rights(self, connection: Connection, entry: Entry) -> None:
        await self._storage.take_rights(connection, entry.guest, self._core.bare(entry, entry.sha256))

    def _without(self, entry: Entry, capability: str, by: str) -> Entry:
        changed = entry
        for sha256, version in entry.versions.items():
            decision = version.decisions.get(capability)
            if decision is not None:
                decisions: Decisions = {**version.decisions, capability: revoked(decision, by)}
                changed = changed.with_decisions(sha256, decisions)
        if changed is entry:
            raise GrantRefused(entry.id, capability, "its manifest does not ask for it")
        return changed

    # ------------------------------------------------------------ effect

    def _take_effect(self, entry: Entry) -> None:
        """What the running version may do, from its next call on."""
        running = self._stage.running.get(entry.id)
        if running is None or (version := entry.versions.get(running.installed.sha256)) is None:
            return
        grants = effective(version.manifest, version.decisions, self._core.now_s)
        if grants != running.installed.grants:
            running.installed.grants = grants
            running.worker.tell_settings()

    async def adopt(self, entry: Entry) -> None:
        """Bring the running worker to what was decided, and to its settings."""
        self._take_effect(entry)
        running = self._stage.running.get(entry.id)
        if running is None or running.installed.sha256 != entry.sha256:
            return
        settings = await self._core.settings.resolved(entry, running.installed.manifest)
        if settings != running.installed.settings:
            running.installed.settings = settings
            running.worker.tell_settings()

    async def end_expired(self) -> None:
        """Take back what was granted for a time that is over. Raises: Unavailable."""
        if not any(self._over(entry) for entry in self._core.registry.entries.values()):
            return
        try:
            async with self._core.change(wait_s=_END_WAIT_S) as connection:
                for entry in self._core.registry.entries.values():
                    changed = entry
                    for sha256, capability in self._over(entry):
                        decisions = changed.versions[sha256].decisions
                        ended = revoked(decisions[capability], BY_TIME)
                        changed = changed.with_decisions(sha256, {**decisions, capability: ended})
                    if changed is not entry:
                        async with connection.transaction():
                            await self._note(connection, entry, changed)
                            await self._take_rights(connection, changed)
                        await self.adopt(changed)
        except LifecycleBusy:
            return  # whoever is asked at a call sees that it is over; the rest follows

    def _over(self, entry: Entry) -> list[tuple[str, str]]:
        return [
            (sha256, capability)
            for sha256, version in entry.versions.items()
            for capability in expired(version.decisions, self._core.now_s)
        ]


def _approved(version: Version, capabilities: Sequence[str], confirm: str, by: str) -> Decisions:
    """Decisions with these granted; none named: all that wait.

    Raises: GrantRefused, ConfirmationMissing.
    """
    asked = {request.name: request for request in version.manifest.capabilities}
    extension_id = version.manifest.id
    if unknown := [name for name in capabilities if name not in asked]:
        raise GrantRefused(extension_id, unknown[0], "its manifest does not ask for it")
    names = capabilities or [name for name, one in version.decisions.items() if one.state == PENDING]
    for name in names:
        _check_planned(extension_id, asked[name])
    _check_confirmed(extension_id, names, confirm)
    return {**version.decisions, **{name: granted(asked[name], by) for name in names}}


def _check_planned(extension_id: str, request: CapabilityRequest) -> None:
    if (why := PLANNED_CAPABILITIES.get(request.name)) is not None:
        raise GrantRefused(extension_id, request.name, why)


def _check_confirmed(extension_id: str, capabilities: Sequence[str], confirm: str) -> None:
    if confirm != extension_id and (high := critical(name for name in capabilities if name in EXTENSION_CAPABILITIES)):
        raise ConfirmationMissing(extension_id, high)
