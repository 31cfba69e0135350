# ruff: noqa: S608 - this module is where SQL is built; every text in it is ours or quoted from the catalogue
"""Writes a plan as SQL. Pure text work: no I/O, no user text.

Values are `$n` parameters, identifiers are quoted names of the catalogue, functions are qualified so that nobody's
`search_path` can replace them. Postgres builds the JSON; the result of every read is one row of three columns: rows in
the page, rows in all (null when not asked for), the JSON text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from magmobo.components.maggate.catalogue import Column, Table, quote
from magmobo.components.maggate.errors import TooMuch
from magmobo.components.maggate.plan import Order, ReadPlan, Reference, Related, Test, Tree, Value, needed_columns

# Slots that are not part of the query string; they count from the end of the list of values.
BODY, OFFSET, LIMIT, MAX_AFFECTED, MAX_BYTES = -1, -2, -3, -4, -5

# A write that affects the wrong number of rows must undo itself inside its one statement: it fails on a cast of this.
GUARD = "mag-guard:"
# A response larger than anybody wants to hold in memory fails in the same way, before it leaves Postgres.
SIZE_GUARD = "mag-size:"

MAX_NAMED_PAIRS = 50  # json_build_object takes 100 arguments
_OPERATORS = {
    "eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "like": "like", "ilike": "ilike",
}  # fmt: skip
_IS_WORDS = {"null": "null", "not_null": "not null", "true": "true", "false": "false", "unknown": "unknown"}

Guard = Literal["none", "singular", "max_affected"]


class Compiled(Struct, frozen=True):
    """SQL and the slots of its parameters, `$1` first."""

    sql: bytes
    slots: tuple[int, ...]


class Write(Struct, frozen=True):
    """A change of one table. `columns` are set from the JSON body; `where` does not apply to inserts."""

    kind: Literal["insert", "update", "delete"]
    table: Table
    columns: tuple[Column, ...] = ()
    where: tuple[Test | Tree, ...] = ()
    body_is_array: bool = False
    guard: Guard = "none"


def compile_read(plan: ReadPlan, *, exact_count: bool, singular: bool, with_body: bool) -> Compiled:
    """SQL of a read; its window is in the slots LIMIT and OFFSET."""
    writer = _Writer()
    rows = writer.rows(plan, "t", plan.table.sql, (), limit=LIMIT, offset=OFFSET)
    total = "null"
    if exact_count:
        conditions = writer.conditions(plan, "t")
        total = f"(select pg_catalog.count(*)::text from {plan.table.sql} t{_where(conditions)})"
    body = writer.page(plan, singular=singular) if with_body else "null"
    return writer.compiled(f"select pg_catalog.count(*)::text, {total}, {body} from ({rows}) _t")


def compile_write(write: Write, representation: ReadPlan | None, *, singular: bool) -> Compiled:
    """SQL of a write. With `representation` or a guard the result is one row like a read's, else only a command tag."""
    writer = _Writer()
    statement = writer.change(write)
    if representation is None and write.guard == "none":
        return writer.compiled(statement)
    if representation is None:
        changed, rows, body = "1 as _one", "select 1 from _w", "null"
    else:
        changed = ", ".join(f"t.{quote(name)}" for name in needed_columns(representation)) or "1 as _one"
        rows = writer.rows(representation, "t", "_w", (), own_where=False)
        body = writer.page(representation, singular=singular)
    guard = writer.guard(write.guard)
    return writer.compiled(
        f"with _w as ({statement} returning {changed}) "
        f"select pg_catalog.count(*)::text, {guard}, {body} from ({rows}) _t"
    )


def compile_keyed_insert(write: Write) -> Compiled:
    """SQL of an insert that gives back the primary key of each new row as text."""
    writer = _Writer()
    keys = ", ".join(f"t.{quote(name)}::text" for name in write.table.primary_key)
    return writer.compiled(f"{writer.change(write)} returning {keys}")


class _Writer:
    """One statement in the making: hands out `$n` for slots."""

    def __init__(self) -> None:
        self._slots: list[int] = []
        self._embeds = 0

    def compiled(self, sql: str) -> Compiled:
        return Compiled(sql.encode(), tuple(self._slots))

    def parameter(self, slot: int, type_: str) -> str:
        if slot not in self._slots:
            self._slots.append(slot)
        return f"${self._slots.index(slot) + 1}::{type_}"

    # ------------------------------------------------------------ reading

    def page(self, plan: ReadPlan, *, singular: bool) -> str:
        """The JSON text, or a failure when it is larger than MAX_BYTES."""
        # Postgres computes equal aggregates once. A subquery instead would cost a fifth of a short read in planning.
        rows = f"pg_catalog.json_agg({_row('_t', plan)})"
        text = f"({rows} -> 0)::text" if singular else f"coalesce({rows}, '[]'::json)::text"
        size = f"pg_catalog.pg_column_size({rows})"
        failure = f"('{SIZE_GUARD}' || {size})::integer::text"
        return f"case when {size} > {self.parameter(MAX_BYTES, 'bigint')} then {failure} else {text} end"

    def rows(
        self, plan: ReadPlan, alias: str, source: str, joins: Sequence[str], *,
        limit: int | None = None, offset: int | None = None, own_where: bool = True,
    ) -> str:  # fmt: skip
        """A query whose rows are the output: one JSON column `_r` when a key is the client's, else plain columns."""
        outputs = self._outputs(plan, alias)
        conditions = [*joins, *self.conditions(plan, alias, own_where=own_where)]
        sql = f"select {outputs} from {source} {alias}{_where(conditions)}"
        if plan.order:
            sql += " order by " + ", ".join(self._order(term, alias) for term in plan.order)
        if limit is not None:
            sql += f" limit {self.parameter(limit, 'bigint')}"
        if offset is not None:
            sql += f" offset {self.parameter(offset, 'bigint')}"
        return sql

    def conditions(self, plan: ReadPlan, alias: str, *, own_where: bool = True) -> list[str]:
        found = [self._test(part, alias) for part in plan.where] if own_where else []
        return found + [self._exists(part, alias) for part in plan.values if isinstance(part, Related) and part.inner]

    def _outputs(self, plan: ReadPlan, alias: str) -> str:
        shown = _shown(plan)
        if not _is_named(plan):
            return ", ".join(f"{self._output(value, alias)} as {quote(_name(value))}" for value in shown)
        if len(shown) > MAX_NAMED_PAIRS:
            raise TooMuch("selected columns when one of them has an alias", MAX_NAMED_PAIRS)
        pairs = [f"{self._key(value)}, {self._output(value, alias)}" for value in shown]
        return f"pg_catalog.json_build_object({', '.join(pairs)}) as _r"

    def _key(self, value: Value | Related) -> str:
        return _literal(_name(value)) if value.key_slot is None else self.parameter(value.key_slot, "text")

    def _output(self, value: Value | Related, alias: str) -> str:
        if isinstance(value, Related):
            return self._related(value, alias)
        sql = self._reference(value.reference, alias)
        return sql if value.cast is None else f"{sql}::{value.cast}"

    def _related(self, related: Related, parent: str) -> str:
        self._embeds += 1
        alias = f"e{self._embeds}"
        plan = related.plan
        joins = _joins(related, parent, alias)
        if not related.many:
            rows = self.rows(plan, alias, plan.table.sql, joins)
            whole = "_e._r" if _is_named(plan) else "pg_catalog.row_to_json(_e)"
            return f"(select {whole} from ({rows} limit 1) _e)"
        rows = self.rows(
            plan, alias, plan.table.sql, joins, limit=related.limit_slot, offset=related.offset_slot
        )  # fmt: skip
        return f"(select coalesce(pg_catalog.json_agg({_row('_e', plan)}), '[]'::json) from ({rows}) _e)"

    def _exists(self, related: Related, parent: str) -> str:
        conditions = [*_joins(related, parent, "i"), *(self._test(part, "i") for part in related.plan.where)]
        return f"exists (select 1 from {related.plan.table.sql} i{_where(conditions)})"

    def _reference(self, reference: Reference, alias: str) -> str:
        sql = f"{alias}.{quote(reference.column.name)}"
        if not reference.steps:
            return sql
        if not reference.column.is_json:
            sql = f"pg_catalog.to_jsonb({sql})"
        for step in reference.steps:
            key = self.parameter(step.slot, "integer" if step.is_index else "text")
            sql = f"({sql} {'->>' if step.as_text else '->'} {key})"
        return sql

    def _test(self, part: Test | Tree, alias: str) -> str:
        if isinstance(part, Tree):
            sql = f" {part.operator} ".join(self._test(child, alias) for child in part.children)
            return f"{'not ' if part.negated else ''}({sql})"
        left = self._reference(part.reference, alias)
        if part.operator == "is":
            sql = f"{left} is {_IS_WORDS[part.word]}"
        elif part.operator == "in":
            sql = f"{left} = any {self._members(part)}"
        else:
            type_ = "text" if part.operator.endswith("like") else _type(part.reference)
            sql = f"{left} {_OPERATORS[part.operator]} {self.parameter(part.slot, type_)}"
        return f"not ({sql})" if part.negated else f"({sql})"

    def _members(self, part: Test) -> str:
        type_ = _type(part.reference)
        if not part.reference.column.is_array or part.reference.steps:
            return f"({self.parameter(part.slot, f'{type_}[]')})"
        # T[][] would be one matrix, not a list of arrays
        return f"(select _m::{type_} from pg_catalog.unnest({self.parameter(part.slot, 'text[]')}) _m)"

    def _order(self, term: Order, alias: str) -> str:
        sql = self._reference(term.reference, alias) + (" desc" if term.descending else "")
        return sql if term.nulls is None else f"{sql} nulls {term.nulls}"

    # ------------------------------------------------------------ writing

    def change(self, write: Write) -> str:
        table, names = write.table.sql, ", ".join(quote(column.name) for column in write.columns)
        where = _where([self._test(part, "t") for part in write.where])
        if write.kind == "delete":
            return f"delete from {table} t{where}"
        if not write.columns:
            return f"insert into {table} as t default values"
        if write.kind == "insert":
            values = ", ".join(f"_b.{quote(column.name)}" for column in write.columns)
            return f"insert into {table} as t ({names}) select {values} from {self._body(write)}"
        assignments = ", ".join(f"{quote(column.name)} = _b.{quote(column.name)}" for column in write.columns)
        return f"update {table} t set {assignments} from {self._body(write)}{where}"

    def _body(self, write: Write) -> str:
        function = "json_to_recordset" if write.body_is_array else "json_to_record"
        definitions = ", ".join(f"{quote(column.name)} {column.type}" for column in write.columns)
        return f"pg_catalog.{function}({self.parameter(BODY, 'json')}) _b({definitions})"

    def guard(self, guard: Guard) -> str:
        """SQL that is null, or fails the statement when the number of changed rows is not the wanted one."""
        if guard == "none":
            return "null"
        wanted = "= 1" if guard == "singular" else f"<= {self.parameter(MAX_AFFECTED, 'bigint')}"
        failure = f"('{GUARD}' || pg_catalog.count(*))::integer::text"
        return f"case when pg_catalog.count(*) {wanted} then null else {failure} end"


def _where(conditions: Sequence[str]) -> str:
    return " where " + " and ".join(conditions) if conditions else ""


def _joins(related: Related, parent: str, alias: str) -> list[str]:
    return [f"{alias}.{quote(there)} = {parent}.{quote(here)}" for here, there in related.joins]


def _shown(plan: ReadPlan) -> list[Value | Related]:
    return [value for value in plan.values if isinstance(value, Value) or value.plan.values]


def _is_named(plan: ReadPlan) -> bool:
    """Whether a key of the output is the client's own, so that it has to be a parameter."""
    return any(value.key_slot is not None for value in _shown(plan))


def _row(alias: str, plan: ReadPlan) -> str:
    return f"{alias}._r" if _is_named(plan) else alias


def _name(value: Value | Related) -> str:
    return value.name if isinstance(value, Related) else value.reference.column.name


def _type(reference: Reference) -> str:
    if not reference.steps:
        return reference.column.type
    return "text" if reference.steps[-1].as_text else "jsonb"


def _literal(name: str) -> str:
    """A catalogue name as a string literal, right whatever `standard_conforming_strings` says."""
    text = name.replace("'", "''")
    return f"'{text}'" if "\\" not in text else "E'" + text.replace("\\", "\\\\") + "'"
