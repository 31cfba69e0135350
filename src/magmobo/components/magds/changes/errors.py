"""Errors of the change stream, codes MAG-DS-1xx. No text holds a connection string."""

from __future__ import annotations

from magmobo.contracts.errors import MagError


class DecodeError(MagError):
    """The server sent bytes that are not the pgoutput protocol, version 1; nothing of the message was used."""

    code = "MAG-DS-100"
    remedy = (
        "Check that nothing (proxy, pooler) stands between the node and Postgres; the reader connects again itself."
    )

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"malformed replication message: {self.reason}"


class ChangesUnavailable(MagError):
    """This server cannot give live changes now; the text says why and `next_step` what to do about it."""

    code = "MAG-DS-101"
    http_status = 503
    remedy = "Read the reason, correct it on the server; the reader tries again by itself."

    def __init__(self, reason: str, step: str = "") -> None:
        super().__init__(reason, step)
        self.reason, self.step = reason, step

    def __str__(self) -> str:
        return f"live changes are not available: {self.reason}. {self.next_step()}"

    def next_step(self) -> str:
        return self.step or self.remedy


class LogicalDecodingOff(ChangesUnavailable):
    """The server's `wal_level` is below `logical`, so its log does not say which rows changed."""

    code = "MAG-DS-102"
    remedy = "Run ALTER SYSTEM SET wal_level = 'logical'; and restart Postgres."


class ReplicationRightMissing(ChangesUnavailable):
    """The login role has no REPLICATION attribute (or the provider's equivalent)."""

    code = "MAG-DS-103"
    remedy = 'Run ALTER ROLE "the_login" WITH REPLICATION; as a superuser.'


class DatabaseRightMissing(ChangesUnavailable):
    """The login role may not create our schema and publications in this database, or does not own the present ones."""

    code = "MAG-DS-104"
    remedy = 'Run GRANT CREATE ON DATABASE "the_database" TO "the_login";'


class NoFreeSlot(ChangesUnavailable):
    """All replication slots or WAL senders of the server are in use."""

    code = "MAG-DS-105"
    remedy = (
        "Raise max_replication_slots and max_wal_senders and restart Postgres, or drop a slot nobody reads "
        "(SELECT * FROM pg_replication_slots)."
    )


class AnotherReader(ChangesUnavailable):
    """Another node reads the changes of this database; there is one reader per database."""

    code = "MAG-DS-106"
    remedy = "Stop the other node (`mag down` there); this one takes over by itself when the other has gone."


class ServerIsStandby(ChangesUnavailable):
    """The server is a read-only standby; slots and publications are made on the primary."""

    code = "MAG-DS-107"
    remedy = "Point magds.dsn at the primary (several hosts with target_session_attrs=read-write find it)."


class WouldBlockCommits(ChangesUnavailable):
    """`synchronous_standby_names` holds `*`, so commits would wait for our reader, which confirms late by design."""

    code = "MAG-DS-108"
    remedy = "Name the standbys in synchronous_standby_names (SELECT application_name FROM pg_stat_replication), no *."


class StreamBroken(MagError):
    """The replication stream ended or fell silent; the reader connects again and drops what it has already seen."""

    code = "MAG-DS-109"
    retryable = True
    remedy = "Nothing to do; if it repeats, read the Postgres log."

    def __init__(self, reason: str, sqlstate: str = "") -> None:
        super().__init__(reason, sqlstate)
        self.reason, self.sqlstate = reason, sqlstate

    def __str__(self) -> str:
        return f"the replication stream broke: {self.reason}"


class TableRefused(MagError):
    """A table that was asked for cannot take part in the change stream."""

    code = "MAG-DS-110"
    http_status = 400

    def __init__(self, table: str, reason: str, step: str) -> None:
        super().__init__(table, reason, step)
        self.table, self.reason, self.step = table, reason, step

    def __str__(self) -> str:
        return f"{self.table}: {self.reason}"

    def next_step(self) -> str:
        return self.step


class TableUnknown(TableRefused):
    """No table of that name exists in the database (names are case sensitive)."""

    code = "MAG-DS-111"
    remedy = "Correct the name: schema.table, spelled as in the catalogue."


class TableKindRefused(TableRefused):
    """The relation is a view, a foreign, temporary, unlogged or system table, whose changes the log does not hold."""

    code = "MAG-DS-112"
    remedy = "Publish an ordinary, logged table."


class TableNotOwned(TableRefused):
    """Only a member of the table's owner role (or a superuser) may add a table to a publication."""

    code = "MAG-DS-113"
    remedy = "GRANT the owner role to the node's login role, or change the owner (ALTER TABLE … OWNER TO …)."


class PartitionOfPublished(TableRefused):
    """The table is a partition of a table that is published itself; its changes appear there."""

    code = "MAG-DS-114"
    remedy = "Subscribe to the partitioned table."


class TableBusy(TableRefused):
    """A transaction that is open now writes to the table: what it wrote already would be missing from the stream."""

    code = "MAG-DS-116"
    retryable = True
    remedy = (
        "Wait: the node tries again until it has ended (SELECT pid, query FROM pg_stat_activity ORDER BY xact_start)."
    )


class NoReplicaIdentity(TableRefused):
    """The table has no usable replica identity: it is published for inserts and truncates only (a notice)."""

    code = "MAG-DS-115"
    remedy = "ALTER TABLE … ADD PRIMARY KEY, or ALTER TABLE … REPLICA IDENTITY FULL."
