"""Keys and values of an extension: small, durable, its own alone, and never more than its manifest's `data_bytes`.

The total is a row of its own that changes in the transaction of the value, so it is right whatever is killed, and two
writers of one extension wait for each other instead of both passing the bound.
"""

from __future__ import annotations

from collections.abc import Sequence

from magmobo.contracts.planes import Database
from magmobo.extensions.events.errors import ValueRefused

MAX_VALUE_BYTES = 65_536
MAX_ENTRIES = 10_000
_OVERHEAD_BYTES = 64
"""Counted for each entry beside its key and value."""

_LOCK = """
insert into mag.extension_kv_total (extension_id) values (%s)
on conflict (extension_id) do update set entries = extension_kv_total.entries
returning entries, size_bytes
"""
_SIZE = "select length(value) from mag.extension_kv where extension_id = %s and key = %s"
_PUT = """
insert into mag.extension_kv (extension_id, key, value) values (%s, %s, %s)
on conflict (extension_id, key) do update set value = excluded.value
"""
_TOTAL = """
update mag.extension_kv_total set entries = entries + %s, size_bytes = size_bytes + %s where extension_id = %s
"""
_LIST = """
select key from mag.extension_kv
where extension_id = %s and key > %s and key >= %s and starts_with(key, %s) order by key limit %s
"""


class Values:
    """Of all extensions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, extension_id: str, key: str) -> bytes | None:
        """The value in msgpack."""
        async with self._database.session() as connection:
            cursor = await connection.execute(
                "select value from mag.extension_kv where extension_id = %s and key = %s", (extension_id, key)
            )
            row = await cursor.fetchone()
        return None if row is None else bytes(row[0])

    async def put(self, extension_id: str, key: str, value: bytes, limit_bytes: int) -> None:
        """Keep a value durably. Raises: ValueRefused, and then nothing is changed."""
        if len(value) > MAX_VALUE_BYTES:
            raise ValueRefused(key, f"it has {len(value)} bytes, the limit is {MAX_VALUE_BYTES}")
        async with self._database.session() as connection, connection.transaction():
            row = await (await connection.execute(_LOCK, (extension_id,))).fetchone()
            entries, size_bytes = (0, 0) if row is None else row
            old = await (await connection.execute(_SIZE, (extension_id, key))).fetchone()
            more = len(value) - old[0] if old is not None else _size(key, value)
            if old is None and entries >= MAX_ENTRIES:
                raise ValueRefused(key, f"{MAX_ENTRIES} values are kept already")
            if more > 0 and size_bytes + more > limit_bytes:
                raise ValueRefused(key, f"all values together would have more than {limit_bytes} bytes")
            await connection.execute(_PUT, (extension_id, key, value))
            await connection.execute(_TOTAL, (0 if old is not None else 1, more, extension_id))

    async def delete(self, extension_id: str, key: str) -> None:
        """Forget a value; one that is not there is fine."""
        async with self._database.session() as connection, connection.transaction():
            await connection.execute(_LOCK, (extension_id,))
            cursor = await connection.execute(
                "delete from mag.extension_kv where extension_id = %s and key = %s returning value", (extension_id, key)
            )
            row = await cursor.fetchone()
            if row is not None:
                await connection.execute(_TOTAL, (-1, -_size(key, row[0]), extension_id))

    async def keys(self, extension_id: str, prefix: str, after: str, limit: int) -> Sequence[str]:
        """Keys that begin with `prefix` and come behind `after`, in the order of their bytes."""
        async with self._database.session() as connection:
            cursor = await connection.execute(_LIST, (extension_id, after, prefix, prefix, limit))
            return [row[0] for row in await cursor.fetchall()]


def _size(key: str, value: bytes) -> int:
    return len(key.encode()) + len(value) + _OVERHEAD_BYTES
