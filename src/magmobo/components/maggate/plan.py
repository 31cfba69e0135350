"""Resolves the names of a query against the catalogue: what `sql` writes down.

After this step no user text is left but in slots. Boundary: no I/O, no SQL.
Invariant: every `Table`, `Column` and `ForeignKey` of a plan is an object of the snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from magmobo.components.maggate.catalogue import Column, ForeignKey, Snapshot, Table
from magmobo.components.maggate.errors import AmbiguousRelationship, InvalidQuery, UnknownColumn, UnknownRelationship
from magmobo.components.maggate.query import Condition, Embed, Field, JsonStep, Logic, Output, Query, Sort, Star

# Types a client may cast an output to; the text on the right is ours.
CASTS = {
    "text": "text", "varchar": "text", "int": "integer", "int2": "smallint", "smallint": "smallint", "int4": "integer",
    "integer": "integer", "int8": "bigint", "bigint": "bigint", "numeric": "numeric", "decimal": "numeric",
    "real": "real", "float4": "real", "float8": "double precision", "bool": "boolean", "boolean": "boolean",
    "date": "date", "time": "time", "timestamp": "timestamp", "timestamptz": "timestamp with time zone",
    "interval": "interval", "uuid": "uuid", "json": "json", "jsonb": "jsonb",
}  # fmt: skip


class Reference(Struct, frozen=True):
    """A column of the table at hand, or a place inside its JSON."""

    column: Column
    steps: tuple[JsonStep, ...] = ()


class Test(Struct, frozen=True):
    """A resolved `Condition`."""

    reference: Reference
    operator: str
    negated: bool
    slot: int
    word: str


class Tree(Struct, frozen=True):
    """A resolved `Logic`."""

    operator: Literal["and", "or"]
    negated: bool
    children: tuple[Test | Tree, ...]


class Order(Struct, frozen=True):
    """A resolved `Sort`."""

    reference: Reference
    descending: bool
    nulls: Literal["first", "last"] | None


class Value(Struct, frozen=True):
    """One key of the output. `key_slot` is None when the key is the column's name."""

    reference: Reference
    key_slot: int | None
    cast: str | None


class Related(Struct, frozen=True):
    """Rows of a related table as one key of the output: a list when `many`, else an object or null.

    `joins` pairs columns of the parent with columns of the related table. Without `plan.values` nothing is shown, but
    `inner` still holds.
    """

    name: str
    key_slot: int | None
    plan: ReadPlan
    joins: tuple[tuple[str, str], ...]
    many: bool
    inner: bool
    limit_slot: int
    offset_slot: int | None


class ReadPlan(Struct, frozen=True):
    """What to read from `table`."""

    table: Table
    values: tuple[Value | Related, ...]
    where: tuple[Test | Tree, ...]
    order: tuple[Order, ...]


class Relation(Struct, frozen=True):
    """A foreign key seen from one of its ends: the table it leads to."""

    key: ForeignKey
    outward: bool
    table: Table

    @property
    def many(self) -> bool:
        return not self.outward and not self.key.unique

    @property
    def joins(self) -> tuple[tuple[str, str], ...]:
        """Columns of this end paired with columns of the other."""
        pairs = zip(self.key.columns, self.key.target_columns, strict=True)
        return tuple((here, there) if self.outward else (there, here) for here, there in pairs)

    def matches(self, target: str, hint: str | None) -> bool:
        """Whether a client that wrote `target!hint` may mean this key.

        A key of a table to itself leads outward by the names of its column or constraint, inward by the table's name.
        """
        names = {self.table.name.name, self.key.name}
        if self.outward and len(self.key.columns) == 1:
            names.add(self.key.columns[0])
        if self.key.table == self.key.target:
            names.discard(self.table.name.name if self.outward else self.key.name)
        return target in names and (hint is None or hint in (self.key.name, *self.key.columns))


def plan_read(snapshot: Snapshot, table: Table, query: Query) -> ReadPlan:
    """Resolve `query` on `table`.

    Raises: UnknownColumn, UnknownRelationship, AmbiguousRelationship, InvalidQuery (a cast that is not allowed).
    """
    values: list[Value | Related] = []
    for item in query.select:
        if isinstance(item, Star):
            values += [Value(Reference(column), None, None) for column in table.columns.values()]
        elif isinstance(item, Output):
            values.append(Value(_reference(table, item.field), item.alias_slot, _cast(item.cast)))
        else:
            values.append(_related(snapshot, table, item))
    return ReadPlan(table, tuple(values), plan_where(table, query.where), tuple(_order(table, s) for s in query.order))


def plan_where(table: Table, where: Sequence[Condition | Logic]) -> tuple[Test | Tree, ...]:
    """Resolve filters on `table`. Raises: UnknownColumn."""
    return tuple(_test(table, part) for part in where)


def columns_for_write(table: Table, names: Sequence[str]) -> tuple[Column, ...]:
    """The columns a body or `columns` names. Raises: UnknownColumn."""
    missing = next((name for name in names if name not in table.columns), None)
    if missing is not None:
        raise UnknownColumn(table.name.schema, table.name.name, missing, writing=True)
    return tuple(table.columns[name] for name in names)


def needed_columns(plan: ReadPlan) -> tuple[str, ...]:
    """Columns of the plan's own table that its output reads, in order: what a write must return."""
    names: list[str] = []
    for value in plan.values:
        if isinstance(value, Value):
            names.append(value.reference.column.name)
        else:
            names += [here for here, _ in value.joins]
    return tuple(dict.fromkeys(names))


def _reference(table: Table, field: Field) -> Reference:
    column = table.columns.get(field.name)
    if column is None:
        raise UnknownColumn(table.name.schema, table.name.name, field.name)
    return Reference(column, field.steps)


def _test(table: Table, part: Condition | Logic) -> Test | Tree:
    if isinstance(part, Logic):
        return Tree(part.operator, part.negated, tuple(_test(table, child) for child in part.children))
    return Test(_reference(table, part.field), part.operator, part.negated, part.slot, part.word)


def _order(table: Table, sort: Sort) -> Order:
    return Order(_reference(table, sort.field), sort.descending, sort.nulls)


def _cast(name: str | None) -> str | None:
    if name is None:
        return None
    if name not in CASTS:
        raise InvalidQuery("select", f"cannot cast to '{name}'; allowed are {', '.join(CASTS)}")
    return CASTS[name]


def _related(snapshot: Snapshot, table: Table, embed: Embed) -> Related:
    relation = _relation(snapshot, table, embed.target, embed.hint)
    plan = plan_read(snapshot, relation.table, embed.query)
    return Related(
        embed.target, embed.alias_slot, plan, relation.joins, relation.many, embed.inner,
        embed.limit_slot, embed.offset_slot,
    )  # fmt: skip


def _relation(snapshot: Snapshot, table: Table, target: str, hint: str | None) -> Relation:
    outward = [Relation(key, True, snapshot.tables[key.target]) for key in table.references]
    inward = [Relation(key, False, snapshot.tables[key.table]) for key in table.referenced_by]
    found = [relation for relation in (*outward, *inward) if relation.matches(target, hint)]
    if not found:
        raise UnknownRelationship(table.name.schema, table.name.name, target, hint)
    if len(found) > 1:
        raise _ambiguous(table, target, found)
    return found[0]


def _ambiguous(table: Table, target: str, found: Sequence[Relation]) -> AmbiguousRelationship:
    choices = []
    for relation in found:
        cardinality = "one-to-many" if relation.many else "one-to-one" if relation.key.unique else "many-to-one"
        choices.append({
            "cardinality": cardinality,
            "embedding": f"{table.name.name} with {relation.table.name.name}",
            "relationship": str(relation.key),
        })  # fmt: skip
    names = [relation.key.name for relation in found]
    spellings = [  # constraint names are unique in one table only
        f"{target}!{key if names.count(key) == 1 else relation.key.columns[0]}"
        for key, relation in zip(names, found, strict=True)
    ]
    tables = dict.fromkeys([table.name, *(relation.table.name for relation in found)])
    return AmbiguousRelationship(list(tables), target, choices, spellings)
