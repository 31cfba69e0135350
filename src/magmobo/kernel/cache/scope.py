"""The cache as one owner sees it: what callers pass is checked here, and the owner becomes part of every name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from magmobo.kernel.cache.keys import Name
from magmobo.kernel.cache.tags import forget_key, forget_tag

if TYPE_CHECKING:
    from magmobo.kernel.cache.manager import CacheManager

MAX_TAGS = 100
LONGEST_S = 3_650 * 86_400.0


class Terms(Struct, frozen=True):
    """How long a value is fresh, how long it may be shown after that, and what it can be forgotten by."""

    ttl_s: float
    stale_s: float
    tags: tuple[str, ...]


class ScopedCache:
    """Implements `contracts.stores.Cache` for `owner`.

    Raises (from `put` and `get_or_load`): ValueError for times that are not positive or above 10 years, or more than
    100 tags; TypeError for a value that is not bytes.
    """

    def __init__(self, manager: CacheManager, owner: str) -> None:
        if not owner:
            raise ValueError("a scope belongs to somebody")
        self._manager, self._owner = manager, owner

    async def get(self, key: str, *, tenant: str) -> bytes | None:
        return await self._manager.get(Name(self._owner, tenant, key))

    async def put(
        self, key: str, value: bytes, *, tenant: str, ttl_s: float, stale_s: float = 0.0, tags: Sequence[str] = ()
    ) -> None:
        await self._manager.put(Name(self._owner, tenant, key), checked(value), _terms(ttl_s, stale_s, tags))

    async def get_or_load(
        self,
        key: str,
        load: Callable[[], Awaitable[bytes]],
        *,
        tenant: str,
        ttl_s: float,
        stale_s: float = 0.0,
        tags: Sequence[str] = (),
    ) -> bytes:
        return await self._manager.get_or_load(Name(self._owner, tenant, key), load, _terms(ttl_s, stale_s, tags))

    async def invalidate(self, key: str, *, tenant: str) -> None:
        await self._manager.forget(forget_key(Name(self._owner, tenant, key)))

    async def invalidate_tag(self, tag: str, *, tenant: str | None = None) -> None:
        await self._manager.forget(forget_tag(self._owner, tag, tenant))


def checked(value: object) -> bytes:
    """Raises: TypeError."""
    if type(value) is not bytes:  # a bytearray could change under us
        raise TypeError(f"the cache keeps bytes, not {type(value).__name__}")
    return value


def _terms(ttl_s: float, stale_s: float, tags: Sequence[str]) -> Terms:
    if not (0 < ttl_s <= LONGEST_S and 0 <= stale_s <= LONGEST_S):  # false for NaN too
        raise ValueError(
            f"ttl_s = {ttl_s!r} must be above 0, stale_s = {stale_s!r} not below, and neither above 10 years"
        )
    if isinstance(tags, str) or len(tags) > MAX_TAGS:
        raise ValueError(f"tags are a list of at most {MAX_TAGS}")
    return Terms(ttl_s, stale_s, tuple(dict.fromkeys(tags)))
