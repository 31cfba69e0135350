"""The last things that happened, bounded by their number and by their bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from msgspec import Raw, Struct

T = TypeVar("T")
_OVERHEAD_BYTES = 200  # an envelope and its event without their text


class Ring(Generic[T]):
    """Keeps the newest items. One that alone is larger than `limit_bytes` is not kept."""

    def __init__(self, *, limit: int, limit_bytes: int) -> None:
        self._limit, self._limit_bytes = limit, limit_bytes
        self._items: deque[tuple[T, int]] = deque()
        self.size_bytes = 0

    def append(self, item: T, size_bytes: int) -> None:
        """Add the newest and forget as many of the oldest as the bounds demand."""
        if size_bytes > self._limit_bytes or not self._limit:
            return
        items = self._items
        while items and (len(items) >= self._limit or self.size_bytes + size_bytes > self._limit_bytes):
            self.size_bytes -= items.popleft()[1]
        items.append((item, size_bytes))
        self.size_bytes += size_bytes

    def resize(self, limit: int) -> None:
        """Keep at most so many items from now on; the oldest beyond that go at once."""
        self._limit = limit
        while len(self._items) > limit:
            self.size_bytes -= self._items.popleft()[1]

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()
        self.size_bytes = 0

    def __iter__(self) -> Iterator[T]:
        """Oldest first."""
        return (item for item, _ in self._items)

    def __len__(self) -> int:
        return len(self._items)


def size_of(event: Struct) -> int:
    """About how many bytes keeping `event` costs."""
    size_bytes = _OVERHEAD_BYTES
    for name in event.__struct_fields__:
        value = getattr(event, name)
        size_bytes += value.__sizeof__() if type(value) is str else _size(value)
    return size_bytes


def _size(value: Any) -> int:
    if isinstance(value, str | bytes):
        return value.__sizeof__()
    if isinstance(value, Raw):
        return memoryview(value).nbytes
    if isinstance(value, Mapping):
        return sum(_size(key) + _size(item) for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return sum(_size(item) for item in value)
    if isinstance(value, Struct):
        return size_of(value)
    return 32
