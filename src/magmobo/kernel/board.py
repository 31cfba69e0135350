"""All components of a node by dependency level: up one level after the other, down in reverse; and one by one while it
runs.

Components of one level come up together; the first that fails cancels its siblings. On the way down nobody is waited
for longer than its share of the time left, so that one hanging component cannot take it all. What joins or leaves a
running node does so wholly or not at all, one at a time; the others are not touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from magmobo.contracts.component import Component
from magmobo.contracts.errors import Unavailable
from magmobo.contracts.events import ComponentRegistered, ComponentUnregistered
from magmobo.kernel.config.loader import Config
from magmobo.kernel.errors import ComponentNotAdded, NeedsNotRunning, UnknownComponent
from magmobo.kernel.handles import Handle, Link
from magmobo.kernel.lifecycle import State
from magmobo.kernel.registry import Registry, declare
from magmobo.kernel.slot import PhaseFailed, Slot
from magmobo.kernel.surroundings import Surroundings

_GIVE_UP_SHARE = 0.5


class Board:
    """The slots of one node; `slots` holds idle components too, in state `disabled`.

    Args:
        registry: who takes part and who is idle.
        provided: objects that serve Protocols without being components.
        on_failure: told the name of a component that failed while it ran.
        idle_reasons: why a component is idle, for those that have a better reason than that they are disabled.
    """

    def __init__(
        self,
        registry: Registry,
        around: Surroundings,
        provided: Mapping[type, object],
        on_failure: Callable[[str], None],
        idle_reasons: Mapping[str, str] = {},
    ) -> None:
        self.registry = registry
        self.slots: dict[str, Slot] = {}
        self.idle_reasons = {name: idle_reasons.get(name, "disabled") for name in registry.idle}
        self._around, self._provided, self._on_failure = around, provided, on_failure
        self._links: dict[type, Link] = {}
        self._handles: dict[str, list[tuple[Link, Handle]]] = {}
        self._change: asyncio.Task[None] | None = None
        self._one_at_a_time, self._is_leaving = asyncio.Lock(), False
        for name in (*registry.declarations, *registry.idle):
            self._place(registry, name)

    def slot(self, name: str) -> Slot:
        """The slot of a component, idle or not. Raises: UnknownComponent."""
        if name not in self.slots:
            raise UnknownComponent(name)
        return self.slots[name]

    def in_order(self) -> list[Slot]:
        """Every slot, in the order in which they come up; idle ones last."""
        return [slot for level in self._levels() for slot in level] + [self.slots[name] for name in self.registry.idle]

    # ------------------------------------------------------------ the whole node

    async def load(self, config: Config, *, timeout_s: float) -> None:
        """Construct, configure and boot every component. Raises: PhaseFailed of the first that fails."""
        for level in self._levels():
            for slot in level:
                section = config.section(slot.name) if self._has_section(slot.name) else None
                slot.construct(self._collaborators(slot.name), section)
            await _together(level, lambda slot: slot.boot(timeout_s))

    async def start(self, *, timeout_s: float) -> None:
        """Start every component. Raises: PhaseFailed of the first that fails."""
        for level in self._levels():
            await _together(level, lambda slot: _start(slot, timeout_s))

    async def take_down(self, *, timeout_s: float) -> None:
        """Stop all that was started, then shut down all that was booted; reverse order, never raises for a component.

        A component that is just joining is taken back first. Ends within about `timeout_s`, plus the short grace each
        hook gets to react to its cancellation.
        """
        loop = asyncio.get_running_loop()
        ends_at_s = loop.time() + timeout_s
        await self._end_change(timeout_s * _GIVE_UP_SHARE)
        levels = self._levels()
        steps = [(level, step) for step in (_stop, _shutdown) for level in reversed(levels)]
        for index, (level, step) in enumerate(steps):
            left_s, steps_left = ends_at_s - loop.time(), len(steps) - index
            # Half of what is left, so that the first to drain has time and the last still gets some.
            share_s = max(left_s / min(steps_left, 2), 0.01)
            await asyncio.gather(*(step(slot, share_s) for slot in level))

    # ------------------------------------------------------------ one component of a running node

    async def add(
        self, component_type: type[Component], section: Callable[[], Any], *, start_s: float, stop_s: float
    ) -> str:
        """Register, construct, boot and start a component; its name. Everything it needs must run.

        Args:
            section: asked for its validated configuration, None when it has none, when no other change is under way, so
                that it is the one that counts then.
            start_s: deadline of its boot and of its start.
            stop_s: deadline of its stop and of its shutdown, should it have to be taken back.
        Raises: RegistryError of its kinds, NeedsNotRunning, ComponentNotAdded, Unavailable while the node stops.
            Nothing has changed then, and nothing of the component is left; the same holds for a cancelled caller.
        """
        name = declare(component_type).name

        def plan() -> Coroutine[Any, Any, None]:
            return self._join(self.registry.with_added(component_type), name, section(), start_s, stop_s)

        await self._alone(plan, may_be_ended=True)
        return name

    async def enable(self, name: str, section: Callable[[], Any], *, start_s: float, stop_s: float) -> None:
        """Bring up a component that is idle; one that is not idle is left as it is. Arguments and errors as `add`."""

        def plan() -> Coroutine[Any, Any, None]:
            if name in self.registry.declarations:
                return _nothing()
            return self._join(self.registry.with_enabled(name), name, section(), start_s, stop_s)

        await self._alone(plan, may_be_ended=True)

    async def remove(self, name: str, *, stop_s: float) -> None:
        """Stop and shut down a component and forget it. It ends once begun, also when the caller is cancelled.

        Raises: UnknownComponent, StillNeeded, Unavailable while the node stops; then nothing has changed.
        """
        await self._alone(lambda: self._leave(self.registry.with_removed(name), name, stop_s), may_be_ended=False)

    async def disable(self, name: str, *, stop_s: float, reason: str = "disabled") -> None:
        """As `remove`, but the component stays known, and idle; one that is idle is left as it is."""

        def plan() -> Coroutine[Any, Any, None]:
            if name in self.registry.idle:
                return _nothing()
            return self._leave(self.registry.with_disabled(name), name, stop_s, reason)

        await self._alone(plan, may_be_ended=False)

    async def undisturbed(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` while nobody joins or leaves; the caller's cancellation, and the node's end, end it.

        Raises: Unavailable while the node stops, and whatever `work` raises.
        """
        await self._alone(work, may_be_ended=True)

    async def _join(self, registry: Registry, name: str, section: Any, start_s: float, stop_s: float) -> None:
        down = [other for other in registry.needs(name) if self.slots[other].state is not State.RUNNING]
        if down:
            raise NeedsNotRunning(name, down)
        before, former = self.slots.get(name), self.registry
        slot = self._place(registry, name)
        self.registry = registry
        if before is None:
            self._around.bus.emit(ComponentRegistered(name=name))
        try:
            slot.construct(self._collaborators(name), section)
            await slot.boot(start_s)
            await _start(slot, start_s)
        except BaseException as error:
            try:
                await _outlast(asyncio.create_task(self._finish(slot, stop_s), name="board:take-back"), cancel=False)
            finally:
                self.registry = former
                self._restore(name, before)
            if isinstance(error, PhaseFailed):
                raise ComponentNotAdded(name, error.phase, error.cause) from error.cause
            raise
        self.idle_reasons.pop(name, None)

    async def _leave(self, registry: Registry, name: str, stop_s: float, idle_reason: str = "") -> None:
        await self._finish(self.slots[name], stop_s)
        self.registry = registry
        if name in registry.idle:
            self.idle_reasons[name] = idle_reason
            self._place(registry, name)
        else:
            self._restore(name, None)
            self.idle_reasons.pop(name, None)

    async def _finish(self, slot: Slot, stop_s: float) -> None:
        """Let a component end for good, and nothing of it be left on the board but its slot."""
        await slot.stop(stop_s, for_good=True)
        await slot.shutdown(stop_s)
        for link, handle in self._handles.pop(slot.name, ()):
            link.detach(handle)
        for link in slot.links:
            link.vacate()
            if not link.is_used:
                self._links.pop(link.protocol, None)

    def _restore(self, name: str, before: Slot | None) -> None:
        if before is not None:
            self.slots[name] = before
            return
        del self.slots[name]
        self._around.bus.emit(ComponentUnregistered(name=name))

    # ------------------------------------------------------------ one change at a time

    async def _alone(self, plan: Callable[[], Coroutine[Any, Any, None]], *, may_be_ended: bool) -> None:
        """Run what `plan` gives, in a task of its own, when no other change is under way.

        may_be_ended: the caller's cancellation, or the node's end, ends it; otherwise both wait for it.
        """
        async with self._one_at_a_time:
            if self._is_leaving:
                raise Unavailable("the node")
            change = self._change = asyncio.create_task(plan(), name="board:change")
            self._change_may_be_ended = may_be_ended
            try:
                await _outlast(change, cancel=may_be_ended)
            finally:
                self._change = None
            if change.cancelled():  # by `take_down`
                raise Unavailable("the node")
            change.result()

    async def _end_change(self, timeout_s: float) -> None:
        self._is_leaving = True
        if self._change is not None:
            if self._change_may_be_ended:
                self._change.cancel()
            await asyncio.wait({self._change}, timeout=timeout_s)

    # ------------------------------------------------------------ inside

    def _levels(self) -> list[list[Slot]]:
        return [[self.slots[name] for name in level] for level in self.registry.levels]

    def _place(self, registry: Registry, name: str) -> Slot:
        """A new slot for a member, or for an idle component."""
        declaration = registry.declarations.get(name)
        slot = self.slots[name] = Slot(declaration or registry.idle[name], self._around, self._on_failure)
        if declaration is None:
            slot.lifecycle.to(State.DISABLED)
            return slot
        for index, link in enumerate(slot.links):
            kept = self._links.setdefault(link.protocol, link)
            if kept is not link:  # handles wait for whoever provides this next
                kept.adopt(name)
                slot.links[index] = kept
        return slot

    def _collaborators(self, name: str) -> dict[str, Any]:
        given: dict[str, Any] = {}
        handles = self._handles.setdefault(name, [])
        for dependency in self.registry.declarations[name].dependencies:
            if dependency.protocol in self._provided:
                given[dependency.parameter] = self._provided[dependency.protocol]
            elif self.registry.provider_of(dependency.protocol) is None:
                given[dependency.parameter] = None
            else:
                link = self._links[dependency.protocol]
                handle = given[dependency.parameter] = Handle(link)
                handles.append((link, handle))
        return given

    def _has_section(self, name: str) -> bool:
        return self.registry.declarations[name].component_type.config_type is not None


async def _start(slot: Slot, timeout_s: float) -> None:
    if slot.error is not None:  # a task failed while others came up
        raise PhaseFailed(slot.name, "boot", slot.error)
    await slot.start(timeout_s)


async def _stop(slot: Slot, timeout_s: float) -> None:
    await slot.stop(timeout_s, for_good=True)


async def _shutdown(slot: Slot, timeout_s: float) -> None:
    await slot.shutdown(timeout_s)


async def _nothing() -> None:
    pass


async def _outlast(change: asyncio.Task[None], *, cancel: bool) -> None:
    """Wait for the end of `change`, however often the caller is cancelled; what it takes is bounded by its deadlines.

    cancel: the first cancellation goes on to `change`. Raises: CancelledError, when `change` has ended.
    """
    cancelled: asyncio.CancelledError | None = None
    while not change.done():
        try:
            await asyncio.wait({change})
        except asyncio.CancelledError as error:
            if cancel and cancelled is None:
                change.cancel()
            cancelled = error
    if cancelled is not None:
        if not change.cancelled():
            change.exception()  # nobody else asks
        raise cancelled


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
