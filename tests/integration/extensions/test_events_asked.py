"""What extensions ask: publish, jobs, values; bounded, durable, and never in another's name."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tests.integration.extensions.event_support import (
    FakeWorker,
    binding,
    execute,
    installed,
    query,
    running_node,
    until,
)

from magmobo.contracts.events import SecurityCapabilityDenied
from magmobo.extensions.events import backlog, jobs, kv
from magmobo.extensions.events.errors import (
    EventRefused,
    EventsTooDeep,
    JobRefused,
    SubscriptionUnknown,
    ValueRefused,
)
from magmobo.extensions.gate.errors import NotGranted
from magmobo.extensions.installed import Question
from magmobo.extensions.package.manifest import JobBinding
from magmobo.extensions.workers.errors import HandlerFailed, WorkerUnavailable

EMIT: dict[str, dict[str, list[str]]] = {"api.emit_events": {}}
PUBLISHED = "extension.published"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is so soon; how long it really is, the unit tests know."""
    monkeypatch.setattr(backlog, "RETRY_AFTER_S", (0.05, 0.1, 0.2))
    monkeypatch.setattr(jobs, "RETRY_AFTER_S", (0.05, 0.1, 0.2))
    monkeypatch.setattr(jobs, "LOOK_EVERY_S", 0.05)


# ---------------------------------------------------------------- publishing


async def test_a_published_event_is_durable_when_it_is_answered_and_bears_its_publisher(dsn: str) -> None:
    async with running_node(dsn) as node:
        publisher = FakeWorker(installed("publisher", grants=EMIT))
        stranger = FakeWorker(installed("stranger", binding(PUBLISHED)))
        friend = FakeWorker(
            installed("friend", binding(PUBLISHED, partition_by="data.key"), requires={"publisher": "*"})
        )
        for worker in (publisher, stranger, friend):
            await node.router.attach(worker)
        answer = await node.call(publisher, "events.publish", name="delay.raised", payload={"min": 5}, key="LH1")
        assert query(dsn, "select id, topic, about from mag.extension_event") == [
            (answer["id"], PUBLISHED, "publisher")
        ]
        await until(lambda: friend.told and stranger.told)
        said = {"extension_id": "publisher", "name": "delay.raised", "key": "LH1"}
        assert friend.data() == [{**said, "payload": {"min": 5}}]
        assert stranger.data() == [{**said, "payload": None}], (
            "what is in it is for those that were approved to require it"
        )


@pytest.mark.parametrize("name", ["auth.login", "security.x", "database.change", "system", "extension.installed"])
async def test_a_name_of_the_node_is_refused_and_on_record(dsn: str, name: str) -> None:
    async with running_node(dsn) as node:
        worker = FakeWorker(installed("publisher", grants=EMIT))
        denied: list[SecurityCapabilityDenied] = []
        node.host.context.bus.on(SecurityCapabilityDenied, lambda envelope: denied.append(envelope.data))
        with pytest.raises(EventRefused):
            await node.call(worker, "events.publish", name=name)
        assert [one.context for one in denied] == ["events.publish"]
        assert query(dsn, "select * from mag.extension_event") == []


async def test_what_it_may_publish_is_its_grant_and_bounded(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = FakeWorker(installed("publisher", grants={"api.emit_events": {"topics": ["delay.*"]}}))
        with pytest.raises(EventRefused):
            await node.call(worker, "events.publish", name="weather.bad")
        with pytest.raises(EventRefused):
            await node.call(worker, "events.publish", name="delay.raised", payload="x" * 70_000)
        for bad in ("Delay", "a..b", "a b", "", "x" * 101, "a\n"):
            with pytest.raises(msgspec.ValidationError):
                await node.call(worker, "events.publish", name=bad)
        with pytest.raises(msgspec.ValidationError):
            await node.call(worker, "events.publish", name="delay.raised", extension_id="other")
        await node.call(worker, "events.publish", name="delay.raised", payload="x" * 60_000)
        with pytest.raises(NotGranted):
            await node.call(FakeWorker(installed("publisher")), "events.publish", name="delay.raised")


async def test_events_that_lead_to_events_end_at_a_bound(dsn: str) -> None:
    async with running_node(dsn) as node:
        echo = FakeWorker(installed("echo", binding(PUBLISHED), grants=EMIT))
        refused: list[EventsTooDeep] = []

        async def answer(_: Any) -> None:
            try:
                await node.call(echo, "events.publish", name="again")
            except EventsTooDeep as error:
                refused.append(error)

        echo.before = answer
        await node.router.attach(echo)
        await node.call(echo, "events.publish", name="first")
        await until(lambda: refused)
        assert [data["name"] for data in echo.data()] == ["first", *["again"] * 7]


async def test_another_ones_subscription_cannot_be_named(dsn: str) -> None:
    async with running_node(dsn) as node:
        await node.router.attach(FakeWorker(installed("listener", binding())))
        other = FakeWorker(installed("other", binding(name="mine")))
        await node.router.attach(other)
        for method, more in (("events.subscribe", {"active": False}), ("events.replay", {"seconds": 5})):
            with pytest.raises(SubscriptionUnknown):
                await node.call(other, method, subscription="heard", **more)
        assert query(dsn, "select count(*) from mag.extension_subscription where not active or rewound > 0") == [(0,)]


# ---------------------------------------------------------------- jobs


def worker_with_jobs(*more: JobBinding) -> FakeWorker:
    grants: dict[str, dict[str, list[str]]] = {"system.background_jobs": {}, "system.cron_schedule": {}}
    return FakeWorker(installed("worker", jobs=[JobBinding(name="tidy"), *more], grants=grants))


async def test_a_job_runs_once_with_its_arguments(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = worker_with_jobs()
        await node.router.attach(worker)
        await node.call(worker, "jobs.enqueue", job="tidy", arguments={"deep": [1, {"x": None}]})
        await until(lambda: query(dsn, "select * from mag.extension_job") == [])
        [(handler, told)] = worker.asked
        assert handler == "job:tidy"
        assert told == {"id": told["id"], "arguments": {"deep": [1, {"x": None}]}, "tries": 1}


async def test_a_job_that_fails_is_tried_again_and_kept_when_given_up(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = worker_with_jobs()

        async def fail(_: Question) -> None:
            raise HandlerFailed("worker", "job:tidy", "ValueError", "no")

        worker.answer = fail
        await node.router.attach(worker)
        await node.call(worker, "jobs.enqueue", job="tidy")
        await until(lambda: query(dsn, "select tries from mag.extension_dead") == [(4,)])
        assert [told["tries"] for _, told in worker.asked] == [1, 2, 3, 4]
        assert len({told["id"] for _, told in worker.asked}) == 1
        assert query(dsn, "select * from mag.extension_job") == []
        [letter] = (await node.router.dead_letters("worker")).letters
        assert letter.topic == "job:tidy"
        worker.answer = None
        await node.router.retry_dead("worker")
        await until(lambda: len(worker.asked) == 5)


async def test_a_job_that_was_interrupted_runs_again_on_the_next_start(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = worker_with_jobs()
        begun = asyncio.Event()

        async def hang(_: Question) -> None:
            begun.set()
            await asyncio.Event().wait()

        worker.answer = hang
        await node.router.attach(worker)
        await node.call(worker, "jobs.enqueue", job="tidy")
        await asyncio.wait_for(begun.wait(), 30)
    async with running_node(dsn) as node:
        later = worker_with_jobs()
        await node.router.attach(later)
        await until(lambda: later.asked)
        assert later.asked == worker.asked


async def test_a_worker_that_is_not_there_costs_no_try(dsn: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(jobs, "_NOT_NOW_S", 0.05)
    async with running_node(dsn) as node:
        worker = worker_with_jobs()
        absences = [2]

        async def be_absent(_: Question) -> None:
            if absences[0]:
                absences[0] -= 1
                raise WorkerUnavailable("worker", "it starts")

        worker.answer = be_absent
        await node.router.attach(worker)
        await node.call(worker, "jobs.enqueue", job="tidy")
        await until(lambda: query(dsn, "select * from mag.extension_job") == [])
        assert [told["tries"] for _, told in worker.asked] == [1, 1, 1]


async def test_a_right_that_was_taken_costs_no_try(dsn: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(jobs, "_REVOKED_S", 0.05)
    async with running_node(dsn) as node:
        worker = worker_with_jobs()
        await node.router.attach(worker)
        await node.call(worker, "jobs.enqueue", job="tidy", delay_s=3600)
        grants, worker.installed.grants = worker.installed.grants, {}
        query(dsn, "update mag.extension_job set planned_s = 1, due_s = 1 returning id")  # due when the right is gone
        await until(lambda: query(dsn, "select count(*) from mag.extension_job where due_s > planned_s") == [(1,)])
        assert worker.asked == []
        worker.installed.grants = grants
        await until(lambda: query(dsn, "select * from mag.extension_job") == [])
        assert [told["tries"] for _, told in worker.asked] == [1]


async def test_what_is_no_job_or_too_much_is_refused(dsn: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(jobs, "MAX_WAITING", 3)
    async with running_node(dsn) as node:
        worker = worker_with_jobs()
        await node.router.attach(worker)
        with pytest.raises(JobRefused):
            await node.call(worker, "jobs.enqueue", job="other")
        with pytest.raises(JobRefused):
            await node.call(worker, "jobs.enqueue", job="tidy", arguments={"x": "y" * 70_000})
        for _ in range(3):
            await node.call(worker, "jobs.enqueue", job="tidy", delay_s=3600)
        with pytest.raises(JobRefused):
            await node.call(worker, "jobs.enqueue", job="tidy", delay_s=3600)
        assert worker.asked == []


async def test_one_extensions_flood_of_jobs_leaves_room_for_another(dsn: str) -> None:
    async with running_node(dsn) as node:
        flood, good, running = worker_with_jobs(), FakeWorker(installed("good", jobs=[JobBinding(name="tidy")])), [0]
        good.installed.grants = flood.installed.grants

        async def hang(_: Question) -> None:
            running[0] += 1
            await asyncio.Event().wait()

        flood.answer = hang
        await node.router.attach(flood)
        await node.router.attach(good)
        for _ in range(20):
            await node.call(flood, "jobs.enqueue", job="tidy")
        await until(lambda: running[0] == jobs.AT_ONCE)
        await node.call(good, "jobs.enqueue", job="tidy")
        await until(lambda: good.asked)
        assert running[0] == jobs.AT_ONCE


async def test_a_schedule_runs_when_it_is_due_and_moves_on(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = worker_with_jobs(JobBinding(name="hourly", cron="0 * * * *"))
        await node.router.attach(worker)
        [(due,)] = query(dsn, "select due_s from mag.extension_job where cron <> ''")
        assert due % 3600 == 0
        await node.router.attach(worker)
        assert query(dsn, "select due_s from mag.extension_job") == [(due,)], "saying so again changes nothing"
        execute(dsn, f"update mag.extension_job set due_s = {due - 7200}, planned_s = {due - 7200}")  # two were missed
        await until(lambda: query(dsn, "select due_s from mag.extension_job") == [(due,)])
        assert len(worker.asked) == 1
        await node.router.attach(worker_with_jobs(JobBinding(name="hourly", cron="30 * * * *")))
        [(moved,)] = query(dsn, "select due_s from mag.extension_job")
        assert moved % 3600 == 1800
        await node.router.attach(worker_with_jobs())
        assert query(dsn, "select * from mag.extension_job") == []


# ---------------------------------------------------------------- values


async def test_values_are_kept_for_each_extension_alone(dsn: str) -> None:
    value = {"list": [1, 2.5, None, True, "é", b"\x00\xff"], "deep": {"x": {"y": -1}}}
    one, two = FakeWorker(installed("one")), FakeWorker(installed("two"))
    async with running_node(dsn) as node:
        await node.call(one, "kv.put", key="k", value=value)
        assert await node.call(two, "kv.get", key="k") == {"value": None}
        await node.call(two, "kv.put", key="k", value=2)
    async with running_node(dsn) as node:
        assert await node.call(one, "kv.get", key="k") == {"value": value}
        await node.call(one, "kv.delete", key="k")
        await node.call(one, "kv.delete", key="k")
        assert await node.call(one, "kv.get", key="k") == {"value": None}
        assert await node.call(two, "kv.get", key="k") == {"value": 2}
        assert query(dsn, "select entries, size_bytes from mag.extension_kv_total where extension_id = 'one'") == [
            (0, 0)
        ]


async def test_keys_are_listed_by_prefix_and_page(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = FakeWorker(installed("one"))
        for key in ("b/2", "a", "b/1", "b/é", "c%", "B/1"):
            await node.call(worker, "kv.put", key=key, value=1)
        assert await node.call(worker, "kv.list") == {"keys": ["B/1", "a", "b/1", "b/2", "b/é", "c%"]}
        assert await node.call(worker, "kv.list", prefix="b/", limit=2) == {"keys": ["b/1", "b/2"]}
        assert await node.call(worker, "kv.list", prefix="b/", after="b/2") == {"keys": ["b/é"]}
        assert await node.call(worker, "kv.list", prefix="%") == {"keys": []}


async def test_values_are_bounded_one_by_one_and_together(dsn: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(kv, "MAX_ENTRIES", 5)
    async with running_node(dsn) as node:
        worker = FakeWorker(installed("one", data_bytes=100_000))
        with pytest.raises(ValueRefused):
            await node.call(worker, "kv.put", key="k", value="x" * 65_536)
        await node.call(worker, "kv.put", key="k", value="x" * 60_000)
        with pytest.raises(ValueRefused):
            await node.call(worker, "kv.put", key="l", value="x" * 60_000)
        await node.call(worker, "kv.put", key="k", value="x" * 100)
        await node.call(worker, "kv.put", key="l", value="x" * 60_000)
        for key in "abc":
            await node.call(worker, "kv.put", key=key, value=1)
        with pytest.raises(ValueRefused):
            await node.call(worker, "kv.put", key="d", value=1)
        for bad in ("", "x" * 201, "a\x00b"):
            with pytest.raises(msgspec.ValidationError):
                await node.call(worker, "kv.put", key=bad, value=1)
        assert _total(dsn) == _counted(dsn)


async def test_writers_at_the_same_time_do_not_pass_the_bound_together(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = FakeWorker(installed("one", data_bytes=100_000))

        async def put(number: int) -> bool:
            try:
                await node.call(worker, "kv.put", key=f"k{number}", value="x" * 15_000)
            except ValueRefused:
                return False
            return True

        kept = await asyncio.gather(*(put(number) for number in range(20)))
        assert sum(kept) == 6
        assert _total(dsn) == _counted(dsn)


def _total(dsn: str) -> Any:
    return query(dsn, "select entries, size_bytes from mag.extension_kv_total")


def _counted(dsn: str) -> Any:
    return query(dsn, "select count(*), sum(length(key) + length(value) + 64) from mag.extension_kv")
