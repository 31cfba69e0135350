"""All components of a node by dependency level: up one level after the other, down in reverse.

Components of one level come up together; the first that fails cancels its siblings. On the way down nobody is waited
for longer than its share of the time left, so that one hanging component cannot take it all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from magmobo.kernel.config.loader import Config
from magmobo.kernel.context import Surroundings
from magmobo.kernel.errors import UnknownComponent
from magmobo.kernel.handles import Handle, Link
from magmobo.kernel.registry import Registry
from magmobo.kernel.slot import PhaseFailed, Slot


class Board:
    """The slots of one node. `provided` are objects that serve Protocols without being components."""

    def __init__(
        self,
        registry: Registry,
        around: Surroundings,
        provided: Mapping[type, object],
        on_failure: Callable[[str], None],
    ) -> None:
        self.slots = {
            name: Slot(declaration, around, on_failure) for name, declaration in registry.declarations.items()
        }
        self._levels = [[self.slots[name] for name in level] for level in registry.levels]
        self._registry, self._provided = registry, provided
        self._links: dict[type, Link] = {link.protocol: link for slot in self.slots.values() for link in slot.links}

    def slot(self, name: str) -> Slot:
        """The slot of a component. Raises: UnknownComponent."""
        if name not in self.slots:
            raise UnknownComponent(name)
        return self.slots[name]

    async def load(self, config: Config, *, timeout_s: float) -> None:
        """Construct, configure and boot every component. Raises: PhaseFailed of the first that fails."""
        for level in self._levels:
            for slot in level:
                slot.construct(self._collaborators(slot), self._section(config, slot))
            await _together(level, lambda slot: slot.boot(timeout_s))

    async def start(self, *, timeout_s: float) -> None:
        """Start every component. Raises: PhaseFailed of the first that fails."""
        for level in self._levels:
            await _together(level, lambda slot: _start(slot, timeout_s))

    async def take_down(self, *, timeout_s: float) -> None:
        """Stop all that was started, then shut down all that was booted; reverse order, never raises for a component.

        Ends within about `timeout_s`, plus the short grace each hook gets to react to its cancellation.
        """
        loop = asyncio.get_running_loop()
        ends_at_s = loop.time() + timeout_s
        steps = [(level, step) for step in (_stop, _shutdown) for level in reversed(self._levels)]
        for index, (level, step) in enumerate(steps):
            left_s, steps_left = ends_at_s - loop.time(), len(steps) - index
            # Half of what is left, so that the first to drain has time and the last still gets some.
            share_s = max(left_s / min(steps_left, 2), 0.01)
            await asyncio.gather(*(step(slot, share_s) for slot in level))

    def _collaborators(self, slot: Slot) -> dict[str, Any]:
        given: dict[str, Any] = {}
        for dependency in self._registry.declarations[slot.name].dependencies:
            if dependency.protocol in self._provided:
                given[dependency.parameter] = self._provided[dependency.protocol]
            else:
                link = self._links.get(dependency.protocol)
                given[dependency.parameter] = Handle(link) if link else None
        return given

    def _section(self, config: Config, slot: Slot) -> Any:
        has_config = self._registry.declarations[slot.name].component_type.config_type is not None
        return config.section(slot.name) if has_config else None


async def _start(slot: Slot, timeout_s: float) -> None:
    if slot.error is not None:  # a task failed while others came up
        raise PhaseFailed(slot.name, "boot", slot.error)
    await slot.start(timeout_s)


async def _stop(slot: Slot, timeout_s: float) -> None:
    await slot.stop(timeout_s, for_good=True)


async def _shutdown(slot: Slot, timeout_s: float) -> None:
    await slot.shutdown(timeout_s)


async def _together(level: Sequence[Slot], step: Callable[[Slot], Awaitable[None]]) -> None:
    async def one(slot: Slot) -> None:
        await step(slot)

    try:
        async with asyncio.TaskGroup() as group:
            for slot in level:
                group.create_task(one(slot), name=f"boot:{slot.name}")
    except BaseExceptionGroup as failures:
        # The first is the cause; a sibling that failed while being cancelled is in the log by its own slot.
        first = failures.exceptions[0]
        if isinstance(first, PhaseFailed):
            raise first from first.cause
        raise
