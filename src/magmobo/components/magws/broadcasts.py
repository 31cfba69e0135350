"""Messages that wait until extensions have had their say.

One question a channel at a time, so that its messages go out in the order in which they came, whatever becomes of the
chain meanwhile; channels do not wait for each other. Each is asked about in the context of whoever sent it, so that a
hook which leads to itself by sending is found out. What waits is bounded for the whole node; above that the newest is
dropped and counted. Whoever published a message may ask to be told what becomes of it.
Invariant: whatever an extension makes of `data`, the frame stays one frame with one event in it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context

import msgspec
import structlog
from msgspec import Struct

from magmobo.components.magws.errors import BroadcastDropped
from magmobo.components.magws.protocol import frames
from magmobo.components.magws.verdicts import Told
from magmobo.contracts.errors import HookDenied, HookUnavailable, MagError, Unavailable
from magmobo.contracts.hooks import BroadcastContext, HookChain, HookPoint

MAX_WAITING = 10_000
MAX_WAITING_CHARS = 16_777_216


class Broadcast(Struct, frozen=True):
    """One message to an ordinary channel. `exclude` is the socket that does not get it; `origin` as in
    `BroadcastContext`. `data` is the text that an application receives, of a client's event the JSON that it sent.
    """

    app_id: str
    channel: str
    event: str
    data: str
    exclude: str = ""
    origin: str = "api"

    @property
    def is_relayed(self) -> bool:
        """Whether a client sent it."""
        return self.origin == "client"

    def frame(self) -> bytes:
        """As it goes over the wire."""
        if self.is_relayed:
            return frames.relayed(self.event, self.channel, self.data.encode())
        return frames.message_frame(self.event, self.data, self.channel)

    def context(self) -> BroadcastContext:
        """As extensions are told of it."""
        return BroadcastContext(
            app=self.app_id, channel=self.channel, event=self.event, data=self.data, origin=self.origin
        )


_Held = tuple[Broadcast, Context, Told]


def tell_nobody(_: MagError | None) -> None:
    """For publishers who do not want to know."""


class Broadcasts:
    """`send` gets what may go out; `max_data_bytes(app_id)` bounds what an extension may make of a message."""

    def __init__(
        self,
        point: HookPoint[BroadcastContext],
        send: Callable[[Broadcast], None],
        max_data_bytes: Callable[[str], int],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._point, self._send, self._max_data_bytes, self._log = point, send, max_data_bytes, log
        self._lines: dict[tuple[str, str], deque[_Held]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = self._waiting_chars = 0
        self.denied = self.dropped = 0

    def __len__(self) -> int:
        return self._count

    def put(self, message: Broadcast, told: Told = tell_nobody) -> None:
        """Send the message, at once when no extension wants to see it and none before it waits."""
        if self._point.chain is None and not (self._lines and (message.app_id, message.channel) in self._lines):
            self._send(message)
            told(None)
        else:
            self._hold(message, told)

    async def close(self) -> None:
        """Forget what waits."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # ------------------------------------------------------------ inside

    def _hold(self, message: Broadcast, told: Told) -> None:
        if self._count >= MAX_WAITING or self._waiting_chars + len(message.data) > MAX_WAITING_CHARS:
            told(self._dropped("too many messages wait for extensions"))
            return
        self._count += 1
        self._waiting_chars += len(message.data)
        key = message.app_id, message.channel
        line = self._lines.get(key)
        if line is not None:
            line.append((message, copy_context(), told))
            return
        line = self._lines[key] = deque([(message, copy_context(), told)])
        task = asyncio.get_running_loop().create_task(self._serve(key, line), name="magws broadcasts")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, key: tuple[str, str], line: deque[_Held]) -> None:
        """Ask for one message after the other until none of the channel waits."""
        loop = asyncio.get_running_loop()
        try:
            while line:
                chain, (message, context, told) = self._point.chain, line[0]
                decided: Broadcast | MagError = message
                if chain is not None:
                    decided = await loop.create_task(self._asked(chain, message), context=context)
                line.popleft()
                self._forget(message)
                if isinstance(decided, MagError):
                    told(decided)
                else:
                    self._send(decided)
                    told(None)
        finally:
            del self._lines[key]
            for message, _, told in line:
                self._forget(message)
                told(Unavailable("realtime"))

    async def _asked(self, chain: HookChain[BroadcastContext], message: Broadcast) -> Broadcast | MagError:
        """The message as extensions left it, or why it must not go out."""
        try:
            changed = await chain.before(message.context())
        except HookDenied as denial:
            self.denied += 1
            return denial
        except HookUnavailable as error:
            self._dropped(str(error))
            return error
        except Exception:
            self._log.exception("realtime_broadcast_failed", channel=message.channel)
            self.dropped += 1
            return BroadcastDropped("extensions could not be asked about it")
        return message if changed.data == message.data else self._changed(message, changed.data)

    def _changed(self, message: Broadcast, data: str) -> Broadcast | MagError:
        if message.is_relayed and not _is_json(data):
            data = msgspec.json.encode(data).decode()
        if len(data) > len(message.data) and len(data.encode()) > self._max_data_bytes(message.app_id):
            return self._dropped("an extension made a message larger than the app allows")
        return msgspec.structs.replace(message, data=data)

    def _forget(self, message: Broadcast) -> None:
        self._count -= 1
        self._waiting_chars -= len(message.data)

    def _dropped(self, reason: str) -> MagError:
        """Count a lost message, and say so in the log the first, second, fourth, eighth … time."""
        self.dropped += 1
        if not self.dropped & (self.dropped - 1):
            self._log.warning("realtime_broadcast_dropped", reason=reason, dropped=self.dropped)
        return BroadcastDropped(reason)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
