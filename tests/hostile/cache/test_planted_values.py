"""Somebody else who may write to the same Redis: what they plant costs a load, never memory, never an error."""

from __future__ import annotations

import re

import pytest
from tests.integration.cache.conftest import MakeNode
from tests.integration.cache.test_redis import at_once, key_of, keys_in

from magmobo.kernel.cache.keys import CHANNEL
from magmobo.testing.redis import RedisServer

HUGE_BYTES = 64_000_000


def sent_bytes(redis: RedisServer) -> int:
    found = re.search(rb"total_net_output_bytes:(\d+)", redis.ask("INFO", "stats"))
    assert found
    return int(found[1])


async def test_a_value_larger_than_any_of_ours_is_not_even_fetched(node: MakeNode, redis: RedisServer) -> None:
    a = await node(memory_bytes=0, redis_timeout_s=10.0)
    cache = a.scope("o")
    await cache.put("k", b"mine", tenant="t", ttl_s=60)
    redis.ask("SETRANGE", key_of("o", "t", "k"), str(HUGE_BYTES), "x")
    redis.ask("PEXPIRE", key_of("o", "t", "k"), "60000")
    before = sent_bytes(redis)
    assert await cache.get("k", tenant="t") is None
    assert sent_bytes(redis) - before < 1_000_000
    assert await cache.get_or_load("k", at_once(b"new"), tenant="t", ttl_s=60) == b"new"
    assert await cache.get("k", tenant="t") == b"new", "and it is replaced"
    assert (a.problems, a.counts["redis", "error"]) == ((), 0)


async def test_nor_is_such_a_token(node: MakeNode, redis: RedisServer) -> None:
    a = await node(memory_bytes=0, redis_timeout_s=10.0)
    cache = a.scope("o")
    await cache.put("k", b"v", tenant="t", ttl_s=60, tags=["x"])
    for token in keys_in(redis, "mag:cache:[ekta]*"):
        redis.ask("SETRANGE", token, str(HUGE_BYTES), "x")
    before = sent_bytes(redis)
    assert await cache.get_or_load("k", at_once(b"new"), tenant="t", ttl_s=60, tags=["x"]) == b"new"
    assert await cache.get("k", tenant="t") == b"new"
    assert sent_bytes(redis) - before < 1_000_000
    assert a.problems == ()


@pytest.mark.parametrize(
    "message", ["x" * 8_000_000, "[" * 200_000, '{"origin": "x", "order": 7}', "\x80\x04cos\nsystem\n"]
)
async def test_a_message_that_is_none_costs_the_memory_alone(node: MakeNode, redis: RedisServer, message: str) -> None:
    a = await node()
    cache = a.scope("o")
    await cache.put("k", b"v", tenant="t", ttl_s=60)
    assert redis.ask("PUBLISH", CHANNEL, message) == b":1\r\n"
    assert await cache.get("k", tenant="t") == b"v"
    assert a.problems == ()
