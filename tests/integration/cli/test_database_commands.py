"""`doctor` and `detach` on a real Postgres that a whole node has used."""

from __future__ import annotations

from pathlib import Path

import psycopg
from tests.integration.node.harness import answer, mag, up


def schemas(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        return {name for (name,) in connection.execute("select nspname from pg_namespace")}


def test_detach_lists_asks_removes_and_then_finds_nothing(tmp_path: Path, dsn: str) -> None:
    before = schemas(dsn)
    with up(dsn, "--port", "0", cwd=tmp_path, components="") as node:
        node.ready()
        node.process.terminate()
        assert node.end()[0] == 0
    assert schemas(dsn) - before == {"mag"}

    listed = answer("detach", dsn, "--dry-run", cwd=tmp_path)
    assert listed["removed"] is False
    assert any("schema mag" in line for line in listed["objects"])
    unasked = mag("detach", dsn, cwd=tmp_path)
    assert unasked.returncode == 1
    assert "[MAG-CLI-005]" in unasked.stderr
    assert schemas(dsn) - before == {"mag"}

    done = mag("detach", "--yes", cwd=tmp_path, DATABASE_URL=dsn)
    assert done.returncode == 0, done.stderr
    assert "removed schema mag" in done.stdout
    assert schemas(dsn) == before
    assert "nothing of MagMoBo's is in this database" in mag("detach", dsn, cwd=tmp_path).stdout


def test_doctor_checks_the_database(tmp_path: Path, dsn: str) -> None:
    found = answer("doctor", dsn, cwd=tmp_path)
    assert found["ok"] is all(check["ok"] for check in found["checks"])
    assert {"data folder", "disk", "node"} < {check["name"] for check in found["checks"]}
    assert all(check["remedy"] for check in found["checks"] if not check["ok"])


def test_doctor_says_that_a_database_does_not_answer(tmp_path: Path) -> None:
    dsn = f"host={tmp_path} dbname=nothing user=me password=hunter2"
    done = mag("doctor", dsn, cwd=tmp_path)
    assert done.returncode == 1
    assert "FAIL" in done.stdout
    assert "next: " in done.stdout
    assert "hunter2" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
