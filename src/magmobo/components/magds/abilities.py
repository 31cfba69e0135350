"""What a database allows us to do, checked without changing anything: for `mag doctor`.

Each check names the exact statement that would help. Nothing here needs more than a login.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from msgspec import Struct
from psycopg import sql

from magmobo.components.magds.changes.objects import slot_name
from magmobo.components.magds.database import read_grantable_roles
from magmobo.components.magds.dsn import complete_dsn, connect, describe_dsn

_FACTS = """
select current_setting('server_version') as version,
       current_user::text as login,
       me.rolsuper as superuser,
       me.rolreplication or exists (select from pg_roles p where p.rolname = 'rds_replication'
                                    and pg_has_role(current_user, p.oid, 'MEMBER')) as may_replicate,
       pg_is_in_recovery() as standby,
       current_setting('wal_level') as wal_level,
       current_setting('max_replication_slots')::int as slots,
       (select count(*) from pg_replication_slots where slot_name <> %(prefix)s || db.oid)::int as slots_used,
       current_setting('max_wal_senders')::int as senders,
       (select setting::bigint from pg_settings where name = 'max_slot_wal_keep_size') as slot_limit_mb,
       has_database_privilege(db.oid, 'CREATE') as may_create,
       current_setting('synchronous_standby_names') as standby_names
from pg_roles me, pg_database db where me.rolname = current_user and db.datname = current_database()
"""


class Check(Struct, frozen=True):
    """One thing looked at. `remedy` is the next step, empty when there is nothing to do."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


async def examine(dsn: str, *, connect_timeout_s: float = 10.0) -> Sequence[Check]:
    """Look at the database at `dsn`; the first check is the server itself.

    Raises: DsnMalformed, ConnectFailure and its subclasses when it cannot be asked at all.
    """
    conninfo = complete_dsn(dsn, connect_timeout_s=connect_timeout_s)
    connection = await connect(conninfo)
    try:
        facts = await _facts(connection)
        roles = await read_grantable_roles(connection)
        names = _Names(connection)
        return [
            Check("server", True, f"Postgres {facts['version']} at {describe_dsn(conninfo)}"),
            _primary(facts),
            _wal_level(facts),
            _replication_right(facts, names),
            _slots(facts),
            _retention(facts),
            _create_right(facts, names),
            _event_trigger(facts),
            _roles(roles, names),
        ]
    finally:
        await connection.close()


class _Names:
    """The login and the database, quoted for a statement to paste."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.login = sql.Identifier(connection.info.user).as_string(connection)
        self.database = sql.Identifier(connection.info.dbname).as_string(connection)


async def _facts(connection: psycopg.AsyncConnection[Any]) -> dict[str, Any]:
    async with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        await cursor.execute(_FACTS, {"prefix": slot_name(0).removesuffix("0")})
        return await cursor.fetchone() or {}


def _primary(facts: dict[str, Any]) -> Check:
    if facts["standby"]:
        return Check(
            "primary", False, "this server is a read-only standby", "Point the DSN at the primary, or list all hosts."
        )
    return Check("primary", True, "the server takes writes")


def _wal_level(facts: dict[str, Any]) -> Check:
    level = facts["wal_level"]
    if level != "logical":
        return Check(
            "wal_level",
            False,
            f"wal_level={level}: live changes need wal_level=logical",
            "ALTER SYSTEM SET wal_level = 'logical'; then restart Postgres.",
        )
    if "*" in facts["standby_names"]:
        return Check(
            "wal_level",
            False,
            "synchronous_standby_names holds *: commits would wait for our reader",
            "Name the standbys in synchronous_standby_names.",
        )
    return Check("wal_level", True, "wal_level=logical")


def _replication_right(facts: dict[str, Any], names: _Names) -> Check:
    if facts["superuser"] or facts["may_replicate"]:
        return Check("replication right", True, f"{facts['login']} may replicate")
    return Check(
        "replication right",
        False,
        f"{facts['login']} may not replicate: no live changes",
        f"ALTER ROLE {names.login} REPLICATION; as a superuser.",
    )


def _slots(facts: dict[str, Any]) -> Check:
    free = facts["slots"] - facts["slots_used"]
    detail = f"{free} of {facts['slots']} replication slots free for us, {facts['senders']} WAL senders"
    if free > 0 and facts["senders"] > 0:
        return Check("replication slots", True, detail)
    return Check(
        "replication slots",
        False,
        detail,
        f"ALTER SYSTEM SET max_replication_slots = {facts['slots'] + 4}; ALTER SYSTEM SET max_wal_senders = "
        f"{max(facts['senders'], facts['slots']) + 4}; then restart Postgres.",
    )


def _retention(facts: dict[str, Any]) -> Check:
    limit_mb = facts["slot_limit_mb"]
    if limit_mb is None or limit_mb < 0:
        return Check(
            "slot retention",
            False,
            "max_slot_wal_keep_size=-1: the slot of a node that was killed keeps WAL until the disk is full",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '4GB'; SELECT pg_reload_conf();",
        )
    return Check("slot retention", True, f"max_slot_wal_keep_size={limit_mb}MB")


def _create_right(facts: dict[str, Any], names: _Names) -> Check:
    if facts["may_create"]:
        return Check("create right", True, f"{facts['login']} may create schema mag and publications")
    return Check(
        "create right",
        False,
        f"{facts['login']} may not create schema mag and publications in this database: no live changes",
        f"GRANT CREATE ON DATABASE {names.database} TO {names.login};",
    )


def _event_trigger(facts: dict[str, Any]) -> Check:
    if facts["superuser"]:
        return Check("schema changes", True, "seen at once, by an event trigger")
    return Check("schema changes", True, "seen within a second, by asking the catalogue (superusers: at once)")


def _roles(roles: frozenset[str], names: _Names) -> Check:
    if roles:
        return Check("request roles", True, f"requests may run as {', '.join(sorted(roles)[:10])}")
    return Check(
        "request roles",
        False,
        "no role is granted to the login role: REST has nobody to run requests as",
        f"CREATE ROLE anon NOLOGIN; GRANT anon TO {names.login};",
    )
