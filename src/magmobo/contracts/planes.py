"""The Protocols by which the towers meet: storage, changes, realtime, the public port, the operators' door.

Boundary: no implementation, no I/O. A component lists the Protocols it `provides`; another asks with `Needs[...]`.
Source: CONTRACTS section 11.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol

from msgspec import Struct

from magmobo.contracts.audit import Audit
from magmobo.contracts.events import DatabaseChange
from magmobo.contracts.stores import Cache, State

if TYPE_CHECKING:
    from psycopg import AsyncConnection  # 130 ms, for an annotation

    from magmobo.contracts.capabilities import Actor
    from magmobo.contracts.secret import Secret
    from magmobo.contracts.websocket import WebSocketFactory

__all__ = [
    "Audit", "Cache", "Caller", "Changes", "ComponentStatus", "Database", "Gap", "Gateway", "Identity", "Listener",
    "Mount", "NodeStatus", "Operators", "PublishedTable", "Realtime", "RefusedTable", "Replay", "SecretInfo", "State",
    "Statement", "StatementResult", "TableName", "Vault",
]  # fmt: skip

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
AsgiApp = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

# ---------------------------------------------------------------- storage


class TableName(Struct, frozen=True, order=True):
    """A table by schema and name, exactly as the catalogue spells them (no quoting)."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


class Identity(Struct, frozen=True):
    """On whose behalf a statement runs: a Postgres role and the claims that row level security reads.

    `claims` is a JSON object text, visible to SQL as the setting `request.jwt.claims`.
    """

    role: str
    claims: bytes = b"{}"


class Statement(Struct, frozen=True):
    """SQL with `$1`-style parameters in text format; parameter types are inferred by Postgres. Never holds user
    text.
    """

    sql: bytes
    params: Sequence[bytes | None] = ()


class StatementResult(Struct, frozen=True):
    """Rows in Postgres text format, in order, and the command tag (`INSERT 0 3`)."""

    rows: Sequence[tuple[bytes | None, ...]]
    tag: str = ""


class Database(Protocol):
    """Postgres as other components see it."""

    async def run(
        self, statement: Statement, identity: Identity, *, read_only: bool, timeout_s: float | None = None
    ) -> StatementResult:
        """Run one statement as `identity`, in one implicit transaction of its own, over a pipelined connection.

        The role, claims and read-only mode end with the transaction. A cancelled caller or an error touches no
        neighbour.
        Raises: psycopg.Error with its SQLSTATE for what Postgres refuses; IdentityRefused for a role that requests may
            not use; Unavailable when no connection can be had in time; DeadlineExceeded.
        """
        ...

    def session(
        self, *, timeout_s: float | None = None
    ) -> AbstractAsyncContextManager[AsyncConnection[tuple[Any, ...]]]:
        """A whole connection as the node's own role, in autocommit, for COPY, cursors, DDL and long work. Returned
        clean.

        Raises: Unavailable when none becomes free in time.
        """
        ...

    def standing_session(self) -> AbstractAsyncContextManager[AsyncConnection[tuple[Any, ...]]]:
        """The same, to be kept for as long as its caller lives, or while it uses others beside it: a lock that ends
        with the connection, for instance. It takes none of those that `session` gives. Raises: Unavailable.
        """
        ...

    @property
    def database_name(self) -> str: ...

    def grantable_roles(self) -> frozenset[str]:
        """Roles a request may use: never a superuser, never one that bypasses row level security, never the node's
        own.
        """
        ...


class PublishedTable(Struct, frozen=True):
    """How a table takes part in the change stream. `inserts_only`: it has no replica identity, so updates and
    deletes are not seen.
    """

    table: TableName
    columns: tuple[str, ...]
    key_columns: tuple[str, ...]
    inserts_only: bool
    identity_full: bool


class RefusedTable(Struct, frozen=True):
    """A table that was asked for but is not published; `code` is stable, `remedy` the exact next step."""

    table: TableName
    code: str
    reason: str
    remedy: str


class Replay(Struct, frozen=True):
    """What happened on one table after a position, oldest first, and the position up to which that is everything."""

    changes: Sequence[DatabaseChange]
    position: str


class Gap(Struct, frozen=True):
    """History no longer covers the asked position. `reason` is one of epoch_changed, too_old, ahead, malformed,
    lost.
    """

    from_position: str
    to_position: str
    reason: Literal["epoch_changed", "too_old", "ahead", "malformed", "lost"]


class Changes(Protocol):
    """The stream of committed changes and its history. Positions are opaque strings outside this plane."""

    async def publish(
        self, tables: Sequence[TableName], *, consumer: str = ""
    ) -> Sequence[PublishedTable | RefusedTable]:
        """Make exactly these tables part of the stream for this consumer, beside those of the others; one answer per
        asked table, in order. Never alters a user's table. What was part of it when the node began stays until the node
        is ready, so that nobody's table leaves because another consumer speaks first.
        """
        ...

    def hold(self, consumer: str, position: str | None) -> None:
        """This consumer has taken everything up to `position` for good: what is behind it stays readable over a restart
        of the node, as far as the server's limit of WAL allows. None: it wants nothing kept.
        """
        ...

    def published(self, table: TableName) -> PublishedTable | None:
        """The table's present state in the stream, None when it takes no part."""
        ...

    async def caught_up(self) -> None:
        """Return once the reader has passed the end of the log seen when it started.

        Raises: ChangesUnavailable at once when this server cannot give changes (its text says why), Unavailable later
        on.
        """
        ...

    @property
    def epoch(self) -> str:
        """Names one unbroken history; positions of different epochs cannot be compared."""
        ...

    @property
    def position(self) -> str:
        """Everything committed up to here has been emitted on the bus as `database.change`."""
        ...

    def replay(self, table: TableName, epoch: str, position: str) -> Replay | Gap:
        """What a subscriber that last saw `position` missed. Synchronous: between it and `position` nothing can be
        emitted.
        """
        ...


# ---------------------------------------------------------------- the public port


class Mount(Protocol):
    """A prefix that an application serves until it is released."""

    def release(self) -> None:
        """Stop serving; the prefix answers 503 until somebody mounts it again. Calling it twice is fine."""
        ...


class Listener(Protocol):
    """The one public port."""

    def mount_http(self, prefix: str, app: AsgiApp) -> Mount:
        """Route every path that starts with `prefix` (it begins and ends with `/`) to a bare ASGI app; longest prefix
        wins.

        The app sees the whole path. An exact path without the trailing slash is routed too; `/` is the root path alone.
        Raises: ValueError when the prefix is taken.
        """
        ...

    def mount_websocket(self, prefix: str, factory: WebSocketFactory) -> Mount:
        """Give every WebSocket upgrade below `prefix` to a session made by `factory`."""
        ...

    @property
    def address(self) -> tuple[str, int]:
        """Host and port as bound; the port is never 0."""
        ...

    @property
    def base_url(self) -> str:
        """`http://host:port` as a client on this machine would write it."""
        ...


# ---------------------------------------------------------------- realtime


class Realtime(Protocol):
    """The realtime plane, for other components."""

    def publish(
        self,
        channels: Sequence[str],
        event: str,
        data: str,
        *,
        exclude_socket_id: str | None = None,
        origin: str = "component",
    ) -> None:
        """Send one event to everybody subscribed to these channels, unless an extension that guards them says no.
        `data` is the text an application receives; `origin` as in `contracts.hooks.BroadcastContext`.
        """
        ...

    async def deliver(
        self,
        channels: Sequence[str],
        event: str,
        data: str,
        *,
        exclude_socket_id: str | None = None,
        origin: str = "component",
    ) -> None:
        """As `publish`, and return once extensions have said what becomes of it. Not for what runs below a hook that
        others wait for, nor for what keeps a hook from being asked: the answer may wait for that very hook.

        Raises: HookDenied, HookUnavailable, or a retryable error of the plane when it was dropped, for the first
            channel on which it did not go out; on the others it did, or was refused too.
        """
        ...

    def authorise(self, socket_id: str, channel: str) -> str:
        """The `auth` value that admits this socket to a private channel of the first app: `key:hex(HMAC-SHA256)`."""
        ...

    @property
    def app_key(self) -> str:
        """Public key of the first app."""
        ...

    def table_channels(self) -> Sequence[str]:
        """Channel names of all published tables, without filters, as a client subscribes to them."""
        ...


# ---------------------------------------------------------------- the gateway


class Caller(Struct, frozen=True):
    """Who sends a request, as its token says. `role` is empty when it may not be answered at all."""

    role: str
    anonymous: bool
    claims: bytes = b"{}"


class Gateway(Protocol):
    """The gateway, for those who serve requests beside it."""

    def identify(self, authorization: bytes | None) -> Caller:
        """Who sends a request with this `Authorization` header, by the rules of REST.

        Raises: an error of the gateway's own with `http_status` 401 or 403, as REST would answer.
        """
        ...

    @property
    def schemas(self) -> Sequence[str]:
        """Schemas that REST shows."""
        ...


# ---------------------------------------------------------------- secrets


class SecretInfo(Struct, frozen=True):
    """What may be known of a secret without reading it. `version` is the one that counts, `versions` those that are
    kept, oldest first; times are RFC 3339 in UTC.
    """

    name: str
    version: int
    versions: Sequence[int]
    created_at: str
    changed_at: str


class Vault(Protocol):
    """Secrets by name, each in versions; the file in the data folder, or a server.

    A component reaches those whose name begins with its own and a dot (`billing.api_key` for `billing`), no other.
    Names are `[a-z0-9][a-z0-9._-]{0,99}`. Every read and write is audited before it happens. Every method raises
    VaultUnavailable; all but `infos` also raise AuditUnavailable and SecretDenied, and then nothing was read or
    changed.
    """

    async def read(self, name: str, *, version: int | None = None, purpose: str = "") -> Secret:
        """The secret, of the version that counts unless one is named. Raises: SecretUnknown."""
        ...

    async def write(self, name: str, value: Secret) -> SecretInfo:
        """Store a new version, which counts from now on; durable when this returns."""
        ...

    async def restore(self, name: str, version: int) -> SecretInfo:
        """Store what an older version held as a new one. Raises: SecretUnknown."""
        ...

    async def remove(self, name: str) -> None:
        """Forget a secret with all its versions. Raises: SecretUnknown."""
        ...

    async def infos(self) -> Sequence[SecretInfo]:
        """Those within reach, by name; reads none of them, so nothing is audited."""
        ...


# ---------------------------------------------------------------- operators


class ComponentStatus(Struct, frozen=True):
    """One line of `mag component:list`. `since` is RFC 3339 in UTC; `essential`: the node is not ready without it."""

    name: str
    state: str
    health: str
    restarts: int
    since: str
    detail: str = ""
    essential: bool = True


class NodeStatus(Struct, frozen=True):
    """Answer of `mag kernel:status`; field names are a contract with scripts (CONTRACTS section 4)."""

    instance_id: str
    state: str
    environment: str
    version: str
    uptime_s: float
    components: Sequence[ComponentStatus]
    urls: Mapping[str, str] = {}
    examples: Sequence[str] = ()
    notices: Sequence[str] = ()


class Operators(Protocol):
    """What the doors (control socket, console, probes) ask of the node."""

    def status(self) -> NodeStatus:
        """How the node is, now."""
        ...

    def admin_token_matches(self, candidate: str) -> bool:
        """Whether `candidate` is the admin token, compared in constant time."""
        ...

    @property
    def admin_token_number(self) -> int:
        """Another one whenever the admin token is another one, also when a former one comes back. What somebody was
        given for the token ends when this changes.
        """
        ...

    async def run(
        self,
        command: str,
        params: bytes = b"{}",
        *,
        actor: Actor,
        timeout_s: float = 30.0,
        dry_run: bool = False,
        idempotency_key: str = "",
    ) -> bytes:
        """Send one command through the command bus. `params` and the answer are JSON.

        Raises: CommandUnknown, CommandMalformed, CapabilityDenied, DeadlineExceeded, AuditUnavailable, and the
            handler's own MagError.
        """
        ...
