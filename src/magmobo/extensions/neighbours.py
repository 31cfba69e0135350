"""The planes of the node that extensions work with, as the component was given them.

Boundary: names contracts alone, so that a node without extensions loads nothing by holding it.
"""

from __future__ import annotations

from dataclasses import dataclass

from magmobo.contracts.guests import Guests, Migrations
from magmobo.contracts.planes import Changes, Database, Gateway, Listener, Realtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """What may be None is not on every node; extensions that need it are refused what it would do for them."""

    database: Database
    guests: Guests
    migrations: Migrations
    changes: Changes | None
    realtime: Realtime | None
    gateway: Gateway | None
    listener: Listener | None
