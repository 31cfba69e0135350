"""Frames a client sends: bytes in, one typed message out. Every byte is hostile.

`data` may be an object or a JSON string holding one: libraries differ. Text is checked to be UTF-8 as a whole, because
a client event is relayed to others without being parsed.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from magmobo.components.magws.errors import ProtocolError

T = TypeVar("T")
MAX_RESUME = 1000
_Text = Annotated[str, Meta(max_length=1024)]


class Ping(Struct, frozen=True):
    """The client checks that the server is there."""


class Pong(Struct, frozen=True):
    """The client answers our ping."""


class Signin(Struct, frozen=True):
    """The client wants to be known as a user."""


class Subscribe(Struct, frozen=True):
    """The client asks for a channel; `auth` is `key:hex`."""

    channel: str
    auth: str | None = None
    channel_data: str | None = None


class Unsubscribe(Struct, frozen=True):
    """The client leaves a channel."""

    channel: str


class ClientEvent(Struct, frozen=True):
    """The client sends an event to the others on a channel; `data` is JSON text."""

    event: str
    channel: str
    data: bytes


class ResumeEntry(Struct, frozen=True):
    """What a client last saw of one channel. For ordinary channels `count` messages came after `serial`, received by
    the socket that was then called `socket_id`.
    """

    channel: _Text
    epoch: _Text
    serial: _Text
    count: Annotated[int, Meta(ge=0, le=2**53)] = 0
    socket_id: Annotated[str, Meta(max_length=64)] = ""


class Hello(Struct, frozen=True):
    """The client understands positions and gaps, and names what it last saw."""

    resume: Annotated[list[ResumeEntry], Meta(max_length=MAX_RESUME)] = []


class Unknown(Struct, frozen=True):
    """An event this version does not know."""

    event: str


Message = Ping | Pong | Signin | Subscribe | Unsubscribe | ClientEvent | Hello | Unknown


class _Frame(Struct):
    event: str
    data: Raw = Raw()
    channel: str | None = None


def parse(payload: bytes) -> Message:
    """One text message as something typed.

    Raises: ProtocolError when it is not UTF-8, not JSON, nested too deep, or not what its event demands.
    """
    try:
        payload.decode()
        frame = msgspec.json.decode(payload, type=_Frame)
        return _typed(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("the frame is not a JSON object of the Pusher protocol") from error


def _typed(frame: _Frame) -> Message:
    match frame.event:
        case "pusher:ping":
            return Ping()
        case "pusher:pong":
            return Pong()
        case "pusher:subscribe":
            return _data(frame.data, Subscribe)
        case "pusher:unsubscribe":
            return _data(frame.data, Unsubscribe)
        case "pusher:signin":
            return Signin()
        case "mag:hello":
            return _data(frame.data, Hello)
        case name if name.startswith("client-"):
            if frame.channel is None:
                raise ProtocolError("a client event needs a channel")
            return ClientEvent(name, frame.channel, bytes(frame.data) or b"null")
        case name:
            return Unknown(name)


def _data(raw: Raw, kind: type[T]) -> T:
    text = bytes(raw)
    if text.startswith(b'"'):
        text = msgspec.json.decode(text, type=str).encode()
    return msgspec.json.decode(text, type=kind)
