"""Publishing on one topic: its async handlers are called where an event is published, one by one until one waits.

A generator takes an event, calls the handlers, and rests until it is sent the next. What it yields says whether a
handler waits, and for what: no task, no object for each handler, no exception is needed to find out. What never changes
is in its local variables, and one handler alone is not a loop: each is a tenth of what an event costs.
Boundary: only for handlers that are idle. Deadline, cause and account of one that waits are its subscription's.
Invariant: a generator that is not at its rest is never sent another event.
"""

from __future__ import annotations

from asyncio import CancelledError, Future
from collections.abc import Callable, Coroutine, Generator, Iterator
from itertools import repeat
from operator import length_hint
from time import perf_counter
from types import FunctionType, coroutine
from typing import TYPE_CHECKING, Any, Protocol

from magmobo.contracts.events import Envelope, Event
from magmobo.kernel.bus.subscription import Post, QueuedSubscription, ignore
from magmobo.kernel.bus.trace import Cause, cause_here

if TYPE_CHECKING:
    from magmobo.kernel.bus.dispatch import Topic

DONE = object()
"""Yielded when every handler had the event."""
_SAMPLE = object()  # yielded for the first event of a block, which nobody had yet
_MANY = 1 << 62


class Host(Post, Protocol):
    """What publishing asks of its bus. `cause`: the event being delivered now."""

    origin: str
    time_s: Callable[[], float]
    cause: Cause | None

    def emit(self, event: Event) -> None: ...
    def envelope(self, topic: Topic, event: Event, seq: int, cause: Cause | None) -> Envelope[Any]: ...
    def next_block(self, topic: Topic) -> int: ...
    def drain(self, topic: Topic) -> None: ...


class Round:
    """Whom an event of a topic reaches where it is published, as of now.

    `begin` publishes one event and returns `DONE`, or something that `rest` must be told. `break_off` must follow when
    either raises.
    """

    __slots__ = ("_code", "_generator", "_host", "_laps", "_subscriptions", "begin", "topic")

    def __init__(self, host: Host, topic: Topic, subscriptions: tuple[QueuedSubscription, ...]) -> None:
        self._host, self.topic, self._subscriptions = host, topic, subscriptions
        self._laps: Iterator[None] = repeat(None, _MANY)
        self._generator: Any = None  # typed as one, it would hide its frame
        self._code: Callable[..., Any] | None = None
        self.begin: Callable[[Event], Any] = self._begin_anew if subscriptions else self._emit
        if len(subscriptions) == 1:
            subscriptions[0].rounds.append(self)

    @property
    def laps(self) -> int:
        """Events for which a handler that is alone was called. That an iterator counts them saves 6 % of an event."""
        return _MANY - length_hint(self._laps)

    def retire(self) -> None:
        """Begin no more; an event that is on its way goes on."""
        if len(self._subscriptions) == 1:
            self._subscriptions[0].begun += self.laps
            self._subscriptions[0].rounds.remove(self)

    def _emit(self, event: Event) -> Any:
        self._host.emit(event)
        return DONE

    def _begin_anew(self, event: Event) -> Any:
        if self._code is None:
            # A copy for each topic: what the interpreter learns about its calls is kept in the code object.
            going = _go_to_one if len(self._subscriptions) == 1 else _go_round
            self._code = FunctionType(going.__code__.replace(), going.__globals__)
        self._generator = generator = self._code(self._host, self.topic, self._subscriptions, self._laps)
        generator.send(None)
        self.begin = generator.send
        return generator.send(event)

    def rest(self, event: Event, waiting_for: Any) -> Coroutine[Any, Any, None] | None:
        """What is left to be awaited, in the task that called `begin`.

        The handlers behind one that waits get their own tasks, so that they need not wait for it.
        """
        generator, alone = self._generator, len(self._subscriptions) == 1
        if waiting_for is _SAMPLE:
            generator, alone = _sample(self._host, self.topic, self._subscriptions, event), False
            if (waiting_for := generator.send(None)) is DONE:
                return None
        at_rest = generator.gi_frame.f_locals
        waiting: QueuedSubscription = at_rest["subscription"]
        envelope: Envelope[Any] = at_rest["envelope"]
        cause = self._host.cause or envelope  # not the event itself where the handler waits inside of a trace
        waiting.suspend()
        if alone:
            done = []
            waiting.begun -= 1
        else:
            done = self._offer_behind(waiting, envelope)
            self._renew()
        self._stop()
        rest = waiting.finish(envelope, Suspended(self, generator, waiting_for, takes_over=not alone), cause)
        return _end(rest, done) if done else rest

    def _offer_behind(self, waiting: QueuedSubscription, envelope: Envelope[Any]) -> list[Future[None]]:
        behind = self._subscriptions[self._subscriptions.index(waiting) + 1 :]
        active = [subscription for subscription in behind if subscription.active]
        done = [subscription.completion(envelope.topic, envelope.seq) for subscription in active]
        for subscription in active:
            subscription.offer(envelope)
        return done

    def break_off(self) -> None:
        """An event goes no further."""
        if self.renew_if_dead() and len(self._subscriptions) == 1:
            self._subscriptions[0].begun -= 1
        self._stop()

    def renew_if_dead(self) -> bool:
        """Something that nobody caught may have ended the generator: let the next event have a new one."""
        dead = self._generator is not None and self._generator.gi_frame is None
        if dead:
            self._renew()
        return dead

    def _renew(self) -> None:
        self._generator, self.begin = None, self._begin_anew

    def _stop(self) -> None:
        self._host.cause = None
        self._host.drain(self.topic)


@coroutine
def _go_to_one(
    host: Host, topic: Topic, subscriptions: tuple[QueuedSubscription, ...], laps: Iterator[None]
) -> Generator[Any, Event, None]:
    # The second hot path of the bus, measured by benchmarks/bench_bus.py. It is `_go_round` without its inner loop.
    (subscription,) = subscriptions
    name, origin, time_s, handler = topic.name, host.origin, host.time_s, subscription.handler
    make, cause_in_task = Envelope, cause_here.get
    event = yield DONE
    for _ in laps:
        for seq in topic.tickets:  # noqa: B007
            break
        else:
            subscription.begun -= 1
            event = yield _SAMPLE
            continue
        if cause_in_task() is None:
            host.cause = envelope = make(name, event, time_s(), seq, origin)
        else:
            host.cause = envelope = host.envelope(topic, event, seq, cause_in_task())
        if topic.at_once is not None:
            topic.at_once.hand_over(envelope)
            if subscription.deliver is ignore:
                subscription.begun -= 1
                handler = _nobody
        try:
            yield from handler(envelope)
        except (Exception, CancelledError) as error:
            if host.cause is None:
                raise  # it has waited: who awaits the rest of it accounts for it
            subscription.begun -= 1
            subscription.failed_at_once(envelope, error)
        host.cause = None
        if topic.has_pending:
            host.drain(topic)
        event = yield DONE


@coroutine
def _go_round(
    host: Host, topic: Topic, subscriptions: tuple[QueuedSubscription, ...], laps: Iterator[None]
) -> Generator[Any, Event, None]:
    name, origin, time_s = topic.name, host.origin, host.time_s
    make, cause_in_task = Envelope, cause_here.get
    event = yield DONE
    while True:
        for seq in topic.tickets:  # noqa: B007
            break
        else:
            event = yield _SAMPLE
            continue
        if cause_in_task() is None:
            host.cause = envelope = make(name, event, time_s(), seq, origin)
        else:
            host.cause = envelope = host.envelope(topic, event, seq, cause_in_task())
        if topic.at_once is not None:
            topic.at_once.hand_over(envelope)
        for subscription in subscriptions:
            if subscription.deliver is ignore:
                continue
            handler = subscription.handler
            try:
                yield from handler(envelope)
                subscription.begun += 1
            except (Exception, CancelledError) as error:
                subscription.failed_at_once(envelope, error)
        host.cause = None
        if topic.has_pending:
            host.drain(topic)
        event = yield DONE


@coroutine
def _sample(
    host: Host, topic: Topic, subscriptions: tuple[QueuedSubscription, ...], event: Event
) -> Generator[Any, None, None]:
    """Publish the first event of a block: it is remembered in any case, and its handlers are timed."""
    host.cause = envelope = host.envelope(topic, event, host.next_block(topic), cause_here.get())
    topic.sampled(host.handler_took).hand_over(envelope)
    for subscription in subscriptions:
        if not subscription.active:
            continue
        began_s = perf_counter()
        try:
            yield from subscription.handler(envelope)
            subscription.begun += 1
        except (Exception, CancelledError) as error:
            subscription.failed_at_once(envelope, error)
        host.handler_took(topic.name, perf_counter() - began_s)
    host.cause = None
    host.drain(topic)
    yield DONE


async def _nobody(envelope: Envelope[Any]) -> None:
    """In the place of a handler that another one cancelled while the event was on its way."""


class Suspended:
    """The rest of a handler that waits; awaiting it runs it to its end.

    A generator of one handler goes on until it is at its rest. From any other the coroutine of the handler is taken
    over, for it would go on to the handlers behind; it must live as long, since a generator that is thrown away closes
    the coroutine in which it stands.
    """

    __slots__ = ("_generator", "_going", "_round", "_waiting_for")

    def __init__(self, round_: Round, generator: Any, waiting_for: Any, *, takes_over: bool) -> None:
        self._round, self._generator, self._waiting_for = round_, generator, waiting_for
        self._going = generator.gi_yieldfrom if takes_over else generator

    def __await__(self) -> Generator[Any, Any, None]:
        going, waiting_for = self._going, self._waiting_for
        while waiting_for is not DONE:
            thrown: BaseException | None = None
            value = None
            try:
                value = yield waiting_for
            except BaseException as error:
                thrown = error
            try:
                waiting_for = going.send(value) if thrown is None else going.throw(thrown)
            except StopIteration:
                return
            except BaseException:
                self._round.renew_if_dead()
                raise


async def _end(rest: Coroutine[Any, Any, None], done: list[Future[None]]) -> None:
    await rest
    for future in done:
        await future
