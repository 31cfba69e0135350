"""The event router: from the bus, the tables and the extensions into the log, and from the log to the extensions.

Every node logs what happens on it; one of them, which holds the lease, tells the extensions, through the workers that
run beside it. All state is in the database, so a node that is killed is followed by another where it stopped, and what
was never logged is told as a gap. A node whose extensions neither subscribe nor plan anything does none of this.
Boundary: this module joins the parts; rules stand in them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

import psycopg

from magmobo.contracts.component import Context
from magmobo.contracts.errors import MagError, Unavailable
from magmobo.contracts.extensions import DeadLetters
from magmobo.contracts.planes import Changes, Database, TableName
from magmobo.extensions.config import ExtensionsConfig
from magmobo.extensions.events import dead, jobs, line, subscriptions, waits
from magmobo.extensions.events.bodies import CHANGE_TOPIC
from magmobo.extensions.events.delivery import Delivery, Limits, wait
from magmobo.extensions.events.intake import Intake
from magmobo.extensions.events.jobs import JobRow, JobRunner
from magmobo.extensions.events.listening import Listening
from magmobo.extensions.events.log import Connection, Desk, Entry
from magmobo.extensions.events.methods import EventMethods
from magmobo.extensions.events.seat import Seat
from magmobo.extensions.events.tables import TableIntake
from magmobo.extensions.gate.gatekeeper import Gatekeeper
from magmobo.extensions.gate.limits import read_limits
from magmobo.extensions.installed import ApiMethod, Grant, Installed
from magmobo.extensions.standing import Standing

START_PATIENCE_S, SETTLE_PATIENCE_S, STOP_PATIENCE_S = 15.0, 20.0, 5.0
FOLLOW_EVERY_S = 5.0


class Worker(line.Worker, jobs.Worker, Protocol):
    """The process of an extension on this node."""


class EventRouter:
    """Of one node. `start` and `stop` may follow each other."""

    def __init__(
        self,
        context: Context,
        database: Database,
        changes: Changes | None,
        *,
        gatekeeper: Gatekeeper,
        config: Callable[[], ExtensionsConfig],
    ) -> None:
        self._context, self._database, self._gatekeeper, self._config = context, database, gatekeeper, config
        clock, logger, bus = context.clock, context.log, context.bus
        self._workers: dict[str, Worker] = {}
        self._intake = Intake(database, clock, logger, self._on_logged)
        self._listening = Listening(bus, self._intake, logger)
        self._tables: TableIntake | None = None
        if changes is not None:
            self._tables = TableIntake(changes, database, bus, clock, logger, self._intake)
        self._seat = Seat(database, clock, logger, self._intake, origin=context.instance_id, lead=self._lead)
        self._delivery: Delivery | None = None
        self._runner: JobRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._waking = asyncio.Lock()
        self._follow_again = asyncio.Event()
        self._serves = False

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Begin to log and to deliver, if anything is subscribed to or planned. Raises: Unavailable, psycopg.Error."""
        self._serves = True
        async with self._database.session() as connection:
            is_needed = await subscriptions.are_there(connection)
        if is_needed:
            await self._wake()

    async def stop(self) -> None:
        """Log what has happened, note how far everybody is, and leave in order. Workers are drained before."""
        self._serves = False
        async with self._waking:
            if not self._tasks:
                return
            if await self._end_in_order():
                await self._seat.leave()
            tasks, self._tasks = self._tasks, []
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._intake.close()

    # ------------------------------------------------------------ extensions come and go

    async def attach(self, worker: Worker) -> None:
        """Deliver to this worker from now on, in the place of another one of the extension; its subscriptions and
        schedules are those of its manifest when this returns. Raises: Unavailable, psycopg.Error.
        """
        installed = worker.installed
        async with self._database.session() as connection, connection.transaction():
            await subscriptions.keep(connection, installed)
            await jobs.plan(connection, installed, self._context.clock.time_s())
        self._workers[installed.id] = worker
        if installed.manifest.events or installed.manifest.jobs:
            await self._wake()
        if self._tasks:
            await self._follow()
            self._look()

    async def detach(self, extension_id: str) -> None:
        """Deliver nothing more to it; what comes waits for it. What is under way may end."""
        self._workers.pop(extension_id, None)
        if self._delivery is not None:
            self._delivery.let_go(extension_id)
        self._look()

    async def forget(self, connection: Connection, extension_id: str) -> None:
        """Remove all that is kept of it, inside of the caller's transaction."""
        self._workers.pop(extension_id, None)
        await subscriptions.forget(connection, extension_id)
        self._look()

    async def unfollow(self, connection: Connection, extension_id: str) -> None:
        """Log nothing for it any more and remove what waits; its values stay. Inside of the caller's transaction."""
        self._workers.pop(extension_id, None)
        await subscriptions.unfollow(connection, extension_id)
        self._look()

    async def standing(self, extension_id: str, grants: Mapping[str, Grant]) -> Standing:
        """What waits for it, what it could not take, and what of `grants` is used up. Raises: Unavailable."""
        time_s = self._context.clock.time_s()
        async with self._database.session() as connection:
            backlog, dead_count = await subscriptions.waiting(connection, extension_id)
            waits_there = await waits.read_waits(connection, extension_id, time_s)
            limits = await read_limits(connection, self._gatekeeper, extension_id, grants, time_s)
        return Standing(backlog, dead_count, waits_there, limits)

    # ------------------------------------------------------------ what operators ask

    async def dead_letters(self, extension_id: str) -> DeadLetters:
        """What it could not take, oldest first, and what of it waits for a limit. Raises: Unavailable."""
        async with self._database.session() as connection:
            return DeadLetters(
                await dead.read_dead(connection, extension_id),
                await waits.read_waits(connection, extension_id, self._context.clock.time_s()),
            )

    async def retry_dead(self, extension_id: str) -> None:
        """Have all of that tried again. Raises: Unavailable."""
        async with self._database.session() as connection, connection.transaction():
            await dead.retry_dead(connection, extension_id, self._context.clock.time_s())
        self._look()

    async def replay(self, extension_id: str, seconds: float, name: str | None = None) -> None:
        """Have the events of the last so many seconds told again, to one subscription or to all.

        Raises: SubscriptionUnknown, Unavailable.
        """
        async with self._database.session() as connection, connection.transaction():
            await subscriptions.rewind(connection, extension_id, name, seconds)
        self._look()

    # ------------------------------------------------------------ what extensions ask

    def methods(self) -> Sequence[ApiMethod]:
        """`events.*`, `jobs.*` and `kv.*`."""
        return EventMethods(self, self._database, self._context.clock, self._gatekeeper).methods()

    async def publish(self, entry: Entry) -> None:
        """Log an event of an extension; durable when this returns. Raises: EventsBusy, Unavailable."""
        await self._wake()
        await self._intake.publish(entry)

    def depth(self, extension_id: str) -> int:
        """How many published events led to what the extension is working on."""
        return self._delivery.depth(extension_id) if self._delivery is not None else 0

    async def set_active(self, extension_id: str, name: str, *, active: bool) -> None:
        """Pause a subscription, or let it go on. Raises: SubscriptionUnknown, Unavailable."""
        async with self._database.session() as connection:
            await subscriptions.set_active(connection, extension_id, name, active=active)
        self._look()

    async def enqueue(self, installed: Installed, name: str, arguments: bytes, delay_s: float) -> None:
        """Note a job durably. Raises: JobRefused, Unavailable."""
        async with self._database.session() as connection:
            due_s = self._context.clock.time_s() + delay_s
            await jobs.enqueue(connection, installed, name, arguments, due_s)
        if self._runner is not None:
            self._runner.look_again()

    # ------------------------------------------------------------ inside

    async def _wake(self) -> None:
        """The first need of the log on this node."""
        async with self._waking:
            if self._tasks or not self._serves:
                return
            self._spawn(self._intake.run(), "events.intake")
            self._spawn(self._seat.run(), "events.seat")
            try:
                async with asyncio.timeout(START_PATIENCE_S):
                    await self._seat.taken.wait()
            except TimeoutError:
                raise Unavailable("the event log") from None
            if self._tables is not None:
                self._spawn(self._tables.run(), "events.tables")
            await self._follow()
            self._spawn(self._keep_following(), "events.follow")

    async def _end_in_order(self) -> bool:
        """Whether everything that happened is logged."""
        self._listening.stop()
        try:
            async with asyncio.timeout(STOP_PATIENCE_S):
                await self._intake.flush()
                if self._delivery is not None:
                    await self._delivery.saved()
        except (TimeoutError, psycopg.Error, MagError) as error:
            self._context.log.warning("the event log did not end in order", error=str(error)[:300])
            return False
        return True

    async def _lead(self, desk: Desk) -> None:
        """What the node does that holds the lease."""
        context, holds = self._context, self._gatekeeper.holds
        waiting = waits.Waits(self._gatekeeper, context.clock)
        await waiting.clear(desk)
        delivery = Delivery(
            desk, self._workers, self._limits, holds, waiting, context.clock, context.bus, context.metrics
        )
        runner = JobRunner(desk, self._workers, holds, waiting, context.clock, skipped=self._skipped)
        self._delivery, self._runner = delivery, runner
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(delivery.run(), name="events.delivery")
                group.create_task(runner.run(), name="events.jobs")
        finally:
            self._delivery = self._runner = None

    def _skipped(self, run: JobRow) -> None:
        """On record among the calls of extensions, as one that was not made."""
        self._gatekeeper.tally(run.extension_id, "job", run.name).note("skipped", 0.0)
        self._context.log.info("extension.run_skipped", extension=run.extension_id, job=run.name, run=run.public_id)

    def _limits(self) -> Limits:
        config = self._config()
        return Limits(config.event_backlog, config.event_retention_s)

    async def _keep_following(self) -> None:
        """What extensions of other nodes subscribe to is logged on this one, too."""
        while True:
            await wait(self._follow_again, FOLLOW_EVERY_S)
            self._follow_again.clear()
            try:
                await self._follow()
            except (psycopg.Error, MagError) as error:
                self._context.log.warning("subscriptions could not be read", error=str(error).strip()[:300])

    async def _follow(self) -> None:
        async with self._database.session() as connection:
            found = await subscriptions.followed(connection)
        self._listening.follow(found)
        if self._tables is None:
            return
        names = {table for one in found if one.topic == CHANGE_TOPIC for table in one.tables}
        self._tables.follow(TableName(*name.split(".", 1)) for name in names if "." in name)
        try:
            async with asyncio.timeout(SETTLE_PATIENCE_S):
                await self._tables.settled()
        except TimeoutError:
            self._context.log.warning("tables are not in the change stream yet", tables=sorted(names)[:20])

    def _look(self) -> None:
        self._follow_again.set()
        if self._delivery is not None:
            self._delivery.look_again()
        if self._runner is not None:
            self._runner.look_again()

    def _on_logged(self) -> None:
        if self._delivery is not None:
            self._delivery.appended()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(self._context.spawn(work, name=name))
