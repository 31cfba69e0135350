"""Dead letters: what an extension could not take after all tries, kept for people to look at, the newest only.

An operator may have them tried again: events go back into the log for their one subscription, jobs among the jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct

from magmobo.contracts.extensions import DeadLetter
from magmobo.extensions.events import log
from magmobo.extensions.events.bodies import of_retried
from magmobo.extensions.events.log import Connection

MAX_DEAD = 1000
"""Of one extension."""
_BURY = """
insert into mag.extension_dead (extension_id, handler, event_id, topic, time_s, data, tries, error, dead_s)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_FORGET_OLD_DEAD = """
delete from mag.extension_dead where extension_id = %s and number <= (
  select number from mag.extension_dead where extension_id = %s order by number desc offset %s limit 1
)
"""
_READ = """
select number, handler, topic, dead_s, tries, error from mag.extension_dead
where extension_id = %s order by number
"""
_TAKE = """
delete from mag.extension_dead where extension_id = %s
returning number, handler, event_id, topic, time_s, data
"""
_AS_JOB = """
insert into mag.extension_job (extension_id, name, arguments, planned_s, due_s) values (%s, %s, %s, %s, %s)
"""


class Dead(Struct, frozen=True):
    """An event or a job. `handler` is `event:<subscription>` or `job:<name>`, `data` a map in msgpack."""

    extension_id: str
    handler: str
    event_id: str
    topic: str
    time_s: float
    data: bytes
    tries: int
    error: str


async def keep_dead(connection: Connection, dead: Dead, time_s: float) -> None:
    """Inside of the caller's transaction."""
    values = (
        dead.extension_id, dead.handler, dead.event_id, dead.topic, dead.time_s, bytes(dead.data), dead.tries,
        dead.error, time_s,
    )  # fmt: skip
    await connection.execute(_BURY, values)
    await connection.execute(_FORGET_OLD_DEAD, (dead.extension_id, dead.extension_id, MAX_DEAD))


async def read_dead(connection: Connection, extension_id: str) -> Sequence[DeadLetter]:
    """Those of an extension, oldest first."""
    rows = await (await connection.execute(_READ, (extension_id,))).fetchall()
    return [
        DeadLetter(number, topic or handler, _rfc3339(dead_s), tries, error)
        for number, handler, topic, dead_s, tries, error in rows
    ]


async def retry_dead(connection: Connection, extension_id: str, time_s: float) -> None:
    """Have all of them tried again, in their order, inside of the caller's transaction."""
    rows = await (await connection.execute(_TAKE, (extension_id,))).fetchall()
    events = []
    for _, handler, event_id, topic, event_s, data in sorted(rows):
        kind, _, name = handler.partition(":")
        if kind == "job":
            await connection.execute(_AS_JOB, (extension_id, name, data, time_s, time_s))
        else:
            events.append(of_retried(f"{extension_id}/{name}", topic, event_id, event_s, bytes(data)))
    await log.insert(connection, events)


def _rfc3339(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
