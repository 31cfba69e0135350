"""The least a demo needs around it: a database that gives sessions, and a context."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import structlog

from magmobo.components.demo.component import Demo
from magmobo.components.demo.config import DemoConfig


class PlainDatabase:
    """Gives every session a connection of its own."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    @asynccontextmanager
    async def session(self, *, timeout_s: float | None = None) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            yield connection


class FastClock:
    """Real time, but waits are cut to a hundredth."""

    def time_s(self) -> float:
        return time.time()

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s / 100)


class PlainContext:
    component = "demo"
    instance_id = "test"
    environment = "test"
    bus = None

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.clock = FastClock()
        self.log = structlog.get_logger()
        self.tasks: list[asyncio.Task[Any]] = []

    def spawn(self, coroutine: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(coroutine, name=name)
        self.tasks.append(task)
        return task


class PlainListener:
    base_url = "http://127.0.0.1:1234"


def make_demo(dsn: str, data_dir: Path, **config: Any) -> Demo:
    demo = Demo(PlainContext(data_dir), PlainDatabase(dsn), PlainListener())  # type: ignore[arg-type]
    demo.configure(DemoConfig(**config))
    return demo


async def until(condition: Callable[..., bool], *, timeout_s: float = 15) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def query(dsn: str, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Rows of one statement, as the superuser."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(sql, parameters or None)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []
