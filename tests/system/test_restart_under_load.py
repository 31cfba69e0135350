"""`component:restart` of each component while clients work: only what the restarted component itself does may notice.

Two hundred WebSocket clients listen to a table, a writer commits to it, REST clients read it over kept connections and
over new ones. What each of them met is counted while one component after the other is restarted by an operator.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.crash.support import Writer
from tests.system.load import CONFIG, READERS, SET_UP, Listeners, Readers, dsn_of, until

from magmobo.admin.client import AdminClient
from magmobo.admin.data_folder import DataFolder
from magmobo.testing.node import NodeProcess, running_node

CLIENTS = 200


async def restart(node: NodeProcess, name: str) -> dict[str, Any]:
    client = AdminClient(DataFolder(node.data_dir), timeout_s=60)
    return await asyncio.to_thread(client.ask, "component:restart", {"component": name})


@pytest.fixture
def configured(data_dir: Path) -> Path:
    (data_dir.parent / "mag.toml").write_text(CONFIG, encoding="utf-8")
    return data_dir


async def test_nobody_but_the_restarted_component_notices(configured: Path) -> None:
    async with running_node(configured, "--without", "maggate,magws"):
        dsn = await asyncio.to_thread(dsn_of, configured)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(SET_UP)
    async with running_node(configured) as node:
        dsn = await asyncio.to_thread(dsn_of, configured)
        port = int(node.base_url.rpartition(":")[2])
        listeners, readers, writer = Listeners(node.status.urls["realtime"], CLIENTS), Readers(port), Writer(dsn, 7)
        try:
            await listeners.open()
            writer.start()
            for name in ("console", "listener", "maggate", "magds"):
                await until(lambda: readers.answers["200"] > 50)
                readers.answers.clear()
                reply = await restart(node, name)
                assert (reply["state"], reply["restarts"]) == ("running", 1), name
                await until(lambda: readers.answers["200"] > 50)
                others = {outcome: n for outcome, n in readers.answers.items() if outcome != "200"}
                # MagGate's own requests may be told to come back; of MagDS only what was on its way may be.
                unavailable = others.pop("503", 0)
                assert others == {}, name
                assert unavailable <= {"maggate": unavailable, "magds": READERS}.get(name, 0), name
                assert listeners.drops == 0, f"restarting {name} dropped WebSocket clients"
                readers.answers.clear()
            committed = await asyncio.to_thread(writer.end)
            await until(lambda: all(seen and seen[-1] >= committed[-1] for seen in listeners.seen))
            for seen in listeners.seen:
                assert seen == sorted(set(seen)), "twice or out of order"
                assert set(committed) <= set(seen), "a committed row is missing"
            assert listeners.gaps == 0
            await restart(node, "magws")
            await until(lambda: listeners.drops == CLIENTS)
            await until(lambda: readers.answers["200"] > 50)
            assert set(readers.answers) == {"200"}
        finally:
            writer.end()
            await readers.close()
            await listeners.close()
