"""Which names are asked for: errors of tables, columns and relationships (MAG-GATE-040 to 049)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from magmobo.components.maggate.errors.base import GateError
from magmobo.contracts.planes import TableName


class UnknownTable(GateError):
    """No table or view of this name is in the exposed schema."""

    code = "MAG-GATE-040"
    http_status = 404
    rest_code = "PGRST205"
    title = "The table does not exist"
    remedy = "GET /rest/v1/ lists the tables the caller may use."

    def __init__(self, schema: str, table: str) -> None:
        super().__init__(schema, table)
        self.schema, self.table = schema, table

    def __str__(self) -> str:
        return f"Could not find the table '{self.schema}.{self.table}' in the schema cache"


class UnknownColumn(GateError):
    """The table has no such column."""

    code = "MAG-GATE-041"
    title = "The column does not exist"
    remedy = "Correct the name; quote names that hold special characters."

    def __init__(self, schema: str, table: str, column: str, *, writing: bool = False) -> None:
        super().__init__(schema, table, column, writing)
        self.schema, self.table, self.column, self.writing = schema, table, column, writing

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_unknown_column, (self.schema, self.table, self.column, self.writing)

    def __str__(self) -> str:
        if self.writing:
            return f"Could not find the '{self.column}' column of '{self.table}' in the schema cache"
        return f"column {self.table}.{self.column} does not exist"

    @property
    def tables(self) -> tuple[TableName, ...]:
        """The table it was looked for in."""
        return (TableName(self.schema, self.table),)

    @property
    def postgrest_code(self) -> str:
        return "PGRST204" if self.writing else "42703"


def _rebuild_unknown_column(schema: str, table: str, column: str, writing: bool) -> UnknownColumn:
    return UnknownColumn(schema, table, column, writing=writing)


class UnknownRelationship(GateError):
    """No foreign key joins the table to the embedded name."""

    code = "MAG-GATE-042"
    rest_code = "PGRST200"
    title = "The tables are not related"
    remedy = "Embed a table joined by a foreign key, by its name, the constraint's name or the key column's name."

    def __init__(self, schema: str, table: str, target: str, used_hint: str | None = None) -> None:
        super().__init__(schema, table, target, used_hint)
        self.schema, self.table, self.target, self.used_hint = schema, table, target, used_hint

    @property
    def tables(self) -> tuple[TableName, ...]:
        """The table it was looked for in."""
        return (TableName(self.schema, self.table),)

    def __str__(self) -> str:
        return f"Could not find a relationship between '{self.table}' and '{self.target}' in the schema cache"

    @property
    def details(self) -> str:
        using = f" using the hint '{self.used_hint}'" if self.used_hint else ""
        return (
            f"Searched for a foreign key relationship between '{self.table}' and '{self.target}'{using} "
            f"in the schema '{self.schema}', but no matches were found."
        )


class AmbiguousRelationship(GateError):
    """Several foreign keys join the two tables, so the embed must name one."""

    code = "MAG-GATE-043"
    http_status = 300
    rest_code = "PGRST201"
    title = "The relationship is ambiguous"
    remedy = "Write target!constraint(...) or target!column(...); `details` lists the choices."

    def __init__(
        self, tables: Sequence[TableName], target: str, choices: Sequence[dict[str, str]], spellings: Sequence[str]
    ) -> None:
        """`tables` are those the choices speak of, the asking one first."""
        super().__init__(tables, target, choices, spellings)
        self.tables, self.target, self.choices = tables, target, choices
        self.hint = (
            f"Try changing '{target}' to one of the following: "
            + ", ".join(f"'{spelling}'" for spelling in spellings)
            + ". Find the desired relationship in the 'details' key."
        )

    def __str__(self) -> str:
        pair = f"'{self.tables[0].name}' and '{self.target}'"
        return f"Could not embed because more than one relationship was found for {pair}"

    @property
    def details(self) -> Sequence[dict[str, str]]:
        return self.choices


class NotEmbedded(GateError):
    """A filter, order or limit names a resource that `select` does not embed."""

    code = "MAG-GATE-044"
    rest_code = "PGRST108"
    title = "The resource is not embedded"
    remedy = "Embed it in select, for example select=*,airlines(*), or quote a column name that holds a dot."

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name
        self.hint = f"Verify that '{name}' is included in the 'select' query parameter."

    def __str__(self) -> str:
        return f"'{self.name}' is not an embedded resource in this request"
