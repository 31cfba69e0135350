"""The operators' HTTP listener over real sockets: what it answers, what it refuses, what it survives."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from magmobo.admin.errors import AdminPortTaken
from magmobo.admin.http import AdminHttp, Reply
from magmobo.testing.harness import footprint


def page(headers: Mapping[str, str], query: str) -> Reply:
    return Reply(200, f"{headers.get('accept', '')}?{query}".encode())


@asynccontextmanager
async def serving(host: str = "127.0.0.1") -> AsyncIterator[AdminHttp]:
    http = AdminHttp(host, 0, {"/metrics": page})
    await http.open()
    try:
        yield http
    finally:
        await http.close()


async def asked(http: AdminHttp, request: bytes) -> bytes:
    host, _, port = http.base_url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()


def get(path: str, *, method: str = "GET", host: str = "127.0.0.1") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/x\r\n\r\n".encode()


async def test_a_page_gets_headers_and_query() -> None:
    async with serving() as http:
        head, _, body = (await asked(http, get("/metrics?verbose"))).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert body == b"text/x?verbose"
        head, _, body = (await asked(http, get("/metrics", method="HEAD"))).partition(b"\r\n\r\n")
        assert b"content-length: 7" in head
        assert body == b""


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/other"), 404),
        (get("/metrics", method="POST"), 405),
        (get("/metrics", host="evil.example"), 421),
        (get("/metrics", host="evil.example:9500"), 421),
        (b"GET /metrics\r\n\r\n", 400),
        (b"\x00\xff\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nx: " + b"a" * 20_000 + b"\r\n\r\n", 431),
    ],
)
async def test_what_is_refused(request_bytes: bytes, status: int) -> None:
    async with serving() as http:
        assert (await asked(http, request_bytes)).startswith(f"HTTP/1.1 {status} ".encode())
        assert (await asked(http, get("/metrics"))).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("host", ["localhost", "localhost:9500", "127.0.0.1:1", "[::1]:9500", "[::1]", ""])
async def test_hosts_that_name_this_machine(host: str) -> None:
    async with serving() as http:
        assert (await asked(http, get("/metrics", host=host))).startswith(b"HTTP/1.1 200 ")


async def test_silent_clients_hold_nobody_up_and_nothing_is_left() -> None:
    before = footprint()
    async with serving() as http:
        port = int(http.base_url.rpartition(":")[2])
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        assert (await asked(http, get("/metrics"))).startswith(b"HTTP/1.1 200 ")
    for _, writer in silent:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    assert footprint().tasks == before.tasks


async def test_a_port_of_the_users_that_is_taken_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(AdminPortTaken, match="cannot use"):
            await AdminHttp("127.0.0.1", taken.getsockname()[1], {}).open()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 100, "192.0.2.1"])
async def test_a_host_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(AdminPortTaken):
        await AdminHttp(host, None, {}).open()


async def test_without_a_port_two_nodes_get_along() -> None:
    first, second = AdminHttp("127.0.0.1", None, {}), AdminHttp("127.0.0.1", None, {})
    await first.open()
    await second.open()
    assert first.base_url != second.base_url
    await first.close()
    await second.close()


async def test_a_thousand_silent_connections_keep_no_probe_out() -> None:
    async with serving() as http:
        port = int(http.base_url.rpartition(":")[2])
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(1_000)]
        for _, writer in silent[::10]:
            writer.write(b"GET /met")
        for _ in range(5):
            assert (await asked(http, get("/metrics"))).startswith(b"HTTP/1.1 200 ")
        assert len(http._conversations) <= 32
        for _, writer in silent:
            writer.close()


async def test_a_page_that_fails_is_an_answer() -> None:
    def broken(headers: Mapping[str, str], query: str) -> Reply:
        raise RuntimeError("secret detail")

    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    http = AdminHttp("127.0.0.1", 0, {"/metrics": broken})
    await http.open()
    reply = await asked(http, get("/metrics"))
    await http.close()
    assert reply.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in reply
    assert told == ["/metrics failed"]


async def test_names_count_on_loopback_alone() -> None:
    async with serving("0.0.0.0") as http:
        assert http.base_url.startswith("http://127.0.0.1:")
        assert (await asked(http, get("/metrics", host="node7.example"))).startswith(b"HTTP/1.1 200 ")
    async with serving("::1") as http:
        assert http.base_url.startswith("http://[::1]:")
        assert (await asked(http, get("/metrics", host="node7.example"))).startswith(b"HTTP/1.1 421 ")
