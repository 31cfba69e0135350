"""Cases 31 to 36 on a node: a hostile client of its database, by way of `ext.db` and as a login role."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.hostile.extensions.node_gate import Gate, Scene

from magmobo.contracts.errors import MagError

GUARD, LARGE, TABLE, POSTGRES, RESULT = (f"MAG-EXT-{number}" for number in range(200, 205))
ID = "statements"
REFUSED = (GUARD, LARGE, TABLE, POSTGRES)


async def ensure(gate: Gate) -> None:
    """Both extensions are there once."""
    known = {one["id"] for one in (await gate.command("extension:list"))["extensions"]}
    if ID not in known:
        await gate.admit("neighbour")
        await gate.admit(ID)
        await ask(gate, "neighbour", "select 1")  # the first statement of a node loads the parser
        await gate.sql("create table ext_neighbour.kept (note text)")
        gate.beat.begin()


async def ask(gate: Gate, extension_id: str, sql: str, **more: Any) -> dict[str, Any]:
    """What came of a statement."""
    arguments = {"sql": sql, "params": []}
    answer: dict[str, Any] = await gate.run(extension_id, "ask", method="db.fetch", arguments=arguments, **more)
    return answer


async def each(gate: Gate, scene: Scene, *statements: str) -> None:
    """Each statement is refused; by the guard, the grants or Postgres."""
    await ensure(gate)
    since = gate.head
    for sql in statements:
        answer = await ask(gate, ID, sql)
        if answer.get("code") in REFUSED:
            scene.note("stopped", sql[:80], f"{answer['code']} {answer['message']}")
        else:
            scene.note("leaked", sql[:80], str(answer))
    if any(": MAG-EXT-202" in one for one in scene.stopped):
        await gate.must_record(scene, since, "extension.denied", ID, "table")
    await gate.must_record(scene, since, "extension.calls", ID, "db.fetch")


async def tables(gate: Gate, scene: Scene) -> None:
    await each(
        gate, scene,
        "select * from public.salaries", "select * from pg_catalog.pg_authid", "select * from pg_shadow",
        "select * from ext_neighbour.kept", "select * from mag.extension", "insert into public.salaries values (2, 1)",
        "select passwd from pg_catalog.pg_shadow union select note from public.orders",
        "with s as (select * from public.salaries) select * from s",
        "select (select max(amount) from public.salaries) from public.orders",
    )  # fmt: skip
    answer = await ask(gate, ID, "select note from public.orders")
    assert answer.get("answer") == [{"note": "one"}], answer


async def roles(gate: Gate, scene: Scene) -> None:
    await each(
        gate, scene, "reset role", "set role postgres", "set session authorization postgres", "set local role postgres",
        "create role evil superuser", "grant all on public.salaries to public",
        "alter role current_user superuser",
    )  # fmt: skip


async def server(gate: Gate, scene: Scene) -> None:
    await each(
        gate, scene, "copy public.orders to program 'id'", "copy public.orders from '/etc/passwd'",
        "select pg_read_file('/etc/passwd')", "select pg_ls_dir('/')", "select lo_import('/etc/passwd')",
        "create function f() returns int as 'libc.so.6', 'getpid' language c", "create extension file_fdw",
        "alter system set shared_preload_libraries = 'evil'", "select pg_reload_conf()",
        "select query_to_xml('select * from public.salaries', true, true, '')", "load 'evil'",
    )  # fmt: skip


async def statements(gate: Gate, scene: Scene) -> None:
    await each(
        gate, scene, "select 1; select 2", "select 1; drop table public.orders", "do $$ begin perform 1; end $$",
        "set statement_timeout = 0", "listen evil", "notify evil, 'x'", "select pg_notify('evil', 'x')",
        "select pg_advisory_lock(1)", "lock table public.orders", "explain analyze select * from public.orders",
        "prepare p as select 1", "call f()", "begin", "vacuum", "select 1 -- \n; select 2",
    )  # fmt: skip


async def policies(gate: Gate, scene: Scene) -> None:
    await ensure(gate)
    role = (await gate.sql("select rolname from pg_roles where rolname like 'mag_ext_%_statements'"))[0][0]
    await gate.sql("alter table public.orders enable row level security")
    await gate.sql("create policy own on public.orders using (current_user = current_setting('app.owner', true))")
    try:
        await each(
            gate, scene, f"select set_config('app.owner', '{role}', false)", f"set app.owner = '{role}'",
            f"select pg_catalog.set_config('app.owner', '{role}', true)", "alter table public.orders disable row level "
            "security", "create policy mine on public.orders using (true)",
        )  # fmt: skip
        answer = await ask(gate, ID, "select * from public.orders")
        kind = "stopped" if answer.get("answer") == [] else "leaked"
        scene.note(kind, "rows of others", str(answer))
    finally:
        await gate.sql("drop policy own on public.orders")
        await gate.sql("alter table public.orders disable row level security")


async def without_end(gate: Gate, scene: Scene) -> None:
    await each(gate, scene, "select pg_sleep(60)", "select repeat('x', 1000000000)")
    since = gate.head
    answer = await ask(gate, ID, "select a from generate_series(1, 2000000) a")
    scene.note("stopped" if answer.get("code") == RESULT else "leaked", "two million rows", str(answer)[:120])
    long = "select count(*) from generate_series(1, 200000) a, generate_series(1, 200000) b"
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        answer = await ask(gate, ID, long, timeout_s=1.5)
        said = str(answer)
    except MagError as error:
        said = error.code
    took_s = loop.time() - began_s
    scene.note(
        "stopped" if "answer" not in said and took_s < 30 else "leaked",
        "a join without end",
        f"{said} after {took_s:.1f} s",
    )
    if await gate.until(lambda: _nothing_runs(gate)):
        scene.note("stopped", "a join without end", "the server does not work for it any more")
    else:
        scene.note("leaked", "a join without end", "the server still works for it")
    await gate.must_record(scene, since, "extension.calls", ID, "db.fetch")


async def _nothing_runs(gate: Gate) -> bool:
    rows = await gate.sql(
        "select count(*) from pg_stat_activity where state = 'active' and usename like 'mag_ext_%_statements'"
    )
    return bool(rows[0][0] == 0)


CASES: Mapping[int, Callable[[Gate, Scene], Awaitable[None]]] = {
    31: tables, 32: roles, 33: server, 34: statements, 35: policies, 36: without_end,
}  # fmt: skip
