"""A restart of the listener at awkward moments: nobody's request, answer or session is lost by it."""

from __future__ import annotations

import asyncio
import socket

import pytest
from tests.integration.listener.harness import Client, World, eventually, masked, request, running, upgrade_request

BODY = b"x" * 10


def head(path: bytes, *, length: int) -> bytes:
    return b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (path, length)


async def restarted(world: World) -> None:
    await world.listener.stop()
    await world.listener.start()


@pytest.mark.parametrize("turns", range(6))
async def test_whoever_was_accepted_in_the_turn_of_the_stop_is_served(turns: int) -> None:
    async with running() as world:
        waiting = [socket.create_connection(world.listener.address) for _ in range(5)]  # the system accepts
        for one in waiting:
            one.sendall(request())
            one.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)
        await restarted(world)
        for one in waiting:
            client = Client(*await asyncio.open_connection(sock=one))
            assert (await client.response())[0] == 200
            await client.close()


async def test_a_body_that_is_half_sent_is_waited_for_and_answered() -> None:
    async with running(drain_timeout_s=10.0) as world:
        client = await world.connect()
        client.send(head(b"/http/echo", length=len(BODY)) + BODY[:5])
        await eventually(lambda: len(world.server_tasks) == 1)
        stopping = asyncio.create_task(world.listener.stop())
        await asyncio.sleep(0.01)
        assert not stopping.done(), "it did not wait for the body"
        client.send(BODY[5:])
        status, headers, body = await client.response()
        assert (status, headers[b"connection"], body) == (200, b"close", b"10 bytes")
        await stopping
        await client.close()


async def test_a_body_that_never_comes_holds_the_stop_no_longer_than_its_deadline() -> None:
    async with running(drain_timeout_s=0.1) as world:
        client = await world.connect()
        client.send(head(b"/http/echo", length=len(BODY)) + BODY[:5])
        await eventually(lambda: len(world.server_tasks) == 1)
        await restarted(world)
        assert not world.server_tasks
        await client.close()


async def test_requests_in_a_row_are_all_answered_and_then_nobody_waits() -> None:
    """Nor is the connection of a client that has got its answers torn down while it may write the next request."""
    async with running(drain_timeout_s=60.0, keep_alive_s=60) as world:
        client = await world.connect()
        client.send(request(path=b"/http/wait") + request() + request())
        await eventually(lambda: world.requests != [])
        stopping = asyncio.create_task(world.listener.stop())
        await asyncio.sleep(0.01)
        assert not stopping.done()
        world.release.set()
        answers = [await client.response() for _ in range(3)]
        assert [status for status, _, _ in answers] == [200, 200, 200]
        assert [headers.get(b"connection") for _, headers, _ in answers] == [None, None, b"close"]
        assert await client.rest() == b""
        async with asyncio.timeout(30):
            await stopping
        await client.close()


async def test_an_answer_that_has_begun_is_ended_and_the_connection_kept_for_one_more() -> None:
    """Its head said that the connection stays: to close behind it would lose the request that the client sends next."""
    async with running(drain_timeout_s=60.0, keep_alive_s=60) as world:
        client = await world.connect()
        client.send(request(path=b"/http/stream"))
        await eventually(lambda: world.streaming.is_set())
        stopping = asyncio.create_task(world.listener.stop())
        await asyncio.sleep(0.01)
        assert not stopping.done()
        world.release.set()
        status, headers, body = await client.response()
        assert (status, headers.get(b"connection"), body) == (200, None, b"1234")
        async with asyncio.timeout(30):
            await stopping
        client.send(request())
        status, headers, _ = await client.response()
        assert (status, headers[b"connection"]) == (200, b"close")
        assert await client.rest() == b""
        await client.close()


async def test_a_request_that_came_during_the_drain_is_not_ended_with_those_that_were_late() -> None:
    async with running(drain_timeout_s=3.0) as world:
        idle, stuck = await world.connect(), await world.connect()
        idle.send(request())
        assert (await idle.response())[0] == 200
        stuck.send(request(path=b"/http/wait"))
        await eventually(lambda: len(world.requests) == 2)
        stopping = asyncio.create_task(world.listener.stop())
        await asyncio.sleep(0)
        idle.send(request(path=b"/http/stream"))
        await eventually(lambda: world.streaming.is_set())
        assert await stuck.problem() == (503, "MAG-NET-021")
        await stopping
        world.release.set()
        assert (await idle.response())[2] == b"1234"
        for client in (idle, stuck):
            await client.close()


async def test_an_upgrade_whose_head_is_half_sent_becomes_a_session() -> None:
    async with running() as world:
        client = await world.connect()
        whole = upgrade_request(b"/app/key")
        client.send(whole[:40])
        await eventually(lambda: len(world.connections.http) == 1)
        await world.listener.stop()
        client.send(whole[40:])
        await eventually(lambda: len(world.sessions) == 1)
        await world.listener.start()
        client.send(masked(b"still here"))
        await eventually(lambda: world.sessions[0].texts == [b"still here"])
        await client.close()


async def test_sessions_go_on_through_many_restarts_and_nothing_grows() -> None:
    async with running() as world:
        clients = [await world.open_websocket() for _ in range(10)]
        await restarted(world)
        tasks = len(asyncio.all_tasks())
        for number in range(50):
            await restarted(world)
            for client in clients:
                client.send(masked(b"%d" % number))
        await eventually(lambda: all(len(one.texts) == 50 for one in world.sessions))
        assert all(not one.closes and not one.shutdowns for one in world.sessions)
        assert len(asyncio.all_tasks()) == tasks
        for client in clients:
            await client.close()
