"""What every change of extensions works with: the registry as last read, the turn to change it, a version made ready.

Invariant: a change holds this node's turn and the database's lock from its first look to its last word, so that a state
of the journal found under the lock was left behind by somebody who is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.errors import MagError
from magmobo.contracts.events import Event
from magmobo.extensions.installed import Installed
from magmobo.extensions.lifecycle.errors import (
    ExtensionUnknown,
    LifecycleBusy,
    NotApproved,
    PlaneStopped,
    RegistryDamaged,
    SignerNotTrusted,
    TierTooLow,
)
from magmobo.extensions.lifecycle.grants import effective, missing
from magmobo.extensions.lifecycle.leftovers import remove_tree
from magmobo.extensions.lifecycle.ownsecrets import OwnSecrets
from magmobo.extensions.lifecycle.ports import Ports, Worker
from magmobo.extensions.lifecycle.records import NOTHING, Entry, Gone, Registry, Version
from magmobo.extensions.lifecycle.removals import Removals
from magmobo.extensions.lifecycle.schema import NAMESPACE
from magmobo.extensions.lifecycle.settings import Settings
from magmobo.extensions.lifecycle.stage import Stage
from magmobo.extensions.lifecycle.store import LOCK_WAIT_S, Store
from magmobo.extensions.package.errors import SignerUnknown
from magmobo.extensions.package.format import Package, read_package
from magmobo.extensions.package.requirements import resolve
from magmobo.extensions.package.unpacked import sweep, unpack
from magmobo.extensions.premises import DATA

if TYPE_CHECKING:
    from magmobo.extensions.lifecycle.store import Connection

T = TypeVar("T")
PLANE_ACTOR = Actor(name="extensions", role=Role.ADMIN, via="kernel")
"""Who acts when nobody asked."""


class Core:
    """Shared by everything that changes extensions on this node."""

    def __init__(self, ports: Ports, stage: Stage) -> None:
        self.ports, self.stage = ports, stage
        self.store = Store(ports.database, ports.hide)
        self._secrets = OwnSecrets(ports.vault)
        self.settings = Settings(self._secrets)
        self.removals = Removals(
            ports, self.store, place=self.kept_at, note=self.note, forget_secrets=self._forget_secrets
        )
        self.registry: Registry = NOTHING
        self.turn = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()

    # ------------------------------------------------------------ turns

    @asynccontextmanager
    async def change(self, *, wait_s: float = LOCK_WAIT_S) -> AsyncIterator[Connection]:
        """A connection, alone: the registry is as the database has it, and is read again behind the block; then files
        of versions that are gone go too.

        Raises: LifecycleBusy, Unavailable.
        """
        try:
            async with asyncio.timeout(wait_s):
                await self.turn.acquire()
        except TimeoutError:
            raise LifecycleBusy from None
        try:
            async with self.store.locked(wait_s=wait_s) as connection:
                await self.refresh(connection)
                try:
                    yield connection
                finally:
                    # Where the database went away meanwhile, that is the error which counts.
                    with suppress(MagError, OSError, *_database_errors()):
                        await self.refresh(connection)
                        await self.sweep_files()
        finally:
            self.turn.release()

    async def make_tables(self) -> None:
        """Bring the registry's tables to what this node knows. Raises: MigrationFailed and others."""
        await self.ports.migrations.up(NAMESPACE, self.ports.tables)

    async def refresh(self, connection: Connection | None = None) -> None:
        """Read the registry again; of what is not in it any more, nothing goes on here. Raises: Unavailable."""
        before, self.registry = self.registry, await self.store.load(connection)
        for entry in before.entries.values():
            if self.registry.is_without(entry):
                await self.stage.kill(entry.id)
                self.ports.forget(entry.id)

    async def whole(self, change: Coroutine[Any, Any, T]) -> T:
        """Run a change to its end, also when whoever asked does not wait for it any more."""
        task = asyncio.create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def settle(self) -> None:
        """Cancel what is under way and wait until it is undone."""
        for task in self._changes:
            task.cancel()
        await asyncio.gather(*self._changes, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._changes.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.ports.log.info("extensions.change_failed", error=str(error))

    # ------------------------------------------------------------ looking

    @property
    def now_s(self) -> float:
        """Wall time."""
        return self.ports.clock.time_s()

    def entry(self, extension_id: str) -> Entry:
        """Raises: ExtensionUnknown, RegistryDamaged."""
        if (reason := self.registry.damaged.get(extension_id)) is not None:
            raise RegistryDamaged(extension_id, reason)
        entry = self.registry.entries.get(extension_id)
        if entry is None:
            raise ExtensionUnknown(extension_id)
        return entry

    async def read(self, data: bytes) -> Package:
        """A package by a trusted signer. Raises: what `read_package` raises."""
        return await asyncio.to_thread(read_package, data, self.registry.public_keys)

    async def check_may_run(self, entry: Entry, version: Version) -> None:
        """That this version may be started here and now, beside what is enabled.

        Raises: PlaneStopped, SignerNotTrusted, NotApproved, TierTooLow, RequirementsUnmet.
        """
        if self.registry.stopped:
            raise PlaneStopped
        if version.signer not in self.registry.keys:
            raise SignerNotTrusted(entry.id, version.signer)
        if wanting := missing(version.manifest, version.decisions, self.now_s):
            raise NotApproved(entry.id, wanting)
        await self.check_tier(version)
        resolve(self.registry.enabled_manifests(), version.manifest, node_version=self.ports.node_version)

    async def check_tier(self, version: Version) -> None:
        """That this machine's sandbox is good enough. Raises: TierTooLow."""
        config, tier = self.ports.config(), await self.ports.tier()
        wanted = max(config.min_tier, version.manifest.min_tier)
        if tier < wanted and not (tier == "S0" and config.allow_unsandboxed):
            raise TierTooLow(version.manifest.id, tier, wanted)

    # ------------------------------------------------------------ a version made ready

    async def unpacked(self, entry: Entry, sha256: str) -> tuple[Package, Path]:
        """A version's package, verified anew, and the folder of its files, made where they are not there.

        Raises: SignerNotTrusted, RegistryDamaged, UnpackFailed.
        """
        try:
            package = await self.read(await self.store.package(sha256))
        except SignerUnknown as error:
            raise SignerNotTrusted(entry.id, error.key_id) from error
        if (package.id, package.sha256) != (entry.id, sha256):
            raise RegistryDamaged(entry.id, f"the package of {sha256[:12]} is another one")
        return package, await asyncio.to_thread(self.unpack, package)

    def unpack(self, package: Package) -> Path:
        """The folder of a package's files, made if it is not there; blocks. Raises: UnpackFailed, PremisesRefused."""
        return unpack(package, self.ports.premises.root())

    async def installed(self, entry: Entry, sha256: str, code_dir: Path, guest: str = "") -> Installed:
        """A version as the running plane knows it. `guest`: when it is to get storage that `entry` has not yet.

        Raises: SettingsRefused when it lacks settings, and what the vault raises.
        """
        version = entry.versions[sha256]
        return Installed(
            id=entry.id,
            version=version.version,
            sha256=sha256,
            manifest=version.manifest,
            code_dir=code_dir,
            signer=version.signer,
            guest=guest or entry.guest,
            grants=effective(version.manifest, version.decisions, self.now_s),
            settings=await self.settings.resolved(entry, version.manifest),
        )

    def bare(self, entry: Entry, sha256: str, guest: str = "") -> Installed:
        """The same for those who ask only what it may do: without files and settings."""
        version = entry.versions[sha256]
        return Installed(
            id=entry.id, version=version.version, sha256=sha256, manifest=version.manifest,
            code_dir=Path(), signer=version.signer, guest=guest or entry.guest,
            grants=effective(version.manifest, version.decisions, self.now_s),
        )  # fmt: skip

    def data_dir(self, entry: Entry) -> Path:
        """Where an extension keeps files on this node, if it may; blocks. Raises: PremisesRefused."""
        return _own_folder(self.ports.premises.root(), entry)

    def kept_at(self, gone: Entry | Gone) -> Path:
        """Where files of an extension are if it has any on this node; blocks."""
        return _own_folder(self.ports.premises.known(), gone)

    async def started(self, entry: Entry, installed: Installed) -> Worker:
        """A worker of a version, ready and well, not in place. What a removed extension of this name left behind here
        goes now. Raises: MagError, OSError.
        """
        mine = await asyncio.to_thread(self.data_dir, entry)
        await self.removals.clear_beside(entry.id, mine)
        return await self.stage.started(installed, uid=entry.uid, data_dir=mine)

    async def empty_data(self, entry: Entry) -> None:
        """Remove files of an extension on this node; its worker has ended. Raises: PremisesRefused, OSError."""
        await asyncio.to_thread(lambda: remove_tree(self.data_dir(entry)))

    async def _forget_secrets(self, gone: Sequence[Gone]) -> None:
        await self._secrets.forget_gone(gone, self.registry.knows)

    async def sweep_files(self) -> None:
        """Remove files of versions that nobody knows; what extensions kept and its secrets follow soon."""
        self.removals.wake()
        try:
            digests = self.registry.digests()
            await asyncio.to_thread(lambda: sweep(self.ports.premises.known(), digests))
        except MagError as error:
            self.ports.log.warning("extensions.files_stay", error=str(error))

    # ------------------------------------------------------------ telling

    def tell(self, event: Event) -> None:
        """Say it on the bus."""
        self.ports.bus.emit(event)

    async def admit(self, action: str, version: Version, actor: Actor, trace_id: str, *, previous: str = "") -> None:
        """Put on record which package a command brings, once that is known and before anything comes of it; the record
        of the command itself has the digest alone. `previous`: the version that it follows.

        Raises: AuditUnavailable.
        """
        payload = {
            "command": action.replace(".", ":"),
            "phase": "package",
            "extension": version.manifest.id,
            "version": version.version,
            "signer": version.signer,
            "sha256": version.sha256,
            "tier": await self.ports.tier(),
        }
        said = payload | {"previous": previous} if previous else payload
        await self.ports.audit.record(action, actor=actor, payload=said, trace_id=trace_id)

    async def note(self, extension_id: str, what: str, **facts: Any) -> None:
        """Record what the plane did by itself. Protecting the node does not wait for a disk."""
        payload: Mapping[str, Any] = {"extension": extension_id, "what": what, **facts}
        self.ports.log.warning(f"extension.{what}", extension=extension_id, **facts)
        try:
            await self.ports.audit.record("extension.lifecycle", actor=PLANE_ACTOR, payload=payload)
        except MagError as error:
            self.ports.log.warning("extensions.not_recorded", what=what, error=str(error))


def _own_folder(root: Path, of: Entry | Gone) -> Path:
    return root / DATA / f"{of.id}.{of.folder}"


def reason_of(error: BaseException) -> str:
    """An error in one line, bounded, with its code where it has one."""
    text = " ".join(str(error).split())[:400] or type(error).__name__
    return f"{text} [{error.code}]" if isinstance(error, MagError) else text


def _database_errors() -> tuple[type[Exception], ...]:
    import psycopg

    return (psycopg.Error,)
