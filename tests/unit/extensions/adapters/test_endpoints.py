"""Extensions' endpoints: who is asked, what they are told, and what of their answers reaches the client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.extensions.adapters.support import Answer, Door, Gateway, Worker, door, extension

from magmobo.contracts.errors import HookDenied
from magmobo.contracts.hooks import EndpointContext
from magmobo.extensions.adapters import maggate
from magmobo.extensions.adapters.exchange import MAX_BODY_BYTES


async def test_a_request_is_told_to_the_extension_and_its_answer_to_the_client() -> None:
    said = {"status": 201, "headers": {"Content-Type": "text/plain", "X-Ext-Mood": "fine"}, "body": b"made"}
    d, worker = await door({"method": "POST", "timeout_ms": 2_000}, answer=said)
    headers = {"X-Hub-Signature": "s", "Accept": "a", "Cookie": "c=1", "apikey": "k", "Proxy-Authorization": "p"}
    got = await d.ask("/ext/greeter/hello", "POST", b"\xff\x00", headers, query="a=%20b&a=c")

    assert worker.told == [
        {
            "method": "POST", "path": "/hello", "query": "a=%20b&a=c", "body": b"\xff\x00",
            "headers": {"x-hub-signature": "s", "accept": "a"},
            "role": "member", "claims": {"role": "member", "sub": "7"}, "anonymous": False,
        }
    ]  # fmt: skip
    [question] = worker.asked
    assert (question.handler, question.chain) == ("endpoint:POST /hello", ())
    assert 1 < question.timeout_s <= 2
    assert (got.status, got.body) == (201, b"made")
    assert got.headers == {
        "content-type": "text/plain", "x-ext-mood": "fine", "cache-control": "no-store", "content-length": "4",
        "content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
        "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/ext/greeter/hello", "GET", 200), ("/ext/greeter", "GET", 200), ("/ext/greeter/", "GET", 200),
        ("/ext/greeter/hello/", "GET", 404), ("/ext/greeter/Hello", "GET", 404), ("/ext/other/hello", "GET", 404),
        ("/ext/", "GET", 404), ("/ext", "GET", 404), ("/ext/greeter/../greeter/hello", "GET", 404),
        ("/ext/greeter//hello", "GET", 404), ("/ext/GREETER/hello", "GET", 404), ("/ext/greeter/hello", "DELETE", 405),
        ("/ext/greeter/hello", "HEAD", 405), ("/ext/greeter/hello", "OPTIONS", 405),
    ],
)  # fmt: skip
async def test_paths_and_methods_are_exactly_those_of_the_manifest(path: str, method: str, status: int) -> None:
    d, worker = await door({}, {"method": "PUT"}, {"path": "/"})
    got = await d.ask(path, method)
    assert got.status == status
    assert len(worker.asked) == (status == 200)
    if status == 405:
        assert got.headers["allow"] == "GET, PUT"


async def test_two_extensions_do_not_answer_for_each_other() -> None:
    d, first = await door()
    second = Worker(extension("second"))
    await d.endpoints.attach(second)
    await d.ask("/ext/second/hello")
    assert (len(first.asked), len(second.asked)) == (0, 1)


@pytest.mark.parametrize(
    ("public", "token", "anonymous", "status", "role"),
    [
        (False, True, "", 200, "member"),
        (False, False, "", 401, None),
        (False, False, "web_anon", 401, None),
        (True, False, "", 200, ""),
        (True, False, "web_anon", 200, "web_anon"),
        (True, True, "", 200, "member"),
    ],
)
async def test_who_may_ask(public: bool, token: bool, anonymous: str, status: int, role: str | None) -> None:
    d, worker = await door({"public": public}, gateway=Gateway(anonymous))
    got = await d.ask("/ext/greeter/hello", token=token)
    assert got.status == status
    assert [(told["role"], told["anonymous"]) for told in worker.told] == ([] if role is None else [(role, not token)])
    if status == 401:
        assert (got.headers["www-authenticate"], got.json["code"]) == ("Bearer", "MAG-EXT-275")


@pytest.mark.parametrize("public", [False, True])
async def test_a_token_that_is_none_is_refused_everywhere(public: bool) -> None:
    d, worker = await door({"public": public}, gateway=Gateway("web_anon"))
    for authorization in ("Bearer bad", "", "Bearer good, Bearer good"):
        got = await d.ask("/ext/greeter/hello", headers={"Authorization": authorization}, token=False)
        assert (got.status, got.json["code"]) == (401, "MAG-GATE-011")
    assert worker.asked == []


async def test_without_a_gateway_only_public_endpoints_answer() -> None:
    d, worker = Door(None), Worker(extension("greeter", {}, {"path": "/open", "public": True}))
    await d.endpoints.attach(worker)
    assert (await d.ask("/ext/greeter/open", token=False)).status == 200
    assert (await d.ask("/ext/greeter/hello")).status == 503


async def test_a_capability_taken_back_counts_from_the_next_request() -> None:
    d, worker = await door()
    assert (await d.ask("/ext/greeter/hello")).status == 200
    worker.installed.grants = {}
    assert (await d.ask("/ext/greeter/hello")).status == 404
    assert len(worker.asked) == 1


# ---------------------------------------------------------------- bounds


async def test_a_body_beyond_the_limit_is_refused_unread() -> None:
    d, worker = await door({"method": "POST"})
    exact = await d.ask("/ext/greeter/hello", "POST", b"x" * MAX_BODY_BYTES)
    streamed = await d.ask("/ext/greeter/hello", "POST", b"x" * (MAX_BODY_BYTES + 1))

    async def unread() -> Any:
        raise AssertionError("the body is read")

    length = {"Content-Length": str(MAX_BODY_BYTES + 1)}
    declared = await d.ask("/ext/greeter/hello", "POST", headers=length, receive=unread)
    assert (exact.status, streamed.status, declared.status) == (200, 413, 413)
    assert declared.headers["connection"] == "close"
    assert len(worker.asked) == 1


async def test_the_deadline_covers_a_body_that_does_not_come_and_an_answer_that_does_not() -> None:
    async def never(_: Any = None) -> Any:
        await asyncio.Event().wait()

    d, worker = await door({"timeout_ms": 30}, answer=never)
    for receive in (None, never):
        got = await d.ask("/ext/greeter/hello", receive=receive)
        assert (got.status, got.json["code"], got.headers["retry-after"]) == (504, "MAG-CORE-002", "1")
    await asyncio.sleep(0)
    assert worker.cancelled == 1
    assert d.endpoints.under_way() == {"greeter": 0}


async def test_what_is_under_way_is_bounded_for_each_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maggate, "MAX_UNDER_WAY", 3)
    gate = asyncio.Event()

    async def wait(_: Any) -> Any:
        await gate.wait()

    d, _ = await door(answer=wait)
    await d.endpoints.attach(Worker(extension("other")))
    waiting = [asyncio.create_task(d.ask("/ext/greeter/hello")) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    refused, other = await d.ask("/ext/greeter/hello"), await d.ask("/ext/other/hello")
    assert (refused.status, refused.json["code"], other.status) == (503, "MAG-EXT-277", 200)
    gate.set()
    assert [(await task).status for task in waiting] == [200, 200, 200]
    assert (await d.ask("/ext/greeter/hello")).status == 200


async def test_a_client_that_leaves_takes_its_question_with_it() -> None:
    asked = asyncio.Event()

    async def never(_: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    d, worker = await door(answer=never)
    incoming = [{"type": "http.request", "body": b""}]

    async def receive() -> Any:
        if incoming:
            return incoming.pop()
        await asked.wait()
        return {"type": "http.disconnect"}

    assert (await d.ask("/ext/greeter/hello", receive=receive)).status == 0
    await asyncio.sleep(0)
    assert worker.cancelled == 1
    assert d.endpoints.under_way() == {"greeter": 0}


# ---------------------------------------------------------------- coming and going


async def test_another_version_takes_over_and_the_old_one_ends_what_it_has() -> None:
    asked, gate = asyncio.Event(), asyncio.Event()

    async def late(_: Any) -> Any:
        asked.set()
        await gate.wait()
        return {"status": 200, "body": b"old"}

    d, _ = await door(answer=late)
    waiting = asyncio.create_task(d.ask("/ext/greeter/hello"))
    await asked.wait()
    after = Worker(extension("greeter", {}, {"path": "/new"}), {"status": 200, "body": b"new"})
    await d.endpoints.attach(after)
    assert (await d.ask("/ext/greeter/hello")).body == b"new"
    gate.set()
    assert (await waiting).body == b"old"
    await d.endpoints.attach(Worker(extension("greeter", {"path": "/other"})))
    assert (await d.ask("/ext/greeter/new")).status == 404


async def test_who_is_detached_is_not_there() -> None:
    d, _ = await door()
    d.endpoints.detach("greeter")
    d.endpoints.detach("greeter")
    assert (await d.ask("/ext/greeter/hello")).json["code"] == "MAG-EXT-273"


async def test_the_prefix_is_served_between_start_and_stop() -> None:
    d = Door(None)
    assert d.port.mounted == {}
    d.endpoints.start()
    d.endpoints.start()
    assert list(d.port.mounted) == ["/ext/"]
    d.endpoints.stop()
    d.endpoints.stop()
    assert d.port.mounted == {}


async def test_an_extension_that_guards_endpoints_is_asked_once_about_each() -> None:
    class Chain:
        asked: list[EndpointContext] = []  # noqa: RUF012
        denies = ""

        async def before(self, context: EndpointContext) -> EndpointContext:
            self.asked.append(context)
            if context.path == self.denies:
                raise HookDenied("api.register_endpoint", "warden", "not here")
            return context

    chain, d = Chain(), Door(Gateway())
    d.hooks.point("api.register_endpoint").chain = chain  # type: ignore[assignment]
    first = Worker(extension("greeter", {}))
    await d.endpoints.attach(first)
    await d.endpoints.attach(Worker(extension("greeter", {}, {"method": "POST"})))
    assert chain.asked == [
        EndpointContext(extension="greeter", method="GET", path="/ext/greeter/hello"),
        EndpointContext(extension="greeter", method="POST", path="/ext/greeter/hello"),
    ]
    chain.denies = "/ext/greeter/bad"
    with pytest.raises(HookDenied):
        await d.endpoints.attach(Worker(extension("greeter", {"path": "/ok"}, {"path": "/bad"})))
    answers: list[Answer] = [await d.ask(f"/ext/greeter/{path}") for path in ("hello", "ok", "bad")]
    assert [answer.status for answer in answers] == [200, 404, 404]


async def test_an_extension_without_endpoints_serves_none() -> None:
    d, _ = await door()
    plain = extension("greeter")
    plain.manifest = type(plain.manifest)(id="greeter", name="greeter", version="2.0.0")
    await d.endpoints.attach(Worker(plain))
    assert d.endpoints.under_way() == {}
