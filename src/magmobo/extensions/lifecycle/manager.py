"""The lifecycle of extensions as the plane and its commands use it: one object, a method for each command.

Boundary: nothing is decided here; `installing`, `switching`, `granting`, `versions` and `recovery` do the work, each
under one turn. A change that was begun is ended, also when whoever asked is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from magmobo.contracts.capabilities import Actor
from magmobo.contracts.extensions import ExtensionDetail, ExtensionPage, GrantCapability, TrustedKeys
from magmobo.extensions.installed import Installed
from magmobo.extensions.lifecycle.core import Core
from magmobo.extensions.lifecycle.errors import KeyUnknown
from magmobo.extensions.lifecycle.following import Following
from magmobo.extensions.lifecycle.granting import Granting
from magmobo.extensions.lifecycle.grants import carried_decisions, missing
from magmobo.extensions.lifecycle.installing import Installing
from magmobo.extensions.lifecycle.ports import Ports, Worker
from magmobo.extensions.lifecycle.records import NOTHING, Entry, Version
from magmobo.extensions.lifecycle.recovery import Recovery
from magmobo.extensions.lifecycle.stage import Stage
from magmobo.extensions.lifecycle.states import State, check
from magmobo.extensions.lifecycle.storage import Storage
from magmobo.extensions.lifecycle.switching import Switching
from magmobo.extensions.lifecycle.versions import VersionChange, Way
from magmobo.extensions.lifecycle.views import Views
from magmobo.extensions.lifecycle.watching import Watching
from magmobo.extensions.package.keys import key_id, parse_public
from magmobo.extensions.package.upgrades import check_upgrade


class Lifecycle:
    """Every extension of the database, and their workers on this node."""

    def __init__(self, ports: Ports) -> None:
        stage = Stage(ports, on_crash=self._crashed, on_escape=self._escaped)
        self._core = core = Core(ports, stage)
        storage = Storage(ports)
        self._installing, self._switching = Installing(core, storage), Switching(core, storage)
        self._versions = VersionChange(core, storage)
        self._granting = Granting(core, storage, self._versions)
        recovery = Recovery(core, self._switching, self._installing, self._versions)
        self._following = Following(core, self._switching, self._granting, recovery)
        self._watching = Watching(core, self._switching, self._versions, self._following)
        self._views = Views(core, self._following.problems)

    # ------------------------------------------------------------ life

    async def boot(self) -> bool:
        """Read the registry and let hooks that fail closed deny until their extension is there. Whether there is one:
        without it this is one question to the database. Raises: Unavailable.
        """
        return await self._following.boot()

    async def read(self) -> None:
        """Read the registry alone, and remove what is gone: nothing is guarded or started. Raises: Unavailable."""
        await self._core.refresh()
        if self._core.registry.generation != NOTHING.generation:
            await self._core.sweep_files()

    async def start(self) -> None:
        """End or lead back what a killed node left, start what is enabled, follow what other nodes change."""
        if self._core.registry.generation == NOTHING.generation:
            await self.boot()
        await self._following.start()
        self._watching.start()

    async def stop(self) -> None:
        """Let workers finish and end them; hooks that fail closed deny from here on."""
        await self._following.stop()
        await self._core.settle()
        await self._core.removals.stop()
        await self._watching.stop()
        await self._core.stage.stop_all()

    # ------------------------------------------------------------ looking

    async def list(self) -> ExtensionPage:
        """Every extension, a line each."""
        return await self._views.page()

    async def show(self, extension_id: str) -> ExtensionDetail:
        """One extension. Raises: ExtensionUnknown, RegistryDamaged."""
        return await self._views.detail(self._core.entry(extension_id))

    def worker(self, extension_id: str) -> Worker | None:
        """Its worker on this node, None while there is none."""
        running = self._core.stage.running.get(extension_id)
        return None if running is None else running.worker

    def installed(self) -> Mapping[str, Installed]:
        """Id -> what runs on this node."""
        return {extension_id: running.installed for extension_id, running in self._core.stage.running.items()}

    @property
    def problems(self) -> Mapping[str, str]:
        """Id -> why something enabled does not run on this node."""
        return self._following.problems

    # ------------------------------------------------------------ coming and going

    async def install(self, data: bytes, actor: Actor, *, trace_id: str = "", dry_run: bool = False) -> ExtensionDetail:
        """Install a package. Raises: what `Installing.install` raises."""
        entry = await self._core.whole(self._installing.install(data, actor, trace_id, dry_run=dry_run))
        return await self._views.detail(entry)

    async def uninstall(
        self, extension_id: str, delete_data: bool, actor: Actor, *, dry_run: bool = False
    ) -> ExtensionPage:
        """Remove an extension; other nodes follow. Raises: StillHere and others."""
        await self._core.whole(self._installing.uninstall(extension_id, delete_data=delete_data, dry_run=dry_run))
        await self._core.removals.settled()
        return await self.list()

    async def upgrade(self, data: bytes, actor: Actor, *, trace_id: str = "", dry_run: bool = False) -> ExtensionDetail:
        """Bring an extension to a package's version; with more capabilities it waits for approval.

        Raises: UpgradeRefused, UpgradeFailed, AuditUnavailable, and reasons not to try.
        """
        entry = await self._core.whole(self._upgrade(data, actor, trace_id, dry_run=dry_run))
        return await self._views.detail(entry)

    async def rollback(self, extension_id: str, actor: Actor, *, dry_run: bool = False) -> ExtensionDetail:
        """Bring an extension to the version before. Raises: NoWayBack, UpgradeFailed, RequirementsUnmet."""
        await self._core.whole(self._rollback(extension_id, dry_run=dry_run))
        return await self.show(extension_id)

    async def _upgrade(self, data: bytes, actor: Actor, trace_id: str, *, dry_run: bool) -> Entry:
        core = self._core
        async with core.change() as connection:
            package = await core.read(data)
            entry = core.entry(package.id)
            check(entry.id, entry.state, State.UPGRADING)
            check_upgrade(core.bare(entry, entry.sha256), package)
            decisions = carried_decisions(entry.current.manifest, entry.current.decisions, package.manifest)
            version = Version(package.sha256, package.version, package.signer, package.manifest, decisions)
            would_be = _with_version(entry, version)
            waits = bool(missing(package.manifest, decisions, core.now_s))
            if not waits and entry.state is State.ENABLED:
                await core.check_may_run(would_be, version)
            if dry_run:
                return would_be
            await core.admit("extension.upgrade", version, actor, trace_id, previous=entry.current.version)
            if waits:
                async with connection.transaction():
                    await core.store.add_version(connection, entry.id, version, data)
                    await core.store.amend(connection, entry.id, pending_sha256=version.sha256)
                    kept = [one for one in (entry.sha256, entry.previous, version.sha256) if one]
                    await core.store.drop_versions(connection, entry, kept)
            else:
                await self._versions.take(connection, Way(replace(would_be, pending=""), version, package=data))
        return core.entry(package.id)

    async def _rollback(self, extension_id: str, *, dry_run: bool) -> None:
        core = self._core
        async with core.change() as connection:
            entry = core.entry(extension_id)
            check(entry.id, entry.state, State.UPGRADING)
            way = await self._versions.check_back(entry)
            if entry.state is State.ENABLED:
                await core.check_may_run(entry, way.target)
            if not dry_run:
                await self._versions.take(connection, way)

    # ------------------------------------------------------------ on and off

    async def enable(
        self, extension_id: str, actor: Actor, *, empty_files: bool = False, dry_run: bool = False
    ) -> ExtensionDetail:
        """Start an extension. Raises: EnableFailed, and reasons not to try."""
        if empty_files and not dry_run:
            await self._core.whole(self._enable_emptied(extension_id))
        else:
            await self._core.whole(self._switching.enable(extension_id, dry_run=dry_run))
        return await self.show(extension_id)

    async def _enable_emptied(self, extension_id: str) -> None:
        """One that is enabled was stopped for it on this node, and is to come back whatever came of it."""
        try:
            await self._switching.enable(extension_id, empty_files=True)
        finally:
            await self._following.start_again(extension_id)

    async def disable(self, extension_id: str, actor: Actor, *, dry_run: bool = False) -> ExtensionDetail:
        """Let an extension finish, then stop it. Raises: NeededByOthers, ExtensionBusyWith."""
        reason = f"disabled by {actor.name}"
        await self._core.whole(self._switching.disable(extension_id, reason, dry_run=dry_run))
        return await self.show(extension_id)

    async def kill(self, extension_id: str, release: bool, actor: Actor) -> ExtensionPage:
        """The kill switch, for one extension or (empty id) for all; `release` takes that for all back.

        Raises: ExtensionUnknown; Unavailable when other nodes cannot be told, though it is done here.
        """
        if extension_id:
            self._core.entry(extension_id)
            await self._core.whole(self._switching.halt(extension_id, f"killed by {actor.name}", guard=False))
        elif self._core.registry.generation != NOTHING.generation:
            await self._core.whole(self._switching.stop_all(not release))
            await self._following.look()
        return await self.list()

    # ------------------------------------------------------------ rights

    async def approve(
        self,
        extension_id: str,
        capabilities: Sequence[str],
        confirm: str,
        actor: Actor,
        *,
        sha256: str = "",
        dry_run: bool = False,
    ) -> ExtensionDetail:
        """Grant what an extension, or its pending upgrade, asks for. Raises: what `Granting.approve` raises."""
        approval = self._granting.approve(
            extension_id, capabilities, confirm, actor.name, sha256=sha256, dry_run=dry_run
        )
        return await self._views.detail(await self._core.whole(approval))

    async def grant(self, wanted: GrantCapability, actor: Actor) -> ExtensionDetail:
        """Grant one capability, perhaps less than asked. Raises: GrantRefused, ConfirmationMissing."""
        await self._core.whole(self._granting.grant(wanted, actor.name))
        return await self.show(wanted.id)

    async def revoke(self, extension_id: str, capability: str, actor: Actor) -> ExtensionDetail:
        """Take a capability back, from the next call on. Raises: GrantRefused."""
        await self._core.whole(self._granting.revoke(extension_id, capability, actor.name))
        return await self.show(extension_id)

    async def configure(self, extension_id: str, values: Mapping[str, Any], actor: Actor) -> ExtensionDetail:
        """Set settings. Raises: SettingsRefused; those of the vault."""
        await self._core.whole(self._granting.configure(extension_id, values))
        return await self.show(extension_id)

    async def trust(self, public: str, label: str, remove: str, actor: Actor) -> TrustedKeys:
        """Show trusted keys; add one, or remove one and stop what it signed. Raises: KeyRefused, KeyUnknown."""
        if public:
            raw = parse_public(public)
            await self._make_tables()
            await self._core.whole(self._trust(raw, label))
        if remove:
            await self._core.whole(self._distrust(remove, actor))
        return self._views.keys()

    async def _trust(self, public: bytes, label: str) -> None:
        async with self._core.change() as connection, connection.transaction():
            await self._core.store.trust(connection, key_id(public), public, label)

    async def _distrust(self, key: str, actor: Actor) -> None:
        if key not in self._core.registry.keys:
            raise KeyUnknown(key)
        async with self._core.change() as connection, connection.transaction():
            await self._core.store.distrust(connection, key)
            signed = [entry for entry in self._core.registry.entries.values() if entry.current.signer == key]
            for entry in signed:
                if entry.pending:
                    await self._core.store.amend(connection, entry.id, pending_sha256="")
        for entry in signed:
            if entry.state is not State.INSTALLED:
                await self._switching.halt(entry.id, f"its key {key} was removed by {actor.name}", guard=False)

    # ------------------------------------------------------------ workers

    def _crashed(self, installed: Installed, ended: object) -> None:
        self._watching.crashed(installed, ended)

    def _escaped(self, installed: Installed, what: str) -> None:
        self._watching.escaped(installed, what)

    async def _make_tables(self) -> None:
        """The registry's tables, with the first trusted key."""
        await self._core.make_tables()
        if self._core.registry.generation == NOTHING.generation:
            await self._core.refresh()
            self._following.follow()


def _with_version(entry: Entry, version: Version) -> Entry:
    return replace(entry, versions={**entry.versions, version.sha256: version}, pending=version.sha256)
