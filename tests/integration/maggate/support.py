"""The gateway over a real database, with a client that calls its ASGI application directly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import psycopg
import structlog
from msgspec import Struct

from magmobo.components.magds.database import MagDatabase
from magmobo.components.magds.dsn import connect
from magmobo.components.magds.multiplexer import Multiplexer
from magmobo.components.magds.pool import Pool
from magmobo.components.maggate.app import RestApp
from magmobo.components.maggate.auth import Authenticator
from magmobo.components.maggate.config import JwtConfig, MagGateConfig
from magmobo.components.maggate.gate import Gate
from magmobo.components.maggate.hooks import Guards, Witnesses
from magmobo.components.maggate.privileges import Privileges
from magmobo.components.maggate.schema_cache import SchemaCache
from magmobo.contracts.secret import Secret
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.hooks import HookBoard
from magmobo.testing.clock import FakeClock

HERE = Path(__file__).parent
SECRET = "a secret of more than thirty-two bytes!"
NOW_S = 1_700_000_000.0
ANONYMOUS = MagGateConfig(
    schemas=("public", "shop"), anonymous_role="gate_anon", jwt=JwtConfig(secret=Secret(SECRET), leeway_s=0)
)


def load_schema(dsn: str) -> None:
    """The test schema with its rows, in an empty database."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute((HERE / "schema.sql").read_bytes())
    load_rows(dsn)


def load_rows(dsn: str) -> None:
    """The rows as they were at first."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute((HERE / "rows.sql").read_bytes())


def as_login(dsn: str) -> str:
    """The DSN of the node's own role: no superuser, may become the request roles."""
    return dsn.replace("user=postgres", "user=gate_login")


def token(secret: str = SECRET, **claims: Any) -> str:
    return jwt.encode(claims, secret, algorithm="HS256")


def bearer(**claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(**claims)}"}


def spawn(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(coroutine, name=name)


class Answer(Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Stack(Struct):
    """The gateway and what it stands on."""

    app: RestApp
    database: MagDatabase
    cache: SchemaCache
    clock: FakeClock
    hooks: HookBoard
    bus: EventBus

    async def ask(
        self, method: str, path: str, body: bytes | str = b"", headers: Mapping[str, str] = {}, **more: str
    ) -> Answer:
        """One request as a server would hand it over; `path` is below /rest/v1/ and percent-encoded."""
        raw_path, _, query = ("/rest/v1/" + path).partition("?")
        pairs = [(name.lower().encode(), value.encode()) for name, value in {**headers, **more}.items()]
        scope = {
            "type": "http", "method": method, "path": raw_path, "raw_path": raw_path.encode(),
            "query_string": query.encode(), "headers": pairs,
        }  # fmt: skip
        content = body.encode() if isinstance(body, str) else body
        return await call_app(self.app, scope, [{"type": "http.request", "body": content}])

    async def get(self, path: str, headers: Mapping[str, str] = {}) -> Answer:
        return await self.ask("GET", path, headers=headers)


async def call_app(app: RestApp, scope: dict[str, Any], incoming: list[dict[str, Any]]) -> Answer:
    sent: list[Any] = []
    silence = asyncio.Event()

    async def receive() -> Any:
        if incoming:
            return incoming.pop(0)
        await silence.wait()
        raise AssertionError("nobody sets the event")

    async def send(message: Any) -> None:
        sent.append(message)

    async with asyncio.timeout(20):
        await app(scope, receive, send)
    starts = [message for message in sent if message["type"] == "http.response.start"]
    assert len(starts) == 1, sent
    body = b"".join(message.get("body", b"") for message in sent)
    headers = {name.decode(): value.decode() for name, value in starts[0]["headers"]}
    assert len(headers) == len(starts[0]["headers"]), "a header is sent twice"
    return Answer(starts[0]["status"], headers, body)


@asynccontextmanager
async def running_database(dsn: str, **options: Any) -> AsyncIterator[MagDatabase]:
    """MagDS' own `Database` on this DSN."""
    settings = {"connections": 2, "depth": 12, "statements": 64, "statement_timeout_s": 10.0} | options
    multiplexer = Multiplexer(dsn, **settings)
    pool = Pool(lambda: connect(dsn), size=2, idle_s=60)
    await multiplexer.open(spawn)
    try:
        database = MagDatabase(multiplexer, pool, database_name="test", request_timeout_s=10.0, acquire_timeout_s=10.0)
        await database.refresh_roles()
        yield database
    finally:
        await multiplexer.close()
        await pool.close()


@asynccontextmanager
async def running_stack(dsn: str, config: MagGateConfig = ANONYMOUS, **options: Any) -> AsyncIterator[Stack]:
    """The gateway on a database that holds the test schema."""
    clock, log = FakeClock(time_s=NOW_S), structlog.get_logger()
    hooks, bus = HookBoard(), EventBus()
    async with running_database(as_login(dsn), **options) as database:
        cache = SchemaCache(database, config.schemas, clock, log)
        await cache.load()
        authenticator = Authenticator(config.jwt, config.anonymous_role, database.grantable_roles, clock)
        gate = Gate(config, database, cache, authenticator, Privileges(database, clock), Guards(hooks))
        app = RestApp(gate, config, Witnesses(hooks, bus.scoped("maggate"), clock), log)
        yield Stack(app, database, cache, clock, hooks, bus)
