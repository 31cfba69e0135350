"""The server of the fan-out benchmark, in a process of its own: `python -m benchmarks.fanout_server product|bare`.

Takes commands on stdin, one a line: `send` sends the frame to everybody, `stats` prints a JSON line. `product` is the
listener with the smallest session that can be written; `bare` is a loop over transports, with no HTTP, no WebSocket
and no checks: what cannot be beaten without another way of sending.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, cast

import structlog
import uvloop

from magmobo.components.listener.component import ListenerComponent
from magmobo.components.listener.config import ListenerConfig
from magmobo.contracts.component import Context
from magmobo.contracts.websocket import Upgrade, WebSocketConnection, text_frame

# What a Pusher client is sent for one changed row.
FRAME = text_frame(
    b'{"event":"insert","channel":"private-db.public.flights","data":"{\\"op\\":\\"insert\\",\\"record\\":'
    b'{\\"id\\":336777,\\"carrier\\":\\"UA\\",\\"flight\\":1545,\\"origin\\":\\"EWR\\",\\"dest\\":\\"IAH\\",'
    b'\\"dep_delay\\":2},\\"serial\\":\\"00000000019e4f38.00000001\\"}"}'
)
PAGE_BYTES = resource.getpagesize()


class Broadcast:
    """A session that only listens."""

    everybody: ClassVar[set[WebSocketConnection]] = set()

    def __init__(self, upgrade: Upgrade) -> None:
        self._connection: WebSocketConnection | None = None

    def on_open(self, connection: WebSocketConnection) -> None:
        self._connection = connection
        self.everybody.add(connection)

    def on_text(self, payload: bytes) -> None: ...

    def on_close(self, code: int) -> None:
        if self._connection is not None:
            self.everybody.discard(self._connection)

    def on_server_shutdown(self) -> None: ...


class Bare(asyncio.Protocol):
    """A transport to write to."""

    everybody: ClassVar[set[asyncio.Transport]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.everybody.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.everybody.discard(self._transport)


class BareContext:
    """As much of a `Context` as the listener uses."""

    component, instance_id, environment = "listener", "benchmark", "benchmark"
    log = structlog.get_logger()


async def product() -> tuple[int, Callable[[], None], Callable[[], int]]:
    listener = ListenerComponent(cast(Context, BareContext()), None)
    listener.configure(ListenerConfig(port=0))
    await listener.boot()
    listener.mount_websocket("/app/", Broadcast)
    await listener.start()

    def send() -> None:
        for connection in Broadcast.everybody:
            connection.send_frames(FRAME)

    return listener.address[1], send, lambda: len(Broadcast.everybody)


async def bare() -> tuple[int, Callable[[], None], Callable[[], int]]:
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", 0, backlog=2_048)

    def send() -> None:
        for transport in Bare.everybody:
            transport.write(FRAME)

    return server.sockets[0].getsockname()[1], send, lambda: len(Bare.everybody)


async def serve(kind: str) -> None:
    """Print the port, then obey until stdin ends."""
    port, send, count = await {"product": product, "bare": bare}[kind]()
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    print(port, flush=True)
    while command := await commands.readline():
        if command == b"send\n":
            send()
        else:
            print(json.dumps(stats() | {"connections": count()}), flush=True)


def stats() -> dict[str, float]:
    """CPU time and memory of this process so far."""
    gc.collect()
    resident_bytes = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES
    return {"cpu_s": time.process_time(), "resident_bytes": resident_bytes}


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
