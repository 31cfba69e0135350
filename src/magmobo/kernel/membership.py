"""Who takes part in a node that is ready, as its operators order it: disabled, enabled, joined, left.

Invariant: when an order has ended, well or not, what is remembered for the next start is what this one shows: a
component that could not be stopped stays enabled, one that could not be started stays disabled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from magmobo.contracts.component import Component
from magmobo.contracts.errors import Unavailable
from magmobo.kernel.assembly import Assembly
from magmobo.kernel.choice import Resolve
from magmobo.kernel.memory import Memory

Admit = Callable[[type[Component]], Awaitable[None]]


class Membership:
    """Carries the orders out, one after the other.

    Args:
        assembly: the components of this boot. Raises: NotReady while they come up or go down.
        memory: what outlives this run.
        resolve: finds a component that is to join by its name; without it none can.
        admit: lets the section of such a component count, before it is made.
        sources: component name -> where it comes from.
    """

    def __init__(
        self,
        assembly: Callable[[], Assembly],
        memory: Memory,
        resolve: Resolve | None,
        admit: Admit,
        sources: Mapping[str, str],
    ) -> None:
        self._assembly, self._memory, self._resolve, self._admit = assembly, memory, resolve, admit
        self._one_at_a_time = asyncio.Lock()
        self.sources = dict(sources)

    async def disable(self, name: str) -> None:
        """Stop one and keep it from starting, over restarts of the node too.

        Raises: NotReady, UnknownComponent, StillNeeded, StateUnavailable.
        """
        async with self._one_at_a_time:
            assembly = self._assembly()
            registry = assembly.board.registry
            if name not in registry.idle:
                registry.with_disabled(name)  # refused while others need it, before anything is written
            try:
                await self._memory.set_disabled(name, disabled=True)
                await assembly.disable(name)
            except BaseException:
                if name in assembly.board.registry.declarations:
                    await self._memory.set_disabled(name, disabled=False)
                raise

    async def enable(self, name: str) -> None:
        """Undo that, and start it together with what could not do without it.

        It is remembered when it runs: one that takes the process down with it must not do so at the next start.
        Raises: NotReady, StateUnavailable, and as `Board.add`.
        """
        async with self._one_at_a_time:
            assembly = self._assembly()
            try:
                await assembly.enable(name)
            finally:
                if name in assembly.board.registry.declarations:
                    await self._memory.set_disabled(name, disabled=False)

    async def register(self, component_type: type[Component], section: Any = None) -> str:
        """Add one for this run; its name. Raises: NotReady, StateUnavailable, and as `Board.add`."""
        async with self._one_at_a_time:
            name = await self._assembly().register(component_type, section)
            await self._memory.set_disabled(name, disabled=False)
            return name

    async def register_source(self, source: str) -> str:
        """The same by `module:Class` or the name of an installed component, with what the files say of it.

        Raises: also ComponentNotLoadable, ConfigError, VaultUnavailable, AuditUnavailable.
        """
        if self._resolve is None:
            raise Unavailable("registering components by name")
        newcomer = self._resolve(source)
        async with self._one_at_a_time:
            self._assembly().board.registry.with_added(
                newcomer.component_type
            )  # refused before anything is read for it
            await self._admit(newcomer.component_type)
            name = await self._assembly().join(newcomer.component_type)
            await self._memory.set_disabled(name, disabled=False)
        self.sources[name] = newcomer.source
        return name

    async def unregister(self, name: str) -> None:
        """Take one off the running node. Raises: NotReady, UnknownComponent, StillNeeded."""
        async with self._one_at_a_time:
            await self._assembly().unregister(name)
