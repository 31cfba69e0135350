"""The control socket over real Unix sockets: who asks, what is passed on, what a bad or a vanished peer costs."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.integration.admin.fake import Asked, FakeOperators, serving

from magmobo.admin import server as door
from magmobo.admin import wire
from magmobo.admin.client import MAX_ANSWER_BYTES, AdminClient
from magmobo.admin.data_folder import DataFolder
from magmobo.admin.errors import AccessDenied, ControlConnectionLost, NodeNotRunning, NodeRefused
from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.errors import DeadlineExceeded, Unavailable

T = TypeVar("T")
DEADLINE_S = 30
STATUS = {"state": "ready"}


async def wait(asked: Asked) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError


def operators() -> FakeOperators:
    return FakeOperators(
        {
            "kernel:status": b'{"state": "ready"}',
            "node:stop": b'{"pid": 7}',
            "lines": b'{\n "a": "x\\ny"\n}\n',
            "refuse": Unavailable("magds"),
            "break": ZeroDivisionError("secret"),
            "reset": ConnectionResetError("of a database"),
            "large": b'{"a": "' + b"x" * MAX_ANSWER_BYTES + b'"}',
            "wait": wait,
        }
    )


async def exchange(path: Path, sent: bytes) -> dict[str, Any]:
    """Send bytes, read one answer."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(sent)
        async with asyncio.timeout(DEADLINE_S):
            found: dict[str, Any] = json.loads(await reader.readline())
        return found
    finally:
        writer.close()


async def asking(function: Callable[..., T], *arguments: Any, **more: Any) -> T:
    """A blocking question beside the server's loop."""
    async with asyncio.timeout(DEADLINE_S):
        return await asyncio.to_thread(function, *arguments, **more)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path)


# ---------------------------------------------------------------- who asks for what


async def test_a_question_is_passed_on_with_all_that_was_said(folder: DataFolder) -> None:
    fake = operators()
    async with serving(folder.control_socket, fake):
        assert await asking(AdminClient(folder).status) == STATUS
        line = {"command": "kernel:status", "params": {"a": 1}, "timeout_s": 3, "dry_run": True, "idempotency_key": "k"}
        await exchange(folder.control_socket, json.dumps(line).encode() + b"\n")
    assert fake.asked[1] == Asked(
        "kernel:status", {"a": 1}, Actor(name=f"uid:{os.geteuid()}", role=Role.ADMIN, via="control"), 3.0, True, "k"
    )


@pytest.mark.parametrize("role", ["", *Role])
async def test_who_asks_may_be_less_than_admin_and_says_why_it_wants_more(folder: DataFolder, role: str) -> None:
    fake = operators()
    async with serving(folder.control_socket, fake):
        await asking(AdminClient(folder, role=role, justification="fire").status)
    (asked,) = fake.asked
    assert (asked.actor.role, asked.actor.justification) == (role or "admin", "fire")


async def test_a_question_has_the_deadline_of_its_asker(folder: DataFolder) -> None:
    fake = operators()
    async with serving(folder.control_socket, fake):
        await asking(AdminClient(folder, timeout_s=5).ask, "kernel:status", {"x": 1}, dry_run=True, wait_s=20)
    assert (fake.asked[0].timeout_s, fake.asked[0].params, fake.asked[0].dry_run) == (25.0, {"x": 1}, True)


async def test_another_user_is_denied(folder: DataFolder) -> None:
    """The door is opened wide on purpose: the peer's user id decides even then. As root only; else we try nothing
    that the mode of the folder would not refuse."""
    if os.geteuid() != 0:
        folder.path.chmod(0o000)
        try:
            with pytest.raises(AccessDenied):
                await asking(AdminClient(folder).status)
        finally:
            folder.path.chmod(0o700)
        return
    script = (
        "import os, socket, sys\nos.setgid(65534)\nos.setuid(65534)\ns = socket.socket(socket.AF_UNIX)\n"
        'os.chdir(int(sys.argv[1]))\ns.connect("control.sock")\ns.sendall(b\'{"command": "kernel:status"}\\n\')\n'
        "print(s.makefile().readline())"
    )
    fake = operators()
    async with serving(folder.control_socket, fake):
        folder.control_socket.chmod(0o777)
        folder.path.chmod(0o777)
        place = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            stranger = await asyncio.create_subprocess_exec(
                sys.executable, "-c", script, str(place), pass_fds=[place], stdout=subprocess.PIPE
            )
            async with asyncio.timeout(DEADLINE_S):
                out, _ = await stranger.communicate()
        finally:
            os.close(place)
    assert json.loads(out)["error"]["code"] == "MAG-ADMIN-005"
    assert not fake.asked


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\n", "MAG-ADMIN-003"),
        (b"\xff\xfe\x00\n", "MAG-ADMIN-003"),
        (b"GET / HTTP/1.1\r\n\r\n", "MAG-ADMIN-003"),
        (b"[" * (wire.MAX_REQUEST_BYTES - 1) + b"\n", "MAG-ADMIN-003"),
        (b'{"command": 7}\n', "MAG-ADMIN-003"),
        (b'{"command": "kernel:status", "role": "root"}\n', "MAG-ADMIN-003"),
        (b'{"command": "kernel:status", "timeout_s": 1e9}\n', "MAG-ADMIN-003"),
        (b'{"command": "' + b"x" * (wire.MAX_REQUEST_BYTES + 40_000) + b'"}\n', "MAG-ADMIN-004"),
        (b"x" * (wire.MAX_REQUEST_BYTES + 200_000), "MAG-ADMIN-004"),
        (b'{"command": "refuse"}\n', "MAG-CORE-001"),
        (b'{"command": "break"}\n', "MAG-CORE-000"),
        (b'{"command": "reset"}\n', "MAG-CORE-000"),
        (b'{"command": "large"}\n', "MAG-ADMIN-010"),
    ],
)
async def test_a_bad_request_is_answered_by_its_code(folder: DataFolder, sent: bytes, code: str) -> None:
    async with serving(folder.control_socket, operators()):
        answer = await exchange(folder.control_socket, sent)
        assert answer["error"]["code"] == code
        assert answer["error"]["next_step"]
        assert len(answer["error"]["text"]) < 300
        assert "secret" not in answer["error"]["text"]
        assert await asking(AdminClient(folder).status) == STATUS, "the next one is served"


async def test_a_reply_of_several_lines_is_one(folder: DataFolder) -> None:
    async with serving(folder.control_socket, operators()):
        assert await asking(AdminClient(folder).ask, "lines") == {"a": "x\ny"}


async def test_requests_on_one_connection_are_answered_in_order(folder: DataFolder) -> None:
    async with serving(folder.control_socket, operators()):
        reader, writer = await asyncio.open_unix_connection(str(folder.control_socket))
        writer.write(
            b'{"command": "kernel:status"}\n{"command": "refuse"}\nrubbish\n{"command": "kernel:status"}\n' * 20
        )
        answers = [json.loads(await reader.readline()) for _ in range(80)]
        writer.close()
    codes = [answer.get("error", {}).get("code", "ok") for answer in answers]
    assert codes == ["ok", "MAG-CORE-001", "MAG-ADMIN-003", "ok"] * 20


async def test_connections_do_not_wait_for_each_other(folder: DataFolder) -> None:
    fake = operators()
    async with serving(folder.control_socket, fake):
        slow = asyncio.create_task(exchange(folder.control_socket, b'{"command": "wait"}\n'))
        await until(lambda: bool(fake.asked))
        assert await asking(AdminClient(folder).status) == STATUS
        slow.cancel()


async def test_who_has_said_all_it_wanted_still_gets_its_answer(folder: DataFolder) -> None:
    """As `printf … | nc -N -U control.sock` asks: the sending side is closed at once."""
    fake = operators()
    answered = asyncio.Event()

    async def slowly(asked: Asked) -> bytes:
        await answered.wait()
        return b"{}"

    fake.replies["slow"] = slowly
    async with serving(folder.control_socket, fake):
        reader, writer = await asyncio.open_unix_connection(str(folder.control_socket))
        writer.write(b'{"command": "slow"}\n')
        writer.write_eof()
        await until(lambda: bool(fake.asked))
        answered.set()
        assert await reader.read() == b'{"result":{}}\n'
        writer.close()


# ---------------------------------------------------------------- bounds, and peers that leave


@pytest.mark.parametrize("behind", [b"", b'{"command": "kernel:status"}\n' * 3])
async def test_the_command_of_a_peer_that_went_away_is_ended(folder: DataFolder, behind: bytes) -> None:
    fake = operators()
    async with serving(folder.control_socket, fake):
        _, writer = await asyncio.open_unix_connection(str(folder.control_socket))
        writer.write(b'{"command": "wait"}\n' + behind)
        await until(lambda: bool(fake.asked))
        writer.close()
        await until(lambda: "wait" in fake.ended)
        assert len(fake.asked) == 1, "what was read ahead is not run for nobody"


async def test_who_says_nothing_is_sent_away(folder: DataFolder) -> None:
    async with serving(folder.control_socket, operators(), idle_s=0.05):
        reader, writer = await asyncio.open_unix_connection(str(folder.control_socket))
        writer.write(b'{"command": "pi')
        async with asyncio.timeout(DEADLINE_S):
            assert await reader.read() == b""
        writer.close()


async def test_a_long_command_is_no_silence(folder: DataFolder) -> None:
    fake = operators()
    fake.replies["long"] = lambda asked: _after(0.2)
    async with serving(folder.control_socket, fake, idle_s=0.05):
        assert await exchange(folder.control_socket, b'{"command": "long"}\n') == {"result": {}}


async def _after(duration_s: float) -> bytes:
    await asyncio.sleep(duration_s)
    return b"{}"


async def test_connections_are_bounded_and_a_place_comes_free(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_SILENT_S", 60.0)  # nobody gives way, however long it takes to open them all
    async with serving(folder.control_socket, operators()):
        held = [await asyncio.open_unix_connection(str(folder.control_socket)) for _ in range(32)]
        for reader, writer in held:
            writer.write(b'{"command": "kernel:status"}\n')
            await reader.readline()
        with pytest.raises(NodeRefused, match="MAG-ADMIN-009"):
            await asking(AdminClient(folder).status)
        for _, writer in held:
            writer.close()
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    assert await asking(AdminClient(folder).status)
                    break
                except NodeRefused:
                    await asyncio.sleep(0)


async def test_a_command_cancelled_inside_of_the_node_is_a_coded_answer(folder: DataFolder) -> None:
    fake = operators()
    inner: list[asyncio.Task[Any]] = []

    async def ended_by_the_node(asked: Asked) -> bytes:
        task = asyncio.current_task()
        assert task is not None
        inner.append(task)
        return await wait(asked)

    fake.replies["wait"] = ended_by_the_node
    async with serving(folder.control_socket, fake):
        answer = asyncio.create_task(exchange(folder.control_socket, b'{"command": "wait"}\n'))
        await until(lambda: bool(inner))
        inner[0].cancel()
        assert (await answer)["error"]["code"] == "MAG-CORE-001"


# ---------------------------------------------------------------- the end of the node


async def test_stop_returns_when_the_node_is_gone(folder: DataFolder) -> None:
    fake = operators()
    async with serving(folder.control_socket, fake, idle_s=0.01) as server:
        stopping = asyncio.create_task(asking(AdminClient(folder).stop))
        await until(lambda: bool(fake.asked))
        done, _ = await asyncio.wait({stopping}, timeout=0.1)
        assert not done, "it returned although the node is still there"
        await server.hang_up()
        assert await stopping == {"pid": 7}


async def test_a_node_that_does_not_stop_in_time_is_a_timeout(folder: DataFolder) -> None:
    async with serving(folder.control_socket, operators()):
        with pytest.raises(DeadlineExceeded) as caught:
            await asking(AdminClient(folder, timeout_s=0.05).stop)
    assert caught.value.exit_code == 7


async def test_hanging_up_ends_what_runs(folder: DataFolder) -> None:
    fake = operators()
    async with serving(folder.control_socket, fake):
        answer = asyncio.create_task(asking(AdminClient(folder).ask, "wait"))
        await until(lambda: bool(fake.asked))
    assert fake.ended == ["wait"]
    with pytest.raises(ControlConnectionLost):
        await answer


# ---------------------------------------------------------------- the socket and the client


async def test_the_socket_is_private_and_goes_with_the_server(folder: DataFolder) -> None:
    async with serving(folder.control_socket, operators()):
        assert stat.S_IMODE(folder.control_socket.stat().st_mode) == 0o600
    assert not folder.control_socket.exists()
    with pytest.raises(NodeNotRunning):
        AdminClient(folder).status()


async def test_a_stale_socket_is_replaced(folder: DataFolder) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder.control_socket))
    with pytest.raises(NodeNotRunning):
        AdminClient(folder).status()
    async with serving(folder.control_socket, operators()):
        assert await asking(AdminClient(folder).status)


async def test_a_path_too_long_for_a_socket_works(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / ("x" * 120) / ("ä" * 60))
    folder.claim()
    async with serving(folder.control_socket, operators()):
        assert folder.control_socket.exists()
        assert await asking(AdminClient(folder).status) == STATUS


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"what?\n", b"{}\n", b"[]\n", b'{"result": 7}\n', b'{"result": {"pi', b'{"error": {}}\n', b"\xff\n",
        b'{"error": "no"}\n', b"[" * 100_000 + b"\n", b"x" * (MAX_ANSWER_BYTES + 200_000),
    ],
)  # fmt: skip
async def test_an_answer_we_do_not_understand_is_coded(folder: DataFolder, answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(talk, str(folder.control_socket)):
        with pytest.raises(ControlConnectionLost):
            await asking(AdminClient(folder, timeout_s=5).status)


def test_a_node_that_hangs_is_a_timeout_also_when_nobody_takes_the_connection(folder: DataFolder) -> None:
    """A listening socket has room for one or two: the first client waits for an answer, the others for room."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(folder.control_socket))
        silent.listen(0)
        held = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for client in held:
            client.setblocking(False)
            client.connect_ex(str(folder.control_socket))
        began_s = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            AdminClient(folder, timeout_s=0.05).status()
        assert time.monotonic() - began_s < DEADLINE_S
        for client in held:
            client.close()
