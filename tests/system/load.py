"""Clients at work: WebSockets that listen to a table, REST readers over kept connections and over new ones."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.crash.support import CHANNEL, TABLE
from websockets.asyncio.client import ClientConnection, connect

READERS = 6
CONFIG = """
[[magws.tables]]
table = "public.events"
access = "public"

[maggate]
anonymous_role = "reader"

[listener]
keep_alive_s = 5
"""
SET_UP = f"""
{TABLE};
create role reader;
grant usage on schema public to reader;
grant select on all tables in schema public to reader
"""


class Listeners:
    """WebSocket clients of one table; each keeps the ids it saw, and how often it was dropped."""

    def __init__(self, url: str, clients: int) -> None:
        self._url, self._clients = url, clients
        self.seen: list[list[int]] = [[] for _ in range(clients)]
        self.drops, self.gaps = 0, 0
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect and subscribe all."""
        sockets = []
        for index in range(self._clients):
            sockets.append(await self._subscribed())
            self._tasks.append(asyncio.create_task(self._listen(sockets[-1], self.seen[index])))

    async def _subscribed(self) -> ClientConnection:
        socket = await connect(f"{self._url}?protocol=7", max_queue=None, ping_interval=None)
        await socket.send(json.dumps({"event": "pusher:subscribe", "data": {"channel": CHANNEL}}))
        while json.loads(await socket.recv())["event"] != "pusher_internal:subscription_succeeded":
            pass
        return socket

    async def _listen(self, socket: ClientConnection, seen: list[int]) -> None:
        with suppress(Exception):
            async for frame in socket:
                message = json.loads(frame)
                if message["event"] == "insert":
                    seen.append(json.loads(message["data"])["record"]["id"])
                elif message["event"] == "mag:gap":
                    self.gaps += 1
        self.drops += 1

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Readers:
    """REST clients; half keep their connection, half make a new one for each request. `answers` counts by outcome."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answers: Counter[str] = Counter()
        self._tasks = [asyncio.create_task(self._read(keeps=index % 2 == 0)) for index in range(READERS)]

    async def _read(self, *, keeps: bool) -> None:
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        while True:
            if reader is None or writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                status, is_last = await self._ask(reader, writer)
                self.answers[str(status)] += 1
            except (OSError, EOFError, ValueError) as error:
                self.answers[type(error).__name__] += 1
                is_last = True
            if is_last or not keeps:
                writer.close()
                reader = writer = None

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, bool]:
        writer.write(b"GET /rest/v1/events?select=id&order=id.desc&limit=1 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        await reader.readexactly(int(headers["content-length"]))
        return int(head.split()[1]), headers.get("connection") == "close"

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def dsn_of(data_dir: Path) -> str:
    return subprocess.run(
        [sys.executable, "-m", "magmobo.cli.main", "magds:dsn", "--data-dir", str(data_dir)],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)
