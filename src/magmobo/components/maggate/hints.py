"""Makes errors about names helpful, and only as helpful as the asking role may know.

An unknown name is answered with the nearest one among tables the role may use. A name asked for in a table the role may
not use at all is answered like any other access to that table: permission denied.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from http import HTTPStatus

from magmobo.components.maggate.catalogue import Snapshot
from magmobo.components.maggate.errors import (
    AmbiguousRelationship,
    GateError,
    PermissionDenied,
    UnknownColumn,
    UnknownRelationship,
    UnknownTable,
)
from magmobo.contracts.planes import TableName

NamingError = UnknownTable | UnknownColumn | UnknownRelationship | AmbiguousRelationship
NAMING_ERRORS = (UnknownTable, UnknownColumn, UnknownRelationship, AmbiguousRelationship)


def explained(
    error: NamingError,
    snapshot: Snapshot,
    visible: frozenset[TableName],
    columns: frozenset[str],
    *,
    anonymous: bool,
) -> GateError:
    """`error` with a hint made of `visible` tables and, for an unknown column, `columns` of its table; or a denial when
    it speaks of other tables.
    """
    if isinstance(error, UnknownTable):
        near = _nearest(error.table, (name.name for name in visible if name.schema == error.schema))
        error.hint = f"Perhaps you meant the table '{error.schema}.{near}'" if near else None
        return error
    hidden = next((name for name in error.tables if name not in visible), None)
    if hidden is not None:
        return denied(hidden, anonymous=anonymous)
    table = snapshot.tables[error.tables[0]]
    if isinstance(error, UnknownColumn):
        near = _nearest(error.column, columns)
        error.hint = f'Perhaps you meant to reference the column "{table.name.name}.{near}".' if near else None
    elif isinstance(error, UnknownRelationship):
        related = {key.target for key in table.references} | {key.table for key in table.referenced_by}
        near = _nearest(error.target, (name.name for name in related if name in visible))
        error.hint = f"Perhaps you meant '{near}' instead of '{error.target}'." if near else None
    return error


def denied(table: TableName, *, anonymous: bool) -> PermissionDenied:
    """What Postgres would say about this table."""
    status = HTTPStatus.UNAUTHORIZED if anonymous else HTTPStatus.FORBIDDEN
    return PermissionDenied("42501", status, f"permission denied for table {table.name}")


def _nearest(name: str, choices: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name[:63], sorted(choices), n=1)), None)
