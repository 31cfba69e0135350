"""uvicorn's HTTP protocol, made safe for a public port.

What stock uvicorn lacks and this class adds: the upgrade keeps frames that arrive with the request, is refused where it
cannot be done, and leaves no reference cycle; heads, trailers and pipelines are bounded; a client that owes us bytes
holds a deadline; refusals are problem documents, and the client gets to read them.
Boundary: leans on internals of uvicorn 0.54 (constructor, callbacks, `cycle`), so that version is pinned and the
functional tests of the upgrade guard it.
Source: uvicorn `protocols/http/httptools_impl.py`; RFC 9112 sections 3 to 7 and 9.6.
"""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from magmobo.components.listener.cork import corked, uncorked
from magmobo.components.listener.errors import BadRequest, HeadTooLarge, RequestTimeout, UpgradeRefused
from magmobo.components.listener.handshake import accept_response
from magmobo.components.listener.problems import final_response
from magmobo.contracts.errors import MagError

if TYPE_CHECKING:
    from magmobo.components.listener.server import PortServer

_MAX_PIPELINED_REQUESTS = 32
_HEADER_OVERHEAD_BYTES = 4  # ": " and the line end
_MAX_UNWANTED_BYTES = 67_108_864  # of a body that still comes after its answer; enough to end an upload politely


class _Reading(enum.Enum):
    """What the parser is in the middle of."""

    NOTHING = 1
    HEAD = 2
    BODY = 3


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection, until it ends or becomes a WebSocket."""

    def __init__(self, port: PortServer) -> None:
        super().__init__(port.uvicorn_config, port.uvicorn_state, app_state={}, _loop=port.loop)
        self._port = port
        self._reading = _Reading.NOTHING
        self._head_bytes = 0
        self._fruitless_bytes = 0  # received since the parser last reported progress
        self._unwanted_bytes = 0  # of this request's body, received after its answer
        self._over_limit = False
        self._is_last = False  # the next answer ends the connection
        self._deaf = False  # the connection is ending: whatever still comes is thrown away

    # ------------------------------------------------------------ the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = corked(transport, self._port.loop)
        if self._port.connections.hopeless:
            self._deaf = True
            transport.abort()
            return
        self._over_limit = self._port.connections.over_limit
        if self._over_limit:
            self.app = self._port.router.overloaded
        self._port.connections.deadlines.set(self, self._port.config.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deaf = True
        self._port.connections.deadlines.clear(self)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self._port.connections.moved()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return None
        self._unset_keepalive_if_required()
        self._fruitless_bytes += len(data)
        early_bytes = self._parse(data)
        if early_bytes is not None:
            return self._upgrade(early_bytes)
        if self._fruitless_bytes > self._port.config.max_head_bytes:
            self._refuse(HeadTooLarge(self._port.config.max_head_bytes))
        self._watch()
        return None

    def _parse(self, data: bytes) -> bytes | None:
        """Feed the parser; the bytes behind the head when it asked for a WebSocket, else None."""
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                cause = error.__context__
                self._refuse(cause if isinstance(cause, MagError) else BadRequest("this is not a valid HTTP request"))
                return None
            else:
                return None
            if self._should_upgrade():
                return data
            # Any other upgrade (h2c) is not for us: the request is served as it stands, what follows is HTTP again.
        return None

    # ------------------------------------------------------------ what the parser reports

    def on_message_begin(self) -> None:
        self._reading, self._head_bytes, self._fruitless_bytes, self._unwanted_bytes = _Reading.HEAD, 0, 0, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + _HEADER_OVERHEAD_BYTES)
        if self._reading is _Reading.HEAD:  # trailers are counted, then dropped: nobody may change a head it has read
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= _MAX_PIPELINED_REQUESTS:
            raise BadRequest("too many requests at once on one connection")
        super().on_headers_complete()
        if (self._over_limit or self._is_last) and self.cycle is not None:
            self.cycle.keep_alive = False
        self._reading, self._fruitless_bytes = _Reading.BODY, 0

    def on_body(self, body: bytes) -> None:
        self._fruitless_bytes = 0
        super().on_body(body)
        if not self.answering:
            self._unwanted_bytes += len(body)
            if self._unwanted_bytes > _MAX_UNWANTED_BYTES:
                self._deaf = True
                self.transport.abort()

    def on_message_complete(self) -> None:
        self._reading, self._fruitless_bytes = _Reading.NOTHING, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._port.connections.moved()

    def _count_head(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > self._port.config.max_head_bytes:
            raise HeadTooLarge(self._port.config.max_head_bytes)

    # ------------------------------------------------------------ deadlines

    @property
    def answering(self) -> bool:
        """Whether a request was read whose answer is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    def _watch(self) -> None:
        """Hold a deadline exactly while the client owes us the rest of a request."""
        deadlines, config = self._port.connections.deadlines, self._port.config
        if self._deaf:
            return
        if self._reading is _Reading.BODY:
            deadlines.set(self, config.stall_timeout_s)
        elif self.answering:
            deadlines.clear(self)
        elif not deadlines.holds(self):
            deadlines.set(self, config.header_timeout_s)

    def on_deadline(self) -> None:
        """The client did not send, take or close in time."""
        if self._reading is _Reading.HEAD and not self.answering and not self._deaf:
            self._refuse(RequestTimeout())
        elif self._reading is _Reading.BODY and self.flow.read_paused and not self._deaf:
            self._watch()  # it is the application that does not read on
        else:
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._port.connections.deadlines.set(self, self._port.config.stall_timeout_s)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._deaf and not self.answering:
            return  # the deadline that is running is the one of the end
        self._port.connections.deadlines.clear(self)
        if self._reading is not _Reading.NOTHING:
            self._watch()

    def watch_closing(self) -> None:
        """Called at every tick: a transport that flushes to a client who does not read must not do so for ever."""
        deadlines = self._port.connections.deadlines
        if self.transport.is_closing() and not deadlines.holds(self):
            self._deaf = True
            deadlines.set(self, self._port.config.close_timeout_s)

    # ------------------------------------------------------------ ends

    def drain(self) -> None:
        """Answer what was asked, or once more, saying that this is the end; nobody's request is cut off by it.

        An answer that has begun cannot say so any more: the one after it will.
        """
        self._is_last = True
        if self.answering and not self.cycle.response_started:  # of requests in a row `cycle` is the newest
            self.cycle.keep_alive = False

    def _upgrade(self, early_bytes: bytes) -> None:
        """Hand the transport to a WebSocket, or refuse."""
        if self.answering:
            return self._refuse(UpgradeRefused("a WebSocket cannot be opened behind an unanswered request"))
        try:
            upgrade, session = self._port.admit(self.scope, self.url, over_limit=self._over_limit)
        except MagError as error:
            return self._refuse(error)
        transport, port = uncorked(self.transport), self._port
        protocol = port.websocket(session, transport)
        transport.set_protocol(protocol)
        self._let_go()
        protocol.begin(accept_response(upgrade.headers["sec-websocket-key"]), early_bytes)
        return None

    def _let_go(self) -> None:
        """Forget everything: the parser holds this object's methods, a cycle that only a collection would free."""
        self._deaf = True
        self.flow.resume_reading()
        self.connections.discard(self)
        self._port.connections.deadlines.clear(self)
        gone: Any = None
        self.parser = self.flow = self.cycle = self.headers = self.scope = self.transport = gone

    def _refuse(self, error: MagError) -> None:
        """Answer with a problem and end the connection.

        A request that is being answered already is answered first, and is the last one. Only our half is closed:
        closing a socket with unread bytes resets it, and the client would never read the answer.
        """
        self._deaf = True
        if self.answering and self._reading is not _Reading.BODY:
            self.cycle.keep_alive = False
            return
        if self.answering and (self.cycle.response_started or self.pipeline):
            self.transport.abort()
            return
        if self.answering:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(final_response(error, self.server_state.default_headers))
        self.transport.write_eof()
        self._port.connections.deadlines.set(self, self._port.config.close_timeout_s)
