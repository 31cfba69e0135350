"""A real node with third-party components, and what an operator sees of its settings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from tests.integration.node.harness import ROOT
from tests.system.settings_parts import HERE

from magmobo.admin.client import AdminClient
from magmobo.admin.data_folder import DataFolder
from magmobo.testing.node import NodeProcess, running_node, start_node

WATCHED = "[kernel]\nwatch_interval_s = 0.02\n"
READER = "settings_reader"
"""A role for requests, with which `events_dsn` may be read."""
UNWATCHED = "[kernel]\nwatch_files = false\n"


def variables(*components: str, **more: str) -> Mapping[str, str]:
    """The environment of a node with these components: ours by name, those of `settings_parts` by class."""
    names = [name if name.islower() else f"{HERE}:{name}" for name in components]
    return {"PYTHONPATH": str(ROOT), "MAG_KERNEL__COMPONENTS": ",".join(names), **more}


def node_with(data_dir: Path, *components: str, **more: str) -> AbstractAsyncContextManager[NodeProcess]:
    """A node for the length of a block, without a port of its own choice unless it has a listener."""
    return running_node(data_dir, environment=variables(*components, **more), port=_port(components))


async def started(data_dir: Path, *components: str, arguments: tuple[str, ...] = (), **more: str) -> NodeProcess:
    """The same, to be killed."""
    return await start_node(
        data_dir, *arguments, environment=variables(*components, **more), port=_port(components), timeout_s=30
    )


def _port(components: tuple[str, ...]) -> int | None:
    return 0 if "listener" in components else None


def say(data_dir: Path, text: str) -> None:
    """Give the project this `mag.toml`, as an editor does: another file in the place of the old one."""
    file = data_dir.parent / "mag.toml"
    fresh = file.with_name("fresh")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)


class Operator:
    """Asks the node of one data folder. `events` reads what was not read before, of events about settings."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._client = AdminClient(DataFolder(data_dir), timeout_s=30)
        self._cursor = 0

    async def ask(self, command: str, *, dry_run: bool = False, **params: Any) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.ask, command, params, dry_run=dry_run, wait_s=20)

    async def next_event(self) -> dict[str, Any]:
        """The next event about settings; its data, with its topic's last word as `event`."""
        page = await self.ask("kernel:events", after=self._cursor, limit=1, pattern="config.**", wait_s=20)
        assert page["events"], "nothing happened"
        self._cursor = page["cursor"]
        (event,) = page["events"]
        return {"event": event["type"].split(".")[-2], **event["data"]}

    async def entry(self, key: str) -> dict[str, Any]:
        (found,) = (await self.ask("config:show", prefix=key))["entries"]
        return dict(found)

    async def value(self, key: str) -> Any:
        return (await self.entry(key))["value"]

    async def until_value(self, key: str, value: Any) -> None:
        async with asyncio.timeout(20):
            while await self.value(key) != value:
                await asyncio.sleep(0.01)

    async def records(self, action: str) -> list[dict[str, Any]]:
        """What was put on record about it, oldest first."""
        page = await self.ask("audit:tail", limit=1000)
        return [record for record in page["records"] if record["action"] == action]

    async def until_record(self, action: str, count: int = 1) -> list[dict[str, Any]]:
        async with asyncio.timeout(20):
            while len(found := await self.records(action)) < count:
                await asyncio.sleep(0.01)
        return found

    def logged(self, text: str) -> list[dict[str, Any]]:
        """The lines of the log that say this."""
        lines = (self._data_dir / "logs" / "mag.jsonl").read_text(encoding="utf-8").splitlines()
        return [line for line in map(json.loads, lines) if line["event"] == text]
