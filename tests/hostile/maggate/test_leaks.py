"""What a caller must not learn, and must not be able to do, whatever it sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import psycopg
import pytest
from tests.integration.maggate.support import ANONYMOUS, Stack, as_login, bearer, load_schema, running_stack, spawn

from magmobo.components.magds.database import MagDatabase
from magmobo.components.magds.dsn import connect
from magmobo.components.magds.errors import IdentityRefused
from magmobo.components.magds.multiplexer import Multiplexer
from magmobo.components.magds.pool import Pool
from magmobo.contracts.planes import Identity, Statement

SMALL = msgspec.structs.replace(ANONYMOUS, max_response_bytes=50_000)


@pytest.fixture
async def stack(dsn: str) -> AsyncIterator[Stack]:
    load_schema(dsn)
    async with running_stack(dsn, SMALL) as running:
        yield running


async def test_a_hint_never_names_a_column_the_role_may_not_use(stack: Stack) -> None:
    wrong = [await stack.get("partial?select=hiden"), await stack.get("partial?hiddn=eq.1")]
    wrong.append(await stack.ask("POST", "partial", '{"hidde": 1}'))
    near_visible = await stack.get("partial?select=show")

    assert [answer.json["hint"] for answer in wrong] == [None] * 3
    assert not any(b"partial.hidden" in answer.body for answer in wrong)
    assert near_visible.json["hint"] == 'Perhaps you meant to reference the column "partial.shown".'


async def test_a_lost_connection_says_nothing_about_the_server(dsn: str, stack: Stack) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("create view slow as select 1 as x from pg_sleep(60); grant select on slow to gate_anon")
        await stack.cache.load()
        answering = asyncio.create_task(stack.get("slow"))
        async with asyncio.timeout(30):
            while not admin.execute("select 1 from pg_stat_activity where wait_event = 'PgSleep'").fetchone():
                await asyncio.sleep(0.01)
        admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'gate_login'")
        answer = await answering

    assert (answer.status, answer.json["message"]) == (503, "the database connection was lost")
    assert b"server" not in answer.body
    assert b"/tmp" not in answer.body


async def test_one_column_many_times_is_not_an_amplifier(dsn: str, stack: Stack) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("update flights set code = null, data = to_jsonb(repeat('x', 40000)) where id = 1")
    user = bearer(role="gate_user")
    once = await stack.get("flights?id=eq.1&select=data")
    ways = [
        await stack.get("flights?id=eq.1&select=" + ",".join(["data"] * 100)),
        await stack.get("flights?id=eq.1&select=" + ",".join(f"a{n}:data" for n in range(50))),
        await stack.get("airlines?select=a:flights(data),b:flights(data),c:flights(data)"),
        await stack.get("flights?id=eq.1&select=data,b:data", {"Accept": "application/vnd.pgrst.object+json"}),
    ]

    assert (once.status, len(once.body) > 40_000) == (200, True)
    assert {(answer.status, answer.json["mag_code"]) for answer in ways} == {(400, "MAG-GATE-021")}
    assert ways[0].json["message"] == "too many bytes in the response: at most 50000"
    head = await stack.ask("HEAD", "flights?id=eq.1&select=" + ",".join(["data"] * 100), headers=user)
    assert head.status == 200  # nothing is made, so nothing is too large


async def test_a_write_whose_answer_is_too_large_does_not_happen(dsn: str, stack: Stack) -> None:
    user = bearer(role="gate_user") | {"Prefer": "return=representation"}
    answer = await stack.ask(
        "PATCH", "airlines?carrier=eq.UA&select=" + ",".join(["name"] * 50), '{"name":"%s"}' % ("n" * 2_000), user
    )

    assert (answer.status, answer.json["mag_code"]) == (400, "MAG-GATE-021")
    assert (await stack.get("airlines?carrier=eq.UA")).json[0]["name"] == "United"


async def test_a_page_of_another_site_cannot_write_through_the_visitors_browser(stack: Stack) -> None:
    """Browsers send a body of these types without asking first; every other type they ask about (CORS)."""
    user, body = bearer(role="gate_user"), '{"carrier":"XX","name":"planted"}'
    elsewhere = user | {"Origin": "https://evil.example"}
    unasked = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
    answers = [await stack.ask("POST", "airlines", body, elsewhere | {"Content-Type": type_}) for type_ in unasked]
    answers.append(await stack.ask("POST", "airlines", body, elsewhere))
    program = await stack.ask("POST", "airlines", body, user)

    assert {answer.status for answer in answers} == {415}
    assert program.status == 201


async def test_a_role_that_becomes_powerful_is_refused_though_nobody_tells_us(dsn: str) -> None:
    load_schema(dsn)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("do $$ begin create role gate_rising; exception when duplicate_object then null; end $$")
        admin.execute("grant gate_rising to gate_login; alter role gate_rising nobypassrls nosuperuser")
        multiplexer = Multiplexer(as_login(dsn), connections=1, depth=4, statements=8, statement_timeout_s=5.0)
        pool = Pool(lambda: connect(as_login(dsn)), size=1, idle_s=60)
        await multiplexer.open(spawn)
        try:
            database = MagDatabase(
                multiplexer, pool, database_name="test", request_timeout_s=5.0, acquire_timeout_s=5.0,
                roles_trusted_for_s=0.0,
            )  # fmt: skip
            await database.refresh_roles()
            asking, who = Statement(b"select 1"), Identity("gate_rising")
            await database.run(asking, who, read_only=True)
            for gift in ("bypassrls", "nobypassrls superuser"):
                admin.execute(f"alter role gate_rising {gift}")
                with pytest.raises(IdentityRefused):
                    await database.run(asking, who, read_only=True)
            admin.execute("alter role gate_rising nosuperuser")
        finally:
            await multiplexer.close()
            await pool.close()
            admin.execute("drop role gate_rising")


async def test_a_revoked_role_ends_with_the_next_request(dsn: str, stack: Stack) -> None:
    user = bearer(role="gate_other", sub="ann")
    before = await stack.get("notes", user)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("revoke gate_other from gate_login")
        try:
            after = await stack.get("notes", user)
        finally:
            admin.execute("grant gate_other to gate_login")

    assert (before.status, after.status) == (200, 403)


@pytest.mark.parametrize(
    "body",
    [
        b'{"\\ud800":1}',
        b'{"id":1,"owner":"\\ud800"}',
        b'{"id":1,"owner":"\\u0000"}',
        b'{"id":1,"owner":"\xff"}',
        b'{"\xff":1}',
        b"\xef\xbb\xbf{}x",
        b'{"id":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{" + b",".join(b'"k%d":1' % number for number in range(60_000)) + b"}",
        b'[{"id":1},' + b"{}," * 300_000 + b"{}]",
        b'{"id":1e999999}',
        b'{"id":' + b"9" * 500_000 + b"}",
    ],
    ids=lambda body: repr(body[:20]),
)
async def test_bodies_made_to_break_something_are_the_callers_mistake(stack: Stack, body: bytes) -> None:
    answer = await stack.ask("POST", "notes", body, bearer(role="gate_user", sub="ann"))
    alive = await stack.get("airlines?limit=1")

    assert 400 <= answer.status < 500, answer
    assert alive.status == 200
