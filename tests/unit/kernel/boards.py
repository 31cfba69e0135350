"""A board by itself, with what a kernel that is not booted lends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from magmobo.contracts.component import Component
from magmobo.contracts.events import Envelope, Event
from magmobo.kernel.board import Board
from magmobo.kernel.registry import Registry
from magmobo.testing.harness import footprint, make_config, make_kernel

LIMIT_S = 15.0  # a hook that hangs is ended by somebody, not by its deadline
FUSE_S = 10.0  # a test that would hang fails instead


class Scene:
    """A running board. `failed` are the components reported to the supervisor, `told` what the bus said."""

    def __init__(self, components: Sequence[type[Component]], provided: Mapping[type, object]) -> None:
        kernel = make_kernel(data_dir=Path("/nowhere"))  # not booted: nothing here needs its files
        self.bus, around = kernel.bus, kernel._around
        self.failed: list[str] = []
        self.told: list[tuple[str, Event]] = []
        self.bus.scoped("test").on("component.**", self._hear)
        self.board = Board(Registry(components, tuple(provided)), around, provided, self.failed.append)

    def _hear(self, envelope: Envelope[Event]) -> None:
        self.told.append((envelope.topic, envelope.data))

    def topics(self, name: str) -> list[str]:
        """Topics of the events about one component, in order, without its states."""
        about = [(topic, getattr(event, "name", "")) for topic, event in self.told]
        return [topic for topic, who in about if who == name and topic != "component.state_changed"]

    @property
    def states(self) -> dict[str, str]:
        """State by component, in the order in which they come up."""
        return {slot.name: str(slot.state) for slot in self.board.in_order()}

    async def add(self, component: type[Component]) -> str:
        return await self.board.add(component, lambda: None, start_s=LIMIT_S, stop_s=LIMIT_S)

    async def remove(self, name: str) -> None:
        await self.board.remove(name, stop_s=LIMIT_S)

    async def disable(self, name: str) -> None:
        await self.board.disable(name, stop_s=LIMIT_S)

    async def enable(self, name: str) -> None:
        await self.board.enable(name, lambda: None, start_s=LIMIT_S, stop_s=LIMIT_S)


@asynccontextmanager
async def scene(*components: type[Component], provided: Mapping[type, object] = {}) -> AsyncIterator[Scene]:
    """A board whose components run; taken down at the end, after which no task may be left."""
    before = footprint().tasks
    there = Scene(components, provided)
    await there.board.load(make_config(*components), timeout_s=LIMIT_S)
    await there.board.start(timeout_s=LIMIT_S)
    try:
        async with asyncio.timeout(FUSE_S):
            yield there
    finally:
        await there.board.take_down(timeout_s=LIMIT_S)
    assert not footprint().tasks - before
