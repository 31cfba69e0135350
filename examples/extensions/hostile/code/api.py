"""Asks the node for whatever it is told to, by method and arguments, once or as often as it can."""

import asyncio
from collections import Counter
from typing import Any

from magx import ApiError, Extension

ext = Extension()


async def one(method: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What came of one question."""
    try:
        return {"answer": await ext._link.ask(method, **arguments)}
    except ApiError as error:
        return {"code": error.code, "message": str(error)}
    except ValueError as error:
        return {"code": "ValueError", "message": str(error)[:200]}


@ext.command("ask")
async def ask(said: dict[str, Any]) -> dict[str, Any]:
    """One question."""
    return await one(said["method"], said["arguments"])


@ext.command("flood")
async def flood(said: dict[str, Any]) -> dict[str, int]:
    """Very many questions at once; how many ended how."""
    arguments = said["arguments"]
    if name := said.get("grow"):
        arguments = {**arguments, name: "x" * said["size"]}
    answers = await asyncio.gather(*(one(said["method"], arguments) for _ in range(said["times"])))
    return dict(Counter(answer.get("code", "ok") for answer in answers))


@ext.command("unpack")
def unpack() -> list[str]:
    """What it was granted, as far as it knows."""
    return sorted(ext.capabilities)
