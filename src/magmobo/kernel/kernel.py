"""The wiring of one node: bus, services, board, supervision and boot meet here and nowhere else.

Boundary: no command line, no signals, no sockets, no component names; `magmobo.node` brings those. A kernel boots once
and shuts down once; in between it may be reset, which takes every component down and boots again in place. A process
may hold several.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from magmobo.contracts.clock import Clock
from magmobo.contracts.component import Component
from magmobo.contracts.errors import Unavailable
from magmobo.contracts.events import SystemReady, SystemShutdown
from magmobo.kernel import view
from magmobo.kernel.assembly import Assembly
from magmobo.kernel.boot import BootSequence
from magmobo.kernel.choice import EVERYTHING, Choice, Resolve
from magmobo.kernel.clock import SystemClock
from magmobo.kernel.config.loader import Config
from magmobo.kernel.errors import BootFailed, NotReady, describe, foreign
from magmobo.kernel.known import KnownSecrets
from magmobo.kernel.membership import Membership
from magmobo.kernel.observe.quiet import QuietLog
from magmobo.kernel.services import KERNEL, KERNEL_ACTOR
from magmobo.kernel.settings import Settings
from magmobo.kernel.slot import Slot
from magmobo.kernel.stages import Stages
from magmobo.kernel.surroundings import make_surroundings

if TYPE_CHECKING:
    from random import Random

    from magmobo.contracts.planes import NodeStatus
    from magmobo.kernel.commands.bus import CommandBus
    from magmobo.kernel.config.source import ConfigSource, Start
    from magmobo.kernel.config.versions import Versions
    from magmobo.kernel.inspection import Facts, Inspection
    from magmobo.kernel.observe.metrics import Family
    from magmobo.kernel.reloader import Reloader
    from magmobo.kernel.tuning import OnCoreChange
    from magmobo.kernel.vault.driver import VaultDriver

KernelState = Literal["booting", "ready", "degraded", "stopping", "stopped", "failed"]

_LAST_WORDS_S = 10.0  # beyond the components' own deadlines, for closing the stores
_RELOAD_SHARE = 0.25  # of a shutdown, for a reload under way to be taken back


class Kernel:
    """One node.

    Args:
        components: classes, in any order; the graph decides.
        config: what counts at first: the core sections and one section by the name of every component that has a
            `config_type`.
        source: reads and makes others; without it the settings stay as they are.
        start: what `config` was made of; goes with `source`.
        versions: keeps the versions that counted; without it they are kept in memory.
        on_core_change: see `tuning.OnCoreChange`.
        vault: where secrets are kept; without it there is none. It is closed with the kernel.
        known: hides its secrets wherever something is written; by default one of its own.
        data_dir: exists, mode 0700, and is this kernel's alone.
        provided: objects that serve Protocols without being components.
        choice: which of the components take part in this start.
        resolve: finds a component that is to join the running node; without it none can by name.
        on_exit: told why, when the node should end because a component it cannot do without is quarantined, or a reset
            failed.
        random: for the jitter of pauses.
    """

    def __init__(
        self,
        *,
        components: Sequence[type[Component]],
        config: Config,
        source: ConfigSource | None = None,
        start: Start | None = None,
        versions: Versions | None = None,
        on_core_change: OnCoreChange | None = None,
        vault: VaultDriver | None = None,
        data_dir: Path,
        environment: str,
        instance_id: str,
        version: str,
        known: KnownSecrets | None = None,
        clock: Clock | None = None,
        provided: Mapping[type, object] = {},
        choice: Choice = EVERYTHING,
        resolve: Resolve | None = None,
        on_exit: Callable[[str], None] | None = None,
        random: Random | None = None,
    ) -> None:
        self._log = QuietLog(component=KERNEL)
        self.settings = Settings(config, source, start, versions, on_core_change, self._log)
        self._notices, self._on_exit = choice.notices, on_exit
        self._around = make_surroundings(
            config,
            instance_id=instance_id,
            environment=environment,
            version=version,
            data_dir=data_dir.absolute(),
            known=known or KnownSecrets(),
            clock=clock or SystemClock(),
            vault=vault,
            log=self._log,
            furnish=self._answer_commands,
        )
        self.bus, self.services, self._clock = self._around.bus, self._around.services, self._around.clock
        self._stages = self._make_stages(components, provided, choice, random)
        self._membership = Membership(
            self._ready_assembly, self._stages.memory, resolve, self.settings.admit, choice.sources
        )
        self.settings.join(self._around, self._stages, self._ready_assembly)
        self._state: KernelState = "booting"
        self._is_booting = self._was_started = self._is_leaving = False
        self._leaving = asyncio.Lock()
        self._reset: asyncio.Task[None] | None = None
        self.services.metrics.collect_from(KERNEL, self._figures)

    def _make_stages(
        self,
        components: Sequence[type[Component]],
        provided: Mapping[type, object],
        choice: Choice,
        random: Random | None,
    ) -> Stages:
        return Stages(
            components,
            self.settings.current,
            provided,
            choice,
            self._around,
            self._log,
            random=random,
            opened=self.settings.record_reads,
            on_exit=self._ask_to_end,
            is_active=lambda: self._state == "ready",
        )

    # ------------------------------------------------------------ up

    async def boot(self) -> None:
        """Go through the six stages. A kernel boots once.

        Raises: BootFailed, or CancelledError when the caller is cancelled; both after everything was taken back.
        """
        if self._was_started or self._is_leaving:
            raise RuntimeError("a kernel boots once; make another one, or reset it")
        self._was_started = True
        await self._go_up()

    async def reset(self) -> None:
        """Shut every component down and boot again in place; doors, stores and what the bus counted stay.

        It goes on when the caller is cancelled. Raises: NotReady unless the node is ready, and when a shutdown ends it;
        BootFailed when it did not come back: then nothing of it is left and the node should end.
        """
        if self._state != "ready":
            raise NotReady(self.state)
        self._state = "booting"
        self._reset = asyncio.create_task(self._down_and_up(), name="kernel:reset")
        self._reset.add_done_callback(self._reset_ended)
        await asyncio.shield(self._reset)

    def _reset_ended(self, reset: asyncio.Task[None]) -> None:
        self._reset = None
        if not reset.cancelled():
            reset.exception()  # whoever asked may have gone; the log has it

    async def _down_and_up(self) -> None:
        self._log.info("resetting")
        try:
            await self._stages.take_down(self.settings.current.kernel.shutdown_timeout_s)
            await self._stages.journal.ended("stopped")
            if not self._is_leaving:
                await self._go_up()
        except asyncio.CancelledError:  # by `shutdown`, which takes down what is left
            self._state = "stopping"
        except Exception as error:
            self._state = "failed"
            self._ask_to_end(f"the node did not come back from its reset: {describe(error)}")
            raise
        if self._state != "ready":
            raise NotReady("stopping")

    async def _go_up(self) -> None:
        self._is_booting = True
        sequence = BootSequence(
            self._stages.begin(),
            self._undo,
            self.bus,
            self._clock,
            self._around.timeline,
            stage_timeout_s=self.settings.current.kernel.stage_timeout_s,
            rollback_timeout_s=2 * self.settings.current.kernel.shutdown_timeout_s + _LAST_WORDS_S,
        )
        try:
            await sequence.run()
        except BootFailed as error:
            at, cause = {"stage": error.stage, "failed": error.component}, error.cause
            self._log.error("the boot failed", **at, error=describe(cause), exc_info=foreign(cause))
            raise
        finally:
            if self._state == "failed" and self._reset is None:
                await asyncio.shield(self.bus.close())  # the last to go: it has told of the failure
        self._is_booting, self._state = False, "ready"
        self.assembly.begin_supervision()
        self.settings.begin()
        boot_s = self._clock.monotonic_s() - self._stages.began_s
        self._log.info("ready", boot_s=round(boot_s, 3), components=len(self.slots))
        self.bus.emit(
            SystemReady(instance_id=self._around.instance_id, environment=self._around.environment, boot_s=boot_s)
        )

    async def _undo(self) -> None:
        self._log.warning("boot did not succeed, taking everything back")
        try:
            await self._stages.take_down(self.settings.current.kernel.shutdown_timeout_s)
            await self._stages.journal.ended("failed")
            if self._reset is None:  # else whoever asked for the reset is answered first, and `shutdown` closes them
                await self.services.close()
        finally:
            self._is_booting, self._state = False, "failed"

    # ------------------------------------------------------------ down

    async def shutdown(self, timeout_s: float | None = None) -> None:
        """Stop and shut down every component in reverse order; returns within about `timeout_s`, whatever they do.

        The default is `kernel.shutdown_timeout_s`. Calling it again waits for the first call, then returns.
        A boot under way is ended by cancelling `boot()`, which takes everything back itself. A reset under way is ended
        here: what drains may drain, and what comes up is taken back.
        Raises: RuntimeError while `boot()` runs.
        """
        if self._is_booting and self._reset is None:
            raise RuntimeError("cancel boot() to end a boot")
        self._is_leaving = True
        if self._reset is not None:
            if self._is_booting:
                self._reset.cancel()
            await asyncio.wait({self._reset})
        async with self._leaving:
            timeout_s = self.settings.current.kernel.shutdown_timeout_s if timeout_s is None else timeout_s
            await self.settings.close(timeout_s * _RELOAD_SHARE)
            if self._state not in ("stopped", "failed"):
                await self._leave(timeout_s)
            await self.services.close()
            await self.bus.close()

    async def _leave(self, timeout_s: float) -> None:
        self._state = "stopping"
        self._log.info("stopping", timeout_s=timeout_s)
        self.bus.emit(SystemShutdown(timeout_s=timeout_s))
        await self._stages.take_down(timeout_s)
        await self._stages.journal.ended("stopped")
        self._state = "stopped"
        self._log.info("stopped")

    # ------------------------------------------------------------ single components

    async def restart_component(self, name: str, *, by: str = "operator") -> None:
        """Drain, stop and start one; no other is touched, its budget begins anew.

        Raises: UnknownComponent, IllegalTransition, or why it did not start.
        """
        self.assembly.board.slot(name)
        await self.assembly.supervisor.restart(name, by=by)

    async def stop_component(self, name: str) -> None:
        """Stop one; calls of its consumers wait until it runs again. Raises: UnknownComponent, IllegalTransition."""
        self.assembly.board.slot(name)
        await self.assembly.supervisor.stop(name)

    async def start_component(self, name: str) -> None:
        """Start one that is stopped, failed or quarantined. Raises: as `restart_component`."""
        self.assembly.board.slot(name)
        await self.assembly.supervisor.start(name)

    async def disable_component(self, name: str) -> None:
        """Stop one and keep it from starting, over restarts of the node too. Raises: as `Membership.disable`."""
        await self._membership.disable(name)

    async def enable_component(self, name: str) -> None:
        """Undo that, and start it together with what could not do without it. Raises: as `Membership.enable`."""
        await self._membership.enable(name)

    async def register_component(self, component_type: type[Component], section: Any = None) -> str:
        """Add one for this run; its name. Raises: as `Membership.register`."""
        return await self._membership.register(component_type, section)

    async def register_source(self, source: str) -> str:
        """The same by `module:Class` or the name of an installed component. Raises: also ComponentNotLoadable."""
        return await self._membership.register_source(source)

    async def unregister_component(self, name: str) -> None:
        """Take one off the running node. Raises: NotReady, UnknownComponent, StillNeeded."""
        await self._membership.unregister(name)

    # ------------------------------------------------------------ settings

    @property
    def config(self) -> Config:
        """The configuration that counts now."""
        return self.settings.current.config

    @property
    def reloader(self) -> Reloader:
        """Shows, changes and takes back the settings. Raises: Unavailable for a node without a `source`."""
        return self.settings.reloader

    # ------------------------------------------------------------ how it is

    @property
    def state(self) -> str:
        """One of `booting, ready, degraded, stopping, stopped, failed`.

        `degraded` is `ready` with a component that does not run or says that it does not serve.
        """
        if self._state == "ready" and any(view.is_down(slot) for slot in self.slots):
            return "degraded"
        return self._state

    def status(self) -> NodeStatus:
        """How the node is, now. Never raises."""
        return self.inspection.status()

    @property
    def assembly(self) -> Assembly:
        """The components of this boot. Raises: Unavailable before they are known."""
        if self._stages.assembly is None:
            raise Unavailable("the board of components")
        return self._stages.assembly

    @property
    def slots(self) -> Sequence[Slot]:
        """Every component's place; none before they are known."""
        assembly = self._stages.assembly
        return () if assembly is None else tuple(assembly.board.slots.values())

    @cached_property
    def inspection(self) -> Inspection:
        """What can be asked about this node."""
        from magmobo.kernel.inspection import Inspection

        return Inspection(self, self.bus, self.services, self._clock)

    @property
    def facts(self) -> Facts:
        """What is known of the present boot."""
        from magmobo.kernel.inspection import facts_of

        return facts_of(self._stages, self._around, sources=self._membership.sources, notices=self._notices)

    # ------------------------------------------------------------ inside

    def _ready_assembly(self) -> Assembly:
        if self._state != "ready":
            raise NotReady(self.state)
        return self.assembly

    def _answer_commands(self, commands: CommandBus) -> None:
        from magmobo.kernel.operations import Operations  # 2 ms with their types

        scoped = commands.scoped(KERNEL, KERNEL_ACTOR)
        Operations(self).register(scoped)
        self.settings.answer(scoped)

    def _figures(self) -> Iterable[Family]:
        from magmobo.kernel.figures import Figures

        return Figures(self).families()

    def _ask_to_end(self, reason: str) -> None:
        self._log.critical("the node should end", reason=reason)
        if self._on_exit is not None:
            self._on_exit(reason)
