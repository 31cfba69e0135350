"""What of an extension's answer reaches the client: never more than a response, locked into an origin of its own."""

from __future__ import annotations

from math import nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from tests.unit.extensions.adapters.support import door

from magmobo.contracts.planes import Caller
from magmobo.extensions.adapters import exchange
from magmobo.extensions.adapters.errors import EndpointFailed
from magmobo.extensions.adapters.exchange import MAX_BODY_BYTES, read_answer
from magmobo.extensions.workers.errors import (
    CallTimedOut,
    CallTooLarge,
    HandlerDenied,
    HandlerFailed,
    WorkerBusy,
    WorkerEnded,
    WorkerStartFailed,
    WorkerUnavailable,
)
from magx import wire


@pytest.mark.parametrize(
    "said",
    [
        None, 7, "text", [], {}, {"status": 199}, {"status": 600}, {"status": "200"}, {"status": 200, "more": 1},
        {"status": 200, "body": 7}, {"status": 200, "body": b"x" * (MAX_BODY_BYTES + 1)},
        {"status": 200, "headers": {"content-type": 7}}, {"status": 200, "headers": {"location": "/é"}},
        {"status": 200, "headers": {"content-type": "a\r\nset-cookie: b"}},
        {"status": 200, "headers": {"x-ext-\r": "b"}}, {"status": 200, "headers": {"x-ext-a b": "c"}},
        {"status": 200, "headers": {str(n): "" for n in range(51)}},
        {"status": 200, "headers": {"etag": "x" * 5_000}},
    ],
)  # fmt: skip
async def test_what_is_no_response_is_502_without_a_word_of_it(said: Any) -> None:
    d, worker = await door()
    worker._answer = None

    async def ask(question: Any) -> Raw:
        return wire.raw(said)

    worker.ask = ask  # type: ignore[method-assign]
    got = await d.ask("/ext/greeter/hello")
    assert (got.status, got.json["code"]) == (502, "MAG-EXT-278")
    assert got.headers["content-security-policy"].startswith("sandbox")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_response_or_a_failure(said: bytes) -> None:
    try:
        answer = read_answer("greeter", Raw(said))
    except EndpointFailed:
        return
    assert 200 <= answer.status <= 599


_FAR_REACHING = """
    Set-Cookie set-cookie2 Connection Transfer-Encoding Upgrade Keep-Alive Content-Length Trailer Refresh Link Alt-Svc
    Service-Worker-Allowed Clear-Site-Data Strict-Transport-Security WWW-Authenticate Access-Control-Allow-Origin
    Content-Security-Policy X-Accel-Redirect X-Sendfile X-Frame-Options NEL Report-To Server Date Content-Encoding
"""


async def test_headers_that_reach_beyond_the_answer_do_not_pass() -> None:
    harmless = {"ETag": '"e"'}
    loaded = harmless | dict.fromkeys(_FAR_REACHING.split(), "9")
    plain_door, _ = await door(answer={"status": 200, "headers": harmless, "body": b"x"})
    loaded_door, _ = await door(answer={"status": 200, "headers": loaded, "body": b"x"})
    expected, got = await plain_door.ask("/ext/greeter/hello"), await loaded_door.ask("/ext/greeter/hello")
    assert got.headers == expected.headers
    assert got.headers["etag"] == '"e"'


async def test_a_page_of_an_extension_is_locked_into_an_origin_of_its_own() -> None:
    html = {"Content-Type": "text/html", "Content-Security-Policy": "default-src *", "X-Content-Type-Options": "off"}
    d, _ = await door(answer={"status": 200, "headers": html, "body": b"<script>fetch('/console')</script>"})
    got = await d.ask("/ext/greeter/hello")
    policy = got.headers["content-security-policy"].split("; ")
    assert "sandbox" in policy
    assert "default-src 'none'" in policy
    assert got.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body_have_none(status: int) -> None:
    d, _ = await door(answer={"status": status, "headers": {}, "body": b"x"})
    got = await d.ask("/ext/greeter/hello")
    assert (got.status, got.body) == (status, b"")
    assert "content-length" not in got.headers
    assert "content-type" not in got.headers


async def test_a_body_without_a_type_is_bytes() -> None:
    d, _ = await door(answer={"status": 200, "headers": {}, "body": b"<html>"})
    assert (await d.ask("/ext/greeter/hello")).headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("error", "status", "code", "word"),
    [
        (HandlerFailed("greeter", "h", "KeyError", "hunter2", "trace hunter2"), 502, "MAG-EXT-278", ""),
        (HandlerDenied("greeter", "not you"), 403, "MAG-EXT-136", "not you"),
        (CallTimedOut("greeter", "h", 5.0), 504, "MAG-CORE-002", ""),
        (CallTooLarge("greeter", "h", "r"), 413, "MAG-EXT-138", ""),
        (WorkerBusy("greeter"), 503, "MAG-EXT-277", ""),
        (WorkerUnavailable("greeter", "internal"), 503, "MAG-CORE-001", ""),
        (WorkerStartFailed("greeter", "Traceback hunter2"), 503, "MAG-CORE-001", ""),
        (WorkerEnded("greeter", 4711), 502, "MAG-EXT-278", ""),
    ],
)
async def test_failures_are_told_without_their_insides(error: Exception, status: int, code: str, word: str) -> None:
    d, _ = await door(answer=error)
    got = await d.ask("/ext/greeter/hello")
    assert (got.status, got.json["code"], got.headers["content-type"]) == (
        status, code, "application/problem+json; charset=utf-8",
    )  # fmt: skip
    for secret in (b"hunter2", b"KeyError", b"trace", b"Traceback", b"internal", b"4711"):
        assert secret not in got.body
    assert word in got.json["message"]


@pytest.mark.parametrize(
    ("said_s", "status", "told"),
    [(7200.01, 503, "7201"), (0.3, 503, "1"), (0.0, 502, None), (-1.0, 502, None), (nan, 502, None), (1e9, 502, None)],
)
async def test_a_limit_of_the_node_is_told_with_its_end(said_s: float, status: int, told: str | None) -> None:
    error = HandlerFailed("greeter", "h", "RateLimited", "hunter2", "trace hunter2", said_s)
    d, _ = await door(answer=error)
    got = await d.ask("/ext/greeter/hello")
    assert (got.status, got.headers.get("retry-after")) == (status, told)
    assert b"hunter2" not in got.body


def test_claims_that_cannot_be_told_are_refused() -> None:
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    with pytest.raises(exchange.EndpointRequestRefused):
        exchange.told(scope, "/", b"", Caller("r", False, b'{"big": 123456789012345678901234567890}'))
    with pytest.raises(exchange.EndpointRequestRefused):
        exchange.told(scope | {"headers": [(b"a", b"x" * 70_000)]}, "/", b"", Caller("r", False))
