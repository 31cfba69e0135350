"""This node as the registry wants it: workers of what is enabled, none of what is not; also after other nodes.

The registry's generation is read every `FOLLOW_EVERY_S`; where it is another one, or something did not come up, this
node is brought to it. Invariant: nothing here changes what is wanted, except that what a dead node left is led back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from magmobo.contracts.bus import Subscription
from magmobo.contracts.errors import MagError
from magmobo.contracts.events import DatabaseSchemaChanged, Envelope, ExtensionError
from magmobo.extensions.lifecycle.core import Core, reason_of
from magmobo.extensions.lifecycle.errors import EnableFailed, LifecycleBusy
from magmobo.extensions.lifecycle.granting import Granting
from magmobo.extensions.lifecycle.records import NOTHING, Entry
from magmobo.extensions.lifecycle.recovery import Recovery
from magmobo.extensions.lifecycle.states import State
from magmobo.extensions.lifecycle.switching import Switching

FOLLOW_EVERY_S = 1.0
TRY_AGAIN_S = (1.0, 5.0, 25.0, 60.0)
"""Pauses between tries to start one that did not come up on this node."""
AT_ONCE = 4
"""Workers that start at the same time."""
START_WAIT_S = 10.0
"""How long a node's start waits for its extensions; those that take longer come when they come."""
START_LOCK_S, RECOVER_WAIT_S = 2.0, 0.2
"""How long for another node's change to end; what that node does is followed else."""


class Following:
    """Keeps this node as the registry wants it. `problems` says why something enabled does not run here."""

    def __init__(self, core: Core, switching: Switching, granting: Granting, recovery: Recovery) -> None:
        self._core, self._switching, self._granting, self._recovery = core, switching, granting, recovery
        self._stage = core.stage
        self._failed: dict[str, tuple[int, float]] = {}
        self.problems: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None
        self._coming: asyncio.Task[None] | None = None
        self._hearing: Subscription | None = None
        self._adopted = NOTHING.generation  # a change of ours reads the registry too, and adopts only what it changed

    async def boot(self) -> bool:
        """Hold the places of what is enabled, before anything serves. Whether there is a registry."""
        if not await self._core.store.exists():
            return False
        await self._core.make_tables()  # this node may know more of them than the one that made them
        await self._core.refresh()
        registry = self._core.registry
        for extension_id, reason in registry.damaged.items():
            self._core.ports.log.error("extension.damaged", extension=extension_id, reason=reason)
        if not registry.stopped:
            for entry in registry.entries.values():
                if entry.may_run or entry.guarded or entry.state is State.UPGRADING:
                    self._stage.guard(self._core.bare(entry, entry.sha256))
        return True

    async def start(self) -> None:
        """Lead back what is half done, then start what is enabled; goes on to follow."""
        if self._core.registry.generation != NOTHING.generation:
            try:
                async with self._core.change(wait_s=START_LOCK_S) as connection:
                    await self._recovery.recover(connection)
            except LifecycleBusy:
                pass  # another node is at it, and will be followed
            self._coming = asyncio.create_task(self._take_turn())
            self._coming.add_done_callback(_retrieve)
            await asyncio.wait([self._coming], timeout=START_WAIT_S)
        self.follow()

    def follow(self) -> None:
        """Begin to follow; for a database without a registry, when its schema changes."""
        if self._core.registry.generation == NOTHING.generation:
            if self._hearing is None:
                self._hearing = self._core.ports.bus.on(DatabaseSchemaChanged, self._schema_changed)
        elif self._task is None:
            self._task = self._core.ports.spawn(self._follow(), "extension_follow")

    async def stop(self) -> None:
        """Follow no more."""
        if self._hearing is not None:
            self._hearing.cancel()
            self._hearing = None
        tasks = [task for task in (self._task, self._coming) if task is not None]
        self._task = self._coming = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _schema_changed(self, _: Envelope[DatabaseSchemaChanged]) -> None:
        if self._task is None and self._core.registry.generation == NOTHING.generation:
            try:
                await self._core.refresh()
            except MagError:
                return  # the next change of the schema asks again
            self.follow()

    async def start_again(self, extension_id: str) -> None:
        """Start one that should run here and does not, without waiting for its time. Raises: EnableFailed."""
        if extension_id in self._stage.running:
            return
        self._failed[extension_id] = 0, 0.0  # so that it is tried again, also where this comes to nothing
        await self._take_turn()
        if (problem := self.problems.get(extension_id)) is not None:
            raise EnableFailed(extension_id, problem)

    async def _follow(self) -> None:
        away = False
        while True:
            await self._core.ports.clock.sleep(FOLLOW_EVERY_S)
            try:
                await self.look()
            except Exception as error:  # a database that is away, or not as it should be: it is looked at again
                if not away:
                    self._core.ports.log.warning("extensions.not_followed", error=reason_of(error))
                away = True
            else:
                away = False

    async def look(self) -> None:
        """Once: bring this node to what the registry says now. Raises: Unavailable."""
        await self._switching.say_all_halted()
        if self._core.turn.locked():
            return  # a change of this node is under way; what it leaves is looked at next time
        if await self._core.store.generation() != self._adopted or self._due():
            await self._take_turn()
        await self._granting.end_expired()
        if self._recovery.is_needed():
            await self._recover()

    async def _recover(self) -> None:
        try:
            async with self._core.change(wait_s=RECOVER_WAIT_S) as connection:
                await self._recovery.recover(connection)
                await self.adopt()
        except LifecycleBusy:
            return  # whoever is at it lives

    async def _take_turn(self) -> None:
        async with self._core.turn:
            await self._core.refresh()
            await self.adopt()
            await self._core.sweep_files()

    async def adopt(self) -> None:
        """Bring this node's workers to what the registry says. Callers hold the turn."""
        registry = self._core.registry
        wanted = (
            {} if registry.stopped else {entry.id: entry for entry in registry.entries.values() if self._runs(entry)}
        )
        if registry.stopped:
            await self._stage.kill_all()
        for extension_id in [one for one in self._stage.running if one not in wanted]:
            await self._end(extension_id)
        for extension_id in self._failed.keys() - wanted.keys():
            self._forget_failure(extension_id)
        self._follow_guards(wanted)
        for entry in wanted.values():
            running = self._stage.running.get(entry.id)
            if running is not None and running.installed.sha256 == entry.sha256:
                await self._granting.adopt(entry)
        self._adopted = registry.generation
        gate = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._bring_up(entry, gate) for entry in self._to_start(wanted.values())))

    def _runs(self, entry: Entry) -> bool:
        """Also one that another node is changing: its version of now goes on here until that is done."""
        going_on = entry.state is State.UPGRADING and entry.resume is State.ENABLED and entry.id in self._stage.running
        return (entry.may_run or (going_on and not entry.halt_reason)) and not self._switching.is_halted(entry.id)

    async def _end(self, extension_id: str) -> None:
        """By what the registry says of it: halted ones at once, others may finish."""
        entry = self._core.registry.entries.get(extension_id)
        if entry is None or entry.halt_reason:
            await self._stage.kill(extension_id, guard=entry is not None and entry.guarded)
        else:
            await self._stage.stop(extension_id, guard=entry.guarded)

    def _follow_guards(self, wanted: dict[str, Entry]) -> None:
        """Places of those that the plane stopped are held, those that operators stopped are not."""
        registry = self._core.registry
        for entry in registry.entries.values():
            if entry.id in wanted or entry.id in self._stage.running:
                continue
            if entry.guarded and not registry.stopped:
                self._stage.guard(self._core.bare(entry, entry.sha256))
            elif not self._switching.is_halted(entry.id):
                self._stage.unguard(entry.id)

    def _to_start(self, wanted: Iterable[Entry]) -> list[Entry]:
        now_s = self._core.ports.clock.monotonic_s()
        found = []
        for entry in wanted:
            running = self._stage.running.get(entry.id)
            if running is not None and running.installed.sha256 == entry.sha256:
                continue
            if self._failed.get(entry.id, (0, 0.0))[1] <= now_s:
                found.append(entry)
        return found

    def _due(self) -> bool:
        now_s = self._core.ports.clock.monotonic_s()
        return any(at_s <= now_s for _, at_s in self._failed.values())

    async def _bring_up(self, entry: Entry, gate: asyncio.Semaphore) -> None:
        """Start a version on this node, in the place of another one that may run here."""
        async with gate:
            try:
                await self._core.check_tier(entry.current)
                _, code_dir = await self._core.unpacked(entry, entry.sha256)
                installed = await self._core.installed(entry, entry.sha256, code_dir)
                if entry.id not in self._stage.running:
                    self._stage.guard(installed)
                worker = await self._core.started(entry, installed)
                try:
                    old = await self._stage.swap(worker)
                except BaseException:
                    worker.kill()
                    raise
                if old is not None:
                    await old.drain(self._core.ports.config().drain_s)
            except Exception as error:  # whatever keeps one from starting keeps no other from it
                self._note_failure(entry, error)
            else:
                self._forget_failure(entry.id)

    def _forget_failure(self, extension_id: str) -> None:
        self._failed.pop(extension_id, None)
        self.problems.pop(extension_id, None)

    def _note_failure(self, entry: Entry, error: Exception) -> None:
        tries = self._failed.get(entry.id, (0, 0.0))[0]
        pause_s = TRY_AGAIN_S[min(tries, len(TRY_AGAIN_S) - 1)]
        self._failed[entry.id] = tries + 1, self._core.ports.clock.monotonic_s() + pause_s
        self.problems[entry.id] = reason_of(error)
        self._core.ports.log.error("extension.not_started", extension=entry.id, error=reason_of(error), tries=tries + 1)
        if tries == 0:
            code = error.code if isinstance(error, MagError) else EnableFailed.code
            self._core.tell(
                ExtensionError(
                    extension_id=entry.id, version=entry.current.version, reason=f"{code} {str(error)[:300]}"
                )
            )


def _retrieve(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
