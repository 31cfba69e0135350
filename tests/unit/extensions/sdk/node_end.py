"""The node's end of a plain worker: sends frames, and hands out what comes back, by its kind."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from magmobo.extensions.sandbox.worker import Exit
from magmobo.testing.extensions import PlainWorker
from magx import wire

F = TypeVar("F")
WAIT_S = 60.0


class NodeEnd(asyncio.Protocol):
    def __init__(self, worker: PlainWorker) -> None:
        self.worker = worker
        self.came: dict[type, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)
        self._frames, self._last_id = wire.Frames(), 0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for body in self._frames.feed(data):
            frame = wire.decode_from_worker(body)
            self.came[type(frame)].put_nowait(frame)

    def send(self, frame: wire.Frame) -> None:
        self._transport.write(wire.encode(frame))

    def start(self, folder: Path, *, settings: Mapping[str, Any] | None = None, entry: str = "extension:ext") -> None:
        self.send(wire.Start(wire.PROTOCOL, "x", "1.0.0", entry, str(folder), "", settings or {}, ["database.read"]))

    def call(self, handler: str, argument: Mapping[str, Any] | None = None) -> int:
        self._last_id += 1
        self.send(wire.Call(self._last_id, handler, 1000, wire.raw(argument or {})))
        return self._last_id

    def deliver(self, subscription: str, *data: Mapping[str, Any]) -> int:
        self._last_id += 1
        items = [wire.Item(f"e{place}", "t.t", 1.5, 1, wire.raw(one)) for place, one in enumerate(data)]
        self.send(wire.Deliver(self._last_id, subscription, 1000, items))
        return self._last_id

    async def next(self, kind: type[F]) -> F:
        async with asyncio.timeout(WAIT_S):
            frame: F = await self.came[kind].get()
            return frame

    async def ask(self, handler: str, argument: Mapping[str, Any] | None = None) -> Any:
        self.call(handler, argument)
        return wire.value((await self.next(wire.Done)).result)

    async def ended(self) -> Exit:
        async with asyncio.timeout(WAIT_S):
            return await self.worker.wait()

    def hang_up(self) -> None:
        self._transport.close()

    def read_no_more(self) -> None:
        self._transport.pause_reading()

    def read_again(self) -> None:
        self._transport.resume_reading()


@asynccontextmanager
async def spawned() -> AsyncIterator[NodeEnd]:
    """A worker that has had no frame yet."""
    worker = await PlainWorker.spawn()
    try:
        _, end = await asyncio.get_running_loop().create_connection(lambda: NodeEnd(worker), sock=worker.socket)
        yield end
        end.hang_up()
    finally:
        worker.kill()
        await worker.wait()
        worker.socket.close()


@asynccontextmanager
async def serving(folder: Path, code: str, **start: Any) -> AsyncIterator[NodeEnd]:
    """A worker with this code for its extension, ready."""
    (folder / "extension.py").write_text(f"from magx import *\next = Extension()\n{code}")
    async with spawned() as end:
        end.start(folder, **start)
        await end.next(wire.Ready)
        yield end
