"""The components of one boot and whoever looks after them: board, supervisor, health monitor.

A reset of the node throws one away and makes the next. Invariant: after `take_down` no task of it is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from magmobo.contracts.component import Component
from magmobo.kernel import view
from magmobo.kernel.board import Board
from magmobo.kernel.current import Current
from magmobo.kernel.deadline import end
from magmobo.kernel.health import HealthMonitor
from magmobo.kernel.selection import Selection
from magmobo.kernel.slot import PhaseFailed, Slot
from magmobo.kernel.supervisor import Supervisor
from magmobo.kernel.surroundings import Surroundings

if TYPE_CHECKING:
    from random import Random

    from magmobo.contracts.operations import ComponentDetail
    from magmobo.contracts.planes import ComponentStatus


class Assembly:
    """Board and supervision of one boot; what of the node's configuration it needs, it reads from `current`."""

    def __init__(
        self,
        selection: Selection,
        around: Surroundings,
        provided: Mapping[type, object],
        current: Current,
        *,
        random: Random | None,
        on_exit: Callable[[str], None],
        is_active: Callable[[], bool],
    ) -> None:
        self.selection, self._current = selection, current
        reasons = {name: one.reason for name, one in selection.left_out.items()}
        self.board = Board(selection.registry, around, provided, self._failed, reasons)
        self.supervisor = Supervisor(
            self.board.slots,
            recovery=current.section("recovery"),
            kernel=current.kernel,
            bus=around.bus,
            clock=around.clock,
            random=random,
            on_exit=lambda name: on_exit(f'component "{name}" is quarantined'),
            is_active=is_active,
        )
        self.monitor = HealthMonitor(
            self.board.slots,
            needs=self._needs,
            config=current.section("health"),
            bus=around.bus,
            clock=around.clock,
            supervisor=self.supervisor,
        )
        self._monitoring: asyncio.Task[None] | None = None

    def tune(self) -> None:
        """Other settings of the node count from now on."""
        self.supervisor.tune(self._current.section("recovery"), self._current.kernel)
        self.monitor.tune(self._current.section("health"))

    # ------------------------------------------------------------ all of them

    async def load(self) -> None:
        """Construct, configure and boot. Raises: PhaseFailed."""
        await self.board.load(self._current.config, timeout_s=self._current.kernel.start_timeout_s)

    async def start(self) -> None:
        """Start every component. Raises: PhaseFailed."""
        await self.board.start(timeout_s=self._current.kernel.start_timeout_s)

    def check(self) -> None:
        """Raises: PhaseFailed for a component that failed while others came up."""
        for slot in self.board.slots.values():
            if slot.error is not None:
                raise PhaseFailed(slot.name, "running", slot.error)

    def begin_supervision(self) -> None:
        """The node has become active: from now on failures are recovered, also those of the last moment."""
        self.supervisor.take_charge()
        self._monitoring = asyncio.create_task(self.monitor.run(), name="kernel:health")

    async def take_down(self, timeout_s: float) -> None:
        """Stop supervising, then stop and shut down everything in reverse order."""
        if self._monitoring is not None:
            await end(self._monitoring)
            self._monitoring = None
        await self.supervisor.close()
        await self.board.take_down(timeout_s=timeout_s)

    # ------------------------------------------------------------ one of them

    async def register(self, component_type: type[Component], section: Any) -> str:
        """Add one to the running node; its name. Raises: as `Board.add`."""
        deadlines = self.supervisor.deadlines
        name = await self.board.add(component_type, lambda: section, start_s=deadlines.start_s, stop_s=deadlines.stop_s)
        if section is not None:  # before anybody else's turn to change the node
            self._current.config = self._current.config.replaced({name: section})
        return name

    async def join(self, component_type: type[Component]) -> str:
        """The same for one whose section, if it has any, is in the configuration that counts."""
        section = partial(self._section_of, component_type.name) if component_type.config_type else _no_section
        deadlines = self.supervisor.deadlines
        return await self.board.add(component_type, section, start_s=deadlines.start_s, stop_s=deadlines.stop_s)

    async def unregister(self, name: str) -> None:
        """Take one off the running node. Raises: UnknownComponent, StillNeeded, Unavailable."""
        await self.board.remove(name, stop_s=self.supervisor.deadlines.stop_s)

    async def disable(self, name: str) -> None:
        """Stop one and keep it idle. Raises: UnknownComponent, StillNeeded, Unavailable."""
        await self.board.disable(name, stop_s=self.supervisor.deadlines.stop_s)

    async def enable(self, name: str) -> None:
        """Bring up one that is idle, and then those that were left out because they need it. Raises: as `Board.add`."""
        for wanted in (name, *self._left_out_because_of(name)):
            declaration = self.board.registry.idle.get(wanted)
            if declaration is None:
                self.board.slot(wanted)  # unknown names are refused, members left as they are
                continue
            section = partial(self._section_of, wanted) if declaration.component_type.config_type else _no_section
            deadlines = self.supervisor.deadlines
            await self.board.enable(wanted, section, start_s=deadlines.start_s, stop_s=deadlines.stop_s)

    def _left_out_because_of(self, name: str) -> Sequence[str]:
        return [other for other, why in self.selection.left_out.items() if why.because_of == name]

    # ------------------------------------------------------------ how they are

    def notices(self) -> list[str]:
        """What an operator should know about who takes part, a line each."""
        exit_on: Sequence[str] = self._current.section("recovery").exit_on
        strangers = [name for name in exit_on if name not in self.board.slots]
        return [
            *self.selection.notices(),
            *(f"recovery.exit_on names {name}, which this node does not have: nothing follows" for name in strangers),
        ]

    def statuses(self) -> list[ComponentStatus]:
        """In the order in which they come up; idle ones last."""
        return [self.status_of(slot) for slot in self.board.in_order()]

    def status_of(self, slot: Slot) -> ComponentStatus:
        """One line of `mag component:list`."""
        return view.component_status(
            slot, self.board.idle_reasons.get(slot.name, ""), self.monitor.caused_by(slot.name)
        )

    def detail(self, name: str, source: str) -> ComponentDetail:
        """Everything about one; `source` says where it comes from. Raises: UnknownComponent."""
        slot = self.board.slot(name)
        return view.component_detail(
            slot,
            self.status_of(slot),
            self.board.registry,
            source=source,
            budget_left=self.supervisor.budget_left(name),
            caused_by=self.monitor.caused_by(name),
        )

    # ------------------------------------------------------------ inside

    def _needs(self, name: str) -> Sequence[str]:
        registry = self.board.registry
        return registry.needs(name) if name in registry.declarations else ()

    def _failed(self, name: str) -> None:
        self.supervisor.failed(name)

    def _section_of(self, name: str) -> Any:
        return self._current.section(name)


def _no_section() -> None:
    return None
