"""The page about one's own Postgres, block by block: `sql` by a superuser, `toml` into mag.toml, `console` by bash."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.integration.node.harness import ROOT

from magmobo.testing.postgres import PostgresServer, pg_binary

PAGE = ROOT / "docs" / "quickstart-own-postgres.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Reader:
    """Does what the page says, in a folder of its own, on a database of its own and any free port."""

    def __init__(self, folder: Path, admin_dsn: str, dsn: str) -> None:
        self._folder, self._admin_dsn = folder, admin_dsn
        path = os.pathsep.join([str(Path(sys.executable).parent), str(pg_binary("psql").parent), os.environ["PATH"]])
        self._environ = {"PATH": path, "HOME": str(folder), "DATABASE_URL": dsn, "MAG_LISTENER__PORT": "0"}

    def sql(self, text: str) -> None:
        with psycopg.connect(self._admin_dsn, autocommit=True) as connection:
            for statement in re.split(r";\s*(?:--.*)?\n", text):
                if statement.strip():
                    connection.execute(statement.encode())

    def toml(self, text: str) -> None:
        (self._folder / "mag.toml").write_text(text)

    def console(self, text: str) -> str:
        """Run the lines after `$`; what they print. The first that fails is named."""
        lines = [line.removeprefix("$ ") for line in text.splitlines()]
        if "127.0.0.1:8787" in text:
            lines = [line.replace("127.0.0.1:8787", self._address()) for line in lines]
        done = self._run("\n".join(lines))
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def leave(self) -> None:
        """Stop a node that a broken page left running."""
        self._run("mag down")

    def _address(self) -> str:
        told: str = json.loads(self._run("mag status --json").stdout)["urls"]["http"]
        return told.removeprefix("http://")

    def _run(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/bash", "-e", "-c", script], cwd=self._folder, env=self._environ, capture_output=True, text=True,
            timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip


@pytest.fixture
def shop(postgres: PostgresServer) -> Iterator[str]:
    """A database `shop` of a role `shop`; both are gone afterwards, with what the page made."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute("create role shop login")
        admin.execute("create database shop owner shop")
        yield postgres.dsn("shop")
        admin.execute("drop database shop with (force)")
        admin.execute("drop role if exists shop, web_anon, member")
        admin.execute("alter system reset all")
        admin.execute("select pg_reload_conf()")


def test_every_block_of_the_page_works(shop: str, tmp_path: Path) -> None:
    reader = Reader(tmp_path, shop, shop.replace("user=postgres", "user=shop"))
    printed: list[str] = []
    try:
        for kind, text in _BLOCK.findall(PAGE.read_text(encoding="utf-8")):
            if kind == "sql":
                reader.sql(f"set role shop;\n{text}" if "create table" in text else text)
            elif kind == "toml":
                reader.toml(text)
            elif kind == "console":
                printed.append(reader.console(text))
    finally:
        reader.leave()
    doctor, up, orders, notes, _updated, left = printed
    assert "FAIL" not in doctor
    assert "  note " not in up, "the page prepares everything, so there is nothing to note"
    assert [order["customer"] for order in json.loads(orders)] == ["bob", "ann"]
    assert [note["owner"] for note in json.loads(notes)] == ["ann"]
    assert "would remove schema mag" in left
    assert "removed schema mag" in left
