"""A real Redis, as the tests of the cache have it."""

from __future__ import annotations

from tests.integration.cache.conftest import node, redis, redis_of_session

__all__ = ["node", "redis", "redis_of_session"]
