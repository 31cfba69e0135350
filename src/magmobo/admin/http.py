"""The operators' HTTP listener: `/metrics`, `/livez`, `/readyz`, `/startupz`, on loopback unless told otherwise.

It answers while every component is down, so it has no component's code: one short answer per connection, read and
written under a deadline. Whoever comes when too many are there takes the place of the one who has been there longest,
so that silent connections never keep a probe out. Boundary: GET and HEAD of four paths; no login, no secret, no ids.
On loopback a request that names another host is refused, so that a page in a browser cannot read figures by a name of
its own.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus

from msgspec import Struct

from magmobo.admin.errors import AdminPortTaken

DEFAULT_PORT = 9500
_MAX_HEAD_BYTES = 8192
_MAX_CONNECTIONS = 32
_DEADLINE_S = 5.0
_TEXT = "text/plain; charset=utf-8"
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Reply(Struct, frozen=True):
    """What to answer."""

    status: int
    body: bytes
    content_type: str = _TEXT


Page = Callable[[Mapping[str, str], str], Reply]
"""Takes the request's headers (lower-case names) and its query string."""


class AdminHttp:
    """Serves `pages` (path -> function) at `host` and `port`."""

    def __init__(self, host: str, port: int | None, pages: Mapping[str, Page]) -> None:
        self._host, self._port, self._pages = host, port, pages
        self._server: asyncio.Server | None = None
        self._conversations: dict[asyncio.Task[None], None] = {}  # oldest first
        self._is_local = True

    @property
    def base_url(self) -> str:
        """`http://host:port` as bound; empty while closed."""
        if self._server is None:
            return ""
        host, port = self._server.sockets[0].getsockname()[:2]
        host = _ANY_ADDRESS.get(host, host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def open(self) -> None:
        """Listen. Without a port of the user's it is 9500, or any free one when another node has that.

        Raises: AdminPortTaken.
        """
        for port in (DEFAULT_PORT, 0) if self._port is None else (self._port,):
            try:
                self._server = await asyncio.start_server(self._welcome, self._host, port, limit=_MAX_HEAD_BYTES)
            except (OSError, UnicodeError) as error:  # the latter for a host that cannot be a name
                reason = getattr(error, "strerror", None) or type(error).__name__
                problem = AdminPortTaken(self._host, port, reason)
                problem.__cause__ = error
            else:
                bound = [str(one.getsockname()[0]).partition("%")[0] for one in self._server.sockets]
                self._is_local = all(ipaddress.ip_address(address).is_loopback for address in bound)
                return
        raise problem

    async def close(self) -> None:
        """Stop listening and end what is under way; calling it twice is fine."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for conversation in self._conversations:
            conversation.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = asyncio.current_task()
        assert conversation is not None  # noqa: S101 - a stream callback that is a coroutine runs in a task of its own
        self._make_room()
        self._conversations[conversation] = None
        try:
            async with asyncio.timeout(_DEADLINE_S):
                reply, with_body = await self._converse(reader)
                writer.write(_encode(reply, with_body=with_body))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the peer left, dawdled, or we close: there is nobody to tell
        finally:
            self._conversations.pop(conversation, None)
            writer.close()

    def _make_room(self) -> None:
        while len(self._conversations) >= _MAX_CONNECTIONS:
            oldest = next(iter(self._conversations))
            del self._conversations[oldest]
            oldest.cancel()

    async def _converse(self, reader: asyncio.StreamReader) -> tuple[Reply, bool]:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), True
        return self._answer(head.decode("latin-1"))

    def _answer(self, head: str) -> tuple[Reply, bool]:
        request, *lines = head.split("\r\n")
        words = request.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _plain(HTTPStatus.BAD_REQUEST), True
        method, target = words[0], words[1]
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        path, _, query = target.partition("?")
        page = self._pages.get(path)
        if method not in ("GET", "HEAD"):
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED), True
        if not self._is_here(headers.get("host", "")):
            return _plain(HTTPStatus.MISDIRECTED_REQUEST), method == "GET"
        if page is None:
            known = "".join(f"{known}\n" for known in self._pages).encode()
            return Reply(HTTPStatus.NOT_FOUND, b"not found; there are:\n" + known), method == "GET"
        try:
            return page(headers, query), method == "GET"
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler({"message": f"{path} failed", "exception": error})
            return _plain(HTTPStatus.INTERNAL_SERVER_ERROR), method == "GET"

    def _is_here(self, host: str) -> bool:
        """Whether `host` (with a port) names this machine by address, as localhost, or as the user configured it.

        Who listens to other machines is known to them by names that only they know.
        """
        if not self._is_local:
            return True
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if name in ("", "localhost", self._host):
            return True
        with suppress(ValueError):
            ipaddress.ip_address(name.strip("[]"))
            return True
        return False


def _plain(status: HTTPStatus) -> Reply:
    return Reply(status, f"{status.phrase.lower()}\n".encode())


def _encode(reply: Reply, *, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}\r\ncontent-type: {reply.content_type}\r\n"
        f"content-length: {len(reply.body)}\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (reply.body if with_body else b"")
