"""What waits for a limit of the node on what its extension may ask: which limit, until when, and whether it still is.

A worker says that it met one, and how long it lasts; the gate of this node, which refused the call, knows which it was.
What the gate knows is waited for to its end, and no longer than it stands: an operator may raise it, or take the
capability back. What it does not know is waited for as the worker says, a minute at most. Waits of more than a moment
are written down for the operators of all nodes. Boundary: of the node that holds the lease; whoever takes it begins
with none, and meets the limits anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from magmobo.contracts.clock import Clock
from magmobo.contracts.extensions import WaitInfo
from magmobo.extensions.events.log import Connection, Desk
from magmobo.extensions.gate.errors import BudgetSpent, RateLimited
from magmobo.extensions.gate.limits import Limit, rfc3339
from magmobo.extensions.installed import Grant, Installed

LEAST_S, MOST_S = 0.25, 60.0
"""What a worker is believed of how long a limit lasts; a rate keeps back for a minute at most."""
NOTED_S = 2.0
"""Shorter waits are over before anybody reads of them."""
LOOK_EVERY_S = 0.5
"""How soon somebody who waits sees that a limit is no more."""
EVENT, JOB = "event:", "job:"

_CLEAR = "delete from mag.extension_wait"
_END = """
delete from mag.extension_wait w using unnest(%s::text[], %s::text[]) as t(extension_id, handler)
where w.extension_id = t.extension_id and w.handler = t.handler
"""
_NOTE = """
insert into mag.extension_wait (extension_id, handler, capabilities, kind, until_s) values (%s, %s, %s, %s, %s)
on conflict (extension_id, handler)
do update set capabilities = excluded.capabilities, kind = excluded.kind, until_s = excluded.until_s
"""
_READ = """
select handler, capabilities, kind, until_s, case when handler like 'event:%%'
  then coalesce((select s.waiting from mag.extension_subscription s
                 where s.extension_id = w.extension_id and 'event:' || s.name = w.handler), 0)
  else (select count(*) from mag.extension_job j
        where j.extension_id = w.extension_id and 'job:' || j.name = w.handler and j.due_s <= %s) end
from mag.extension_wait w where extension_id = %s and until_s > %s order by handler
"""


class Gate(Protocol):
    """Who refused a call, and would again."""

    def limit(self, extension_id: str, grants: Mapping[str, Grant], name: str) -> Limit | None:
        """What keeps calls of a capability back now."""
        ...

    def met(self, extension: Installed, since_s: float) -> Sequence[Limit]:
        """What kept calls of it back since then, and still does."""
        ...


class Wait(Struct, frozen=True):
    """For one of these limits of one kind, until then at the latest, by the clock that never goes back. No names: the
    gate knows of none.
    """

    names: Sequence[str]
    kind: str
    until_s: float


class Waits:
    """Of all extensions, while this node holds the lease."""

    def __init__(self, gate: Gate, clock: Clock) -> None:
        self._gate, self._clock = gate, clock
        self._noted: dict[tuple[str, str], Wait] = {}
        self._changed: set[tuple[str, str]] = set()

    def begin(self, installed: Installed, handler: str, since_s: float, said_s: Iterable[float]) -> Wait:
        """A handler that was asked at `since_s` met limits, which last so long as its worker says."""
        now_s = self._clock.monotonic_s()
        wait = self._wait(self._gate.met(installed, since_s), now_s, max(map(believed_s, said_s)))
        if wait.until_s - now_s >= NOTED_S:
            self._noted[installed.id, handler] = wait
            self._changed.add((installed.id, handler))
        return wait

    def is_over(self, installed: Installed, wait: Wait) -> bool:
        """Whether what it waited for is past, or one of the limits stands no more."""
        if self._clock.monotonic_s() >= wait.until_s:
            return True
        limits = [self._gate.limit(installed.id, installed.grants, name) for name in wait.names]
        return any(one is None or one.kind != wait.kind for one in limits)

    def end(self, extension_id: str, handler: str) -> None:
        """It waits no more."""
        if self._noted.pop((extension_id, handler), None) is not None:
            self._changed.add((extension_id, handler))

    async def clear(self, desk: Desk) -> None:
        """Whoever held the lease before does not wait any more."""
        async with desk.use() as connection:
            await connection.execute(_CLEAR)

    async def save(self, desk: Desk) -> None:
        """Write down what changed."""
        if not self._changed:
            return
        changed, self._changed = self._changed, set()
        ended = [key for key in changed if key not in self._noted]
        async with desk.use() as connection:
            if ended:
                await connection.execute(_END, [list(column) for column in zip(*ended, strict=True)])
            for extension_id, handler in changed.difference(ended):
                if (wait := self._noted.get((extension_id, handler))) is not None:
                    until_s = self._clock.time_s() + wait.until_s - self._clock.monotonic_s()
                    await connection.execute(_NOTE, (extension_id, handler, list(wait.names), wait.kind, until_s))

    def _wait(self, met: Sequence[Limit], now_s: float, said_s: float) -> Wait:
        budgets = [one for one in met if one.kind == BudgetSpent.kind]
        rates = [one.name for one in met if one.kind == RateLimited.kind]
        if budgets and (said_s >= MOST_S or not rates):
            lasts_s = max(LEAST_S, min(one.retry_s for one in budgets))
            return Wait([one.name for one in budgets], BudgetSpent.kind, now_s + lasts_s)
        return Wait(rates, RateLimited.kind, now_s + said_s)


def believed_s(said_s: float) -> float:
    """How long a limit lasts, when a worker alone says so: not believed without bounds."""
    return min(said_s, MOST_S) if said_s > LEAST_S else LEAST_S  # also for NaN


async def read_waits(connection: Connection, extension_id: str, time_s: float) -> Sequence[WaitInfo]:
    """What of an extension waits, on whichever node delivers. A node that was never to run extensions since it knows of
    waits did not make the table.
    """
    there = await (await connection.execute("select to_regclass('mag.extension_wait') is not null")).fetchone()
    if there is None or not there[0]:
        return ()
    rows = await (await connection.execute(_READ, (time_s, extension_id, time_s))).fetchall()
    return [
        WaitInfo(handler, names, kind, rfc3339(round(until_s)), behind)
        for handler, names, kind, until_s, behind in rows
    ]
