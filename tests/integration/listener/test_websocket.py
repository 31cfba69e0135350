"""Opening, talking over and closing WebSockets, over real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import struct

import pytest
import websockets
from tests.integration.listener.harness import (
    Client,
    World,
    eventually,
    masked,
    request,
    running,
    upgrade_request,
)

from magmobo.contracts.websocket import text_frame


async def closed_with(client: Client) -> int:
    """The code of the close frame that comes next, after which the server must end the connection."""
    opcode, payload = await client.frame()
    assert opcode == 8
    assert await client.rest() == b""
    await client.close()
    return int.from_bytes(payload[:2], "big")


async def test_an_independent_client_opens_talks_and_closes() -> None:
    async with running() as world:
        host, port = world.listener.address
        async with websockets.connect(f"ws://{host}:{port}/app/key?protocol=7") as client:
            assert client.response is not None
            assert "Sec-WebSocket-Extensions" not in client.response.headers  # offered by default, declined
            assert await client.recv() == "hello"
            await client.send("grüße")
            assert await client.recv() == "grüße"
            await client.send("x" * 60_000)
            assert await client.recv() == "x" * 60_000
            await (await client.ping())
        (session,) = world.sessions
        assert session.upgrade.path == "/app/key"
        assert session.upgrade.query == {"protocol": "7"}
        assert session.upgrade.client == "127.0.0.1"
        await eventually(lambda: session.closes == [1000])


async def test_frames_in_the_segment_of_the_request_are_kept() -> None:
    async with running() as world:
        client = await world.open_websocket(early=masked(b"first") + masked(b"second"))
        assert await client.frame() == (1, b"first")
        assert await client.frame() == (1, b"second")
        await client.close()


async def test_a_head_in_pieces_and_frames_byte_by_byte() -> None:
    async with running() as world:
        client = await world.connect()
        head = upgrade_request()
        for at in range(0, len(head), 7):
            client.send(head[at : at + 7])
            await client.drain()
            await asyncio.sleep(0)
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        assert await client.frame() == (1, b"hello")
        client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = masked(b"one") + masked(b"tw", fin=False) + masked(b"?", 9) + masked(b"o", 0)
        for byte in stream:
            client.send(bytes((byte,)))
            await client.drain()
            await asyncio.sleep(0)
        assert [await client.frame() for _ in range(3)] == [(1, b"one"), (10, b"?"), (1, b"two")]
        await client.close()


async def test_a_kept_alive_connection_is_upgraded() -> None:
    async with running() as world:
        client = await world.connect()
        for _ in range(2):
            client.send(request())
            assert (await client.response())[0] == 200
        client.send(upgrade_request())
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        assert await client.frame() == (1, b"hello")
        await client.close()


async def test_an_upgrade_behind_an_unanswered_request_is_not_done() -> None:
    async with running() as world:
        client = await world.connect()
        client.send(request(b"POST", b"/http/x", b"12345") + upgrade_request())
        status, headers, body = await client.response()
        assert (status, body) == (200, b"5 bytes")
        assert headers[b"connection"] == b"close"
        assert await client.rest() == b""
        assert not world.sessions
        await client.close()


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (upgrade_request().replace(b"HTTP/1.1", b"HTTP/1.0"), 400, "MAG-NET-019"),
        (upgrade_request(sec_websocket_version=b"8"), 426, "MAG-NET-018"),
        (upgrade_request(sec_websocket_key=b"short"), 400, "MAG-NET-019"),
        (upgrade_request(sec_websocket_key=None), 400, "MAG-NET-019"),
        (upgrade_request().replace(b"GET", b"POST"), 400, "MAG-NET-019"),
        (upgrade_request(host=b"evil.example"), 421, "MAG-NET-012"),
        (upgrade_request(host=None), 400, "MAG-NET-013"),
        (upgrade_request(b"/nowhere/"), 404, "MAG-NET-010"),
        (upgrade_request(b"/http/x"), 404, "MAG-NET-010"),
        (upgrade_request(b"/app/broken"), 500, "MAG-NET-017"),
        (upgrade_request(content_length=b"3") + b"abc", 400, "MAG-NET-019"),
        (upgrade_request(transfer_encoding=b"chunked") + b"0\r\n\r\n", 400, "MAG-NET-019"),
        (upgrade_request(upgrade=None), 426, "MAG-NET-018"),
        (upgrade_request(upgrade=b"h2c"), 426, "MAG-NET-018"),
        (upgrade_request(x=b"y" * 20_000), 431, "MAG-NET-014"),
    ],
)
async def test_refused_upgrades_say_why_and_leave_nothing(head: bytes, status: int, code: str) -> None:
    async with running() as world:
        client = await world.connect()
        client.send(head)
        assert await client.problem() == (status, code)
        await client.close()
        await eventually(lambda: not len(world.connections))
        assert not world.sessions


async def test_a_released_mount_refuses_but_keeps_what_it_has() -> None:
    async with running() as world:
        old = await world.open_websocket()
        world.mount.release()
        late = await world.connect()
        late.send(upgrade_request())
        assert await late.problem() == (503, "MAG-NET-011")
        old.send(masked(b"still here"))
        assert await old.frame() == (1, b"still here")
        world.listener.mount_websocket("/app/", world.make_session)
        new = await world.open_websocket()
        for client in (old, late, new):
            await client.close()


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\x81\x01a", 1002),
        (b"\xc1\x80\x00\x00\x00\x00", 1002),
        (masked(b"", 3), 1002),
        (masked(b"x", 0), 1002),
        (masked(b"x", 9, fin=False), 1002),
        (masked(b"\x03\xed", 8), 1002),
        (masked(b"\xff"), 1007),
        (masked(b"x", 2), 1003),
        (masked(b"x" * 65_537), 1009),
        (masked(b"raise"), 1011),
    ],
)
async def test_violations_are_closed_with_their_code(frames: bytes, code: int) -> None:
    async with running() as world:
        client = await world.open_websocket()
        client.send(frames)
        assert await closed_with(client) == code
        await eventually(lambda: world.sessions[0].closes == [code])


async def test_a_sender_of_ten_megabytes_reads_1009() -> None:
    """The peer is in the middle of sending: a reset would take the close frame away."""
    async with running() as world:
        client = await world.open_websocket()
        client.send(masked(b"x" * 10_000_000))
        assert await closed_with(client) == 1009


@pytest.mark.parametrize(("sent", "code"), [(b"\x03\xe8", 1000), (b"\x10\x68bye", 4200), (b"", 1005)])
async def test_the_peers_close_is_echoed(sent: bytes, code: int) -> None:
    async with running() as world:
        client = await world.open_websocket()
        client.send(masked(sent, 8) + masked(b"too late"))
        assert await client.frame() == (8, sent[:2])
        assert await client.rest() == b""
        await eventually(lambda: world.sessions[0].closes == [code])
        assert world.sessions[0].texts == []
        await client.close()


async def test_the_applications_close_waits_for_the_answer() -> None:
    async with running() as world:
        client = await world.open_websocket()
        client.send(masked(b"close 4009") + masked(b"ignored"))
        assert await client.frame() == (8, b"\x0f\xa9as asked")
        session = world.sessions[0]
        assert session.connection is not None
        session.connection.send_frames(text_frame(b"dropped"))
        session.connection.close(4001)
        client.send(masked(b"\x0f\xa9", 8))
        assert await client.rest() == b""
        await eventually(lambda: session.closes == [4009])
        assert session.texts == [b"close 4009"]
        session.connection.send_frames(text_frame(b"after the end"))
        session.connection.close(1000)
        session.connection.abort()
        assert session.connection.unsent_bytes == 0
        await client.close()


async def test_a_peer_that_does_not_answer_a_close_is_dropped() -> None:
    async with running(close_timeout_s=0.1) as world:
        client = await world.open_websocket()
        client.send(masked(b"close 4001"))
        assert await client.frame() == (8, b"\x0f\xa1as asked")
        assert await client.rest() == b""
        assert world.sessions[0].closes == [4001]
        await client.close()


async def test_a_lost_connection_is_1006() -> None:
    async with running() as world:
        ended, lost = await world.open_websocket(), await world.open_websocket()
        ended.writer.transport.abort()
        reset(lost)
        await eventually(lambda: [session.closes for session in world.sessions] == [[1006], [1006]])


def reset(client: Client) -> None:
    """End the connection with a reset, as a crashed peer does: the server sees an error, not an end."""
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


async def test_a_slow_client_gets_everything_in_order() -> None:
    """Twelve megabytes while nobody reads, sent by both ways, with answers to pings in between."""
    async with running() as world:
        client = await slow_client(world)
        connection = world.sessions[0].connection
        assert connection is not None
        expected = []
        for index in range(400):
            payload = b"%06d" % index + b"." * 30_000
            connection.send_frames(text_frame(payload))
            expected.append(payload)
        assert connection.unsent_bytes > 1_000_000
        for index in range(400, 500):  # while it drains: the transport and the descriptor take turns
            for payload in expected[(index - 400) * 4 : (index - 399) * 4]:
                assert await client.frame() == (1, payload)
            payload = b"%06d" % index
            connection.send_frames(text_frame(payload))
            expected.append(payload)
        for payload in expected[400:]:
            assert await client.frame() == (1, payload)
        await eventually(lambda: connection.unsent_bytes == 0)
        await client.close()


async def test_a_client_that_takes_nothing_is_dropped_at_the_cap() -> None:
    async with running(max_unsent_bytes=1_000_000) as world:
        client = await slow_client(world)
        connection = world.sessions[0].connection
        assert connection is not None
        frame = text_frame(b"." * 100_000)
        for _ in range(1_000):
            connection.send_frames(frame)
        await eventually(lambda: world.sessions[0].closes == [1006])
        await client.close()


async def slow_client(world: World) -> Client:
    client = await world.open_websocket()
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    return client


async def test_a_reused_descriptor_is_never_written_to() -> None:
    """The number of a closed socket belongs to somebody else: sends to the old connection must not reach it."""
    async with running() as world:
        client = await world.open_websocket()
        session = world.sessions[0]
        connection = session.connection
        assert connection is not None
        number = connection._fd  # type: ignore[attr-defined]
        descriptor_in_on_close: list[bool] = []
        original = session.on_close

        def on_close(code: int) -> None:
            descriptor_in_on_close.append(os.fstat(number).st_mode != 0)
            original(code)

        session.on_close = on_close  # type: ignore[method-assign]
        reset(client)
        await eventually(lambda: session.closes != [])
        assert descriptor_in_on_close == [True]  # still open: nobody else can have got the number before we forget it
        await eventually(lambda: is_closed(number))
        pairs: list[tuple[socket.socket, socket.socket]] = []
        while all(number not in (one.fileno(), two.fileno()) for one, two in pairs):
            pairs.append(socket.socketpair())
        connection.send_frames(text_frame(b"astray"))
        for one, two in pairs:
            for end in (one, two):
                end.setblocking(False)
                with pytest.raises(BlockingIOError):
                    end.recv(10)
            one.close()
            two.close()


def is_closed(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return True
    return False


async def test_too_many_connections() -> None:
    async with running(max_connections=3) as world:
        clients = [await world.open_websocket() for _ in range(3)]
        fourth = await world.connect()
        fourth.send(upgrade_request())
        assert await fourth.problem() == (503, "MAG-NET-016")
        await fourth.close()
        fifth = await world.connect()
        fifth.send(request())
        assert await fifth.problem() == (503, "MAG-NET-016")
        assert await fifth.rest() == b""
        probe = await world.connect()
        probe.send(request(path=b"/livez"))
        assert (await probe.response())[0] == 200
        await probe.close()
        await clients.pop().close()
        await eventually(lambda: len(world.connections) == 2)
        clients.append(await world.open_websocket())
        for client in clients:
            await client.close()


async def test_shutdown_lets_twenty_sessions_close_politely() -> None:
    async with running(drain_timeout_s=600.0, close_timeout_s=60.0) as world:
        clients = [await world.open_websocket() for _ in range(20)]

        async def answer(client: Client) -> int:
            opcode, payload = await client.frame()
            assert opcode == 8
            client.send(masked(payload[:2], 8))
            assert await client.rest() == b""
            await client.close()
            return int.from_bytes(payload[:2], "big")

        codes = asyncio.gather(*map(answer, clients))
        async with asyncio.timeout(30):  # nobody has to be waited out
            await world.listener.shutdown(600.0)
        assert await codes == [4200] * 20
        assert all(session.shutdowns == 1 and session.closes == [4200] for session in world.sessions)


async def test_sessions_outlive_a_restart() -> None:
    async with running() as world:
        client = await world.open_websocket()
        for number in range(3):
            await world.listener.stop()
            client.send(masked(b"while it is stopped %d" % number))
            assert await client.frame() == (1, b"while it is stopped %d" % number)
            await world.listener.start()
            client.send(masked(b"after %d" % number))
            assert await client.frame() == (1, b"after %d" % number)
        assert world.sessions[0].shutdowns == 0
        await client.close()


async def test_shutdown_ends_sessions_that_do_not_react() -> None:
    async with running(drain_timeout_s=0.1) as world:
        client = await world.open_websocket()
        world.sessions[0].on_server_shutdown = lambda: None  # type: ignore[method-assign]
        await world.listener.shutdown(5.0)
        assert await client.frame() == (8, b"\x03\xf4the server restarts")
        assert world.sessions[0].closes == [1012]
        await client.close()
