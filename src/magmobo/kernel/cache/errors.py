"""What keeps the cache from opening, and what it says while it works with less than it was given."""

from __future__ import annotations

from magmobo.contracts.errors import ConfigError, MagError


class RedisGone(MagError):
    """The Redis server of the cache does not answer; the memory of this node alone serves meanwhile.

    What other nodes invalidate is not heard until it is back; then the memory is emptied and Redis is used again.
    """

    code = "MAG-CACHE-001"
    http_status = 503
    retryable = True
    remedy = "Start Redis, or correct cache.redis_url; the node tries again by itself."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the cache works in memory alone, Redis does not serve it: {self.reason}"


class RedisDriverMissing(ConfigError):
    """cache.redis_url is set, and the package that speaks to Redis is not installed."""

    code = "MAG-CACHE-002"
    remedy = "Install it with `pip install 'magmobo[redis]'`, or unset cache.redis_url."

    def __init__(self) -> None:
        super().__init__(["cache.redis_url is set, but the package `redis` is not installed"])
        self.args = ()


class RedisAddressRefused(ConfigError):
    """cache.redis_url is not the address of a Redis server. The address is not shown, it may hold a password."""

    code = "MAG-CACHE-003"
    remedy = "Write it as redis://user:password@host:6379/0, rediss:// for TLS, unix:///path for a socket."

    def __init__(self) -> None:
        super().__init__(["cache.redis_url is not an address of a Redis server"])
        self.args = ()


class CacheClosed(MagError):
    """The cache was closed, or its owner stopped, while a value was being loaded."""

    code = "MAG-CACHE-004"
    http_status = 503
    retryable = True
    remedy = "Try again in a moment."

    def __str__(self) -> str:
        return "the value was not loaded, because the component or the node is stopping"
