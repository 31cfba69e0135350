"""Descriptors of a statement: libpq's own is the server's again afterwards, and none is left however it ended."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from magmobo.contracts.errors import Unavailable
from magmobo.extensions.sql import execution
from magmobo.extensions.sql.errors import ResultTooLarge, StatementFailed
from magmobo.extensions.sql.values import parameters


def open_files() -> set[str]:
    """What this process has open, by their names: a socket is `socket:[number]`."""
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 -- names, and some are gone by then
        with suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))  # noqa: PTH115 -- as above
    return found


async def run(connection: psycopg.AsyncConnection[Any], sql: str) -> execution.Answer:
    async with asyncio.timeout(30):
        return await execution.run(connection, sql, parameters([]))


async def opened(dsn: str) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(dsn, autocommit=True)


async def test_the_connection_is_its_own_again(dsn: str) -> None:
    connection = await opened(dsn)
    before, server = open_files(), socket_inode(connection.pgconn.socket)
    for size in (1, 500_000):
        await run(connection, f"select repeat('x', {size})")
        with pytest.raises(StatementFailed):
            await run(connection, "select 1 / 0")
        assert socket_inode(connection.pgconn.socket) == server
        assert open_files() <= before
    assert await (await connection.execute("select 7")).fetchone() == (7,)
    await connection.close()


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("select repeat('x', 30000000)", ResultTooLarge),
        ("select pg_terminate_backend(pg_backend_pid())", Unavailable),
    ],
)
async def test_none_is_left_when_it_does_not_end_well(dsn: str, sql: str, error: type[Exception]) -> None:
    await (await opened(dsn)).close()  # what a first connection opens for good
    before, connection = open_files(), await opened(dsn)
    with pytest.raises(error):
        await run(connection, sql)
    await connection.close()
    assert open_files() <= before


async def test_who_is_cancelled_cancels_the_statement_and_leaves_none(dsn: str) -> None:
    watcher = await opened(dsn)
    before, connection = open_files(), await opened(dsn)
    name = connection.info.backend_pid
    task = asyncio.create_task(run(connection, "select pg_sleep(600)"))
    await state_of(watcher, name, "active")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await state_of(watcher, name, "idle")
    await connection.close()
    assert open_files() <= before
    await watcher.close()


async def test_a_connection_that_is_closed_under_a_statement_ends_it(dsn: str) -> None:
    """As a guest that is forgotten: cancelled and closed."""
    watcher = await opened(dsn)
    before, connection = open_files(), await opened(dsn)
    task = asyncio.create_task(run(connection, "select pg_sleep(600)"))
    await state_of(watcher, connection.info.backend_pid, "active")
    await connection.cancel_safe()
    await connection.close()
    with pytest.raises((Unavailable, StatementFailed)):
        await task
    assert open_files() <= before
    await watcher.close()


async def state_of(watcher: psycopg.AsyncConnection[Any], pid: int, wanted: str) -> None:
    """Wait until it is that."""
    async with asyncio.timeout(30):
        while True:
            found = await watcher.execute("select state from pg_stat_activity where pid = %s", (pid,))
            if await found.fetchone() == (wanted,):
                return
            await asyncio.sleep(0.01)


def socket_inode(descriptor: int) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as one:
        return os.fstat(one.fileno()).st_ino
