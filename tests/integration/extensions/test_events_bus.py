"""Events of the node to extensions, over a real database: order, filters, retries, dead letters, gaps, replay."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.integration.extensions.event_support import (
    PATIENCE_S,
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

from magmobo.contracts.events import SecurityBreakglass
from magmobo.extensions.events import backlog, delivery
from magmobo.extensions.events.line import Line
from magmobo.extensions.workers.errors import WorkerEnded, WorkerUnavailable


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is so soon; how long it really is, the unit tests know."""
    monkeypatch.setattr(backlog, "RETRY_AFTER_S", (0.05, 0.1, 0.2))


async def test_events_are_told_in_order_once_and_in_batches(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = FakeWorker(installed("listener", binding()))
        await node.router.attach(worker)
        for number in range(1000):
            node.emit(TestNoted(number, "x"))
        await until(lambda: len(worker.told) >= 1000)
        assert worker.numbers() == list(range(1000))
        assert max(worker.batches) == 64
        assert len({item.id for _, item, _ in worker.told}) == 1000
        await until(lambda: query(dsn, "select sum(waiting) from mag.extension_subscription") == [(0,)])


async def test_what_happened_before_is_not_told_and_a_restart_goes_on_behind_the_cursor(dsn: str) -> None:
    extension = installed("listener", binding())
    async with running_node(dsn) as node:
        other = FakeWorker(installed("other", binding()))
        await node.router.attach(other)
        node.emit(TestNoted(0))
        await until(lambda: other.told)
        worker = FakeWorker(extension)
        await node.router.attach(worker)
        node.emit(TestNoted(1))
        await until(lambda: worker.told)
        await node.router.detach("listener")
        node.emit(TestNoted(2))
    assert worker.numbers() == [1]
    async with running_node(dsn) as node:
        later = FakeWorker(extension)
        await node.router.attach(later)
        node.emit(TestNoted(3))
        await until(lambda: len(later.told) == 2)
        assert later.numbers() == [2, 3], "it waited while the extension did not run"


async def test_a_filter_a_pattern_and_two_subscriptions(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = FakeWorker(
            installed(
                "listener",
                binding(where={"data.number": {"$gte": 3}}),
                binding("testing.**", "all"),
                binding("testing.*", "texts", where={"data.text": {"$regex": "^a+$"}}),
            )
        )
        await node.router.attach(worker)
        for number, text in enumerate(["", "a", "b", "aa", "c"]):
            node.emit(TestNoted(number, text))
        await until(lambda: len(worker.told) == 2 + 5 + 2)
        assert (worker.numbers(), worker.numbers("all"), worker.numbers("texts")) == ([3, 4], [0, 1, 2, 3, 4], [1, 3])
        assert query(dsn, "select count(*) from mag.extension_event") == [(5,)], "each is logged once"


async def test_what_no_condition_wants_is_not_logged(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = FakeWorker(
            installed(
                "listener",
                binding(where={"data.number": {"$gt": 97}}),
                binding(name="second", where={"data.text": "wanted"}),
            )
        )
        await node.router.attach(worker)
        for number in range(100):
            node.emit(TestNoted(number, "wanted" if number == 5 else ""))
        await until(lambda: len(worker.told) == 3)
        assert query(dsn, "select count(*) from mag.extension_event") == [(3,)]


async def test_one_that_fails_holds_back_its_key_alone_and_is_tried_again(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = FakeWorker(installed("listener", binding(partition_by="data.text")))
        failures = [2]

        def fail(data: dict[str, object]) -> str | None:
            if data["number"] == 1 and failures[0]:
                failures[0] -= 1
                return "not yet"
            return None

        worker.fail = fail
        await node.router.attach(worker)
        for number in range(6):
            node.emit(TestNoted(number, "odd" if number % 2 else "even"))
        await until(lambda: len(set(worker.numbers())) == 6 and _waiting(node, "heard") == 0)
        even = [number for number in worker.numbers() if number % 2 == 0]
        assert even == [0, 2, 4]
        last = {number: place for place, number in enumerate(worker.numbers())}
        assert last[1] < last[3] < last[5], "the last time each was told is in order"
        assert [tries for event_id, tries in worker.tries if event_id.endswith("/2")] == [1, 2, 3]


async def test_a_poisonous_event_becomes_a_dead_letter_and_is_told_again_on_request(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = FakeWorker(installed("listener", binding()))
        dead = asyncio.Event()

        async def die(items: object) -> None:
            if not dead.is_set() and any(b"poison" in bytes(item.data) for item in items):  # type: ignore[attr-defined]
                raise WorkerEnded("listener", 1)

        worker.before = die
        await node.router.attach(worker)
        for number in range(5):
            node.emit(TestNoted(number, "poison" if number == 2 else ""))
        await until(lambda: query(dsn, "select handler, tries from mag.extension_dead") == [("event:heard", 4)])
        await until(lambda: len(worker.told) == 4)
        assert worker.numbers() == [0, 1, 3, 4]
        await until(lambda: query(dsn, "select waiting from mag.extension_subscription") == [(0,)])
        standing = await node.router.standing("listener", {})
        assert (standing.backlog, standing.dead) == (0, 1)
        [letter] = (await node.router.dead_letters("listener")).letters
        assert (letter.topic, letter.tries, letter.error) == ("testing.noted", 4, "listener ended before it answered")
        dead.set()
        await node.router.retry_dead("listener")
        await until(lambda: len(worker.told) == 5)
        assert worker.told[-1][1].topic == "testing.noted"
        assert worker.data()[-1] == {"number": 2, "text": "poison"}
        assert (await node.router.dead_letters("listener")).letters == []


async def test_a_worker_that_is_not_there_costs_no_try(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = FakeWorker(installed("listener", binding()))
        absences = [3]

        async def be_absent(_: object) -> None:
            if absences[0]:
                absences[0] -= 1
                raise WorkerUnavailable("listener", "it starts")

        worker.before = be_absent
        await node.router.attach(worker)
        node.emit(TestNoted(1))
        await until(lambda: worker.told)
        assert worker.tries == [(worker.told[0][1].id, 1)]


async def test_a_limit_of_the_node_is_waited_for_without_a_try_and_costs_no_event(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = FakeWorker(installed("listener", binding()))
        met = 0

        def limit(data: dict[str, Any]) -> float:
            nonlocal met
            met += data["number"] == 2
            return 0.01 if data["number"] == 2 and met <= 8 else 0.0  # more often than there are tries

        worker.limit = limit
        await node.router.attach(worker)
        for number in range(5):
            node.emit(TestNoted(number))
        await until(lambda: 2 in worker.numbers() and _waiting(node, "heard") == 0)
        assert met == 9
        assert {tries for _, tries in worker.tries} == {1}
        first = {number: worker.numbers().index(number) for number in range(5)}
        assert sorted(first) == list(range(5))
        last = {number: place for place, number in enumerate(worker.numbers())}
        assert last[2] < last[3] < last[4], "what is behind it comes again behind it"
        assert query(dsn, "select count(*) from mag.extension_dead") == [(0,)]


async def test_what_waits_for_a_limit_beyond_the_bound_is_a_gap_and_a_restart_forgets_none(dsn: str) -> None:
    async with running_node(dsn, event_backlog=100) as node:
        worker = FakeWorker(installed("listener", binding()))
        worker.limit = lambda _: 3600.0
        await node.router.attach(worker)
        for number in range(250):
            node.emit(TestNoted(number))
        await until(lambda: query(dsn, "select count(*) from mag.extension_event") == [(250,)])
        await until(lambda: any(one.backlog.dropped for one in _lines(node, "heard")))
        assert _waiting(node, "heard") <= 101
    async with running_node(dsn, event_backlog=1000) as node:
        again = FakeWorker(installed("listener", binding()))
        await node.router.attach(again)
        await until(lambda: len(again.told) >= 250)
        assert again.numbers() == list(range(250)), "the cursor stands before what was not told"
    assert query(dsn, "select count(*) from mag.extension_dead") == [(0,)]


async def test_too_many_events_become_one_gap_and_the_node_is_told(dsn: str) -> None:
    async with running_node(dsn, event_backlog=100) as node:
        worker, go_on, first = FakeWorker(installed("listener", binding())), asyncio.Event(), asyncio.Event()
        pressure: list[tuple[str, int]] = []
        node.host.context.bus.on(
            "extension.backpressure.*", lambda envelope: pressure.append((envelope.topic, envelope.data.limit))
        )

        async def hold(_: object) -> None:
            first.set()
            await go_on.wait()

        worker.before = hold
        await node.router.attach(worker)
        node.emit(TestNoted(0))
        await asyncio.wait_for(first.wait(), PATIENCE_S)
        for number in range(1, 500):
            node.emit(TestNoted(number))
        await until(lambda: ("extension.backpressure.critical", 100) in pressure)
        await until(lambda: query(dsn, "select max(seq) from mag.extension_event") == [(500,)])
        await asyncio.sleep(0.7)  # beyond the look of the reader; what matters is asserted on the outcome below
        go_on.set()
        await until(lambda: worker.numbers()[-1:] == [499])
        [gap] = worker.gaps()
        assert gap["reason"] == "backlog"
        assert gap["count"] + len(worker.data()) == 500
        assert gap["since_s"] <= gap["until_s"]
        assert pressure.count(("extension.backpressure.critical", 100)) == 1


async def test_a_replay_tells_again_what_is_logged_and_then_goes_on(dsn: str) -> None:
    async with running_node(dsn, event_backlog=100) as node:
        worker = FakeWorker(installed("listener", binding(), binding(name="other")))
        await node.router.attach(worker)
        for start in range(0, 600, 50):
            for number in range(start, start + 50):
                node.emit(TestNoted(number))
            await until(lambda start=start: worker.numbers()[-1:] == [start + 49])
        await until(lambda: len(worker.numbers("other")) == 600)
        assert await node.call(worker, "events.replay", subscription="heard", seconds=3600) is None
        node.emit(TestNoted(600))
        await until(lambda: worker.numbers()[-1:] == [600])
        assert worker.numbers() == [*range(600), *range(601)]
        assert worker.gaps() == [], "a replay is no backlog"
        assert worker.numbers("other") == list(range(601))


async def test_a_paused_subscription_waits(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker = FakeWorker(installed("listener", binding(), binding(name="other")))
        await node.router.attach(worker)
        await node.call(worker, "events.subscribe", subscription="heard", active=False)
        await until(lambda: [one.active for one in _lines(node, "heard")] == [False])
        node.emit(TestNoted(1))
        await until(lambda: worker.numbers("other") == [1])
        assert worker.numbers() == []
        await node.call(worker, "events.subscribe", subscription="heard")
        await until(lambda: worker.numbers() == [1])


async def test_an_upgrade_keeps_what_waits_and_takes_the_new_subscriptions(dsn: str) -> None:
    async with running_node(dsn) as node:
        old = FakeWorker(installed("listener", binding(), binding(name="dropped")))
        await node.router.attach(old)
        node.emit(TestNoted(1))
        await until(lambda: len(old.told) == 2)
        new = FakeWorker(installed("listener", binding(), binding(name="added")))
        await node.router.attach(new)
        node.emit(TestNoted(2))
        await until(lambda: len(new.told) == 2)
        assert (new.numbers(), new.numbers("added")) == ([2], [2])
        assert old.numbers() == [1]
        names = query(dsn, "select name from mag.extension_subscription order by 1")
        assert names == [("added",), ("heard",)]


async def test_security_topics_take_the_capability_at_that_moment(dsn: str) -> None:
    async with running_node(dsn) as node:
        extension = installed("listener", binding("security.**"), binding(name="sentinel"))
        worker = FakeWorker(extension)
        await node.router.attach(worker)
        granted = installed("listener", grants={"auth.audit_access": {}}).grants

        async def try_it(number: int) -> int:
            node.emit(SecurityBreakglass("ann", "chaos.run", "because"))
            node.emit(TestNoted(number))
            await until(lambda: worker.numbers("sentinel")[-1:] == [number])
            await until(lambda: query(dsn, "select sum(waiting) from mag.extension_subscription") == [(0,)])
            return len(worker.data())

        assert await try_it(1) == 0
        extension.grants = granted
        assert await try_it(2) == 1
        extension.grants = {}
        assert await try_it(3) == 1


async def test_nothing_is_told_from_the_moment_it_is_detached(dsn: str) -> None:
    async with running_node(dsn) as node:
        worker, other = (
            FakeWorker(installed("listener", binding())),
            FakeWorker(installed("other", binding(name="too"))),
        )
        await node.router.attach(worker)
        await node.router.attach(other)
        node.emit(TestNoted(0))
        await until(lambda: worker.told and other.told)
        await node.router.detach("listener")
        assert _line(node, "heard").worker is None
        node.emit(TestNoted(1))
        await until(lambda: len(other.told) == 2)
        assert worker.numbers() == [0]


@pytest.mark.parametrize("with_values", [True, False])
async def test_what_is_forgotten_is_gone_and_nothing_of_it_is_logged_any_more(dsn: str, with_values: bool) -> None:
    async with running_node(dsn) as node:
        worker = FakeWorker(installed("listener", binding()))
        await node.router.attach(worker)
        node.emit(TestNoted(1))
        await until(lambda: worker.told)
        async with node.host.database.session() as connection, connection.transaction():
            await connection.execute(
                "insert into mag.extension_kv (extension_id, key, value) values ('listener', 'a', 'b')"
            )
            leave = node.router.forget if with_values else node.router.unfollow
            await leave(connection, "listener")
        bus = node.host.context.bus
        await until(lambda: not bus.has_listeners(TestNoted))
        assert query(dsn, "select * from mag.extension_subscription") == []
        assert query(dsn, "select key from mag.extension_kv") == ([] if with_values else [("a",)])


async def test_old_events_are_removed_and_who_did_not_get_them_is_told(dsn: str) -> None:
    extension = installed("listener", binding())
    async with running_node(dsn) as node:
        worker, other = FakeWorker(extension), FakeWorker(installed("other", binding()))
        await node.router.attach(worker)
        await node.router.attach(other)
        await node.router.detach("listener")
        for number in range(3):
            node.emit(TestNoted(number))
        await until(lambda: len(other.told) == 3)
    execute(dsn, "update mag.extension_event set logged_s = logged_s - 1000 where seq < 3")
    async with running_node(dsn, event_retention_s=500) as node:
        await until(lambda: query(dsn, "select count(*) from mag.extension_event") == [(1,)])
        worker = FakeWorker(extension)
        await node.router.attach(worker)
        await until(lambda: len(worker.told) == 2)
        assert [(gap["reason"], gap["count"]) for gap in worker.gaps()] == [("expired", None)]
        assert worker.numbers() == [2]


async def test_a_log_that_is_too_large_loses_its_oldest(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "MAX_LOG_BYTES", 100_000)
    monkeypatch.setattr(delivery, "PURGE_EVERY_S", 0.05)
    monkeypatch.setattr(delivery, "PURGE_ROWS", 10)
    async with running_node(dsn) as node:
        worker, idle = FakeWorker(installed("listener", binding())), FakeWorker(installed("idle", binding()))
        await node.router.attach(worker)
        await node.router.attach(idle)
        await until(lambda: len(node.router._delivery._lines) == 2 if node.router._delivery else False)
        await node.router.detach("idle")
        for start in range(0, 300, 50):  # less at a time than the log holds
            for number in range(start, start + 50):
                node.emit(TestNoted(number, "x" * 1000))
            await until(lambda start=start: worker.numbers() == list(range(start + 50)))
        size = "select l.size_bytes, coalesce(sum(length(data) + 150), 0) from mag.extension_log l, mag.extension_event"
        await until(lambda: query(dsn, f"{size} group by 1")[0][0] <= 100_000)
        [(counted, measured)] = query(dsn, f"{size} group by 1")
        assert 80_000 < counted == measured
        await node.router.attach(idle)
        await until(lambda: idle.numbers()[-1:] == [299])
        assert [gap["reason"] for gap in idle.gaps()] == ["expired"]
        assert len(idle.numbers()) + idle.gaps()[0]["count"] == 300


async def test_without_subscriptions_nothing_runs(dsn: str) -> None:
    async with running_node(dsn) as node:
        await node.router.attach(FakeWorker(installed("quiet")))
        assert node.router._tasks == []
        assert query(dsn, "select count(*) from mag.extension_source") == [(0,)]


async def test_an_orderly_end_leaves_no_gap(dsn: str) -> None:
    extension = installed("listener", binding())
    async with running_node(dsn) as node:
        await node.router.attach(FakeWorker(extension))
        for number in range(100):
            node.emit(TestNoted(number))
    assert query(dsn, "select count(*) from mag.extension_event") == [(100,)]
    assert query(dsn, "select * from mag.extension_source") == []
    async with running_node(dsn) as node:
        worker = FakeWorker(extension)
        await node.router.attach(worker)
        node.emit(TestNoted(100))
        await until(lambda: worker.numbers()[-1:] == [100])
        assert worker.gaps() == []
        assert set(range(101)) >= set(worker.numbers())


def _lines(node: Node, name: str) -> list[Line]:
    """Of this name; none before the node has taken over the delivery."""
    delivery = node.router._delivery
    return [one for one in delivery._lines.values() if one.name == name] if delivery is not None else []


def _waiting(node: Node, name: str) -> int:
    """Events that wait in lines of this name."""
    return sum(one.backlog.waiting for one in _lines(node, name))


def _line(node: Node, name: str) -> Line:
    [line] = _lines(node, name)
    return line
