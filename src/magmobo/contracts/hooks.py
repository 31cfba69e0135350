"""Where extensions may take part in what a component does: hook points, what each is told, and who runs them.

A component asks its context for its points once and tests `point.chain is not None` on the way: that is the whole cost
where nobody takes part. The mediation plane puts chains in and takes them out; one assignment, so a caller sees either
the old chain or the new one. Boundary: declarations and one slot; no extension code runs here.
Source: CONTRACTS section 6.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Generic, Literal, Protocol, TypeVar

from msgspec import Struct

from magmobo.contracts.errors import HookDenied as HookDenied
from magmobo.contracts.errors import HookUnavailable as HookUnavailable

T = TypeVar("T")


class Phase(StrEnum):
    """`BEFORE` may deny and change the mutable fields; `AFTER` is told and never waited for; `AROUND` also decides when
    the operation itself runs; `REPLACE` answers in its place, or falls back; `GATHER` collects what each has to say.
    """

    BEFORE = "before"
    AFTER = "after"
    AROUND = "around"
    REPLACE = "replace"
    GATHER = "gather"


class HookContext(Struct, frozen=True, kw_only=True):
    """Base of what a hook is told. Fields are what msgpack can say; a subclass documents each."""


C = TypeVar("C", bound=HookContext)


class HookSpec(Struct, frozen=True):
    """One hook point.

    `component` offers it; `capability` is what an extension needs to take part; `mutable` names the fields of `context`
    that a `before` hook may change; `timeout_s` and `on_error` count unless the manifest says less time or another
    choice (a point whose `on_error` is `deny` stays at that); `planned`: why it cannot be used yet, else empty.
    """

    name: str
    component: str
    phase: Phase
    context: type[HookContext]
    capability: str
    summary: str
    mode: Literal["sequential", "parallel", "first_match"] = "sequential"
    mutable: tuple[str, ...] = ()
    timeout_s: float = 0.05
    on_error: Literal["deny", "skip", "fallback"] = "skip"
    planned: str = ""


class HookChain(Protocol[C]):
    """What takes part at one point now. Never empty: a point where nobody takes part has no chain."""

    async def before(self, context: C) -> C:
        """The context as the extensions changed it, its mutable fields only. Raises: HookDenied, HookUnavailable."""
        ...

    def after(self, context: C) -> None:
        """Tell what happened; returns at once and never raises."""
        ...

    async def around(self, context: C, proceed: Callable[[], Awaitable[T]]) -> T:
        """Run `proceed` once, when the extensions let it. Raises: HookDenied, HookUnavailable; as `proceed`."""
        ...

    async def replace(self, context: C) -> Mapping[str, Any] | None:
        """The answer of whoever stands in for the operation; None: do it yourself. Raises: HookDenied,
        HookUnavailable.
        """
        ...

    async def gather(self, context: C) -> Mapping[str, Mapping[str, Any]]:
        """Extension id -> its answer, for those that answered in time; never raises."""
        ...


class HookPoint(Generic[C]):
    """The place for a chain. Hosts read `chain` at each operation and keep no copy of it."""

    __slots__ = ("chain", "spec")

    def __init__(self, spec: HookSpec) -> None:
        self.spec = spec
        self.chain: HookChain[C] | None = None


class Hooks(Protocol):
    """All hook points of a node; one object each, whoever asks and however often."""

    def point(self, name: str) -> HookPoint[Any]:
        """The point of this name. Raises: KeyError when the catalogue has no such point."""
        ...

    def points(self) -> Sequence[HookPoint[Any]]:
        """Every point of the catalogue, by name."""
        ...


# ---------------------------------------------------------------- what hooks are told


class MigrationContext(HookContext, frozen=True, kw_only=True):
    """One migration about to run, or that ran. `namespace` is `app`, `extensions` or an extension's id; `duration_s` is
    0 before.
    """

    namespace: str
    version: str
    name: str
    direction: Literal["up", "down"]
    sql: str
    duration_s: float = 0.0


class QueryContext(HookContext, frozen=True, kw_only=True):
    """One statement of a request; `sql_hash` names its text (first 16 hex digits of its sha256)."""

    sql: str
    sql_hash: str
    role: str
    read_only: bool


class HealthContext(HookContext, frozen=True, kw_only=True):
    """A component asks what else there is to say about its health. Answer: `{check: {status, detail}}`."""

    component: str


class RequestContext(HookContext, frozen=True, kw_only=True):
    """One REST request before it is planned. `role` and `claims` are those of its token; `headers` without
    authorization, cookies and keys; `body` up to 64 KiB of JSON text, else empty with `body_bytes` telling its size.
    """

    request_id: str
    method: str
    path: str
    query: str
    table: str
    role: str
    anonymous: bool
    claims: str
    headers: Mapping[str, str]
    body: str
    body_bytes: int


class ResponseContext(HookContext, frozen=True, kw_only=True):
    """One REST request that was answered."""

    request_id: str
    method: str
    path: str
    table: str
    role: str
    status: int
    body_bytes: int
    duration_s: float


class ErrorContext(HookContext, frozen=True, kw_only=True):
    """One REST request that failed; `message` as the client was told."""

    request_id: str
    method: str
    path: str
    status: int
    code: str
    message: str


class EndpointContext(HookContext, frozen=True, kw_only=True):
    """An extension's own endpoint is to be served below /ext/<id>/."""

    extension: str
    method: str
    path: str


class ChannelContext(HookContext, frozen=True, kw_only=True):
    """A realtime channel, and who subscribes or leaves; `user_id` is empty for those who have not said."""

    app: str
    channel: str
    connection_id: str
    user_id: str = ""


class BroadcastContext(HookContext, frozen=True, kw_only=True):
    """One message to a channel. `origin` is `api`, `client`, `component` or `extension:<id>`; table channels have no
    hook.
    """

    app: str
    channel: str
    event: str
    data: str
    origin: str


class OperationContext(HookContext, frozen=True, kw_only=True):
    """An operation of storage that is not built yet."""

    name: str


def _spec(name: str, phase: Phase, context: type[HookContext], capability: str, summary: str, **more: Any) -> HookSpec:
    component = {"database": "magds", "api": "maggate", "realtime": "magws"}[name.partition(".")[0]]
    if phase is Phase.AFTER:
        more.setdefault("timeout_s", 5.0)
    return HookSpec(name, component, phase, context, capability, summary, **more)


def _planned(name: str, phase: Phase, what: str, context: type[HookContext] = OperationContext) -> HookSpec:
    return _spec(name, phase, context, "database.admin", what, planned=f"{what} is not built yet")


_INTERCEPT, _ADMIN = "api.intercept_request", "database.admin"
_SPECS = (
    _planned("database.before_create", Phase.BEFORE, "making a database"),
    _planned("database.after_create", Phase.AFTER, "making a database"),
    _spec("database.before_migration", Phase.BEFORE, MigrationContext, _ADMIN, "A migration is about to run.",
          on_error="deny", timeout_s=2.0),
    _spec("database.after_migration", Phase.AFTER, MigrationContext, _ADMIN, "A migration ran."),
    _planned("database.before_backup", Phase.BEFORE, "a backup"),
    _planned("database.after_backup", Phase.AFTER, "a backup"),
    _planned("database.before_restore", Phase.BEFORE, "a restore"),
    _planned("database.after_restore", Phase.AFTER, "a restore"),
    _planned("database.replace_backup", Phase.REPLACE, "a backup"),
    _spec("database.around_query", Phase.AROUND, QueryContext, _ADMIN, "A request's statement runs."),
    _spec("database.health_check", Phase.GATHER, HealthContext, "system.metrics", "What else storage should report.",
          mode="parallel", timeout_s=1.0),
    _spec("api.before_request", Phase.BEFORE, RequestContext, _INTERCEPT, "A REST request is about to be planned.",
          mutable=("query", "body"), on_error="skip"),
    _spec("api.after_request", Phase.AFTER, ResponseContext, _INTERCEPT, "A REST request was answered."),
    _spec("api.on_error", Phase.AFTER, ErrorContext, _INTERCEPT, "A REST request failed."),
    _spec("api.rbac_check", Phase.BEFORE, RequestContext, _INTERCEPT, "May this role make this request?",
          on_error="deny", mode="parallel"),
    _spec("api.rate_limit_check", Phase.BEFORE, RequestContext, _INTERCEPT, "Has this caller asked too often?",
          mode="parallel"),
    _spec("api.register_endpoint", Phase.BEFORE, EndpointContext, "api.intercept_request",
          "Another extension's endpoint is to be served.", on_error="deny"),
    _spec("realtime.register_channel", Phase.BEFORE, ChannelContext, "realtime.register_channel",
          "A channel gets its first subscriber."),
    _spec("realtime.subscribe_to_channel", Phase.BEFORE, ChannelContext, "realtime.subscribe_events",
          "A client asks for a channel that it may have.", on_error="deny"),
    _spec("realtime.unsubscribe_from_channel", Phase.AFTER, ChannelContext, "realtime.subscribe_events",
          "A client left a channel."),
    _spec("realtime.before_broadcast", Phase.BEFORE, BroadcastContext, "realtime.subscribe_events",
          "A message is about to go out.", mutable=("data",)),
    _spec("realtime.after_broadcast", Phase.AFTER, BroadcastContext, "realtime.subscribe_events",
          "A message went out."),
    _spec("realtime.presence_join", Phase.AFTER, ChannelContext, "realtime.subscribe_events",
          "A user joined a presence channel.", planned="presence is not built yet"),
    _spec("realtime.presence_leave", Phase.AFTER, ChannelContext, "realtime.subscribe_events",
          "A user left a presence channel.", planned="presence is not built yet"),
)  # fmt: skip
HOOK_POINTS: Mapping[str, HookSpec] = {spec.name: spec for spec in sorted(_SPECS, key=lambda spec: spec.name)}
"""Every hook point, by name."""
