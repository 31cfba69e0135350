"""Failed components come back inside their budgets, or are given up; an operator's word counts at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import pytest
from tests.unit.kernel.supervised import START_S, Actor, Broken, Consumer, Node, Provider, Reviving, Tick
from tests.unit.kernel.virtual_time import run_virtually

from magmobo.contracts.errors import Unavailable
from magmobo.contracts.events import ComponentFailed, ComponentQuarantined, ComponentRecoveryFailed
from magmobo.kernel.errors import IllegalTransition, PhaseTimeout, UnknownComponent
from magmobo.kernel.supervision.errors import ComponentFailure, HookStuck, NotNow

NO_JITTER = {"jitter": 0.0}


def virtually(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_virtually(test(*args, **kwargs))

    return run


async def up(*components: type[Actor], **config: Any) -> Node:
    return await Node(*(components or (Actor,)), **config).boot()


# ---------------------------------------------------------------- coming back


@virtually
async def test_a_crash_is_answered_after_a_pause_by_stop_and_start_on_the_same_instance() -> None:
    node = await up(recovery=NO_JITTER)
    actor = node.actor()
    actor.calls.clear()
    actor.crash()
    await asyncio.sleep(0.99)
    assert node.state() == "failed"
    await asyncio.sleep(0.02)
    assert node.state() == "running"
    assert node.actor() is actor
    assert actor.calls == ["stop", "start"]
    assert node.states()[-3:] == ["failed", "recovering", "running"]
    [note] = node.supervisor.notes("actor")
    assert (note.by, note.reason, note.away_s) == ("supervisor", "crashed [MAG-TEST-002]", 1.0)
    assert note.at == "2023-11-14T22:13:21.000+00:00"
    assert node.slot().restarts == 1
    await node.close()


@virtually
async def test_a_component_that_keeps_failing_is_tried_after_1_2_and_4_seconds_and_then_left_alone() -> None:
    node = await up(recovery=NO_JITTER)
    actor = node.actor()
    actor.always["start"] = "raise"
    actor.calls.clear()
    actor.crash()
    for at_s, attempts in ((0.9, 0), (1.1, 1), (2.9, 1), (3.1, 2), (6.9, 2), (7.1, 3)):
        await asyncio.sleep(at_s - asyncio.get_running_loop().time())
        assert actor.calls.count("start") == attempts
    assert node.state() == "quarantined"
    await asyncio.sleep(1000)
    assert actor.calls == ["stop", "start"] * 3 + ["stop"]  # nothing half started is left running
    assert [event.restart_count for event in node.told(ComponentRecoveryFailed)] == [1, 2, 3]
    assert [(event.restart_count, event.until) for event in node.told(ComponentQuarantined)] == [(3, "")]
    assert node.supervisor.budget_left("actor") == 3  # but nobody spends it
    assert node.slot().footprint.tasks == 1  # what boot spawned
    assert node.exits == []
    await node.close()


@virtually
async def test_pauses_are_spread_by_the_jitter() -> None:
    pauses = set()
    for seed in range(20):
        node = await up(recovery={"jitter": 0.2}, seed=seed)
        node.actor().crash()
        await asyncio.sleep(0.79)
        assert node.state() == "failed"
        await asyncio.sleep(0.42)
        assert node.state() == "running"
        pauses.add(node.supervisor.notes("actor")[0].away_s)
        await node.close()
    assert len(pauses) == 20
    assert max(pauses) - min(pauses) > 0.2


@virtually
async def test_crashes_inside_the_window_use_the_budget_up() -> None:
    node = await up(recovery=NO_JITTER)
    for left in (3, 2, 1):
        assert node.supervisor.budget_left("actor") == left
        node.actor().crash()
        await asyncio.sleep(9)
        assert node.state() == "running"
    node.actor().crash()
    await asyncio.sleep(0.01)
    assert node.state() == "quarantined"
    assert node.states()[-3:] == ["failed", "recovering", "quarantined"]
    await node.close()


@virtually
async def test_a_component_that_ran_for_the_window_has_its_full_budget_again() -> None:
    node = await up(recovery=NO_JITTER)
    for _ in range(10):
        for _ in range(2):
            node.actor().crash()
            await asyncio.sleep(5)
        assert node.supervisor.budget_left("actor") == 1
        await asyncio.sleep(61)
        assert node.supervisor.budget_left("actor") == 3
    assert (node.state(), node.slot().restarts) == ("running", 20)
    assert len(node.supervisor.notes("actor")) == 20
    await node.close()


@virtually
async def test_attempts_that_hang_longer_than_the_window_still_use_the_budget_up() -> None:
    node = await up(recovery=NO_JITTER | {"window_s": 10.0, "backoff_s": 0.5, "restarts": 4})
    node.actor().always["start"] = "hang"  # for the whole deadline, half of the window
    node.actor().crash()
    await asyncio.sleep(10 * START_S)
    assert node.state() == "quarantined"
    assert len(node.told(ComponentRecoveryFailed)) == 4
    await node.close()


@virtually
async def test_without_any_restarts_the_first_failure_is_the_last() -> None:
    node = await up(recovery={"restarts": 0})
    node.actor().crash()
    await asyncio.sleep(0.01)
    assert node.state() == "quarantined"
    await node.close()


@virtually
async def test_a_step_of_the_wall_clock_changes_nothing() -> None:
    node = await up(recovery=NO_JITTER)
    for step_s in (-86_400, 86_400, 3.2e8):
        node.clock.step_wall_time(step_s)
        node.actor().crash()
        node.clock.step_wall_time(-step_s / 2)
        await asyncio.sleep(0.9 * 2 ** (3 - node.supervisor.budget_left("actor")))
        assert node.state() == "failed"
        await asyncio.sleep(2)
        assert node.state() == "running"
        node.clock.step_wall_time(step_s)
    assert node.supervisor.budget_left("actor") == 0
    assert all(0.9 < note.away_s < 4.1 for note in node.supervisor.notes("actor"))
    await node.close()


@virtually
async def test_quarantine_of_a_listed_component_ends_the_node_and_of_another_does_not() -> None:
    node = await up(Provider, Consumer, recovery={"restarts": 0, "exit_on": ("consumer",)})
    node.actor("provider").crash()
    await asyncio.sleep(1)
    assert (node.state("provider"), node.exits) == ("quarantined", [])
    node.actor("consumer").crash()
    await asyncio.sleep(1)
    assert node.exits == ["consumer"]
    await node.close()


@virtually
async def test_a_storm_of_one_component_delays_nobody_else() -> None:
    node = await up(Provider, Consumer, recovery=NO_JITTER)
    node.actor("provider").always |= {"start": "hang", "stop": "hang"}
    node.actor("provider").crash()
    node.actor("consumer").crash()
    await asyncio.sleep(1.01)
    assert (node.state("provider"), node.state("consumer")) == ("recovering", "running")
    await asyncio.sleep(100)
    assert node.state("provider") == "quarantined"
    node.actor("consumer").crash()
    await asyncio.sleep(1.01)
    assert node.state("consumer") == "running"
    await node.close()


# ---------------------------------------------------------------- a component's own recover


@virtually
async def test_an_own_recover_is_asked_first_and_keeps_what_it_has() -> None:
    node = await up(Reviving, recovery=NO_JITTER)
    actor = node.actor()
    actor.calls.clear()
    actor.crash()
    await asyncio.sleep(1.1)
    assert (node.state(), actor.calls) == ("running", ["recover"])
    node.bus.emit(Tick())
    assert actor.ticks == 2  # the subscriptions of boot and start
    actor.crash()
    await asyncio.sleep(2.1)
    assert actor.calls == ["recover", "recover"]
    await node.close()


@virtually
async def test_after_a_failed_recover_every_attempt_is_a_clean_stop_and_start() -> None:
    node = await up(Reviving, recovery=NO_JITTER)
    actor = node.actor()
    actor.calls.clear()
    actor.always["recover"] = "raise"
    actor.always["stop"] = "raise"  # tolerated
    actor.crash()
    await asyncio.sleep(10)
    assert (node.state(), actor.calls) == ("running", ["recover", "stop", "start"])
    node.bus.emit(Tick())
    assert actor.ticks == 2
    assert node.slot().error is None
    await node.close()


@virtually
async def test_a_task_that_fails_while_the_component_comes_back_is_a_failed_attempt_at_once() -> None:
    node = await up(recovery=NO_JITTER)
    node.actor().script["start"] = deque(["crash"])
    node.actor().crash()
    await asyncio.sleep(1.1)
    assert node.state() == "failed"
    await asyncio.sleep(2.1)
    assert node.state() == "running"
    await node.close()


# ---------------------------------------------------------------- operators


@virtually
async def test_a_restart_by_hand_resets_the_budget_and_is_noted() -> None:
    node = await up(recovery=NO_JITTER)
    for _ in range(3):
        node.actor().crash()
        await asyncio.sleep(5)
    assert node.supervisor.budget_left("actor") == 0
    await node.supervisor.restart("actor")
    assert node.supervisor.budget_left("actor") == 3
    note = node.supervisor.notes("actor")[-1]
    assert (note.by, note.reason) == ("operator", "asked for")
    node.actor().crash()
    await asyncio.sleep(1.1)
    assert node.state() == "running"
    await node.close()


@pytest.mark.parametrize("request_it", ["restart", "start"])
@virtually
async def test_a_quarantined_component_is_started_by_hand(request_it: str) -> None:
    node = await up(recovery={"restarts": 0})
    node.actor().crash()
    await asyncio.sleep(1)
    await getattr(node.supervisor, request_it)("actor")
    assert node.state() == "running"
    assert node.slot().error is None
    assert node.supervisor.notes("actor")[-1].reason == "crashed [MAG-TEST-002]"
    await node.close()


@virtually
async def test_a_request_takes_over_from_a_pending_recovery() -> None:
    node = await up(recovery=NO_JITTER)
    actor = node.actor()
    actor.crash()
    await asyncio.sleep(0.5)
    actor.calls.clear()
    await node.supervisor.restart("actor")
    assert node.state() == "running"
    await asyncio.sleep(100)
    assert actor.calls == ["stop", "start"]
    await node.close()


@virtually
async def test_a_request_takes_over_from_an_attempt_that_hangs() -> None:
    node = await up(recovery=NO_JITTER)
    actor = node.actor()
    actor.script["start"] = deque(["hang"])
    actor.crash()
    await asyncio.sleep(1.5)
    assert node.state() == "recovering"
    await node.supervisor.start("actor")
    assert (node.state(), actor.overlaps) == ("running", [])
    assert node.told(ComponentRecoveryFailed) == []
    await node.close()


@virtually
async def test_stopping_a_failed_component_keeps_it_from_being_recovered() -> None:
    node = await up()
    node.actor().crash()
    await asyncio.sleep(0.1)
    await node.supervisor.stop("actor")
    await asyncio.sleep(1000)
    assert node.state() == "failed"
    assert node.slot().footprint.tasks == 1
    await node.supervisor.start("actor")
    assert node.state() == "running"
    await node.close()


@virtually
async def test_a_start_that_fails_says_why_and_the_component_is_then_recovered() -> None:
    node = await up(recovery=NO_JITTER)
    actor = node.actor()
    await node.supervisor.stop("actor")
    actor.script["start"] = deque(["raise", "plain"])
    with pytest.raises(Broken, match="on purpose"):
        await node.supervisor.start("actor")
    with pytest.raises(ComponentFailure, match='start of "actor" failed: LookupError'):
        await node.supervisor.start("actor")
    assert node.state() == "failed"
    await asyncio.sleep(1.1)
    assert node.state() == "running"
    assert actor.overlaps == []
    await node.close()


@virtually
async def test_a_stop_that_passes_its_deadline_leaves_it_failed_until_it_is_started_by_hand() -> None:
    node = await up()
    node.actor().script["stop"] = deque(["hang"])
    with pytest.raises(PhaseTimeout, match=r'stop of "actor".* waiting at .*supervised.py:'):
        await node.supervisor.stop("actor")
    assert (node.state(), node.slot().footprint.tasks) == ("failed", 1)
    await asyncio.sleep(1000)
    assert node.state() == "failed"
    await node.supervisor.start("actor")
    assert node.state() == "running"
    await node.close()


@virtually
async def test_no_hook_begins_beside_one_that_ignores_its_cancellation() -> None:
    node = await up(recovery=NO_JITTER)
    actor = node.actor()
    actor.script["start"] = deque(["stubborn"])
    with pytest.raises(PhaseTimeout):
        await node.supervisor.restart("actor")
    with pytest.raises(HookStuck, match='start of "actor" was cancelled but still waits at'):
        await node.supervisor.start("actor")
    await asyncio.sleep(20)
    assert (node.state(), actor.overlaps) == ("running", [])
    await node.close()


@virtually
async def test_requests_at_the_same_time_follow_each_other() -> None:
    node = await up()
    actor = node.actor()
    actor.calls.clear()
    actor.always |= {"start": "slow", "stop": "slow"}
    requests = [node.supervisor.restart("actor") for _ in range(3)]
    await asyncio.gather(*requests, node.supervisor.stop("actor"))
    assert (node.state(), actor.overlaps) == ("stopped", [])
    assert actor.calls == ["stop", "start"] * 3 + ["stop"]
    await asyncio.sleep(1000)
    assert node.state() == "stopped"
    await node.close()


@virtually
async def test_who_asks_and_goes_away_does_not_leave_the_component_half_way() -> None:
    node = await up()
    node.actor().always |= {"start": "slow", "stop": "slow"}
    asking = asyncio.create_task(node.supervisor.restart("actor"))
    await asyncio.sleep(1.5)
    assert node.state() == "starting"
    asking.cancel()
    await asyncio.sleep(1)
    assert node.state() == "running"
    await node.close()


@virtually
async def test_requests_that_make_no_sense_are_refused_and_change_nothing() -> None:
    node = await up()
    with pytest.raises(IllegalTransition, match="from running to starting"):
        await node.supervisor.start("actor")
    for request in (node.supervisor.start, node.supervisor.stop, node.supervisor.restart):
        with pytest.raises(UnknownComponent):
            await request("nobody")
    for ask in (node.supervisor.notes, node.supervisor.budget_left):
        with pytest.raises(UnknownComponent):
            ask("nobody")
    assert (node.state(), node.actor().calls) == ("running", ["boot", "start"])
    await node.board.disable("actor", stop_s=1)
    for request in (node.supervisor.start, node.supervisor.stop, node.supervisor.restart):
        with pytest.raises(IllegalTransition, match="from disabled"):
            await request("actor")
    await node.close()


# ---------------------------------------------------------------- the node's own life


@virtually
async def test_nothing_is_recovered_while_the_node_is_not_active() -> None:
    node = await up()
    node.active = False
    node.actor().crash()
    await asyncio.sleep(1000)
    assert node.state() == "failed"
    with pytest.raises(NotNow):
        await node.supervisor.start("actor")
    node.active = True
    node.supervisor.take_charge()
    await asyncio.sleep(2)
    assert node.state() == "running"
    await node.close()


@pytest.mark.parametrize("after_s", [0.5, 1.5])
@virtually
async def test_the_end_of_the_node_ends_recoveries(after_s: float) -> None:
    node = await up(recovery=NO_JITTER)
    node.actor().always["start"] = "hang"
    node.actor().crash()
    await asyncio.sleep(after_s)
    await node.close()
    assert node.state() == "failed"
    assert node.actor().calls[-1] == "shutdown"


@virtually
async def test_a_request_under_way_is_told_that_the_node_goes_down() -> None:
    node = await up()
    node.actor().always["start"] = "hang"
    asking = asyncio.create_task(node.supervisor.restart("actor"))
    await asyncio.sleep(0.5)
    await node.close()
    with pytest.raises(NotNow):
        await asking
    assert node.actor().overlaps == []


@virtually
async def test_a_shutdown_does_not_wait_for_a_start_under_way() -> None:
    """Even when nobody closed the supervisor first."""
    node = await up()
    actor, loop = node.actor(), asyncio.get_running_loop()
    actor.always["start"] = "hang"
    await node.slot().stop(1, for_good=False)
    asking = asyncio.create_task(node.slot().start(1000))
    await asyncio.sleep(1)
    began_s = loop.time()
    await node.slot().stop(5, for_good=True)
    await node.slot().shutdown(5)
    assert loop.time() - began_s < 1
    assert actor.calls[-2:] == ["stop", "shutdown"]
    assert (await asyncio.gather(asking, return_exceptions=True))[0] is not None
    with pytest.raises(NotNow):
        await node.slot().start(5)
    await node.close()


# ---------------------------------------------------------------- consumers


@virtually
async def test_a_consumer_waits_through_its_providers_restart_and_is_not_touched() -> None:
    node = await up(Provider, Consumer)
    consumer = node.actor("consumer")
    store = consumer.store  # type: ignore[attr-defined]
    node.actor("provider").crash()
    await asyncio.sleep(0.1)
    assert await store.get() == 4
    node.actor("provider").always["stop"] = "slow"
    restarting = asyncio.create_task(node.supervisor.restart("provider"))
    await asyncio.sleep(0.5)
    assert await asyncio.gather(store.get(), store.get()) == [6, 6]
    await restarting
    assert consumer.calls == ["boot", "start"]
    assert node.states("consumer") == ["configured", "booted", "starting", "running"]
    await node.close()


@virtually
async def test_calls_to_a_provider_that_is_given_up_fail_at_once() -> None:
    node = await up(Provider, Consumer, recovery={"restarts": 0})
    store = node.actor("consumer").store  # type: ignore[attr-defined]
    node.actor("provider").crash()
    await asyncio.sleep(0.1)
    before_s = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable):
        await store.get()
    with pytest.raises(Unavailable):
        await store.get()
    assert asyncio.get_running_loop().time() == before_s
    waiting = asyncio.create_task(node.supervisor.start("provider"))
    await waiting
    assert await store.get() > 0
    assert node.told(ComponentFailed)[0].name == "provider"
    await node.close()
