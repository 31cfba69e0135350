"""Writes the time into a file every few seconds, for a watchdog outside of the node that looks at the file's age.

A beat that cannot be written is a failure of the component: it is restarted a few times, then quarantined, and the node
says `degraded`; the rest of the node goes on.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from magmobo.contracts.commands import Call, Command
from magmobo.contracts.component import Announcement, Component, Context
from magmobo.contracts.events import Event


class HeartbeatConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [heartbeat]."""

    path: Annotated[Path, Meta(description="file that is written; relative to the data folder")] = Path("heartbeat")
    every_s: Annotated[float, Meta(ge=0.01, le=3600, description="pause between two beats")] = 5.0


class HeartbeatWritten(Event, frozen=True, gc=False):
    """The file was written; `count` grows for the life of the data folder."""

    topic = "heartbeat.written"
    count: int


class Beat(Command, frozen=True, kw_only=True):
    """Beat now."""

    name = "heartbeat:beat"
    summary = "Write the heartbeat file now."
    reply = HeartbeatWritten


class Heartbeat(Component):
    """Needs nobody, so it comes up first and goes down last. `count` is kept from one run to the next."""

    name = "heartbeat"
    version = "1.0"
    config_type = HeartbeatConfig

    def __init__(self, context: Context) -> None:
        self._context = context

    def configure(self, config: HeartbeatConfig) -> None:
        self._path, self._every_s = self._context.data_dir / config.path, config.every_s

    async def boot(self) -> None:
        kept = await self._context.state.get("count")
        self._count: int = kept.value if kept else 0
        self._written = self._context.metrics.counter("mag_heartbeat_beats_total", "Heartbeats written.")
        self._context.commands.handle(Beat, self._beat_now)

    async def start(self) -> None:
        await self._beat()  # a folder that is not there is said now, not in five seconds
        self._context.spawn(self._go_on(), name="beats")  # ended by the kernel after `stop`

    async def stop(self) -> None:
        await self._context.state.put("count", self._count)

    def announce(self) -> Announcement:
        return Announcement(urls={"heartbeat": f"file://{self._path}"})

    async def _go_on(self) -> None:
        while True:
            await self._context.clock.sleep(self._every_s)
            await self._beat()

    async def _beat(self) -> HeartbeatWritten:
        text = f"{self._context.clock.time_s():.3f} {self._context.instance_id}\n"
        await asyncio.to_thread(self._replace, text)  # a disk's time is not the loop's
        self._count += 1
        self._written.value += 1
        written = HeartbeatWritten(self._count)
        self._context.bus.emit(written)
        return written

    def _replace(self, text: str) -> None:
        """Whoever reads meanwhile sees the whole of the former beat, or of this one."""
        written = self._path.with_suffix(".new")
        written.write_text(text)
        written.replace(self._path)

    async def _beat_now(self, command: Beat, call: Call) -> HeartbeatWritten:
        return await self._beat()
