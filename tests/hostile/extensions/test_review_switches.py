"""Guards hold while the plane is away, and go with it when somebody switched extensions off."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.hostile.extensions.node_gate import ADMIN, Gate, gate
from tests.unit.extensions.package.making import asked, fields

from magmobo.contracts.errors import HookUnavailable, MagError
from magmobo.contracts.hooks import HookPoint, RequestContext
from magmobo.extensions.config import ExtensionsConfig
from magmobo.extensions.package.build import pack, sign

GUARD = """
from magx import Extension

ext = Extension()


@ext.hook("api.rbac_check")
async def judge(call):
    return None
"""
REQUEST = RequestContext(
    **dict.fromkeys(("request_id", "method", "path", "query", "table", "role", "claims", "body"), ""),
    anonymous=True,
    headers={},
    body_bytes=0,
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that uids of extensions may pass."""
    folder = Path(tempfile.mkdtemp(prefix="mag-switches-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def guard(node: Gate) -> bytes:
    author = node.folder / "authors" / "guard"
    author.mkdir()
    said = fields(id="guard", capabilities=[asked("api.intercept_request")], hooks=[{"point": "api.rbac_check"}])
    (author / "manifest.json").write_text(json.dumps(said))
    (author / "extension.py").write_text(GUARD)
    return sign(pack(author), node.key)


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
    async with gate(folder) as node:
        await node.admit_package("guard", guard(node))
        point = node.kernel.services.hooks.point("api.rbac_check")
        assert await outcome(point) == "asked"
        await component(node, "stop")
        assert await outcome(point) == "denied"
        await component(node, "start")
        assert await outcome(point) == "asked"
        slot = next(one for one in node.kernel.slots if one.name == "extensions")
        slot.tenant.take(ExtensionsConfig(enabled=False))
        assert await outcome(point) == "asked", "it counts with the restart"
        await component(node, "restart")
        assert await outcome(point) == "nobody is asked"
        slot.tenant.take(ExtensionsConfig())
        await component(node, "restart")
        assert await outcome(point) == "asked"
        await node.command("extension:kill", id="guard")
        assert await outcome(point) == "nobody is asked", "an operator took it out of the way"
