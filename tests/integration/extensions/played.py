"""A worker that a test plays: it holds the worker's end of the socket and writes whatever bytes it likes."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from magmobo.extensions.sandbox.worker import Usage
from magmobo.extensions.workers.process import Ended
from magx import wire


class Played:
    """Implements `workers.process.Process`. `hold()` takes everything that the node sends apart into frames."""

    def __init__(self) -> None:
        self.socket, self.peer = socket.socketpair()
        self.socket.setblocking(False)
        self.peer.setblocking(False)
        self.pid = self.peer.fileno()
        self.exit: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._frames = wire.Frames()
        self._come: list[wire.FromNode] = []

    async def wait(self) -> Ended:
        return await asyncio.shield(self.exit)

    def kill(self) -> None:
        self.end(Ended("", None, 9))

    def end(self, exit: Ended) -> None:
        if not self.exit.done():
            self.exit.set_result(exit)
            self.peer.close()

    def usage(self) -> Usage:
        return Usage()

    # ------------------------------------------------------------ what the worker does

    async def write(self, data: bytes) -> None:
        """Raises: OSError when the node has cut the link."""
        await asyncio.get_running_loop().sock_sendall(self.peer, data)

    async def send(self, *frames: wire.Frame) -> None:
        await self.write(b"".join(map(wire.encode, frames)))

    async def next(self, kind: type[Any] | None = None) -> Any:
        """The next frame of the node, of this kind. Raises: EOFError."""
        async with asyncio.timeout(30):
            while True:
                while not self._come:
                    data = await asyncio.get_running_loop().sock_recv(self.peer, 65_536)
                    if not data:
                        raise EOFError
                    self._come += [wire.decode_from_node(body) for body in self._frames.feed(data)]
                frame = self._come.pop(0)
                if kind is None or isinstance(frame, kind):
                    return frame

    async def greet(self, *handlers: str) -> None:
        await self.next(wire.Start)
        await self.send(wire.Ready(wire.PROTOCOL, handlers))
