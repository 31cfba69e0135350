"""Pusher's HTTP API as a bare ASGI app below /apps/: servers publish events and ask about channels.

Every call is signed. A call is checked whole before anything is sent, so a batch that is refused for what it says has
published nothing. What extensions do not let out is told to the caller, by channel; the rest went out. Table
channels and reserved names are refused: what arrives there was written by the node.
Source: Pusher Channels, "HTTP API reference".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote

import msgspec
import structlog
from msgspec import Meta, Struct

from magmobo.components.magws.broadcasts import Broadcast
from magmobo.components.magws.config import AppConfig
from magmobo.components.magws.errors import (
    ApiRefused,
    BadChannelName,
    BadRequest,
    BadSignature,
    BroadcastDenied,
    BroadcastDropped,
    BroadcastUndecided,
    NoSuchResource,
    ReservedChannel,
    TooLarge,
)
from magmobo.components.magws.plane import Plane
from magmobo.components.magws.protocol import names
from magmobo.components.magws.signing import RequestGuard
from magmobo.components.magws.verdicts import Verdicts
from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import HookDenied
from magmobo.contracts.planes import Message, Scope

PREFIX = "/apps/"
MAX_BODY_BYTES = 2_097_152
MAX_CHANNELS, MAX_BATCH = 100, 10
VERDICT_S = 5.0
"""A caller waits no longer for extensions."""
_Name = Annotated[str, Meta(min_length=1, max_length=200)]


class EventCall(Struct, frozen=True):
    """Body of POST events, and one entry of a batch. Exactly one of `channel` and `channels` is set."""

    name: _Name
    data: str
    channel: str | None = None
    channels: Annotated[list[str], Meta(min_length=1, max_length=MAX_CHANNELS)] | None = None
    socket_id: str | None = None
    info: str | None = None


class BatchCall(Struct, frozen=True):
    """Body of POST batch_events."""

    batch: Annotated[list[EventCall], Meta(min_length=1, max_length=MAX_BATCH)]


class HttpApi:
    """The ASGI app. `hide` takes secrets of the node out of errors."""

    def __init__(
        self,
        plane: Plane,
        apps: Sequence[AppConfig],
        clock: Clock,
        log: structlog.stdlib.BoundLogger,
        hide: Callable[[str], str],
    ) -> None:
        self._plane, self._clock, self._log, self._hide = plane, clock, log, hide
        self._apps: dict[str, AppConfig] = {}
        self._guards: dict[str, RequestGuard] = {}
        self.adopt(apps)

    def adopt(self, apps: Sequence[AppConfig]) -> None:
        """Take calls of these apps from now on. One whose key and secret stay remembers the calls it has taken."""
        known, self._apps = self._apps, {app.id: app for app in apps}
        self._guards = {
            app.id: self._guards[app.id]
            if app.id in known and (known[app.id].key, known[app.id].secret) == (app.key, app.secret)
            else RequestGuard(app.key, app.secret)
            for app in apps
        }

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json")]
        answer: dict[str, Any]
        try:
            status, answer = 200, await self._answer(scope, receive)
        except ApiRefused as refusal:
            status, answer = refusal.http_status, {"error": self._hide(str(refusal)), "code": refusal.code}
            self._log.info("realtime_api_refused", status=status, code=refusal.code)
            if isinstance(refusal, BroadcastDenied):
                answer["channels"] = {name: self._hide(why) for name, why in refusal.refused.items()}
            if (retry_s := getattr(refusal, "retry_s", float(refusal.retryable))) > 0:
                headers.append((b"retry-after", b"%d" % ceil(retry_s)))
        body = msgspec.json.encode(answer)
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Any) -> dict[str, Any]:
        method, path = scope["method"], scope["path"]
        app_id, _, resource = path.removeprefix(PREFIX).partition("/")
        query = _query(scope["query_string"])
        body = await _body(receive)
        app = self._apps.get(app_id)
        if app is None:
            raise BadSignature("unknown app or wrong signature")
        raw_path = scope.get("raw_path", path.encode()).decode("latin-1").partition("?")[0]
        self._guards[app.id].check(method, (raw_path, unquote(raw_path)), query, body, self._clock.time_s())
        match method, resource:
            case "POST", "events":
                return await self._publish(app, [_decode(body, EventCall)])
            case "POST", "batch_events":
                return await self._publish_batch(app, _decode(body, BatchCall))
            case "GET", "channels":
                return self._channels(app, query)
            case "GET", name if name.startswith("channels/"):
                return self._channel(app, name.removeprefix("channels/"), query)
        raise NoSuchResource(f"{method} {resource[:80]} is not offered")

    async def _publish(self, app: AppConfig, calls: Sequence[EventCall]) -> dict[str, Any]:
        targets = [(call, name) for call in calls for name in _checked(app, call)]
        verdicts = Verdicts()
        for call, name in targets:
            message = Broadcast(app.id, name, call.name, call.data, call.socket_id or "")
            self._plane.broadcast(message, verdicts.of(name))
        await _let_out(verdicts)
        wanted = _wanted(calls[0].info) if len(calls) == 1 else frozenset()
        return {"channels": {name: self._info(app, name, wanted) for _, name in targets}} if wanted else {}

    async def _publish_batch(self, app: AppConfig, call: BatchCall) -> dict[str, Any]:
        await self._publish(app, call.batch)
        wanted = [_wanted(entry.info) for entry in call.batch]
        if not any(wanted):
            return {}
        return {"batch": [self._info(app, e.channel or "", w) for e, w in zip(call.batch, wanted, strict=True)]}

    def _channels(self, app: AppConfig, query: Mapping[str, str]) -> dict[str, Any]:
        prefix, wanted = query.get("filter_by_prefix", ""), _wanted(query.get("info"))
        channels = self._plane.registry.of_app(app.id)
        return {
            "channels": {
                name: self._info(app, name, wanted)
                for name, channel in channels.items()
                if channel.members and name.startswith(prefix)
            }
        }

    def _channel(self, app: AppConfig, name: str, query: Mapping[str, str]) -> dict[str, Any]:
        try:
            names.kind_of(name)
        except BadChannelName as refusal:
            raise NoSuchResource(str(refusal)) from refusal
        channel = self._plane.registry.find(app.id, name)
        occupied = channel is not None and bool(channel.members)
        return {"occupied": occupied} | self._info(app, name, _wanted(query.get("info")))

    def _info(self, app: AppConfig, name: str, wanted: frozenset[str]) -> dict[str, Any]:
        if "subscription_count" not in wanted:
            return {}
        channel = self._plane.registry.find(app.id, name)
        return {"subscription_count": len(channel.members) if channel is not None else 0}


async def _let_out(verdicts: Verdicts) -> None:
    """Wait for what extensions say. Raises: BroadcastDenied, BroadcastDropped, BroadcastUndecided."""
    try:
        async with asyncio.timeout(VERDICT_S):
            refused = await verdicts.wait()
    except TimeoutError as error:
        raise BroadcastUndecided("extensions have not said yet whether it may go out") from error
    if denials := [reason for reason in refused.values() if isinstance(reason, HookDenied)]:
        said = {name: str(reason) for name, reason in refused.items()}
        raise BroadcastDenied(said, max(denial.retry_s for denial in denials))
    for name, reason in refused.items():
        raise BroadcastDropped(f"{name}: {reason}") from reason


def _checked(app: AppConfig, call: EventCall) -> list[str]:
    """The channels of one event, once each.

    Raises: BadRequest, TooLarge, ReservedChannel.
    """
    if (call.channel is None) == (call.channels is None):
        raise BadRequest("give `channel` or `channels`")
    if names.is_reserved_event(call.name):
        raise BadRequest("event names of the protocol itself may not be published")
    if call.socket_id is not None and not names.is_socket_id(call.socket_id):
        raise BadRequest("socket_id is not of the form 123.456")
    if len(call.data.encode()) > app.max_event_bytes:
        raise TooLarge(f"data is larger than {app.max_event_bytes} bytes")
    channels = list(dict.fromkeys(call.channels or [call.channel or ""]))
    for name in channels:
        if names.is_reserved(name):
            raise ReservedChannel("only the node itself publishes on this channel")
        try:
            names.kind_of(name)
        except BadChannelName as refusal:
            raise BadRequest(str(refusal)) from refusal
    return channels


def _decode(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        detail = str(error) if isinstance(error, msgspec.ValidationError) else "not JSON"
        raise BadRequest(f"the body is not what this call takes: {detail}") from error


def _query(raw: bytes) -> dict[str, str]:
    """Query parameters, names in lower case as Pusher signs them.

    Raises: BadRequest when a name occurs twice: which one was signed would be a guess.
    """
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=50)
    except ValueError as error:
        raise BadRequest("the query is malformed") from error
    query = {name.lower(): value for name, value in pairs}
    if len(query) != len(pairs):
        raise BadRequest("a query parameter occurs twice")
    return query


def _wanted(info: str | None) -> frozenset[str]:
    return frozenset((info or "").split(",")) - {""}


async def _body(receive: Any) -> bytes:
    """The whole body.

    Raises: TooLarge above `MAX_BODY_BYTES`; BadRequest when the caller left in the middle.
    """
    parts: list[bytes] = []
    size_bytes, more = 0, True
    while more:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("the caller left before the body was whole")
        part = message.get("body", b"")
        parts.append(part)
        size_bytes += len(part)
        if size_bytes > MAX_BODY_BYTES:
            raise TooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes")
        more = message.get("more_body", False)
    return b"".join(parts)
