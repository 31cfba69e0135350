"""Events of the planes that serve data: rows and the database, realtime clients, REST."""

from __future__ import annotations

from typing import Literal

from msgspec import Raw

from magmobo.contracts.events.event import Event


class DatabaseChange(Event, frozen=True, gc=False):
    """One committed row change, or a truncate.

    `position` is opaque to users; here it is 16 hex digits of the commit LSN, a dot, 8 hex digits of the sequence in
    the transaction, so that text order is commit order. `record` and `old_record` are JSON objects as REST would show
    them; `old_record` holds what the table's replica identity gives. `commit_time` is RFC 3339 in UTC. A `replayed`
    change was committed before this reader started: it feeds history only.
    """

    topic = "database.change"
    private = ("record", "old_record")
    source: str
    schema: str
    table: str
    op: Literal["insert", "update", "delete", "truncate"]
    position: str
    commit_time: str
    record: Raw | None = None
    old_record: Raw | None = None
    replayed: bool = False


class DatabaseChangesLost(Event, frozen=True, gc=False):
    """Changes up to `to` can no longer be told apart from silence: every table channel must say `gap`."""

    topic = "database.changes_lost"
    epoch: str
    from_position: str
    to_position: str
    reason: str


class DatabaseSchemaChanged(Event, frozen=True, gc=False):
    """Tables, columns, keys, roles or rights changed, by us or by others. `reason` is `notify`, `fingerprint` or
    `reconnect`.
    """

    topic = "database.schema_changed"
    reason: str


class DatabaseConnectionFailed(Event, frozen=True, gc=False):
    """The database stopped answering."""

    topic = "database.connection.failed"
    error: str


class DatabaseConnectionRecovered(Event, frozen=True, gc=False):
    """The database answers again after `outage_s`."""

    topic = "database.connection.recovered"
    outage_s: float


class DatabaseMigrationApplied(Event, frozen=True, gc=False):
    """A migration ran; `component` is its namespace. `direction` is `up` or `down`."""

    topic = "database.migration.applied"
    component: str
    version: str
    duration_s: float
    direction: str = "up"


class DatabaseQueryExecuted(Event, frozen=True, gc=False):
    """A statement of a request ran. Emitted only while somebody listens; `sql` is its text without values."""

    topic = "database.query.executed"
    sql_hash: str
    duration_s: float
    rows: int
    role: str = ""
    sql: str = ""


class DatabaseSlowQueryDetected(Event, frozen=True, gc=False):
    """A statement of a request took longer than `magds.slow_query_s`; `sql` is its text without values."""

    topic = "database.slow_query.detected"
    sql_hash: str
    duration_s: float
    rows: int
    role: str = ""
    sql: str = ""


class RealtimeConnectionOpened(Event, frozen=True, gc=False):
    """A realtime client connected."""

    topic = "realtime.connection.opened"
    connection_id: str
    app: str


class RealtimeConnectionClosed(Event, frozen=True, gc=False):
    """A realtime client left or was closed."""

    topic = "realtime.connection.closed"
    connection_id: str
    app: str
    reason: str
    duration_s: float


class RealtimeSubscriptionCreated(Event, frozen=True, gc=False):
    """A client was admitted to a channel."""

    topic = "realtime.subscription.created"
    connection_id: str
    channel: str


class RealtimeSubscriptionRemoved(Event, frozen=True, gc=False):
    """A client left a channel."""

    topic = "realtime.subscription.removed"
    connection_id: str
    channel: str


class RealtimeGap(Event, frozen=True, gc=False):
    """Clients of a channel were told that they missed what lies between `from_position` and `to_position`."""

    topic = "realtime.gap"
    channel: str
    from_position: str
    to_position: str
    reason: str


class RealtimeMessageSent(Event, frozen=True, gc=False):
    """A message went out to a channel that is not a table's. Emitted only while somebody listens."""

    topic = "realtime.message.sent"
    channel: str
    recipients: int
    event: str = ""


class ApiResponseSent(Event, frozen=True, gc=False):
    """A REST request was answered. Emitted only while somebody listens; `actor` is the role."""

    topic = "api.response.sent"
    method: str
    path: str
    status: int
    duration_s: float
    actor: str
