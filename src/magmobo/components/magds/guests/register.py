"""Which guests there are, with their passwords: table mag.guest, so that every node of the database can log in as them.

Only the table's owner, the node's own role, may read it. A row without a password is a schema that stayed behind.
Invariant: no error and no statement's text holds a password; the server gets it as a parameter, and as a hash.
"""

from __future__ import annotations

from typing import Any

import psycopg
from msgspec import Struct

from magmobo.components.magds.own_schema import has_table, make_table, rows

TABLE = "guest"
_COLUMNS = "guest text primary key, role text not null, password text, has_schema boolean not null"
Connection = psycopg.AsyncConnection[Any]


class Entry(Struct, frozen=True):
    """One guest. `password` empty: it has no role now."""

    role: str
    password: str
    has_schema: bool


async def read(connection: Connection, guest: str) -> Entry | None:
    """What is noted of a guest. Raises: OwnSchemaRefused."""
    if not await has_table(connection, TABLE):
        return None
    found = await rows(
        connection, "select role, coalesce(password, ''), has_schema from mag.guest where guest = %s", (guest,)
    )
    return Entry(*found[0]) if found else None


async def write(connection: Connection, guest: str, entry: Entry) -> None:
    """Note it, in the caller's transaction. Raises: OwnSchemaRefused."""
    await make_table(connection, TABLE, _COLUMNS)
    await connection.execute(
        "insert into mag.guest values (%s, %s, nullif(%s, ''), %s) on conflict (guest) do update set "
        "role = excluded.role, password = excluded.password, has_schema = excluded.has_schema",
        (guest, entry.role, entry.password, entry.has_schema),
    )


async def remove(connection: Connection, guest: str) -> None:
    """Forget it, in the caller's transaction."""
    if await has_table(connection, TABLE):
        await connection.execute("delete from mag.guest where guest = %s", (guest,))
