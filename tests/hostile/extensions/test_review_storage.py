"""What an extension made in its schema runs with its own rights and nobody else's, also when it goes and comes back."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from tests.integration.extensions.lifecycle_parts import (
    ADMIN,
    READ,
    SCHEMA,
    TABLES,
    Node,
    execute,
    node_at,
    package,
    rows,
)

PEEK = {
    "migrations/0001_peek.up.sql": "create view peek as select * from public.prices;",
    "migrations/0001_peek.down.sql": "drop view peek;",
}
OWNER = "select pg_get_userbyid(relowner)::text from pg_class where relname = 'peek'"
LET_IN = "select has_schema_privilege(r.oid, 'ext_demo', 'usage') from pg_roles r where not rolsuper and rolcanlogin"


async def peek(node: Node) -> None:
    async with node.lifecycle._core.ports.guests.session("demo") as connection:
        await connection.execute("select * from ext_demo.peek")


async def test_a_view_is_no_way_to_the_rights_of_whoever_keeps_it(dsn: str, tmp_path: Path) -> None:
    """While its data is kept, what it made belongs to the node, which may read everything."""
    execute(dsn, TABLES)
    data = package(tmp_path / "a", files=PEEK, capabilities=[SCHEMA, READ])
    async with node_at(dsn, tmp_path) as node:
        await (await node.trusted()).enabled(data)
        guest = rows(dsn, OWNER)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await peek(node)
        await node.lifecycle.disable("demo", ADMIN)
        await node.lifecycle.uninstall("demo", False, ADMIN)
        assert rows(dsn, OWNER) != guest, "its role is gone"
        assert not any(is_in for (is_in,) in rows(dsn, LET_IN)), "and nobody else may look into its schema"
        await node.enabled(data)
        assert rows(dsn, OWNER) == guest
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await peek(node)
