"""Migrations of extensions, as they may run.

What runs is printed from the tree; what is compared at the next start is the text of the author, so that a node which
prints it in another way knows it again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Sequence

from magmobo.contracts.guests import Migration
from magmobo.extensions.sql.errors import StatementRefused
from magmobo.extensions.sql.guard import guard


async def guarded(migrations: Sequence[Migration], schema: str, ran: Collection[str] = ()) -> list[Migration]:
    """The same, both ways, in the words that may run; those of the versions `ran` as they are, to be compared alone.

    Raises: StatementRefused, StatementTooLarge, naming the file.
    """
    if all(migration.version in ran for migration in migrations):
        return list(migrations)
    return await asyncio.to_thread(lambda: [one if one.version in ran else _guarded(one, schema) for one in migrations])


def _guarded(migration: Migration, schema: str) -> Migration:
    checksum = migration.checksum or hashlib.sha256(migration.up.encode()).hexdigest()
    up, down = (_text(migration, schema, direction) for direction in ("up", "down"))
    return Migration(migration.version, migration.name, up, down, checksum)


def _text(migration: Migration, schema: str, direction: str) -> str:
    text = migration.up if direction == "up" else migration.down
    if not text.strip():
        return text
    try:
        return guard(text, schema=schema, allow="migration").sql
    except StatementRefused as refused:
        raise type(refused)(f"{migration.version}_{migration.name}.{direction}.sql: {refused.reason}") from refused
