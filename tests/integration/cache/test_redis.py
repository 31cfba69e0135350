"""The cache over a real Redis: several nodes share values, and what one forgets no other gives to anybody."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from tests.integration.cache.conftest import MakeNode

from magmobo.contracts.stores import Cache
from magmobo.kernel.cache import redis as redis_module
from magmobo.kernel.cache.keys import CHANNEL, Name, value_key
from magmobo.kernel.cache.manager import CacheManager
from magmobo.kernel.cache.redis import Found
from magmobo.kernel.cache.tags import Invalidation
from magmobo.testing.redis import RedisServer


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it never became true"
        await asyncio.sleep(0.002)


def at_once(value: bytes) -> Callable[[], Awaitable[bytes]]:
    async def load() -> bytes:
        return value

    return load


async def never() -> bytes:
    raise AssertionError("loaded though it was there")


def key_of(owner: str, tenant: str, key: str) -> str:
    return value_key(Name(owner, tenant, key)).decode()


def keys_in(redis: RedisServer, pattern: str) -> list[str]:
    return redis.ask("KEYS", pattern).decode().split("\r\n")[2::2]


def deaf(manager: CacheManager) -> CacheManager:
    """A node to which messages do not come through; only what lies in Redis can guard it."""
    assert manager._redis is not None
    manager._redis._heard = lambda order: None
    return manager


# ------------------------------------------------------------ shared values


async def test_what_one_node_loaded_another_finds(node: MakeNode) -> None:
    a, b = await node(), await node()
    load = at_once(b"v")
    assert await a.scope("o").get_or_load("k", load, tenant="t", ttl_s=60, tags=["x"]) == b"v"
    assert await b.scope("o").get_or_load("k", never, tenant="t", ttl_s=60, tags=["x"]) == b"v"
    assert b.counts["redis", "hit"] == 1
    assert await b.scope("o").get("k", tenant="t") == b"v"
    assert (b.counts["memory", "hit"], b.counts["redis", "hit"]) == (1, 1), "then it is in memory"
    for owner, tenant in (("o", "u"), ("o", ""), ("p", "t")):
        assert await b.scope(owner).get("k", tenant=tenant) is None
    assert b.problems == ()


async def test_what_is_put_with_a_tag_is_found_by_get_too(node: MakeNode) -> None:
    a, b = await node(), await node()
    await a.scope("o").put("k", b"v", tenant="t", ttl_s=60, tags=["x", "y"])
    assert await b.scope("o").get("k", tenant="t") == b"v"
    await a.scope("o").put("k", b"", tenant="t", ttl_s=60)
    c = await node()
    assert await c.scope("o").get("k", tenant="t") == b"", "an empty value is one"


async def test_the_time_that_is_left_is_the_time_another_node_keeps_it(node: MakeNode, redis: RedisServer) -> None:
    a, b = await node(), await node()
    await a.scope("o").put("k", b"v", tenant="", ttl_s=60, stale_s=30)
    redis.ask("PEXPIRE", key_of("o", "", "k"), "40000")
    assert await b.scope("o").get("k", tenant="") == b"v"
    [name] = b.memory.names()
    now_s = time.monotonic()
    entry = b.memory.get(name, now_s)
    assert entry is not None
    assert entry.fresh_until_s <= now_s + 10
    assert 29 < entry.stale_until_s - entry.fresh_until_s < 31


async def test_a_stale_value_of_another_node_is_given_at_once(node: MakeNode, redis: RedisServer) -> None:
    a, b = await node(), await node()
    await a.scope("o").put("k", b"old", tenant="", ttl_s=60, stale_s=30)
    redis.ask("PEXPIRE", key_of("o", "", "k"), "20000")
    assert await b.scope("o").get("k", tenant="") is None
    assert await b.scope("o").get_or_load("k", at_once(b"new"), tenant="", ttl_s=60) == b"old"
    await until(lambda: len(b.memory) == 1)
    assert await b.scope("o").get("k", tenant="") == b"new"
    assert b.counts["redis", "stale"] >= 2


async def test_without_memory_redis_alone_keeps(node: MakeNode) -> None:
    a = await node(memory_bytes=0)
    await a.scope("o").put("k", b"v", tenant="", ttl_s=60)
    assert await a.scope("o").get_or_load("k", never, tenant="", ttl_s=60) == b"v"
    assert len(a.memory) == 0


async def test_a_value_too_large_to_share_stays_in_memory_and_ends_the_one_before(node: MakeNode) -> None:
    a, b = await node(memory_bytes=1 << 24), await node()
    await a.scope("o").put("k", b"small", tenant="", ttl_s=60)
    large = bytes(redis_module.MAX_VALUE_BYTES + 1)
    await a.scope("o").put("k", large, tenant="", ttl_s=60)
    assert await b.scope("o").get("k", tenant="") is None
    assert await a.scope("o").get("k", tenant="") == large
    assert await a.scope("o").get_or_load("l", at_once(large), tenant="", ttl_s=60) == large
    assert await b.scope("o").get("l", tenant="") is None
    assert a.problems == ()


# ------------------------------------------------------------ forgetting


async def forget(cache: Cache, how: str) -> None:
    match how:
        case "key":
            await cache.invalidate("k", tenant="t")
        case "tag":
            await cache.invalidate_tag("x", tenant="t")
        case "tag of all":
            await cache.invalidate_tag("x")


WAYS = ["key", "tag", "tag of all"]


@pytest.mark.parametrize("how", WAYS)
async def test_what_one_node_forgets_all_forget(node: MakeNode, how: str) -> None:
    a, b = await node(), await node()
    for key, tenant in (("k", "t"), ("l", "t"), ("k", "u")):
        await a.scope("o").put(key, b"v", tenant=tenant, ttl_s=60, tags=["x"] if key == "k" else ["z"])
        assert await b.scope("o").get(key, tenant=tenant) == b"v"
    await forget(a.scope("o"), how)
    assert await a.scope("o").get("k", tenant="t") is None
    await until(lambda: Name("o", "t", "k") not in b.memory.names())
    assert await b.scope("o").get("k", tenant="t") is None
    assert await b.scope("o").get("l", tenant="t") == b"v"
    assert await b.scope("o").get("k", tenant="u") == (None if how == "tag of all" else b"v")
    assert await (await node()).scope("o").get("k", tenant="t") is None


@pytest.mark.parametrize("how", WAYS)
async def test_a_load_that_was_under_way_on_a_deaf_node_brings_nothing_back(node: MakeNode, how: str) -> None:
    """No message reaches it in time; the token it began under is gone."""
    a, b = await node(), deaf(await node())
    going: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    begun = asyncio.Event()

    async def load() -> bytes:
        begun.set()
        return await going

    loading = asyncio.ensure_future(b.scope("o").get_or_load("k", load, tenant="t", ttl_s=60, tags=["x"]))
    await begun.wait()
    await forget(a.scope("o"), how)
    going.set_result(b"old")
    assert await loading == b"old"
    assert await a.scope("o").get("k", tenant="t") is None
    assert await a.scope("o").get_or_load("k", at_once(b"new"), tenant="t", ttl_s=60, tags=["x"]) == b"new"
    assert await (await node()).scope("o").get("k", tenant="t") == b"new"


async def test_a_look_that_was_under_way_is_not_kept_by_a_node_that_was_told(
    node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await node(), await node()
    await a.scope("o").put("k", b"old", tenant="t", ttl_s=60, tags=["x"])
    assert b._redis is not None
    real, looked, go_on = b._redis.read, asyncio.Event(), asyncio.Event()

    async def read(name: Name, tags: Sequence[str] | None) -> Found | None:
        found = await real(name, tags)
        looked.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(b._redis, "read", read)
    await b.scope("o").put("told", b"1", tenant="", ttl_s=60, tags=["x"])
    looking = asyncio.ensure_future(b.scope("o").get("k", tenant="t"))
    await looked.wait()
    await a.scope("o").invalidate_tag("x")
    await until(lambda: len(b.memory) == 0)
    go_on.set()
    assert await looking == b"old", "it asked before"
    assert len(b.memory) == 0


async def test_what_is_read_while_redis_is_still_being_told_is_forgotten_too(
    node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await node()
    await a.scope("o").put("k", b"old", tenant="t", ttl_s=60)
    assert a._redis is not None
    real, telling, go_on = a._redis.forget, asyncio.Event(), asyncio.Event()

    async def forget(order: Invalidation) -> None:
        telling.set()
        await go_on.wait()
        await real(order)

    monkeypatch.setattr(a._redis, "forget", forget)
    forgetting = asyncio.ensure_future(a.scope("o").invalidate("k", tenant="t"))
    await telling.wait()
    assert await a.scope("o").get("k", tenant="t") == b"old", "it asked before invalidate returned"
    assert len(a.memory) == 1
    go_on.set()
    await forgetting
    assert await a.scope("o").get("k", tenant="t") is None


async def test_a_lost_token_costs_a_load_and_never_brings_anything_back(node: MakeNode, redis: RedisServer) -> None:
    """A Redis that is full may drop any key."""
    a = await node(memory_bytes=0)
    cache = a.scope("o")
    for _ in range(3):
        await cache.put("k", b"v", tenant="t", ttl_s=60, tags=["x"])
        assert await cache.get("k", tenant="t") == b"v"
        for key in [key for key in keys_in(redis, "mag:cache:[ekta]*") if not key.endswith(":l")]:
            await cache.put("k", b"v", tenant="t", ttl_s=60, tags=["x"])
            redis.ask("DEL", key)
            assert await cache.get("k", tenant="t") is None
            assert await cache.get_or_load("l", at_once(b"w"), tenant="t", ttl_s=60, tags=["x"]) == b"w"
            assert await cache.get("k", tenant="t") is None, "a new token is another one"


async def test_tokens_outlive_the_values_that_depend_on_them(node: MakeNode, redis: RedisServer) -> None:
    a = await node(memory_bytes=0)
    year_s = 365 * 86_400
    await a.scope("o").put("j", b"v", tenant="t", ttl_s=1, tags=["x"])
    await a.scope("o").put("k", b"v", tenant="t", ttl_s=year_s, tags=["x"])
    await a.scope("o").put("l", b"v", tenant="t", ttl_s=1, tags=["x"])
    keys = keys_in(redis, "mag:cache:[eta]*")
    assert len(keys) == 3
    for key in keys:
        assert int(redis.ask("TTL", key)[1:]) > year_s


async def test_a_message_that_cannot_be_read_empties_the_memory(node: MakeNode, redis: RedisServer) -> None:
    a = await node()
    for text in ("", "{}", "\0", '{"origin":"x","order":{"kind":"later"}}', "[" * 5_000):
        await a.scope("o").put("k", b"v", tenant="", ttl_s=60)
        redis.ask("PUBLISH", CHANNEL, text)
        await until(lambda: len(a.memory) == 0)
    assert a.problems == ()


FOREIGN = [
    ("SET", "{key}", "garbage"),
    ("SET", "{key}", ""),
    ("SET", "{key}", "\x02" + "t" * 32 + "\x97", "PX", "60000"),
    ("RPUSH", "{key}", "a", "b"),
    ("HSET", "{key}", "a", "b"),
    ("PERSIST", "{key}"),
    ("COPY", "{other}", "{key}", "REPLACE"),
]


@pytest.mark.parametrize("command", FOREIGN, ids=lambda command: command[0])
async def test_somebody_elses_value_at_our_place_is_a_miss(
    node: MakeNode, redis: RedisServer, command: tuple[str, ...]
) -> None:
    a = await node(memory_bytes=0)
    cache, key, other = a.scope("o"), key_of("o", "t", "k"), key_of("o", "u", "k")
    await cache.put("k", b"mine", tenant="t", ttl_s=60, tags=["x"])
    await cache.put("k", b"of u", tenant="u", ttl_s=60, tags=["x"])
    if command[0] in ("RPUSH", "HSET"):
        redis.ask("DEL", key)
    assert not redis.ask(*(word.format(key=key, other=other) for word in command)).startswith(b"-")
    assert await cache.get("k", tenant="t") is None
    assert await cache.get_or_load("k", at_once(b"new"), tenant="t", ttl_s=60, tags=["x"]) == b"new"
    assert await cache.get("k", tenant="t") == b"new", "and it is replaced"
    assert (a.problems, a.counts["redis", "error"]) == ((), 0)


async def test_a_list_at_the_place_of_a_token_is_no_token(node: MakeNode, redis: RedisServer) -> None:
    a = await node(memory_bytes=0)
    cache = a.scope("o")
    await cache.put("k", b"v", tenant="t", ttl_s=60, tags=["x"])
    for token in keys_in(redis, "mag:cache:[ekta]*"):
        redis.ask("DEL", token)
        redis.ask("RPUSH", token, "a")
        assert await cache.get("k", tenant="t") is None
        assert await cache.get_or_load("k", at_once(b"v"), tenant="t", ttl_s=60, tags=["x"]) == b"v"
        assert await cache.get("k", tenant="t") == b"v"
    assert a.problems == ()


async def test_nodes_that_load_and_forget_at_random_never_show_what_was_forgotten(node: MakeNode) -> None:
    """After `invalidate` returned, nobody who asks on that node gets what was true before; on others once told."""
    chance = random.Random(5)
    nodes = [await node(), await node(), await node(memory_bytes=0)]
    truth = dict.fromkeys("kl", 0)

    async def load(key: str) -> bytes:
        value = truth[key]
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)
        return b"%d" % value

    async def read(manager: CacheManager, key: str, least: int) -> None:
        loading = manager.scope("o").get_or_load(key, lambda: load(key), tenant="t", ttl_s=60, stale_s=60, tags=["x"])
        found = int(await loading)
        assert found >= least, f"{key} = {found}, and {least} was true before it was asked for"

    async def reader(manager: CacheManager) -> None:
        for _ in range(150):
            await read(manager, chance.choice("kl"), 0)
            await asyncio.sleep(0)

    async def writer(manager: CacheManager) -> None:
        for _ in range(60):
            key = chance.choice("kl")
            truth[key] += 1
            least = truth[key]
            if chance.random() < 0.5:
                await manager.scope("o").invalidate(key, tenant="t")
            else:
                await manager.scope("o").invalidate_tag("x", tenant=chance.choice(("t", None)))
            await read(manager, key, least)

    readers = [reader(manager) for manager in nodes for _ in range(3)]
    await asyncio.gather(*readers, *(writer(manager) for manager in nodes))
    late = await node()
    await asyncio.gather(*(read(late, key, truth[key]) for key in "kl"))
    for manager in nodes:  # a message about something later came: all before it came too
        await late.scope("o").put("end", b"1", tenant="", ttl_s=60)
        await manager.scope("o").get("end", tenant="")
    await late.scope("o").invalidate("end", tenant="")
    await until(lambda: all(Name("o", "", "end") not in manager.memory.names() for manager in nodes))
    await asyncio.gather(*(read(manager, key, truth[key]) for manager in nodes for key in "kl"))
    assert all(manager.problems == () for manager in nodes)


async def test_nothing_is_left_of_a_closed_cache(node: MakeNode) -> None:
    def open_files() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    await (await node()).close()  # what is imported once stays
    before = open_files()
    manager = await node()
    cache = manager.scope("o")
    await asyncio.gather(*(cache.put(f"k{n}", b"v", tenant="", ttl_s=60) for n in range(40)))
    await manager.close()
    assert open_files() == before
    assert {task.get_name() for task in asyncio.all_tasks() if "cache" in task.get_name()} == set()
    assert redis_module.CONNECTIONS < 40
