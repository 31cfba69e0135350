"""A component that raises, leaves, hangs or ignores its cancellation, in each hook: it is named, and suffers alone."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from contextlib import nullcontext

import pytest
from tests.unit.kernel.supervised import START_S, STUBBORN_S, Actor, Consumer, Node, Provider
from tests.unit.kernel.virtual_time import run_virtually

from magmobo.contracts.errors import MagError
from magmobo.contracts.events import HealthEscalated, HealthFailed
from magmobo.kernel.errors import PhaseTimeout, describe
from magmobo.kernel.slot import PhaseFailed
from magmobo.kernel.supervision.errors import HookStuck

EXPECTED = {
    "raise": r"on purpose \[MAG-TEST-002\]",
    "plain": "LookupError: on purpose",
    "exit": r"it raised SystemExit\(3\) instead of returning \[MAG-LIFE-003\]",
    "odd": r"it raised Odd\(on purpose\) instead of returning \[MAG-LIFE-003\]",
    "cancelled": r"it cancelled itself instead of returning \[MAG-LIFE-003\]",
    "hang": r'of "bad" did not finish within .* waiting at .*supervised.py:\d+ in _misbehave \[MAG-BOOT-002\]',
    "stubborn": r'of "bad" did not finish within .* waiting at .*supervised.py:\d+ in _misbehave \[MAG-BOOT-002\]',
}
kinds = pytest.mark.parametrize("kind", EXPECTED)


class Bad(Actor):
    name = "bad"

    async def recover(self) -> None:
        await self._act("recover")
        self.context.spawn(asyncio.Event().wait(), name="life")


def misbehaving(hook: str, kind: str) -> type[Actor]:
    class Misbehaving(Bad):
        async def boot(self) -> None:
            self.script[hook] = deque([kind])
            await super().boot()

    return Misbehaving


async def untouched(node: Node) -> None:
    """The components beside it run, were never restarted, and answer."""
    await asyncio.sleep(STUBBORN_S)
    for name in ("provider", "consumer"):
        assert node.states(name) == ["configured", "booted", "starting", "running"]
    consumer = node.actor("consumer")
    assert isinstance(consumer, Consumer)
    assert await consumer.store.get() == 2  # type: ignore[attr-defined]


async def left_nothing(node: Node) -> None:
    await node.close()
    await asyncio.sleep(STUBBORN_S)
    assert not asyncio.all_tasks() - {asyncio.current_task()}


@pytest.mark.parametrize("hook", ["boot", "start"])
@kinds
def test_on_the_way_up_the_boot_is_told_who_and_why(hook: str, kind: str) -> None:
    async def story() -> None:
        node = Node(Provider, Consumer, misbehaving(hook, kind))
        with pytest.raises(PhaseFailed) as caught:
            await node.boot()
        assert (caught.value.component, caught.value.phase) == ("bad", hook)
        assert re.search(EXPECTED[kind], describe(caught.value.cause))
        assert node.state("bad") == "failed"
        await left_nothing(node)
        assert node.actor("bad").calls[-1] == "shutdown"

    run_virtually(story())


@kinds
def test_a_start_by_hand_says_why(kind: str) -> None:
    async def story() -> None:
        node = await Node(Provider, Consumer, Bad, recovery={"jitter": 0.0}).boot()
        await node.supervisor.stop("bad")
        node.actor("bad").script["start"] = deque([kind])
        with pytest.raises(MagError) as caught:
            await node.supervisor.start("bad")
        assert caught.value.code != MagError.code
        await untouched(node)
        await asyncio.sleep(2 * STUBBORN_S)
        assert node.state("bad") in ("running", "quarantined" if kind == "stubborn" else "running")
        assert node.actor("bad").overlaps == []
        await left_nothing(node)

    run_virtually(story())


@kinds
def test_in_stop_it_is_failed_and_can_be_started_again(kind: str) -> None:
    async def story() -> None:
        node = await Node(Provider, Consumer, misbehaving("stop", kind)).boot()
        with pytest.raises(MagError):
            await node.supervisor.stop("bad")
        assert node.state("bad") == "failed"
        assert node.slot("bad").footprint.tasks == 1  # what boot spawned
        await untouched(node)
        await node.supervisor.start("bad")
        assert (node.state("bad"), node.slot("bad").error) == ("running", None)
        await left_nothing(node)

    run_virtually(story())


@kinds
def test_in_stop_of_a_restart_it_is_started_all_the_same(kind: str) -> None:
    async def story() -> None:
        node = await Node(Provider, Consumer, misbehaving("stop", kind), recovery={"jitter": 0.0}).boot()
        with pytest.raises(HookStuck) if kind == "stubborn" else nullcontext():
            await node.supervisor.restart("bad")
        await untouched(node)
        await asyncio.sleep(STUBBORN_S)
        assert node.state("bad") == "running"
        assert node.actor("bad").overlaps == []
        await left_nothing(node)

    run_virtually(story())


@kinds
def test_in_shutdown_the_node_still_ends(kind: str) -> None:
    async def story() -> None:
        node = await Node(Provider, Consumer, misbehaving("shutdown", kind)).boot()
        began_s = asyncio.get_running_loop().time()
        await node.close()
        assert asyncio.get_running_loop().time() - began_s < 15
        assert [node.actor(name).calls[-1] for name in ("provider", "consumer", "bad")] == ["shutdown"] * 3
        await asyncio.sleep(STUBBORN_S)

    run_virtually(story())


@kinds
def test_in_recover_the_next_attempt_is_a_stop_and_a_start(kind: str) -> None:
    async def story() -> None:
        node = await Node(Provider, Consumer, misbehaving("recover", kind), recovery={"jitter": 0.0}).boot()
        bad = node.actor("bad")
        bad.crash()
        await asyncio.sleep(30)
        await untouched(node)
        assert node.state("bad") == "running"
        assert bad.overlaps == []
        assert bad.calls[2:] == ["recover", "stop", "start"]
        await left_nothing(node)

    run_virtually(story())


@kinds
def test_in_health_it_is_unhealthy_and_recovered_inside_its_budget(kind: str) -> None:
    async def story() -> None:
        health = {"interval_s": 10, "timeout_s": 2}
        node = await Node(Provider, Consumer, Bad, health=health, recovery={"jitter": 0.0}).boot()
        polling = asyncio.create_task(node.monitor.run())
        bad = node.actor("bad")
        bad.answer = kind
        await asyncio.sleep(18)
        assert node.told(HealthFailed)
        assert node.state("bad") == "running"
        await asyncio.sleep(18)
        assert [(event.name, event.action) for event in node.told(HealthEscalated)] == [("bad", "recover")]
        await asyncio.sleep(200)
        assert node.state("bad") == "quarantined"
        assert bad.calls.count("recover") == 3
        await untouched(node)
        polling.cancel()
        await asyncio.wait({polling})
        await left_nothing(node)

    run_virtually(story())


def test_a_task_that_leaves_through_system_exit_fails_its_component_only() -> None:
    async def story() -> None:
        node = await Node(Provider, Consumer, Bad).boot()
        node.actor("bad").crash(SystemExit(1))
        await asyncio.sleep(0.1)
        assert (node.state("bad"), describe(node.slot("bad").error or OSError())) == (
            "failed",
            "it raised SystemExit(1) instead of returning [MAG-LIFE-003]",
        )
        await asyncio.sleep(5)
        await untouched(node)
        await left_nothing(node)

    run_virtually(story())


def test_a_deadline_is_the_one_that_was_set() -> None:
    async def story() -> None:
        node = await Node(Bad).boot()
        await node.supervisor.stop("bad")
        node.actor("bad").script["start"] = deque(["hang"])
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(PhaseTimeout):
            await node.supervisor.start("bad")
        assert asyncio.get_running_loop().time() - began_s == START_S
        await node.close()

    run_virtually(story())
