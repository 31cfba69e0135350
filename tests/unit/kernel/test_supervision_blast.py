"""How far a crash reaches: one component, and nobody else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from inspect import Parameter, Signature
from pathlib import Path
from random import Random
from typing import Any, Protocol

import pytest
import structlog

from magmobo.contracts.component import Component, Context, Needs
from magmobo.contracts.events import ComponentStateChanged, ComponentStopped
from magmobo.kernel.kernel import Kernel
from magmobo.testing.clock import FakeClock
from magmobo.testing.harness import running_kernel

COMPONENTS, CRASHES = 73, 1000
LIMIT_S = 60.0


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


class Fake(Component):
    """Counts its hooks, answers calls, and crashes when told to."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.starts = self.stops = 0
        self.providers: list[Any] = []
        self.crash: asyncio.Future[None] | None = None

    async def start(self) -> None:
        self.starts += 1
        self.crash = asyncio.get_running_loop().create_future()
        self.context.spawn(self._live(self.crash), name="life")

    async def stop(self) -> None:
        self.stops += 1

    async def _live(self, crash: asyncio.Future[None]) -> None:
        await crash

    async def ping(self) -> int:
        return self.starts


def fake(number: int, protocols: list[type], random: Random) -> type[Component]:
    """A component that provides a Protocol of its own and needs up to three of those before it."""

    class Ping(Protocol):
        async def ping(self) -> int: ...

    needed = random.sample(protocols, k=min(len(protocols), random.randrange(4)))
    protocols.append(Ping)

    def __init__(self: Any, context: Context, **providers: Any) -> None:
        Fake.__init__(self, context)
        self.providers = list(providers.values())

    # The kernel reads a constructor's parameters and annotations: here they are made instead of written.
    names = [f"p{index}" for index in range(len(needed))]
    parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", "context", *names)]
    __init__.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    __init__.__annotations__ = {"context": Context} | {
        name: Needs[protocol]  # type: ignore[valid-type]
        for name, protocol in zip(names, needed, strict=True)
    }
    body = {"name": f"fake{number}", "provides": (Ping,), "__init__": __init__}
    return type(f"Fake{number}", (Fake,), body)


def instances(kernel: Kernel) -> dict[str, Any]:
    return {slot.name: slot.component for slot in kernel.slots}


async def call_everybody(fakes: dict[str, Any]) -> int:
    """One call through every handle; raises when one fails."""
    calls = [provider.ping() for one in fakes.values() for provider in one.providers]
    await asyncio.gather(*calls)
    return len(calls)


async def test_1000_random_crashes_over_73_components_restart_exactly_one_each(tmp_path: Path) -> None:
    random, clock, protocols = Random(73), FakeClock(), list[type]()
    types = [fake(number, protocols, random) for number in range(COMPONENTS)]
    config = {"recovery": {"jitter": 0.0}, "health": {"interval_s": 3600}}
    async with running_kernel(*types, clock=clock, config=config, data_dir=tmp_path) as kernel:
        before, changes, stopped = instances(kernel), list[ComponentStateChanged](), list[str]()
        watching = (
            kernel.bus.on(ComponentStateChanged, lambda envelope: changes.append(envelope.data)),
            kernel.bus.on(ComponentStopped, lambda envelope: stopped.append(envelope.data.name)),
        )
        expected = dict.fromkeys(before, 0)
        total = calls = 0
        while total < CRASHES:
            victims = random.sample(sorted(before), k=min(random.choice((1, 1, 1, 2, 5)), CRASHES - total))
            changes.clear()
            for name in victims:
                before[name].crash.set_exception(RuntimeError("crashed on purpose"))
                expected[name] += 1
            await clock.advance(0.5)
            assert {slot.name for slot in kernel.slots if slot.state != "running"} == set(victims)
            calling = asyncio.create_task(call_everybody(before))  # while the victims are down
            await clock.advance(0.5)
            async with asyncio.timeout(LIMIT_S):
                calls += await calling
            assert {change.name for change in changes} == set(victims)
            assert len(changes) == 3 * len(victims)  # failed, recovering, running
            total += len(victims)
            await clock.advance(61)
        assert {slot.name: slot.restarts for slot in kernel.slots} == expected
        assert {name: (one.starts - 1, one.stops) for name, one in before.items()} == {
            name: (count, count) for name, count in expected.items()
        }
        assert all(component is before[name] for name, component in instances(kernel).items())
        assert (kernel.state, stopped) == ("ready", [])
        assert calls > 50 * COMPONENTS
        for one in watching:
            one.cancel()
