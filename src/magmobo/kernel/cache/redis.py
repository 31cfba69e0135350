"""The second layer: values in a Redis that several nodes share, and what they tell each other to forget.

Boundary: the only module that speaks to Redis. No call raises for a Redis that is gone, slow or full; the link is then
down for everybody at once, memory alone serves, and a task of its own tries again. What is invalidated meanwhile is
remembered and made good before anything is read from Redis again. Redis Cluster is not supported: a value and its
tokens are read in one step.
Source: https://redis.io/docs/latest/develop/pubsub/ (messages are lost to whoever is not connected)
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import Struct

from magmobo.kernel.cache.errors import RedisAddressRefused, RedisDriverMissing
from magmobo.kernel.cache.keys import CHANNEL, Name, value_key
from magmobo.kernel.cache.stored import body_of, new_token, parsed, token_keys
from magmobo.kernel.cache.tags import FORGET_EVERYTHING, Invalidation, forget_key

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

RETRY_S = 1.0
PING_S = 2.0  # a subscription that hears nothing for so long is asked whether it is still there
CONNECTIONS = 16
MISSED_LIMIT = 1_000  # invalidations remembered one by one while Redis is gone; beyond, everything is forgotten
MAX_VALUE_BYTES = 4 * 1_048_576  # one that is larger stays in memory: it would hold up Redis for everybody
TOKEN_TTL_MS = 86_400_000  # of a token nobody uses; one that a value depends on outlives the value

# Nothing that is not ours is taken: somebody else's list or set at our place, or a text larger than any of ours.
_GET = f"""
local function get(key)
  local size = redis.pcall('STRLEN', key)
  if type(size) ~= 'number' or size > {2 * MAX_VALUE_BYTES} then return false end
  return redis.call('GET', key)
end
"""
# A value, the time it has left, and tokens; with ARGV[1] the tokens that are missing are made from it.
_READ = """
local found = {get(KEYS[1]), redis.call('PTTL', KEYS[1])}
for i = 2, #KEYS do
  local token = get(KEYS[i])
  if not token and ARGV[1] ~= '' then
    token = ARGV[1]
    redis.call('SET', KEYS[i], token, 'PX', ARGV[2])
  end
  found[i + 1] = token
end
return found
"""
# Keep a value, unless one of the tokens it was loaded under (ARGV[4]) is gone; with none given it is new now.
_WRITE = """
local tokens = {}
for i = 2, #KEYS do
  local token = get(KEYS[i])
  if ARGV[4] ~= '' and token ~= string.sub(ARGV[4], (i - 2) * 16 + 1, (i - 1) * 16) then return 0 end
  if not token then
    token = ARGV[3]
    redis.call('SET', KEYS[i], token, 'PX', ARGV[5])
  end
  tokens[i - 1] = token
end
redis.call('SET', KEYS[1], string.char(#tokens) .. table.concat(tokens) .. ARGV[1], 'PX', ARGV[2])
local needed = ARGV[2] + ARGV[5]
for i = 2, #KEYS do
  if redis.call('PTTL', KEYS[i]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[i], needed) end
end
return 1
"""


class Found(NamedTuple):
    """What a look into Redis brought. `fresh_s` is negative once the value is stale; `tokens` are those of now."""

    value: bytes | None
    fresh_s: float
    stale_s: float
    tags: tuple[str, ...]
    tokens: tuple[bytes, ...]


class _Message(Struct, frozen=True):
    origin: str
    order: Invalidation


_message_decoder = msgspec.json.Decoder(_Message)


class RedisLayer:
    """The link to one Redis.

    Args:
        url: of the server; never shown.
        origin: marks messages of this node, unique among all that use this Redis.
        timeout_s: longest wait for one answer.
        heard: told what other nodes forget, and to forget everything when messages may have been lost.
        changed: told that the link went down, with the reason, or came back, with None.
    """

    def __init__(
        self,
        url: str,
        *,
        origin: str,
        timeout_s: float,
        heard: Callable[[Invalidation], None],
        changed: Callable[[str | None], None],
    ) -> None:
        self._url, self._origin, self._timeout_s = url, origin, timeout_s
        self._heard, self._changed = heard, changed
        self._missed: dict[Invalidation, None] = {}
        self._client: Redis | None = None
        self._task: asyncio.Task[None] | None = None
        self._tried, self._broken = asyncio.Event(), asyncio.Event()
        self._reason = ""
        self.is_up = False
        self.errors = 0

    async def open(self) -> None:
        """Connect, or find out that it cannot be done now. Raises: RedisDriverMissing, RedisAddressRefused."""
        self._client = await asyncio.to_thread(_client, self._url, self._timeout_s)  # the import takes 0.2 s
        self._read, self._write = (self._client.register_script(_GET + script) for script in (_READ, _WRITE))
        self._task = asyncio.create_task(self._keep_up(), name="cache:redis")
        await self._tried.wait()

    async def close(self) -> None:
        """Let go of every connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._client is not None:
            with suppress(Exception):
                await asyncio.wait_for(self._client.aclose(), self._timeout_s)
        self.is_up = False

    # ------------------------------------------------------------ values

    async def read(self, name: Name, tags: Sequence[str] | None) -> Found | None:
        """The value if it is valid, and with `tags` given the tokens under which a load may begin now.

        None: Redis does not serve now, or holds something at this place that is not ours.
        """
        keys = token_keys(name, tags or ())
        token = new_token() if tags is not None else b""
        reply = await self._ask(lambda: self._read(keys=[value_key(name), *keys], args=[token, TOKEN_TTL_MS]))
        if reply is None:
            return None
        content, ttl_ms, *tokens = reply
        none = Found(None, 0.0, 0.0, (), tuple(tokens))
        if (found := parsed(name, content)) is None or ttl_ms <= 0:
            return none
        carried, stored = found
        present = dict(zip(keys, tokens, strict=True))
        depends_on = token_keys(name, stored.tags)
        if unknown := [key for key in depends_on if key not in present]:
            more = await self._ask(lambda: self._connected.mget(unknown))
            present |= dict(zip(unknown, more or [None] * len(unknown), strict=True))
        if carried != [present[key] for key in depends_on]:
            return none
        stale_s = ttl_ms / 1000
        return Found(stored.value, stale_s - stored.stale_ms / 1000, stale_s, stored.tags, tuple(tokens))

    async def write(
        self,
        name: Name,
        value: bytes,
        tags: tuple[str, ...],
        ttl_s: float,
        stale_s: float,
        tokens: Sequence[bytes] = (),
    ) -> None:
        """Keep a value; with the `tokens` it was loaded under only if they are all still there.

        Without tokens it is newer than what lies there, so when that cannot be replaced now it is forgotten later.
        """
        if len(value) > MAX_VALUE_BYTES:
            if not tokens:
                await self.forget(forget_key(name))
            return
        ttl_ms, stale_ms = max(1, int(ttl_s * 1000)), int(stale_s * 1000)
        body = body_of(name, value, tags, stale_ms)
        keys = [value_key(name), *token_keys(name, tags)]
        args: list[bytes | int] = [body, ttl_ms + stale_ms, new_token(), b"".join(tokens), TOKEN_TTL_MS]
        if await self._ask(lambda: self._write(keys=keys, args=args)) is None and not tokens:
            self._miss(forget_key(name))

    async def forget(self, order: Invalidation) -> None:
        """Make what `order` concerns invalid for all nodes and tell them; later, when it cannot be done now."""
        if await self._ask(lambda: self._forget([order])) is None:
            self._miss(order)

    async def _forget(self, orders: Sequence[Invalidation]) -> object:
        async with self._connected.pipeline(transaction=True) as pipe:
            for order in orders:
                pipe.delete(order.token_key())
                pipe.publish(CHANNEL, msgspec.json.encode(_Message(self._origin, order)))
            return await pipe.execute()

    def _miss(self, order: Invalidation) -> None:
        if len(self._missed) >= MISSED_LIMIT:
            self._missed.clear()
            order = FORGET_EVERYTHING
        if FORGET_EVERYTHING not in self._missed:
            self._missed[order] = None

    # ------------------------------------------------------------ the link

    @property
    def _connected(self) -> Redis:
        if self._client is None:
            raise RuntimeError("open() comes first")
        return self._client

    async def _ask(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """The answer, None when there is none in time; then the link is down."""
        if not self.is_up:
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                return await call()
        except Exception as error:
            self.errors += 1
            self._break(error)
            return None

    def _break(self, error: Exception) -> None:
        self.is_up = False
        self._reason = _reason(error)
        self._broken.set()

    async def _keep_up(self) -> None:
        """Connect and listen until something fails, say so once, try again until it works."""
        is_said = False
        while True:
            self._broken.clear()
            try:
                async with self._connected.pubsub() as pubsub:
                    await self._come_up(pubsub)
                    is_said = False
                    self._tried.set()
                    await self._listen(pubsub)
            except Exception as error:
                self._break(error)
            if not is_said:
                is_said = True
                self._changed(self._reason)
            self._tried.set()
            await asyncio.sleep(RETRY_S)

    async def _come_up(self, pubsub: PubSub) -> None:
        """Listen first, then forget what may have changed unheard, then make good what was missed."""
        async with asyncio.timeout(self._timeout_s * 2):
            await pubsub.subscribe(CHANNEL)
            while await pubsub.get_message(timeout=self._timeout_s) is None:
                pass
        self._heard(FORGET_EVERYTHING)
        while orders := tuple(self._missed):
            async with asyncio.timeout(self._timeout_s):
                await self._forget(orders)
            for order in orders:
                self._missed.pop(order, None)
        self.is_up = True
        self._changed(None)

    async def _listen(self, pubsub: PubSub) -> None:
        """Hear messages until the link breaks. Raises: what broke it."""
        breaking = asyncio.create_task(self._broken.wait(), name="cache:broken")
        hearing = asyncio.create_task(self._hear(pubsub), name="cache:hear")
        try:
            await asyncio.wait([breaking, hearing], return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                hearing.result()
        finally:
            self.is_up = False
            for task in (breaking, hearing):
                task.cancel()
            await asyncio.wait([breaking, hearing])

    async def _hear(self, pubsub: PubSub) -> None:
        while True:
            message = await pubsub.get_message(timeout=PING_S)
            if message is None:  # silence, or a connection that died without a word
                async with asyncio.timeout(self._timeout_s):
                    await pubsub.ping()
                    while (message := await pubsub.get_message(timeout=self._timeout_s)) is None:
                        pass
            if message["type"] == "message" and (order := self._order_in(message["data"])) is not None:
                self._heard(order)

    def _order_in(self, data: bytes) -> Invalidation | None:
        """What a message asks for, None for one of our own; one that cannot be read may ask for anything."""
        try:
            message = _message_decoder.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return FORGET_EVERYTHING
        return None if message.origin == self._origin else message.order


def _reason(error: BaseException) -> str:
    """Why, without an address: that may hold a password."""
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "it does not answer in time"
    number = next((part.errno for part in (error, error.__cause__) if isinstance(part, OSError) and part.errno), None)
    return os.strerror(number) if number else type(error).__name__


def _client(url: str, timeout_s: float) -> Redis:
    try:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as error:
        raise RedisDriverMissing from error
    try:
        pool = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=timeout_s)
    except ValueError as error:
        raise RedisAddressRefused from error
    # After the address was read: what this module needs is not to be changed by what stands behind its "?".
    pool.connection_kwargs |= {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": False,
    }
    return Redis.from_pool(pool)  # closes the pool with itself
