"""What goes into the event log: events of the bus, changes of tables, events that extensions publish; in one queue.

The queue is bounded and written in batches, each as soon as the one before is durable. Nothing that comes is ever
waited for: when the queue is full, events of the bus are counted and a gap says so, changes are read again from the
stream's history later, and who publishes is told to come again. Invariant: what was offered is written in that order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import psycopg
from msgspec import Struct

from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import MagError
from magmobo.contracts.events import DatabaseChange, Envelope
from magmobo.contracts.planes import Database
from magmobo.extensions.events import bodies, log
from magmobo.extensions.events.errors import EventsBusy
from magmobo.extensions.events.log import Entry, Stand

MAX_QUEUE = 10_000
MAX_PUBLISHED_BYTES = 16 * 1_048_576
MAX_BATCH, MAX_BATCH_BYTES = 500, 4 * 1_048_576
_YIELD_EVERY = 50
_PAUSE_S, _PAUSE_LIMIT_S = 0.1, 5.0


class Logger(Protocol):
    """What is logged here needs no more."""

    def warning(self, event: str, **fields: Any) -> None: ...


class Offer(Struct, gc=False):
    """One thing in the queue: `make` says it as an entry, None for none; `stand`: how far the change stream was taken
    with it; `done`: somebody waits until it is durable.
    """

    make: Callable[[], Entry | None]
    time_s: float
    stand: Stand | None = None
    done: asyncio.Future[None] | None = None


class Intake:
    """The queue and its one writer. `run` writes until it is cancelled; `on_logged` is called after each batch."""

    def __init__(self, database: Database, clock: Clock, logger: Logger, on_logged: Callable[[], None]) -> None:
        self._database, self._clock, self._logger, self._on_logged = database, clock, logger, on_logged
        self._queue: deque[Offer] = deque()
        self._wake = asyncio.Event()
        self._writing: Sequence[Offer] = ()
        self._missed, self._missed_since_s, self._gaps = 0, 0.0, 0
        self._published_bytes = 0
        self.source = ""
        """Names this life of the node in ids."""
        self.on_stand: Callable[[Stand], None] = lambda _: None
        """Told how far the change stream is durable."""

    @property
    def room(self) -> int:
        """How much more may be offered."""
        return MAX_QUEUE - len(self._queue)

    @property
    def complete_until_s(self) -> float:
        """Every event of the bus before this time is durable."""
        waiting = self._writing or self._queue
        first_s = waiting[0].time_s if waiting else self._clock.time_s()
        return min(first_s, self._missed_since_s) if self._missed else first_s

    # ------------------------------------------------------------ what comes

    def offer_envelope(self, envelope: Envelope[Any]) -> None:
        """An event of the bus."""
        if self.room <= 0:
            if not self._missed:
                self._missed_since_s = envelope.time_s
            self._missed += 1
            return
        if self._missed:
            self._offer_missed()
        source = self.source
        self._put(Offer(lambda: bodies.of_envelope(envelope, source), envelope.time_s))

    def offer_change(self, change: DatabaseChange, epoch: str) -> None:
        """A change of a table; the caller looked at `room`."""
        now_s = self._clock.time_s()
        stand = Stand(epoch, change.position)
        self._put(Offer(lambda: bodies.of_change(change, epoch, now_s), now_s, stand))

    def offer_stand(self, stand: Stand) -> None:
        """The change stream was taken up to here, and nothing came."""
        self._put(Offer(_nothing, self._clock.time_s(), stand))

    def offer_gap(self, gap: Entry, stand: Stand | None = None) -> None:
        """A gap that many are told of."""
        self._put(Offer(lambda: gap, self._clock.time_s(), stand))

    async def publish(self, entry: Entry) -> None:
        """An event of an extension; it is durable when this returns. Raises: EventsBusy."""
        size_bytes = len(entry.data)
        if self.room <= 0 or self._published_bytes + size_bytes > MAX_PUBLISHED_BYTES:
            raise EventsBusy
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._published_bytes += size_bytes
        try:
            self._put(Offer(lambda: entry, entry.time_s, done=done))
            await done
        finally:
            self._published_bytes -= size_bytes

    async def flush(self) -> None:
        """Return when everything that was offered before is durable."""
        if not self._queue and not self._writing:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put(Offer(_nothing, self._clock.time_s(), done=done))
        await done

    # ------------------------------------------------------------ what is written

    async def run(self) -> None:
        """Write what comes, for ever. A database that is away is waited for; what it does not take is left out."""
        while True:
            while not self._queue:
                self._wake.clear()
                await self._wake.wait()
            await self._write_batch()

    def close(self) -> None:
        """Nobody writes any more: let those who wait know."""
        for one in [*self._writing, *self._queue]:
            if one.done is not None and not one.done.done():
                one.done.set_exception(EventsBusy())
        self._queue.clear()
        self._writing = ()

    async def _write_batch(self) -> None:
        entries, stand = await self._take_batch()
        parts: deque[tuple[Sequence[Entry], Stand | None]] = deque([(entries, stand)])
        pause_s = _PAUSE_S
        while parts:
            part, up_to = parts[0]
            try:
                async with self._database.session() as connection:
                    await log.append(connection, part, up_to)
                parts.popleft()
            except psycopg.DataError as error:  # one of them is what the database does not take: leave out that one
                parts.popleft()
                half = len(part) // 2
                if half:
                    parts.extendleft([(part[half:], up_to), (part[:half], None)])
                else:
                    self._logger.warning("an event could not be logged", error=str(error).strip()[:300])
                    parts.extendleft([((), up_to)] if up_to is not None else [])
            except (psycopg.Error, MagError) as error:
                self._logger.warning("the event log waits for the database", error=str(error).strip()[:300])
                await self._clock.sleep(pause_s)
                pause_s = min(_PAUSE_LIMIT_S, pause_s * 2)
        self._finish(stand)

    async def _take_batch(self) -> tuple[Sequence[Entry], Stand | None]:
        """Entries of as many offers as a batch holds; they count as being written from now on."""
        taken: list[Offer] = []
        entries: list[Entry] = []
        stand: Stand | None = None
        size_bytes = 0
        self._writing = taken
        while self._queue and len(taken) < MAX_BATCH and size_bytes < MAX_BATCH_BYTES:
            offer = self._queue.popleft()
            taken.append(offer)
            stand = offer.stand or stand
            entry = offer.make()
            if entry is not None:
                entries.append(entry)
                size_bytes += len(entry.data)
            if len(taken) % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        return entries, stand

    def _finish(self, stand: Stand | None) -> None:
        written, self._writing = self._writing, ()
        for one in written:
            if one.done is not None and not one.done.done():
                one.done.set_result(None)
        if stand is not None:
            self.on_stand(stand)
        if self._missed and self.room > MAX_QUEUE // 2:
            self._offer_missed()
        self._on_logged()

    def _offer_missed(self) -> None:
        count, self._missed = self._missed, 0
        self._gaps += 1
        now_s = self._clock.time_s()
        facts = bodies.gap_facts("overload", self._missed_since_s, now_s, count=count)
        self.offer_gap(bodies.of_gap(f"{self.source}/gap/{self._gaps}", bodies.GAP_OF_NODE, facts, now_s))
        self._logger.warning("events of the node were not logged", count=count)

    def _put(self, offer: Offer) -> None:
        self._queue.append(offer)
        self._wake.set()


def _nothing() -> None:
    return None
