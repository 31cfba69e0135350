"""Switching extensions on and off: by operators, and by the plane when one must not go on.

Switching off never waits: the worker ends first, then the registry is told (`halt`, which takes no lock), then the
state follows. What the plane stopped by itself keeps its place at hooks that fail closed, so that an attacker who can
crash a guard has not removed it; an operator's `disable` or `kill` takes it away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from magmobo.contracts.errors import MagError, Unavailable
from magmobo.contracts.events import ExtensionDisabled, ExtensionEnabled
from magmobo.extensions.lifecycle.core import Core, reason_of
from magmobo.extensions.lifecycle.errors import (
    EnableFailed,
    LifecycleBusy,
    NeededByOthers,
    PlaneStopped,
    TooManyExtensions,
)
from magmobo.extensions.lifecycle.records import Entry
from magmobo.extensions.lifecycle.states import State, check
from magmobo.extensions.lifecycle.storage import Storage
from magmobo.extensions.package.requirements import dependents

if TYPE_CHECKING:
    from magmobo.extensions.lifecycle.store import Connection

HALT_WAIT_S = 2.0
"""How long a halt waits for its turn to change the state too; whoever looks next does it else."""


class Switching:
    """Enables, disables and halts."""

    def __init__(self, core: Core, storage: Storage) -> None:
        self._core, self._storage = core, storage
        self._store, self._stage = core.store, core.stage
        self._unsaid: dict[str, tuple[str, bool]] = {}

    # ------------------------------------------------------------ on

    async def enable(self, extension_id: str, *, empty_files: bool = False, dry_run: bool = False) -> None:
        """Start an extension. One that is enabled is left as it is, unless it is to begin without its files: then it is
        stopped on this node, for `Following` to start.

        Raises: EnableFailed, and then it is as it was; NotApproved, TierTooLow and other reasons not to try.
        """
        async with self._core.change() as connection:
            entry = self._core.entry(extension_id)
            if self._core.registry.stopped:
                raise PlaneStopped
            if entry.state is State.ENABLED and not entry.halt_reason:
                if empty_files and not dry_run:
                    await self._stage.stop(entry.id, guard=True)
                    await self._empty(entry)
                return
            check(entry.id, entry.state, State.ENABLING)
            await self._core.check_may_run(entry, entry.current)
            if len(self._core.registry.enabled_manifests()) >= (limit := self._core.ports.config().max_workers):
                raise TooManyExtensions(limit)
            if not dry_run:
                await self._stage.stop(
                    entry.id, guard=True
                )  # another node disabled it, which was not followed here yet
                if empty_files:
                    await self._empty(entry)
                await self._enable(connection, entry)

    async def _empty(self, entry: Entry) -> None:
        """Remove its files on this node. Raises: EnableFailed, PremisesRefused."""
        try:
            await self._core.empty_data(entry)
        except OSError as error:
            raise EnableFailed(entry.id, f"its files cannot be removed: {error.strerror}") from error

    async def _enable(self, connection: Connection, entry: Entry) -> None:
        async with connection.transaction():
            await self._store.move(connection, entry, State.ENABLING, resume_state=entry.state, halt_reason="")
        self._unsaid.pop(entry.id, None)
        entry = replace(entry, state=State.ENABLING, resume=entry.state)
        try:
            await self._bring_up(connection, entry)
            async with connection.transaction():
                await self._store.commit_running(
                    connection, entry, State.ENABLED, resume_state="", detail="", guarded=False
                )
        except BaseException as error:
            await self._stage.kill(entry.id)
            if entry.guarded:
                self._stage.guard(self._core.bare(entry, entry.sha256))
            await self._back_to_rest(connection, entry, error)
            if isinstance(error, Exception):
                raise EnableFailed(entry.id, reason_of(error)) from error
            raise
        self._core.tell(ExtensionEnabled(extension_id=entry.id, version=entry.current.version))

    async def _bring_up(self, connection: Connection, entry: Entry) -> None:
        package, code_dir = await self._core.unpacked(entry, entry.sha256)
        installed = await self._core.installed(entry, entry.sha256, code_dir)
        async with connection.transaction():
            await self._storage.ensure(connection, entry.guest, package.manifest)
            await self._storage.give_rights(connection, entry.guest, installed)
        await self._storage.migrate_up(installed, package.migrations)
        await self._stage.put(await self._core.started(entry, installed))

    async def _back_to_rest(self, connection: Connection, entry: Entry, error: BaseException) -> None:
        detail = f"did not start: {reason_of(error)}"[:500]
        try:
            async with connection.transaction():
                await self._store.move(
                    connection, entry, entry.resume or State.DISABLED, resume_state="", detail=detail, halt_reason=""
                )
        except Exception as failure:  # the database went away; whoever looks next leads it back
            error.add_note(f"Its state was not led back yet: {reason_of(failure)}.")

    # ------------------------------------------------------------ off

    async def disable(self, extension_id: str, reason: str, *, dry_run: bool = False) -> None:
        """Let an extension finish and stop it. Also takes away what still holds its place at hooks.

        Raises: NeededByOthers, ExtensionBusyWith.
        """
        async with self._core.change() as connection:
            entry = self._core.entry(extension_id)
            if entry.state is State.DISABLED:
                if entry.guarded and not dry_run:
                    await self._store.amend(connection, entry.id, guarded=False, detail=reason)
                    self._stage.unguard(entry.id)
                return
            check(entry.id, entry.state, State.DISABLING)
            enabled = self._core.registry.enabled_manifests()
            if others := dependents(enabled, entry.id):
                raise NeededByOthers(entry.id, others)
            if not dry_run:
                await self._disable(connection, entry, reason, guarded=False)

    async def _disable(self, connection: Connection, entry: Entry, reason: str, *, guarded: bool) -> None:
        async with connection.transaction():
            await self._store.move(connection, entry, State.DISABLING, detail=reason, guarded=guarded)
        await self._stage.stop(entry.id, guard=guarded)
        await self.finish_disabling(connection, replace(entry, state=State.DISABLING))
        self._core.tell(ExtensionDisabled(extension_id=entry.id, version=entry.current.version, reason=reason))

    async def finish_disabling(self, connection: Connection, entry: Entry) -> None:
        """The worker is gone."""
        await self._storage.let_go(entry.guest)
        async with connection.transaction():
            await self._store.move(connection, entry, State.DISABLED, halt_reason="", resume_state="")

    async def halt(self, extension_id: str, reason: str, *, guard: bool) -> None:
        """End it now, on every node, and keep it stopped. `guard`: its hooks that fail closed go on to deny.

        Raises: Unavailable when other nodes cannot be told yet; this one has ended it, and goes on to tell them.
        """
        self._unsaid[extension_id] = reason, guard
        await self._stage.kill(extension_id, guard=guard)
        await self.say_halted(extension_id)
        try:
            async with self._core.change(wait_s=HALT_WAIT_S) as connection:
                await self.settle_halted(connection)
        except LifecycleBusy:
            return

    def is_halted(self, extension_id: str) -> bool:
        """Whether this node has halted it and could not tell the database yet."""
        return extension_id in self._unsaid

    async def say_halted(self, extension_id: str) -> None:
        """Tell the database of a halt. Raises: Unavailable."""
        reason, guard = self._unsaid[extension_id]
        async with self._store.session() as connection, connection.transaction():
            await self._store.halt(connection, extension_id, reason[:500] or "halted", guarded=guard)
        self._unsaid.pop(extension_id, None)

    async def say_all_halted(self) -> None:
        """Try again what could not be told."""
        for extension_id in list(self._unsaid):
            try:
                await self.say_halted(extension_id)
            except Unavailable:
                return

    async def settle_halted(self, connection: Connection) -> None:
        """Bring the state of everything that is halted to rest. Callers hold the turn and the lock."""
        for entry in self._core.registry.entries.values():
            if not entry.halt_reason or entry.state is not State.ENABLED:
                continue
            try:
                await self._disable(connection, entry, entry.halt_reason, guarded=entry.guarded)
            except MagError as error:
                self._core.ports.log.warning("extension.not_at_rest", extension=entry.id, error=str(error))

    # ------------------------------------------------------------ all

    async def stop_all(self, stopped: bool) -> None:
        """The kill switch for all."""
        if stopped:
            await self._stage.kill_all()
        async with self._store.session() as connection, connection.transaction():
            await self._store.stop_all(connection, stopped)
