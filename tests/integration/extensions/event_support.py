"""A node with real storage and the event router, and workers that are told events in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import psycopg
from msgspec import Raw

from magmobo.components.magds.component import MagDS
from magmobo.contracts.component import Component, Context, Needs
from magmobo.contracts.events import Event
from magmobo.contracts.planes import Changes, Database
from magmobo.extensions.config import ExtensionsConfig
from magmobo.extensions.events.router import EventRouter
from magmobo.extensions.events.schema import MIGRATIONS
from magmobo.extensions.gate.gatekeeper import Gatekeeper
from magmobo.extensions.installed import ApiMethod, Caller, Grant, Installed, Question
from magmobo.extensions.lifecycle.schema import MIGRATIONS as REGISTRY
from magmobo.extensions.package.manifest import (
    CapabilityRequest,
    EventBinding,
    JobBinding,
    Limits,
    Manifest,
    Requirements,
)
from magmobo.kernel.kernel import Kernel
from magmobo.testing.harness import running_kernel
from magx import wire

PATIENCE_S = 60.0
[SPENT] = [one for one in REGISTRY if one.name == "nodes"]
"""What budgets are written down in."""


class TestNoted(Event, frozen=True, gc=False):
    """Something happened that only these tests know."""

    __test__ = False
    topic = "testing.noted"
    number: int
    text: str = ""


class Host(Component):
    """The component that holds the router, with settings that a test sets before."""

    name = "extensions"
    settings: ClassVar[ExtensionsConfig] = ExtensionsConfig()
    last: ClassVar[Host]

    def __init__(self, context: Context, database: Needs[Database], changes: Needs[Changes]) -> None:
        self.context, self.database, self.changes = context, database, changes
        self.router: EventRouter
        Host.last = self

    async def start(self) -> None:
        context = self.context
        self.gatekeeper = Gatekeeper(context.clock, context.audit, context.bus, context.metrics)
        self.router = EventRouter(
            context, self.database, self.changes, gatekeeper=self.gatekeeper, config=lambda: Host.settings
        )
        await self.router.start()

    async def stop(self) -> None:
        await self.router.stop()
        await self.gatekeeper.close()


class Node:
    """A running node, as tests drive it."""

    def __init__(self, kernel: Kernel, dsn: str) -> None:
        self.kernel, self.host, self.dsn = kernel, Host.last, dsn
        self.router = self.host.router
        self.methods: Mapping[str, ApiMethod] = {one.name: one for one in self.router.methods()}

    def emit(self, event: Event) -> None:
        self.host.context.bus.emit(event)

    async def call(self, worker: FakeWorker, method: str, **arguments: Any) -> Any:
        """Call a method as the dispatcher does, its arguments decoded as its type says."""
        import msgspec

        one = self.methods[method]
        args = msgspec.msgpack.decode(msgspec.msgpack.encode(arguments), type=one.args)
        caller = Caller(worker.installed, (), asyncio.get_running_loop().time() + 10)
        if one.capability:
            self.host.gatekeeper.allow(caller, one)
        return await one.handle(caller, args)


@asynccontextmanager
async def running_node(dsn: str, *, pool_size: int = 8, **settings: Any) -> AsyncIterator[Node]:
    """A node on this database, with the tables of the event log in it."""
    make_tables(dsn)
    Host.settings = ExtensionsConfig(**{"event_backlog": 10_000, **settings})
    magds = {"dsn": dsn, "keep_slot": True, "pool_size": pool_size}
    async with running_kernel(MagDS, Host, config={"magds": magds}) as kernel:
        yield Node(kernel, dsn)


def make_tables(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create schema if not exists mag")
        row = connection.execute("select to_regclass('mag.extension_log')").fetchone()
        if row is None or row[0] is None:
            for migration in (*MIGRATIONS, SPENT):
                connection.execute(migration.up.encode())


def execute(dsn: str, *statements: str) -> None:
    """As another client would, each in its own transaction."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def query(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


def installed(
    extension_id: str = "listener",
    *events: EventBinding,
    jobs: Sequence[JobBinding] = (),
    grants: Mapping[str, Mapping[str, Sequence[str]]] = {},
    requires: Mapping[str, str] = {},
    data_bytes: int = 16 * 1_048_576,
) -> Installed:
    """An extension with these subscriptions, and what it may do."""
    asked = [CapabilityRequest(name=name, reason="tests", **scope) for name, scope in grants.items()]
    manifest = Manifest(
        id=extension_id, name=extension_id, version="1.0.0", events=events, jobs=jobs, capabilities=asked,
        requires=Requirements(extensions=requires), limits=Limits(data_bytes=data_bytes),
    )  # fmt: skip
    granted = {name: Grant(capability=name, scope=scope, rate_per_minute=1_000_000) for name, scope in grants.items()}
    return Installed(extension_id, "1.0.0", "0" * 64, manifest, Path("/nowhere"), "tests", grants=granted)


def binding(topic: str = TestNoted.topic, name: str = "heard", **more: Any) -> EventBinding:
    return EventBinding(name=name, topic=topic, **more)


class FakeWorker:
    """Takes what it is told; `fail` says of an event why not, `limit` in how many seconds; `before` may wait or raise
    for a whole batch.
    """

    def __init__(self, extension: Installed) -> None:
        self.installed = extension
        self.told: list[tuple[str, wire.Item, dict[str, Any]]] = []
        self.tries: list[tuple[str, int]] = []
        self.batches: list[int] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.fail: Callable[[dict[str, Any]], str | None] = lambda data: None
        self.limit: Callable[[dict[str, Any]], float] = lambda data: 0.0
        self.before: Callable[[Sequence[wire.Item]], Any] | None = None
        self.answer: Callable[[Question], Any] | None = None

    async def deliver(self, subscription: str, items: Sequence[wire.Item], timeout_s: float) -> wire.Acked:
        assert 1 <= len(items) <= wire.MAX_EVENTS
        wire.encode(wire.Deliver(1, subscription, 1000, items))  # it fits into a frame
        if self.before is not None:
            await self.before(items)
        self.batches.append(len(items))
        failed: list[tuple[int, str]] = []
        later: list[tuple[int, float]] = []
        for place, item in enumerate(items):
            data = wire.value(item.data)
            self.tries.append((item.id, item.tries))
            reason = self.fail(data)
            if reason is not None:
                failed.append((place, reason))
            elif retry_s := self.limit(data):
                later.append((place, retry_s))
            else:
                self.told.append((subscription, item, data))
        return wire.Acked(1, failed, later)

    async def ask(self, question: Question) -> Raw:
        self.asked.append((question.handler, wire.value(question.argument)))
        if self.answer is not None:
            await self.answer(question)
        return wire.raw(None)

    def data(self, subscription: str = "heard") -> list[dict[str, Any]]:
        """What it was told that is no gap."""
        return [data for name, item, data in self.told if name == subscription and item.topic != "extension.gap"]

    def gaps(self, subscription: str = "heard") -> list[dict[str, Any]]:
        return [data for name, item, data in self.told if name == subscription and item.topic == "extension.gap"]

    def numbers(self, subscription: str = "heard") -> list[int]:
        return [data["number"] for data in self.data(subscription)]


async def until(condition: Callable[[], Any], what: str = "", timeout_s: float = PATIENCE_S) -> None:
    """Wait until `condition` holds."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s} s: {what}") from None
