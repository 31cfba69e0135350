"""Requests of extensions to real servers on loopback, with a name server of the test's own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.extensions.api.support import Authority, Seen, asking, redirect, reply, serving

from magmobo.contracts.errors import DeadlineExceeded
from magmobo.extensions.api.errors import AddressRefused, HeaderRefused, RequestFailed, ResponseTooLarge
from magmobo.extensions.api.http import MAX_BODY_BYTES, HttpArgs, HttpMethods
from magmobo.extensions.installed import Caller
from magx import wire

LOCAL = {"api.test": "127.0.0.1"}


async def test_a_request_goes_out_as_said_and_its_answer_comes_back() -> None:
    answer = reply(201, b"made", Content_Type="text/plain", X_One="1")
    async with serving(answer) as server, asking(f"api.test:{server.port}", names=LOCAL) as world:
        url = f"http://api.test:{server.port}/things?kind=a%20b#top"
        got = await world.ask(url, "POST", headers={"X-Token": "t", "Content-Type": "text/plain"}, body=b"hello")

    assert (got["status"], got["body"]) == (201, b"made")
    assert (got["headers"]["content-type"], got["headers"]["x-one"]) == ("text/plain", "1")
    [seen] = server.seen
    assert (seen.line, seen.body) == ("POST /things?kind=a%20b HTTP/1.1", b"hello")
    assert (seen.headers["host"], seen.headers["x-token"]) == (f"api.test:{server.port}", "t")
    assert seen.headers["user-agent"] == "asker/1.0.0 (MagMoBo extension)"
    assert set(seen.headers) == {"host", "x-token", "content-type", "content-length", "user-agent"}
    assert msgspec.msgpack.decode(wire.raw(got)) == got


@pytest.mark.parametrize(("method", "length"), [("GET", None), ("DELETE", None), ("POST", "0"), ("PATCH", "0")])
async def test_a_request_without_a_body_says_so_where_one_is_expected(method: str, length: str | None) -> None:
    async with serving(reply()) as server, asking(f"api.test:{server.port}", names=LOCAL) as world:
        await world.ask(f"http://api.test:{server.port}/", method)
    assert server.seen[0].headers.get("content-length") == length


async def test_connections_are_kept_and_their_name_is_looked_up_once() -> None:
    async with serving(reply()) as server, asking(f"api.test:{server.port}", names=LOCAL) as world:
        for _ in range(3):
            await world.ask(f"http://api.test:{server.port}/")
        assert (server.connections, len(server.seen), world.names.asked) == (1, 3, ["api.test"])
        world.http.forget("asker")
        await world.ask(f"http://api.test:{server.port}/")
        assert (server.connections, world.names.asked) == (2, ["api.test", "api.test"])


async def test_an_address_that_does_not_answer_gives_way_to_the_next() -> None:
    names = {"api.test": [["127.0.0.3", "127.0.0.1"]]}
    async with (
        serving(reply(204)) as server,
        asking(f"api.test:{server.port}", names=names, networks=["127.0.0.0/8"]) as world,
    ):
        assert (await world.ask(f"http://api.test:{server.port}/"))["status"] == 204


@pytest.mark.parametrize(
    ("status", "method", "followed", "body"),
    [
        (301, "POST", "GET", b""), (302, "PUT", "GET", b""), (303, "POST", "GET", b""), (303, "HEAD", "HEAD", b""),
        (307, "POST", "POST", b"x"), (308, "PUT", "PUT", b"x"), (302, "GET", "GET", b""),
    ],
)  # fmt: skip
async def test_redirects_are_followed_as_browsers_do(status: int, method: str, followed: str, body: bytes) -> None:
    def answer(seen: Seen, _: Any) -> bytes:
        return redirect("/b?c", status) if seen.path == "/a" else reply(200)

    async with serving(answer) as server, asking(f"api.test:{server.port}", names=LOCAL) as world:
        sent = b"x" if method in ("POST", "PUT") else b""
        await world.ask(f"http://api.test:{server.port}/a", method, body=sent, headers={"authorization": "Bearer t"})
    assert [seen.line for seen in server.seen] == [f"{method} /a HTTP/1.1", f"{followed} /b?c HTTP/1.1"]
    assert server.seen[1].body == body
    assert server.seen[1].headers["authorization"] == "Bearer t"


async def test_a_304_and_a_redirect_without_a_place_are_answers() -> None:
    def answer(seen: Seen, _: Any) -> bytes:
        return reply(int(seen.path[1:]))

    async with serving(answer) as server, asking(f"api.test:{server.port}", names=LOCAL) as world:
        for status in (304, 302, 404, 500):
            assert (await world.ask(f"http://api.test:{server.port}/{status}"))["status"] == status


async def test_headers_that_come_twice_are_joined() -> None:
    answer = b"HTTP/1.1 200 OK\r\nA: 1\r\na: 2\r\ncontent-length: 0\r\n\r\n"
    async with serving(answer) as server, asking(f"api.test:{server.port}", names=LOCAL) as world:
        assert (await world.ask(f"http://api.test:{server.port}/"))["headers"]["a"] == "1, 2"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "x"}, {"Content-Length": "3"}, {"transfer-encoding": "chunked"}, {"Connection": "close"},
        {"Proxy-Authorization": "x"}, {"a": "1", "A": "2"}, {"a b": "1"}, {"": "1"}, {"a": "x\r\nb: y"}, {"a": "é"},
        {"a": "x" * 20_000}, {"a\n": "x"}, {"a": "\x00"}, {"a": "x\n"},
    ],
)  # fmt: skip
async def test_headers_of_the_connection_and_broken_ones_are_refused(headers: dict[str, str]) -> None:
    async with serving(reply()) as server, asking(f"api.test:{server.port}", names=LOCAL) as world:
        with pytest.raises(HeaderRefused):
            await world.ask(f"http://api.test:{server.port}/", headers=headers)
    assert server.connections == 0


@pytest.mark.parametrize(
    "args",
    [
        {"method": "CONNECT"}, {"method": "get"}, {"method": "GET\r\nX"}, {"timeout_s": 0}, {"timeout_s": 31},
        {"body": b"x" * (MAX_BODY_BYTES + 1)}, {"headers": {str(n): "" for n in range(51)}}, {"proxy": "http://x"},
    ],
)  # fmt: skip
def test_arguments_are_bounded(args: dict[str, Any]) -> None:
    packed = msgspec.msgpack.encode({"method": "GET", "url": "https://a.b/"} | args)
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(packed, type=HttpArgs)


async def test_an_answer_may_be_as_large_as_the_limit_and_no_larger() -> None:
    def answer(seen: Seen, _: Any) -> bytes:
        return reply(200, b"x" * int(seen.path[1:]))

    async with serving(answer) as server, asking(f"api.test:{server.port}", names=LOCAL) as world:
        got = await world.ask(f"http://api.test:{server.port}/{MAX_BODY_BYTES}")
        assert len(got["body"]) == MAX_BODY_BYTES
        with pytest.raises(ResponseTooLarge):
            await world.ask(f"http://api.test:{server.port}/{MAX_BODY_BYTES + 1}")
        assert (await world.ask(f"http://api.test:{server.port}/1"))["body"] == b"x"


async def test_a_request_ends_at_its_own_deadline_and_at_its_callers() -> None:
    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    async with serving(never) as server, asking(f"api.test:{server.port}", names=LOCAL) as world:
        for times in ({"timeout_s": 0.05}, {"deadline_s": 0.05}, {"deadline_s": -1.0}):
            with pytest.raises(DeadlineExceeded):
                await world.ask(f"http://api.test:{server.port}/", **times)


async def test_what_does_not_answer_in_http_is_told_without_its_bytes() -> None:
    async with serving(b"SSH-2.0-secret\r\n\r\n") as server, asking(f"api.test:{server.port}", names=LOCAL) as world:
        with pytest.raises(RequestFailed, match="does not speak HTTP") as refused:
            await world.ask(f"http://api.test:{server.port}/")
        assert "secret" not in str(refused.value)
    async with asking("api.test:9", "nobody.test", "none.test", names={**LOCAL, "none.test": [[]]}) as world:
        with pytest.raises(RequestFailed, match="takes no connection") as refused:
            await world.ask("http://api.test:9/")
        assert "127.0.0.1" not in str(refused.value)
        with pytest.raises(RequestFailed, match="cannot be resolved"):
            await world.ask("http://nobody.test/")
        with pytest.raises(RequestFailed, match="no address"):
            await world.ask("http://none.test/")


async def test_certificates_are_checked_for_the_name_though_the_address_is_dialled(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    names = {"api.test": "127.0.0.1", "other.test": "127.0.0.1"}
    async with serving(reply(204), tls=authority.server("api.test")) as server:
        hosts = [f"api.test:{server.port}", f"other.test:{server.port}"]
        async with asking(*hosts, names=names, trust=authority.trust) as world:
            assert (await world.ask(f"https://api.test:{server.port}/"))["status"] == 204
            with pytest.raises(RequestFailed, match="certificate"):
                await world.ask(f"https://other.test:{server.port}/")
        async with asking(*hosts, names=names) as world:
            with pytest.raises(RequestFailed, match="certificate"):
                await world.ask(f"https://api.test:{server.port}/")
    assert len(server.seen) == 1


async def test_a_rule_that_changes_counts_for_kept_connections_too() -> None:
    async with serving(reply()) as server, asking(f"api.test:{server.port}", names=LOCAL) as world:
        await world.ask(f"http://api.test:{server.port}/")
        world.http.adopt([])
        with pytest.raises(AddressRefused):
            await world.ask(f"http://api.test:{server.port}/")
        world.http.adopt(["127.0.0.0/8"])
        await world.ask(f"http://api.test:{server.port}/")
    assert len(server.seen) == 2


async def test_what_is_under_way_ends_before_its_connections_do() -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def answer(seen: Seen, _: Any) -> bytes:
        arrived.set()
        await go.wait()
        return reply(200, b"late")

    async with serving(answer) as server, asking(f"api.test:{server.port}", names=LOCAL) as world:
        request = asyncio.create_task(world.ask(f"http://api.test:{server.port}/"))
        async with asyncio.timeout(30):
            await arrived.wait()
            world.http.forget("asker")
            await asyncio.sleep(0)
            go.set()
            assert (await request)["body"] == b"late"
            await server.nobody.wait()


async def test_many_requests_share_few_connections() -> None:
    async def answer(seen: Seen, _: Any) -> bytes:
        await asyncio.sleep(0)
        return reply(200, seen.path.encode())

    async with serving(answer) as server, asking(f"api.test:{server.port}", names=LOCAL) as world:
        urls = [f"http://api.test:{server.port}/{n}" for n in range(40)]
        answers = await asyncio.gather(*map(world.ask, urls))
    assert [answer["body"] for answer in answers] == [f"/{n}".encode() for n in range(40)]
    assert 1 < server.most <= 8


async def test_the_system_resolves_where_nobody_else_does() -> None:
    http = HttpMethods(denied=lambda *_: None, networks=["127.0.0.0/8", "::1/128"])
    async with serving(reply(204)) as server, asking(f"localhost:{server.port}", names={}) as world:
        caller = Caller(world.extension, (), asyncio.get_running_loop().time() + 10)
        for _ in range(2):  # also after it was closed once
            try:
                got = await http.request(caller, HttpArgs(method="GET", url=f"http://localhost:{server.port}/"))
            finally:
                await http.close()
            assert got["status"] == 204


def test_the_method_takes_the_capability() -> None:
    [method] = HttpMethods(denied=lambda *_: None).methods()
    assert (method.name, method.capability, method.args) == ("http.request", "network.outbound", HttpArgs)
