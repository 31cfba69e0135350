"""What operators decided: guards hold while the plane is away, and go with it when somebody switched extensions off;
settings that an extension changes by itself are on record, without their values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.hostile.extensions.node_gate import ADMIN, Gate, gate
from tests.hostile.extensions.review_parts import packed, passable_folder
from tests.unit.extensions.package.making import asked

from magmobo.contracts.errors import HookUnavailable, MagError
from magmobo.contracts.hooks import HookPoint, RequestContext
from magmobo.extensions.config import ExtensionsConfig

GUARD = """
from magx import Extension

ext = Extension()


@ext.hook("api.rbac_check")
async def judge(call):
    return None
"""
SETTER = """
from magx import ApiError, Extension

ext = Extension()


@ext.command("set")
async def set_(arguments):
    try:
        return await ext.config.set(arguments["values"])
    except ApiError as error:
        return {"refused": str(error)}
"""
SECRET = "correct-horse-battery-staple"
SETTINGS = {
    "type": "object",
    "properties": {"mode": {"type": "string"}, "token": {"type": "string", "x-secret": True}},
}
REQUEST = RequestContext(
    **dict.fromkeys(("request_id", "method", "path", "query", "table", "role", "claims", "body"), ""),
    anonymous=True,
    headers={},
    body_bytes=0,
)


@pytest.fixture
def folder() -> Iterator[Path]:
    yield from passable_folder()


def guard(node: Gate) -> bytes:
    hooks = [{"point": "api.rbac_check"}]
    return packed(node, GUARD, id="guard", capabilities=[asked("api.intercept_request")], hooks=hooks)


async def component(node: Gate, verb: str) -> None:
    asked_for = json.dumps({"component": "extensions"}).encode()
    await node.kernel.services.commands.run(f"component:{verb}", asked_for, actor=ADMIN, timeout_s=30)


async def outcome(point: HookPoint[Any]) -> str:
    if point.chain is None:
        return "nobody is asked"
    try:
        await point.chain.before(REQUEST)
    except HookUnavailable:
        return "denied"
    except MagError as error:
        return str(error)
    return "asked"


async def test_guards_hold_while_the_plane_is_away_and_go_when_it_is_switched_off(folder: Path) -> None:
    settings = partial(ExtensionsConfig, system_dir=str(folder / "system" / "extensions"))
    async with gate(folder) as node:
        await node.admit_package("guard", guard(node))
        point = node.kernel.services.hooks.point("api.rbac_check")
        assert await outcome(point) == "asked"
        await component(node, "stop")
        assert await outcome(point) == "denied"
        await component(node, "start")
        assert await outcome(point) == "asked"
        slot = next(one for one in node.kernel.slots if one.name == "extensions")
        slot.tenant.take(settings(enabled=False))
        assert await outcome(point) == "asked", "it counts with the restart"
        await component(node, "restart")
        assert await outcome(point) == "nobody is asked"
        slot.tenant.take(settings())
        await component(node, "restart")
        assert await outcome(point) == "asked"
        await node.command("extension:kill", id="guard")
        assert await outcome(point) == "nobody is asked", "an operator took it out of the way"


async def test_settings_that_an_extension_changes_are_on_record_without_their_values(folder: Path) -> None:
    async with gate(folder) as node:
        commands = [{"name": "set", "summary": "sets"}]
        await node.admit_package("setter", packed(node, SETTER, id="setter", settings=SETTINGS, commands=commands))
        await node.command("extension:configure", id="setter", values={"mode": "enforce"})
        since = node.head
        await node.run("setter", "set", values={"mode": "off"})
        found = await node.record(since, "extension.call", "setter", lambda said: said["method"] == "config.set")
        assert found is not None
        assert found.payload["settings"] == ["mode"]
        shown = await node.command("extension:show", id="setter")
        assert shown["settings"]["mode"] == "off"
        refused = await node.run("setter", "set", values={"mode": "late", "token": SECRET})
        assert "vault" in refused["refused"], "this node has none"
        shown = await node.command("extension:show", id="setter")
        assert shown["settings"] == {"mode": "off"}, "nothing half done"
        assert not any(SECRET in str(one.payload) for one in await node.records(0))
        refused = await node.run("setter", "set", values={"mode": "x", "n" * 10_000: 1, "token": SECRET})
        assert "there is no setting" in refused["refused"]
        assert SECRET not in str(refused)
        long = await node.record(since, "extension.call", "n" * 60)
        assert long is not None
        assert "n" * 61 not in str(long.payload)
