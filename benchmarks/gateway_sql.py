"""What the gateway sends for a request, as a script for pgbench: the same statements, the same parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping

import psycopg
from msgspec import Struct

from magmobo.components.magds.pipeline import ENTER_IDENTITY
from magmobo.components.maggate.catalogue import Column, Snapshot, Table
from magmobo.components.maggate.config import MagGateConfig
from magmobo.components.maggate.grammar import parse_query
from magmobo.components.maggate.plan import plan_read
from magmobo.components.maggate.sql import compile_read
from magmobo.contracts.planes import TableName

MAX_ROWS, MAX_RESPONSE_BYTES = MagGateConfig().max_rows, MagGateConfig().max_response_bytes
_COLUMNS = """
select attname::text, format_type(atttypid, atttypmod), attrelid::int from pg_attribute
where attrelid = %s::regclass and attnum > 0 and not attisdropped order by attnum"""
_PARAMETER = re.compile(r"\$(\d+)")


class Script(Struct, frozen=True):
    """A transaction of pgbench and the variables in it."""

    text: str
    variables: Mapping[str, str]


def gateway_script(dsn: str, table: str, query: str, role: str, *, pipelined: bool, draw: str = "") -> Script:
    """The read `/rest/v1/<table>?<query>` under `role`.

    Args:
        table: of schema public, with columns of plain types.
        draw: a pgbench command that sets the first value of the query anew for every transaction, as `v1`.
    """
    read, values = _read(dsn, table, query)
    identity = _PARAMETER.sub(r":i\1", ENTER_IDENTITY.decode())
    begin, end = ("\\startpipeline\n", "\n\\endpipeline") if pipelined else ("", "")
    text = f"{draw}\n{begin}begin;\n{identity};\n{read};\ncommit;{end}\n"
    claims = f'{{"role":"{role}"}}'
    return Script(text, {"i1": role, "i2": claims, "i3": "on", "i4": "10000", **values})


def _read(dsn: str, table: str, query: str) -> tuple[str, dict[str, str]]:
    """The statement with `:v1`, `:v2`, …, and their values."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(_COLUMNS, (f"public.{table}",)).fetchall()
    name = TableName("public", table)
    columns = {column: Column(column, type_, False, False) for column, type_, _ in rows}
    entry = Table(name, rows[0][2], "table", columns, ("id",), (), ())
    parsed = parse_query(query.encode(), max_rows=MAX_ROWS)
    plan = plan_read(Snapshot({name: entry}), entry, parsed.query)
    compiled = compile_read(plan, exact_count=False, singular=False, with_body=True)
    limit = MAX_ROWS if parsed.limit is None else parsed.limit
    # In the order of the gateway, see `Gate._read`.
    slots = [*parsed.values, b"%d" % MAX_RESPONSE_BYTES, b"", b"%d" % limit, b"%d" % (parsed.offset or 0), b""]
    values = {f"v{number}": slots[slot].decode() for number, slot in enumerate(compiled.slots, 1)}
    return _PARAMETER.sub(r":v\1", compiled.sql.decode()), values
