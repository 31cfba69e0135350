"""The extension that `magx.runtime.rehearse` plays: handlers as authors write them. No node ever loads it."""

from __future__ import annotations

from typing import Any

from magx import Event, Extension, HookCall, Request, Response

ext = Extension()


@ext.hook("api.before_request")
async def _before(call: HookCall[Any]) -> dict[str, str]:
    return {"query": call.data["query"]}


@ext.on("seen")
async def _see(event: Event) -> None:
    ext.log.debug("seen", id=event.id)


@ext.endpoint("GET", "/state")
async def _state(request: Request) -> Response:
    return Response(200, {"path": request.path})


@ext.command("sum")
def _add(arguments: dict[str, Any]) -> int:
    return sum(arguments.values())
