"""HTTP around the gateway: limits, CORS, ids, clients that leave, failures that say nothing."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import psycopg
import pytest
from tests.integration.maggate.support import ANONYMOUS, Stack, bearer, call_app, load_schema, running_stack

SLOW_VIEW = """
create view slow as select 1 as id, pg_sleep(30)::text as slept; grant select on slow to gate_anon;
create function boom() returns int language plpgsql as $$
  begin raise exception 'inside' using errcode = 'XX001'; end $$;
create view broken as select boom() as id; grant select on broken to gate_anon;
create function teapot() returns int language plpgsql as $$
  begin raise exception 'short and stout' using errcode = 'PT418', hint = 'tip me over'; end $$;
create view kettle as select teapot() as id; grant select on kettle to gate_anon;
create function scribble() returns int language sql volatile as
  $$ insert into public.airlines values ('QQ', 'q') on conflict do nothing; select 1 $$;
create view scribbles as select scribble() as id; grant select on scribbles to gate_user;
create view plain as select 1 as id; grant select on plain to gate_anon;
"""


@pytest.fixture
async def stack(dsn: str) -> AsyncIterator[Stack]:
    load_schema(dsn)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(SLOW_VIEW)
    config = msgspec.structs.replace(ANONYMOUS, max_body_bytes=1_000, max_rows=3, cors_origins=("https://app.example",))
    async with running_stack(dsn, config) as stack:
        yield stack


async def test_max_rows_caps_responses_and_embedded_lists(stack: Stack) -> None:
    answer = await stack.get("flights?select=id&order=id&limit=100", {"Prefer": "count=exact"})
    embedded = await stack.get("airports?select=flights!flights_origin_fkey(id)&faa=eq.JFK&flights.limit=99")

    assert (len(answer.json), answer.status, answer.headers["content-range"]) == (3, 206, "0-2/4")
    assert len(embedded.json[0]["flights"]) == 2


async def test_a_body_beyond_the_limit_is_refused_unread(stack: Stack) -> None:
    declared = await stack.ask("POST", "airlines", b"{}", bearer(role="gate_user") | {"Content-Length": "1001"})
    chunk: dict[str, Any] = {"type": "http.request", "body": b"x" * 400, "more_body": True}
    incoming = [dict(chunk) for _ in range(5)]
    scope = {"type": "http", "method": "POST", "path": "/rest/v1/airlines", "raw_path": b"/rest/v1/airlines",
             "query_string": b"", "headers": []}  # fmt: skip
    streamed = await call_app(stack.app, scope, incoming)

    for answer in (declared, streamed):
        assert (answer.status, answer.json["mag_code"], answer.headers["connection"]) == (413, "MAG-GATE-023", "close")
    assert len(incoming) == 2


async def test_a_slow_statement_ends_with_a_timeout(dsn: str) -> None:
    load_schema(dsn)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(SLOW_VIEW)
    async with running_stack(dsn, msgspec.structs.replace(ANONYMOUS, statement_timeout_s=0.4)) as stack:
        answer = await stack.get("slow")

    assert answer.status == 504


async def test_a_failure_inside_says_nothing(stack: Stack) -> None:
    answer = await stack.get("broken")

    assert (answer.status, answer.json["mag_code"]) == (500, "MAG-GATE-057")
    assert b"inside" not in answer.body


async def test_reading_cannot_write(stack: Stack) -> None:
    user = bearer(role="gate_user")
    answer = await stack.get("scribbles", user)

    assert (answer.status, answer.json["code"]) == (405, "25006")
    assert (await stack.get("airlines?carrier=eq.QQ", user)).json == []


async def test_an_encoded_prefix_names_nothing(stack: Stack) -> None:
    scope = {"type": "http", "method": "GET", "path": "/rest/v1/plain", "raw_path": b"/rest/v%31/plain",
             "query_string": b"", "headers": []}  # fmt: skip

    assert (await call_app(stack.app, scope, [])).json["code"] == "PGRST125"


async def test_a_function_may_choose_the_status(stack: Stack) -> None:
    answer = await stack.get("kettle")

    assert (answer.status, answer.json["message"], answer.json["hint"]) == (418, "short and stout", "tip me over")


async def test_a_problem_is_rfc_9457_and_postgrest_at_once(stack: Stack) -> None:
    answer = await stack.get("airlinez")

    assert answer.headers["content-type"] == "application/problem+json; charset=utf-8"
    assert answer.json == {
        "type": "urn:magmobo:error:MAG-GATE-040",
        "title": "The table does not exist",
        "status": 404,
        "detail": "Could not find the table 'public.airlinez' in the schema cache. GET /rest/v1/ lists the tables the "
        "caller may use.",
        "mag_code": "MAG-GATE-040",
        "code": "PGRST205",
        "message": "Could not find the table 'public.airlinez' in the schema cache",
        "details": None,
        "hint": "Perhaps you meant the table 'public.airlines'",
    }


async def test_request_ids_are_echoed_only_when_harmless(stack: Stack) -> None:
    given = await stack.get("plain", {"X-Request-Id": "abc-1.2:3"})
    evil = await stack.get("plain", {"X-Request-Id": "a\r\nSet-Cookie: x"})
    none = await stack.get("nothing")

    assert given.headers["x-request-id"] == "abc-1.2:3"
    made = {evil.headers["x-request-id"], none.headers["x-request-id"]}
    assert len(made) == 2
    assert all(re.fullmatch("[0-9a-f]{12}-[0-9]+", one) for one in made)


async def test_cors_is_for_the_listed_origins_only(stack: Stack) -> None:
    ask = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization, prefer"}
    ours, theirs = {"Origin": "https://app.example"}, {"Origin": "https://evil.example"}
    preflight = await stack.ask("OPTIONS", "plain", headers=ours | ask)
    refused = await stack.ask("OPTIONS", "plain", headers=theirs | ask)
    read, stranger = await stack.get("plain", ours), await stack.get("plain", theirs)

    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    assert preflight.headers["access-control-allow-headers"] == "authorization, prefer"
    assert "access-control-allow-credentials" not in preflight.headers
    assert read.headers["access-control-allow-origin"] == "https://app.example"
    for answer in (refused, stranger):
        assert not any(name.startswith("access-control") for name in answer.headers)


async def test_options_names_the_methods(stack: Stack) -> None:
    table, root = await stack.ask("OPTIONS", "plain"), await stack.ask("OPTIONS", "")

    assert table.headers["allow"] == "GET, HEAD, POST, PATCH, DELETE, OPTIONS"
    assert root.headers["allow"] == "GET, HEAD, OPTIONS"


async def test_work_for_a_client_that_left_is_given_up(dsn: str) -> None:
    load_schema(dsn)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(SLOW_VIEW)
    async with running_stack(dsn, msgspec.structs.replace(ANONYMOUS, statement_timeout_s=60.0)) as stack:
        scope = {"type": "http", "method": "GET", "path": "/rest/v1/slow", "raw_path": b"/rest/v1/slow",
                 "query_string": b"", "headers": []}  # fmt: skip
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        started = time.monotonic()
        await stack.app(scope, receive, send)

        assert time.monotonic() - started < 25  # it would have taken 30
        assert sent == []
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
        assert (await stack.get("plain")).json == [{"id": 1}]
        assert await stack.app.drain(1)


async def test_a_cancelled_server_task_stays_cancelled(stack: Stack) -> None:
    task = asyncio.create_task(stack.get("slow"))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
