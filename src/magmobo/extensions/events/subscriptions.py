"""Subscriptions as they stand in the database, which all nodes read: what is followed, and from where it is told.

A subscription is there from the first time its extension runs until it is forgotten; while the extension does not run,
what comes waits for it. Boundary: rows alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from magmobo.extensions.events import log
from magmobo.extensions.events.errors import SubscriptionUnknown
from magmobo.extensions.events.log import Connection
from magmobo.extensions.installed import Installed

_KEEP = """
insert into mag.extension_subscription (extension_id, name, topic, tables, condition, cursor_seq)
values (%s, %s, %s, %s, %s, %s)
on conflict (extension_id, name) do update
set topic = excluded.topic, tables = excluded.tables, condition = excluded.condition
"""
_REWIND = """
update mag.extension_subscription
set cursor_seq = least(cursor_seq, %s), replay_to_seq = %s, rewound = rewound + 1
where extension_id = %s and (name = %s or %s)
"""
_ARE_THERE = """
select exists (select from mag.extension_subscription) or exists (select from mag.extension_job)
"""
_WAITING = """
select coalesce((select sum(waiting) from mag.extension_subscription where extension_id = %s), 0)::bigint,
       (select count(*) from mag.extension_dead where extension_id = %s)
"""
_UNFOLLOW = (
    "delete from mag.extension_subscription where extension_id = %s",
    "delete from mag.extension_dead where extension_id = %s",
    "delete from mag.extension_job where extension_id = %s",
    "delete from mag.extension_wait where extension_id = %s",
)
_FORGET = (
    *_UNFOLLOW,
    "delete from mag.extension_kv where extension_id = %s",
    "delete from mag.extension_kv_total where extension_id = %s",
)


class Followed(Struct, frozen=True):
    """What one subscription needs in the log."""

    topic: str
    tables: Sequence[str]
    condition: Mapping[str, Any]


async def keep(connection: Connection, installed: Installed) -> None:
    """Bring the rows to the manifest, inside of the caller's transaction. New ones begin with what comes then."""
    head_seq = await log.head(connection)
    for one in installed.manifest.events:
        condition = msgspec.msgpack.encode(one.where)
        values = (installed.id, one.name, one.topic, list(one.tables), condition, head_seq)
        await connection.execute(_KEEP, values)
    await connection.execute(
        "delete from mag.extension_subscription where extension_id = %s and name <> all(%s::text[])",
        (installed.id, [one.name for one in installed.manifest.events]),
    )


async def are_there(connection: Connection) -> bool:
    """Whether anything is subscribed to or planned; without the tables nothing is."""
    row = await (await connection.execute("select to_regclass('mag.extension_job') is not null")).fetchone()
    if row is None or not row[0]:
        return False
    row = await (await connection.execute(_ARE_THERE)).fetchone()
    return row is not None and bool(row[0])


async def followed(connection: Connection) -> Sequence[Followed]:
    """Of all extensions of the database."""
    cursor = await connection.execute("select topic, tables, condition from mag.extension_subscription")
    return [Followed(row[0], row[1], msgspec.msgpack.decode(row[2])) for row in await cursor.fetchall()]


async def set_active(connection: Connection, extension_id: str, name: str, *, active: bool) -> None:
    """Pause it, or let it go on. Raises: SubscriptionUnknown."""
    cursor = await connection.execute(
        "update mag.extension_subscription set active = %s where extension_id = %s and name = %s",
        (active, extension_id, name),
    )
    if not cursor.rowcount:
        raise SubscriptionUnknown(name)


async def rewind(connection: Connection, extension_id: str, name: str | None, seconds: float) -> None:
    """Have the last so many seconds told again, before what comes then; `name` None: to all its subscriptions.

    Raises: SubscriptionUnknown.
    """
    head_seq = await log.head(connection)
    first_seq = await log.first_since(connection, seconds)
    before_seq = first_seq - 1 if first_seq else head_seq
    values = (before_seq, head_seq, extension_id, name or "", name is None)
    cursor = await connection.execute(_REWIND, values)
    if name is not None and not cursor.rowcount:
        raise SubscriptionUnknown(name)


async def waiting(connection: Connection, extension_id: str) -> tuple[int, int]:
    """Events that wait for an extension, and what it could not take."""
    row = await (await connection.execute(_WAITING, (extension_id, extension_id))).fetchone()
    return (0, 0) if row is None else (int(row[0]), int(row[1]))


async def unfollow(connection: Connection, extension_id: str) -> None:
    """Remove what an extension was to be told and to do, not its values; inside the caller's transaction."""
    for statement in _UNFOLLOW:
        await connection.execute(statement, (extension_id,))


async def forget(connection: Connection, extension_id: str) -> None:
    """Remove all that is kept of an extension, inside of the caller's transaction."""
    for statement in _FORGET:
        await connection.execute(statement, (extension_id,))
