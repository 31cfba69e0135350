"""Events and jobs that meet a limit of the node: they wait for its end, no try is counted. The gate is a real one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace
from tests.integration.extensions.event_support import (
    FakeWorker,
    Node,
    TestNoted,
    binding,
    execute,
    installed,
    make_tables,
    query,
    running_node,
    until,
)

from magmobo.extensions.events import delivery, jobs
from magmobo.extensions.events import waits as waiting
from magmobo.extensions.events.waits import LOOK_EVERY_S, MOST_S
from magmobo.extensions.gate.errors import GateRefused
from magmobo.extensions.installed import Caller, Question
from magmobo.extensions.package.manifest import JobBinding
from magmobo.extensions.workers.errors import HandlerFailed

NOTE = "system.background_jobs"
EVENTS = 10_000
STOP_S = 10.0
DAY_S = 86_400.0


def limited_worker(node: Node, *, budget: int) -> FakeWorker:
    """Each event takes one call of a capability with this budget."""
    worker = FakeWorker(installed("listener", binding(), grants={NOTE: {}}))
    set_budget(worker, budget)
    method = node.methods["jobs.enqueue"]

    def spend(_: Mapping[str, Any]) -> float:
        try:
            node.host.gatekeeper.allow(Caller(worker.installed, (), float("inf")), method)
        except GateRefused as refused:
            return refused.retry_s
        return 0.0

    worker.limit = spend
    return worker


def set_budget(worker: FakeWorker, budget: int) -> None:
    """As an operator does."""
    grants = worker.installed.grants
    worker.installed.grants = {**grants, NOTE: replace(grants[NOTE], budget_per_day=budget)}


def dead(dsn: str) -> int:
    [(count,)] = query(dsn, "select count(*) from mag.extension_dead")
    return int(count)


def waits(dsn: str) -> list[tuple[str, list[str], str]]:
    """What is written down for operators."""
    return [
        (handler, names, kind)
        for handler, names, kind in query(dsn, "select handler, capabilities, kind from mag.extension_wait order by 1")
    ]


async def test_ten_thousand_events_wait_for_a_budget_at_rest_and_go_on_when_it_is_raised(dsn: str) -> None:
    async with running_node(dsn, event_backlog=EVENTS) as node:
        worker = limited_worker(node, budget=2)
        await node.router.attach(worker)
        for number in range(EVENTS):
            node.emit(TestNoted(number))
            if number % 500 == 0:
                await asyncio.sleep(0)
        await until(lambda: query(dsn, f"select waiting >= {EVENTS - 2} from mag.extension_subscription") == [(True,)])
        await until(lambda: waits(dsn) == [("event:heard", [NOTE], "budget")])
        batches, used_s, began_s = len(worker.batches), time.process_time(), time.monotonic()
        await asyncio.sleep(3 * LOOK_EVERY_S)
        assert time.process_time() - used_s < (time.monotonic() - began_s) / 2
        assert len(worker.batches) == batches, "nobody is asked in vain before the day ends"
        assert len(worker.told) == 2
        standing = await node.router.standing("listener", worker.installed.grants)
        [wait] = standing.waits
        assert (wait.handler, list(wait.capabilities), wait.kind, wait.behind) == (
            "event:heard", [NOTE], "budget", EVENTS - 2,
        )  # fmt: skip
        [limit] = standing.limits
        assert (limit.limited, limit.spent_today, limit.renews_at) == ("budget", 2, wait.until)
        assert (await node.router.dead_letters("listener")).waits == [wait]
        set_budget(worker, 1_000_000)
        await until(lambda: len(set(worker.numbers())) == EVENTS)
        assert {tries for _, tries in worker.tries} == {1}
        assert list(dict.fromkeys(worker.numbers())) == list(range(EVENTS))
        await until(lambda: waits(dsn) == [])
    assert dead(dsn) == 0


async def test_a_capability_that_is_taken_back_ends_the_wait_for_its_budget(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "LOOK_EVERY_S", 600.0)  # who waits looks for itself
    async with running_node(dsn) as node:
        worker = limited_worker(node, budget=1)
        await node.router.attach(worker)
        for number in range(3):
            node.emit(TestNoted(number))
        await until(lambda: waits(dsn))
        assert worker.numbers() == [0]
        worker.installed.grants = {}
        worker.limit = lambda data: 0.0  # as one that goes on without it
        await until(lambda: worker.numbers() == [0, 1, 2])
        await until(lambda: waits(dsn) == [])
    assert dead(dsn) == 0


async def test_who_waits_for_a_budget_is_stopped_at_once_and_waits_on_after_a_restart(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = limited_worker(node, budget=1)
        await node.router.attach(worker)
        for number in range(3):
            node.emit(TestNoted(number))
        await until(lambda: worker.numbers() == [0] and len(worker.tries) >= 3)
        stopping = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - stopping < STOP_S < MOST_S
    async with running_node(dsn) as node:
        worker = limited_worker(node, budget=1)
        worker.limit({})  # what was spent is told to a node when it starts, by `Budgets`
        await node.router.attach(worker)
        await until(lambda: waits(dsn))
        await node.router.detach("listener")
        await until(lambda: waits(dsn) == [], "one that does not run waits for no limit")
        again = limited_worker(node, budget=1)
        await node.router.attach(again)
        await until(lambda: waits(dsn))
        assert (worker.told, again.told) == ([], [])
        assert 1 <= len(worker.tries) <= 3 >= len(again.tries) >= 1
        set_budget(again, 3)
        await until(lambda: again.numbers() == [1, 2])
        assert {tries for _, tries in (*worker.tries, *again.tries)} == {1}
    assert dead(dsn) == 0


async def test_a_node_that_takes_the_lease_finds_no_wait_of_the_one_before(dsn: str) -> None:
    make_tables(dsn)
    execute(
        dsn,
        "insert into mag.extension_wait values ('listener', 'event:heard', '{a.b}', 'budget', 1e12)",
    )
    async with running_node(dsn) as node:
        await node.router.attach(FakeWorker(installed("listener", binding())))
        await until(lambda: waits(dsn) == [])


async def test_what_waits_goes_with_its_extension(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = limited_worker(node, budget=1)
        await node.router.attach(worker)
        for number in range(3):
            node.emit(TestNoted(number))
        await until(lambda: waits(dsn))
        async with node.host.database.session() as connection, connection.transaction():
            await node.router.forget(connection, "listener")
        assert waits(dsn) == []
        standing = await node.router.standing("listener", {})
        assert (standing.backlog, standing.waits, standing.limits) == (0, [], [])


async def test_a_database_that_knows_of_no_waits_is_asked_all_the_same(dsn: str) -> None:
    async with running_node(dsn) as node:
        execute(dsn, "drop table mag.extension_wait")
        assert (await node.router.dead_letters("listener")).waits == ()


# ---------------------------------------------------------------- jobs


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "RETRY_AFTER_S", (0.05, 0.1, 0.2))
    monkeypatch.setattr(jobs, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(waiting, "MOST_S", 0.4)
    monkeypatch.setattr(jobs, "MOST_S", 0.4)


def worker_with_jobs(*more: JobBinding) -> FakeWorker:
    granted: dict[str, dict[str, list[str]]] = {NOTE: {}, "system.cron_schedule": {}}
    return FakeWorker(installed("worker", jobs=[JobBinding(name="tidy"), *more], grants=granted))


def meets(limits: dict[str, float]) -> Any:
    """Jobs of these names meet a limit that lasts so long."""

    async def answer(question: Question) -> None:
        name = question.handler.removeprefix("job:")
        if name in limits:
            raise HandlerFailed("worker", question.handler, "RateLimited", "used up", retry_s=limits[name])

    return answer


@pytest.mark.usefixtures("_soon")
async def test_jobs_wait_for_a_limit_by_their_name_and_no_try_is_counted(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker, limits = worker_with_jobs(JobBinding(name="other")), {"tidy": 80_000.0}
        worker.answer = meets(limits)
        await node.router.attach(worker)
        began_s = time.monotonic()
        for _ in range(50):
            await node.call(worker, "jobs.enqueue", job="tidy")
        await until(lambda: worker.asked)
        await node.call(worker, "jobs.enqueue", job="other")
        await until(lambda: ("job:other", 1) in [(name, told["tries"]) for name, told in worker.asked])
        await until(lambda: len(worker.asked) > 4 * jobs.AT_ONCE)
        rounds = (time.monotonic() - began_s) / 0.4 + 1
        assert len(worker.asked) <= (rounds + 1) * jobs.AT_ONCE, "a few at a time, not all that wait"
        limits.clear()
        await until(lambda: query(dsn, "select * from mag.extension_job") == [])
        assert {told["tries"] for _, told in worker.asked} == {1}
        assert len({told["id"] for _, told in worker.asked}) == 51
    assert dead(dsn) == 0


async def test_a_limit_that_is_met_while_it_is_looked_what_is_due_counts_already(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_node(dsn) as node:
        worker = worker_with_jobs()
        await node.router.attach(FakeWorker(installed("listener", binding())))
        await until(lambda: node.router._runner)
        runner = node.router._runner
        assert runner is not None
        runner = jobs.JobRunner(
            runner._desk, {"worker": worker}, lambda *_: True, runner._waits, node.host.context.clock, skipped=print
        )
        await node.call(worker, "jobs.enqueue", job="tidy")
        assert [row.name for row in await runner._due()] == ["tidy"]
        look, wait = runner._desk.use, runner._waits.begin(worker.installed, "job:tidy", time.monotonic(), [3600.0])

        @asynccontextmanager
        async def meanwhile() -> AsyncIterator[Any]:
            async with look() as connection:
                yield connection
            runner._held["worker", "tidy"] = wait

        monkeypatch.setattr(runner._desk, "use", meanwhile)
        assert await runner._due() == []


@pytest.mark.usefixtures("_soon")
async def test_jobs_that_wait_for_a_limit_wait_on_after_a_restart(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MOST_S", 60.0)
    monkeypatch.setattr(jobs, "MOST_S", 60.0)
    async with running_node(dsn) as node:
        worker = worker_with_jobs()
        worker.answer = meets({"tidy": 80_000.0})
        await node.router.attach(worker)
        await node.call(worker, "jobs.enqueue", job="tidy")
        await until(lambda: worker.asked)
        async with asyncio.timeout(STOP_S):
            await node.router.stop()
    async with running_node(dsn) as node:
        again = worker_with_jobs()
        await node.router.attach(again)
        await until(lambda: again.asked)
        assert again.asked == worker.asked
    assert dead(dsn) == 0


def make_due(dsn: str, name: str, ago_s: float) -> float:
    """A run is due that was planned before; the time of the one after it."""
    [(after,)] = query(dsn, f"select due_s from mag.extension_job where name = '{name}'")
    execute(dsn, f"update mag.extension_job set due_s = due_s - {ago_s}, planned_s = due_s - {ago_s}")
    return float(after)


@pytest.mark.usefixtures("_soon")
async def test_a_run_by_schedule_waits_for_a_limit_while_no_other_is_due(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker, limits = worker_with_jobs(JobBinding(name="yearly", cron="0 0 1 1 *")), {"yearly": 80_000.0}
        worker.answer = meets(limits)
        await node.router.attach(worker)
        after = make_due(dsn, "yearly", 365 * DAY_S)
        await until(lambda: len(worker.asked) >= 2 + len(jobs.RETRY_AFTER_S))
        limits.clear()
        await until(lambda: query(dsn, "select due_s, tries from mag.extension_job") == [(after, 0)])
        assert {(told["id"], told["tries"]) for _, told in worker.asked} == {(worker.asked[0][1]["id"], 1)}
    assert dead(dsn) == 0


@pytest.mark.usefixtures("_soon")
async def test_a_run_that_the_next_one_overtakes_is_skipped_on_record(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MOST_S", DAY_S)
    monkeypatch.setattr(jobs, "MOST_S", DAY_S)
    async with running_node(dsn) as node:
        worker, limits = worker_with_jobs(JobBinding(name="daily", cron="0 0 * * *")), {"daily": DAY_S}
        worker.answer = meets(limits)
        await node.router.attach(worker)
        for run in (1, 2):  # one that was skipped holds back nothing
            make_due(dsn, "daily", 2 * DAY_S * run)
            await until(lambda: query(dsn, "select due_s > extract(epoch from now()) from mag.extension_job")[0][0])
            assert len(worker.asked) == run
        assert query(dsn, "select due_s = planned_s, tries from mag.extension_job") == [(True, 0)]
        assert len({told["id"] for _, told in worker.asked}) == 2
        await until(lambda: node.router._runner and not node.router._runner._running)  # it counts behind its commit
        await node.host.gatekeeper.close()
        records = await node.host.context.audit.read(after_seq=0, limit=10_000)
        calls = [one for record in records if record.action == "extension.calls" for one in record.payload["calls"]]
        assert sum(one["count"] for one in calls if (one["name"], one["result"]) == ("daily", "skipped")) == 2
    assert dead(dsn) == 0


def spends(node: Node, worker: FakeWorker, method: str = "kv.get") -> None:
    """Each run takes one call of a capability that has a budget."""
    one = node.methods[method]

    async def answer(question: Question) -> None:
        try:
            node.host.gatekeeper.allow(Caller(worker.installed, (), float("inf")), one)
        except GateRefused as refused:
            raise HandlerFailed("worker", question.handler, "RateLimited", "no more", retry_s=refused.retry_s) from None

    worker.answer = answer


async def test_jobs_wait_for_a_budget_as_long_as_it_stands_and_operators_see_it(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = worker_with_jobs()
        spends(node, worker, "jobs.enqueue")
        set_budget(worker, 8)
        await node.router.attach(worker)
        for _ in range(6):
            await node.call(worker, "jobs.enqueue", job="tidy", delay_s=3600.0)  # none runs before all of them wait
        execute(dsn, "update mag.extension_job set due_s = due_s - 3600")
        await until(lambda: waits(dsn) == [("job:tidy", [NOTE], "budget")])
        await until(lambda: len(query(dsn, "select * from mag.extension_job")) == 4)
        asked = len(worker.asked)
        assert asked <= 2 + jobs.AT_ONCE
        [wait] = (await node.router.standing("worker", worker.installed.grants)).waits
        assert (wait.handler, wait.behind) == ("job:tidy", 4)
        set_budget(worker, 100)
        await until(lambda: query(dsn, "select * from mag.extension_job") == [])
        assert {told["tries"] for _, told in worker.asked} == {1}
        await until(lambda: waits(dsn) == [])
    assert dead(dsn) == 0


async def test_a_run_by_schedule_waits_for_a_budget_until_shortly_before_the_next(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = worker_with_jobs(JobBinding(name="yearly", cron="0 0 1 1 *"))
        spends(node, worker, "jobs.enqueue")
        set_budget(worker, 1)
        await node.call(worker, "kv.get", key="nothing")
        await node.router.attach(worker)
        node.host.gatekeeper.allow(Caller(worker.installed, (), float("inf")), node.methods["jobs.enqueue"])
        after = make_due(dsn, "yearly", 365 * DAY_S)
        await until(lambda: waits(dsn) == [("job:yearly", [NOTE], "budget")])
        set_budget(worker, 2)
        await until(lambda: query(dsn, "select due_s, tries from mag.extension_job") == [(after, 0)])
        assert len(worker.asked) == 2
    assert dead(dsn) == 0
