"""Thresholds with hysteresis, causes named, and only those restarted whom a restart can help."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.kernel.supervised import Actor, Consumer, Node, Provider
from tests.unit.kernel.virtual_time import run_virtually

from magmobo.contracts.component import Context, Needs
from magmobo.contracts.events import (
    ComponentFailed,
    HealthCheckComplete,
    HealthDegraded,
    HealthEscalated,
    HealthFailed,
    HealthRecovered,
    HealthStatusChanged,
)
from magmobo.contracts.health import HealthCheck, HealthReport, HealthStatus
from magmobo.kernel.config.core import HealthConfig
from magmobo.kernel.health import _Record

WELL = HealthReport.of(HealthCheck("a", HealthStatus.HEALTHY, "fine"))
POOR = HealthReport.of(HealthCheck("a", HealthStatus.HEALTHY), HealthCheck("lag", HealthStatus.DEGRADED, "3 s"))
SICK = HealthReport.of(HealthCheck("a", HealthStatus.HEALTHY), HealthCheck("answers", HealthStatus.UNHEALTHY, "none"))
OUTSIDE = HealthReport.of(HealthCheck("database", HealthStatus.UNHEALTHY, "refused", outside=True))
LETTERS = {"w": WELL, "p": POOR, "s": SICK}


class Third(Protocol):
    async def nothing(self) -> None: ...


class Far(Consumer):
    name = "far"

    def __init__(self, context: Context, middle: Needs[Third]) -> None:
        Actor.__init__(self, context)
        self.middle = middle


class Middle(Consumer):
    name = "middle"
    provides = (Third,)

    async def nothing(self) -> None: ...


async def up(*components: type[Actor], **health: Any) -> Node:
    node = Node(*(components or (Actor,)), health={"failures": 3, "successes": 2} | health, recovery={"jitter": 0.0})
    return await node.boot()


async def polled(node: Node, answers: str, name: str = "actor") -> list[str]:
    """What the component counts as after each of these answers."""
    counted = []
    for letter in answers:
        node.actor(name).answer = LETTERS[letter]
        await node.monitor.poll_once()
        counted.append(str(node.monitor.status(name)))
    return counted


def initials(counted: list[str]) -> str:
    return "".join({"healthy": "w", "degraded": "p", "unhealthy": "s"}[one] for one in counted)


@pytest.mark.parametrize(
    ("answers", "counted"),
    [
        ("www", "www"),
        ("wssw", "wwww"),  # a hiccup is none
        ("wsswssw", "wwwwwww"),
        ("wsss", "wwws"),
        ("wssswsww", "wwwssssw"),  # better twice in a row, not once
        ("wp", "wp"),  # degraded is believed at once
        ("wpwpw", "wpppp"),
        ("wpww", "wppw"),
        ("wsspsss", "wwwppps"),
        ("wssspp", "wwwssp"),
        ("wsssppww", "wwwssppw"),
    ],
)
def test_worse_and_better_count_by_their_thresholds(answers: str, counted: str) -> None:
    async def story() -> None:
        node = await up(on_unhealthy="report")
        assert initials(await polled(node, answers)) == counted
        await node.close()

    run_virtually(story())


@given(st.text("wps", max_size=60), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=300, deadline=None)
def test_the_status_never_changes_without_its_threshold(answers: str, failures: int, successes: int) -> None:
    config = HealthConfig(failures=failures, successes=successes)
    record = _Record(1, None)
    severity = list(HealthStatus).index
    for index, letter in enumerate(answers):
        before = record.status
        record.status = record.judge(LETTERS[letter], config)
        after, recent = record.status, answers[: index + 1]
        if after is HealthStatus.UNHEALTHY and before is not after:
            assert recent.endswith("s" * failures)
        if recent.endswith("s" * failures):
            assert after is HealthStatus.UNHEALTHY
        if severity(after) < severity(before):
            assert len(recent) >= successes
            assert all(severity(LETTERS[one].status) < severity(before) for one in recent[-successes:])
        if recent.endswith("w" * max(successes, 1)) or recent == "w":
            assert after is HealthStatus.HEALTHY
        assert record.bad == len(recent) - len(recent.rstrip("s"))


def test_changes_are_told_with_what_is_wrong() -> None:
    async def story() -> None:
        node = await up(on_unhealthy="report")
        await polled(node, "wpsssssww")
        changes = [(event.old_status, event.new_status) for event in node.told(HealthStatusChanged)]
        assert changes == [("healthy", "degraded"), ("degraded", "unhealthy"), ("unhealthy", "healthy")]
        assert [event.metrics for event in node.told(HealthDegraded)] == [{"lag": "3 s"}]
        assert [(e.metrics, e.action) for e in node.told(HealthEscalated)] == [({"answers": "none"}, "report")]
        assert [event.name for event in node.told(HealthRecovered)] == ["actor"]
        rounds = node.told(HealthCheckComplete)
        assert [event.system for event in rounds[:2]] == ["healthy", "degraded"]
        assert (rounds[4].system, rounds[4].components) == ("unhealthy", {"actor": "unhealthy"})
        await node.close()

    run_virtually(story())


def test_what_a_slot_shows_fits_what_it_counts_as() -> None:
    async def story() -> None:
        node = await up(on_unhealthy="report")
        await polled(node, "ws")
        assert node.slot().health == WELL
        assert node.monitor.latest("actor") == SICK
        await polled(node, "ss")
        assert node.slot().health == SICK
        await polled(node, "w")
        assert node.slot().health == SICK
        await polled(node, "w")
        assert node.slot().health == WELL
        await node.close()

    run_virtually(story())


def test_an_unhealthy_component_is_recovered_and_begins_with_a_clean_count() -> None:
    async def story() -> None:
        node = await up()
        await polled(node, "wss")
        assert node.state() == "running"
        await polled(node, "s")
        [failure] = node.told(ComponentFailed)
        assert failure.error == 'component "actor" is unhealthy: answers: none [MAG-LIFE-005]'
        assert [event.action for event in node.told(HealthEscalated)] == ["recover"]
        assert node.monitor.status("actor") is None
        await asyncio.sleep(1.1)
        assert (node.state(), node.slot().health) == ("running", None)
        assert initials(await polled(node, "ss")) == "ss"  # as it was left, but with all its answers before it
        assert node.state() == "running"
        assert initials(await polled(node, "ww")) == "sw"
        assert node.supervisor.budget_left("actor") == 2
        await polled(node, "sss")
        await asyncio.sleep(2.1)
        assert initials(await polled(node, "w")) == "w"  # a good answer that is the first since a start is believed
        assert len(node.told(HealthRecovered)) == 2
        await node.close()

    run_virtually(story())


def test_one_that_never_gets_well_is_quarantined_however_slowly_it_is_asked() -> None:
    async def story() -> None:
        node = await up(interval_s=50.0)
        polling = asyncio.create_task(node.monitor.run())
        node.actor().answer = SICK
        await asyncio.sleep(3000)
        assert node.state() == "quarantined"
        assert node.actor().calls.count("start") == 1 + 3
        polling.cancel()
        await asyncio.wait({polling})
        await node.close()

    run_virtually(story())


def test_one_that_is_well_for_long_in_between_is_not() -> None:
    async def story() -> None:
        node = await up(interval_s=10.0)
        polling = asyncio.create_task(node.monitor.run())
        for _ in range(6):
            node.actor().answer = WELL
            await asyncio.sleep(120)
            node.actor().answer = SICK
            while node.state() == "running":
                await asyncio.sleep(1)
        node.actor().answer = WELL
        await asyncio.sleep(10)
        assert (node.state(), node.slot().restarts) == ("running", 6)
        polling.cancel()
        await asyncio.wait({polling})
        await node.close()

    run_virtually(story())


@pytest.mark.parametrize(
    ("report", "action"),
    [
        (OUTSIDE, "report"),
        (HealthReport.of(*OUTSIDE.checks, HealthCheck("own", HealthStatus.DEGRADED)), "report"),
        (HealthReport.of(*OUTSIDE.checks, *SICK.checks), "recover"),
    ],
)
def test_a_cause_outside_of_the_node_never_leads_to_a_restart(report: HealthReport, action: str) -> None:
    async def story() -> None:
        node = await up()
        node.actor().answer = report
        for _ in range(20):
            await node.monitor.poll_once()
        assert [event.action for event in node.told(HealthEscalated)] == [action]
        assert node.state() == ("failed" if action == "recover" else "running")
        await node.close()

    run_virtually(story())


def test_policy_report_never_restarts() -> None:
    async def story() -> None:
        node = await up(on_unhealthy="report")
        await polled(node, "s" * 20)
        assert (node.state(), node.slot().restarts) == ("running", 0)
        assert node.monitor.status("actor") is HealthStatus.UNHEALTHY
        await node.close()

    run_virtually(story())


# ---------------------------------------------------------------- causes


def test_dependents_of_a_sick_provider_are_muted_and_it_is_named_near_and_far() -> None:
    async def story() -> None:
        node = await up(Provider, Middle, Far, on_unhealthy="recover")
        for name in ("provider", "middle", "far"):
            node.actor(name).answer = SICK
        node.actor("middle").answer = WELL  # in between all looks fine
        for _ in range(3):
            await node.monitor.poll_once()
        assert [(event.name, event.action) for event in node.told(HealthEscalated)] == [
            ("provider", "recover"),
            ("far", "muted"),
        ]
        assert node.told(HealthEscalated)[1].metrics == {"answers": "none", "caused_by": "provider"}
        assert node.monitor.caused_by("far") == "provider"
        assert node.monitor.caused_by("provider") == node.monitor.caused_by("middle") == ""
        for _ in range(20):
            await node.monitor.poll_once()
        assert (node.state("far"), node.slot("far").restarts) == ("running", 0)
        await node.close()

    run_virtually(story())


@pytest.mark.parametrize("trouble", ["crashed", "stopped", "about to be unhealthy"])
def test_whatever_keeps_a_provider_down_explains_its_consumer(trouble: str) -> None:
    async def story() -> None:
        node = await up(Provider, Consumer)
        node.actor("consumer").answer = SICK
        await node.monitor.poll_once()
        await node.monitor.poll_once()
        if trouble == "crashed":
            node.active = False  # so that it stays down
            node.actor("provider").crash()
            await asyncio.sleep(0.1)
            node.active = True
        elif trouble == "stopped":
            await node.supervisor.stop("provider")
        else:
            node.actor("provider").answer = SICK
        await node.monitor.poll_once()
        assert node.monitor.caused_by("consumer") == "provider"
        assert node.state("consumer") == "running"
        assert node.told(HealthCheckComplete)[-1].system == "unhealthy"
        await node.close()

    run_virtually(story())


def test_once_its_provider_is_well_a_consumer_gets_all_its_answers_and_is_then_recovered() -> None:
    async def story() -> None:
        node = await up(Provider, Consumer)
        node.actor("consumer").answer = node.actor("provider").answer = SICK
        for _ in range(3):
            await node.monitor.poll_once()
        node.actor("provider").answer = WELL
        await asyncio.sleep(2)
        assert node.state("provider") == "running"
        for _ in range(2):
            await node.monitor.poll_once()
            assert node.state("consumer") == "running"
        await node.monitor.poll_once()
        assert node.state("consumer") == "failed"
        actions = [event.action for event in node.told(HealthEscalated) if event.name == "consumer"]
        assert actions == ["muted", "recover"]
        await node.close()

    run_virtually(story())


# ---------------------------------------------------------------- questions


def test_a_question_that_is_not_answered_is_never_asked_twice_at_a_time() -> None:
    async def story() -> None:
        node = await up(timeout_s=1.0, on_unhealthy="report")
        asked = 0
        inside = 0

        async def stubborn() -> HealthReport:
            nonlocal asked, inside
            asked += 1
            inside += 1
            assert inside == 1
            ends_at_s = asyncio.get_running_loop().time() + 10
            while asyncio.get_running_loop().time() < ends_at_s:
                try:
                    await asyncio.sleep(10)
                except asyncio.CancelledError:
                    continue
            inside -= 1
            return WELL

        node.actor().health = stubborn  # type: ignore[method-assign]
        for _ in range(4):
            await node.monitor.poll_once()
        assert asked == 1
        errors = [event.error for event in node.told(HealthFailed)]
        assert "no answer within 1 s, waiting at" in errors[0]
        assert all("an earlier question still waits at" in error for error in errors[1:])
        assert node.monitor.status("actor") is HealthStatus.UNHEALTHY
        await asyncio.sleep(30)
        await node.monitor.poll_once()
        assert asked == 2
        await asyncio.sleep(30)
        await node.close()

    run_virtually(story())


@pytest.mark.parametrize("answer", [None, 42, "fine", HealthReport("splendid")])  # type: ignore[arg-type]
def test_an_answer_that_is_none_is_an_unhealthy_one(answer: Any) -> None:
    async def story() -> None:
        node = await up()

        async def nonsense() -> Any:
            return answer

        node.actor().health = nonsense  # type: ignore[method-assign]
        for _ in range(3):
            await node.monitor.poll_once()
        assert len(node.told(HealthFailed)) == 3
        assert node.state() == "failed"
        await node.close()

    run_virtually(story())


def test_one_slow_component_does_not_hold_up_the_round_of_the_others() -> None:
    async def story() -> None:
        node = await up(Provider, Consumer, timeout_s=2.0)
        node.actor("provider").answer = "hang"
        began_s = asyncio.get_running_loop().time()
        await node.monitor.poll_once()
        assert asyncio.get_running_loop().time() - began_s <= 4
        assert node.monitor.status("consumer") is HealthStatus.HEALTHY
        await node.close()

    run_virtually(story())


def test_the_answer_of_a_component_that_was_restarted_meanwhile_decides_nothing() -> None:
    async def story() -> None:
        node = await up(timeout_s=30.0, failures=1)

        async def slow() -> HealthReport:
            await asyncio.sleep(5)
            return SICK

        node.actor().health = slow  # type: ignore[method-assign]
        polling = asyncio.create_task(node.monitor.poll_once())
        await asyncio.sleep(1)
        await node.supervisor.restart("actor")
        await polling
        assert (node.monitor.status("actor"), node.state()) == (None, "running")
        assert node.told(HealthEscalated) == []
        await node.close()

    run_virtually(story())


def test_a_component_that_left_is_forgotten() -> None:
    async def story() -> None:
        node = await up(Provider, Consumer)
        await node.monitor.poll_once()
        await node.board.remove("consumer", stop_s=5)
        await node.monitor.poll_once()
        assert node.told(HealthCheckComplete)[-1].components == {"provider": "healthy"}
        assert (node.monitor.status("consumer"), node.monitor.caused_by("provider")) == (None, "")
        await node.close()

    run_virtually(story())
