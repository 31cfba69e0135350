"""Storage for extensions: hook points `database.*`; SQL as the extension's own role, answered by `extensions.sql`."""

from __future__ import annotations

from magmobo.contracts.guests import Guests, Migrations
from magmobo.contracts.planes import Changes, Database
from magmobo.extensions.adapters.surface import Surface

SURFACE = Surface(
    adapter="magds",
    component="magds",
    protocols=(Database, Changes, Guests, Migrations),
    methods=("db.execute", "db.fetch", "db.fetchval"),
)
