"""The listener takes other settings while it serves: another address, other hosts, other limits; or refuses."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.listener.harness import (
    Client,
    World,
    eventually,
    masked,
    request,
    running,
    upgrade_request,
)

from magmobo.components.listener.config import ListenerConfig
from magmobo.components.listener.errors import PortTaken
from magmobo.components.listener.server import BACKLOG
from magmobo.components.listener.sockets import open_listening_socket
from magmobo.contracts.errors import ReloadRefused
from magmobo.contracts.settings import Effect
from magmobo.kernel.config.effects import effect_of


def listening() -> int:
    """Sockets of this process that listen."""
    inodes = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"}
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except OSError:
            continue
    return sum(link.removeprefix("socket:[").removesuffix("]") in inodes for link in links)


async def take(world: World, **changed: Any) -> None:
    """What a reload does with this component."""
    listener = world.listener
    await listener.prepare_reload(msgspec.structs.replace(listener._config, **changed), changed.keys())
    listener.commit_reload()


async def ask(client: Client, host: bytes = b"localhost") -> int:
    client.send(request().replace(b"host: localhost", b"host: " + host))
    return (await client.response())[0]


async def client_at(host: str, port: int) -> Client:
    return Client(*await asyncio.open_connection(host, port))


async def refused(host: str, port: int) -> bool:
    try:
        (await asyncio.open_connection(host, port))[1].close()
    except ConnectionRefusedError:
        return True
    return False


async def until_refused(host: str, port: int) -> None:
    async with asyncio.timeout(30):
        while not await refused(host, port):
            await asyncio.sleep(0.005)


def test_every_key_is_live() -> None:
    for field in ListenerConfig.__struct_fields__:
        assert effect_of(ListenerConfig, field, default=Effect.COMPONENT) is Effect.LIVE, field


async def test_the_port_moves_and_whoever_is_connected_stays() -> None:
    async with running() as world:
        kept, session = await world.connect(), await world.open_websocket()
        assert await ask(kept) == 200
        old = world.listener.address
        slow = await world.connect()
        slow.send(request(path=b"/http/wait"))
        await eventually(lambda: len(world.server_tasks) == 1)
        await take(world, port=_free_port())
        assert world.listener.address != old
        assert world.listener.base_url.endswith(f":{world.listener.address[1]}")
        await until_refused(*old)
        fresh = await world.connect()
        assert await ask(fresh) == 200
        assert await ask(kept) == 200
        session.send(masked(b"still here"))
        assert await session.frame() == (1, b"still here")
        world.release.set()
        assert (await slow.response())[0] == 200
        assert listening() == 2  # the port's own and its copy
        await world.listener.stop()
        await world.listener.start()
        again = await world.connect()
        assert await ask(again) == 200


async def test_whoever_waits_in_the_queue_of_the_former_port_is_served() -> None:
    async with running() as world:
        waiting = [socket.create_connection(world.listener.address) for _ in range(5)]  # the system accepts
        for one in waiting:
            one.sendall(request())
            one.setblocking(False)
        await take(world, port=_free_port())
        for one in waiting:
            client = Client(*await asyncio.open_connection(sock=one))
            assert (await client.response())[0] == 200
            await client.close()


async def test_loopback_and_every_address_on_the_same_port_and_back() -> None:
    async with running() as world:
        port = world.listener.address[1]
        kept = await world.connect()
        for host, outside in (("0.0.0.0", True), ("127.0.0.1", False), ("0.0.0.0", True)):
            await take(world, host=host)
            assert world.listener.address == (host, port)
            await eventually(lambda: listening() == 2)
            assert await refused("127.0.0.2", port) is not outside
            fresh = await client_at("127.0.0.1", port)
            assert await ask(fresh) == 200
            assert await ask(kept) == 200
            for address in ("127.0.0.1", "0.0.0.0"):
                with pytest.raises(PortTaken):  # another node is still told
                    await open_listening_socket(address, port, BACKLOG)
        assert await ask(kept, b"any.example") == 200
        await take(world, host="localhost")
        assert await ask(kept, b"any.example") == 421


async def test_the_same_address_by_another_name_keeps_the_socket() -> None:
    async with running() as world:
        before = world.listener._socket
        await take(world, host="localhost", port=world.listener.address[1])
        assert world.listener._socket is before
        client = await world.connect()
        assert await ask(client) == 200
        await world.listener.abort_reload()
        await world.listener.prepare_reload(world.listener._config, {"host"})
        await world.listener.abort_reload()
        assert world.listener._socket is before
        assert await ask(await world.connect()) == 200


@pytest.mark.parametrize(
    ("taken", "host", "code"),
    [(True, "127.0.0.1", "MAG-NET-001"), (True, "0.0.0.0", "MAG-NET-001"), (False, "203.0.113.9", "MAG-NET-003")],
)
async def test_an_address_that_cannot_be_had_is_refused_and_nothing_changes(taken: bool, host: str, code: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        async with running() as world:
            before, config = world.listener.address, world.listener._config
            port = other.getsockname()[1] if taken else _free_port()
            with pytest.raises(ReloadRefused, match=code):
                await take(world, host=host, port=port, max_connections=1)
            await world.listener.abort_reload()
            world.listener.commit_reload()  # a stray call takes nothing
            assert (world.listener.address, world.listener._config) == (before, config)
            assert await ask(await world.connect()) == 200


async def test_an_address_taken_on_our_own_port_is_refused_and_the_port_stays_closed_to_others() -> None:
    async with running() as world:
        port, ours = world.listener.address[1], world.listener._socket
        assert ours is not None
        with socket.create_server(("127.0.0.2", port)), pytest.raises(ReloadRefused, match="MAG-NET-001"):
            await take(world, host="0.0.0.0")
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
        await take(world, host="0.0.0.0")
        assert world.listener._socket is not ours
        assert world.listener._socket is not None
        assert world.listener._socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0


async def test_a_move_that_is_ended_by_a_stop_leaves_the_former_address() -> None:
    async with running() as world:
        old = world.listener.address
        world.listener._context.spawn = lambda coroutine, name: coroutine.close()  # type: ignore[assignment, method-assign]
        await take(world, port=_free_port())
        await world.listener.stop()
        assert await refused(*old)
        await world.listener.start()
        assert await ask(await world.connect()) == 200


async def test_another_component_refuses_and_the_new_port_is_given_back() -> None:
    async with running() as world:
        port, before = _free_port(), listening()
        await world.listener.prepare_reload(msgspec.structs.replace(world.listener._config, port=port), {"port"})
        assert not await refused("127.0.0.1", port)
        await world.listener.abort_reload()
        assert await refused("127.0.0.1", port)
        assert listening() == before
        assert await ask(await world.connect()) == 200


@pytest.mark.parametrize("turns", range(5))
async def test_a_restart_right_behind_a_move_leaves_one_port_and_it_is_served(turns: int) -> None:
    async with running() as world:
        await take(world, port=_free_port())
        for _ in range(turns):
            await asyncio.sleep(0)
        await world.listener.stop()
        await world.listener.start()
        assert await ask(await world.connect()) == 200
        await eventually(lambda: listening() == 2)


async def test_hosts_and_limits_hold_for_open_connections_too() -> None:
    async with running() as world:
        kept, session = await world.connect(), await world.open_websocket()
        assert await ask(kept, b"my.example") == 421
        await take(world, allowed_hosts=("my.example",))
        assert await ask(kept, b"my.example") == 200
        await take(world, max_head_bytes=1_024)
        kept.send(request(b"GET", b"/http/x", None, b"x: " + b"y" * 2_000))
        assert await kept.problem() == (431, "MAG-NET-014")
        await take(world, max_connections=1)
        crowd = await world.connect()
        assert await ask(crowd) == 503
        assert " of 1" in (await world.listener.health()).checks[1].detail
        await take(world, max_connections=10, max_message_bytes=2_000)
        fresh = await world.open_websocket()
        fresh.send(masked(b"x" * 2_001))
        assert (await fresh.frame())[1][:2] == (1009).to_bytes(2, "big")
        session.send(masked(b"x" * 2_001))  # it connected before
        assert await session.frame() == (1, b"x" * 2_001)
        await take(world, max_unsent_bytes=65_536)
        session.writer.transport.pause_reading()  # type: ignore[attr-defined]
        connection = world.sessions[0].connection
        assert connection is not None
        for _ in range(400):
            connection.send_frames(b"z" * 65_536)
        await eventually(lambda: world.sessions[0].closes == [1006])


async def test_timeouts_hold_for_open_connections_too() -> None:
    async with running(keep_alive_s=3_600, header_timeout_s=300, close_timeout_s=60) as world:
        idle, session = await world.connect(), await world.open_websocket()
        await take(world, keep_alive_s=1, header_timeout_s=0.05, close_timeout_s=0.05)
        assert await ask(idle) == 200
        assert await idle.rest() == b""
        late = await world.connect()
        late.send(b"GET /http/x HT")
        assert await late.problem() == (408, "MAG-NET-015")
        connection = world.sessions[0].connection
        assert connection is not None
        connection.close(4000, "bye")
        assert await session.rest()  # the close frame; then it is dropped for not answering


async def test_a_websocket_can_be_opened_on_the_new_port() -> None:
    async with running() as world:
        await take(world, port=_free_port())
        client = await world.open_websocket()
        client.send(masked(b"hi"))
        assert await client.frame() == (1, b"hi")
        raw = await world.connect()
        raw.send(upgrade_request(b"/nowhere/x"))
        assert (await raw.response())[0] == 404


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])
