"""Nodes with a lifecycle on a real Postgres: real packages, guests, migrations and audit; workers are played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import structlog
from msgspec import Raw, msgpack
from tests.integration.extensions.mediation import Mediation
from tests.unit.extensions.package.making import PAIR, signed

from magmobo.components.magds.dsn import connect
from magmobo.components.magds.guests.service import GuestService
from magmobo.components.magds.migrations.service import MigrationService
from magmobo.components.magds.pool import Pool
from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import MagError, SecretUnknown
from magmobo.contracts.events import Event
from magmobo.contracts.guests import TableRight
from magmobo.contracts.planes import SecretInfo, TableName
from magmobo.contracts.secret import Secret
from magmobo.extensions.config import ExtensionsConfig
from magmobo.extensions.installed import Installed, Question
from magmobo.extensions.lifecycle.manager import Lifecycle
from magmobo.extensions.lifecycle.ports import Ports
from magmobo.extensions.lifecycle.schema import MIGRATIONS
from magmobo.extensions.package.keys import public_text
from magmobo.extensions.package.scopes import parse_table
from magmobo.extensions.standing import Standing
from magmobo.kernel.audit.log import AuditLog
from magmobo.kernel.bus.bus import EventBus, ScopedBus
from magmobo.kernel.clock import SystemClock
from magmobo.kernel.hooks import HookBoard
from magmobo.kernel.state.manager import StateManager

ADMIN = Actor(name="uid:0", role=Role.ADMIN, via="control")
TABLES = "create table public.orders (id int primary key, note text); create table public.prices (id int primary key)"
SCHEMA = {"name": "database.schema", "reason": "keeps what it saw"}
READ = {"name": "database.read", "reason": "reads orders", "tables": ["public.orders"]}
EMIT = {"name": "api.emit_events", "reason": "tells"}
UP1 = {
    "migrations/0001_seen.up.sql": "create table seen (id int primary key);",
    "migrations/0001_seen.down.sql": "drop table seen;",
}
UP2 = UP1 | {
    "migrations/0002_note.up.sql": "alter table seen add note text;",
    "migrations/0002_note.down.sql": "alter table seen drop note;",
}


class Trouble(MagError):
    """What a test wants to go wrong."""

    code = "MAG-TEST-001"

    def __str__(self) -> str:
        return "as the test wants it"


class Unsettled(AssertionError):
    """Some ask one worker and some another, as they do in the middle of a change."""


class PlayedWorker:
    """A worker without a process. Its world says how it is."""

    def __init__(self, world: World, installed: Installed, uid: int, data_dir: Path, heard: Mapping[str, Any]) -> None:
        self.world, self.installed, self.uid, self.data_dir = world, installed, uid, data_dir
        self.on_crash, self.on_escape = heard["on_crash"], heard["on_escape"]
        self.state, self.is_idle, self.told = "new", False, 0
        self.handlers: frozenset[str] = frozenset()
        self.health: Any = None

    async def start(self) -> None:
        await self.world.at("worker", self.installed)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        (self.data_dir / "kept").write_text(self.installed.version)
        if self.installed.version in self.world.broken:
            raise Trouble
        self.state, self.handlers = "ready", self.installed.manifest.handlers() | {"health"}

    async def ask(self, question: Question) -> Raw:
        assert self.state == "ready", self.state
        assert question.handler == "health"
        default = self.world.health.get(self.installed.version, {"status": "healthy"})
        answer = default if self.health is None else self.health
        if isinstance(answer, Exception):
            raise answer
        return Raw(msgpack.encode(answer))

    def tell_settings(self) -> None:
        self.told += 1

    async def drain(self, timeout_s: float) -> None:
        await self.world.at("drain", self.installed)
        self.state = "drained"

    def kill(self) -> None:
        self.state = "killed"

    def figures(self) -> Mapping[str, float]:
        return {"restarts": 0.0}


class Router:
    """Hook router, event router and endpoints in one: who is in place."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.hooks: dict[str, Any] = {}
        self.guarded: set[str] = set()
        self.events = PlayedEvents(world)
        self.endpoints = PlayedEndpoints(world)

    def attach(self, worker: Any) -> None:
        self.hooks[worker.installed.id] = worker
        self.guarded.discard(worker.installed.id)

    def detach(self, extension_id: str) -> None:
        self.hooks.pop(extension_id, None)
        self.guarded.discard(extension_id)

    def swap(self, old: Any, new: Any) -> None:
        assert self.hooks[old.installed.id] is old
        self.attach(new)

    def guard(self, installed: Installed) -> None:
        self.detach(installed.id)
        self.guarded.add(installed.id)

    def in_place(self, extension_id: str) -> PlayedWorker | None:
        """The one worker that is asked everywhere, or none anywhere. Raises: Unsettled."""
        places = [self.hooks, self.events.workers, self.endpoints.workers]
        workers = [place.get(extension_id) for place in places]
        if not workers[0] is workers[1] is workers[2]:
            raise Unsettled(workers)
        found = workers[0]
        assert found is None or found.state == "ready", found.state
        return found


class PlayedEvents:
    def __init__(self, world: World) -> None:
        self._world = world
        self.workers: dict[str, Any] = {}
        self.forgotten: list[str] = []
        self.unfollowed: list[str] = []

    async def attach(self, worker: Any) -> None:
        await asyncio.sleep(0)
        self.workers[worker.installed.id] = worker

    async def detach(self, extension_id: str) -> None:
        self.workers.pop(extension_id, None)

    async def forget(self, connection: Any, extension_id: str) -> None:
        await self._world.at("forget", extension_id)
        self.forgotten.append(extension_id)

    async def unfollow(self, connection: Any, extension_id: str) -> None:
        await self._world.at("unfollow", extension_id)
        self.unfollowed.append(extension_id)

    async def standing(self, extension_id: str, grants: Mapping[str, Any]) -> Standing:
        return Standing(3, 1)


class PlayedEndpoints:
    def __init__(self, world: World) -> None:
        self._world = world
        self.workers: dict[str, Any] = {}

    async def attach(self, worker: Any) -> None:
        await self._world.at("endpoints", worker.installed)
        self.workers[worker.installed.id] = worker

    def detach(self, extension_id: str) -> None:
        self.workers.pop(extension_id, None)


class DictVault:
    """A vault in memory, as a component sees it."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        self.fails = False

    def _check(self, name: str) -> None:
        if self.fails:
            raise Trouble
        assert name.startswith("extensions."), name

    async def read(self, name: str, *, version: int | None = None, purpose: str = "") -> Secret:
        self._check(name)
        if name not in self.secrets:
            raise SecretUnknown(name)
        return Secret(self.secrets[name])

    async def write(self, name: str, value: Secret) -> SecretInfo:
        self._check(name)
        self.secrets[name] = value.reveal()
        return self._info(name)

    async def restore(self, name: str, version: int) -> SecretInfo:
        return self._info(name)

    async def remove(self, name: str) -> None:
        self._check(name)
        if self.secrets.pop(name, None) is None:
            raise SecretUnknown(name)

    async def infos(self) -> Sequence[SecretInfo]:
        return [self._info(name) for name in self.secrets]

    def _info(self, name: str) -> SecretInfo:
        return SecretInfo(name, 1, [1], "", "")


@dataclass
class World:
    """What a test says about extensions: versions that do not start, how each is, and what happens at a step."""

    broken: set[str] = field(default_factory=set)
    health: dict[str, Any] = field(default_factory=dict)
    tier: str = "S3"
    steps: list[tuple[str, str]] = field(default_factory=list)
    on_step: Callable[[str, Any], Any] | None = None
    workers: list[PlayedWorker] = field(default_factory=list)

    async def at(self, step: str, about: Any) -> None:
        self.steps.append((step, getattr(about, "version", about)))
        if self.on_step is not None:
            waits = self.on_step(step, about)
            if waits is not None:
                await waits


class PlayedDatabase:
    """`Database.session` over a real pool."""

    def __init__(self, dsn: str) -> None:
        self.pool = Pool(partial(connect, dsn), size=6, idle_s=60)
        self.asked = 0

    def standing_session(self) -> Any:
        return self.session()

    def session(self, *, timeout_s: float | None = None) -> Any:
        self.asked += 1
        return self.pool.lease(timeout_s=timeout_s or 5)


@dataclass
class FixedPremises:
    """A folder that is there whoever runs the tests."""

    place: Path

    def root(self) -> Path:
        return self.place

    known = root


@dataclass
class Node:
    """One node's lifecycle and what a test looks at."""

    lifecycle: Lifecycle
    router: Router
    world: World
    vault: DictVault
    audit: AuditLog
    database: PlayedDatabase
    guests: GuestService
    root: Path
    config: ExtensionsConfig
    told: list[Event] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    clock: Clock = field(default_factory=SystemClock)

    def in_place(self, extension_id: str = "demo") -> PlayedWorker | None:
        return self.router.in_place(extension_id)

    def worker(self, extension_id: str = "demo") -> PlayedWorker:
        """The one in place. Raises: Unsettled."""
        found = self.in_place(extension_id)
        if found is None:
            raise Unsettled(extension_id)
        return found

    def topics(self) -> list[str]:
        return [event.topic for event in self.told if event.topic.startswith("extension.")]

    async def state(self, extension_id: str = "demo") -> str:
        return (await self.lifecycle.show(extension_id)).info.state

    async def records(self, action: str) -> list[Mapping[str, Any]]:
        found = await self.audit.read(after_seq=0, limit=10_000)
        return [one.payload for one in found if one.action == action]

    async def trusted(self) -> Node:
        await self.lifecycle.trust(public_text(PAIR.public), "me", "", ADMIN)
        return self

    async def enabled(self, data: bytes, extension_id: str = "demo") -> Node:
        await self.lifecycle.install(data, ADMIN)
        await self.lifecycle.approve(extension_id, (), extension_id, ADMIN)
        await self.lifecycle.enable(extension_id, ADMIN)
        return self

    def versions_on_disk(self) -> set[str]:
        folder = self.root / "versions"
        return {one.name for one in folder.iterdir()} if folder.is_dir() else set()


def rights_of(installed: Installed) -> Sequence[TableRight]:
    """As the real one: what the grants of tables come to."""
    found = []
    for capability, rights in (("database.read", ("select",)), ("database.write", ("select", "insert", "update"))):
        grant = installed.grants.get(capability)
        for text in grant.scope["tables"] if grant is not None else ():
            table = parse_table(text)
            found.append(TableRight(TableName(table.schema, table.name), rights, table.columns))
    return found


@asynccontextmanager
async def node_at(
    dsn: str, folder: Path, *, world: World | None = None, vault: DictVault | None = None, clock: Clock | None = None,
    start: bool = True, live: Mediation | None = None, **config: Any,
) -> AsyncIterator[Node]:  # fmt: skip
    """A node that runs; several may be on one database. `live`: with real workers, hooks and gate."""
    world = world if world is not None else World()
    async with AsyncExitStack() as stack:
        (folder / "state").mkdir(parents=True, exist_ok=True)
        manager = StateManager(folder / "state" / "state.sqlite")
        await manager.open()
        stack.push_async_callback(manager.close)
        audit = AuditLog(folder / "audit", manager.scope("audit"), mask=lambda value: value)
        await audit.open()
        stack.push_async_callback(audit.close)
        node = _node(dsn, folder, world, vault or DictVault(), audit, clock or SystemClock(), live, config)
        stack.push_async_callback(node.database.pool.close)
        stack.push_async_callback(node.guests.close)
        stack.push_async_callback(node.lifecycle.stop)
        if start:
            await node.lifecycle.start()
        yield node


def _node(
    dsn: str, folder: Path, world: World, vault: DictVault, audit: AuditLog, clock: Clock,
    live: Mediation | None, config: Mapping[str, Any],
) -> Node:  # fmt: skip
    database, bus = PlayedDatabase(dsn), ScopedBus(EventBus(origin="0123456789ab", time_s=clock.time_s), "extensions")
    with psycopg.connect(dsn) as admin:
        row = admin.execute("select oid::int8 from pg_database where datname = current_database()").fetchone()
    assert row is not None
    guests = GuestService(dsn, database.session, database_oid=row[0], acquire_timeout_s=5)
    router, told, tasks = Router(world), list[Event](), list[asyncio.Task[None]]()
    forgotten: list[str] = []
    settings = ExtensionsConfig(drain_s=1.0, **config)

    board = HookBoard() if live is None else live.board

    def make_worker(installed: Installed, *, uid: int, data_dir: Path, **heard: Any) -> Any:
        if live is not None:
            return live.worker(installed, **heard)
        worker = PlayedWorker(world, installed, uid, data_dir, heard)
        world.workers.append(worker)
        return worker

    def spawn(work: Any, name: str) -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(work, name=name))
        return tasks[-1]

    async def tier() -> str:
        return world.tier

    bus.on("extension.**", lambda envelope: told.append(envelope.data))
    ports = Ports(
        database=database, guests=guests, migrations=MigrationService(database.session, guests, hooks=board, bus=bus),
        make_worker=make_worker, hooks=router if live is None else live.router, events=router.events,
        endpoints=router.endpoints, audit=audit, bus=bus, vault=lambda: vault, clock=clock,
        log=structlog.stdlib.get_logger(), hide=lambda text: text.replace("hunter", "***"), spawn=spawn,
        config=lambda: settings, tier=tier, rights_of=rights_of, used=lambda *_: 0, tables=MIGRATIONS,
        forget=forgotten.append, premises=FixedPremises(folder / "extensions"), node_version="0.1.0",
    )  # fmt: skip
    return Node(
        Lifecycle(ports),
        router,
        world,
        vault,
        audit,
        database,
        guests,
        folder / "extensions",
        settings,
        told,
        forgotten,
        tasks,
        clock,
    )


def package(place: Path, version: str = "1.0.0", *, files: Mapping[str, str] | None = None, **changed: Any) -> bytes:
    """A signed package of extension `demo`, or another `id`."""
    folder = place / f"{changed.get('id', 'demo')}-{version}-{len(list(place.iterdir())) if place.is_dir() else 0}"
    return signed(folder, files, version=version, **changed)


def rows(dsn: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query, values or None).fetchall()  # type: ignore[arg-type]


def execute(dsn: str, query: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(query)  # type: ignore[arg-type]


_TRACES = {
    "roles": "select rolname from pg_roles where rolname like 'mag_ext_' || "
    "(select oid from pg_database where datname = current_database()) || '_%' order by 1",
    "schemas": "select nspname from pg_namespace where nspname like 'ext_%' order by 1",
    "columns": "select table_schema, table_name, column_name from information_schema.columns "
    "where table_schema like 'ext_%' and table_name = 'seen' order by 1, 2, 3",
    "rights": "select table_name, privilege_type from information_schema.role_table_grants "
    "where table_schema = 'public' and grantee like 'mag_ext_%' order by 1, 2",
}
_REGISTRY = {
    "extensions": "select id, state, resume_state, sha256, previous_sha256, pending_sha256, target_sha256, halt_reason "
    "from mag.extension order by id",
    "versions": "select sha256, extension_id from mag.extension_version order by 1",
    "grants": "select sha256, capability, state from mag.extension_grant order by 1, 2",
}


def traces(dsn: str, folder: Path) -> dict[str, Any]:
    """Everything that an extension could leave behind, of which a killed change may leave none."""
    exists = rows(dsn, "select to_regclass('mag.extension') is not null")[0][0]
    found: dict[str, Any] = {name: rows(dsn, query) for name, query in _TRACES.items()}
    found |= {name: rows(dsn, query) if exists else [] for name, query in _REGISTRY.items()}
    versions = folder / "extensions" / "versions"
    data = folder / "extensions" / "data"
    found["data"] = sorted(one.name.partition(".")[0] for one in data.iterdir()) if data.is_dir() else []
    found["files"] = sorted(one.name for one in versions.iterdir()) if versions.is_dir() else []
    return found


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for what others do on this loop. Raises: TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not _is_so(condition):
            await asyncio.sleep(0.005)


def _is_so(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except Unsettled:
        return False
