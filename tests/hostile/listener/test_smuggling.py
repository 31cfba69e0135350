"""Requests that a proxy and this port could cut differently: refused, and nothing behind them is ever served."""

from __future__ import annotations

import pytest
from tests.integration.listener.harness import running

POST = b"POST /http/outer HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /http/outer HTTP/1.1\r\nHost: localhost\r\n"
INNER = b"GET /http/inner HTTP/1.1\r\nHost: localhost\r\n\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: %d\r\n\r\n" % len(INNER)


@pytest.mark.parametrize(
    "data",
    [
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 0\r\nContent-Length: 46\r\n\r\n",
        POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        POST + b"Content-Length: 2, 2\r\n\r\n{}",
        POST + b"Content-Length: +2\r\n\r\n{}",
        POST + b"Content-Length: -2\r\n\r\n{}",
        POST + b"Content-Length: 0x2\r\n\r\n{}",
        POST + b"Content-Length: 2 2\r\n\r\n{}",
        POST + b"Content-Length: 18446744073709551618\r\n\r\n{}",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n2 \r\n{}\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n",
        POST + UPGRADE,
        GET + b"X: a\r\n b\r\n\r\n",
        GET + b"X: a\0b\r\n\r\n",
        GET + b"X: a\rY: b\r\n\r\n",
        GET + b"X: a\nContent-Length: 46\r\n\r\n",
        GET[:-2] + b"\n\n",
        b"GET /http/a\0b HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /http/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /http/a b HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /http/outer HTTP/1.2\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT evil.example:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=lambda data: repr(data.partition(b"\r\n")[2][17:70]),
)
async def test_what_can_be_cut_in_two_ways_ends_the_connection(data: bytes) -> None:
    async with running() as world:
        client = await world.connect()
        client.send(data + INNER)
        answer = await client.rest()
        await client.close()

        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"\r\n\r\n") == 1  # one head, one answer
        assert not [path for _, path, _ in world.requests if path == "/http/inner"]


async def test_a_length_is_the_length_whatever_stands_inside() -> None:
    """A request in the body of a request is a body."""
    async with running() as world:
        client = await world.connect()
        client.send(GET + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(INNER) + INNER + INNER)
        await client.rest()
        await client.close()

        assert [path for _, path, _ in world.requests] == ["/http/outer"]


@pytest.mark.parametrize(
    "head",
    [
        b"GET /http/x HTTP/1.1\r\nHost: evil.example\r\n",
        b"GET http://localhost/http/x HTTP/1.1\r\nHost: evil.example\r\n",
        b"GET /http/x HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n",
        b"GET /http/x HTTP/1.1\r\nHost: localhost@evil.example\r\n",
        b"GET /http/x HTTP/1.1\r\nHost: localhost, evil.example\r\n",
        b"GET /http/x HTTP/1.1\r\nHost: localhost.\r\n",
        b"GET /http/x HTTP/1.1\r\n",
        b"GET /app/x HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    ],
    ids=lambda head: repr(head[4:60]),
)
async def test_a_page_whose_name_was_pointed_at_this_machine_gets_nothing(head: bytes) -> None:
    async with running() as world:
        client = await world.connect()
        client.send(head + b"\r\n")
        status, _ = await client.problem()
        await client.close()

        assert status in (400, 421)
        assert not world.requests
        assert not world.sessions
