"""Keeps a processor and the node busy for a time: by spinning, or by asking and logging as fast as it can."""

import asyncio
import time
from typing import Any

from magx import ApiError, Extension

ext = Extension()


@ext.command("spin")
def spin(said: dict[str, Any]) -> None:
    """Let nothing else run in this process."""
    end_s = time.monotonic() + said["seconds"]
    while time.monotonic() < end_s:
        pass


@ext.command("flood")
async def flood(said: dict[str, Any]) -> int:
    """Publish, keep values and log; how often something was tried."""
    end_s, times = time.monotonic() + said["seconds"], 0
    while time.monotonic() < end_s:
        await asyncio.gather(*(_ask(number) for number in range(64)))
        times += 64
    return times


async def _ask(number: int) -> None:
    ext.log.info("more", number=number)
    try:
        await ext.events.publish("more", {"text": "x" * 200})
    except ApiError:
        return
