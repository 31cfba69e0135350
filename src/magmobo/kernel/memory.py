"""What the kernel itself remembers over restarts: the node, its components' states, and which of them are disabled.

Component states are written some time after they changed and all at once, so that a restart storm costs no disk; what
an operator ordered (disabled, enabled) is durable before the order is answered. Boundary: keys of one State scope.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import MagError
from magmobo.contracts.events import ComponentStateChanged, ComponentUnregistered, Envelope
from magmobo.contracts.stores import State

if TYPE_CHECKING:
    from magmobo.kernel.observe.quiet import QuietLog

_NODE, _STATES, _DISABLED = "node", "components", "disabled"
_LATER_S = 1.0


class Memory:
    """Reads and writes the kernel's own entries. `write_states` runs as a task of the kernel."""

    def __init__(self, state: State, clock: Clock, log: QuietLog) -> None:
        self._state, self._clock, self._log = state, clock, log
        self._states: dict[str, str] = {}
        self._changed = asyncio.Event()

    async def note_node(self, node: Mapping[str, Any]) -> None:
        """Note who this node is."""
        await self._state.put(_NODE, dict(node))

    async def disabled(self) -> frozenset[str]:
        """Names of the components that an operator disabled."""
        entry = await self._state.get(_DISABLED)
        return frozenset(entry.value) if entry is not None and isinstance(entry.value, list) else frozenset()

    async def set_disabled(self, name: str, *, disabled: bool) -> None:
        """Durable when this returns. One call at a time: it reads before it writes."""
        before = await self.disabled()
        after = before | {name} if disabled else before - {name}
        if after != before:
            await self._state.put(_DISABLED, sorted(after))

    def note_all(self, states: Mapping[str, str]) -> None:
        """Which components there are, and in which states."""
        self._states = dict(states)
        self._changed.set()

    def note(self, envelope: Envelope[ComponentStateChanged]) -> None:
        """Handler of `component.state_changed`."""
        self._states[envelope.data.name] = envelope.data.new_state
        self._changed.set()

    def forget(self, envelope: Envelope[ComponentUnregistered]) -> None:
        """Handler of `component.unregistered`."""
        self._states.pop(envelope.data.name, None)
        self._changed.set()

    async def write_states(self) -> None:
        """Write what changed, a moment after it did, until cancelled."""
        while True:
            await self._changed.wait()
            await self._clock.sleep(_LATER_S)
            await self.write_now()

    async def write_now(self) -> None:
        """A state store that cannot be written costs the log a line and nobody a restart."""
        if not self._changed.is_set():
            return
        self._changed.clear()
        try:
            await self._state.put(_STATES, dict(self._states))
        except MagError as error:
            self._log.warning("component states not written", error=f"{error} [{error.code}]")
