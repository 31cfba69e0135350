"""How extensions come and go.

Installing unpacks files, which are named by their content and swept when nobody knows them, then writes everything else
(registry, grants, role, schema, rights) in one transaction: so there is no half of it. Removing is noted first, then
done in one transaction; a node that dies in between leaves the state `uninstalling`, and whoever looks next ends it.
Files go behind that transaction, on each node (`removals`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec.structs import replace

from magmobo.contracts.capabilities import Actor
from magmobo.contracts.events import ExtensionInstalled, ExtensionUninstalled
from magmobo.extensions.lifecycle.core import Core, reason_of
from magmobo.extensions.lifecycle.errors import AlreadyInstalled, DataOfAnother, StillHere
from magmobo.extensions.lifecycle.grants import first_decisions
from magmobo.extensions.lifecycle.records import Entry, Version
from magmobo.extensions.lifecycle.states import State, check
from magmobo.extensions.lifecycle.storage import Storage, guest_name, kept_name
from magmobo.extensions.package.format import Package
from magmobo.extensions.package.manifest import Requirements
from magmobo.extensions.package.requirements import resolve

if TYPE_CHECKING:
    from magmobo.extensions.lifecycle.store import Connection


class Installing:
    """Installs and uninstalls."""

    def __init__(self, core: Core, storage: Storage) -> None:
        self._core, self._storage = core, storage
        self._store = core.store

    async def install(self, data: bytes, actor: Actor, trace_id: str, *, dry_run: bool = False) -> Entry:
        """The extension as it is now, or would be.

        Raises: AlreadyInstalled, DataOfAnother, GuestsRefused, RequirementsUnmet, AuditUnavailable, and what
        `read_package` raises.
        """
        async with self._core.change() as connection:
            package = await self._core.read(data)
            entry = self._entry(package)
            await self._check(entry, package)
            if not dry_run:
                await self._core.admit("extension.install", entry.current, actor, trace_id)
                await self._install(connection, entry, package, data)
        if not dry_run:
            self._core.tell(ExtensionInstalled(extension_id=entry.id, version=package.version))
        return entry if dry_run else self._core.entry(entry.id)

    def _entry(self, package: Package) -> Entry:
        manifest = package.manifest
        version = Version(package.sha256, package.version, package.signer, manifest, first_decisions(manifest))
        return Entry(
            id=package.id, state=State.INSTALLED, resume=None, sha256=package.sha256, previous="", pending="",
            target="", guest=guest_name(manifest), since_s=self._core.now_s, detail="", halt_reason="",
            guarded=False, delete_data=False, watch_until_s=0.0, uid=0, folder="", versions={package.sha256: version},
            settings={}, secrets=(),
        )  # fmt: skip

    async def _check(self, entry: Entry, package: Package) -> None:
        registry, manifest = self._core.registry, package.manifest
        if entry.id in registry.damaged:
            self._core.entry(entry.id)
        if (there := registry.entries.get(entry.id)) is not None:
            raise AlreadyInstalled(entry.id, there.current.version)
        if (owner := registry.kept.get(entry.id, package.signer)) != package.signer:
            raise DataOfAnother(entry.id, owner)
        # Others that it needs may come later; the node stays what it is.
        alone = replace(manifest, requires=Requirements(magmobo=manifest.requires.magmobo))
        resolve({}, alone, node_version=self._core.ports.node_version)
        await self._storage.check(entry.guest)

    async def _install(self, connection: Connection, entry: Entry, package: Package, data: bytes) -> None:
        await asyncio.to_thread(self._core.unpack, package)
        version = entry.current
        async with connection.transaction():
            await self._store.add(connection, entry.id, version, entry.guest)
            await self._store.add_version(connection, entry.id, version, data)
            await self._storage.ensure(connection, entry.guest, package.manifest)
            await self._storage.give_rights(connection, entry.guest, self._core.bare(entry, entry.sha256))
            await self._store.announce(connection)

    # ------------------------------------------------------------ going

    async def uninstall(self, extension_id: str, *, delete_data: bool, dry_run: bool = False) -> None:
        """Remove an extension, or with `delete_data` what one that was removed left behind. Raises: StillHere,
        ExtensionBusyWith, GuestInUse and others of the database, and then it stays, in state `error`.
        """
        async with self._core.change() as connection:
            if extension_id in self._core.registry.damaged:
                await self._remove_damaged(connection, extension_id, delete_data=delete_data, dry_run=dry_run)
                return
            if delete_data and self._has_left(extension_id):
                await self._remove_kept(connection, extension_id, dry_run=dry_run)
                return
            entry = self._core.entry(extension_id)
            if entry.state is State.ENABLED:
                raise StillHere(extension_id)
            check(extension_id, entry.state, State.UNINSTALLING)
            if dry_run:
                return
            async with connection.transaction():
                await self._store.move(
                    connection, entry, State.UNINSTALLING, resume_state=entry.state, delete_data=delete_data
                )
            entry = replace(entry, state=State.UNINSTALLING, resume=entry.state, delete_data=delete_data)
            try:
                await self.finish_uninstalling(connection, entry)
            except Exception as error:
                await self._stay(connection, entry, error)
                raise

    async def finish_uninstalling(self, connection: Connection, entry: Entry) -> None:
        """From state `uninstalling` to nothing. Doing it again is fine."""
        await self._core.stage.kill(entry.id)
        await self._storage.let_go(entry.guest)
        keep_data = not entry.delete_data
        if not keep_data:
            await self._core.settings.forget(entry)
        async with connection.transaction():
            if keep_data:
                await self._core.ports.events.unfollow(connection, entry.id)
            else:
                await self._core.ports.events.forget(connection, entry.id)
            await self._storage.drop(connection, entry.guest, keep_schema=keep_data)
            await self._store.remove(connection, entry, keep_data=keep_data)
        reason = "its data stays" if keep_data else "with its data"
        self._core.tell(ExtensionUninstalled(extension_id=entry.id, version=entry.current.version, reason=reason))

    async def _stay(self, connection: Connection, entry: Entry, error: Exception) -> None:
        detail = f"was not removed: {reason_of(error)}"[:500]
        try:
            async with connection.transaction():
                await self._store.move(connection, entry, State.ERROR, resume_state="", detail=detail)
        except Exception as failure:  # the database went away; whoever looks next ends it
            error.add_note(f"Its state was not led back yet: {reason_of(failure)}.")

    def _has_left(self, extension_id: str) -> bool:
        return extension_id in self._core.registry.kept and extension_id not in self._core.registry.entries

    async def _remove_kept(self, connection: Connection, extension_id: str, *, dry_run: bool) -> None:
        if dry_run:
            return
        async with connection.transaction():
            await self._core.ports.events.forget(connection, extension_id)
            await self._storage.drop(connection, kept_name(extension_id), keep_schema=False)
            await self._store.remove_kept(connection, extension_id)
        self._core.tell(
            ExtensionUninstalled(extension_id=extension_id, version="", reason="its kept data is gone, too")
        )

    async def _remove_damaged(
        self, connection: Connection, extension_id: str, *, delete_data: bool, dry_run: bool
    ) -> None:
        """By its id alone: what its rows would say is not believed, not even who signed it. So data that stays is
        nobody's, until it is removed.
        """
        if dry_run:
            return
        await self._core.stage.kill(extension_id)
        await self._storage.let_go(kept_name(extension_id))
        async with connection.transaction():
            await self._core.ports.events.unfollow(connection, extension_id)
            await self._store.remove_damaged(connection, extension_id)
            if delete_data:
                await self._remove_kept(connection, extension_id, dry_run=False)
