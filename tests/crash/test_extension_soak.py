"""100,000 hook calls while the extension is upgraded 20 times and its process killed 50 times: no client notices.

Everything is a node's own: the chain of a real hook point, a sandboxed worker, upgrades by the command bus, requests to
the public port. The point lets requests pass when the extension does not answer, so each of them must be served.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.hostile.extensions.node_gate import Gate, gate
from tests.integration.maggate.support import SECRET, bearer

from magmobo.contracts.errors import MagError
from magmobo.contracts.hooks import HookPoint, RequestContext
from magmobo.extensions.component import ExtensionPlane
from magmobo.extensions.package.build import pack, sign

ID, POINT = "soaked", "api.before_request"
CALLS, UPGRADES, KILLS, CLIENTS = 100_000, 20, 50, 8
SOAK_S = 150.0
PATIENCE_S = 1.0
CODE = """
from magx import Extension

ext = Extension()


@ext.hook("api.before_request")
def before(call):
    return {"query": call.data["query"] + "&limit=1"}
"""
QUERY = "select=id"
CONTEXT = RequestContext(
    request_id="r", method="GET", path="/rest/v1/orders", query=QUERY, table="public.orders", role="web_user",
    anonymous=False, claims="{}", headers={}, body="", body_bytes=0,
)  # fmt: skip
ROLE = (
    "create role web_user nologin; grant usage on schema public to web_user; grant select on public.orders to web_user"
)


@dataclass
class Tally:
    """What clients saw."""

    calls: int = 0
    changed: int = 0
    requests: int = 0
    failed: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


def package(node: Gate, folder: Path, version: str) -> bytes:
    """One version of the extension."""
    manifest: Mapping[str, Any] = {
        "id": ID, "name": "Soaked", "version": version, "hooks": [{"point": POINT}],
        "capabilities": [{"name": "api.intercept_request", "reason": "It is what is measured."}],
    }  # fmt: skip
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "extension.py").write_text(CODE, encoding="utf-8")
    return sign(pack(folder), node.key)


async def ask(point: HookPoint[RequestContext], tally: Tally) -> None:
    """A client of the hook point, as fast as it is answered."""
    while not tally.over.is_set():
        chain = point.chain
        try:
            answer = CONTEXT if chain is None else await chain.before(CONTEXT)
        except MagError as error:
            tally.failed.append(str(error))
            return
        tally.calls += chain is not None
        tally.changed += answer.query != QUERY
        if answer.query not in (QUERY, f"{QUERY}&limit=1"):
            tally.failed.append(f"an answer that nobody gave: {answer.query}")
        if answer is CONTEXT:
            await asyncio.sleep(0.001)  # nobody was asked; let whoever brings it back have the loop


def request(node: Gate, tally: Tally) -> None:
    """A client of the public port, in a thread."""
    place = node.kernel.status().urls["http"].rstrip("/").removeprefix("http://")
    with closing(http.client.HTTPConnection(place, timeout=60)) as connection:
        while not tally.over.is_set():
            try:
                connection.request("GET", f"/rest/v1/orders?{QUERY}", headers=bearer(role="web_user"))
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                tally.failed.append(repr(error))
                return
            tally.requests += 1
            if answer.status != 200 or json.loads(body) != [{"id": 1}]:
                tally.failed.append(f"{answer.status} {body!r}")


async def answered(tally: Tally, share: float) -> None:
    """Wait until this share of all calls was answered by the extension, or for a while, when it is left alone."""
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while tally.changed < share * CALLS:
                await asyncio.sleep(0.005)


async def kill_again_and_again(node: Gate, tally: Tally) -> int:
    """SIGKILL whatever process the extension has; how often. An operator enables it when the plane has had enough."""
    component = node.kernel.assembly.board.slot("extensions").component
    assert isinstance(component, ExtensionPlane)
    lifecycle, killed = component.plane()._lifecycle, set[int]()
    while len(killed) < KILLS:
        worker: Any = lifecycle.worker(ID)
        process = worker.process if worker is not None else None
        if process is not None and process.is_running and process.pid not in killed:
            await answered(tally, len(killed) / KILLS)
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
                killed.add(process.pid)
        elif worker is None and await node.state(ID) == "disabled":
            with suppress(MagError):  # an upgrade has its turn
                await node.command("extension:enable", id=ID)
        await asyncio.sleep(0.01)
    return len(killed)


async def upgrade_again_and_again(node: Gate, folder: Path, tally: Tally) -> int:
    """Bring version after version; one that was ended while it came is brought again as the next. How many arrived."""
    arrived = number = 0
    while arrived < UPGRADES:
        number += 1
        data = await asyncio.to_thread(package, node, folder / f"v{number}", f"1.0.{number}")
        with suppress(MagError):
            await node.command("extension:upgrade", sha256=await node.stage(data))
            arrived += 1
        await answered(tally, arrived / UPGRADES)
    return arrived


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that Postgres may enter, whose user is another when we are root."""
    made = Path(tempfile.mkdtemp(prefix="mag-soak-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


async def test_no_request_fails_while_an_extension_is_upgraded_and_killed(folder: Path) -> None:
    settings = {"maggate": {"jwt": {"secret": SECRET}}, "extensions": {"upgrade_watch_s": 0}}
    async with gate(folder, **settings) as node:
        await node.sql(ROLE)
        await node.admit_package(ID, package(node, folder / "v0", "1.0.0"))
        point, tally = node.kernel.services.hooks.point(POINT), Tally()
        async with asyncio.timeout(SOAK_S), asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(ask(point, tally))
            group.create_task(asyncio.to_thread(request, node, tally))
            try:
                kills, upgrades = await asyncio.gather(
                    kill_again_and_again(node, tally), upgrade_again_and_again(node, folder, tally)
                )
                while tally.changed < CALLS and not tally.failed:
                    await asyncio.sleep(0.05)
            finally:
                tally.over.set()
    assert tally.failed == []
    assert (kills, upgrades) == (KILLS, UPGRADES)
    assert tally.changed >= CALLS, f"only {tally.changed} of {tally.calls} calls were answered by the extension"
    assert tally.requests >= 100
