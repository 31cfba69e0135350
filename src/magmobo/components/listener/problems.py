"""What the port itself answers: RFC 9457 problem documents, as an ASGI response or as raw bytes. No routing, no I/O."""

from __future__ import annotations

import http
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from magmobo.contracts.errors import MagError
from magmobo.contracts.planes import Message

Headers = list[tuple[bytes, bytes]]
Send = Callable[[Message], Awaitable[None]]

RETRY_AFTER_S = 1


def problem(error: MagError, correlation_id: str = "") -> tuple[int, Headers, bytes]:
    """Status, headers and body that tell a client about `error`."""
    status = error.http_status
    document: dict[str, object] = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "code": error.code,
        "detail": str(error),
        "hint": error.next_step(),
    }
    if correlation_id:
        document["correlation_id"] = correlation_id
    body = msgspec.json.encode(document)
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    if error.retryable and status == 503:
        headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
    if status == 426:
        headers += [(b"upgrade", b"websocket"), (b"sec-websocket-version", b"13")]
    if status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    return status, headers, body


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole response over ASGI."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def final_response(error: MagError, default_headers: Sequence[tuple[bytes, bytes]], correlation_id: str = "") -> bytes:
    """The bytes of a whole problem response after which the connection ends."""
    status, headers, body = problem(error, correlation_id)
    phrase = http.HTTPStatus(status).phrase.encode()
    lines = [b"HTTP/1.1 %d %s" % (status, phrase), *(b"%s: %s" % pair for pair in (*default_headers, *headers))]
    return b"\r\n".join([*lines, b"connection: close", b"", body])
