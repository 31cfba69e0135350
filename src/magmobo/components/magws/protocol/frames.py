"""Frames the server sends, ready for the wire.

Pusher wraps the `data` of most server events in a second layer of JSON; `pusher:error` and `pusher:subscription_error`
carry an object, as Pusher itself and Soketi send them. A frame is built once and serves every recipient.
"""

from __future__ import annotations

from typing import Any

from msgspec import json

from magmobo.contracts.websocket import text_frame

PING = text_frame(b'{"event":"pusher:ping","data":{}}')
PONG = text_frame(b'{"event":"pusher:pong","data":{}}')


def event(name: str, data: dict[str, Any], channel: str | None = None) -> bytes:
    """One server event whose `data` is JSON inside a JSON string."""
    return message_frame(name, json.encode(data).decode(), channel)


def message_frame(name: str, data: str, channel: str | None) -> bytes:
    """One event whose `data` is the text an application receives."""
    head = {"event": name} if channel is None else {"event": name, "channel": channel}
    return text_frame(json.encode(head | {"data": data}))


def relayed(name: str, channel: str, data: bytes) -> bytes:
    """A client's event for the others; `data` is the JSON text the client sent."""
    return text_frame(json.encode({"event": name, "channel": channel})[:-1] + b',"data":' + data + b"}")


def established(socket_id: str, activity_timeout_s: int) -> bytes:
    """First frame of every accepted connection."""
    return event("pusher:connection_established", {"socket_id": socket_id, "activity_timeout": activity_timeout_s})


def error(code: int | None, message: str) -> bytes:
    """An error about the connection or about one request on it."""
    return text_frame(json.encode({"event": "pusher:error", "data": {"code": code, "message": message}}))


def subscription_succeeded(channel: str) -> bytes:
    """The channel is admitted."""
    return event("pusher_internal:subscription_succeeded", {}, channel)


def subscription_error(channel: str, kind: str, text: str, status: int, code: str) -> bytes:
    """The channel is refused; `status` is HTTP's, `code` is ours and stable."""
    data = {"type": kind, "error": text, "status": status, "code": code}
    return text_frame(json.encode({"event": "pusher:subscription_error", "channel": channel, "data": data}))


def position(channel: str, epoch: str, serial: str) -> bytes:
    """Where the channel stands, for clients that said hello."""
    return event("mag:position", {"channel": channel, "epoch": epoch, "serial": serial})


def resumed(channel: str, epoch: str, serial: str) -> bytes:
    """Everything up to `serial` has been delivered; what follows is live."""
    return event("mag:resumed", {"channel": channel, "epoch": epoch, "serial": serial})


def gap(channel: str, start: str, end: str, reason: str, refetch: dict[str, Any] | None) -> bytes:
    """What lies between `start` and `end` is not known to the channel any more; `refetch` names the data to read."""
    return event("mag:gap", {"channel": channel, "from": start, "to": end, "reason": reason, "refetch": refetch})
