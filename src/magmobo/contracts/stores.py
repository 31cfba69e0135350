"""What a component can keep: durable state and a cache. Both are scoped to the component they are given to.

Promise of State: what a write returned for survives a crash and a power cut. Promise of Cache: bounded in bytes, never
the only copy of anything, and one tenant's entry is never another's. Source: CONTRACTS section 11.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct


class StateEntry(Struct, frozen=True):
    """A value (whatever JSON can say) and its version.

    The version grows by one with every write of its key. A new key begins at 1, or above every version that a removed
    key of the same owner had: a version never means two values, also not after a removal.
    """

    key: str
    value: Any
    version: int


class StateWatch(Protocol):
    """One watcher of state."""

    def cancel(self) -> None:
        """Hear no more; calling it twice is fine."""
        ...


class State(Protocol):
    """Durable keys and values of one owner. Keys are 1 to 200 characters; a value is at most 1 MiB as JSON.

    A call that is cancelled while it waits may still take effect. Errors are those of `contracts.errors`.
    """

    async def get(self, key: str) -> StateEntry | None:
        """The entry, None when there is none. Raises: StateUnavailable."""
        ...

    async def entries(self, prefix: str = "") -> Sequence[StateEntry]:
        """Every entry whose key starts with `prefix`, by key. Raises: StateUnavailable."""
        ...

    async def put(self, key: str, value: Any, *, expected_version: int | None = None) -> StateEntry:
        """Write; durable when this returns. `expected_version` 0 means that the key must not exist.

        Raises: VersionConflict, and then nothing changed; StateUnavailable; StateValueRefused.
        """
        ...

    async def put_all(self, values: Mapping[str, Any]) -> Sequence[StateEntry]:
        """Write several keys, all or none. Raises: as `put`."""
        ...

    async def delete(self, key: str, *, expected_version: int | None = None) -> bool:
        """Remove; whether there was something. Raises: VersionConflict, StateUnavailable."""
        ...

    def watch(self, prefix: str, handler: Callable[[StateEntry | None, str], None]) -> StateWatch:
        """Call `handler(entry or None when removed, key)` on the loop after each durable change of a key that starts
        with `prefix`, in the order of the changes, and before the call that made the change returns.
        """
        ...


class Cache(Protocol):
    """Bytes by tenant and key, in memory and, where configured, in Redis behind it.

    `tenant` is part of every key by construction; `""` is data that belongs to all.
    """

    async def get(self, key: str, *, tenant: str) -> bytes | None:
        """The value unless it is missing or expired. Never raises for a broken layer."""
        ...

    async def put(
        self, key: str, value: bytes, *, tenant: str, ttl_s: float, stale_s: float = 0.0, tags: Sequence[str] = ()
    ) -> None:
        """Keep `value` for `ttl_s`, and for `stale_s` longer as something to show while it is loaded anew."""
        ...

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
        """The value, loaded once however many ask at the same time. Within `stale_s` after its end the old value is
        given at once while one load runs behind.

        Raises: what `load` raises, to all who wait; nothing is kept then.
        """
        ...

    async def invalidate(self, key: str, *, tenant: str) -> None:
        """Forget one key, on every node."""
        ...

    async def invalidate_tag(self, tag: str, *, tenant: str | None = None) -> None:
        """Forget everything put under `tag`, of one tenant or of all, on every node."""
        ...
