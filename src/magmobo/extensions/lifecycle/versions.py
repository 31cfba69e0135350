"""From one version of an extension to another, forward or back, while it serves.

The way forward: storage for both, migrations up, the new version beside the old one, well, in its place, noted, the old
one drained. The way back: the former version in its place first, then migrations down. What is noted in the registry in
one transaction (`_commit`) decides: before it everything is led back, behind it only cleaning is left. A node that dies
on the way leaves the state `upgrading`, from which `lead_back` brings the version that counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from magmobo.contracts.errors import MagError
from magmobo.contracts.events import ExtensionUpgraded
from magmobo.extensions.installed import Installed
from magmobo.extensions.lifecycle.core import Core, reason_of
from magmobo.extensions.lifecycle.errors import NoWayBack, UpgradeFailed
from magmobo.extensions.lifecycle.ports import Worker
from magmobo.extensions.lifecycle.records import Entry, Version
from magmobo.extensions.lifecycle.states import State
from magmobo.extensions.lifecycle.storage import Storage, guest_name
from magmobo.extensions.package.format import Package

if TYPE_CHECKING:
    from magmobo.extensions.lifecycle.store import Connection


class Way(Struct, frozen=True):
    """Which version leads to which. `package`: of a target that is not noted yet; `back`: to the one before; `reason`:
    why the plane does it by itself, empty when somebody asked; `one_way`: storage stays as it is, because it cannot be
    undone.
    """

    entry: Entry
    target: Version
    package: bytes = b""
    back: bool = False
    reason: str = ""
    one_way: bool = False


class VersionChange:
    """Takes the way. Callers hold the turn and the lock."""

    def __init__(self, core: Core, storage: Storage) -> None:
        self._core, self._storage = core, storage
        self._store, self._stage = core.store, core.stage

    async def check_back(self, entry: Entry) -> Way:
        """The way to the version before. Raises: NoWayBack, and what `unpacked` raises."""
        if not entry.previous:
            raise NoWayBack(entry.id, "no version before is kept")
        package, _ = await self._core.unpacked(entry, entry.previous)
        if blocked := await self._one_way(entry, package):
            raise NoWayBack(entry.id, f"its migration {blocked[0]} cannot be undone")
        return Way(entry, entry.versions[entry.previous], back=True)

    async def way_back_now(self, entry: Entry, reason: str) -> Way:
        """The same when staying is worse: storage that cannot be undone stays, the former version lived with it while
        the upgrade was under way. Raises: NoWayBack.
        """
        if not entry.previous:
            raise NoWayBack(entry.id, "there is no version before")
        package, _ = await self._core.unpacked(entry, entry.previous)
        one_way = bool(await self._one_way(entry, package))
        return Way(entry, entry.versions[entry.previous], back=True, reason=reason, one_way=one_way)

    async def take(self, connection: Connection, way: Way) -> None:
        """Bring the extension to the target.

        Raises: UpgradeFailed, and then it is as it was.
        """
        entry, target = way.entry, way.target
        old_worker: Worker | None = None
        new_worker: Worker | None = None
        entry = await self._begin(connection, entry, way)
        way = replace(way, entry=entry)
        try:
            package, code_dir = await self._core.unpacked(entry, target.sha256)
            installed = await self._prepare(connection, way, package, code_dir)
            if entry.resume is State.ENABLED:
                new_worker = await self._core.started(entry, installed)
                old_worker = await self._stage.swap(new_worker)
            if way.back and not way.one_way:
                await self._storage.migrate_back(installed, package.migrations)
            await self._commit(connection, way, installed)
        except BaseException as error:
            await self._undo(connection, entry, old_worker, new_worker, error)
            if isinstance(error, Exception):
                raise UpgradeFailed(entry.id, target.version, reason_of(error)) from error
            raise
        await self._finish(way, old_worker)

    async def lead_back(self, connection: Connection, entry: Entry, detail: str) -> None:
        """Bring the storage of an extension in state `upgrading` to the version that counts, and its state back.

        Raises: what the database raises; the state stays for another try then.
        """
        detail = await self._settled(entry, detail)
        came = "" if entry.guest else guest_name(entry.versions[entry.target].manifest)
        await self._storage.let_go(came)
        async with connection.transaction():
            await self._storage.take_rights(connection, entry.guest, self._core.bare(entry, entry.sha256))
            await self._storage.drop(connection, came, keep_schema=False)
            await self._store.move(
                connection, entry, entry.resume or State.DISABLED, resume_state="", target_sha256="", detail=detail
            )
            await self._store.drop_versions(connection, entry, _kept(entry.sha256, entry.previous, entry.pending))

    async def _settled(self, entry: Entry, detail: str) -> str:
        """The schema as the version that counts has it, or in words why it is not."""
        try:
            package, _ = await self._core.unpacked(entry, entry.sha256)
            if guest_name(package.manifest):
                version = self._core.bare(entry, entry.sha256)
                if not await self._storage.one_way(version, package.migrations):
                    await self._storage.settle(version, package.migrations)
                else:
                    detail += "; its storage keeps what cannot be undone"
        except MagError as error:
            if error.retryable:
                raise
            return f"{detail}; its storage is not as {entry.current.version} left it: {reason_of(error)}"
        return detail

    # ------------------------------------------------------------ steps

    async def _one_way(self, entry: Entry, target: Package) -> Sequence[str]:
        return await self._storage.one_way(self._core.bare(entry, entry.sha256), target.migrations)

    async def _begin(self, connection: Connection, entry: Entry, way: Way) -> Entry:
        """The journal: from here on somebody else can see what was under way. An approved upgrade that does not come up
        goes on to be pending.
        """
        target = way.target
        pending = entry.pending if entry.pending == target.sha256 else ""
        async with connection.transaction():
            if way.package:
                await self._store.add_version(connection, entry.id, target, way.package)
            await self._store.move(
                connection,
                entry,
                State.UPGRADING,
                resume_state=entry.state,
                target_sha256=target.sha256,
                pending_sha256=pending,
            )
        return replace(entry, state=State.UPGRADING, resume=entry.state, target=target.sha256, pending=pending)

    async def _prepare(self, connection: Connection, way: Way, package: Package, code_dir: Path) -> Installed:
        """Storage in which both versions can work."""
        entry, sha256 = way.entry, way.target.sha256
        guest = entry.guest or guest_name(package.manifest)
        if entry.resume is State.ENABLED:
            installed = await self._core.installed(entry, sha256, code_dir, guest)
        else:
            installed = self._core.bare(entry, sha256, guest)
        async with connection.transaction():
            await self._storage.ensure(connection, guest, package.manifest)
            await self._storage.give_rights(connection, guest, self._core.bare(entry, entry.sha256, guest), installed)
        if not way.back and entry.resume is State.ENABLED:
            await self._storage.migrate_up(installed, package.migrations)
        return installed

    async def _commit(self, connection: Connection, way: Way, installed: Installed) -> None:
        """What counts from now on."""
        entry, core = way.entry, self._core
        watch_s = 0.0 if way.back else core.ports.config().upgrade_watch_s
        previous = "" if way.back else entry.sha256
        async with connection.transaction():
            await self._storage.give_rights(connection, installed.guest, installed)
            await self._store.commit_running(
                connection,
                entry,
                entry.resume or State.DISABLED,
                resume_state="",
                sha256=installed.sha256,
                previous_sha256=previous,
                pending_sha256="",
                target_sha256="",
                guest=installed.guest,
                detail=way.reason,
            )
            await self._store.watch(connection, entry.id, core.now_s + watch_s if watch_s else None)
            await self._store.drop_versions(connection, entry, _kept(installed.sha256, previous))

    async def _finish(self, way: Way, old_worker: Worker | None) -> None:
        entry, target = way.entry, way.target
        if old_worker is not None:
            await old_worker.drain(self._core.ports.config().drain_s)
        self._core.tell(
            ExtensionUpgraded(
                extension_id=entry.id, version=target.version, previous=entry.current.version, reason=way.reason
            )
        )

    async def _undo(
        self, connection: Connection, entry: Entry, old: Worker | None, new: Worker | None, error: BaseException
    ) -> None:
        """The former version in its place, the storage as it was. Where the database does not answer, whoever looks
        next leads it back.
        """
        try:
            if old is not None:
                await self._stage.swap(old)
            elif new is not None and self._stage.has(new.installed):
                await self._stage.kill(entry.id)
        finally:
            if new is not None:
                new.kill()
        try:
            await self.lead_back(connection, entry, f"{entry.versions[entry.target].version}: {reason_of(error)}"[:500])
        except Exception as failure:  # of the database or its driver, while an error is on its way
            error.add_note(f"It was not led back yet: {reason_of(failure)}.")


def _kept(*digests: str) -> Sequence[str]:
    return [one for one in digests if one]
