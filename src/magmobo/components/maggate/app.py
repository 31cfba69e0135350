"""The gateway as a bare ASGI application: bodies, limits, CORS, request ids, clients that leave.

Boundary: knows HTTP, not tables. Invariant: every request gets exactly one answer, an error included; none of them says
more than its error's own text.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import structlog

from magmobo.components.maggate.call import Call
from magmobo.components.maggate.config import MagGateConfig
from magmobo.components.maggate.disconnect import ClientGone, Departures
from magmobo.components.maggate.errors import BodyTooLarge, UnexpectedFailure
from magmobo.components.maggate.gate import TABLE_METHODS, Gate
from magmobo.components.maggate.hooks import Witnesses
from magmobo.components.maggate.problem import problem
from magmobo.components.maggate.request import Headers
from magmobo.components.maggate.response import Header, Response
from magmobo.contracts.errors import MagError
from magmobo.contracts.planes import Message, Scope

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9, _-]{1,512}")
_WITH_BODY = ("POST", "PATCH")
_EXPOSED = b"Content-Range, Content-Profile, Location, Preference-Applied, Retry-After, X-Request-Id"


class RestApp:
    """Serves `/rest/v1/`. Mount it, and `drain` it after the mount was released. `hide` as in `problem`."""

    def __init__(
        self,
        gate: Gate,
        config: MagGateConfig,
        witnesses: Witnesses,
        log: structlog.stdlib.BoundLogger,
        hide: Callable[[str], str] = str,
    ) -> None:
        self._witnesses, self._log, self._hide = witnesses, log, hide
        self.adopt(gate, config)
        self._ids, self._id_prefix = itertools.count(1), secrets.token_hex(6).encode()
        self._departures = Departures()
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def adopt(self, gate: Gate, config: MagGateConfig) -> None:
        """Answer requests that come from now on this way; those under way go on as they began."""
        self._gate = gate
        self._max_body_bytes = config.max_body_bytes
        self._origins = frozenset(origin.encode() for origin in config.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        self._in_flight += 1
        self._idle.clear()
        try:
            await self._serve(scope, receive, send)
        except ClientGone:
            self._log.debug("client left before its answer", path=scope["path"])
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    async def drain(self, timeout_s: float) -> bool:
        """Wait until no request is being answered; False when some still are after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(scope["headers"])
        request_id = headers.get(b"x-request-id", b"")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = b"%s-%d" % (self._id_prefix, next(self._ids))
        cors = self._cors(headers) if self._origins else []
        method, path = scope["method"], scope.get("raw_path") or scope["path"].encode()
        if cors and method == "OPTIONS" and b"access-control-request-method" in headers:
            allowed = [*_preflight(headers), (b"x-request-id", request_id), *cors]
            await _send(send, Response(HTTPStatus.NO_CONTENT, allowed))
            return
        begun_s = self._witnesses.begin_s()
        call = Call(method, path, scope["query_string"], headers, request_id=request_id)
        response = await self._answer(call, receive)
        response.headers.extend(((b"x-request-id", request_id), *cors))
        await _send(send, response, head_only=method == "HEAD")
        if begun_s is not None:
            self._witnesses.answered(call, response.status, len(response.body), begun_s)

    async def _answer(self, call: Call, receive: Receive) -> Response:
        try:
            if call.method in _WITH_BODY:
                call.body = await self._body(call.headers, receive)
            async with self._departures.watching(receive):
                return await self._gate.answer(call)
        except MagError as error:
            response = self._failed(call, error)
            if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                request_id = call.request_id.decode()
                self._log.warning("request failed", code=error.code, status=response.status, request_id=request_id)
            return response
        except ClientGone:
            raise
        except Exception:
            request_id = call.request_id.decode()
            self._log.exception("unexpected failure of a request", request_id=request_id, method=call.method)
            return self._failed(call, UnexpectedFailure())

    def _failed(self, call: Call, error: MagError) -> Response:
        """What the client reads of `error`, which is told to whoever wants to know."""
        status, extra, text = problem(error, self._hide)
        if isinstance(error, BodyTooLarge):
            extra.append((b"connection", b"close"))  # the rest of the body will not be read
        if self._witnesses.on_error.chain is not None:
            self._witnesses.failed(call, status, error.code, self._hide(str(error)))
        return Response(status, extra, text)

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:20]) > self._max_body_bytes:
            raise BodyTooLarge(self._max_body_bytes)
        chunks: list[bytes] = []
        size_bytes = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk = message.get("body", b"")
            size_bytes += len(chunk)
            if size_bytes > self._max_body_bytes:
                raise BodyTooLarge(self._max_body_bytes)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _cors(self, headers: Headers) -> list[Header]:
        """Headers that let the page of an allowed origin read the answer; credentials are never allowed."""
        origin = headers.get(b"origin")
        if origin is None:
            return []
        if b"*" in self._origins:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", _EXPOSED)]
        if origin not in self._origins:
            return []
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"origin"),
        ]


def _headers(pairs: list[tuple[bytes, bytes]]) -> Headers:
    """Lower-case names; repeated ones joined, so that two tokens or two bodies' types are never read as one."""
    headers: dict[bytes, bytes] = {}
    for name, value in pairs:
        headers[name] = value if name not in headers else headers[name] + b", " + value
    return headers


def _preflight(headers: Headers) -> list[Header]:
    wanted = headers.get(b"access-control-request-headers", b"")
    return [
        (b"access-control-allow-methods", TABLE_METHODS.encode()),
        (b"access-control-allow-headers", wanted if _HEADER_NAMES.fullmatch(wanted) else b"authorization"),
        (b"access-control-max-age", b"600"),
    ]


async def _send(send: Send, response: Response, *, head_only: bool = False) -> None:
    headers = response.headers
    if not head_only and response.status != HTTPStatus.NO_CONTENT:
        headers.append((b"content-length", b"%d" % len(response.body)))
    await send({"type": "http.response.start", "status": int(response.status), "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head_only else response.body})
