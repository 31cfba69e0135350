"""An extension that may ask one host tries to reach what it may not: this machine, its cloud, its neighbours.

The attacks are cases 13 and 15 of the hostile list. `victim` stands for what must never be reached: a real server on
127.0.0.1. The extension's own host, evil.test, is a real server on 127.0.0.2, the one address that the tests allow.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import Struct
from tests.unit.extensions.api.support import Names, Seen, Server, World, asking, redirect, reply, serving

from magmobo.contracts.errors import DeadlineExceeded, MagError
from magmobo.extensions.api.errors import (
    AddressRefused,
    HostNotGranted,
    RequestFailed,
    ResponseTooLarge,
    TooManyRedirects,
    UrlRefused,
)

OURS = "127.0.0.2"


class Scene(Struct):
    world: World
    victim: Server
    evil: Server

    def url(self, host: str = "evil.test", path: str = "/") -> str:
        return f"http://{host}:{self.victim.port}{path}"


def _granted(port: int) -> list[str]:
    return [f"{name}:{port}" for name in ("evil.test", "*.evil.test", "0x7f000001", "localhost")]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    names = Names(evil_test=OURS)
    async with (
        serving(reply(200, b"secret of this machine")) as victim,
        serving(reply(200, b"fine"), host=OURS, port=victim.port) as evil,
        asking(*_granted(victim.port), names=names, networks=[f"{OURS}/32"]) as world,
    ):
        yield Scene(world, victim, evil)
    assert victim.connections == 0, "the victim was reached"


async def test_the_scene_works_when_nobody_attacks(scene: Scene) -> None:
    assert (await scene.world.ask(scene.url()))["body"] == b"fine"


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254", "127.0.0.1", "0.0.0.0", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "127.1",
        "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "localhost.", "evil.test@127.0.0.1", "127.0.0.1#@evil.test",
        "evil.test\\@127.0.0.1", "①②⑦.⓪.⓪.①", "metadata.google.internal", "evil.test.", "evil.test%00.victim",
        "xevil.test", "evil.test.victim.test",
    ],
)  # fmt: skip
async def test_other_spellings_of_other_hosts_are_refused(scene: Scene, host: str) -> None:
    with pytest.raises((UrlRefused, HostNotGranted)):
        await scene.world.ask(scene.url(host))
    assert scene.world.names.asked == []


@pytest.mark.parametrize("scheme", ["file", "ftp", "gopher", "dict", "unix", "ws", "jar", "data"])
async def test_other_schemes_are_refused(scene: Scene, scheme: str) -> None:
    with pytest.raises(UrlRefused):
        await scene.world.ask(f"{scheme}://evil.test/etc/passwd")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "::", "::1", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1", "::127.0.0.1", "169.254.169.254",
        "::ffff:169.254.169.254", "fd00:ec2::254", "10.0.0.1", "192.168.0.1", "172.17.0.1", "100.100.100.200",
        "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:0:1::1", "fe80::1%lo", "224.0.0.251", "255.255.255.255",
        "127.0.0.3",
    ],
)  # fmt: skip
async def test_a_name_of_its_own_may_not_mean_an_inner_address(scene: Scene, address: str) -> None:
    scene.world.names.names["evil.test"] = address
    with pytest.raises(AddressRefused) as refused:
        await scene.world.ask(scene.url())
    assert address not in str(refused.value)
    assert scene.world.denials.noted == [("asker", "network.outbound", "http.request", "address")]


@pytest.mark.parametrize("answer", [[OURS, "127.0.0.1"], ["127.0.0.1", OURS], [OURS, "::1"]])
async def test_one_inner_address_among_others_refuses_them_all(scene: Scene, answer: list[str]) -> None:
    scene.world.names.names["evil.test"] = [answer]
    with pytest.raises(AddressRefused):
        await scene.world.ask(scene.url())
    assert scene.evil.connections == 0


async def test_a_name_that_changes_its_mind_between_check_and_connection(scene: Scene) -> None:
    """DNS rebinding: the second answer is the victim's address. It is never asked for while one is connected."""
    scene.world.names.names["evil.test"] = [OURS, "127.0.0.1"]
    assert (await scene.world.ask(scene.url()))["body"] == b"fine"
    assert scene.world.names.asked == ["evil.test"]
    scene.world.http.forget("asker")
    with pytest.raises(AddressRefused):
        await scene.world.ask(scene.url())
    assert scene.world.names.asked == ["evil.test", "evil.test"]


async def test_rebinding_by_a_redirect_to_the_same_name(scene: Scene) -> None:
    scene.world.names.names["evil.test"] = [OURS, "127.0.0.1"]

    def answer(seen: Seen, _: Any) -> bytes:
        return reply(302, location=scene.url(path="/again"), connection="close")

    scene.evil.answer = answer
    with pytest.raises(AddressRefused):
        await scene.world.ask(scene.url())
    assert [seen.path for seen in scene.evil.seen] == ["/"]


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://169.254.169.254/latest/meta-data/",
        "//[::1]:{port}/", "http://2130706433:{port}/", "http://victim.test:{port}/", "file:///etc/passwd",
        "http://evil.test@127.0.0.1:{port}/", "http://evil.test\\@127.0.0.1:{port}/", "http://evil.test:22/",
        "gopher://127.0.0.1:{port}/_x", "http://x\t.evil.test/", "http://inner.evil.test:{port}/",
        "http://0x7f000001:{port}/",
    ],
)  # fmt: skip
async def test_redirects_are_checked_like_requests(scene: Scene, location: str) -> None:
    names = scene.world.names.names
    names["victim.test"] = names["localhost"] = names["inner.evil.test"] = names["0x7f000001"] = "127.0.0.1"
    scene.evil.answer = redirect(location.format(port=scene.victim.port))
    with pytest.raises((UrlRefused, HostNotGranted, AddressRefused)):
        await scene.world.ask(scene.url())
    assert len(scene.evil.seen) == 1


async def test_redirects_end(scene: Scene) -> None:
    scene.evil.answer = redirect("/")
    with pytest.raises(TooManyRedirects):
        await scene.world.ask(scene.url())
    assert len(scene.evil.seen) == 6


async def test_a_capability_taken_back_during_a_request_ends_it_at_the_next_hop(scene: Scene) -> None:
    def answer(seen: Seen, _: Any) -> bytes:
        scene.world.extension.grants = {}
        return redirect("/next")

    scene.evil.answer = answer
    with pytest.raises(HostNotGranted):
        await scene.world.ask(scene.url())
    assert [seen.path for seen in scene.evil.seen] == ["/"]
    assert scene.world.denials.noted == [("asker", "network.outbound", "http.request", "host")]


async def test_secrets_are_not_carried_to_another_host(scene: Scene) -> None:
    scene.world.names.names["other.evil.test"] = OURS
    scene.evil.answer = lambda seen, _: (
        redirect(scene.url("other.evil.test"), 307) if "other" not in seen.headers["host"] else reply()
    )
    secrets = {"Authorization": "Bearer t", "Cookie": "c=1", "X-Api-Key": "k", "Accept": "text/plain"}
    await scene.world.ask(scene.url(), "POST", headers=secrets, body=b"x")
    first, second = scene.evil.seen
    assert first.headers["authorization"] == "Bearer t"
    assert set(second.headers) == {"host", "accept", "user-agent", "content-length"}


async def test_proxies_and_files_of_the_environment_count_for_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{scene.victim.port}")
    assert (await scene.world.ask(scene.url()))["body"] == b"fine"


@pytest.mark.parametrize(
    "path", ["/ HTTP/1.1\r\nHost: victim", "/\r\n\r\nGET /admin HTTP/1.1", "/\x00", "/\u010d\u010a"]
)
async def test_a_request_cannot_be_two(scene: Scene, path: str) -> None:
    with pytest.raises(UrlRefused):
        await scene.world.ask(scene.url(path=path))
    with pytest.raises(MagError):
        await scene.world.ask(scene.url(), headers={"x": path})
    assert scene.evil.seen == []


async def test_a_flood_of_an_answer_is_cut(scene: Scene) -> None:
    async def endless(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            await writer.drain()

    scene.evil.answer = endless
    with pytest.raises(ResponseTooLarge):
        await scene.world.ask(scene.url())


async def test_a_flood_of_headers_is_cut(scene: Scene) -> None:
    async def endless(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(100_000):
            if writer.is_closing():
                break
            writer.write(b"x-%d: %s\r\n" % (number, b"y" * 1000))
            await writer.drain()

    scene.evil.answer = endless
    with pytest.raises(RequestFailed):
        await scene.world.ask(scene.url())


async def test_an_answer_that_drips_ends_at_the_deadline(scene: Scene) -> None:
    async def dripping(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.01)

    scene.evil.answer = dripping
    with pytest.raises(DeadlineExceeded):
        await scene.world.ask(scene.url(), timeout_s=0.1)


async def test_a_compressed_bomb_is_handed_over_as_it_came(scene: Scene) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    scene.evil.answer = reply(200, bomb, content_encoding="gzip")
    assert (await scene.world.ask(scene.url()))["body"] == bomb


async def test_a_name_server_that_never_answers_ends_at_the_deadline_and_leaves_others_alone(scene: Scene) -> None:
    class Stuck(Names):
        async def __call__(self, host: str, port: int) -> Any:
            if host == "slow.evil.test":
                await asyncio.Event().wait()
            return await super().__call__(host, port)

    book = Stuck(evil_test=OURS)
    host = f"evil.test:{scene.victim.port}"
    slow_host = f"slow.evil.test:{scene.victim.port}"
    async with asking(host, slow_host, names=book, networks=[f"{OURS}/32"]) as world:
        stuck = [asyncio.create_task(world.ask(scene.url("slow.evil.test"), timeout_s=0.2)) for _ in range(8)]
        await asyncio.sleep(0)
        other = type(world.extension)("other", "1", "", world.extension.manifest, world.extension.code_dir, "")
        other.grants = world.extension.grants
        neighbour = World(world.http, other, world.denials, book)
        assert (await neighbour.ask(scene.url()))["body"] == b"fine"
        for task in stuck:
            with pytest.raises(DeadlineExceeded):
                await task
