"""The protocol `magx/1` between the node and the worker of one extension: frames, their encoding, their limits.

A frame is a length (4 bytes, big-endian, at most `MAX_FRAME_BYTES`) and a msgpack array that begins with the kind's
number. Both sides number their own questions; a question has exactly one answer. The socket pair that a worker inherits
is its only descriptor, and its identity: no frame carries a name or a token of whoever sends it. Boundary: no I/O.
Invariant: bytes that are not exactly a frame raise, whatever they are; nothing is evaluated, nothing is imported.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

PROTOCOL = "magx/1"
MAX_FRAME_BYTES = 1_048_576
MAX_TOLD_BYTES = 65_536
"""Of a `Log` or a `Figure`: their values are decoded as they come."""
WINDOW = 64
"""Questions that either side may have in flight, each way."""
MAX_EVENTS = 64
"""Events of one delivery."""
_LENGTH = struct.Struct(">I")


class Frame(Struct, frozen=True, array_like=True, tag_field="frame", forbid_unknown_fields=True, gc=False):
    """Base of every frame."""


# ---------------------------------------------------------------- from the node


class Start(Frame, frozen=True, tag=1, gc=False):
    """First frame: who the worker is to be. `settings` and `capabilities` are what counts now; `entry` is
    `module:attribute` of the code below `code_dir`.
    """

    protocol: str
    extension_id: str
    version: str
    entry: str
    code_dir: str
    data_dir: str
    settings: Mapping[str, Any]
    capabilities: Sequence[str]


class Call(Frame, frozen=True, tag=2, gc=False):
    """A question. `handler` is `hook:<point>`, `endpoint:<METHOD> <path>`, `command:<name>`, `job:<name>`, `health`;
    `argument` is a map in msgpack.
    """

    id: int
    handler: str
    deadline_ms: int
    argument: Raw


class Item(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """One event: `id` is the same at every try, `data` a map in msgpack, `tries` counts from 1."""

    id: str
    topic: str
    time_s: float
    tries: int
    data: Raw


class Deliver(Frame, frozen=True, tag=3, gc=False):
    """Events of one subscription, in order."""

    id: int
    subscription: str
    deadline_ms: int
    events: Sequence[Item]


class Reply(Frame, frozen=True, tag=4, gc=False):
    """The answer to an `Api`."""

    id: int
    result: Raw


class Refuse(Frame, frozen=True, tag=5, gc=False):
    """An `Api` that was not done: `code` is stable (`MAG-EXT-…`), `message` for people, `retry_s` when to try again."""

    id: int
    code: str
    message: str
    retry_s: float = 0.0


class Cancel(Frame, frozen=True, tag=6, gc=False):
    """Nobody waits for the answer to this call any more; it is not answered."""

    id: int


class Settings(Frame, frozen=True, tag=7, gc=False):
    """Other settings or capabilities count from now on."""

    settings: Mapping[str, Any]
    capabilities: Sequence[str]


class Stop(Frame, frozen=True, tag=8, gc=False):
    """No more questions follow; end within this time, what is under way first."""

    deadline_ms: int


class Proceeded(Frame, frozen=True, tag=9, gc=False):
    """The operation that an `around` hook let go on ended; `ok` says how."""

    id: int
    ok: bool


class Ping(Frame, frozen=True, tag=10, gc=False):
    """Is its loop alive? Answered by `Pong` at once, whatever handlers are under way."""

    id: int


# ---------------------------------------------------------------- from the worker


class Ready(Frame, frozen=True, tag=20, gc=False):
    """The extension is imported; these handlers are there, named as in `Call.handler`, or `event:<subscription>`."""

    protocol: str
    handlers: Sequence[str]


class Done(Frame, frozen=True, tag=21, gc=False):
    """The answer to a `Call`: for a hook the fields to change, for others what they say."""

    id: int
    result: Raw


class Denied(Frame, frozen=True, tag=22, gc=False):
    """A hook's no; `retry_s` is how long it stays one, 0 where that is not known."""

    id: int
    reason: str
    retry_s: float = 0.0


class Failed(Frame, frozen=True, tag=23, gc=False):
    """A handler that raised: the error's class, its text, and where; `retry_s`: when what it met was a limit of the
    node, the seconds until that is over.
    """

    id: int
    error: str
    message: str
    trace: str = ""
    retry_s: float = 0.0


class Acked(Frame, frozen=True, tag=24, gc=False):
    """The answer to a `Deliver`: events that could not be taken, by their place in it, with the reason; those that a
    limit of the node kept from being taken, with the seconds until they may come again; all others were.
    """

    id: int
    failed: Sequence[tuple[int, str]] = ()
    later: Sequence[tuple[int, float]] = ()


class Api(Frame, frozen=True, tag=25, gc=False):
    """A question to the node, on behalf of call `call_id` (0: of none); `args` is a map in msgpack."""

    id: int
    call_id: int
    method: str
    args: Raw


class Log(Frame, frozen=True, tag=26, gc=False):
    """One line for the extension's log; `level` is `debug`, `info`, `warning` or `error`."""

    level: str
    message: str
    fields: Mapping[str, Any]


class Figure(Frame, frozen=True, tag=27, gc=False):
    """A figure: `inc` adds to a counter, `observe` adds one value to a histogram."""

    name: str
    kind: str
    value: float


class Proceed(Frame, frozen=True, tag=28, gc=False):
    """An `around` hook lets its operation, call `id`, go on; answered by `Proceeded`."""

    id: int


class Pong(Frame, frozen=True, tag=29, gc=False):
    """The answer to a `Ping`."""

    id: int


FromNode = Start | Call | Deliver | Reply | Refuse | Cancel | Settings | Stop | Proceeded | Ping
FromWorker = Ready | Done | Denied | Failed | Acked | Api | Log | Figure | Proceed | Pong


class ProtocolFault(Exception):
    """The other side sent what is not a frame of this protocol; what it was is said without its bytes."""


_encoder = msgspec.msgpack.Encoder()
_from_node = msgspec.msgpack.Decoder(FromNode)
_from_worker = msgspec.msgpack.Decoder(FromWorker)


def encode(frame: Frame) -> bytes:
    """The frame as bytes, length included. Raises: ProtocolFault when it is larger than a frame may be."""
    body = _encoder.encode(frame)
    if len(body) > MAX_FRAME_BYTES:
        raise ProtocolFault(f"a frame of {len(body)} bytes, the limit is {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


def raw(value: Any) -> Raw:
    """A value as it travels inside of a frame."""
    return Raw(_encoder.encode(value))


def value(packed: Raw) -> Any:
    """What travelled inside of a frame. Raises: ProtocolFault."""
    try:
        return msgspec.msgpack.decode(packed)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise ProtocolFault("a value that is not msgpack") from error


def decode_from_node(body: bytes | memoryview) -> FromNode:
    """One frame without its length. Raises: ProtocolFault."""
    try:
        frame: FromNode = _from_node.decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise ProtocolFault(str(error)[:200]) from error
    return frame


def decode_from_worker(body: bytes | memoryview) -> FromWorker:
    """One frame without its length. Raises: ProtocolFault."""
    try:
        frame: FromWorker = _from_worker.decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise ProtocolFault(str(error)[:200]) from error
    return frame


class Frames:
    """Cuts a stream of bytes into frame bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes, at_most: int = 1_000_000) -> list[bytes]:
        """Every whole body that is there now, up to `at_most`; `feed(b"")` goes on with the rest.

        Raises: ProtocolFault for a length that is zero or too large.
        """
        buffer = self._buffer
        if buffer:
            buffer += data
        source = buffer or data  # most frames come whole, and alone: they are cut from what came
        bodies: list[bytes] = []
        at, end = 0, len(source)
        while end - at >= 4 and len(bodies) < at_most:
            (size_bytes,) = _LENGTH.unpack_from(source, at)
            if not 0 < size_bytes <= MAX_FRAME_BYTES:
                raise ProtocolFault(f"a frame of {size_bytes} bytes")
            if end - at - 4 < size_bytes:
                break
            bodies.append(bytes(source[at + 4 : at + 4 + size_bytes]))
            at += 4 + size_bytes
        if source is buffer:
            del buffer[:at]
        elif at < end:
            buffer += source[at:]
        return bodies

    @property
    def is_partial(self) -> bool:
        """Whether a frame has begun that is not whole."""
        return bool(self._buffer)
