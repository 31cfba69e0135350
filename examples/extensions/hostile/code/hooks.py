"""Sends a message whenever a message is sent: a loop alone, a circle with another one that does the same."""

from typing import Any

from magx import ApiError, Extension

ext = Extension()
said: list[str] = []
seen: list[str] = []


@ext.hook("realtime.before_broadcast")
async def again(call: Any) -> None:
    """One message leads to the next."""
    seen.append(call.data["event"])
    try:
        await ext.realtime.broadcast("loop", "again", {"run": len(seen)})
    except ApiError as error:
        said.append(f"{error.code} {error}")
        ext.log.warning(f"{error.code} {error}")


@ext.command("start")
async def start() -> str:
    """The first message."""
    try:
        await ext.realtime.broadcast("loop", "first", {})
    except ApiError as error:
        return f"{error.code} {error}"
    return "sent"


@ext.command("said")
def tell() -> dict[str, Any]:
    """How often it was asked, and what it was told."""
    return {"runs": len(seen), "said": said}
