"""A node with storage, port and realtime over a real Postgres, and a client that speaks Pusher through `websockets`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
from msgspec import json
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from magmobo.components.listener.component import ListenerComponent
from magmobo.components.magds.component import MagDS
from magmobo.components.magws import signing
from magmobo.components.magws.component import MagWS
from magmobo.contracts.component import Announcement
from magmobo.contracts.secret import Secret
from magmobo.kernel.kernel import Kernel
from magmobo.testing.harness import running_kernel

KEY, SECRET, APP_ID = "app-key", "app-secret", "42"
DEADLINE_S = 60.0


class Node:
    """Where the running node is."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        announced = kernel.status().urls
        self.url = announced["realtime"]
        self.http = announced["http"]
        self.port = int(self.http.rsplit(":", 1)[1])
        component = kernel.assembly.board.slot("magws").component
        assert isinstance(component, MagWS)
        self.component = component


@asynccontextmanager
async def running_node(dsn: str, *tables: str | dict[str, str], **magws: Any) -> AsyncIterator[Node]:
    entries = [entry if isinstance(entry, dict) else {"table": entry, "access": "public"} for entry in tables]
    config = {
        "listener": {"port": 0},
        "magds": {"dsn": dsn},
        "magws": {"apps": [{"id": APP_ID, "key": KEY, "secret": SECRET, "client_events": True}], "tables": entries}
        | magws,
    }
    async with running_kernel(ListenerComponent, MagDS, MagWS, config=config) as kernel:
        yield Node(kernel)


class Client:
    """A Pusher client that keeps every message in order."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.messages: list[dict[str, Any]] = []
        self._read = 0
        self._arrived = asyncio.Event()
        self.close_code: int | None = None
        self._reader = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        try:
            async for text in self._socket:
                message = json.decode(text)
                if isinstance(message.get("data"), str):
                    with suppress(ValueError, RecursionError):  # a row may hold json that no decoder of ours reads
                        message["data"] = json.decode(message["data"])
                self.messages.append(message)
                self._arrived.set()
        except ConnectionClosed:
            pass
        self.close_code = self._socket.close_code
        self._arrived.set()

    @property
    def socket_id(self) -> str:
        return str(self.messages[0]["data"]["socket_id"])

    async def send(self, event: str, data: Any = None, channel: str | None = None) -> None:
        await self._socket.send(json.encode({"event": event, "data": data, "channel": channel}).decode())

    async def send_raw(self, text: str) -> None:
        await self._socket.send(text)

    async def subscribe(self, channel: str) -> None:
        auth = signing.channel_auth(KEY, Secret(SECRET), self.socket_id, channel)
        await self.send("pusher:subscribe", {"channel": channel, "auth": auth})
        await self.until("pusher_internal:subscription_succeeded")

    async def until(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Messages since the last call, up to and with the `count`-th of this event."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                taken, left = [], count
                for message in self.messages[self._read :]:
                    taken.append(message)
                    left -= message["event"] == event
                    if left == 0:
                        self._read += len(taken)
                        return taken
                assert self.close_code is None, f"closed with {self.close_code} before {event}: {taken}"
                self._arrived.clear()
                await self._arrived.wait()

    async def closed(self) -> int | None:
        async with asyncio.timeout(DEADLINE_S):
            await self._reader
        return self.close_code

    async def leave(self) -> None:
        if self.close_code is None:
            await self._socket.close()
        await self._reader


@asynccontextmanager
async def connected(url: str, *, protocol: str = "7") -> AsyncIterator[Client]:
    async with connect(f"{url}?protocol={protocol}&client=test", max_size=None) as socket:
        client = Client(socket)
        try:
            await client.until("pusher:connection_established")
            yield client
        finally:
            await client.leave()


def execute(dsn: str, *statements: str) -> None:
    """Run statements as another client would, each in its own transaction."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def announcement(node: Node) -> Announcement:
    status = node.kernel.status()
    return Announcement(status.urls, status.examples, status.notices)


def ids(messages: Iterable[dict[str, Any]]) -> list[int]:
    return [m["data"]["record"]["id"] for m in messages if m["event"] in ("insert", "update")]


def events(messages: Iterable[dict[str, Any]]) -> list[str]:
    return [message["event"] for message in messages]
