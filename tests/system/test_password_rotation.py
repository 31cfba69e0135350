"""A new database password under load: REST readers and WebSocket clients at work, the password changed in Postgres and
handed to the node; nobody notices, and no connection made with the old one is left.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.crash.support import TABLE, Writer
from tests.integration.magds.rotation import require_password
from tests.system.load import CONFIG, Listeners, Readers, until

from magmobo.admin.client import AdminClient
from magmobo.admin.data_folder import DataFolder
from magmobo.contracts.errors import MagError
from magmobo.testing.node import NodeProcess, running_node
from magmobo.testing.postgres import PostgresServer, running_postgres

CLIENTS, LOGIN, DATABASE, FIRST = 40, "rotating", "shop", "f/rst%:@"
SET_UP = f"""
create role {LOGIN} login replication password '{FIRST}'; create role reader; grant reader to {LOGIN};
alter database {DATABASE} owner to {LOGIN}; set role {LOGIN};
{TABLE};
grant usage on schema public to reader; grant select on all tables in schema public to reader
"""
Give = Callable[[NodeProcess, str], Awaitable[dict[str, Any]]]


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute(f"create database {DATABASE}".encode())
        with psycopg.connect(server.dsn(DATABASE), autocommit=True) as admin:
            admin.execute(SET_UP)
        require_password(server, LOGIN)
        yield server


def alter(server: PostgresServer, password: str) -> set[int]:
    """Change the password; the server's processes that were let in with the former one."""
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f"alter role {LOGIN} password '{password}'".encode())
    return sessions(server)


def sessions(server: PostgresServer) -> set[int]:
    with psycopg.connect(server.dsn()) as admin:
        rows = admin.execute("select pid from pg_stat_activity where usename = %s", (LOGIN,)).fetchall()
    return {row[0] for row in rows}


async def ask(data_dir: Path, command: str, **params: Any) -> dict[str, Any]:
    client = AdminClient(DataFolder(data_dir), timeout_s=30)
    return await asyncio.to_thread(client.ask, command, params, wait_s=30)


async def begin_with_the_vault(data_dir: Path, server: PostgresServer) -> Give:
    dsn = f"postgresql://{LOGIN}:${{vault:db}}@/{DATABASE}?host={server.socket_dir}"
    file = data_dir.parent / "mag.toml"
    first = data_dir.parent / "first"
    first.write_text(FIRST)
    command = [sys.executable, "-m", "magmobo.cli.main", "vault:set", "db", "--value-file", str(first)]
    await asyncio.to_thread(
        subprocess.run, [*command, "--data-dir", str(data_dir)], check=True, capture_output=True, cwd=data_dir.parent
    )
    file.write_text(f'{CONFIG}\n[magds]\ndsn = "{dsn}"\n', encoding="utf-8")

    async def give(node: NodeProcess, password: str) -> dict[str, Any]:
        return await ask(node.data_dir, "vault:rotate", entry="db", value=password)

    return give


async def begin_with_a_file(data_dir: Path, server: PostgresServer) -> Give:
    secret = data_dir.parent / "dsn"

    def write(password: str) -> None:
        quoted = password.replace("\\", "\\\\").replace("'", "\\'")
        secret.write_text(f"host={server.socket_dir} user={LOGIN} dbname={DATABASE} password='{quoted}'")
        secret.chmod(0o600)

    write(FIRST)
    off = "[kernel]\nwatch_files = false\n"
    (data_dir.parent / "mag.toml").write_text(f'{CONFIG}\n{off}[magds]\ndsn = "file:{secret}"\n', encoding="utf-8")

    async def give(node: NodeProcess, password: str) -> dict[str, Any]:
        write(password)
        return await ask(node.data_dir, "config:reload")

    return give


@pytest.mark.parametrize("begin", [begin_with_the_vault, begin_with_a_file])
async def test_a_password_rotation_under_load_fails_nobody(
    data_dir: Path, server: PostgresServer, begin: Callable[[Path, PostgresServer], Awaitable[Give]]
) -> None:
    give = await begin(data_dir, server)
    async with running_node(data_dir) as node:
        listeners = Listeners(node.status.urls["realtime"], CLIENTS)
        readers, writer = Readers(int(node.base_url.rpartition(":")[2])), Writer(server.dsn(DATABASE), 11)
        try:
            await listeners.open()
            writer.start()
            await until(lambda: readers.answers["200"] > 100)
            for password in ("second", "thi'rd %41 ${x}", "fourth"):
                with pytest.raises(MagError) as refused:  # the node asks Postgres before it believes
                    await give(node, f"{password}, too early")
                assert "MAG-DS-004" in str(refused.value)
                assert "too early" not in str(refused.value)
                former = await asyncio.to_thread(alter, server, password.replace("'", "''"))
                assert len(former) >= 4
                await give(node, password)
                await until(lambda former=former: not former & sessions(server))  # type: ignore[misc]
                so_far = readers.answers["200"]
                await until(lambda so_far=so_far: readers.answers["200"] > so_far + 100)  # type: ignore[misc]
            committed = await asyncio.to_thread(writer.end)
            await until(lambda: all(seen and seen[-1] >= committed[-1] for seen in listeners.seen))
        finally:
            writer.end()
            await readers.close()
            await listeners.close()
        assert set(readers.answers) == {"200"}
        assert (listeners.drops, listeners.gaps) == (0, 0)
        for seen in listeners.seen:
            assert seen == sorted(set(seen)), "twice or out of order"
            assert set(committed) <= set(seen), "a committed row is missing"
        print(f"\n{readers.answers['200']} requests, {len(committed)} rows to {CLIENTS} clients, 3 rotations")
        assert "too early" not in node.printed
        status = await ask(data_dir, "kernel:status")
        assert {one["name"]: one["restarts"] for one in status["components"]}["magds"] == 0
