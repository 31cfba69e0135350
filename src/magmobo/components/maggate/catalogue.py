"""The exposed part of the database's catalogue, as one immutable snapshot.

Every identifier that reaches SQL comes from here. Boundary: no I/O; `schema_cache` fills it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct, field

from magmobo.contracts.planes import TableName


def quote(identifier: str) -> str:
    """`identifier` as a quoted SQL identifier; catalogue names hold no zero byte."""
    return '"' + identifier.replace('"', '""') + '"'


class Column(Struct, frozen=True):
    """A column. `type` is SQL text from `format_type`, without length or precision and safe to print."""

    name: str
    type: str
    is_json: bool = False
    is_array: bool = False


class ForeignKey(Struct, frozen=True):
    """`table.columns` refers to `target.target_columns`. `unique`: at most one row refers to each target row."""

    name: str
    table: TableName
    columns: tuple[str, ...]
    target: TableName
    target_columns: tuple[str, ...]
    unique: bool = False

    def __str__(self) -> str:
        return f"{self.name} using {self.table.name}({', '.join(self.columns)}) and " + (
            f"{self.target.name}({', '.join(self.target_columns)})"
        )


class Table(Struct, frozen=True, eq=False):
    """A table, view, materialised view or foreign table. `sql` is its quoted, qualified name."""

    name: TableName
    oid: int
    kind: Literal["table", "view", "materialized view", "foreign table"]
    columns: Mapping[str, Column]
    primary_key: tuple[str, ...] = ()
    references: Sequence[ForeignKey] = ()
    referenced_by: Sequence[ForeignKey] = ()

    @property
    def sql(self) -> str:
        return f"{quote(self.name.schema)}.{quote(self.name.name)}"


class Snapshot(Struct, frozen=True, eq=False):
    """The catalogue at one moment."""

    tables: Mapping[TableName, Table] = field(default_factory=dict)

    def table(self, schema: str, name: str) -> Table | None:
        """The table of this name, None when the schema is not exposed or has none."""
        return self.tables.get(TableName(schema, name))
