"""What others see of statements of requests: extensions that stand around them, and who listens to slow or all of them.

Invariant: no value of a parameter leaves here; a statement's text holds none. Where nobody takes part and nobody
listens, a statement costs three tests and a look at the clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

from magmobo.contracts.bus import Bus
from magmobo.contracts.events import DatabaseQueryExecuted, DatabaseSlowQueryDetected
from magmobo.contracts.hooks import HookChain, Hooks, QueryContext
from magmobo.contracts.planes import Identity, Statement, StatementResult

MAX_TEXT = 8_192
"""Characters of a statement in an event; hooks are told the whole of it."""


class QueryWatch:
    """Asked by `MagDatabase` at each statement."""

    def __init__(self, hooks: Hooks, bus: Bus, *, slow_query_s: float) -> None:
        self.point = hooks.point("database.around_query")
        self.slow_query_s = slow_query_s
        self.has_listeners = bus.has_listeners  # asked at each statement: one call, not two
        self._bus = bus

    def tell(self, statement: Statement, identity: Identity, duration_s: float, result: StatementResult | None) -> None:
        """Emit what became of a statement; without a `result` it failed."""
        facts: dict[str, Any] = {
            "sql_hash": sql_hash(statement.sql),
            "duration_s": duration_s,
            "rows": len(result.rows) if result is not None else 0,
            "role": identity.role,
            "sql": statement.sql.decode(errors="replace")[:MAX_TEXT],
        }
        if duration_s > self.slow_query_s:
            self._bus.emit(DatabaseSlowQueryDetected(**facts))
        if result is not None:
            self._bus.emit(DatabaseQueryExecuted(**facts))


async def around(
    chain: HookChain[QueryContext],
    statement: Statement,
    identity: Identity,
    *,
    read_only: bool,
    proceed: Callable[[], Awaitable[StatementResult]],
) -> StatementResult:
    """Run a statement when the extensions around it let it. Raises: HookDenied, HookUnavailable; as `proceed`."""
    context = QueryContext(
        sql=statement.sql.decode(errors="replace"),
        sql_hash=sql_hash(statement.sql),
        role=identity.role,
        read_only=read_only,
    )
    return await chain.around(context, proceed)


def sql_hash(sql: bytes) -> str:
    """By which a statement's text is known everywhere."""
    return hashlib.sha256(sql).hexdigest()[:16]
