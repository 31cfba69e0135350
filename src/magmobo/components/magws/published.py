"""Which tables clients may follow, decided from the configuration, the catalogue and the change stream.

A table under row level security is not published unless its entry says `rls = "ignore"`: the stream carries every row,
and policies are not applied to it. Nothing is admitted before the catalogue has been read. When RLS is switched on
later, `refresh` takes the table out; changes committed in the moment between the two are still delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from magmobo.components.magws import tables
from magmobo.components.magws.config import TableConfig
from magmobo.components.magws.errors import FilterRefused, TableAccessMismatch, TableNotPublished
from magmobo.contracts.errors import Unavailable
from magmobo.contracts.planes import Changes, Database, PublishedTable, RefusedTable, TableName

FACTS_TIMEOUT_S = 10.0
_FACTS = """
select n.nspname, c.relname, c.oid, c.relrowsecurity, c.relreplident, c.relkind,
       array(select a.attname::text from pg_attribute a
             where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum),
       array(select i.indexrelid from pg_index i
             where i.indrelid = c.oid and (i.indisprimary or i.indisreplident) order by 1)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
join unnest(%s::text[], %s::text[]) as asked(schema, name) on asked.schema = n.nspname and asked.name = c.relname
"""
_Facts = Mapping[TableName, tuple[Any, ...]]


class Refusal(Struct, frozen=True):
    """Why a configured table is not published, and what to do."""

    code: str
    reason: str
    remedy: str

    def notice(self, table: TableName) -> str:
        """One line for people. A reason may already begin with the table's name, or end with the next step."""
        reason = self.reason.removeprefix(f"{table}: ")
        step = "" if self.remedy in reason else f" {self.remedy}"
        return f"not live: {table}: {reason.rstrip('.')}.{step}"


class TableBook:
    """The configured tables and their present state."""

    def __init__(self, configured: Sequence[TableConfig], changes: Changes, database: Database) -> None:
        self._configured = {table_name(entry.table): entry for entry in configured}
        self._changes, self._database = changes, database
        self._facts: _Facts | None = None
        self._asked: list[TableName] = []
        self._published: dict[TableName, PublishedTable] = {}
        self.refused: dict[TableName, Refusal] = {}

    def adopt(self, configured: Sequence[TableConfig]) -> None:
        """Other entries. A table that is listed no more, or that row level security now bars, is published no more from
        this moment on; a new one is once `refresh` has said so.
        """
        self._configured = {table_name(entry.table): entry for entry in configured}
        barred = self._barred({name: fact for name, fact in (self._facts or {}).items() if name in self._configured})
        self._facts = None
        self._published = {
            name: table for name, table in self._published.items() if name in self._configured and name not in barred
        }
        self.refused = {name: refusal for name, refusal in self.refused.items() if name in self._configured}
        self.refused |= {name: _under_row_security(name) for name in sorted(barred)}

    async def refresh(self, on_barred: Callable[[], None] = lambda: None) -> bool:
        """Read the catalogue; when it says something new about our tables, publish again. Whether it did.

        `on_barred` is called when tables have come under row level security, before publishing, which may take a while.
        Raises: Unavailable when the database does not answer; ChangesUnavailable and others from the change stream.
            What was published before stays so, except tables now under row level security.
        """
        configured = self._configured
        facts = await self._read_facts()
        if configured is not self._configured or (facts == self._facts and not self.is_stale()):
            return False
        barred = self._barred(facts)
        for name in barred:
            self._published.pop(name, None)
            self.refused[name] = _under_row_security(name)
        if barred:
            on_barred()
        self._asked = [name for name in self._configured if name not in barred]
        answers = await self._changes.publish(self._asked)
        if configured is not self._configured:  # whoever exchanged them asks for another refresh
            return False
        self._published = {answer.table: answer for answer in answers if isinstance(answer, PublishedTable)}
        self.refused = {name: _under_row_security(name) for name in sorted(barred)} | {
            answer.table: Refusal(answer.code, answer.reason, answer.remedy)
            for answer in answers
            if isinstance(answer, RefusedTable)
        }
        self._facts = facts
        return True

    def is_stale(self) -> bool:
        """Whether the change stream began or ceased to carry a table since we asked, for instance because the server
        was reconfigured.
        """
        try:
            return any((self._changes.published(name) is None) == (name in self._published) for name in self._asked)
        except Unavailable:
            return False

    def admit(self, name: str, channel: tables.TableChannel) -> PublishedTable:
        """Return how the table is published when this channel may be followed.

        Raises: TableNotPublished, TableAccessMismatch, FilterRefused.
        """
        entry = self._configured.get(channel.table)
        if entry is None:
            raise TableNotPublished(name, f"table {channel.table} is not published")
        if channel.private != (entry.access == "private"):
            right = tables.name_of(tables.TableChannel(channel.table, entry.access == "private", channel.filter))
            raise TableAccessMismatch(name, f"this table is {entry.access}; its channel is {right}")
        published = self._published.get(channel.table)
        if published is None:
            refusal = self.refused.get(channel.table)
            raise TableNotPublished(name, refusal.reason if refusal else f"table {channel.table} is not published yet")
        if channel.filter is not None:
            _check_filter(name, channel.filter.column, published)
        return published

    def channels(self) -> list[str]:
        """Channel names of the published tables, in the order of the configuration."""
        return [
            tables.name_of(tables.TableChannel(name, entry.access == "private"))
            for name, entry in self._configured.items()
            if name in self._published
        ]

    def key_columns(self, table: TableName) -> tuple[str, ...]:
        """The table's key, empty when it has none or is not published."""
        published = self._published.get(table)
        return published.key_columns if published else ()

    def _barred(self, facts: _Facts) -> set[TableName]:
        return {name for name, fact in facts.items() if fact[1] and self._configured[name].rls == "refuse"}

    async def _read_facts(self) -> _Facts:
        asked = list(self._configured)
        if not asked:
            return {}
        async with self._database.session(timeout_s=FACTS_TIMEOUT_S) as connection:
            cursor = await connection.execute(_FACTS, ([n.schema for n in asked], [n.name for n in asked]))
            rows = await cursor.fetchall()
        return {TableName(row[0], row[1]): tuple(row[2:]) for row in rows}


def table_name(text: str) -> TableName:
    """`schema.name`, or `name` in schema public."""
    schema, dot, name = text.rpartition(".")
    return TableName(schema, name) if dot else TableName("public", text)


def _check_filter(channel: str, column: str, table: PublishedTable) -> None:
    if column not in table.columns:
        raise FilterRefused(channel, f"table {table.table} has no column {column}")
    if not (table.inserts_only or table.identity_full or column in table.key_columns):
        raise FilterRefused(channel, f"column {column} is not in the replica identity of {table.table}")


def _under_row_security(table: TableName) -> Refusal:
    return Refusal(
        "MAG-WS-018",
        f"row level security is on for table {table}, and the change stream does not apply policies",
        f'Set rls = "ignore" for {table} in magws.tables to publish every row to everybody who may subscribe.',
    )
