"""Encoders by type oid, learnt from the catalogue when a relation first shows a type.

Boundary: reads pg_type, nothing else. A type that the catalogue no longer holds (replay after DROP TYPE) is text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psycopg import AsyncConnection

from magmobo.components.magds.changes.json_values import BUILT_IN, Encoder, TypeFacts, make_encoder

_FACTS = """
select t.oid::int8, t.typbasetype::int8,
       case when t.typsubscript = 'pg_catalog.array_subscript_handler'::regproc then t.typelem::int8 else 0 end,
       t.typdelim::text,
       coalesce((select array_agg(a.attname::text order by a.attnum) from pg_catalog.pg_attribute a
                 where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped), '{}'),
       coalesce((select array_agg(a.atttypid::int8 order by a.attnum) from pg_catalog.pg_attribute a
                 where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped), '{}')
from pg_catalog.pg_type t where t.oid = any(%s::oid[])
"""
_MAX_NESTING = 16


class TypeCatalogue:
    """Remembers what types are. `learn` before the first row of a relation, then `encoder` is a dictionary look-up."""

    def __init__(self) -> None:
        self._facts: dict[int, TypeFacts] = {}
        self._encoders: dict[int, Encoder] = {}

    def forget(self) -> None:
        """Types may have changed; what is needed is learnt again."""
        self._facts.clear()
        self._encoders.clear()

    def knows(self, type_oids: Iterable[int]) -> bool:
        """Whether `learn` would have nothing to do."""
        return all(oid in BUILT_IN or oid in self._facts for oid in type_oids)

    async def learn(self, connection: AsyncConnection[tuple[Any, ...]], type_oids: Iterable[int]) -> None:
        """Look up types and what they are made of. Raises: psycopg.Error."""
        wanted = {oid for oid in type_oids if oid not in BUILT_IN and oid not in self._facts}
        for _ in range(_MAX_NESTING):
            if not wanted:
                return
            rows = await (await connection.execute(_FACTS, (list(wanted),))).fetchall()
            for oid in wanted:
                self._facts[oid] = TypeFacts()
            found: set[int] = set()
            for oid, base, element, delimiter, names, oids in rows:
                self._facts[oid] = TypeFacts(base, element, delimiter, tuple(zip(names, oids, strict=True)))
                found.update((base, element, *oids))
            wanted = {oid for oid in found if oid and oid not in BUILT_IN and oid not in self._facts}

    def encoder(self, type_oid: int) -> Encoder:
        """How values of this type become JSON."""
        known = self._encoders.get(type_oid)
        if known is None:
            known = self._encoders[type_oid] = make_encoder(type_oid, self._facts)
        return known
