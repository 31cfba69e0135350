"""Takes its own events and never comes to an end with the first, while more and more are published."""

import asyncio
from typing import Any

from magx import ApiError, Event, Extension

ext = Extension()
taken: list[str] = []


@ext.on("own")
async def take(event: Event) -> None:
    """An hour for each."""
    taken.append(event.id)
    await asyncio.sleep(3600)


@ext.command("publish")
async def publish(said: dict[str, Any]) -> dict[str, int]:
    """Publish some; how many were let through."""
    through = 0
    for number in range(said["times"]):
        try:
            await ext.events.publish("more", {"number": number})
            through += 1
        except ApiError:
            continue
    return {"through": through}


@ext.command("count")
def count() -> int:
    """Events that it began with."""
    return len(taken)
