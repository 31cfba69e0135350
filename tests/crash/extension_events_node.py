"""`python extension_events_node.py DSN FOLDER FIRST END`: a node whose extensions hear, made to be killed.

Emits events of the node and publishes events of an extension, numbered from FIRST, until END of them or for ever, and
takes what three extensions are told. A line each in FOLDER, written before anything counts as done: `e` emitted and
`a` answered, with number and time; `n`, `p` and `c` told; `g` a gap, with its facts. Says `ready` when it serves.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import json
from tests.integration.extensions.event_support import (
    FakeWorker,
    Node,
    TestNoted,
    binding,
    installed,
    running_node,
)

from magmobo.extensions.events.errors import EventsBusy
from magx import wire

PUBLISHERS = 4
AHEAD = 3000
"""Events that may be on their way: less than would become a gap by themselves."""


class Scribe(FakeWorker):
    """A worker that writes down what it is told before it says so."""

    def __init__(self, extension: Any, file: int) -> None:
        super().__init__(extension)
        self._file = file
        self.count = 0

    async def deliver(self, subscription: str, items: Sequence[wire.Item], timeout_s: float) -> wire.Acked:
        lines = []
        for item in items:
            data = wire.value(item.data)
            if item.topic == "extension.gap":
                lines.append(f"g {subscription} {json.encode(data).decode()}\n")
            elif subscription == "rows":
                lines.append(f"c {data['record']['id']}\n")
            elif subscription == "published":
                lines.append(f"p {data['payload']}\n")
            else:
                lines.append(f"n {data['number']}\n")
        os.write(self._file, "".join(lines).encode())
        self.count += len(items)
        return wire.Acked(0)


async def emit(node: Node, scribe: Scribe, file: int, first: int, end: int) -> None:
    """Events of the node, as fast as they are taken."""
    number = first
    while number < end:
        if number - first - scribe.count < AHEAD:
            for number in range(number, number + 20):  # noqa: B020 - goes on where it is
                node.emit(TestNoted(number))
                os.write(file, f"e {number} {time.time()!r}\n".encode())
            number += 1
        await asyncio.sleep(0.001)


async def publish(node: Node, worker: FakeWorker, file: int, first: int, step: int, end: int) -> None:
    """Events of an extension; who is answered may rely on it."""
    for number in range(first, end, step):
        try:
            await node.call(worker, "events.publish", name="told.again", payload=number)
        except EventsBusy:
            continue
        os.write(file, f"a {number}\n".encode())


async def main(dsn: str, folder: Path, first: int, end: int) -> None:
    file = os.open(folder / "lines", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    async with running_node(dsn) as node:
        grants = {"database.read": {"tables": ["public.events"]}}
        hearer = Scribe(installed("hearer", binding(name="noted")), file)
        rows = Scribe(
            installed("rows", binding("database.change", "rows", tables=["public.events"]), grants=grants), file
        )
        published = Scribe(
            installed("friend", binding("extension.published", "published"), requires={"publisher": "*"}), file
        )
        publisher = FakeWorker(installed("publisher", grants={"api.emit_events": {}}))
        for worker in (hearer, rows, published):
            await node.router.attach(worker)
        print("ready", flush=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(emit(node, hearer, file, first, end))
            for number in range(PUBLISHERS):
                group.create_task(publish(node, publisher, file, first + number, PUBLISHERS, end))
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
