"""What a user sees when something around the node is wrong: a code, the next step, and nothing half done."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import psycopg
import pytest

from magmobo.testing.node import running_node
from magmobo.testing.postgres import PostgresServer, running_postgres


async def failed_up(data_dir: Path, *arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Run `mag up` that is expected to fail; its exit code and what it wrote to stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "magmobo.cli.main", "up", *arguments, "--data-dir", str(data_dir),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=data_dir.parent,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            _, stderr = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        pytest.fail("the node kept running")
    assert process.returncode is not None
    assert b"Traceback" not in stderr
    return process.returncode, stderr.decode()


async def test_a_taken_port_names_the_port_and_the_way_out(dsn: str, data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, text = await failed_up(data_dir, dsn, "--port", str(port))
    assert code == 1
    assert "MAG-NET-001" in text
    assert str(port) in text
    assert "--port" in text


async def test_two_nodes_cannot_share_a_data_folder(dsn: str, data_dir: Path) -> None:
    async with running_node(data_dir, dsn) as node:
        code, text = await failed_up(data_dir, dsn, "--port", "0")
        assert node.process.returncode is None
    assert code == 1
    assert str(node.process.pid) in text
    assert "MAG-" in text


async def test_two_nodes_on_one_database_do_not_steal_each_others_changes(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with running_node(tmp_path / "one" / "data", dsn), running_node(tmp_path / "two" / "data", dsn) as second:
        assert "MAG-DS-" in second.printed, "the second node must say that it has no live changes, and why"


@pytest.mark.parametrize(
    ("dsn_text", "expected"),
    [
        ("postgres://nobody:s3cret-pw@127.0.0.1:1/none", "MAG-DS-003"),
        ("postgres://[", "MAG-DS-001"),
        ("mysql://localhost/x", "MAG-DS-001"),
    ],
)
async def test_an_unusable_dsn_is_named_without_its_password(data_dir: Path, dsn_text: str, expected: str) -> None:
    code, text = await failed_up(data_dir, dsn_text, "--port", "0")
    assert code in {1, 2, 5}
    assert expected in text
    assert "next: " in text
    assert "s3cret-pw" not in text


async def test_wal_level_too_low_is_said_and_rest_still_works(data_dir: Path) -> None:
    with running_postgres(wal_level="replica") as server, server.database() as dsn:
        async with running_node(data_dir, dsn) as node:
            assert "wal_level" in node.printed
            assert "mag doctor" in node.printed


async def test_an_unknown_setting_is_named_with_the_nearest_one(dsn: str, data_dir: Path) -> None:
    (data_dir.parent / "mag.toml").write_text("[listener]\nprot = 1\n[maggate]\nmax_rows = 'many'\n", encoding="utf-8")
    code, text = await failed_up(data_dir, dsn, "--port", "0")
    assert code == 5
    assert "did you mean" in text
    assert "listener.prot" in text
    assert "maggate.max_rows" in text, "all problems are told at once"
    assert not data_dir.exists() or not (data_dir / "postgres").exists()


async def test_an_anonymous_role_with_too_much_power_is_refused(dsn: str, data_dir: Path) -> None:
    code, text = await failed_up(data_dir, dsn, "--port", "0", environment={"MAG_MAGGATE__ANONYMOUS_ROLE": "postgres"})
    assert code == 5
    assert "MAG-GATE-001" in text


async def test_a_failed_start_leaves_nothing_in_the_database(
    postgres: PostgresServer, dsn: str, data_dir: Path
) -> None:
    await failed_up(data_dir, dsn, "--port", "0", environment={"MAG_MAGGATE__ANONYMOUS_ROLE": "postgres"})
    with psycopg.connect(dsn) as connection:
        slots = connection.execute(
            "select count(*) from pg_replication_slots where database = current_database() and active"
        ).fetchone()
    assert slots == (0,)
