"""Events and jobs that meet a limit of the node: they wait for its end, no try is counted. The gate is a real one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
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
    query,
    running_node,
    until,
)

from magmobo.extensions.events import jobs, line
from magmobo.extensions.gate.errors import GateRefused
from magmobo.extensions.installed import Caller, Question
from magmobo.extensions.package.manifest import JobBinding
from magmobo.extensions.workers.errors import HandlerFailed

NOTE = "system.background_jobs"
EVENTS = 10_000
STOP_S = 10.0


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


async def test_ten_thousand_events_wait_for_a_budget_at_rest_and_go_on_when_it_is_raised(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "LIMIT_MOST_S", 0.5)
    async with running_node(dsn, event_backlog=EVENTS) as node:
        worker = limited_worker(node, budget=2)
        await node.router.attach(worker)
        for number in range(EVENTS):
            node.emit(TestNoted(number))
            if number % 500 == 0:
                await asyncio.sleep(0)
        await until(lambda: query(dsn, f"select waiting >= {EVENTS - 2} from mag.extension_subscription") == [(True,)])
        batches, used_s, began_s = len(worker.batches), time.process_time(), time.monotonic()
        await until(lambda: len(worker.batches) >= batches + 4)
        passed_s = time.monotonic() - began_s
        assert passed_s > 3 * 0.5, "as often as it is looked at again, not as often as there are events"
        assert time.process_time() - used_s < passed_s / 2
        assert worker.batches[batches:] == [1] * (len(worker.batches) - batches)
        assert len(worker.told) == 2
        set_budget(worker, 1_000_000)
        await until(lambda: len(set(worker.numbers())) == EVENTS)
        assert {tries for _, tries in worker.tries} == {1}
        assert list(dict.fromkeys(worker.numbers())) == list(range(EVENTS))
    assert dead(dsn) == 0


async def test_who_waits_for_a_budget_is_stopped_at_once_and_waits_on_after_a_restart(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_node(dsn) as node:
        worker = limited_worker(node, budget=1)
        await node.router.attach(worker)
        for number in range(3):
            node.emit(TestNoted(number))
        await until(lambda: worker.numbers() == [0] and len(worker.tries) >= 3)
        stopping = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - stopping < STOP_S < line.LIMIT_MOST_S
    monkeypatch.setattr(line, "LIMIT_MOST_S", 0.3)
    async with running_node(dsn) as node:
        worker = limited_worker(node, budget=1)
        worker.limit({})  # what was spent is told to a node when it starts, by `Budgets`
        await node.router.attach(worker)
        await until(lambda: len(worker.tries) >= 4)
        await node.router.detach("listener")
        again = limited_worker(node, budget=1)
        await node.router.attach(again)
        await until(lambda: len(again.tries) >= 3)
        assert worker.told == again.told == []
        set_budget(again, 3)
        await until(lambda: again.numbers() == [1, 2])
        assert {tries for _, tries in (*worker.tries, *again.tries)} == {1}
    assert dead(dsn) == 0


# ---------------------------------------------------------------- jobs


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "RETRY_AFTER_S", (0.05, 0.1, 0.2))
    monkeypatch.setattr(jobs, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(line, "LIMIT_MOST_S", 0.4)


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
        for _ in range(50):
            await node.call(worker, "jobs.enqueue", job="tidy")
        await until(lambda: worker.asked)
        began_s = time.monotonic()
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


@pytest.mark.usefixtures("_soon")
async def test_jobs_that_wait_for_a_limit_wait_on_after_a_restart(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "LIMIT_MOST_S", 60.0)
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
        after = make_due(dsn, "yearly", 365 * 86_400.0)
        await until(lambda: len(worker.asked) >= 2 + len(jobs.RETRY_AFTER_S))
        limits.clear()
        await until(lambda: query(dsn, "select due_s, tries from mag.extension_job") == [(after, 0)])
        assert {(told["id"], told["tries"]) for _, told in worker.asked} == {(worker.asked[0][1]["id"], 1)}
    assert dead(dsn) == 0


@pytest.mark.usefixtures("_soon")
async def test_a_run_that_the_next_one_overtakes_is_skipped_on_record(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "LIMIT_MOST_S", 60.0)
    async with running_node(dsn) as node:
        worker, limits = worker_with_jobs(JobBinding(name="often", cron="* * * * *")), {"often": 80_000.0}
        worker.answer = meets(limits)
        await node.router.attach(worker)
        for run in (1, 2):  # one that was skipped holds back nothing
            make_due(dsn, "often", 120.0 * run)
            await until(lambda: query(dsn, "select due_s > extract(epoch from now()) from mag.extension_job")[0][0])
            assert len(worker.asked) == run
        assert query(dsn, "select due_s = planned_s, tries from mag.extension_job") == [(True, 0)]
        assert len({told["id"] for _, told in worker.asked}) == 2
        await node.host.gatekeeper.close()
        records = await node.host.context.audit.read(after_seq=0, limit=10_000)
        calls = [one for record in records if record.action == "extension.calls" for one in record.payload["calls"]]
        assert sum(one["count"] for one in calls if (one["name"], one["result"]) == ("often", "skipped")) == 2
    assert dead(dsn) == 0
