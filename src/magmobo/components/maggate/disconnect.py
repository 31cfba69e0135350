"""Stops the work of a request whose client has left.

A slow statement is not worth finishing for nobody. Most requests end sooner than a watcher would cost, so one timer for
all requests looks 20 times a second for those that were there already the last time, and only these get a watcher.
Boundary: ASGI's `receive`; the body must have been read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from magmobo.contracts.planes import Message

SWEEP_EVERY_S = 0.05


class ClientGone(Exception):
    """The client closed the connection; there is nobody to answer."""


class Departures:
    """Knows the requests under way; `watching` is for the length of one request's work."""

    def __init__(self) -> None:
        self._watches: set[_Watch] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watching(self, receive: Callable[[], Awaitable[Message]]) -> _Watch:
        """`async with` it around the work: when the client leaves, the work is cancelled and ClientGone is raised."""
        return _Watch(self, receive)

    def add(self, watch: _Watch) -> None:
        self._watches.add(watch)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_EVERY_S, self._sweep)

    def discard(self, watch: _Watch) -> None:
        self._watches.discard(watch)

    def _sweep(self) -> None:
        """Runs while there are requests, and once more."""
        self._timer = None
        for watch in self._watches:
            watch.grow_older()
        if self._watches:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_EVERY_S, self._sweep)


class _Watch:
    """One request under way."""

    __slots__ = ("_departures", "_left", "_old", "_receive", "_task", "_watcher")

    def __init__(self, departures: Departures, receive: Callable[[], Awaitable[Message]]) -> None:
        self._departures, self._receive = departures, receive
        self._task: asyncio.Task[object] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._old = self._left = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        self._departures.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._departures.discard(self)
        task, self._task = self._task, None
        if self._watcher is not None:
            self._watcher.cancel()
        # Somebody else may have cancelled the task, too: then the cancellation is theirs and goes on.
        if self._left and task is not None and task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ClientGone from None

    def grow_older(self) -> None:
        """Begin to watch at the second call."""
        if self._old and self._watcher is None:
            self._watcher = asyncio.get_running_loop().create_task(self._watch(), name="maggate disconnect watch")
        self._old = True

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._task is not None:
            self._left = True
            self._task.cancel()
