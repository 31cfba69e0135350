"""MagGate takes other settings while requests are answered: keys, roles, schemas, limits, CORS; or refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import psycopg
import pytest
from tests.integration.maggate.support import SECRET, load_schema, token
from tests.integration.maggate.test_component import base_url, fetch, settings, until

from magmobo.components.listener.component import ListenerComponent
from magmobo.components.magds.component import MagDS
from magmobo.components.maggate.component import MagGate
from magmobo.components.maggate.config import JwtConfig, MagGateConfig
from magmobo.contracts.errors import ReloadRefused
from magmobo.contracts.events import DatabaseSchemaChanged
from magmobo.contracts.secret import Secret
from magmobo.contracts.settings import Effect
from magmobo.kernel.config.effects import effect_of
from magmobo.testing.harness import running_kernel

OTHER_SECRET = "another secret of more than thirty-two bytes"
CLAIMS = {"role": "gate_user", "sub": "anna"}


@asynccontextmanager
async def node(dsn: str, **maggate: Any) -> AsyncIterator[tuple[str, MagGate]]:
    load_schema(dsn)
    async with running_kernel(ListenerComponent, MagDS, MagGate, config=settings(dsn, **maggate)) as kernel:
        component = kernel.assembly.board.slot("maggate").component
        assert isinstance(component, MagGate)
        yield base_url(kernel), component


async def take(component: MagGate, keys: set[str] | None = None, **changed: Any) -> None:
    """What a reload does with this component; `keys` where a key lies deeper."""
    new = msgspec.structs.replace(component._config, **changed)
    await component.prepare_reload(new, keys or set(changed))
    component.commit_reload()


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(secret, **CLAIMS)}"}


def test_every_key_is_live() -> None:
    for field in MagGateConfig.__struct_fields__:
        assert effect_of(MagGateConfig, field, default=Effect.COMPONENT) is Effect.LIVE, field


async def test_a_rotated_key_counts_from_the_next_request_on_and_the_old_one_no_more(dsn: str) -> None:
    async with node(dsn) as (url, component):
        asked = url + "notes"
        assert (await fetch(asked, headers=bearer(SECRET)))[0] == 200  # it is remembered now
        await take(component, {"jwt.secret"}, jwt=JwtConfig(secret=Secret(OTHER_SECRET)))
        assert (await fetch(asked, headers=bearer(SECRET)))[0] == 401
        assert (await fetch(asked, headers=bearer(OTHER_SECRET)))[0] == 200
        await take(component, {"jwt.audience"}, jwt=JwtConfig(secret=Secret(OTHER_SECRET), audience="us"))
        assert (await fetch(asked, headers=bearer(OTHER_SECRET)))[0] == 401
        await take(component, {"jwt.secret", "jwt.audience"}, jwt=JwtConfig())
        assert (await fetch(asked, headers=bearer(OTHER_SECRET)))[0] == 401


@pytest.mark.parametrize(
    ("changed", "keys", "reason"),
    [
        ({"jwt": JwtConfig(secret=Secret("too short"))}, {"jwt.secret"}, "shorter than 32 bytes"),
        ({"jwt": JwtConfig(public_key="no PEM")}, {"jwt.public_key"}, "not a PEM"),
        ({"anonymous_role": "gate_stranger"}, None, "GRANT gate_stranger TO gate_login"),
        ({"anonymous_role": "gate_root", "max_rows": 1}, None, "superuser"),
    ],
)
async def test_what_cannot_work_is_refused_and_nothing_changes(
    dsn: str, changed: dict[str, Any], keys: set[str] | None, reason: str
) -> None:
    async with node(dsn) as (url, component):
        before = component._config
        with pytest.raises(ReloadRefused, match=reason) as refused:
            await take(component, keys, **changed)
        assert "too short" not in str(refused.value)
        await component.abort_reload()
        component.commit_reload()  # a stray call takes nothing
        assert component._config is before
        assert (await fetch(url + "notes", headers=bearer(SECRET)))[0] == 200
        assert len(json.loads((await fetch(url + "airlines"))[2])) > 1


async def test_a_database_that_is_away_refuses_other_schemas(dsn: str) -> None:
    async with node(dsn) as (url, component):

        class Away:
            def session(self, *, timeout_s: float | None = None) -> Any:
                raise psycopg.OperationalError("server\nclosed")

        here, component._cache._database = component._cache._database, Away()  # type: ignore[assignment]
        with pytest.raises(ReloadRefused, match="server closed"):
            await take(component, schemas=("shop",))
        component._cache._database = here
        assert (await fetch(url + "airlines"))[0] == 200


async def test_schemas_change_with_the_snapshot_and_are_followed(dsn: str) -> None:
    async with node(dsn) as (url, component):
        assert (await fetch(url + "items"))[0] == 404
        await take(component, schemas=("shop", "public"))
        assert (await fetch(url + "items"))[0] == 200  # the very next request
        status, headers, _ = await fetch(url + "airlines", headers={"Accept-Profile": "public"})
        assert (status, headers["content-profile"]) == (200, "public")
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("create table shop.late as select 7 as id; grant select on shop.late to gate_anon")
        assert json.loads(await until(url + "late", 200)) == [{"id": 7}]
        await take(component, schemas=("public",))
        assert (await fetch(url + "items"))[0] == 404
        assert (await fetch(url + "airlines"))[0] == 200


async def test_what_changes_between_prepare_and_commit_is_seen(dsn: str) -> None:
    async with node(dsn) as (url, component):
        seen = asyncio.Event()
        subscription = component._context.bus.on(DatabaseSchemaChanged, lambda _: seen.set(), priority=-100)
        await component.prepare_reload(msgspec.structs.replace(component._config, schemas=("shop",)), {"schemas"})
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("create table shop.between as select 7 as id; grant select on shop.between to gate_anon")
        async with asyncio.timeout(30):
            await seen.wait()
            while component._cache._stale.is_set():
                await asyncio.sleep(0.01)
        await component._cache.load()
        subscription.cancel()
        component.commit_reload()
        assert json.loads(await until(url + "between", 200)) == [{"id": 7}]


async def test_a_load_that_was_under_way_does_not_bring_former_schemas_back(dsn: str) -> None:
    async with node(dsn) as (url, component):
        cache, read = component._cache, component._cache.read
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(schemas: tuple[str, ...]) -> Any:
            snapshot = await read(schemas)
            begun.set()
            await go_on.wait()
            return snapshot

        cache.read = slow  # type: ignore[method-assign]
        loading = asyncio.create_task(cache.load())
        await begun.wait()
        cache.read = read  # type: ignore[method-assign]
        await take(component, schemas=("shop",))
        go_on.set()
        await loading
        assert {name.schema for name in cache.snapshot.tables} == {"shop"}
        assert (await fetch(url + "items"))[0] == 200


async def test_roles_limits_and_origins(dsn: str) -> None:
    async with node(dsn) as (url, component):
        assert (await fetch(url + "airlines"))[0] == 200
        await take(component, anonymous_role=None)
        assert (await fetch(url + "airlines"))[0] == 401
        await take(component, anonymous_role="gate_user", max_rows=1)
        assert len(json.loads((await fetch(url + "airlines"))[2])) == 1
        body = json.dumps({"carrier": "ZZ", "name": "z" * 100})
        await take(component, max_body_bytes=50)
        assert (await fetch(url + "airlines", "POST", body))[0] == 413
        origin = {"Origin": "https://app.example"}
        assert "access-control-allow-origin" not in (await fetch(url + "airlines", headers=origin))[1]
        await take(component, cors_origins=("https://app.example",))
        assert (await fetch(url + "airlines", headers=origin))[1]["access-control-allow-origin"] == origin["Origin"]
        await take(component, max_response_bytes=1_024, max_rows=10_000)
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("insert into airlines select 'x' || n, repeat('n', 100) from generate_series(1, 50) n")
        status, _, body = await fetch(url + "airlines")
        assert (status, json.loads(body)["code"]) == (400, "PGRST100")
        assert (await component.health()).status == "healthy"


async def test_a_request_under_way_ends_as_it_began(dsn: str) -> None:
    async with node(dsn, statement_timeout_s=5.0) as (url, component):
        with psycopg.connect(dsn) as locking:
            locking.execute("lock table airlines in access exclusive mode")
            waiting = asyncio.create_task(fetch(url + "airlines?limit=2"))
            async with asyncio.timeout(30):
                while not component._app._in_flight:
                    await asyncio.sleep(0.005)
            await take(component, anonymous_role=None, max_rows=1, max_response_bytes=1_024)
        assert (await waiting)[0] == 200
        assert (await fetch(url + "airlines"))[0] == 401
