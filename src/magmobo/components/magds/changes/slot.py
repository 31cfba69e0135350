"""The replication slot: found or made, its epoch, how much log it holds back, and that one node alone reads it.

Invariant: the uuid of an epoch is stored before its slot exists, so a crash in between only costs a new uuid.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid

from msgspec import Struct
from psycopg import errors

from magmobo.components.magds.changes.errors import (
    AnotherReader,
    ChangesUnavailable,
    LogicalDecodingOff,
    NoFreeSlot,
    ReplicationRightMissing,
    ServerIsStandby,
    WouldBlockCommits,
)  # fmt: skip
from magmobo.components.magds.changes.objects import Connection, slot_name
from magmobo.components.magds.changes.positions import lsn_from_text

_LOCK_CLASS = 0x6D6167  # "mag": first key of the two-key advisory lock, the second is the database's oid
_LOCK_PATIENCE_S = 5.0


class ServerFacts(Struct, frozen=True):
    """What decides whether and how we read. `slot_wal_limit_bytes` is None where the server sets no limit (-1)."""

    database_oid: int
    wal_level: str
    in_recovery: bool
    may_replicate: bool
    blocks_commits: bool
    slot_wal_limit_bytes: int | None
    role: str


class SlotFacts(Struct, frozen=True):
    """The slot now. `held_bytes`: log from its restart position to the log's end."""

    name: str
    confirmed_lsn: int
    held_bytes: int
    lost: bool
    active_pid: int | None


class OpenSlot(Struct, frozen=True):
    """A slot that can be read, and the uuid that names its unbroken history."""

    facts: SlotFacts
    uuid: str


_SERVER = """
select d.oid::int8, current_setting('wal_level'), pg_is_in_recovery(), r.rolsuper or r.rolreplication,
       current_setting('synchronous_standby_names') like '%%*%%',
       (select nullif(setting::int8, -1) * 1048576 from pg_settings where name = 'max_slot_wal_keep_size'),
       current_user::text
from pg_database d, pg_roles r where d.datname = current_database() and r.rolname = current_user
"""
_SLOT = """
select slot_name::text, coalesce(confirmed_flush_lsn, '0/0')::text,
       coalesce(pg_current_wal_lsn() - restart_lsn, 0)::int8,
       coalesce(wal_status = 'lost', false) or plugin <> 'pgoutput' or restart_lsn is null, active_pid
from pg_replication_slots where slot_name = %s and database = current_database()
"""


async def read_server(connection: Connection) -> ServerFacts:
    """Ask the server what it allows. Raises: psycopg.Error."""
    row = await (await connection.execute(_SERVER)).fetchone()
    if row is None:
        raise ChangesUnavailable("the server does not list its own database or role")
    return ServerFacts(*row)


def check_server(facts: ServerFacts) -> None:
    """Raise the ChangesUnavailable that says why this server cannot give changes, if so."""
    if facts.in_recovery:
        raise ServerIsStandby("the server is a read-only standby")
    if facts.wal_level != "logical":
        raise LogicalDecodingOff(f"wal_level is {facts.wal_level}")
    if facts.blocks_commits:
        raise WouldBlockCommits("synchronous_standby_names holds *")


async def take_reader_lock(connection: Connection, database_oid: int, *, patience_s: float | None = None) -> None:
    """Become the only reader of this database for as long as `connection` lives.

    A reader that was killed leaves its server process behind for a moment, hence the patience.
    Raises: AnotherReader.
    """
    deadline = asyncio.get_running_loop().time() + (_LOCK_PATIENCE_S if patience_s is None else patience_s)
    pause_s = 0.05
    while True:
        row = await (
            await connection.execute(
                "select pg_try_advisory_lock(%s, %s::int8::bit(32)::int4)", (_LOCK_CLASS, database_oid)
            )
        ).fetchone()
        if row is not None and row[0]:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise AnotherReader("another node reads the changes of this database")
        await asyncio.sleep(pause_s)
        pause_s = min(1.0, pause_s * 2)


async def read_slot(connection: Connection, name: str) -> SlotFacts | None:
    """The slot's state, None when there is none. Raises: psycopg.Error."""
    row = await (await connection.execute(_SLOT, (name,))).fetchone()
    return None if row is None else SlotFacts(row[0], lsn_from_text(row[1]), row[2], row[3], row[4])


async def open_slot(connection: Connection, server: ServerFacts) -> OpenSlot:
    """The slot of this database; made anew, with a new uuid, when it is missing, lost, or not known to be ours.

    Waits for transactions that were open when the slot is made.
    Raises: NoFreeSlot, ReplicationRightMissing, psycopg.Error.
    """
    name = slot_name(server.database_oid)
    row = await (await connection.execute("select value ->> 'uuid' from mag.state where key = %s", (name,))).fetchone()
    facts = await read_slot(connection, name)
    if facts is not None and not facts.lost and row is not None:
        return OpenSlot(facts, row[0])
    if facts is not None:
        await drop_slot(connection, name)
    identity = str(uuid.uuid4())
    await connection.execute(
        "insert into mag.state values (%s, jsonb_build_object('uuid', %s::text)) "
        "on conflict (key) do update set value = excluded.value",
        (name, identity),
    )
    try:
        await connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))
    except errors.ConfigurationLimitExceeded as error:
        raise NoFreeSlot("all replication slots of the server are in use") from error
    except errors.InsufficientPrivilege as error:
        raise replication_right_missing(server.role) from error
    made = await read_slot(connection, name)
    if made is None:
        raise ChangesUnavailable(f"the slot {name} vanished right after it was made")
    return OpenSlot(made, identity)


async def drop_slot(connection: Connection, name: str, *, patience_s: float = 5.0) -> None:
    """Drop the slot if it is there, once its last reader has left; ends a reader that does not leave.

    Raises: psycopg.errors.ObjectInUse when it stays in use.
    """
    loop = asyncio.get_running_loop()
    deadline, terminate_at = loop.time() + patience_s, loop.time() + patience_s / 2
    while (facts := await read_slot(connection, name)) is not None:
        try:
            if facts.active_pid is None or loop.time() > deadline:
                await connection.execute("select pg_drop_replication_slot(%s)", (name,))
                return
            if loop.time() > terminate_at:
                await connection.execute("select pg_terminate_backend(%s)", (facts.active_pid,))
        except errors.UndefinedObject:
            return
        except errors.ObjectInUse:
            if loop.time() > deadline:
                raise
        await asyncio.sleep(0.05)


async def end_stale_reader(connection: Connection, name: str) -> None:
    """Free the slot from a server process that a killed reader left behind. Call it only under the reader lock."""
    for attempt in range(100):
        facts = await read_slot(connection, name)
        if facts is None or facts.active_pid is None:
            return
        if attempt == 20:
            await connection.execute("select pg_terminate_backend(%s)", (facts.active_pid,))
        await asyncio.sleep(0.05)
    raise AnotherReader(f"the slot {name} stays in use")


async def walsenders_used_up(connection: Connection) -> bool:
    """Whether the server has no WAL sender left for us."""
    row = await (
        await connection.execute(
            "select count(*) >= current_setting('max_wal_senders')::int from pg_stat_activity "
            "where backend_type = 'walsender'"
        )
    ).fetchone()
    return row is not None and bool(row[0])


def replication_right_missing(role: str) -> ReplicationRightMissing:
    """The error with the exact statement for this role."""
    quoted = role.replace('"', '""')
    return ReplicationRightMissing(
        f"role {role} may not replicate", f'Run ALTER ROLE "{quoted}" WITH REPLICATION; as a superuser.'
    )


def epoch_of(system_identifier: str, timeline: int, database_oid: int, identity: str) -> str:
    """The epoch: what must be the same for two positions to be comparable, as 16 hex digits."""
    text = f"{system_identifier}/{timeline}/{database_oid}/{identity}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
