"""Jobs: work that an extension noted for later, and work by schedule. Durable, at least once, on one node.

A job's row stays until it is done, so a kill in the middle runs it again; the author gets the same id each time. A
schedule has one row, whose time moves on when its run is over: what was missed meanwhile is one run, not many. A job
that fails is tried again after 1, 5 and 25 s, then kept as a dead letter. One that met a limit of the node on what the
extension may ask was not tried: its name waits as long as the limit stands (`waits`); a run by schedule that the next
one would overtake meanwhile is skipped, and counted as such. Times are seconds since 1970 UTC.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Raw, Struct
from msgspec.structs import replace

from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import MagError, Unavailable
from magmobo.extensions.events.access import Holds
from magmobo.extensions.events.backlog import RETRY_AFTER_S
from magmobo.extensions.events.dead import Dead, keep_dead
from magmobo.extensions.events.errors import JobRefused
from magmobo.extensions.events.log import Connection, Desk
from magmobo.extensions.events.waits import JOB, MOST_S, Wait, Waits
from magmobo.extensions.installed import Installed, Question
from magmobo.extensions.languages.cron import next_after
from magmobo.extensions.package.manifest import JobBinding
from magmobo.extensions.workers.errors import HandlerFailed, WorkerBusy, WorkerUnavailable
from magx import wire

MAX_WAITING = 1000
"""Jobs of one extension that may wait."""
AT_ONCE = 4
"""Jobs of one extension that run at the same time."""
LOOK_EVERY_S = 1.0
_NOT_NOW_S, _REVOKED_S = 5.0, 60.0
_EMPTY = wire.raw({})

_DUE = """
select j.id, j.extension_id, j.name, j.cron, j.arguments, j.planned_s, j.tries
from unnest(%s::text[]) as e(extension_id) cross join lateral (
  select * from mag.extension_job
  where extension_id = e.extension_id and due_s <= %s and id <> all(%s::bigint[])
    and (extension_id, name) not in (select * from unnest(%s::text[], %s::text[]))
  order by due_s, id limit %s
) j
"""
_ENQUEUE = """
insert into mag.extension_job (extension_id, name, arguments, planned_s, due_s)
select %s, %s, %s, %s, %s
where (select count(*) from (select from mag.extension_job where extension_id = %s limit %s) waiting) < %s
returning id
"""
_PLAN = """
insert into mag.extension_job (extension_id, name, cron, arguments, planned_s, due_s) values (%s, %s, %s, %s, %s, %s)
on conflict (extension_id, name) where cron <> ''
do update set cron = excluded.cron, planned_s = excluded.planned_s, due_s = excluded.due_s, tries = 0
where extension_job.cron <> excluded.cron
"""
_UNPLAN = "delete from mag.extension_job where extension_id = %s and cron <> '' and name <> all(%s::text[])"


class Worker(Protocol):
    """What is asked of the process of an extension."""

    @property
    def installed(self) -> Installed: ...

    async def ask(self, question: Question) -> Raw:
        """The answer of one handler. Raises: MagError."""
        ...


class JobRow(Struct, frozen=True):
    """A job that is due."""

    id: int
    extension_id: str
    name: str
    cron: str
    arguments: bytes
    planned_s: float
    tries: int

    @property
    def public_id(self) -> str:
        """The same at every try of this run."""
        return f"{self.id}/{self.planned_s:.0f}" if self.cron else str(self.id)


async def enqueue(connection: Connection, installed: Installed, name: str, arguments: bytes, due_s: float) -> None:
    """Note a job durably. Raises: JobRefused."""
    if not any(one.name == name for one in installed.manifest.jobs):
        raise JobRefused(name, "the manifest has no job of this name")
    values = (installed.id, name, arguments, due_s, due_s, installed.id, MAX_WAITING, MAX_WAITING)
    if await (await connection.execute(_ENQUEUE, values)).fetchone() is None:
        raise JobRefused(name, f"{MAX_WAITING} jobs wait already")


async def plan(connection: Connection, installed: Installed, time_s: float) -> None:
    """Bring the schedules to those of the manifest. One that stays keeps its next time."""
    planned = {job.name: job.cron for job in installed.manifest.jobs if job.cron}
    for name, cron in planned.items():
        due_s = next_after(cron, time_s)
        if due_s is not None:
            await connection.execute(_PLAN, (installed.id, name, cron, bytes(_EMPTY), due_s, due_s))
    await connection.execute(_UNPLAN, (installed.id, list(planned)))


class JobRunner:
    """Runs what is due, on the node that has the lease. `skipped` is told of each run that never came to be."""

    def __init__(
        self,
        desk: Desk,
        workers: Mapping[str, Worker],
        holds: Holds,
        waits: Waits,
        clock: Clock,
        *,
        skipped: Callable[[JobRow], None],
    ) -> None:
        self._desk, self._workers, self._holds, self._clock = desk, workers, holds, clock
        self._waits, self._skipped = waits, skipped
        self._running: dict[int, str] = {}
        self._held: dict[tuple[str, str], Wait] = {}
        """Extension and name of jobs that met a limit."""
        self._wake = asyncio.Event()

    def look_again(self) -> None:
        """Something may be due now."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled; then what runs is run again by whoever comes next."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                for row in await self._due():
                    self._running[row.id] = row.extension_id
                    group.create_task(self._run(row), name=f"events.job {row.extension_id}/{row.name}")
                try:
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def _due(self) -> Sequence[JobRow]:
        """At most `AT_ONCE` of each extension, whatever others have waiting."""
        self._look_at_waits()
        if not self._workers:
            return ()
        owners, names = [owner for owner, _ in self._held], [name for _, name in self._held]
        values = (list(self._workers), self._clock.time_s(), list(self._running), owners, names, AT_ONCE)
        async with self._desk.use() as connection:
            found = [JobRow(*row) for row in await (await connection.execute(_DUE, values)).fetchall()]
        busy: dict[str, int] = {}
        for owner in self._running.values():
            busy[owner] = busy.get(owner, 0) + 1
        taken = []
        for row in found:
            is_held = (row.extension_id, row.name) in self._held  # since a moment ago, perhaps
            if not is_held and busy.get(row.extension_id, 0) < AT_ONCE:
                busy[row.extension_id] = busy.get(row.extension_id, 0) + 1
                taken.append(row)
        return taken

    def _look_at_waits(self) -> None:
        for (owner, name), wait in list(self._held.items()):
            worker = self._workers.get(owner)
            if worker is None or self._waits.is_over(worker.installed, wait):
                del self._held[owner, name]
                self._waits.end(owner, JOB + name)

    async def _run(self, row: JobRow) -> None:
        try:
            worker = self._workers.get(row.extension_id)
            if worker is None:
                return
            binding = next((one for one in worker.installed.manifest.jobs if one.name == row.name), None)
            if binding is None:
                await self._remove(row)
            elif not self._holds(worker.installed, _capability(row)):
                await self._put_off(row, _REVOKED_S, row.tries)
            else:
                await self._ask(worker, binding, row)
        finally:
            del self._running[row.id]
            self._wake.set()

    async def _ask(self, worker: Worker, binding: JobBinding, row: JobRow) -> None:
        told = {"id": row.public_id, "arguments": wire.value(Raw(row.arguments)), "tries": row.tries + 1}
        question = Question(JOB + row.name, wire.raw(told), binding.timeout_ms / 1000)
        began_s = self._clock.monotonic_s()
        try:
            await worker.ask(question)
        except (Unavailable, WorkerUnavailable, WorkerBusy):
            await self._put_off(row, _NOT_NOW_S, row.tries)
        except MagError as error:
            if isinstance(error, HandlerFailed) and error.retry_s:
                wait = self._waits.begin(worker.installed, question.handler, began_s, [error.retry_s])
                await self._limited(row, wait)
            else:
                await self._failed(row, str(error)[:500].replace("\x00", ""))
        else:
            await self._over(row)

    async def _limited(self, row: JobRow, wait: Wait) -> None:
        """Wait; the row stays as it is, so that whoever comes next finds it due. Or skip it for the run after it, not
        long before that, because an operator may end the limit.
        """
        now_s, time_s = self._clock.monotonic_s(), self._clock.time_s()
        if row.cron:
            next_s = now_s + (next_after(row.cron, time_s) or time_s) - time_s
            if next_s <= min(wait.until_s, now_s + MOST_S):
                self._waits.end(row.extension_id, JOB + row.name)
                await self._over(row)
                self._skipped(row)
                return
            if wait.until_s > next_s - MOST_S > now_s:
                wait = replace(wait, until_s=next_s - MOST_S)
        self._held[row.extension_id, row.name] = wait

    async def _failed(self, row: JobRow, reason: str) -> None:
        if row.tries < len(RETRY_AFTER_S):
            await self._put_off(row, RETRY_AFTER_S[row.tries], row.tries + 1)
        else:
            await self._over(row, reason)

    async def _put_off(self, row: JobRow, delay_s: float, tries: int) -> None:
        async with self._desk.use() as connection:
            await connection.execute(
                "update mag.extension_job set due_s = %s, tries = %s where id = %s",
                (self._clock.time_s() + delay_s, tries, row.id),
            )

    async def _over(self, row: JobRow, error: str = "") -> None:
        """The run has ended, well or, with `error`, for good."""
        now_s = self._clock.time_s()
        async with self._desk.transaction() as connection:
            if error:
                handler = JOB + row.name
                arguments, tries = row.arguments, row.tries + 1
                dead = Dead(row.extension_id, handler, row.public_id, "", row.planned_s, arguments, tries, error)
                await keep_dead(connection, dead, now_s)
            next_s = next_after(row.cron, now_s) if row.cron else None
            if next_s is None:
                await connection.execute("delete from mag.extension_job where id = %s", (row.id,))
            else:
                await connection.execute(
                    "update mag.extension_job set due_s = %s, planned_s = %s, tries = 0 where id = %s",
                    (next_s, next_s, row.id),
                )

    async def _remove(self, row: JobRow) -> None:
        async with self._desk.use() as connection:
            await connection.execute("delete from mag.extension_job where id = %s", (row.id,))


def _capability(row: JobRow) -> str:
    return "system.cron_schedule" if row.cron else "system.background_jobs"
