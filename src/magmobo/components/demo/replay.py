"""Plays the year 2013 again: each departure becomes a real INSERT into `departures`, in the order of the timetable.

Where it is stands in the table itself (its newest row), so a restart goes on where the last one ended. After New
Year's Eve the table is truncated and the year begins again, so it never holds more than one year. Cancelled flights
do not depart. Hours in which nothing leaves are shortened to `LONGEST_PAUSE_S` of simulated time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import NamedTuple

import psycopg
import structlog

from magmobo.components.demo.load import Connection
from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import DeadlineExceeded, Unavailable

TICK_S = 0.05
BATCH_ROWS = 500
LONGEST_PAUSE_S = 1_800.0
RETRY_AFTER_S = 1.0

BEGINNING = (datetime.fromtimestamp(0, UTC), 0, 0)
# Cancelled flights have no delay. Rows that users added come after the loaded ones and are theirs: they may hold
# anything, so they are never played. The index flights_schedule has the same condition.
NEXT = """
    select time_hour, minute, id from public.flights
    where dep_delay is not null and id <= 336776 and (time_hour, minute, id) > (%s, %s, %s)
    order by time_hour, minute, id limit %s"""
NEWEST = """
    select f.time_hour, f.minute, f.id from public.departures d join public.flights f on f.id = d.flight_id
    order by d.id desc limit 1"""
DEPART = """
    insert into public.departures (flight_id, sched_at, dep_at, dep_delay, carrier, flight, origin, dest)
    select id, sched_at, sched_at + dep_delay * interval '1 minute', dep_delay, carrier, flight, origin, dest
    from public.flights, lateral (select time_hour + minute * interval '1 minute' as sched_at) as schedule
    where id = any(%s) order by time_hour, minute, id"""

Sessions = Callable[[], AbstractAsyncContextManager[Connection]]


class Departure(NamedTuple):
    """A place in the timetable; tuples sort in its order."""

    time_hour: datetime
    minute: int
    flight_id: int

    @property
    def scheduled_s(self) -> float:
        """Scheduled departure, seconds since 1970 UTC."""
        return self.time_hour.timestamp() + self.minute * 60


class Timetable:
    """Says which departures are due. No I/O: it is fed upcoming departures and told the time.

    Simulated time runs `speed` times as fast as `now_s` (monotonic seconds). It jumps over pauses and never runs
    ahead of what it was fed, so a slow database makes the replay slower, not burstier.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._upcoming: deque[Departure] = deque()
        self._simulated_s: float | None = None
        self._seen_at_s = 0.0

    def __len__(self) -> int:
        return len(self._upcoming)

    def hurry(self, speed: float) -> None:
        """Simulated time runs at this speed from the next look on."""
        self._speed = speed

    def feed(self, departures: list[Departure]) -> None:
        """Append departures, in timetable order."""
        self._upcoming.extend(departures)

    def clear(self) -> None:
        """Forget everything, the simulated time too."""
        self._upcoming.clear()
        self._simulated_s = None

    def take_due(self, now_s: float) -> list[Departure]:
        """Remove and return what has left by now, at most one batch, in order."""
        if not self._upcoming:
            self._seen_at_s = now_s
            return []
        next_s = self._upcoming[0].scheduled_s
        if self._simulated_s is None:
            self._simulated_s = next_s
        else:
            self._simulated_s += (now_s - self._seen_at_s) * self._speed
            self._simulated_s = max(self._simulated_s, next_s - LONGEST_PAUSE_S)
        self._seen_at_s = now_s
        due: list[Departure] = []
        while self._upcoming and len(due) < BATCH_ROWS and self._upcoming[0].scheduled_s <= self._simulated_s:
            due.append(self._upcoming.popleft())
        if due and (not self._upcoming or len(due) == BATCH_ROWS):
            self._simulated_s = due[-1].scheduled_s
        return due


class Replay:
    """Runs a timetable against the database until its task is cancelled.

    `inserted` counts departures since the start; `waiting` says that the database does not answer.
    """

    def __init__(self, sessions: Sessions, clock: Clock, log: structlog.stdlib.BoundLogger, speed: float) -> None:
        self._sessions, self._clock, self._log = sessions, clock, log
        self._timetable = Timetable(speed)
        self.waiting = False
        self.inserted = 0

    def hurry(self, speed: float) -> None:
        """Play at this speed from now on."""
        self._timetable.hurry(speed)

    async def run(self) -> None:
        """Insert departures as they fall due. A database that is away is waited for; nothing is skipped."""
        while True:
            try:
                await self._tick()
            except (psycopg.OperationalError, Unavailable, DeadlineExceeded) as error:
                if not self.waiting:
                    self._log.warning("demo.replay_waits", error=str(error))
                self.waiting = True
                # The insert may or may not have happened: read the position from the table again.
                self._timetable.clear()
                await self._clock.sleep(RETRY_AFTER_S)
            else:
                self.waiting = False
                await self._clock.sleep(TICK_S)

    async def _tick(self) -> None:
        if not self._timetable:
            async with self._sessions() as connection:
                self._timetable.feed(await _upcoming(connection))
        due = self._timetable.take_due(self._clock.monotonic_s())
        if due:
            async with self._sessions() as connection:
                self.inserted += await _depart(connection, [departure.flight_id for departure in due])


async def _upcoming(connection: Connection) -> list[Departure]:
    """The next batch after the newest row of `departures`; at the end of the year starts over."""
    last = await (await connection.execute(NEWEST)).fetchone()
    batch = await _after(connection, last or BEGINNING)
    if not batch and last is not None:
        await connection.execute("truncate public.departures")
        batch = await _after(connection, BEGINNING)
    return batch


async def _after(connection: Connection, start: tuple[object, ...]) -> list[Departure]:
    cursor = await connection.execute(NEXT, (*start, BATCH_ROWS))
    return [Departure(*row) for row in await cursor.fetchall()]


async def _depart(connection: Connection, flight_ids: list[int]) -> int:
    return (await connection.execute(DEPART, (flight_ids,))).rowcount
