"""Everybody looks on, nobody leaves: the node can still be told to stop, and silent connections keep nobody out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.integration.admin.fake import Asked, FakeOperators, serving

from magmobo.admin import server as door
from magmobo.admin.client import AdminClient
from magmobo.admin.data_folder import DataFolder
from magmobo.admin.errors import NodeRefused
from magmobo.admin.server import ControlServer

DEADLINE_S = 60
POLL = b'{"command": "kernel:events", "params": {"wait_s": 30}}\n'


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path)


def operators() -> FakeOperators:
    async def waits(_asked: Asked) -> bytes:
        await asyncio.Event().wait()
        return b"{}"

    return FakeOperators({"kernel:events": waits, "kernel:status": b"{}", "node:stop": b'{"pid": 7}'})


async def connections(folder: DataFolder, count: int, said: bytes) -> list[asyncio.StreamWriter]:
    writers = []
    for _ in range(count):
        _, writer = await asyncio.open_unix_connection(str(folder.control_socket))
        writer.write(said)
        writers.append(writer)
    return writers


async def until(condition: object) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.001)


@asynccontextmanager
async def watched(folder: DataFolder, count: int) -> AsyncIterator[tuple[ControlServer, FakeOperators]]:
    """A door at which as many wait for events as it serves at once."""
    fake = operators()
    async with serving(folder.control_socket, fake) as server:
        writers = await connections(folder, count, POLL)
        await until(lambda: len(fake.asked) == count)
        yield server, fake
        for writer in writers:
            writer.close()


async def test_the_node_can_be_stopped(folder: DataFolder) -> None:
    async with watched(folder, door._MAX_CONNECTIONS) as (server, fake):
        client = AdminClient(folder, timeout_s=DEADLINE_S)
        with pytest.raises(NodeRefused) as refusal:
            await asyncio.to_thread(client.status)
        assert refusal.value.fault_code == "MAG-ADMIN-009"
        stopping = asyncio.create_task(asyncio.to_thread(client.stop))
        await until(lambda: fake.asked[-1].command == "node:stop")
        await server.hang_up()
        assert await stopping == {"pid": 7}


async def test_silent_connections_give_way(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_SILENT_S", -1.0)
    async with serving(folder.control_socket, operators()) as server:
        writers = await connections(folder, 3 * door._MAX_CONNECTIONS, b'{"command": ')
        await until(lambda: len(server._conversations) == door._MAX_CONNECTIONS)
        assert await asyncio.to_thread(AdminClient(folder, timeout_s=DEADLINE_S).status) == {}
        for writer in writers:
            writer.close()


async def test_who_waits_for_an_answer_gives_way_to_nobody(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_SILENT_S", -1.0)
    async with watched(folder, door._MAX_CONNECTIONS) as (server, fake):
        for writer in await connections(folder, 100, b""):
            writer.close()
        assert not fake.ended
        await until(lambda: len(server._conversations) <= door._MAX_CONNECTIONS)


async def test_a_place_for_the_stop_is_for_one_request(folder: DataFolder) -> None:
    async with watched(folder, door._MAX_CONNECTIONS):
        reader, writer = await asyncio.open_unix_connection(str(folder.control_socket))
        writer.write(b'{"command": "kernel:status"}\n' * 50)
        async with asyncio.timeout(DEADLINE_S):
            answers = [json.loads(line) for line in (await reader.read()).splitlines()]
        writer.close()
        assert [answer["error"]["code"] for answer in answers] == ["MAG-ADMIN-009"]
