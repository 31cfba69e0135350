"""Stops the work of a request whose client has left.

A slow statement is not worth finishing for nobody. Most requests end sooner than a watcher would cost, so watching
begins after a moment. Boundary: ASGI's `receive`; the body must have been read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from magmobo.contracts.planes import Message

WATCH_AFTER_S = 0.05


class ClientGone(Exception):
    """The client closed the connection; there is nobody to answer."""


class DisconnectWatch:
    """`async with` it around the work: when the client leaves, the work is cancelled and ClientGone is raised."""

    def __init__(self, receive: Callable[[], Awaitable[Message]]) -> None:
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None
        self._left = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("DisconnectWatch works inside a task")
        self._task = task
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._begin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        # Somebody else may have cancelled the task, too: then the cancellation is theirs and goes on.
        if self._left and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ClientGone from None

    def _begin(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch(), name="maggate disconnect watch")

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        self._task.cancel()
