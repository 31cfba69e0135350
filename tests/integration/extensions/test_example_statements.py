"""Statements of the examples, the scaffold and the guide pass the guard, and Postgres takes what it prints."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from magmobo.extensions.package.scaffold import scaffold
from magmobo.extensions.sql.guard import guard

ROOT = Path(__file__).parents[3]
BEGINS = ("select ", "insert ", "update ", "delete ", "with ")
NAMES = ["delay-alerts", "slow-query-log", "scaffold", "guide"]


def folder_of(name: str, scratch: Path) -> Path:
    if name == "scaffold":
        scaffold(scratch / name, "my-first")
    elif name == "guide":
        guide = (ROOT / "docs" / "extensions.md").read_text(encoding="utf-8")
        for path, text in re.findall(r"^```\w+ (\S+)\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL):
            (scratch / name / path).parent.mkdir(parents=True, exist_ok=True)
            with (scratch / name / path).open("a", encoding="utf-8") as file:
                file.write(text + "\n")
    else:
        return ROOT / "examples" / "extensions" / name
    return scratch / name


def statements(code: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.strip().startswith(BEGINS):
            yield node.value


@pytest.mark.parametrize("name", NAMES)
def test_every_statement_is_one_that_a_node_runs(name: str, dsn: str, tmp_path: Path) -> None:
    folder = folder_of(name, tmp_path)
    up, down = sorted((folder / "migrations").glob("*.up.sql")), sorted((folder / "migrations").glob("*.down.sql"))
    asked = list(statements((folder / "extension.py").read_text(encoding="utf-8")))
    assert up
    assert len(up) == len(down)
    assert len(asked) >= 3
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create schema ext_x")
        for path in up:
            connection.execute(guard(path.read_text(), schema="ext_x", allow="migration").sql.encode())
        for number, text in enumerate(asked):
            connection.execute(f"prepare s{number} as {guard(text, schema='ext_x', allow='query').sql}".encode())
        connection.execute("deallocate all")
        for path in reversed(down):
            connection.execute(guard(path.read_text(), schema="ext_x", allow="migration").sql.encode())
        connection.execute("drop schema ext_x")  # nothing is left in it
