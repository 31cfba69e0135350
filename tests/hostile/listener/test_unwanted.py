"""A client that goes on sending after it was answered."""

from __future__ import annotations

import asyncio

from tests.integration.listener.harness import DEADLINE_S, running

CHUNK = b"10000\r\n" + b"x" * 65_536 + b"\r\n"


async def test_an_upload_that_nobody_wants_is_cut() -> None:
    async with running() as world:
        client = await world.connect()
        client.send(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK)
        status, _ = await client.problem()
        sent_bytes = 0
        try:
            async with asyncio.timeout(DEADLINE_S):
                while sent_bytes < 1_073_741_824:
                    client.send(CHUNK)
                    await client.drain()
                    sent_bytes += len(CHUNK)
        except ConnectionError:
            pass
        await client.close()

        assert status == 404
        assert 60_000_000 < sent_bytes < 200_000_000


async def test_an_unwanted_upload_of_usual_size_ends_politely() -> None:
    async with running() as world:
        client = await world.connect()
        client.send(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n")
        status, _ = await client.problem()
        client.send(b"x" * 10_000_000 + b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        again, _, _ = await client.response()
        await client.close()

        assert (status, again) == (404, 200)
