"""Row level security holds through the whole gateway: between users, under load, next to failing neighbours."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import psycopg
import pytest
from tests.integration.maggate.support import NOW_S, SECRET, Answer, Stack, bearer, load_schema, running_stack

from magmobo.components.maggate.config import JwtConfig, MagGateConfig
from magmobo.contracts.secret import Secret

USERS = [f"user{number}" for number in range(8)]
MANY_NOTES = """
delete from notes;
insert into notes select n, 'user' || n % 8, 'body ' || n from generate_series(1, 800) n;
"""


@pytest.fixture
async def stack(dsn: str) -> AsyncIterator[Stack]:
    load_schema(dsn)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(MANY_NOTES)
    async with running_stack(dsn) as stack:
        yield stack


async def test_users_never_meet_under_load_beside_errors_and_cancelled_neighbours(stack: Stack) -> None:
    """Every answer belongs to who asked, while others fail, are cancelled, or write."""
    dice = random.Random(7)
    wrong: list[str] = []
    kinds = {"read": 0, "error": 0, "foreign": 0, "cancelled": 0, "written": 0}

    async def one(number: int) -> None:
        user = USERS[number % len(USERS)]
        headers = bearer(role="gate_user" if number % 3 else "gate_other", sub=user)
        kind = dice.choice(list(kinds))
        if kind == "read":
            rows = (await stack.get("notes?select=owner&limit=50", headers)).json
            if not rows or {row["owner"] for row in rows} != {user}:
                wrong.append(f"{user} saw {rows}")
        elif kind == "error":
            answer = await stack.get("notes?id=eq.x", headers)
            if answer.json["code"] != "22P02":
                wrong.append(f"{user} got {answer.body!r}")
        elif kind == "foreign":
            other = USERS[(number + 1) % len(USERS)]
            if (await stack.get(f"notes?owner=eq.{other}", headers)).json:
                wrong.append(f"{user} saw rows of {other}")
        elif kind == "written":
            answer = await stack.ask(
                "PATCH", "notes?id=gte.1&select=owner", '{"body": null}', headers, Prefer="return=representation"
            )
            if {row["owner"] for row in answer.json} != {user}:
                wrong.append(f"{user} changed {answer.body[:200]!r}")
        else:
            task = asyncio.ensure_future(stack.get("notes?select=owner", headers))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        kinds[kind] += 1

    for start in range(0, 1200, 60):
        await asyncio.gather(*(one(number) for number in range(start, start + 60)))

    assert wrong == []
    assert min(kinds.values()) > 100


async def test_claims_and_role_end_with_the_request(stack: Stack) -> None:
    ann = bearer(role="gate_user", sub="user1")

    assert len((await stack.get("notes?limit=5", ann)).json) == 5
    assert (await stack.get("notes", bearer(role="gate_user"))).json == []
    assert (await stack.get("notes")).json["code"] == "42501"


async def test_a_unique_value_of_another_user_is_not_quoted(stack: Stack) -> None:
    """The conflict is told, the hidden row's value is not."""
    answer = await stack.ask(
        "POST", "notes", '{"id": 9001, "owner": "user1", "body": "body 2"}', bearer(role="gate_user", sub="user1")
    )

    assert (answer.status, answer.json["code"], answer.json["details"]) == (409, "23505", None)


@pytest.mark.parametrize(
    ("headers", "status", "code", "mag_code"),
    [
        ({"Authorization": "Bearer nonsense"}, 401, "PGRST301", "MAG-GATE-011"),
        (bearer(role="gate_user") | {"Authorization": "Basic eDp4"}, 401, "PGRST301", "MAG-GATE-011"),
        (bearer(secret="another secret of more than 32 bytes"), 401, "PGRST301", "MAG-GATE-012"),
        (bearer(role="gate_user", exp=int(NOW_S) - 1), 401, "PGRST303", "MAG-GATE-013"),
        (bearer(role="gate_user", nbf=int(NOW_S) + 9), 401, "PGRST303", "MAG-GATE-014"),
        (bearer(role="gate_root"), 403, "42501", "MAG-GATE-017"),
        (bearer(role="gate_login"), 403, "42501", "MAG-GATE-017"),
        (bearer(role="postgres"), 403, "42501", "MAG-GATE-017"),
        (bearer(role="gate_stranger"), 403, "42501", "MAG-GATE-017"),
        (bearer(role="none"), 403, "42501", "MAG-GATE-017"),
    ],
)
async def test_tokens_that_are_refused(
    stack: Stack, headers: dict[str, str], status: int, code: str, mag_code: str
) -> None:
    answer = await stack.get("airlines", headers)

    assert (answer.status, answer.json["code"], answer.json["mag_code"]) == (status, code, mag_code)
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert headers["Authorization"].split()[1] not in answer.body.decode()


async def test_without_an_anonymous_role_everything_needs_a_token(dsn: str) -> None:
    load_schema(dsn)
    config = MagGateConfig(jwt=JwtConfig(secret=Secret(SECRET)))
    async with running_stack(dsn, config) as stack:
        answers: list[Answer] = [await stack.get(path) for path in ("", "airlines", "nothing", "secrets")]
        allowed = await stack.get("airlines?limit=1", bearer(role="gate_user"))

    assert [(answer.status, answer.json["mag_code"]) for answer in answers] == [(401, "MAG-GATE-010")] * 4
    assert allowed.status == 200


async def test_hints_name_only_what_the_role_may_see(stack: Stack) -> None:
    user = bearer(role="gate_user", sub="user1")

    assert (await stack.get("airline")).json["hint"] == "Perhaps you meant the table 'public.airlines'"
    assert (await stack.get("secret")).json["hint"] is None
    assert (await stack.get("note")).json["hint"] is None
    assert (await stack.get("note", user)).json["hint"] == "Perhaps you meant the table 'public.notes'"
    assert (await stack.get("airlines?nam=eq.1")).json["hint"] == (
        'Perhaps you meant to reference the column "airlines.name".'
    )
    # neither a wrong nor a right column of a hidden table tells anything
    for column in ("hidden_value", "no_such"):
        answer = await stack.get(f"secrets?{column}=eq.1")
        assert (answer.json["code"], answer.json["message"]) == ("42501", "permission denied for table secrets")
    assert "flights_origin_fkey" in (await stack.get("flights?select=airports(*)")).json["hint"]
    hint = (await stack.get("flights?select=airlins(*)")).json["hint"]
    assert hint == "Perhaps you meant 'airlines' instead of 'airlins'."
    hidden = await stack.get("flights?select=airports(*)", bearer(role="gate_other"))
    assert hidden.json["code"] == "42501"


async def test_the_root_lists_what_the_role_may_use(stack: Stack) -> None:
    anonymous = {f"{one['schema']}.{one['name']}": one for one in (await stack.get("")).json}
    other = [one["name"] for one in (await stack.get("", bearer(role="gate_other", sub="x"))).json]

    assert "public.secrets" not in anonymous
    assert "private.items" not in anonymous
    assert anonymous["public.late_flights"]["kind"] == "view"
    assert anonymous["public.airlines"] == {
        "schema": "public", "name": "airlines", "kind": "table",
        "select": True, "insert": False, "update": False, "delete": False,
    }  # fmt: skip
    assert other == ["notes"]
