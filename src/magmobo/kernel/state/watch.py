"""Who hears of changes. Called on the loop only, after the change is durable."""

from __future__ import annotations

from collections.abc import Callable

from magmobo.contracts.stores import StateEntry

Handler = Callable[[StateEntry | None, str], None]
FailureReport = Callable[[str, str, BaseException], None]
"""Told about a watcher that raised: owner, key, error."""


class Watcher:
    """Implements `contracts.stores.StateWatch`."""

    def __init__(self, watchers: Watchers, owner: str, prefix: str, handler: Handler) -> None:
        self._watchers = watchers
        self.owner, self.prefix, self.handler = owner, prefix, handler
        self.active = True

    def cancel(self) -> None:
        self.active = False
        self._watchers.remove(self)


class Watchers:
    """All watchers of a node, by owner, each owner's in the order in which they began."""

    def __init__(self, on_failure: FailureReport) -> None:
        self._by_owner: dict[str, list[Watcher]] = {}
        self._on_failure = on_failure

    def add(self, owner: str, prefix: str, handler: Handler) -> Watcher:
        """Begin to tell `handler`."""
        watcher = Watcher(self, owner, prefix, handler)
        self._by_owner.setdefault(owner, []).append(watcher)
        return watcher

    def remove(self, watcher: Watcher) -> None:
        """Also when it is no longer there."""
        mine = self._by_owner.get(watcher.owner, [])
        if watcher in mine:
            mine.remove(watcher)
        if not mine:
            self._by_owner.pop(watcher.owner, None)

    def close_owner(self, owner: str) -> None:
        """End every watcher of `owner`."""
        for watcher in self._by_owner.pop(owner, []):
            watcher.active = False

    def tell(self, owner: str, key: str, entry: Callable[[], StateEntry | None]) -> None:
        """Call those whom this change concerns. One that raises is reported, the others are still called.

        Each gets an entry of its own, so that none can change what another sees.
        """
        for watcher in tuple(self._by_owner.get(owner, ())):
            if watcher.active and key.startswith(watcher.prefix):
                try:
                    watcher.handler(entry(), key)
                except Exception as error:
                    self._on_failure(owner, key, error)

    def count(self, owner: str) -> int:
        """How many watchers `owner` has."""
        return len(self._by_owner.get(owner, ()))
