"""One handler on one pattern, and how events reach it: at once for a function, through a bounded queue for a coroutine.

Invariant of a queued subscription: `accepted == delivered + failed + timed_out + dropped + waiting + running`, and
every event offered is either accepted or shed. `dropped` were accepted and then displaced or cancelled.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Protocol

from magmobo.contracts.bus import AsyncHandler, Handler
from magmobo.contracts.events import Envelope

EVENTS_PER_TURN = 256  # after so many without a pause, a pump lets the rest of the loop run


class Overflow(Enum):
    """What a full queue does. `BLOCK_OUTSIDE_HANDLERS`: `publish` waits for room, `emit` sheds the new event."""

    SHED_NEW = "shed_new"
    SHED_OLDEST = "shed_oldest"
    BLOCK_OUTSIDE_HANDLERS = "block_outside_handlers"


class Post(Protocol):
    """What a subscription asks of its bus."""

    queue_limit: int

    def handler_failed(self, subscription: BaseSubscription, envelope: Envelope[Any], error: BaseException) -> None: ...
    def event_shed(self, subscription: QueuedSubscription, topic: str) -> None: ...
    def overflow(self, topic: str) -> Overflow: ...
    def pump_started(self, subscription: QueuedSubscription) -> None: ...
    def pump_ended(self, subscription: QueuedSubscription) -> None: ...
    def forget(self, subscription: BaseSubscription) -> None: ...


def ignore(envelope: Envelope[Any]) -> None:
    """What a cancelled subscription does with an event that was on its way."""


class BaseSubscription:
    """What both kinds share. `deliver` is what the bus calls; cancelling replaces it, so a dispatch under way stops
    too.
    """

    __slots__ = ("deliver", "failed", "handler", "order", "owner", "pattern", "post", "words")

    def __init__(
        self, post: Post, owner: str, pattern: str, words: tuple[str, ...], order: tuple[int, int], handler: Any
    ) -> None:
        self.post, self.owner, self.pattern, self.words, self.order = post, owner, pattern, words, order
        self.handler = handler
        self.failed = 0
        self.deliver: Callable[[Envelope[Any]], None] = ignore

    @property
    def active(self) -> bool:
        """Whether events still reach the handler."""
        return self.deliver is not ignore

    @property
    def handler_name(self) -> str:
        """The handler as a log line names it."""
        return getattr(self.handler, "__qualname__", repr(self.handler))

    def cancel(self) -> None:
        """Deliver nothing more; calling it twice is fine."""
        if self.active:
            self.deliver = ignore
            self.post.forget(self)


class SyncSubscription(BaseSubscription):
    """Calls a plain function inside `emit`."""

    __slots__ = ()

    def __init__(
        self, post: Post, owner: str, pattern: str, words: tuple[str, ...], order: tuple[int, int], handler: Handler
    ) -> None:
        super().__init__(post, owner, pattern, words, order, handler)
        self.deliver = handler


class QueuedSubscription(BaseSubscription):
    """Awaits a coroutine function, one event after the other, in a task that exists only while events wait."""

    __slots__ = (
        "_awaited",
        "_overrun",
        "accepted",
        "delivered",
        "dropped",
        "queue",
        "running_since_s",
        "shed",
        "task",
        "timed_out",
    )

    def __init__(
        self,
        post: Post,
        owner: str,
        pattern: str,
        words: tuple[str, ...],
        order: tuple[int, int],
        handler: AsyncHandler,
    ) -> None:
        super().__init__(post, owner, pattern, words, order, handler)
        self.deliver = self._offer
        self.queue: deque[Envelope[Any]] = deque()
        self.task: asyncio.Task[None] | None = None
        self.running_since_s = 0.0
        self.accepted = self.delivered = self.timed_out = self.shed = self.dropped = 0
        self._overrun = False
        self._awaited: dict[tuple[str, int], list[asyncio.Future[None]]] = {}

    def _offer(self, envelope: Envelope[Any]) -> None:
        was_full = self.is_full
        if was_full and self.post.overflow(envelope.topic) is not Overflow.SHED_OLDEST:
            self.shed += 1
            self._settle(envelope)
            self.post.event_shed(self, envelope.topic)
            return
        if was_full:
            self.dropped += 1
            self._settle(self.queue.popleft())
        self.accepted += 1
        self.queue.append(envelope)
        if self.task is None or self.task.done():
            # An empty context: what handlers see must not depend on who happened to emit first.
            self.task = asyncio.get_running_loop().create_task(
                self._pump(), name=f"bus:{self.owner}:{self.pattern}", context=contextvars.Context()
            )
        if was_full:
            self.post.event_shed(self, envelope.topic)

    @property
    def is_full(self) -> bool:
        """Whether the next event would overflow."""
        return len(self.queue) >= self.post.queue_limit

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

    async def _pump(self) -> None:
        self.post.pump_started(self)
        handled = 0
        try:
            while self.queue:
                await self._handle(self.queue.popleft())
                handled += 1
                if handled % EVENTS_PER_TURN == 0:
                    await asyncio.sleep(0)
        finally:
            self.task = None
            self.post.pump_ended(self)

    async def _handle(self, envelope: Envelope[Any]) -> None:
        self.running_since_s = asyncio.get_running_loop().time()
        try:
            await self.handler(envelope)
        except asyncio.CancelledError:
            if not self._overrun:
                self.dropped += 1
                raise
            self._end_overrun(envelope)
        except Exception as error:
            if self._overrun:
                self._end_overrun(envelope)
            else:
                self.failed += 1
                self.post.handler_failed(self, envelope, error)
        else:
            if self._overrun:  # it caught the cancellation and returned late
                self._end_overrun(envelope)
            else:
                self.delivered += 1
        finally:
            self._settle(envelope)

    def overran(self) -> None:
        """Called by the watchdog: end the handler that runs now; the next event follows."""
        if self.task is not None:
            self._overrun = True
            self.task.cancel()

    def _end_overrun(self, envelope: Envelope[Any]) -> None:
        self._overrun = False
        if (task := asyncio.current_task()) is not None:
            task.uncancel()
        self.timed_out += 1
        self.post.handler_failed(self, envelope, TimeoutError("the handler passed its deadline"))

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
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()


def _finish(futures: Iterable[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():  # its waiter may have been cancelled
            future.set_result(None)
