"""One HTTP request to an extension's endpoint, in ASGI: what the extension is told, and what the client gets back.

An extension's answer is a stranger's on the node's own origin, where the console lives. So only headers of a short list
pass, and every answer is locked into an origin of its own by the browser (`Content-Security-Policy: sandbox`): a page
of an extension can neither use the console's session nor store anything there.
Boundary: HTTP; who may ask, and which worker answers, is decided in `maggate.py`. Source: RFC 9110, RFC 9457, CSP 3.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from math import ceil
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from magmobo.contracts.errors import MagError
from magmobo.contracts.planes import Caller, Message, Scope
from magmobo.extensions.adapters.errors import (
    EndpointBodyTooLarge,
    EndpointFailed,
    EndpointLimited,
    EndpointMethodRefused,
    EndpointRequestRefused,
)
from magx import wire

MAX_BODY_BYTES = 524_288
MAX_TOLD_HEADER_BYTES = 65_536
RETRY_AFTER_S = 1
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_KEPT_BACK = frozenset(
    {"apikey", "authorization", "connection", "cookie", "keep-alive", "proxy-authorization", "proxy-connection", "te",
     "trailer", "transfer-encoding", "upgrade", "x-csrf-token"}
)  # fmt: skip
"""Headers that an extension is not told: those that let it act as its caller, and those of the connection."""
_PASSED = frozenset(
    {"cache-control", "content-disposition", "content-language", "content-type", "etag", "expires", "last-modified",
     "location", "retry-after", "vary"}
)  # fmt: skip
_PASSED_PREFIX = "x-ext-"
_NAME = re.compile(r"[a-z0-9-]{1,100}")
_VALUE = re.compile(r"[\t -~]{0,4000}")
_LOCKED: Headers = [
    (b"content-security-policy", b"sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_NO_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


class ClientGone(Exception):
    """The client left; there is nobody to answer."""


class Answer(Struct, frozen=True, forbid_unknown_fields=True):
    """What an endpoint's handler says."""

    status: Annotated[int, Meta(ge=200, le=599)]
    headers: Annotated[Mapping[str, str], Meta(max_length=50)] = {}
    body: Annotated[bytes, Meta(max_length=MAX_BODY_BYTES)] = b""


_answer = msgspec.msgpack.Decoder(Answer)


def authorization_of(scope: Scope) -> bytes | None:
    """The `Authorization` header; several are joined, so that no one of them counts."""
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    return b", ".join(found) if found else None


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """The whole body. Raises: EndpointBodyTooLarge, ClientGone."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > MAX_BODY_BYTES:
            raise EndpointBodyTooLarge(MAX_BODY_BYTES)
    parts: list[bytes] = []
    size_bytes, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size_bytes += len(part)
        if size_bytes > MAX_BODY_BYTES:
            raise EndpointBodyTooLarge(MAX_BODY_BYTES)
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def told(scope: Scope, path: str, body: bytes, caller: Caller) -> Raw:
    """The request as the extension's handler gets it. Raises: EndpointRequestRefused."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name not in _KEPT_BACK:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_TOLD_HEADER_BYTES:
        raise EndpointRequestRefused("the headers are too large")
    try:
        return wire.raw(
            {
                "method": scope["method"],
                "path": path,
                "query": scope["query_string"].decode("latin-1"),
                "headers": headers,
                "body": body,
                "role": caller.role,
                "claims": msgspec.json.decode(caller.claims),
                "anonymous": caller.anonymous,
            }
        )
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise EndpointRequestRefused("the token's claims cannot be told to an extension") from error


def read_answer(extension_id: str, said: Raw) -> Answer:
    """What the handler said, with the headers that pass. Raises: EndpointFailed when it is no response."""
    try:
        answer = _answer.decode(said)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise EndpointFailed(extension_id) from error
    kept = {}
    for name, value in answer.headers.items():
        lower = name.lower()
        if lower not in _PASSED and not lower.startswith(_PASSED_PREFIX):
            continue
        if not _NAME.fullmatch(lower) or not _VALUE.fullmatch(value):
            raise EndpointFailed(extension_id)
        kept[lower] = value
    kept.setdefault("cache-control", "no-store")
    return Answer(answer.status, kept, answer.body)


async def send_answer(send: Send, answer: Answer) -> None:
    """Give the client an extension's answer."""
    headers: Headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    body = b"" if answer.status in _NO_BODY else answer.body
    if body and "content-type" not in answer.headers:
        headers.append((b"content-type", b"application/octet-stream"))
    await _send(send, answer.status, headers, body)


async def send_problem(send: Send, error: MagError, hide: Callable[[str], str]) -> None:
    """Give the client an error as problem+json."""
    status = error.http_status
    document: dict[str, Any] = {
        "type": f"urn:magmobo:error:{error.code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": hide(f"{error}. {error.next_step()}"),
        "code": error.code,
        "message": hide(str(error)),
    }
    headers: Headers = [(b"content-type", b"application/problem+json; charset=utf-8"), (b"cache-control", b"no-store")]
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.retryable:
        wait_s = ceil(error.retry_s) if isinstance(error, EndpointLimited) else RETRY_AFTER_S
        headers.append((b"retry-after", b"%d" % wait_s))
    if isinstance(error, EndpointMethodRefused):
        headers.append((b"allow", error.allowed.encode()))
    if isinstance(error, EndpointBodyTooLarge):
        headers.append((b"connection", b"close"))  # the rest of the body will not be read
    await _send(send, status, headers, msgspec.json.encode(document))


async def _send(send: Send, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
    length = [] if status in _NO_BODY else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *_LOCKED, *length]})
    await send({"type": "http.response.body", "body": body})
