"""The cache without Redis: time, single-flight, stale values, invalidation under loads. The clock is a test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec import Struct

from magmobo.contracts.secret import Secret
from magmobo.contracts.stores import Cache
from magmobo.kernel.cache.errors import CacheClosed, RedisAddressRefused
from magmobo.kernel.cache.manager import CacheManager
from magmobo.testing.clock import FakeClock


class Settings(Struct):
    memory_bytes: int = 1 << 20
    redis_url: Secret | None = None
    redis_timeout_s: float = 0.25


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def manager(clock: FakeClock) -> CacheManager:
    return CacheManager(Settings(), monotonic_s=clock.monotonic_s)


@pytest.fixture
def cache(manager: CacheManager) -> Cache:
    return manager.scope("owner")


class Source:
    """Loads that a test lets go on, one by one, and counts."""

    def __init__(self) -> None:
        self.loads: list[asyncio.Future[bytes]] = []

    async def __call__(self) -> bytes:
        self.loads.append(asyncio.get_running_loop().create_future())
        return await self.loads[-1]


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def at_once(value: bytes) -> Callable[[], Awaitable[bytes]]:
    async def load() -> bytes:
        return value

    return load


async def never() -> bytes:
    raise AssertionError("loaded though it was there")


# ------------------------------------------------------------ values and time


async def test_a_value_is_there_until_its_time_is_over(cache: Cache, clock: FakeClock) -> None:
    await cache.put("k", b"v", tenant="t", ttl_s=10)
    await clock.advance(9.9)
    clock.step_wall_time(1e9)
    assert await cache.get("k", tenant="t") == b"v"
    clock.step_wall_time(-3e9)
    await clock.advance(0.1)
    assert await cache.get("k", tenant="t") is None


async def test_owners_tenants_and_keys_never_meet(manager: CacheManager) -> None:
    names = [(o, t, k) for o in ("a", "ab", "a:") for t in ("", "b", ":b") for k in ("", "c", "b:c")]
    for owner, tenant, key in names:
        await manager.scope(owner).put(key, repr((owner, tenant, key)).encode(), tenant=tenant, ttl_s=1)
    for owner, tenant, key in names:
        assert await manager.scope(owner).get(key, tenant=tenant) == repr((owner, tenant, key)).encode()
    await manager.scope("a").invalidate("c", tenant="b")
    left = [name for name in names if await manager.scope(name[0]).get(name[2], tenant=name[1]) is not None]
    assert set(names) - set(left) == {("a", "b", "c")}


async def test_a_tag_is_forgotten_for_one_tenant_or_all_and_for_its_owner_only(manager: CacheManager) -> None:
    a, b = manager.scope("a"), manager.scope("b")
    for scope in (a, b):
        for tenant in ("t", "u"):
            await scope.put("k", b"1", tenant=tenant, ttl_s=1, tags=["x", "y"])
            await scope.put("l", b"2", tenant=tenant, ttl_s=1, tags=["y"])
    await a.invalidate_tag("x", tenant="t")
    assert [await a.get("k", tenant=tenant) for tenant in ("t", "u")] == [None, b"1"]
    await a.invalidate_tag("y")
    assert [await a.get(key, tenant=tenant) for key in "kl" for tenant in "tu"] == [None] * 4
    assert [await b.get(key, tenant=tenant) for key in "kl" for tenant in "tu"] == [b"1", b"1", b"2", b"2"]


async def test_without_room_nothing_is_kept_and_everything_works() -> None:
    manager = CacheManager(Settings(memory_bytes=0))
    cache = manager.scope("a")
    await cache.put("k", b"v", tenant="", ttl_s=1)
    assert await cache.get("k", tenant="") is None
    assert await cache.get_or_load("k", at_once(b"w"), tenant="", ttl_s=1) == b"w"
    assert (len(manager.memory), manager.memory.size_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("change", "error"),
    [({"ttl_s": 0}, ValueError), ({"ttl_s": float("nan")}, ValueError), ({"ttl_s": 1e12}, ValueError),
     ({"stale_s": -1}, ValueError), ({"stale_s": float("inf")}, ValueError), ({"tags": "x"}, ValueError),
     ({"tags": [str(n) for n in range(101)]}, ValueError), ({"value": "text"}, TypeError),
     ({"value": bytearray(b"v")}, TypeError), ({"value": None}, TypeError)],
)  # fmt: skip
async def test_what_cannot_be_meant_is_refused(cache: Cache, change: dict[str, Any], error: type[Exception]) -> None:
    arguments: dict[str, Any] = {"value": b"v", "tenant": "", "ttl_s": 1} | change
    with pytest.raises(error):
        await cache.put("k", **arguments)
    value = arguments.pop("value")
    with pytest.raises(error):
        await cache.get_or_load("k", at_once(value), **arguments)
    assert await cache.get("k", tenant="") is None


async def test_a_scope_belongs_to_somebody(manager: CacheManager) -> None:
    with pytest.raises(ValueError, match="somebody"):
        manager.scope("")


# ------------------------------------------------------------ one load for all


async def test_however_many_ask_there_is_one_load(cache: Cache, manager: CacheManager) -> None:
    source = Source()
    asking = [asyncio.ensure_future(cache.get_or_load("k", source, tenant="t", ttl_s=5)) for _ in range(100)]
    other = asyncio.ensure_future(cache.get_or_load("k", source, tenant="u", ttl_s=5))
    await turns()
    assert len(source.loads) == 2, "one for each tenant"
    source.loads[0].set_result(b"v")
    source.loads[1].set_result(b"w")
    assert set(await asyncio.gather(*asking)) == {b"v"}
    assert await other == b"w"
    assert await cache.get_or_load("k", never, tenant="t", ttl_s=5) == b"v"
    assert (manager.counts["memory", "miss"], manager.counts["memory", "hit"]) == (101, 1)


async def test_a_load_that_raises_reaches_all_and_nothing_is_kept(cache: Cache) -> None:
    source = Source()
    asking = [asyncio.ensure_future(cache.get_or_load("k", source, tenant="", ttl_s=5)) for _ in range(5)]
    await turns()
    source.loads[0].set_exception(LookupError("gone"))
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(result) for result in results] == [LookupError] * 5
    assert await cache.get_or_load("k", at_once(b"v"), tenant="", ttl_s=5) == b"v"


async def test_who_is_cancelled_takes_nobody_along_but_the_last_takes_the_load(
    cache: Cache, manager: CacheManager
) -> None:
    source = Source()
    asking = [asyncio.ensure_future(cache.get_or_load("k", source, tenant="", ttl_s=5)) for _ in range(3)]
    await turns()
    for one in asking[:2]:
        one.cancel()
    await turns()
    assert not source.loads[0].cancelled()
    asking[2].cancel()
    await turns()
    assert source.loads[0].cancelled()
    assert all(one.cancelled() for one in asking)
    again = asyncio.ensure_future(cache.get_or_load("k", source, tenant="", ttl_s=5))
    await turns()
    source.loads[1].set_result(b"v")
    assert await again == b"v"
    assert len(manager._flights) == 0


async def test_who_asks_right_after_the_last_was_cancelled_gets_a_load_of_their_own(cache: Cache) -> None:
    source = Source()
    first = asyncio.ensure_future(cache.get_or_load("k", source, tenant="", ttl_s=5))
    await turns()
    first.cancel()
    second = asyncio.ensure_future(cache.get_or_load("k", source, tenant="", ttl_s=5))
    await turns()
    source.loads[-1].set_result(b"v")
    assert await second == b"v"


async def test_cancelled_before_it_began_leaves_nothing(cache: Cache, manager: CacheManager) -> None:
    asking = asyncio.ensure_future(cache.get_or_load("k", never, tenant="", ttl_s=5))
    await asyncio.sleep(0)
    asking.cancel()
    await turns()
    assert asking.cancelled()
    assert len(manager._flights) == 0
    assert await cache.get_or_load("k", at_once(b"v"), tenant="", ttl_s=5) == b"v"


# ------------------------------------------------------------ stale values


async def test_a_stale_value_is_given_at_once_while_one_load_runs_behind(
    cache: Cache, clock: FakeClock, manager: CacheManager
) -> None:
    await cache.put("k", b"old", tenant="", ttl_s=10, stale_s=5)
    await clock.advance(12)
    source = Source()
    for _ in range(10):
        assert await cache.get_or_load("k", source, tenant="", ttl_s=10, stale_s=5) == b"old"
    assert await cache.get("k", tenant="") is None, "get shows fresh values only"
    await turns()
    assert len(source.loads) == 1
    source.loads[0].set_result(b"new")
    await turns()
    assert await cache.get_or_load("k", never, tenant="", ttl_s=10) == b"new"
    assert manager.counts["memory", "stale"] == 11


async def test_after_the_stale_time_everybody_waits(cache: Cache, clock: FakeClock) -> None:
    await cache.put("k", b"old", tenant="", ttl_s=10, stale_s=5)
    await clock.advance(15)
    assert await cache.get_or_load("k", at_once(b"new"), tenant="", ttl_s=10) == b"new"


async def test_a_load_behind_that_fails_leaves_the_old_value_and_is_tried_again(cache: Cache, clock: FakeClock) -> None:
    await cache.put("k", b"old", tenant="", ttl_s=10, stale_s=5)
    await clock.advance(11)
    source = Source()
    for number in range(3):
        assert await cache.get_or_load("k", source, tenant="", ttl_s=10) == b"old"
        await turns()
        source.loads[number].set_exception(LookupError("down"))
        await turns()
    assert await cache.get_or_load("k", at_once(b"new"), tenant="", ttl_s=10) == b"old"
    await turns()
    assert await cache.get("k", tenant="") == b"new"


async def test_who_joins_a_load_behind_and_leaves_does_not_end_it(cache: Cache, clock: FakeClock) -> None:
    await cache.put("k", b"old", tenant="", ttl_s=1, stale_s=1)
    await clock.advance(1)
    source = Source()
    await cache.get_or_load("k", source, tenant="", ttl_s=10)
    await clock.advance(1)
    joined = asyncio.ensure_future(cache.get_or_load("k", never, tenant="", ttl_s=10))
    await turns()
    joined.cancel()
    await turns()
    source.loads[0].set_result(b"new")
    await turns()
    assert await cache.get("k", tenant="") == b"new"


# ------------------------------------------------------------ invalidated while it loads


@pytest.mark.parametrize("how", ["key", "tag", "tag of all", "put"])
async def test_what_was_invalidated_while_it_was_loaded_is_not_kept(cache: Cache, how: str) -> None:
    source = Source()
    before = asyncio.ensure_future(cache.get_or_load("k", source, tenant="t", ttl_s=10, tags=["x"]))
    await turns()
    match how:
        case "key":
            await cache.invalidate("k", tenant="t")
        case "tag":
            await cache.invalidate_tag("x", tenant="t")
        case "tag of all":
            await cache.invalidate_tag("x")
        case "put":
            await cache.put("k", b"newest", tenant="t", ttl_s=10)
    after = asyncio.ensure_future(cache.get_or_load("k", source, tenant="t", ttl_s=10, tags=["x"]))
    await turns()
    source.loads[0].set_result(b"old")
    assert await before == b"old", "it asked before"
    if how == "put":
        assert await after == b"newest"
    else:
        assert await cache.get("k", tenant="t") is None
        source.loads[1].set_result(b"new")
        assert await after == b"new"
    assert await cache.get("k", tenant="t") in (b"new", b"newest")


@pytest.mark.parametrize(("tag", "tenant"), [("y", None), ("x", "u")])
async def test_an_invalidation_of_something_else_does_not_disturb_a_load(
    cache: Cache, tag: str, tenant: str | None
) -> None:
    source = Source()
    loading = asyncio.ensure_future(cache.get_or_load("k", source, tenant="t", ttl_s=10, tags=["x"]))
    await turns()
    await cache.invalidate_tag(tag, tenant=tenant)
    await cache.invalidate("k", tenant="u")
    source.loads[0].set_result(b"v")
    await loading
    assert await cache.get("k", tenant="t") == b"v"


# ------------------------------------------------------------ ends


async def test_an_owner_that_stops_takes_its_loads_and_entries_along(manager: CacheManager) -> None:
    source, a, b = Source(), manager.scope("a"), manager.scope("b")
    for scope in (a, b):
        await scope.put("k", b"v", tenant="", ttl_s=10)
    loading = [asyncio.ensure_future(scope.get_or_load("l", source, tenant="", ttl_s=10)) for scope in (a, b)]
    await turns()
    await manager.close_owner("a")
    with pytest.raises(CacheClosed):
        await loading[0]
    assert await a.get("k", tenant="") is None
    assert await b.get("k", tenant="") == b"v"
    source.loads[1].set_result(b"w")
    assert await loading[1] == b"w"
    assert await a.get_or_load("k", at_once(b"again"), tenant="", ttl_s=1) == b"again"


async def test_a_closed_cache_holds_nothing_and_starts_nothing(manager: CacheManager) -> None:
    source, cache = Source(), manager.scope("a")
    loading = asyncio.ensure_future(cache.get_or_load("l", source, tenant="", ttl_s=10))
    await turns()
    await manager.close()
    await manager.close()
    with pytest.raises(CacheClosed):
        await loading
    with pytest.raises(CacheClosed):
        await cache.get_or_load("l", never, tenant="", ttl_s=10)
    await cache.put("k", b"v", tenant="", ttl_s=10)
    assert await cache.get("k", tenant="") is None
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_address_that_is_none_is_refused_without_showing_it() -> None:
    for url in ("http://user:hunter2@host", "redis://user:hunter2@host:port/0", "hunter2"):
        manager = CacheManager(Settings(redis_url=Secret(url)))
        with pytest.raises(RedisAddressRefused) as refusal:
            await manager.open()
        assert "hunter2" not in str(refusal.value)
        await manager.close()
