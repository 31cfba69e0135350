"""How much of what an extension may do is used up, for people and for whoever waits.

What is spent of a budget is the database's sum over all nodes, which each tells every second, or what this node knows
already, if that is more. Boundary: asked by operators alone; no call of an extension waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from msgspec import Struct

from magmobo.contracts.extensions import LimitInfo
from magmobo.extensions.gate.errors import BudgetSpent
from magmobo.extensions.gate.hours import DAY_S
from magmobo.extensions.installed import Grant

if TYPE_CHECKING:
    import psycopg

Connection: TypeAlias = "psycopg.AsyncConnection[tuple[Any, ...]]"

_SPENT = "select capability, calls from mag.extension_spent where day = %s and extension_id = %s"


class Limit(Struct, frozen=True):
    """What keeps calls back: of a capability, or of a method that takes none; `kind` is `budget` or `rate`."""

    name: str
    kind: str
    retry_s: float


class Use(Struct, frozen=True):
    """Of one capability: calls that were kept back on this node since it started, and those of today that it knows of,
    on all nodes.
    """

    refused: int = 0
    spent_today: int = 0


class Uses(Protocol):
    """The gate of this node."""

    def limit(self, extension_id: str, grants: Mapping[str, Grant], name: str) -> Limit | None: ...

    def use(self, extension_id: str, name: str) -> Use: ...


async def read_limits(
    connection: Connection, gate: Uses, extension_id: str, grants: Mapping[str, Grant], time_s: float
) -> Sequence[LimitInfo]:
    """Of each capability that it has, by name."""
    day = int(time_s // DAY_S)
    told: dict[str, int] = {}
    if any(grant.budget_per_day is not None for grant in grants.values()):
        told = dict(await (await connection.execute(_SPENT, (day, extension_id))).fetchall())
    return [_limit(gate, extension_id, grants, name, told.get(name, 0), (day + 1) * DAY_S) for name in sorted(grants)]


def _limit(
    gate: Uses, extension_id: str, grants: Mapping[str, Grant], name: str, told: int, midnight_s: float
) -> LimitInfo:
    grant, use, limit = grants[name], gate.use(extension_id, name), gate.limit(extension_id, grants, name)
    limited = "" if limit is None else limit.kind
    if grant.budget_per_day is None:
        return LimitInfo(name, grant.rate_per_minute, use.refused, limited)
    spent = max(told, use.spent_today)
    return LimitInfo(
        name,
        grant.rate_per_minute,
        use.refused,
        BudgetSpent.kind if spent >= grant.budget_per_day else limited,
        grant.budget_per_day,
        spent,
        rfc3339(midnight_s),
    )


def rfc3339(time_s: float) -> str:
    """A moment in UTC, to the second."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
