"""A statement that many sessions run, one after the other, on the same connection of the pool."""

from __future__ import annotations

from functools import partial

from magmobo.components.magds.dsn import connect
from magmobo.components.magds.pool import Pool


async def test_a_statement_seen_often_survives_the_cleaning_between_sessions(dsn: str) -> None:
    pool = Pool(partial(connect, dsn), size=1, idle_s=60)
    pids = set()
    for number in range(30):
        async with pool.lease(timeout_s=5) as connection:
            cursor = await connection.execute("select %s::int, pg_backend_pid()", (number,))
            answer, pid = await cursor.fetchone() or (None, None)
            assert answer == number
            pids.add(pid)
    assert len(pids) == 1
    await pool.close()
