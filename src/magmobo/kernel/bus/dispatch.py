"""One topic: who receives its events, its numbers, its accounts.

What `emit` calls is decided here whenever something changes, so that emitting itself decides nothing. Several handlers
become one function in which each has a line of its own: the interpreter specialises a call for the one function it
meets at that place, which it cannot do for a loop over handlers (ten handlers: 430 instead of 510 ns). Handlers sit in
cells whose content cancelling replaces, so a dispatch under way stops too.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Sequence
from operator import length_hint
from types import CellType, CodeType, FunctionType
from typing import Any

from magmobo.contracts.events import Envelope
from magmobo.kernel.bus.history import History
from magmobo.kernel.bus.policy import Overflow
from magmobo.kernel.bus.rounds import Host, Round
from magmobo.kernel.bus.subscription import BaseSubscription, QueuedSubscription, ignore

BLOCK, FLOOD_BLOCK = 64, 1024
"""Sequence numbers are dealt in blocks: what need not happen with every event happens with the first of a block. Blocks
end at multiples of `BLOCK`.
"""
FLOOD_PER_S = 10_000.0
"""A topic above this rate floods: its blocks are longer and only the first event of each is remembered, because
remembering every one would double what an event costs, and nobody could read them.
"""
_UNROLLED = 16  # handlers in one function; more become several functions

Timing = Callable[[str, float], None]
"""Told about a sampled call of a handler: topic, seconds."""
Deliver = Callable[[Envelope[Any]], None]


class Receiver:
    """Who gets the events of a topic, as of now.

    `deliver` is the quick way: right for an event that goes out at once. Where it raises, `blame` is told. `hand_over`
    may be called at any later time and never raises.
    """

    __slots__ = ("_remember", "_subscriptions", "deliver")

    def __init__(self, subscriptions: tuple[BaseSubscription, ...], remember: Deliver | None) -> None:
        self._subscriptions, self._remember = subscriptions, remember
        handlers = _quick(subscriptions)
        self.deliver = handlers if remember is None else _remembering(remember, handlers)

    @property
    def reaches_anybody(self) -> bool:
        """Whether there are handlers, and not the history alone."""
        return bool(self._subscriptions)

    def hand_over(self, envelope: Envelope[Any]) -> None:
        """Remember the event and give it to everybody who did not cancel since."""
        if self._remember is not None:
            self._remember(envelope)
        for subscription in self._subscriptions:
            try:
                subscription.deliver(envelope)
            except Exception as error:
                subscription.blame(envelope, error)

    def blame(self, envelope: Envelope[Any], error: Exception) -> None:
        """`deliver` raised: it was the only handler, the errors of several are caught beside their calls."""
        self._subscriptions[0].blame(envelope, error)


def _remembering(remember: Deliver, handlers: Deliver) -> Deliver:
    def deliver(envelope: Envelope[Any]) -> None:
        remember(envelope)
        handlers(envelope)

    return deliver


def _quick(subscriptions: tuple[BaseSubscription, ...]) -> Deliver:
    if len(subscriptions) <= 1:
        return subscriptions[0].deliver if subscriptions else ignore
    parts = [subscriptions[first : first + _UNROLLED] for first in range(0, len(subscriptions), _UNROLLED)]
    functions = tuple(_unrolled(part) for part in parts)
    if len(functions) == 1:
        return functions[0]

    def deliver(envelope: Envelope[Any]) -> None:
        for function in functions:
            function(envelope)

    return deliver


def _unrolled(subscriptions: Sequence[BaseSubscription]) -> Deliver:
    def blame(position: int, envelope: Envelope[Any], error: Exception) -> None:
        subscriptions[position].blame(envelope, error)

    # A copy of the code per topic: what the interpreter learns about its calls is kept in the code object.
    code = _code(len(subscriptions)).replace()
    cells = {"blame": CellType(blame)} | {f"handler_{i}": sub.cell for i, sub in enumerate(subscriptions)}
    return FunctionType(code, {"Exception": Exception}, closure=tuple(cells[name] for name in code.co_freevars))


@functools.cache
def _code(count: int) -> CodeType:
    """Code that calls `count` handlers one after the other, whatever each raises."""
    names = ", ".join(f"handler_{i}" for i in range(count))
    calls = "".join(
        f"  try: handler_{i}(envelope)\n  except Exception as error: blame({i}, envelope, error)\n"
        for i in range(count)
    )
    scope: dict[str, Any] = {}
    exec(f"def make(blame, {names}):\n def deliver(envelope):\n{calls} return deliver", scope)  # noqa: S102
    function: FunctionType = scope["make"](*range(count + 1))
    return function.__code__


class Sampled(Receiver):
    """Remembers one event whatever happens, and times each of its handlers that is called at once."""

    __slots__ = ("_took",)

    def __init__(self, subscriptions: tuple[BaseSubscription, ...], remember: Deliver | None, took: Timing) -> None:
        self._subscriptions, self._remember, self._took = subscriptions, remember, took
        self.deliver = self.hand_over

    def hand_over(self, envelope: Envelope[Any]) -> None:
        if self._remember is not None:
            self._remember(envelope)
        for subscription in self._subscriptions:
            began_s = time.perf_counter()
            try:
                subscription.deliver(envelope)
            except Exception as error:
                subscription.blame(envelope, error)
            if not isinstance(subscription, QueuedSubscription):
                self._took(envelope.topic, time.perf_counter() - began_s)


class Topic:
    """Everything the bus keeps about one topic. `pending`: events emitted on it from inside its own handlers."""

    __slots__ = (
        "_block",
        "_block_began_s",
        "_history",
        "_host",
        "_last",
        "at_once",
        "busy",
        "errors",
        "flooding",
        "has_pending",
        "name",
        "overflow",
        "pending",
        "pending_shed",
        "queued",
        "receiver",
        "remember",
        "round",
        "shed",
        "subscriptions",
        "tickets",
    )

    def __init__(self, name: str, overflow: Overflow, history: History, host: Host) -> None:
        self.name, self.overflow, self._history, self._host = name, overflow, history, host
        self.errors = self.shed = self.pending_shed = 0
        self.busy = self.flooding = self.has_pending = False
        self.pending: deque[tuple[Envelope[Any], Receiver]] = deque()
        self.remember = self._memory()
        self.tickets = iter(range(0))
        self._last = self._block = 0
        self._block_began_s = float("-inf")
        self.subscriptions: tuple[BaseSubscription, ...] = ()
        self.queued: tuple[QueuedSubscription, ...] = ()
        self.round = Round(host, self, ())
        self.resolve(())

    def resolve(self, subscriptions: tuple[BaseSubscription, ...]) -> None:
        """From now on, `subscriptions` get the events, in this order."""
        self.subscriptions = subscriptions
        queued = tuple(sub for sub in subscriptions if isinstance(sub, QueuedSubscription))
        if queued != self.queued:
            self.round.retire()
            self.queued, self.round = queued, Round(self._host, self, queued)
        self._choose()

    def remember_anew(self) -> None:
        """History was turned on or off."""
        self.calm()
        self.remember = self._memory()
        self._choose()

    def _memory(self) -> Deliver | None:
        history = self._history
        return functools.partial(history.remember, history.ring_of(self.name)) if history.is_on else None

    def _choose(self) -> None:
        self.receiver = self._receiver(self.subscriptions)
        self.at_once = self._receiver(self._sync()) if self.queued else None

    def _sync(self) -> tuple[BaseSubscription, ...]:
        return tuple(sub for sub in self.subscriptions if not isinstance(sub, QueuedSubscription))

    def sampled(self, took: Timing) -> Receiver:
        """What stands for `at_once` with an event that is remembered in any case, and timed."""
        return Sampled(self._sync(), self.remember, took)

    def _receiver(self, subscriptions: tuple[BaseSubscription, ...]) -> Receiver | None:
        remember = None if self.flooding else self.remember
        return Receiver(subscriptions, remember) if subscriptions or remember is not None else None

    # ------------------------------------------------------------ numbers

    @property
    def count(self) -> int:
        """Events emitted so far."""
        return self._last - length_hint(self.tickets)

    def next_block(self, now_s: float) -> int:
        """Deal the next block of numbers and return its first; decide whether the topic floods."""
        elapsed_s, self._block_began_s = now_s - self._block_began_s, now_s
        done = self._block
        self._end_block()
        self._flood(0 < elapsed_s * FLOOD_PER_S < done)  # 0: a clock that stands still, in a test
        self._block = (FLOOD_BLOCK if self.flooding else BLOCK) - self._last % BLOCK
        first = self._last + 1
        self._last += self._block
        self.tickets = iter(range(first + 1, first + self._block))
        return first

    def _end_block(self) -> None:
        """Take back the numbers that were dealt and not used, and account for what was not remembered."""
        unused = length_hint(self.tickets)
        if self.flooding and self._history.is_on:
            self._history.skip(self._block - 1 - unused)
        self._last -= unused
        self._block, self.tickets = 0, iter(range(0))

    def calm(self) -> None:
        """Remember every event again, until the topic proves to flood still."""
        if self.flooding:
            self._end_block()
            self._flood(False)

    def _flood(self, flooding: bool) -> None:
        if flooding is not self.flooding:
            self.flooding = flooding
            self._choose()
