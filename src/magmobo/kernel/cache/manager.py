"""The cache of a node: a bounded memory, and a Redis behind it where one is configured.

Boundary: never the only copy of anything, and nothing it does can fail a request: a layer that does not work is a
layer without entries. Loads are shared on a node, not between nodes. Invariant: what was loaded, read or kept before an
invalidation is not given to anybody who asks after it, however late it arrives.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

from magmobo.contracts.secret import Secret
from magmobo.contracts.stores import Cache
from magmobo.kernel.cache.errors import CacheClosed, RedisGone
from magmobo.kernel.cache.flights import Flight, Flights
from magmobo.kernel.cache.keys import Name
from magmobo.kernel.cache.memory import Entry, MemoryLayer
from magmobo.kernel.cache.redis import Found, RedisLayer
from magmobo.kernel.cache.scope import ScopedCache, Terms, checked
from magmobo.kernel.cache.tags import FORGET_EVERYTHING, Invalidation
from magmobo.kernel.errors import describe

if TYPE_CHECKING:
    import structlog

Load = Callable[[], Awaitable[bytes]]
Layer = Literal["memory", "redis"]
Result = Literal["hit", "miss", "stale", "error"]
LAYERS: tuple[Layer, ...] = ("memory", "redis")
RESULTS: tuple[Result, ...] = ("hit", "miss", "stale", "error")


class CacheSettings(Protocol):
    """Section [cache], as far as it is used here."""

    @property
    def memory_bytes(self) -> int: ...
    @property
    def redis_url(self) -> Secret | None: ...
    @property
    def redis_timeout_s(self) -> float: ...


class CacheManager:
    """All scopes of one node. It opens once and closes once.

    Args:
        node_id: tells this node's messages from those of others on the same Redis.
        on_problem: told, on the loop, when Redis stops serving; `problems` lists what is so now.
    """

    def __init__(
        self,
        config: CacheSettings,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
        log: structlog.stdlib.BoundLogger | None = None,
        node_id: str = "",
        on_problem: Callable[[str], None] | None = None,
    ) -> None:
        self._monotonic_s, self._log, self._on_problem = monotonic_s, log, on_problem
        self.memory = MemoryLayer(config.memory_bytes)
        self._flights = Flights()
        self._writing: set[asyncio.Task[None]] = set()
        self._gone: RedisGone | None = None
        self._closed = False
        self._redis: RedisLayer | None = None
        if config.redis_url is not None:
            self._redis = RedisLayer(
                config.redis_url.reveal(),
                origin=f"{node_id}/{os.urandom(8).hex()}",
                timeout_s=config.redis_timeout_s,
                heard=self._forget_here,
                changed=self._redis_changed,
            )
        self.counts: dict[tuple[Layer, Result], int] = {(layer, result): 0 for layer in LAYERS for result in RESULTS}

    @property
    def problems(self) -> Sequence[str]:
        """What is not as it was configured, now."""
        return () if self._gone is None else (f"{self._gone} [{self._gone.code}]",)

    async def open(self) -> None:
        """Connect to Redis where one is configured; when it does not answer, work without it and say so.

        Raises: RedisDriverMissing, RedisAddressRefused.
        """
        if self._redis is not None:
            await self._redis.open()

    def scope(self, owner: str) -> Cache:
        """The entries of `owner`, which nobody else can see or touch. Raises: ValueError for an empty name."""
        return ScopedCache(self, owner)

    async def close_owner(self, owner: str) -> None:
        """End the loads of `owner` and forget its entries on this node."""
        await self._flights.cancel(owner)
        self.memory.forget_owner(owner)

    async def close(self) -> None:
        """End every load and let go of Redis. Calling it again does nothing."""
        self._closed = True
        await self._flights.cancel()
        if self._writing:
            await asyncio.wait(self._writing)
        if self._redis is not None:
            await self._redis.close()
        self.memory.forget(FORGET_EVERYTHING)

    # ------------------------------------------------------------ what scopes use

    async def get(self, name: Name) -> bytes | None:
        """See `contracts.stores.Cache.get`."""
        now_s = self._monotonic_s()
        entry = self.memory.get(name, now_s)
        if entry is not None and entry.fresh_until_s > now_s:
            self.counts["memory", "hit"] += 1
            return entry.value
        self.counts["memory", "miss" if entry is None else "stale"] += 1
        if self._redis is None:
            return None
        look = self._flights.begin(name, None)
        try:
            found = await self._look(self._redis, look)
        finally:
            self._flights.end(look)
        return found.value if found is not None and found.fresh_s > 0 else None

    async def put(self, name: Name, value: bytes, terms: Terms) -> None:
        """See `contracts.stores.Cache.put`."""
        if self._closed:
            return
        self._flights.outdate_name(name)
        self._keep(name, value, terms)
        if self._redis is not None:
            await self._surely(self._redis.write(name, value, terms.tags, terms.ttl_s, terms.stale_s))

    async def get_or_load(self, name: Name, load: Load, terms: Terms) -> bytes:
        """See `contracts.stores.Cache.get_or_load`. Raises: what `load` raises, or CacheClosed."""
        if self._closed:
            raise CacheClosed
        now_s = self._monotonic_s()
        entry = self.memory.get(name, now_s)
        if entry is not None and entry.fresh_until_s > now_s:
            self.counts["memory", "hit"] += 1
            return entry.value
        fly = partial(self._fly, load=load, terms=terms)
        if entry is not None:
            self.counts["memory", "stale"] += 1
            self._flights.join(name, terms.tags, fly, behind=True)
            return entry.value
        self.counts["memory", "miss"] += 1
        return await self._flights.wait(self._flights.join(name, terms.tags, fly))

    async def forget(self, order: Invalidation) -> None:
        """Forget on this node at once, on all others within the time that a message takes."""
        self._forget_here(order)
        if self._redis is not None:
            await self._surely(self._redis.forget(order))
            self._forget_here(order)  # meanwhile the old value could still be read from Redis

    # ------------------------------------------------------------ inside

    async def _fly(self, flight: Flight, load: Load, terms: Terms) -> bytes:
        """From Redis if it is there, else loaded; kept unless it was invalidated meanwhile."""
        try:
            found = None if self._redis is None else await self._look(self._redis, flight)
            if found is not None and found.value is not None:
                if found.fresh_s > 0:
                    return found.value
                if not flight.is_behind:
                    self._flights.leave(flight)
                    self._flights.join(flight.name, terms.tags, partial(self._fly, load=load, terms=terms), behind=True)
                    return found.value
            value = checked(await load())
            if not flight.outdated:
                self._keep(flight.name, value, terms)
                if self._redis is not None and found is not None:
                    await self._redis.write(flight.name, value, terms.tags, terms.ttl_s, terms.stale_s, found.tokens)
        except Exception as error:
            if flight.is_behind and self._log is not None:
                self._log.warning("cached value not loaded anew", owner=flight.name.owner, error=describe(error))
            raise
        return value

    async def _look(self, redis: RedisLayer, flight: Flight) -> Found | None:
        """What Redis holds, kept in memory too when it is fresh and nothing was invalidated meanwhile."""
        if not redis.is_up:
            return None
        began_s, errors = self._monotonic_s(), redis.errors
        found = await redis.read(flight.name, flight.tags)
        result: Result = "miss"
        if redis.errors > errors and found is None:
            result = "error"
        elif found is not None and found.value is not None:
            result = "hit" if found.fresh_s > 0 else "stale"
            if found.fresh_s > 0 and not flight.outdated:
                entry = Entry(found.value, began_s + found.fresh_s, began_s + found.stale_s, found.tags)
                self.memory.put(flight.name, entry)
        self.counts["redis", result] += 1
        return found

    def _keep(self, name: Name, value: bytes, terms: Terms) -> None:
        fresh_until_s = self._monotonic_s() + terms.ttl_s
        self.memory.put(name, Entry(value, fresh_until_s, fresh_until_s + terms.stale_s, terms.tags))

    def _forget_here(self, order: Invalidation) -> None:
        self.memory.forget(order)
        self._flights.outdate(order)

    async def _surely(self, change: Coroutine[Any, Any, None]) -> None:
        """Carry `change` through though its caller is cancelled; it ends within Redis's deadline."""
        task = asyncio.create_task(change, name="cache:change")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        await asyncio.shield(task)

    def _redis_changed(self, reason: str | None) -> None:
        was_gone, self._gone = self._gone, None if reason is None else RedisGone(reason)
        if self._gone is not None:
            if self._log is not None:
                self._log.warning("redis does not serve the cache, memory alone does", reason=reason)
            if self._on_problem is not None:
                self._on_problem(self.problems[0])
        elif was_gone is not None and self._log is not None:
            self._log.info("redis serves the cache again")
