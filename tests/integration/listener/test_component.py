"""The listener as a component: ports, restarts, stopping, leaving nothing behind."""

from __future__ import annotations

import asyncio
import gc
import socket
from pathlib import Path
from typing import cast

import pytest
from tests.integration.listener.harness import BareContext, World, eventually, masked, request, running
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from magmobo.components.listener import errors
from magmobo.components.listener.component import ListenerComponent
from magmobo.components.listener.config import ListenerConfig
from magmobo.components.listener.websocket import WebSocketProtocol
from magmobo.contracts.component import Context
from magmobo.contracts.errors import Unavailable
from magmobo.contracts.health import HealthStatus


def unbooted(**settings: object) -> ListenerComponent:
    listener = ListenerComponent(cast(Context, BareContext()), None)
    listener.configure(ListenerConfig(**settings))  # type: ignore[arg-type]
    return listener


async def test_a_taken_port_is_named_with_the_way_out() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        listener = unbooted(port=port)
        with pytest.raises(errors.PortTaken, match=str(port)) as caught:
            await listener.boot()
    assert "--port 0" in caught.value.next_step()
    assert caught.value.code == "MAG-NET-001"
    await listener.shutdown(1.0)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_a_host_that_is_not_ours(host: str) -> None:
    with pytest.raises(errors.AddressUnavailable, match=host):
        await unbooted(host=host, port=0).boot()


async def test_the_address_is_known_from_boot_to_shutdown() -> None:
    listener = unbooted(port=0)
    with pytest.raises(Unavailable):
        _ = listener.address
    assert (await listener.health()).status is HealthStatus.UNHEALTHY
    await listener.boot()
    host, port = listener.address
    assert host == "127.0.0.1"
    assert port > 0
    assert listener.announce().urls == {"http": f"http://127.0.0.1:{port}"}
    await listener.start()
    assert (await listener.health()).status is HealthStatus.HEALTHY
    await listener.shutdown(1.0)
    with socket.socket() as successor:
        successor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        successor.bind(("127.0.0.1", port))


async def test_every_interface_and_ipv6_have_an_url_for_this_machine() -> None:
    for host, url in (("0.0.0.0", "http://127.0.0.1:"), ("::1", "http://[::1]:")):
        listener = unbooted(host=host, port=0)
        await listener.boot()
        assert listener.base_url.startswith(url)
        await listener.shutdown(1.0)


async def test_a_restart_keeps_the_port_and_the_mounts_and_refuses_nobody() -> None:
    async with running() as world:
        address = world.listener.address
        for _ in range(3):
            idle = await world.connect()
            idle.send(request())
            assert (await idle.response())[0] == 200
            await world.listener.stop()
            waiting = await world.connect()  # queued by the system while nobody serves
            waiting.send(request())
            idle.send(request())  # sent by a client that cannot know: answered, and told that it was the last
            status, headers, _ = await idle.response()
            assert (status, headers[b"connection"]) == (200, b"close")
            assert await idle.rest() == b""
            await world.listener.start()
            assert (await waiting.response())[0] == 200
            assert world.listener.address == address
            for client in (idle, waiting):
                await client.close()


async def test_stop_waits_for_the_answer_that_is_under_way() -> None:
    async with running(drain_timeout_s=5.0) as world:
        client = await world.connect()
        client.send(request(path=b"/http/wait"))
        await eventually(lambda: world.requests != [])
        stopping = asyncio.create_task(world.listener.stop())
        await asyncio.sleep(0)
        assert not stopping.done()
        world.release.set()
        status, headers, _ = await client.response()
        assert (status, headers[b"connection"]) == (200, b"close")
        await stopping
        await client.close()


async def test_stop_tells_a_request_it_cannot_wait_for() -> None:
    async with running(drain_timeout_s=0.1) as world:
        client = await world.connect()
        client.send(request(path=b"/http/wait"))
        await eventually(lambda: world.requests != [])
        await world.listener.stop()
        assert await client.problem() == (503, "MAG-NET-021")
        assert not world.server_tasks
        await client.close()


async def test_a_shutdown_without_time_still_ends_everything() -> None:
    async with running(drain_timeout_s=60.0) as world:
        client, host, port = await world.connect(), *world.listener.address
        client.send(request(path=b"/http/wait"))
        await eventually(lambda: world.requests != [])
        with pytest.raises(TimeoutError):
            await world.listener.shutdown(0.05)
        assert await client.rest() == b""
        await eventually(lambda: not len(world.connections))
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, port)
        await client.close()


async def test_stop_and_start_leave_no_task_and_no_descriptor() -> None:
    async with running() as world:
        await world.listener.stop()
        tasks, files = len(asyncio.all_tasks()), open_files()
        for _ in range(5):
            await world.listener.start()
            client = await world.open_websocket()
            other = await world.connect()
            other.send(request())
            assert (await other.response())[0] == 200
            client.send(masked(b"\x03\xe8", 8))
            await client.rest()
            for each in (client, other):
                await each.close()
            await world.listener.stop()
        await eventually(lambda: len(asyncio.all_tasks()) == tasks and open_files() == files)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_two_thousand_connections_leave_nothing_even_without_the_collector() -> None:
    """The parser of a connection holds its methods: without care only the cyclic collector frees an upgraded one."""
    async with running() as world:
        await churn(world, 50)
        gc.collect()
        gc.disable()
        try:
            await churn(world, 2_000)
            await eventually(lambda: not len(world.connections))
            await asyncio.sleep(0)
            alive = gc.get_objects()
            left = [item for item in alive if isinstance(item, HttpToolsProtocol | WebSocketProtocol)]
        finally:
            gc.enable()
        assert len(left) <= 1, left[:3]  # the last one may still stand in a local of the event loop


async def churn(world: World, count: int) -> None:
    """Open and close so many connections; every fourth stays plain HTTP, every fourth is refused."""
    for index in range(count):
        client = await world.connect()
        if index % 4 == 0:
            client.send(request())
            await client.response()
        elif index % 4 == 1:
            client.send(request(path=b"/nowhere", method=b"BAD{"))
            await client.response()
        else:
            client.send(upgrade_and_close)
            await client.rest()
        client.writer.close()
    world.sessions.clear()
    world.requests.clear()


upgrade_and_close = (
    b"GET /app/key HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
) + masked(b"\x03\xe8", 8)
