"""What each hook point tells, as types: `async def guard(call: HookCall[MigrationContext])`.

Boundary: types and one table for `magx.testing`; a worker needs none of it. A test of the node holds them against its
own. Source: `docs/extensions.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypedDict


class MigrationContext(TypedDict):
    """One migration about to run, or that ran; `duration_s` is 0 before."""

    namespace: str
    version: str
    name: str
    direction: Literal["up", "down"]
    sql: str
    duration_s: float


class QueryContext(TypedDict):
    """One statement of a request; `sql_hash` names its text."""

    sql: str
    sql_hash: str
    role: str
    read_only: bool


class HealthContext(TypedDict):
    """A component asks what else there is to say about its health. Answer: `{check: {status, detail}}`."""

    component: str


class RequestContext(TypedDict):
    """One REST request before it is planned. `claims` is JSON text; `body` is up to 64 KiB of JSON text, else empty."""

    request_id: str
    method: str
    path: str
    query: str
    table: str
    role: str
    anonymous: bool
    claims: str
    headers: dict[str, str]
    body: str
    body_bytes: int


class ResponseContext(TypedDict):
    """One REST request that was answered."""

    request_id: str
    method: str
    path: str
    table: str
    role: str
    status: int
    body_bytes: int
    duration_s: float


class ErrorContext(TypedDict):
    """One REST request that failed; `message` as the client was told."""

    request_id: str
    method: str
    path: str
    status: int
    code: str
    message: str


class EndpointContext(TypedDict):
    """Another extension's endpoint is to be served."""

    extension: str
    method: str
    path: str


class ChannelContext(TypedDict):
    """A realtime channel, and who subscribes or leaves; `user_id` is empty for those who have not said."""

    app: str
    channel: str
    connection_id: str
    user_id: str


class BroadcastContext(TypedDict):
    """One message to a channel; `origin` is `api`, `client`, `component` or `extension:<id>`."""

    app: str
    channel: str
    event: str
    data: str
    origin: str


class Point(NamedTuple):
    """One hook point: what it tells, what taking part needs, and which fields a hook may change."""

    context: type
    capability: str
    mutable: frozenset[str] = frozenset()
    is_around: bool = False


_INTERCEPT, _ADMIN, _SUBSCRIBE = "api.intercept_request", "database.admin", "realtime.subscribe_events"
POINTS: Mapping[str, Point] = {
    "api.after_request": Point(ResponseContext, _INTERCEPT),
    "api.before_request": Point(RequestContext, _INTERCEPT, frozenset({"query", "body"})),
    "api.on_error": Point(ErrorContext, _INTERCEPT),
    "api.rate_limit_check": Point(RequestContext, _INTERCEPT),
    "api.rbac_check": Point(RequestContext, _INTERCEPT),
    "api.register_endpoint": Point(EndpointContext, _INTERCEPT),
    "database.after_migration": Point(MigrationContext, _ADMIN),
    "database.around_query": Point(QueryContext, _ADMIN, is_around=True),
    "database.before_migration": Point(MigrationContext, _ADMIN),
    "database.health_check": Point(HealthContext, "system.metrics"),
    "realtime.after_broadcast": Point(BroadcastContext, _SUBSCRIBE),
    "realtime.before_broadcast": Point(BroadcastContext, _SUBSCRIBE, frozenset({"data"})),
    "realtime.register_channel": Point(ChannelContext, "realtime.register_channel"),
    "realtime.subscribe_to_channel": Point(ChannelContext, _SUBSCRIBE),
    "realtime.unsubscribe_from_channel": Point(ChannelContext, _SUBSCRIBE),
}
"""Every hook point that can be used, by name."""
