"""How other settings come to count in a running node, and how they are taken back when they prove harmful.

Boundary: is told what is to count; `planning` compares, `passage` takes the components along, `version_log` remembers.
Invariants: one attempt at a time, which ends when it has begun, also when who asked has gone; a secret is read only on
record; after a refusal the former settings count in every respect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from msgspec import Struct, structs

from magmobo.contracts.capabilities import Actor
from magmobo.contracts.component import Component
from magmobo.contracts.configuration import ConfigVersion, ReloadOutcome
from magmobo.contracts.errors import MagError, Unavailable
from magmobo.contracts.events import ConfigReloaded, ConfigReloadFailed
from magmobo.kernel import patches, view
from magmobo.kernel.attempt import Attempt, Counted, Node, Target
from magmobo.kernel.chronicle import Chronicle, record_reads
from magmobo.kernel.config.source import Base, Built, ConfigSource, Runtime, Start, grafted
from magmobo.kernel.config.versions import Held
from magmobo.kernel.deadline import end
from magmobo.kernel.errors import NoFormerVersion, NotReady, NotSetAtRuntime, describe, foreign
from magmobo.kernel.lifecycle import State
from magmobo.kernel.passage import Passage, Swaps
from magmobo.kernel.planning import Plan, make_plan, shown
from magmobo.kernel.probation import Probation, well
from magmobo.kernel.security.errors import CapabilityDenied, JustificationRefused
from magmobo.kernel.services import KERNEL_ACTOR
from magmobo.kernel.version_log import BOOT, VersionLog

T = TypeVar("T")
APPLIED, UNCHANGED, FAILED = "applied", "unchanged", "failed"
_EXPIRY = "expiry"
_READING = ("command", "file", "signal")
"""Triggers whose reload reads the files."""
_UNPROVEN = ("command", "file", "signal", "patch", "secret")
"""Triggers whose reload is on probation. A rollback is the way back itself, and a patch that ended cannot come back."""


class Turnover:
    """Of one node. `counted` is what counts; `files_digest` that of the base that the files gave last."""

    def __init__(self, node: Node, source: ConfigSource, start: Start, log: VersionLog) -> None:
        self._node, self._source, self._log, self._over = node, source, log, start.expired
        held = Held(start.held_version, start.held_digest) if start.held_digest else None
        config = node.current.config
        self.counted = Counted(
            start.last_version + 1,
            start.base,
            start.runtime,
            config,
            Built(config, start.reads),
            held,
            leaves_out=start.leaves_out,
        )
        self.files_digest = start.held_digest or start.base.digest
        self.last_refusal = self._refused_trigger = ""
        self.counts = dict.fromkeys((APPLIED, UNCHANGED, FAILED), 0)
        self._chronicle = Chronicle(node.services.audit, node.log)
        self._turn = asyncio.Lock()
        self._change: asyncio.Task[Any] | None = None
        self._chores: set[asyncio.Task[None]] = set()
        self._expiry: asyncio.Task[None] | None = None
        self._probation: Probation | None = None
        self._is_noted = self._is_settling = self._is_closed = False

    def begin(self) -> None:
        """The node is ready for the first time."""
        self._chore(self._alone(self._note_start), "start")

    async def noted(self) -> None:
        """Return when the version that the node started with has its number, unless it is not up yet."""
        with suppress(NotReady, Unavailable):
            self._node.assembly()
            if not self._is_noted:
                await self._alone(self._note_start)

    async def close(self, timeout_s: float) -> None:
        """The node goes down: what is under way is ended, what has come to count is noted still."""
        self._is_closed = True
        self._end_probation()
        change = self._change
        if change is not None and not self._is_settling:
            change.cancel()
        if change is not None:
            await asyncio.wait({change}, timeout=timeout_s)
        chores = [*self._chores, *([self._expiry] if self._expiry is not None else [])]
        await asyncio.gather(*(end(chore) for chore in chores))

    async def compare(self, target: Target, actor: Actor) -> Plan:
        """What letting it count would change. Raises: ConfigError, VaultUnavailable, AuditUnavailable, NotReady."""
        built = target.built or await self._build(target, actor)
        return self._plan(built)

    async def admit(self, name: str, section: type[Struct]) -> None:
        """Let the section of a component that is to join count. Raises: as `Reloader.admit`."""
        await self._alone(lambda: self._admit(name, section))

    async def change(self, find: Callable[[], Awaitable[Target]], attempt: Attempt) -> ReloadOutcome:
        """Let what `find` gives count. Raises: what `find` raises; as `Reloader.reload`."""
        return await self._alone(lambda: self._carry_out(find, attempt))

    # ------------------------------------------------------------ one attempt

    async def _alone(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run `work` in a task of its own when no other change is under way; it goes on when the caller has gone."""
        await self._turn.acquire()
        if self._is_closed:
            self._turn.release()
            raise Unavailable("the node")
        self._change = task = asyncio.create_task(work(), name="kernel:reload")
        task.add_done_callback(self._change_ended)
        await asyncio.wait({task})
        if task.cancelled():
            raise Unavailable("the node")
        return task.result()

    def _change_ended(self, task: asyncio.Task[Any]) -> None:
        self._change = None
        self._turn.release()
        if not task.cancelled():
            task.exception()  # whoever asked may have gone; it is in the log

    async def _carry_out(self, find: Callable[[], Awaitable[Target]], attempt: Attempt) -> ReloadOutcome:
        await self._note_start()
        clock = self._node.clock
        began_s, before = clock.monotonic_s(), self.counted
        try:
            target = await find()
            built = target.built or await self._build(target, attempt.actor)
            serving = await self._pass(target, built, attempt)
        except (NotSetAtRuntime, NoFormerVersion, CapabilityDenied, JustificationRefused):  # nothing was attempted
            raise
        except Exception as error:
            if not attempt.dry_run:
                await self._refused(error, attempt)
            raise
        is_applied = serving is not None
        duration_s = clock.monotonic_s() - began_s
        if not attempt.dry_run:
            self._is_settling = True
            try:
                await self._settle(before, target, attempt, serving, duration_s)
            finally:
                self._is_settling = False
        plan = shown(attempt.plan) if attempt.plan is not None else shown(self._plan(built))
        return ReloadOutcome(self.counted.version, is_applied, plan, duration_s)

    async def _admit(self, name: str, section: type[Struct]) -> None:
        self._source.add_section(name, section)
        read, counted, current = await self._source.read(), self.counted, self._node.current
        base = grafted(counted.base, read, name)
        built = await self._build(Target(base, counted.runtime, leaves_out=counted.leaves_out), KERNEL_ACTOR)
        reads = [
            *(one for one in counted.built.reads if not one.key.startswith(f"{name}.")),
            *(one for one in built.reads if one.key.startswith(f"{name}.")),
        ]
        current.config = current.config.joined(name, built.config)
        self.counted = structs.replace(
            counted,
            base=base,
            config=current.config,
            built=Built(counted.built.config.joined(name, built.config), reads),
        )

    async def _build(self, target: Target, actor: Actor) -> Built:
        built = await self._source.build(target.base, Runtime() if target.leaves_out else target.runtime)
        reads = dict.fromkeys(built.reads)
        for runtime in target.later:  # else a patch could not end, or the node not start again
            reads |= dict.fromkeys((await self._source.build(target.base, runtime)).reads)
        known = self._node.services.known
        hides_emails = known.hides_emails
        known.learn(built.config)
        known.hides_emails = hides_emails  # until it counts
        await record_reads(self._node.services.audit, reads, actor)
        return built

    def _plan(self, built: Built) -> Plan:
        members: Mapping[str, type[Component]] = {
            slot.name: slot.component_type
            for slot in self._node.assembly().board.in_order()
            if slot.state is not State.DISABLED
        }
        return make_plan(self._node.current.config, built.config, members)

    async def _pass(self, target: Target, built: Built, attempt: Attempt) -> Set[str] | None:
        """Let it count, unless it is a dry run. Returns: the well components that served then; None if none changed."""
        node, serving = self._node, None
        assembly = node.assembly()

        async def work() -> None:
            nonlocal serving
            plan = attempt.plan = self._plan(built)
            passage = Passage(
                assembly,
                plan,
                prepare_s=node.current.kernel.reload_timeout_s,
                monotonic_s=node.clock.monotonic_s,
                log=node.log,
            )
            if attempt.dry_run:
                await passage.ask()
            elif plan.changed:
                was_well = well(assembly)
                with self._unblamed():
                    served = await passage.go(self._swaps(target, built, plan), is_forced=attempt.is_forced)
                serving = was_well & served
            else:
                self._count(self._counting(target, built, plan, self.counted.version))

        await assembly.board.undisturbed(work)
        return serving

    # ------------------------------------------------------------ the turn in which it counts

    def _swaps(self, target: Target, built: Built, plan: Plan) -> Swaps:
        before = structs.replace(self.counted, config=plan.before)  # with the sections of those who joined since
        after = self._counting(target, built, plan, self.counted.version + 1)
        return Swaps(lambda: self._count(after, plan.core), lambda: self._count(before, plan.core))

    def _counting(self, target: Target, built: Built, plan: Plan, version: int) -> Counted:
        return Counted(
            version,
            target.base,
            target.runtime,
            plan.config,
            built,
            target.held,
            plan.waiting,
            leaves_out=target.leaves_out,
        )

    def _count(self, counted: Counted, core: Set[str] = frozenset()) -> None:
        self.counted, self._node.current.config = counted, counted.config
        self._node.tuning.apply(core)

    # ------------------------------------------------------------ what follows

    async def _settle(
        self, before: Counted, target: Target, attempt: Attempt, serving: Set[str] | None, duration_s: float
    ) -> None:
        """It counts: tell, remember, watch."""
        counted, plan, node = self.counted, attempt.plan, self._node
        if attempt.trigger in _READING or self._refused_trigger not in _READING:  # else the files are as wrong as ever
            self.last_refusal = ""
        self.counts[UNCHANGED if serving is None else APPLIED] += 1
        if target.is_read:
            await self._source.accepted(target.base)
            self.files_digest = target.base.digest
        keeps_runtime = (before.runtime, before.held) != (counted.runtime, counted.held)
        if keeps_runtime:  # before the version is added, which may push out the oldest: one that is held stays
            await self._log.keep_runtime(counted.runtime, counted.held)
        if serving is not None and plan is not None:
            changed = sorted(plan.changed)
            node.log.info(
                "settings changed",
                version=counted.version,
                trigger=attempt.trigger,
                changed_keys=changed,
                waiting=sorted(plan.waiting),
                duration_s=round(duration_s, 3),
            )
            node.bus.emit(ConfigReloaded(version=counted.version, changed_keys=changed, trigger=attempt.trigger))
            self._end_probation()
            self._watch(before, attempt, serving)
            payload = {"version": counted.version, "trigger": attempt.trigger, "changed_keys": changed}
            await self._chronicle.note("config.reloaded", payload, attempt.actor)
            await self._log.add(self._meta(attempt.trigger, attempt.actor, changed, target.note), *_parts(counted))
        if attempt.expired:
            await self._chronicle.note("config.patch_expired", {"keys": list(attempt.expired)})
        if keeps_runtime:
            self._watch_patches()

    async def _refused(self, error: Exception, attempt: Attempt) -> None:
        text = describe(error)
        changed = sorted(attempt.plan.changed) if attempt.plan is not None else []
        self.counts[FAILED] += 1
        if attempt.trigger == _EXPIRY and text == self.last_refusal:  # tried every half minute, and told once
            return
        if attempt.trigger != "patch":  # whoever sets one key is told, and nothing waits for him
            self.last_refusal, self._refused_trigger = text, attempt.trigger
        self._node.log.error(
            "settings not changed", trigger=attempt.trigger, changed_keys=changed, error=text, exc_info=foreign(error)
        )
        self._node.bus.emit(ConfigReloadFailed(error=text, changed_keys=changed, trigger=attempt.trigger))
        payload = {"trigger": attempt.trigger, "changed_keys": changed, "error": text}
        await self._chronicle.note("config.reload_failed", payload, attempt.actor)

    def _meta(self, trigger: str, actor: Actor, changed: list[str], note: str = "") -> ConfigVersion:
        at = view.utc(self._node.clock.time_s())
        return ConfigVersion(self.counted.version, at, trigger, actor.name, changed, True, True, note)

    async def _note_start(self) -> None:
        """Before anything else: the version that the node started with."""
        if self._is_noted:
            return
        number = await self._log.begin(self._meta(BOOT, KERNEL_ACTOR, []), *_parts(self.counted))
        self.counted, self._is_noted = structs.replace(self.counted, version=number), True
        self._watch_patches()
        if self._over:
            await self._chronicle.note("config.patch_expired", {"keys": list(self._over)})
            await self._log.keep_runtime(self.counted.runtime, self.counted.held)

    # ------------------------------------------------------------ patches that end

    def _watch_patches(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        running = patches.watch(self._node.clock, lambda: self.counted.runtime, self._expire)
        self._expiry = asyncio.create_task(running, name="kernel:patches")

    async def _expire(self) -> None:
        attempt = Attempt(_EXPIRY, KERNEL_ACTOR)

        async def target() -> Target:
            now_s, counted = self._node.clock.time_s(), self.counted
            attempt.expired = patches.expired(counted.runtime, now_s)
            left = patches.without_expired(counted.runtime, now_s)
            return Target(counted.base, left, counted.held, leaves_out=counted.leaves_out)

        try:
            await self.change(target, attempt)
        except Exception as error:  # it is told, and tried again
            keys = attempt.expired
            self._node.log.debug("a patch of the settings cannot end yet", keys=keys, error=describe(error))

    # ------------------------------------------------------------ probation

    def _watch(self, before: Counted, attempt: Attempt, serving: Set[str]) -> None:
        node = self._node
        window_s = node.current.kernel.reload_window_s
        if not window_s or attempt.trigger not in _UNPROVEN:
            return
        failing = self.counted.version

        def failed(reason: str) -> None:
            self._chore(self._take_back(before, failing, reason), "take-back")

        self._probation = Probation(node.bus, node.clock, failed)
        try:
            self._probation.begin(node.assembly(), serving, window_s)
        except NotReady:
            self._end_probation()

    @contextmanager
    def _unblamed(self) -> Iterator[None]:
        """What fails in the block is not the fault of the settings that count before it."""
        probation = self._probation
        if probation is not None:
            probation.is_paused = True
        try:
            yield
        finally:
            if probation is not None:
                probation.is_paused = False

    def _end_probation(self) -> None:
        if self._probation is not None:
            self._probation.end()
        self._probation = None

    async def _take_back(self, former: Counted, failing: int, reason: str) -> None:
        async def target() -> Target:
            if self.counted.version != failing:
                raise NoFormerVersion  # somebody else was faster
            files = self.files_digest
            held = None if former.base.digest == files else Held(former.version, files)
            note = f"version {failing} taken back: {reason}"
            return Target(former.base, former.runtime, held, former.built, note=note, leaves_out=former.leaves_out)

        self._node.log.error("changed settings are taken back", version=failing, reason=reason)
        try:
            await self.change(target, Attempt("probation", KERNEL_ACTOR, is_forced=True))
        except NoFormerVersion:
            self._node.log.info("a later change of the settings was faster", version=failing)
        except MagError as error:
            self._node.log.exception("changed settings were not taken back", error=describe(error))
        else:
            payload = {"version": failing, "to": former.version, "reason": reason}
            await self._chronicle.note("config.rolled_back", payload)

    def _chore(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=f"kernel:settings-{name}")
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)


def _parts(counted: Counted) -> tuple[Base, Runtime]:
    return counted.base, counted.runtime
