"""The shape of a request's query string, without its values.

A `Query` is frozen and hashable, and holds no value a user sent: values stand in a list beside it and the shape names
their place (a *slot*). Requests that differ only in values therefore share one shape, one SQL text and one prepared
statement. Names in a shape are as the user wrote them; `plan` looks every one of them up in the catalogue.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class JsonStep(Struct, frozen=True):
    """One `->` or `->>` of a JSON path; the key or index stands in `slot`."""

    slot: int
    as_text: bool
    is_index: bool


class Field(Struct, frozen=True):
    """A column, or a place inside its JSON."""

    name: str
    steps: tuple[JsonStep, ...] = ()


class Condition(Struct, frozen=True):
    """`field operator value`. For `is` the value is `word`; for `in` the slot holds a Postgres array literal."""

    field: Field
    operator: str
    negated: bool = False
    slot: int = -1
    word: str = ""


class Logic(Struct, frozen=True):
    """`and(...)` or `or(...)`."""

    operator: Literal["and", "or"]
    negated: bool
    children: tuple[Condition | Logic, ...]


class Sort(Struct, frozen=True):
    """One term of `order`; `nulls` is None for Postgres' default."""

    field: Field
    descending: bool = False
    nulls: Literal["first", "last"] | None = None


class Star(Struct, frozen=True):
    """`*`: every column the role may see the name of."""


class Output(Struct, frozen=True):
    """A selected field. `alias_slot` holds the key it gets, None when that is the column's name."""

    field: Field
    alias_slot: int | None = None
    cast: str | None = None


class Embed(Struct, frozen=True):
    """Rows of a related table. `inner` also drops rows of the parent that have none."""

    target: str
    query: Query
    hint: str | None = None
    alias_slot: int | None = None
    inner: bool = False
    limit_slot: int = -1
    offset_slot: int | None = None


class Query(Struct, frozen=True):
    """What to read from one table: columns and embeds, filters (all must hold), order."""

    select: tuple[Star | Output | Embed, ...] = (Star(),)
    where: tuple[Condition | Logic, ...] = ()
    order: tuple[Sort, ...] = ()
    columns: tuple[str, ...] | None = None
