"""Boot a throw-away node, read a row, receive a committed change, stop: `make smoke`. Exit 0 when all of it worked."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from websockets.asyncio.client import connect

from magmobo.testing.node import disposable_system_dir, running_node

CHANNEL = "db.public.departures"


async def first_change(url: str) -> dict[str, object]:
    """The first change of the replayed departures, as any Pusher client would get it."""
    async with connect(f"{url}?protocol=7") as socket, asyncio.timeout(30):
        await socket.send(json.dumps({"event": "pusher:subscribe", "data": {"channel": CHANNEL}}))
        async for text in socket:
            frame = json.loads(text)
            if frame.get("channel") == CHANNEL and frame["event"] == "insert":
                record: dict[str, object] = json.loads(frame["data"])["record"]
                return record
    raise RuntimeError("the connection ended before a change came")


def first_row(url: str) -> dict[str, object]:
    """The most delayed flight to Seattle."""
    query = "flights?select=carrier,flight,dep_delay&dest=eq.SEA&order=dep_delay.desc.nullslast&limit=1"
    with urllib.request.urlopen(f"{url}{query}", timeout=30) as answer:  # our own node on loopback
        rows: list[dict[str, object]] = json.load(answer)
        return rows[0]


async def main() -> None:
    """Print one line a step."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mag-smoke-") as folder, disposable_system_dir():
        async with running_node(Path(folder) / "data", "--demo", "flights", "--speed", "3600") as node:
            print(f"ready     {time.monotonic() - started:5.1f} s  {node.base_url}")
            print(f"row       {await asyncio.to_thread(first_row, node.status.urls['rest'])}")
            change = await first_change(node.status.urls["realtime"])
            print(f"change    {change['carrier']}{change['flight']} to {change['dest']}")
        print(f"stopped   exit {node.process.returncode}")
    sys.exit(node.process.returncode or 0)


if __name__ == "__main__":
    asyncio.run(main())
