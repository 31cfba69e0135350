"""A Redis of the session, emptied for each test, and nodes that use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from msgspec import Struct

from magmobo.contracts.secret import Secret
from magmobo.kernel.cache import redis as redis_module
from magmobo.kernel.cache.manager import CacheManager
from magmobo.testing.redis import RedisServer, running_redis

MakeNode = Callable[..., Awaitable[CacheManager]]


class Settings(Struct):
    """As `[cache]` in the configuration. A second is long enough for a busy machine, short enough for a test."""

    redis_url: Secret | None
    memory_bytes: int = 1 << 20
    redis_timeout_s: float = 1.0


@pytest.fixture(scope="session")
def redis_of_session() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def redis(redis_of_session: RedisServer, monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    monkeypatch.setattr(redis_module, "RETRY_S", 0.02)
    redis_of_session.ask("FLUSHALL")
    return redis_of_session


@pytest.fixture
async def node(redis: RedisServer) -> AsyncIterator[MakeNode]:
    """Makes an open cache of one more node; closed at the end."""
    nodes: list[CacheManager] = []

    async def make(url: str = redis.url, **settings: object) -> CacheManager:
        nodes.append(CacheManager(Settings(Secret(url), **settings), node_id=f"node-{len(nodes)}"))  # type: ignore[arg-type]
        await nodes[-1].open()
        return nodes[-1]

    yield make
    redis.revive()
    await asyncio.gather(*(manager.close() for manager in nodes))
