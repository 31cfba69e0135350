"""The state as one owner sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from magmobo.contracts.stores import StateEntry, StateWatch
from magmobo.kernel.state.database import Change, Row
from magmobo.kernel.state.values import checked_key, decoded, encoded
from magmobo.kernel.state.watch import Handler

if TYPE_CHECKING:
    from magmobo.kernel.state.manager import StateManager


class ScopedState:
    """Implements `contracts.stores.State` for `owner`; its keys and another owner's never meet."""

    def __init__(self, manager: StateManager, owner: str) -> None:
        if not owner:
            raise ValueError("a scope belongs to somebody")
        self._manager, self._owner = manager, owner

    async def get(self, key: str) -> StateEntry | None:
        checked_key(key)
        row = await self._manager.read(lambda database: database.get(self._owner, key))
        return None if row is None else entry_of(row)

    async def entries(self, prefix: str = "") -> Sequence[StateEntry]:
        if prefix:
            checked_key(prefix)
        rows = await self._manager.read(lambda database: database.entries(self._owner, prefix))
        return [entry for row in rows if (entry := entry_of(row)) is not None]

    async def put(self, key: str, value: Any, *, expected_version: int | None = None) -> StateEntry:
        [entry] = await self._put({key: value}, expected_version)
        return entry

    async def put_all(self, values: Mapping[str, Any]) -> Sequence[StateEntry]:
        return await self._put(values, None)

    async def delete(self, key: str, *, expected_version: int | None = None) -> bool:
        [row] = await self._manager.change(Change(self._owner, {checked_key(key): None}, expected_version))
        return row.version > 0

    def watch(self, prefix: str, handler: Handler) -> StateWatch:
        return self._manager.watch(self._owner, prefix, handler)

    async def _put(self, values: Mapping[str, Any], expected_version: int | None) -> Sequence[StateEntry]:
        # Encoded before anything is awaited: what the caller does to the value afterwards is not written.
        texts = {checked_key(key): encoded(key, value) for key, value in values.items()}
        rows = await self._manager.change(Change(self._owner, texts, expected_version)) if texts else ()
        return [entry for row in rows if (entry := entry_of(row)) is not None]


def entry_of(row: Row) -> StateEntry | None:
    """The entry as callers see it, None when it was removed."""
    return None if row.value is None else StateEntry(row.key, decoded(row.value), row.version)
