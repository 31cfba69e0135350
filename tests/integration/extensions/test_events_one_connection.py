"""The event log on a node whose pool holds a single connection: what is held for good is none of the pool's."""

from __future__ import annotations

from tests.integration.extensions.event_support import (
    FakeWorker,
    TestNoted,
    binding,
    execute,
    installed,
    query,
    running_node,
    until,
)

from magmobo.extensions.package.manifest import JobBinding


async def test_events_jobs_and_values_with_a_pool_of_one(dsn: str) -> None:
    execute(dsn, "create table public.orders (id int primary key)")
    grants = {"system.background_jobs": {}, "database.read": {"tables": ("public.orders",)}}
    events = (binding(), binding("database.change", "orders", tables=["public.orders"]))
    async with running_node(dsn, pool_size=1) as node:
        worker = FakeWorker(installed("listener", *events, jobs=[JobBinding(name="later")], grants=grants))
        await node.router.attach(worker)
        assert node.router._seat.taken.is_set()
        for number in range(50):
            node.emit(TestNoted(number))
            await node.call(worker, "kv.put", key=f"k{number}", value=number)
        await node.call(worker, "jobs.enqueue", job="later")
        execute(dsn, "insert into public.orders values (1), (2)")
        await until(lambda: worker.numbers() == list(range(50)))
        await until(lambda: len(worker.data("orders")) == 2)
        await until(lambda: worker.asked)
        async with node.host.database.session(timeout_s=5):
            assert node.router._seat.leads, "who delivers does so beside whoever has the pool's only connection"
            node.emit(TestNoted(50))
        await until(lambda: worker.numbers()[-1] == 50)
    assert query(dsn, "select count(*) from mag.extension_dead") == [(0,)]


async def test_a_seat_that_lost_its_connection_finds_another_with_a_pool_of_one(dsn: str) -> None:
    async with running_node(dsn, pool_size=1) as node:
        worker = FakeWorker(installed("listener", binding()))
        await node.router.attach(worker)
        await until(lambda: node.router._seat.leads)
        ended = "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and classid = 1835100005"
        assert query(dsn, ended) == [(True,)]
        await until(lambda: not node.router._seat.leads)
        node.emit(TestNoted(1))
        await until(lambda: worker.numbers() == [1])
