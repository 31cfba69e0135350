"""The control socket over real Unix sockets: hostile bytes get a coded answer, and the next operator is served."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from magmobo.admin import wire
from magmobo.admin.client import AdminClient
from magmobo.admin.data_folder import DataFolder
from magmobo.admin.errors import AccessDenied, ControlConnectionLost, NodeNotRunning, NodeRefused
from magmobo.admin.server import Command, ControlServer
from magmobo.contracts.errors import DeadlineExceeded, Unavailable
from magmobo.contracts.planes import ComponentStatus, NodeStatus

PART = ComponentStatus("a", "running", "healthy", 0, "now")
STATUS = NodeStatus("id", "ready", "test", "1", 2.5, [PART], {"x": "y"}, ["try"], ["note"])


def refuse() -> None:
    raise Unavailable("magds")


def break_down() -> None:
    raise ZeroDivisionError


COMMANDS: dict[str, Command] = {
    "ping": lambda: wire.Pong(7, "1"),
    "status": lambda: STATUS,
    "stop": lambda: wire.Stopping(7),
    "refuse": refuse,
    "break": break_down,
}


@asynccontextmanager
async def serving(path: Path, **more: Any) -> AsyncIterator[ControlServer]:
    server = ControlServer(path, COMMANDS, log=structlog.get_logger(), **more)
    await server.open()
    try:
        yield server
    finally:
        await server.hang_up()


async def exchange(path: Path, sent: bytes) -> dict[str, Any]:
    """Send bytes, read one answer."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(sent)
        async with asyncio.timeout(5):
            found: dict[str, Any] = json.loads(await reader.readline())
        return found
    finally:
        writer.close()


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path)


async def test_the_client_gets_what_the_node_says(folder: DataFolder) -> None:
    async with serving(folder.control_socket):
        client = AdminClient(folder)
        assert await client.ping() == wire.Pong(7, "1")
        assert await client.status() == STATUS


async def test_the_socket_is_private_and_goes_with_the_server(folder: DataFolder) -> None:
    async with serving(folder.control_socket):
        assert stat.S_IMODE(folder.control_socket.stat().st_mode) == 0o600
    assert not folder.control_socket.exists()
    with pytest.raises(NodeNotRunning):
        await AdminClient(folder).ping()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\n", "MAG-ADMIN-003"),
        (b"\xff\xfe\x00\n", "MAG-ADMIN-003"),
        (b"GET / HTTP/1.1\r\n\r\n", "MAG-ADMIN-003"),
        (b"[" * 60_000 + b"\n", "MAG-ADMIN-003"),
        (b'{"command": 7}\n', "MAG-ADMIN-003"),
        (b'{"command": "' + b"x" * 100_000 + b'"}\n', "MAG-ADMIN-004"),
        (b"x" * 200_000, "MAG-ADMIN-004"),
        (b'{"command": "shutdown --now"}\n', "MAG-ADMIN-002"),
        (b'{"command": "__class__"}\n', "MAG-ADMIN-002"),
        (b'{"command": "refuse"}\n', "MAG-CORE-001"),
        (b'{"command": "break"}\n', "MAG-CORE-000"),
    ],
)
async def test_a_bad_request_is_answered_by_its_code(folder: DataFolder, sent: bytes, code: str) -> None:
    async with serving(folder.control_socket):
        answer = await exchange(folder.control_socket, sent)
        assert answer["error"]["code"] == code
        assert answer["error"]["next_step"]
        assert len(answer["error"]["text"]) < 300
        assert await AdminClient(folder).ping() == wire.Pong(7, "1"), "the next one is served"


async def test_requests_on_one_connection_are_answered_in_order(folder: DataFolder) -> None:
    async with serving(folder.control_socket):
        reader, writer = await asyncio.open_unix_connection(str(folder.control_socket))
        writer.write(b'{"command": "ping"}\n{"command": "nothing"}\nrubbish\n{"command": "ping"}\n')
        answers = [json.loads(await reader.readline()) for _ in range(4)]
        writer.close()
    assert [answer.get("error", {}).get("code", "ok") for answer in answers] == [
        "ok",
        "MAG-ADMIN-002",
        "MAG-ADMIN-003",
        "ok",
    ]


async def test_who_says_nothing_is_sent_away(folder: DataFolder) -> None:
    async with serving(folder.control_socket, idle_s=0.05):
        reader, writer = await asyncio.open_unix_connection(str(folder.control_socket))
        writer.write(b'{"command": "pi')
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


async def test_connections_are_bounded_and_a_place_comes_free(folder: DataFolder) -> None:
    async with serving(folder.control_socket):
        held = [await asyncio.open_unix_connection(str(folder.control_socket)) for _ in range(32)]
        for reader, writer in held:
            writer.write(b'{"command": "ping"}\n')
            await reader.readline()
        with pytest.raises(NodeRefused, match="MAG-ADMIN-009"):
            await AdminClient(folder).ping()
        for _, writer in held:
            writer.close()
        async with asyncio.timeout(5):
            while True:
                try:
                    assert await AdminClient(folder).ping()
                    break
                except NodeRefused:
                    await asyncio.sleep(0)


async def test_stop_returns_when_the_node_is_gone(folder: DataFolder) -> None:
    async with serving(folder.control_socket, idle_s=0.01) as server:
        stopping = asyncio.create_task(AdminClient(folder).stop())
        done, _ = await asyncio.wait({stopping}, timeout=0.1)
        assert not done, "it returned although the node is still there"
        await server.hang_up()
        assert await stopping == wire.Stopping(7)


async def test_a_node_that_does_not_stop_in_time_is_a_timeout(folder: DataFolder) -> None:
    async with serving(folder.control_socket):
        with pytest.raises(DeadlineExceeded) as caught:
            await AdminClient(folder, timeout_s=0.05).stop()
    assert caught.value.exit_code == 7


async def test_a_stale_socket_is_replaced(folder: DataFolder) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder.control_socket))
    with pytest.raises(NodeNotRunning):
        await AdminClient(folder).ping()
    async with serving(folder.control_socket):
        assert await AdminClient(folder).ping()


async def test_a_path_too_long_for_a_socket_works(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / ("x" * 120) / ("ä" * 60))
    folder.claim()
    async with serving(folder.control_socket):
        assert folder.control_socket.exists()
        assert await AdminClient(folder).status() == STATUS


@pytest.mark.parametrize("answer", [b"", b"what?\n", b'{"result": {"pid": "seven"}}\n', b"{}\n", b'{"result": {"pi'])
async def test_an_answer_we_do_not_understand_is_coded(folder: DataFolder, answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(talk, str(folder.control_socket)):
        with pytest.raises(ControlConnectionLost):
            await AdminClient(folder, timeout_s=5).ping()


async def test_another_user_is_denied(folder: DataFolder) -> None:
    """The door is opened wide on purpose: the peer's user id decides even then. As root only; else we try nothing
    that the mode of the folder would not refuse."""
    if os.geteuid() != 0:
        folder.path.chmod(0o000)
        try:
            with pytest.raises(AccessDenied):
                await AdminClient(folder).ping()
        finally:
            folder.path.chmod(0o700)
        return
    script = (
        "import os, socket, sys\nos.setgid(65534)\nos.setuid(65534)\ns = socket.socket(socket.AF_UNIX)\n"
        'os.chdir(int(sys.argv[1]))\ns.connect("control.sock")\ns.sendall(b\'{"command": "status"}\\n\')\n'
        "print(s.makefile().readline())"
    )
    async with serving(folder.control_socket):
        folder.control_socket.chmod(0o777)
        folder.path.chmod(0o777)
        place = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            stranger = await asyncio.create_subprocess_exec(
                sys.executable, "-c", script, str(place), pass_fds=[place], stdout=subprocess.PIPE
            )
            async with asyncio.timeout(10):
                out, _ = await stranger.communicate()
        finally:
            os.close(place)
    assert json.loads(out)["error"]["code"] == "MAG-ADMIN-005"
