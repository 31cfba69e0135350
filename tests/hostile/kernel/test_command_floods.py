"""Commands by the thousand: components cannot crowd people out, and a refusal in a loop does not fill the disk."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.kernel.command_fakes import VIEWER, Order, Ping, Pong, Room

from magmobo.contracts.capabilities import Actor, Role
from magmobo.kernel.commands.denials import MAX_PAIRS, RECORDED, WINDOW_S, Denials
from magmobo.kernel.commands.errors import TooManyCommands
from magmobo.kernel.security.errors import CapabilityDenied, JustificationRefused
from magmobo.testing.clock import FakeClock

BUSY = Actor(name="component:busy", role=Role.VIEWER, via="component")


async def test_a_component_that_floods_the_bus_leaves_places_for_people() -> None:
    room = Room(max_in_flight=8)
    release = asyncio.Event()

    async def act() -> None:
        await release.wait()

    room.act = act  # type: ignore[method-assign]
    flood = [asyncio.create_task(room.bus.call(Ping(), actor=BUSY)) for _ in range(100)]
    await asyncio.sleep(0.001)
    people = [asyncio.create_task(room.bus.call(Ping(), actor=VIEWER)) for _ in range(2)]
    await asyncio.sleep(0.001)
    release.set()
    assert await asyncio.gather(*people) == [Pong(0)] * 2
    refused = [one for one in await asyncio.gather(*flood, return_exceptions=True) if isinstance(one, TooManyCommands)]
    assert len(refused) == 100 - 6
    await room.settled()


async def test_a_denial_in_a_loop_is_recorded_a_few_times_and_counted() -> None:
    room = Room()
    for _ in range(1_000):
        with pytest.raises(CapabilityDenied):
            await room.bus.call(Order(), actor=BUSY)
    assert len(room.audit.records) == RECORDED
    assert room.gate.decisions().denied == 1_000
    await room.clock.advance(WINDOW_S)
    with pytest.raises(CapabilityDenied):
        await room.bus.call(Order(), actor=BUSY)
    assert room.audit.records[-1]["unrecorded"] == 1_000 - RECORDED


async def test_a_flood_hides_nobody_else() -> None:
    room = Room()
    for _ in range(100):
        with pytest.raises(CapabilityDenied):
            await room.bus.call(Order(), actor=BUSY)
    with pytest.raises(CapabilityDenied):
        await room.bus.call(Order(), actor=VIEWER)
    assert room.audit.records[-1]["actor"] == VIEWER.name
    with pytest.raises(CapabilityDenied):
        await room.bus.run("test:enrol", b'{"user": "a", "password": "b"}', actor=BUSY)
    assert room.audit.records[-1]["command"] == "test:enrol"


async def test_nor_does_a_flood_of_justifications_that_are_none() -> None:
    room = Room()
    actor = Actor(name="uid:1", role=Role.VIEWER, via="control", justification="x" * 501)
    for _ in range(100):
        with pytest.raises(JustificationRefused):
            await room.bus.call(Order(), actor=actor)
    assert len(room.audit.records) == RECORDED


def test_what_is_remembered_is_bounded() -> None:
    denials = Denials(FakeClock().monotonic_s)
    for number in range(10 * MAX_PAIRS):
        assert denials.admit(f"uid:{number}", "test:order") == 0
    assert len(denials._pairs) == MAX_PAIRS
