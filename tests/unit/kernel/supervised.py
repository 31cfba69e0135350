"""Components that misbehave as they are told, on a board with a supervisor, in virtual time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Protocol

from tests.unit.kernel.virtual_time import LoopClock

from magmobo.contracts.component import Component, Context, Needs
from magmobo.contracts.errors import MagError
from magmobo.contracts.events import ComponentStateChanged, Envelope, Event
from magmobo.contracts.health import HealthReport
from magmobo.kernel.board import Board
from magmobo.kernel.config.core import HealthConfig, KernelConfig, RecoveryConfig
from magmobo.kernel.health import HealthMonitor
from magmobo.kernel.registry import Registry
from magmobo.kernel.slot import Slot
from magmobo.kernel.supervisor import Supervisor
from magmobo.testing.harness import make_config, make_kernel

START_S, STOP_S = 5.0, 3.0
STUBBORN_S = 12.0
HANGS = ("hang", "stubborn")
RAISES = ("raise", "exit", "odd", "cancelled")


class Broken(MagError):
    """A component of the test is broken on purpose."""

    code = "MAG-TEST-002"


class Odd(BaseException):
    """Not an Exception."""


class Tick(Event, frozen=True, gc=False):
    topic = "supervision_tests.tick"


class Store(Protocol):
    async def get(self) -> int: ...


class Actor(Component):
    """Does in each hook what `script` says, one word a call: nothing, `raise`, `exit` (SystemExit), `odd`, `cancelled`,
    `hang`, `stubborn` (it swallows cancellations), `slow`, `crash` (a task of it raises meanwhile).
    """

    name = "actor"

    def __init__(self, context: Context) -> None:
        self.context = context
        self.script: dict[str, deque[str]] = {}
        self.always: dict[str, str] = {}
        self.calls: list[str] = []
        self.inside: list[str] = []
        self.overlaps: list[tuple[str, ...]] = []
        self.ticks = 0
        self.answer: HealthReport | str = HealthReport.of()
        self._doom: asyncio.Future[None] | None = None

    def crash(self, error: BaseException | None = None) -> None:
        """A task of the running component raises."""
        assert self._doom is not None
        self._doom.set_exception(error or Broken("crashed"))

    async def boot(self) -> None:
        self.context.spawn(asyncio.Event().wait(), name="of boot")
        self.context.bus.on(Tick, self._tick)
        await self._act("boot")

    async def start(self) -> None:
        self._doom = asyncio.get_running_loop().create_future()
        self.context.spawn(self._live(self._doom), name="life")
        self.context.bus.on(Tick, self._tick)
        await self._act("start")

    async def stop(self) -> None:
        await self._act("stop")

    async def shutdown(self, timeout_s: float) -> None:
        await self._act("shutdown")

    async def health(self) -> HealthReport:
        if isinstance(self.answer, str):
            await self._misbehave(self.answer)
            return HealthReport.of()
        return self.answer

    async def _live(self, doom: asyncio.Future[None]) -> None:
        await doom

    def _tick(self, _: Envelope[Tick]) -> None:
        self.ticks += 1

    async def _act(self, hook: str) -> None:
        self.calls.append(hook)
        self.inside.append(hook)
        if len(self.inside) > 1:
            self.overlaps.append(tuple(self.inside))
        try:
            words = self.script.get(hook)
            await self._misbehave(words.popleft() if words else self.always.get(hook, ""))
        finally:
            self.inside.remove(hook)

    async def _misbehave(self, word: str) -> None:
        if word == "raise":
            raise Broken("on purpose")
        if word == "plain":
            raise LookupError("on purpose")
        if word == "exit":
            raise SystemExit(3)
        if word == "odd":
            raise Odd("on purpose")
        if word == "cancelled":
            raise asyncio.CancelledError
        if word == "slow":
            await asyncio.sleep(1)
        if word == "crash" and self._doom is not None and not self._doom.done():
            self.crash()
            await asyncio.Event().wait()
        if word == "hang":
            await asyncio.Event().wait()
        if word == "stubborn":
            ends_at_s = asyncio.get_running_loop().time() + STUBBORN_S
            while (left_s := ends_at_s - asyncio.get_running_loop().time()) > 0:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(left_s)


class Reviving(Actor):
    """Has a `recover` of its own, which neither stops nor starts."""

    async def recover(self) -> None:
        self._doom = asyncio.get_running_loop().create_future()
        self.context.spawn(self._live(self._doom), name="life")
        await self._act("recover")


class Provider(Actor):
    name = "provider"
    provides = (Store,)

    async def get(self) -> int:
        return len(self.calls)


class Consumer(Actor):
    name = "consumer"

    def __init__(self, context: Context, store: Needs[Store]) -> None:
        super().__init__(context)
        self.store = store


class Node:
    """A board, a supervisor and a health monitor, as the kernel joins them."""

    def __init__(
        self,
        *components: type[Component],
        recovery: Mapping[str, Any] = {},
        health: Mapping[str, Any] = {},
        seed: int = 0,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.clock = LoopClock(loop)
        # Never booted: it only makes what all components of a node have in common; its stores stay closed.
        kernel = make_kernel(*components, data_dir=Path("/nowhere"), clock=self.clock)
        self.bus = kernel.bus
        self.events: list[Event] = []
        self.bus.scoped("test").on("**", lambda envelope: self.events.append(envelope.data))
        self.exits: list[str] = []
        self.active = False
        self._components = components
        registry = Registry(components)
        self.board = Board(registry, kernel._around, {}, self._failed)
        self.supervisor = Supervisor(
            self.board.slots, RecoveryConfig(**recovery), KernelConfig(start_timeout_s=START_S, stop_timeout_s=STOP_S),
            self.bus, self.clock, Random(seed), self.exits.append, lambda: self.active,
        )  # fmt: skip
        self.monitor = HealthMonitor(
            self.board.slots, registry.needs, HealthConfig(**health), self.bus, self.clock, self.supervisor
        )

    def _failed(self, name: str) -> None:
        self.supervisor.failed(name)

    async def boot(self) -> Node:
        await self.board.load(make_config(*self._components), timeout_s=START_S)
        await self.board.start(timeout_s=START_S)
        self.active = True
        return self

    async def close(self) -> None:
        """As the kernel goes down; then nothing may be left."""
        self.active = False
        await self.supervisor.close()
        await self.board.take_down(timeout_s=10)
        self.bus.cancel_all("test")
        assert self.bus.subscription_count() == 0

    def slot(self, name: str = "actor") -> Slot:
        return self.board.slots[name]

    def actor(self, name: str = "actor") -> Actor:
        component = self.slot(name).component
        assert isinstance(component, Actor)
        return component

    def state(self, name: str = "actor") -> str:
        return str(self.slot(name).state)

    def told(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def states(self, name: str = "actor") -> list[str]:
        return [change.new_state for change in self.told(ComponentStateChanged) if change.name == name]
