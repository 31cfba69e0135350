"""One handler on one pattern, and how events reach it: at once for a function, through a bounded queue for a coroutine.

Invariant of a queued subscription: `accepted == delivered + failed + timed_out + dropped + waiting + running`, and
every event offered is either accepted or shed. `dropped` were accepted and then displaced or cancelled.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from types import CellType
from typing import Any, Protocol

from msgspec import Struct

from magmobo.contracts.bus import AsyncHandler, Handler
from magmobo.contracts.events import Envelope, EventBusBackpressure
from magmobo.kernel.bus.policy import Overflow
from magmobo.kernel.bus.trace import Cause, cause_here

EVENTS_PER_TURN = 256  # after so many without a pause, a pump lets the rest of the loop run
_SAMPLE = 64  # one event in so many is timed


class Post(Protocol):
    """What a subscription asks of its bus."""

    queue_limit: int
    at_work: set[QueuedSubscription]

    def handler_failed(self, subscription: BaseSubscription, envelope: Envelope[Any], error: BaseException) -> None: ...
    def event_shed(self, subscription: QueuedSubscription, topic: str) -> None: ...
    def overflow(self, topic: str) -> Overflow: ...
    def handler_began(self, task: asyncio.Task[Any], subscription: QueuedSubscription) -> None: ...
    def handler_ended(self, task: asyncio.Task[Any]) -> None: ...
    def handler_took(self, topic: str, duration_s: float) -> None: ...
    def forget(self, subscription: BaseSubscription) -> None: ...


class Laps(Protocol):
    """Counts the events of a topic that has one async handler only."""

    @property
    def laps(self) -> int: ...


class Place(Struct, frozen=True):
    """Where a subscription stands: whose it is, what it listens to, and when its turn comes."""

    owner: str
    pattern: str
    words: tuple[str, ...]
    order: tuple[int, int]


def ignore(envelope: Envelope[Any]) -> None:
    """What a cancelled subscription does with an event that was on its way."""


class BaseSubscription:
    """What both kinds share. The bus calls `deliver`, or what is in `cell`, which is the same; cancelling replaces it,
    so a dispatch under way stops too.
    """

    __slots__ = ("cell", "deliver", "failed", "handler", "order", "owner", "pattern", "post", "words")

    def __init__(self, post: Post, place: Place, handler: Any, deliver: Callable[[Envelope[Any]], None]) -> None:
        self.post, self.handler = post, handler
        self.owner, self.pattern, self.words, self.order = place.owner, place.pattern, place.words, place.order
        self.failed = 0
        self.deliver = deliver
        self.cell = CellType(deliver)

    @property
    def active(self) -> bool:
        """Whether events still reach the handler."""
        return self.deliver is not ignore

    @property
    def handler_name(self) -> str:
        """The handler as a log line names it."""
        return getattr(self.handler, "__qualname__", repr(self.handler))

    def blame(self, envelope: Envelope[Any], error: BaseException) -> None:
        """One call failed: count and report it."""
        self.failed += 1
        self.post.handler_failed(self, envelope, error)

    def cancel(self) -> None:
        """Deliver nothing more; calling it twice is fine."""
        if self.active:
            self.deliver = self.cell.cell_contents = ignore
            self.post.forget(self)


class SyncSubscription(BaseSubscription):
    """Calls a plain function inside `emit`."""

    __slots__ = ()

    def __init__(self, post: Post, place: Place, handler: Handler) -> None:
        super().__init__(post, place, handler, handler)


class QueuedSubscription(BaseSubscription):
    """Awaits a coroutine function, one event after the other, in a task that exists only while events wait.

    `bursts`: events by topic that were lost since the queue was empty last. `idle`: nothing waits or runs. `begun`,
    and what `rounds` count: events that were handled whole where they were published.
    """

    __slots__ = (
        "_awaited",
        "_finished",
        "_interruptions",
        "_overrun",
        "_queued",
        "_resting",
        "begun",
        "bursts",
        "dropped",
        "idle",
        "queue",
        "rounds",
        "running_since_s",
        "shed",
        "task",
        "timed_out",
    )

    def __init__(self, post: Post, place: Place, handler: AsyncHandler) -> None:
        super().__init__(post, place, handler, self.offer)
        self.queue: deque[Envelope[Any]] = deque()
        self.task: asyncio.Task[Any] | None = None
        self.running_since_s = 0.0
        self.timed_out = self.shed = self.dropped = 0
        self.bursts: dict[str, int] = {}
        self._queued = self._finished = self.begun = 0
        self.rounds: list[Laps] = []
        self.idle = True
        self._overrun, self._interruptions = False, 0
        self._awaited: dict[tuple[str, int], list[asyncio.Future[None]]] = {}
        self._resting: list[asyncio.Future[None]] = []

    # ------------------------------------------------------------ the queue

    def offer(self, envelope: Envelope[Any]) -> None:
        """Take one event in, or shed one as the policy of its topic says."""
        queue = self.queue
        was_full = len(queue) >= self.post.queue_limit
        if was_full and not self._make_room(envelope):
            self.shed += 1
            self._settle(envelope)
            self.post.event_shed(self, envelope.topic)
            return
        self._queued += 1
        queue.append(envelope)
        if self.idle:
            self._start_pump()
        if was_full and envelope.topic != EventBusBackpressure.topic:
            self.post.event_shed(self, envelope.topic)

    def _make_room(self, envelope: Envelope[Any]) -> bool:
        if envelope.topic == EventBusBackpressure.topic:
            # Never shed: it may exceed the limit, by one event for each topic that sheds, the newest saying it all.
            older = position_of_pressure(self.queue, envelope)
            if older is not None:
                self._displace(older)
            return True
        if self.post.overflow(envelope.topic) is not Overflow.SHED_OLDEST:
            return False
        topics = (waiting.topic for waiting in self.queue)
        oldest = next((i for i, topic in enumerate(topics) if topic != EventBusBackpressure.topic), None)
        if oldest is None:
            return False
        self._displace(oldest)
        return True

    def _displace(self, position: int) -> None:
        displaced = self.queue[position]
        del self.queue[position]
        self.dropped += 1
        self._settle(displaced)

    @property
    def is_full(self) -> bool:
        """Whether the next event would overflow."""
        return len(self.queue) >= self.post.queue_limit

    @property
    def accepted(self) -> int:
        """Events taken in: into the queue, or handled at once."""
        return self._queued + self._handled_at_once

    @property
    def delivered(self) -> int:
        """Events that the handler got and ended well on."""
        return self._finished + self._handled_at_once

    @property
    def _handled_at_once(self) -> int:
        return self.begun + sum(round_.laps for round_ in self.rounds)

    @property
    def lost(self) -> int:
        """Events that the handler never saw because the queue was full."""
        return self.shed + self.dropped

    def completion(self, topic: str, seq: int) -> asyncio.Future[None]:
        """Done once that event, waiting or about to be emitted, was handled, shed or dropped."""
        future = asyncio.get_running_loop().create_future()
        self._awaited.setdefault((topic, seq), []).append(future)
        return future

    def _settle(self, envelope: Envelope[Any]) -> None:
        if self._awaited:
            _finish(self._awaited.pop((envelope.topic, envelope.seq), ()))

    # ------------------------------------------------------------ running handlers

    def _start_pump(self) -> None:
        # An empty context: what handlers see must not depend on who happened to emit first.
        context = contextvars.Context()
        loop = asyncio.get_running_loop()
        self.task = loop.create_task(self._pump(), name=f"bus:{self.owner}:{self.pattern}", context=context)
        self._begin_work()
        self.task.add_done_callback(self._pump_ended)

    def _begin_work(self) -> None:
        self.idle = False
        self.post.at_work.add(self)

    async def _pump(self) -> None:
        if self.task is not asyncio.current_task():
            return  # see `suspend`: who runs the handler that waits goes on with the queue
        handled = 0
        while self.queue:
            envelope = self.queue.popleft()
            cause_here.set(envelope)
            await self._handle(envelope, None)
            handled += 1
            if handled % EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)
        self.task = None
        self._rest()  # here, so that whoever was waiting for the last event finds the subscription idle

    def _pump_ended(self, task: asyncio.Task[None]) -> None:
        if self.task is task:  # it did not come to its end
            self.task = None
            self._rest(restart=False)

    def _rest(self, *, restart: bool = True) -> None:
        if self.queue and restart:
            self._start_pump()
            return
        self.dropped += len(self.queue)  # its task was cancelled, by nobody of us: the loop ends
        self.queue.clear()
        self.idle = True
        self.post.at_work.discard(self)
        self.bursts.clear()
        _finish(self._resting)
        self._resting.clear()

    def suspend(self) -> None:
        """The handler, called where its event is published, waits: `finish` must follow before the loop goes on."""
        self._queued += 1
        self._overrun, self._interruptions = False, 0
        self.task = asyncio.current_task()  # no longer the pump that the handler may have made by emitting to itself
        self._begin_work()

    def failed_at_once(self, envelope: Envelope[Any], error: BaseException) -> None:
        """The handler, called where its event is published, raised before it waited for anything."""
        self._queued += 1
        self.blame(envelope, error)

    async def finish(self, envelope: Envelope[Any], rest: Awaitable[None], cause: Cause) -> None:
        """Await the rest of a suspended handler, and then let what was queued meanwhile be handled.

        `cause`: of what the handler emits from here on.
        """
        token = cause_here.set(cause)
        try:
            await self._handle(envelope, rest)
        finally:
            cause_here.reset(token)
            self.task = None
            self._rest()

    async def _handle(self, envelope: Envelope[Any], rest: Awaitable[None] | None) -> None:
        loop, task = asyncio.get_running_loop(), self.task
        assert task is not None  # noqa: S101 - set by both callers
        asked_before = task.cancelling()
        self.running_since_s = loop.time()
        self.post.handler_began(task, self)
        error: BaseException | None = None
        try:
            await (self.handler(envelope) if rest is None else rest)
        except (Exception, asyncio.CancelledError) as caught:
            error = caught
        finally:
            self.post.handler_ended(task)
            self._settle(envelope)
        for _ in range(self._interruptions):
            task.uncancel()
        cancelled = task.cancelling() > asked_before
        self._account(envelope, error, cancelled=cancelled)
        if envelope.seq % _SAMPLE == 1:
            self.post.handler_took(envelope.topic, loop.time() - self.running_since_s)
        if cancelled:
            raise asyncio.CancelledError

    def _account(self, envelope: Envelope[Any], error: BaseException | None, *, cancelled: bool) -> None:
        if self._overrun:  # also when it caught the cancellation and returned late
            self.timed_out += 1
            self.post.handler_failed(self, envelope, TimeoutError("the handler passed its deadline"))
        elif error is None:
            self._finished += 1
        elif cancelled or not self.active:
            self.dropped += 1
        else:  # a CancelledError here is the handler's own: it awaited something that was cancelled
            self.blame(envelope, error)
        self._overrun, self._interruptions = False, 0

    def overran(self) -> None:
        """Called by the watchdog, again and again if need be: end the handler that runs; the next event follows."""
        self._overrun = True
        self._interrupt()

    def _interrupt(self) -> None:
        if self.task is not None:
            self._interruptions += 1
            self.task.cancel()

    # ------------------------------------------------------------ ending

    def cancel(self) -> None:
        """Deliver nothing more, forget what waits, and end a handler that runs, unless it is the one who calls."""
        if not self.active:
            return
        super().cancel()
        self.dropped += len(self.queue)
        self.queue.clear()
        for futures in self._awaited.values():
            _finish(futures)
        self._awaited.clear()
        if self.task is not asyncio.current_task():
            self._interrupt()

    def rested(self) -> asyncio.Future[None]:
        """Done once nothing waits or runs."""
        future = asyncio.get_running_loop().create_future()
        self._resting.append(future)
        if self.idle:
            future.set_result(None)
        return future


def position_of_pressure(queue: Iterable[Envelope[Any]], newer: Envelope[Any]) -> int | None:
    """Where in a queue an announcement of shedding on the same topic waits that `newer` makes superfluous."""
    shed_topic = newer.data.shed_topic
    for position, envelope in enumerate(queue):
        if envelope.topic == EventBusBackpressure.topic and envelope.data.shed_topic == shed_topic:
            return position
    return None


def _finish(futures: Iterable[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():  # its waiter may have been cancelled
            future.set_result(None)
