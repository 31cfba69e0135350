"""The tasks demo: the same rows everywhere, and row level security that holds."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import jwt
import psycopg
import pytest
from tests.integration.demo.support import make_demo, query

from magmobo.contracts.secret import Secret

TABLES = ("teams", "members", "tasks", "comments")
KEY = "k" * 32


def as_member(dsn: str, claims: object) -> psycopg.Connection[tuple[int, ...]]:
    connection = psycopg.connect(dsn, autocommit=True)
    connection.execute("set role mag_demo_member")
    text = claims if isinstance(claims, str) else json.dumps(claims)
    connection.execute("select set_config('request.jwt.claims', %s, false)", (text,))
    return connection


def counts(connection: psycopg.Connection[tuple[int, ...]]) -> list[int]:
    return [connection.execute(f"select count(*) from {table}").fetchone()[0] for table in TABLES]  # type: ignore[index]


async def test_a_thousand_rows_the_same_everywhere(dsn: str, tmp_path: Path) -> None:
    await make_demo(dsn, tmp_path, name="tasks").boot()
    assert [query(dsn, f"select count(*) from {table}")[0][0] for table in TABLES] == [5, 40, 335, 620]
    content = query(dsn, "set timezone = 'UTC'; select string_agg(t::text, '|' order by t.id) from tasks t")
    rest = query(dsn, "select string_agg(m::text, '|' order by m.id) || (select string_agg(c.id || c.body, '|' order by"
                 " c.id) from comments c) from members m")  # fmt: skip
    digest = hashlib.sha256((str(content) + str(rest)).encode()).hexdigest()
    assert digest[:16] == "476e95690760e6a8"
    assert query(dsn, "select count(*) from tasks t join members m on m.id = t.assignee_id"
                 " where m.team_id <> t.team_id") == [(0,)]  # fmt: skip
    assert query(dsn, "select count(*) from comments c join tasks t on t.id = c.task_id"
                 " join members m on m.id = c.member_id where m.team_id <> t.team_id") == [(0,)]  # fmt: skip


async def test_a_member_sees_the_own_team_and_no_other(dsn: str, tmp_path: Path) -> None:
    await make_demo(dsn, tmp_path, name="tasks").boot()
    seen = []
    for member_id in range(1, 6):
        with as_member(dsn, {"sub": str(member_id)}) as connection:
            seen.append(counts(connection))
            teams = connection.execute("select distinct team_id from tasks").fetchall()
            assert teams == [(member_id,)]
    assert [sum(column) for column in zip(*seen, strict=True)] == [5, 40, 335, 620]


@pytest.mark.parametrize("claims", ["", "{}", {"sub": None}, {"sub": "1 or true"}, {"sub": "999"}, {"sub": "9" * 40}])
async def test_who_is_no_member_sees_nothing(dsn: str, tmp_path: Path, claims: object) -> None:
    await make_demo(dsn, tmp_path, name="tasks").boot()
    with as_member(dsn, claims) as connection:
        assert counts(connection) == [0, 0, 0, 0]


async def test_writes_stay_inside_the_team_and_the_own_comments(dsn: str, tmp_path: Path) -> None:
    await make_demo(dsn, tmp_path, name="tasks").boot()
    with as_member(dsn, {"sub": "1"}) as connection:
        task = connection.execute("insert into tasks (team_id, title) values (1, 'x') returning id").fetchone()
        assert task is not None
        connection.execute("insert into comments (task_id, member_id, body) values (%s, 1, 'x')", task)
        assert connection.execute("update tasks set status = 'done' where team_id <> 1").rowcount == 0
        assert connection.execute("delete from comments where member_id <> 1").rowcount == 0
        for refused in (
            "insert into tasks (team_id, title) values (2, 'x')",
            "update tasks set team_id = 2 where team_id = 1",
            f"insert into comments (task_id, member_id, body) values ({task[0]}, 6, 'x')",
            "insert into comments (task_id, member_id, body) values (2, 1, 'x')",
            "update members set is_lead = true",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(refused)


async def test_the_announced_command_reads_a_private_file_with_a_good_token(dsn: str, tmp_path: Path) -> None:
    demo = make_demo(dsn, tmp_path, name="tasks", jwt_secret=Secret(KEY))
    await demo.boot()
    (example,) = demo.announce().examples
    path = tmp_path / "demo" / "member.jwt"
    token = path.read_text()
    assert f"$(cat {path})" in example
    assert token not in example
    assert path.stat().st_mode & 0o777 == 0o600
    claims = jwt.decode(token, KEY, algorithms=["HS256"])
    assert (claims["role"], claims["sub"]) == ("mag_demo_member", "1")
    assert claims["exp"] > time.time() + 86_400
    await demo.boot()
    assert path.exists()


async def test_without_a_key_it_says_that_there_is_no_token(dsn: str, tmp_path: Path) -> None:
    demo = make_demo(dsn, tmp_path, name="tasks")
    await demo.boot()
    assert not demo.announce().examples
    assert "jwt_secret" in demo.announce().notices[0]
