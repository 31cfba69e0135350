"""The control socket against peers that send anything, too much, too slowly, or leave: the next operator is served."""

from __future__ import annotations

import asyncio
import json
import random
import resource
import socket
from pathlib import Path

import pytest
from tests.integration.admin.fake import FakeOperators, serving

from magmobo.admin.client import AdminClient
from magmobo.admin.data_folder import DataFolder

DEADLINE_S = 60
REQUEST = b'{"command": "kernel:status"}\n'


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path)


def operators() -> FakeOperators:
    return FakeOperators({"kernel:status": b"{}"})


async def is_served(folder: DataFolder) -> bool:
    return await asyncio.to_thread(AdminClient(folder, timeout_s=DEADLINE_S).status) == {}


@pytest.mark.parametrize("seed", range(20))
async def test_any_bytes_in_any_pieces(folder: DataFolder, seed: int) -> None:
    chance = random.Random(seed)
    pieces = [REQUEST, b"\n", b"{", b'"', b"\0" * 50, b"\xff\xfe", b'{"command": ', b"[" * 5_000, b"9" * 300, b"}\n"]
    sent = b"".join(chance.choice(pieces) + chance.randbytes(chance.randrange(8)) for _ in range(200))
    async with serving(folder.control_socket, operators()):
        reader, writer = await asyncio.open_unix_connection(str(folder.control_socket))
        for begin in range(0, len(sent), 997):
            writer.write(sent[begin : begin + 997])
            await asyncio.sleep(0)
        writer.write_eof()
        async with asyncio.timeout(DEADLINE_S):
            try:
                answers = (await reader.read()).splitlines()
            except ConnectionError:
                answers = []
        writer.close()
        assert all(json.loads(answer).keys() & {"result", "error"} for answer in answers)
        assert await is_served(folder)


async def test_who_asks_without_end_and_takes_no_answer_is_stopped(folder: DataFolder) -> None:
    """What is read ahead and what is written behind are both bounded, so the peer's own sending comes to a halt."""
    fake = operators()
    fake.replies["kernel:status"] = json.dumps({"text": "x" * 2_000}).encode()
    async with serving(folder.control_socket, fake):
        with socket.socket(socket.AF_UNIX) as greedy:
            greedy.connect(str(folder.control_socket))
            greedy.setblocking(False)
            quiet, sent = 0, 0
            while quiet < 100:
                try:
                    sent += greedy.send(REQUEST * 1_000)
                    quiet = 0
                except BlockingIOError:
                    quiet += 1
                await asyncio.sleep(0.001)
            assert sent < 4_000_000
            assert len(fake.asked) < 10_000
            greedy.setblocking(True)
    fake = operators()
    async with serving(folder.control_socket, fake):
        assert await is_served(folder)


async def test_peers_that_come_and_go_leave_nothing_behind(folder: DataFolder) -> None:
    async with serving(folder.control_socket, operators()) as server:
        for number in range(300):
            _, writer = await asyncio.open_unix_connection(str(folder.control_socket))
            writer.write(REQUEST[: number % len(REQUEST)])
            writer.close()
            if number % 20 == 0:
                await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE_S):
            while server._conversations:
                await asyncio.sleep(0.001)
        assert await is_served(folder)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("control:")]


async def test_requests_are_not_kept(folder: DataFolder) -> None:
    """60 MB of refused lines later the process is hardly larger."""
    async with serving(folder.control_socket, operators()):
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(60):
            reader, writer = await asyncio.open_unix_connection(str(folder.control_socket))
            writer.write(b"x" * 1_000_000)
            try:
                async with asyncio.timeout(DEADLINE_S):
                    assert b"MAG-ADMIN-004" in await reader.readline()
            except ConnectionError:
                pass
            writer.close()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 20_000
        assert await is_served(folder)
