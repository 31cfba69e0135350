"""Stock pusher-js in node, driven from a test. Installs the pinned packages of clients/js when they are missing."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import json
from tests.integration.magws.support import KEY, SECRET, Node

from magmobo.components.magws import signing
from magmobo.contracts.secret import Secret

ROOT = Path(__file__).parents[3]
JS = ROOT / "clients" / "js"
DEADLINE_S = 60.0


def installed() -> Path:
    """The folder of the JavaScript client with its pinned packages in place."""
    wanted = json.decode((JS / "package-lock.json").read_bytes())["packages"]["node_modules/pusher-js"]["version"]
    package = JS / "node_modules" / "pusher-js" / "package.json"
    with (JS / ".install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not package.exists() or json.decode(package.read_bytes())["version"] != wanted:
            assert shutil.which("npm"), "node and npm are needed here: run `make tools`"
            subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=JS, check=True, timeout=120)
    return JS


class NodeClient:
    """The driver's stdin and stdout as calls and a list of lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[dict[str, Any]] = []
        self._arrived = asyncio.Event()
        self._reader = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.lines.append(json.decode(line))
            self._arrived.set()

    async def do(self, command: str, **values: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.encode({"do": command} | values) + b"\n")
        await self._process.stdin.drain()

    async def until(self, condition: Callable[[dict[str, Any]], Any], count: int = 1) -> list[dict[str, Any]]:
        """Wait until `count` lines meet the condition; return those."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while len(found := [line for line in self.lines if condition(line)]) < count:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise AssertionError(f"not within {DEADLINE_S} s; lines: {self.lines}") from None
        return found

    async def subscribe(self, channel: str) -> None:
        await self.do("subscribe", channel=channel)
        if channel.startswith("private-"):
            await self.authorise(channel)
        await self.until(
            lambda line: line.get("event") == "pusher:subscription_succeeded" and line["channel"] == channel
        )

    async def authorise(self, channel: str, times: int = 1) -> None:
        """Answer the library's `times`-th question for a signature, as the application's server would."""
        asked = await self.until(lambda line: line.get("authorise") == channel, times)
        auth = signing.channel_auth(KEY, Secret(SECRET), asked[-1]["socket_id"], channel)
        await self.do("auth", channel=channel, auth=auth)

    def records(self, channel: str) -> list[int]:
        """Rows the application saw on a channel, in order."""
        return [
            line["data"]["record"]["id"]
            for line in self.lines
            if line.get("channel") == channel and line["event"] == "insert"
        ]

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(DEADLINE_S):
            await self._process.wait()
            await self._reader


@asynccontextmanager
async def pusher_js(node: Node, *, plain: bool = False, key: str = KEY) -> AsyncIterator[NodeClient]:
    """A client of its own process; connected when the block begins, if the server lets it."""
    await asyncio.to_thread(installed)
    driver = Path(__file__).with_name("driver.cjs")
    arguments = [str(driver), key, str(node.port), "plain" if plain else "resume"]
    process = await asyncio.create_subprocess_exec(
        "node", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    client = NodeClient(process)
    try:
        await client.until(lambda line: line.get("state") in ("connected", "disconnected"))
        yield client
    finally:
        await client.end()
