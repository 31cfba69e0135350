"""What a statement's tree may consist of, and which tables it names. Names are made exact: quoted, and with a schema.

An allow-list of kinds of nodes and of places where they may stand; a kind that is not here is refused. Invariant: after
`settle` every table of the tree has its schema, but those of a WITH, and each is among `reads` or `writes`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Literal

from sqlglot import exp

from magmobo.extensions.sql.errors import StatementRefused
from magmobo.extensions.sql.words import FUNCTIONS, TYPES, listed

LEDGER = "mag_migration"
"""The table in which the node notes what ran; its name is taken in every schema of an extension."""
_QUERY_ROOTS = (exp.Select, exp.SetOperation, exp.Values, exp.Insert, exp.Update, exp.Delete, exp.Subquery)
_MIGRATION_ROOTS = (*_QUERY_ROOTS, exp.Create, exp.Drop, exp.Alter, exp.Comment)
_ROWS_FROM = (exp.Table, exp.Subquery, exp.Lateral, exp.Unnest, exp.Values)
_QUERY_NODES = listed(
    """
    Add Alias And Anonymous Any All Array ArrayContainedBy ArrayContainsAll ArrayOverlaps Adjacent AtTimeZone Between
    BitwiseAnd BitwiseLeftShift BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor Boolean Bracket CTE Case Cast Cbrt
    Collate Column ColumnDef Cube CurrentDate CurrentTime CurrentTimestamp CurrentUser DPipe DataType DataTypeParam
    Delete Distance Distinct Div Dot EQ Escape Except Exists Extract Fetch Filter From GT GTE Group GroupingSets Having
    ILike Identifier If In Infix Insert Intersect Is JSONBContainsAllTopKeys JSONBContainsAnyTopKeys JSONBDeleteAtPath
    JSONBPathExists Join Kwarg LT LTE Lateral Like Limit LimitOptions Literal Localtime Localtimestamp Lock MatchAgainst
    Mod Mul NEQ Neg Not Null NullSafeEQ NullSafeNEQ Offset OnConflict Or Order Ordered Overlaps Overlay Parameter Paren
    Power PropertyEQ RangeL RegexpILike RegexpLike Returning Rollup Schema Select SessionUser SimilarTo Slice Sqrt Star
    StartsWith StrPosition Sub Subquery Substring Table TableAlias Trim Tuple Union Unnest Update Values Var Variadic
    Where Window WindowSpec With WithinGroup
    """
)
_MIGRATION_NODES = _QUERY_NODES | listed(
    """
    AddConstraint Alter AlterColumn AlterRename CheckColumnConstraint ColumnConstraint Comment ComputedColumnConstraint
    Constraint Create DefaultColumnConstraint Drop ForeignKey GeneratedAsIdentityColumnConstraint Index IndexParameters
    MaterializedProperty NotNullColumnConstraint Opclass PrimaryKey PrimaryKeyColumnConstraint Properties
    Reference RenameColumn SequenceProperties UniqueColumnConstraint UnloggedProperty
    """
)
_KINDS = {"TABLE", "INDEX", "VIEW", "SEQUENCE", "TYPE"}
_PARTS = {"COLUMN", "CONSTRAINT"}
"""Of a table, dropped by ALTER TABLE."""
_COMMENTED = {"TABLE", "COLUMN", "VIEW", "INDEX"}
_Ctes = frozenset[str]


class Settled:
    """A tree made exact. `added` counts the schema names that were put in."""

    def __init__(self, tree: exp.Expression, schema: str, allow: Literal["query", "migration"]) -> None:
        self._schema, self._is_migration = schema, allow == "migration"
        self._nodes = _MIGRATION_NODES if self._is_migration else _QUERY_NODES
        self.reads: set[tuple[str, str]] = set()
        self.writes: set[tuple[str, str]] = set()
        self.added: Counter[str] = Counter()
        self.tree = _without_wrapping(tree)
        if not isinstance(self.tree, _MIGRATION_ROOTS if self._is_migration else _QUERY_ROOTS):
            raise StatementRefused(f"{_word(self.tree)} is none of those that may run here")
        self._walk()
        if self.tree.find(exp.Lock) is not None:  # it takes the right to write
            self.writes |= self.reads

    @property
    def returns_rows(self) -> bool:
        """Whether it answers with rows."""
        if isinstance(self.tree, (exp.Insert, exp.Update, exp.Delete)):
            return self.tree.args.get("returning") is not None
        return isinstance(self.tree, _QUERY_ROOTS)

    def _walk(self) -> None:
        waiting: list[tuple[exp.Expr, _Ctes]] = [(self.tree, frozenset())]
        while waiting:
            node, ctes = waiting.pop()
            self._check(node, ctes)
            for child in node.iter_expressions():
                if isinstance(child, exp.With):
                    self._check(child, ctes)
                    waiting += self._ctes(child, ctes)
                    ctes = ctes | {cte.alias for cte in child.expressions}
            waiting += [(child, ctes) for child in node.iter_expressions() if not isinstance(child, exp.With)]

    def _ctes(self, with_: exp.With, outside: _Ctes) -> Iterator[tuple[exp.Expr, _Ctes]]:
        """Each with the names it sees: those before it, or all when it is RECURSIVE."""
        names = [cte.alias for cte in with_.expressions]
        for place, cte in enumerate(with_.expressions):
            self._check_name(names[place])
            yield cte, outside | set(names if with_.args.get("recursive") else names[:place])

    # ------------------------------------------------------------ one node

    def _check(self, node: exp.Expr, ctes: _Ctes) -> None:
        kind = type(node).__name__
        if kind not in self._nodes:
            raise StatementRefused(f"{_word(node)} may not be part of it")
        node.comments = None
        match node:
            case exp.Identifier():
                self._check_identifier(node)
            case exp.Anonymous():
                self._check_function(node)
            case exp.Column() if str(node) == "default":  # unquoted it is never a column
                node.replace(exp.Var(this="DEFAULT"))
            case exp.Table():
                self._check_table(node, ctes)
            case exp.DataType():
                self._check_type(node)
            case exp.Parameter():
                if not (isinstance(node.this, exp.Literal) and not node.this.is_string):
                    raise StatementRefused("a parameter that is not $1, $2, …")
            case exp.From() | exp.Join():
                if not isinstance(node.this, _ROWS_FROM):
                    raise StatementRefused(f"rows from {_word(node.this)}")
            case exp.Schema():
                if not isinstance(node.parent, (exp.Insert, exp.Create, exp.Reference, exp.UniqueColumnConstraint)):
                    raise StatementRefused("a list of columns in this place")
            case exp.Create() | exp.Drop() | exp.Alter() | exp.Comment():
                self._check_definition(node)
            case exp.Insert() | exp.Update() | exp.Delete():
                if _target(node) is None:
                    raise StatementRefused("it writes to what is not a table")
            case _:
                pass

    def _check_identifier(self, node: exp.Identifier) -> None:
        if not isinstance(node.this, str) or not node.this:
            raise StatementRefused("an empty name")
        if node.this.startswith("pg_"):  # tables of the system, and functions in the notation of a column
            raise StatementRefused(f"names that begin with pg_ ({node.this[:63]})")
        node.set("quoted", True)

    def _check_function(self, node: exp.Anonymous) -> None:
        name = node.this
        if not isinstance(name, str) or isinstance(node.parent, exp.Dot):
            raise StatementRefused("a function with a schema or in quotes")
        if name.lower() not in FUNCTIONS:
            raise StatementRefused(f"the function {name.lower()[:63]}")

    def _check_type(self, node: exp.DataType) -> None:
        """A type of its own is named with its schema; all others are words of the allow-list, checked when printed."""
        if node.this is not exp.DataType.Type.USERDEFINED:
            return
        kind = node.args.get("kind")
        if (
            isinstance(kind, exp.Var | exp.Identifier) and kind.name in TYPES
        ):  # one of Postgres that the parser does not know
            node.set("kind", exp.Var(this=kind.name))
            return
        name = kind.expression if isinstance(kind, exp.Dot) else kind
        owner = kind.this.name if isinstance(kind, exp.Dot) else self._own("a type")
        if not isinstance(name, exp.Identifier) or owner != self._schema:
            raise StatementRefused(f"the type {str(kind)[:63]}")
        if not isinstance(kind, exp.Dot):
            self.added[owner] += 1
        quoted = exp.Identifier(this=name.name, quoted=True)
        node.set("kind", exp.Dot(this=exp.Identifier(this=owner, quoted=True), expression=quoted))

    # ------------------------------------------------------------ tables

    def _check_table(self, node: exp.Table, ctes: _Ctes) -> None:
        if isinstance(node.parent, (exp.Lock, exp.AlterRename)):  # names of what stands elsewhere, or a new name
            self._check_name(node.name)
            return
        if not isinstance(node.this, exp.Identifier):
            if not isinstance(node.this, exp.Anonymous):
                raise StatementRefused(f"rows from {_word(node.this)}")
            return
        if node.args.get("catalog") is not None:
            raise StatementRefused("a table of another database")
        is_target = _is_target(node)
        schema = node.args.get("db")
        if schema is None and node.name in ctes and not is_target:
            return
        if schema is None:
            node.set("db", exp.Identifier(this=self._own(f"the table {node.name[:63]}"), quoted=True))
            self.added[self._schema] += 1
        self._check_name(node.name)
        if node.db in ("information_schema", "mag") or node.db.startswith("pg_"):
            raise StatementRefused(f"tables of the system ({node.db[:63]})")
        self._note(node, is_target=is_target)

    def _note(self, node: exp.Table, *, is_target: bool) -> None:
        table = (node.db, node.name)
        is_definition = is_target and not isinstance(node.find_ancestor(exp.DML, exp.DDL, exp.Alter), exp.DML)
        if is_definition and node.db != self._schema:
            raise StatementRefused(f"it defines something in the schema {node.db[:63]}, which is not its own")
        (self.writes if is_target else self.reads).add(table)

    def _check_name(self, name: str) -> None:
        if name.startswith("pg_") or name == LEDGER:
            raise StatementRefused(f"the name {name[:63]}, which is the system's")

    def _own(self, what: str) -> str:
        if not self._schema:
            raise StatementRefused(f"{what} without a schema: there is no schema of its own")
        return self._schema

    # ------------------------------------------------------------ definitions

    def _check_definition(self, node: exp.Expr) -> None:
        kind = str(node.args.get("kind") or "").upper()
        is_part = isinstance(node.parent, exp.Alter)
        if kind not in (_PARTS if is_part else _COMMENTED if isinstance(node, exp.Comment) else _KINDS):
            raise StatementRefused(f"{_word(node)} {kind[:63] or 'of this kind'}")
        if node.args.get("cascade"):  # it would take what others built on it
            raise StatementRefused(f"{_word(node)} … CASCADE: drop what depends on it first")
        if kind == "COLUMN" and isinstance(node.this, exp.Column) and node.this.args.get("db") is None:
            node.this.set("db", exp.Identifier(this=self._own("a column"), quoted=True))
            self.added[self._schema] += 1
        if isinstance(node, exp.Comment) and kind == "COLUMN" and node.this.db != self._schema:
            raise StatementRefused("a comment on a table that is not its own")


def _target(node: exp.Expr) -> exp.Table | None:
    """The table that a statement writes to or defines."""
    this = node.this
    if isinstance(this, exp.Schema):
        this = this.this
    if isinstance(this, exp.Index):
        this = this.args.get("table")
    return this if isinstance(this, exp.Table) and isinstance(this.this, exp.Identifier) else None


def _is_target(node: exp.Table) -> bool:
    owner = node.parent
    while isinstance(owner, (exp.Schema, exp.Index)):
        owner = owner.parent
    if isinstance(owner, exp.Drop):
        return True  # one of several, perhaps
    return isinstance(owner, (exp.DML, exp.Create, exp.Alter, exp.Comment)) and _target(owner) is node


def _without_wrapping(tree: exp.Expression) -> exp.Expression:
    """`VALUES` in a WITH, which the parser turns into `SELECT * FROM (VALUES …) AS _values`, as it was written."""
    for values in list(tree.find_all(exp.Values)):
        select = values.parent.parent if values.parent is not None else None
        if values.alias == "_values" and isinstance(values.parent, exp.From) and isinstance(select, exp.Select):
            values.set("alias", None)
            select.replace(values)
    return tree


def _word(node: object) -> str:
    """The kind of a node, for people: `PartitionedByProperty` is `PARTITIONED BY`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__).removesuffix(" Property").upper()
