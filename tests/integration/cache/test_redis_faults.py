"""The cache when its Redis is killed, frozen, full or never there: nothing raises, memory serves, and it says so."""

from __future__ import annotations

import asyncio
import sys

import pytest
from tests.integration.cache.conftest import MakeNode, Settings
from tests.integration.cache.test_redis import at_once, key_of, until

from magmobo.contracts.secret import Secret
from magmobo.kernel.cache import redis as redis_module
from magmobo.kernel.cache.errors import RedisDriverMissing
from magmobo.kernel.cache.manager import CacheManager
from magmobo.testing.redis import RedisServer, running_redis


async def works(manager: CacheManager) -> None:
    """Every call does what it can do in memory alone."""
    cache = manager.scope("o")
    await cache.put("a", b"1", tenant="", ttl_s=60, tags=["x"])
    assert await cache.get("a", tenant="") == b"1"
    assert await cache.get_or_load("b", at_once(b"2"), tenant="", ttl_s=60) == b"2"
    assert await cache.get_or_load("b", at_once(b"3"), tenant="", ttl_s=60) == b"2"
    await cache.invalidate("b", tenant="")
    await cache.invalidate_tag("x")
    assert [await cache.get(key, tenant="") for key in "ab"] == [None, None]


async def test_a_redis_that_is_killed_is_missed_by_nobody_and_used_again(node: MakeNode, redis: RedisServer) -> None:
    a, b = await node(), await node()
    said: list[str] = []
    a._on_problem = said.append
    for _ in range(2):
        redis.kill()
        await works(a)
        await until(lambda: bool(a.problems and b.problems))
        assert "[MAG-CACHE-001]" in a.problems[0]
        await works(a)
        await a.scope("o").put("k", b"alone", tenant="", ttl_s=60)
        assert len(b.memory) == 0
        redis.start()
        await until(lambda: not a.problems and not b.problems)
        assert len(a.memory) == 0, "what others forgot meanwhile was not heard"
        await a.scope("o").put("k", b"v", tenant="", ttl_s=60)
        assert await b.scope("o").get("k", tenant="") == b"v"
        await b.scope("o").invalidate("k", tenant="")
    assert len(said) == 2, "once each time"


async def test_a_frozen_redis_is_waited_for_once_and_then_left_alone(node: MakeNode, redis: RedisServer) -> None:
    a = await node(redis_timeout_s=0.4)
    assert a._redis is not None
    redis.freeze()
    assert await a.scope("o").get("k", tenant="") is None, "it returned while nothing answered"
    await works(a)
    assert "does not answer in time" in a.problems[0]
    assert a.counts["redis", "error"] == 1
    errors = a._redis.errors
    for _ in range(50):
        await works(a)
    assert a._redis.errors == errors
    redis.revive()
    await until(lambda: not a.problems)


async def test_many_who_wait_for_a_frozen_redis_all_come_back(node: MakeNode, redis: RedisServer) -> None:
    a = await node(redis_timeout_s=0.4)
    redis.freeze()
    cache = a.scope("o")
    results = await asyncio.gather(
        *(cache.get_or_load(f"k{n}", at_once(b"%d" % n), tenant="", ttl_s=60) for n in range(200))
    )
    assert results == [b"%d" % n for n in range(200)]


async def test_a_silent_connection_is_found_dead_without_anybody_asking(
    node: MakeNode, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_module, "PING_S", 0.02)
    a = await node(redis_timeout_s=0.1)
    await a.scope("o").put("k", b"v", tenant="", ttl_s=60)
    redis.freeze()
    await until(lambda: bool(a.problems))
    redis.revive()
    await until(lambda: not a.problems)
    assert len(a.memory) == 0


async def test_a_silent_connection_that_lives_is_kept(
    node: MakeNode, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_module, "PING_S", 0.01)
    a = await node()
    await a.scope("o").put("k", b"v", tenant="", ttl_s=60)
    pings = int(redis.ask("INFO", "commandstats").split(b"cmdstat_ping:calls=")[1].split(b",")[0])
    await until(
        lambda: int(redis.ask("INFO", "commandstats").split(b"cmdstat_ping:calls=")[1].split(b",")[0]) > pings + 3
    )
    assert len(a.memory) == 1, "no reconnect"
    await (await node()).scope("o").invalidate("k", tenant="")
    await until(lambda: len(a.memory) == 0)


async def test_messages_that_were_lost_on_a_reconnect_cost_the_memory(node: MakeNode, redis: RedisServer) -> None:
    a, b = await node(), await node()
    for key in "kl":
        await a.scope("o").put(key, b"old", tenant="", ttl_s=60)
        assert await b.scope("o").get(key, tenant="") == b"old"
    redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
    redis.ask("DEL", key_of("o", "", "k"))  # as an invalidation that nobody was there to hear
    await until(lambda: len(b.memory) == 0)
    await until(lambda: not b.problems and b._redis is not None and b._redis.is_up)
    assert await b.scope("o").get("k", tenant="") is None
    assert await b.scope("o").get("l", tenant="") == b"old", "it is still in Redis"


@pytest.mark.parametrize("how", ["key", "tag", "tag of all", "put"])
async def test_what_is_forgotten_while_redis_is_gone_is_forgotten_there_too(
    node: MakeNode, redis: RedisServer, how: str
) -> None:
    a, b = await node(redis_timeout_s=0.4), await node()
    for key in "kl":
        await a.scope("o").put(key, b"old", tenant="t", ttl_s=60, tags=["x"] if key == "k" else [])
        assert await b.scope("o").get(key, tenant="t") == b"old"
    redis.freeze()
    match how:
        case "key":
            await a.scope("o").invalidate("k", tenant="t")
        case "tag":
            await a.scope("o").invalidate_tag("x", tenant="t")
        case "tag of all":
            await a.scope("o").invalidate_tag("x")
        case "put":
            await a.scope("o").put("k", b"new", tenant="t", ttl_s=60)
    assert await a.scope("o").get("k", tenant="t") == (b"new" if how == "put" else None)
    redis.revive()
    await until(lambda: a._redis is not None and a._redis.is_up and not a.problems)
    assert await a.scope("o").get("k", tenant="t") is None, "what Redis has is older"
    await until(lambda: all(name.key != "k" for name in b.memory.names()))
    assert await b.scope("o").get("k", tenant="t") is None
    assert await (await node()).scope("o").get("l", tenant="t") == b"old", "and no more than that"


async def test_too_much_to_remember_forgets_everything(
    node: MakeNode, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_module, "MISSED_LIMIT", 3)
    a, b = await node(redis_timeout_s=0.4), await node()
    assert a._redis is not None
    await a.scope("o").put("other", b"old", tenant="", ttl_s=60)
    redis.freeze()
    for number in range(10):
        await a.scope("o").invalidate(f"k{number}", tenant="")
    assert len(a._redis._missed) == 1
    redis.revive()
    await until(lambda: not a.problems)
    assert await b.scope("o").get("other", tenant="") is None
    assert len(a._redis._missed) == 0


async def test_a_node_starts_without_its_redis_and_finds_it_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_module, "RETRY_S", 0.02)
    with running_redis() as own:
        own.kill()
        said: list[str] = []
        manager = CacheManager(Settings(Secret(own.url)), on_problem=said.append)
        await manager.open()
        assert len(said) == 1
        await works(manager)
        own.start()
        await until(lambda: not manager.problems)
        await manager.scope("o").put("k", b"v", tenant="", ttl_s=60)
        assert b"mag" in own.ask("KEYS", "*")
        await manager.close()


async def test_a_full_redis_is_said_and_left_alone_until_it_has_room(node: MakeNode, redis: RedisServer) -> None:
    a = await node()
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        await a.scope("o").put("k", b"v", tenant="", ttl_s=60)
        await until(lambda: bool(a.problems))
    finally:
        redis.ask("CONFIG", "SET", "maxmemory", "0")
    await until(lambda: not a.problems)
    await works(a)


async def test_a_refused_password_is_said_without_it() -> None:
    with running_redis() as own:
        own.ask("CONFIG", "SET", "requirepass", "right")
        manager = CacheManager(Settings(Secret(own.url.replace("unix://", "unix://user:hunter2@"))))
        await manager.open()
        assert manager.problems
        assert "hunter2" not in manager.problems[0]
        await works(manager)
        await manager.close()


async def test_a_caller_that_is_cancelled_has_forgotten_all_the_same(node: MakeNode, redis: RedisServer) -> None:
    a = await node(memory_bytes=0)
    cache = a.scope("o")
    for turns in range(8):
        await cache.put("k", b"v", tenant="", ttl_s=60)
        forgetting = asyncio.ensure_future(cache.invalidate("k", tenant=""))
        for _ in range(turns + 1):
            await asyncio.sleep(0)
        forgetting.cancel()
        await asyncio.wait([forgetting])
        await until(lambda: not a._writing)
        assert await cache.get("k", tenant="") is None


async def test_closing_while_redis_is_frozen_ends(node: MakeNode, redis: RedisServer) -> None:
    a = await node(redis_timeout_s=0.4)
    redis.freeze()
    asking = asyncio.ensure_future(a.scope("o").get("k", tenant=""))
    await asyncio.sleep(0)
    await a.close()
    assert await asking is None
    redis.revive()


async def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    manager = CacheManager(Settings(Secret("redis://127.0.0.1")))
    with pytest.raises(RedisDriverMissing):
        await manager.open()
    await manager.close()
