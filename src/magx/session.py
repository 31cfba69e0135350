"""The worker's side of the protocol: frames of the node in, frames for it out, the author's handlers in between.

It opens nothing and moves no bytes: `runtime.py` does that in a worker, `testing.py` in an author's test, so both run
the same rules. Each question has one answer unless the node took it back; nothing that a handler raises gets past here.
Invariant: never more than `WINDOW` questions to the node without an answer, cancelled ones included.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from msgspec import Raw

from magx import wire
from magx.api import Link
from magx.extension import Extension, Handler
from magx.kinds import KINDS, event, health_answer
from magx.model import ApiError, HookDenied, RateLimited
from magx.texts import MAX_LINE_CHARACTERS, MAX_MESSAGE_CHARACTERS, said, trace_of

MAX_FIELDS_BYTES = 16_384
LONGEST_WAIT_S = 10.0
"""A limit that lasts longer is not waited for: the node gives the event again when it is over."""
GAP_TOPIC = "extension.gap"
"""Topic of what stands in a subscription for events that it did not get."""
_call_id: ContextVar[int] = ContextVar("magx_call_id", default=0)

Send = Callable[[wire.FromWorker], None]


class Session:
    """One worker's rules. `send` takes a frame that must go out, `offer` one that may be dropped; `ended` is called
    when the node wanted it to stop and everything is answered.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        send: Send,
        offer: Send,
        ended: Callable[[], None],
        *,
        longest_wait_s: float = LONGEST_WAIT_S,
    ) -> None:
        self._loop, self._send, self._offer, self._ended = loop, send, offer, ended
        self._longest_wait_s = longest_wait_s
        self._link = Link()
        self._handlers: Mapping[str, Handler] = {}
        self._running: dict[int, asyncio.Task[None] | None] = {}
        self._asked: dict[int, asyncio.Future[Raw]] = {}
        self._proceeding: dict[int, asyncio.Future[bool]] = {}
        self._window = asyncio.Semaphore(wire.WINDOW)
        self._last_id = 0
        self._stopping = False
        self._take: Mapping[type, Callable[[Any], None]] = {
            wire.Call: self._on_call,
            wire.Deliver: self._on_deliver,
            wire.Reply: self._on_reply,
            wire.Refuse: self._on_refuse,
            wire.Proceeded: self._on_proceeded,
            wire.Cancel: self._on_cancel,
            wire.Settings: self._on_settings,
            wire.Ping: self._on_ping,
            wire.Stop: self._on_stop,
        }

    def begin(self, start: wire.Start, extension: Extension) -> None:
        """Say that the extension is ready; its handlers answer from now on."""
        self._link, self._handlers = extension._link, extension.handlers
        self._link.channel, self._link.data_dir = self, start.data_dir
        self._on_settings(wire.Settings(start.settings, start.capabilities))
        self._send(wire.Ready(wire.PROTOCOL, sorted(one for one in extension.handlers if not one.startswith("gap:"))))

    def take(self, frame: wire.FromNode) -> None:
        """One frame of the node behind its `Start`."""
        self._take[type(frame)](frame)

    # ------------------------------------------------------------ questions of the node

    def _on_call(self, call: wire.Call) -> None:
        handler = self._handlers.get(call.handler)
        if handler is None:
            self._without_handler(call)
        else:
            self._run(call.id, self._answer(call, handler), is_async=handler.is_async)

    def _on_deliver(self, delivery: wire.Deliver) -> None:
        handler = self._handlers.get(f"event:{delivery.subscription}")
        if handler is None:
            self._fail(delivery.id, LookupError(f"no handler for event:{delivery.subscription}"))
        else:
            gap = self._handlers.get(f"gap:{delivery.subscription}")
            is_async = handler.is_async or (gap is not None and gap.is_async)
            self._run(delivery.id, self._consume(delivery, handler, gap), is_async=is_async)

    def _run(self, question_id: int, work: Coroutine[Any, Any, None], *, is_async: bool) -> None:
        if is_async:
            self._running[question_id] = self._loop.create_task(work)
            return
        self._running[question_id] = None
        with suppress(StopIteration):
            work.send(None)  # a plain function never waits, so this is all of it and needs no task

    async def _answer(self, call: wire.Call, handler: Handler) -> None:
        _call_id.set(call.id)
        frame: wire.FromWorker
        try:
            given, say = KINDS[handler.kind]
            result = handler.function(given(call, self._proceed)) if handler.takes_one else handler.function()
            if handler.is_async:
                result = await result
            frame = wire.Done(call.id, say(result))
        except HookDenied as denied:
            if handler.kind == "hook":
                frame = wire.Denied(call.id, said(denied.reason, MAX_MESSAGE_CHARACTERS), _seconds(denied.retry_s))
            else:
                frame = _failure(call.id, denied)
        except BaseException as error:  # also SystemExit: a handler's end is not the worker's
            frame = _failure(call.id, error)
        self._finish(call.id, frame)

    async def _consume(self, delivery: wire.Deliver, handler: Handler, gap: Handler | None) -> None:
        _call_id.set(delivery.id)
        failed: list[tuple[int, str]] = []
        later: list[tuple[int, float]] = []
        met = ""
        wait_until_s = self._loop.time() + self._longest_wait_s
        for place, item in enumerate(delivery.events):
            taker = gap if item.topic == GAP_TOPIC else handler
            try:
                if taker is None:
                    self.log("warning", f"events of {delivery.subscription} may be missing", wire.value(item.data))
                    continue
                await self._hand_over(taker, delivery.subscription, item, wait_until_s)
            except BaseException as error:  # the other events are not to suffer for it
                if delivery.id not in self._running:
                    return
                if isinstance(error, RateLimited) and (retry_s := _seconds(error.retry_s)):
                    later.append((place, retry_s))
                    met = said(error)
                    continue
                reason = f"{type(error).__name__}: {said(error)}"[:MAX_MESSAGE_CHARACTERS]
                failed.append((place, reason))
                facts = {"event": item.id, "tries": item.tries, "trace": trace_of(error)}
                self.log("warning", f"{delivery.subscription} could not take an event: {reason}", facts)
        if later:
            facts = {"events": len(later), "retry_s": later[-1][1], "error": met}
            self.log("info", f"{delivery.subscription} waits for a limit of the node", facts)
        self._finish(delivery.id, wire.Acked(delivery.id, failed, later))

    async def _hand_over(self, taker: Handler, subscription: str, item: wire.Item, wait_until_s: float) -> None:
        """One event to its handler, and again when all that stopped it was a limit of the node that is soon over.

        Raises: RateLimited for one that lasts longer; what the handler raises.
        """
        while True:
            try:
                result = taker.function(event(subscription, item))
                if taker.is_async:
                    await result
            except RateLimited as limited:
                retry_s = _seconds(limited.retry_s)
                if not retry_s or self._loop.time() + retry_s > wait_until_s:
                    raise
                await asyncio.sleep(retry_s)
            else:
                return

    def _finish(self, question_id: int, frame: wire.FromWorker) -> None:
        if question_id not in self._running:
            return  # the node took the question back
        del self._running[question_id]
        self._proceeding.pop(question_id, None)
        try:
            self._send(frame)
        except wire.ProtocolFault as fault:
            self._send(_failure(question_id, ValueError(f"the answer is {fault}")))
        if self._stopping and not self._running:
            self._ended()

    def _without_handler(self, call: wire.Call) -> None:
        if call.handler == "health":
            self._send(wire.Done(call.id, health_answer(None)))
        else:
            self._fail(call.id, LookupError(f"no handler for {call.handler}"))

    def _fail(self, question_id: int, error: Exception) -> None:
        self._send(_failure(question_id, error))

    def _on_cancel(self, cancel: wire.Cancel) -> None:
        self._proceeding.pop(cancel.id, None)
        task = self._running.pop(cancel.id, None)
        if task is not None:
            task.cancel()
        if self._stopping and not self._running:
            self._ended()

    def _on_ping(self, ping: wire.Ping) -> None:
        self._send(wire.Pong(ping.id))

    def _on_settings(self, told: wire.Settings) -> None:
        self._link.settings, self._link.capabilities = told.settings, frozenset(told.capabilities)

    def _on_stop(self, stop: wire.Stop) -> None:
        self._stopping = True
        if self._running:
            self._loop.call_later(stop.deadline_ms / 1000, self._ended)
        else:
            self._ended()

    # ------------------------------------------------------------ questions to the node

    async def ask(self, method: str, args: Mapping[str, Any]) -> Any:
        """The node's answer. Raises: ApiError, RateLimited; ValueError for arguments that do not fit into a frame."""
        packed = _pack(method, args)
        await self._window.acquire()
        self._last_id += 1
        question_id = self._last_id
        try:
            self._send(wire.Api(question_id, _call_id.get(), method, packed))
        except wire.ProtocolFault as fault:
            self._window.release()
            raise ValueError(f"{method}: the arguments are {fault}") from None
        answer = self._asked[question_id] = self._loop.create_future()
        return wire.value(await answer)  # one who is cancelled here leaves its place taken until the node answers

    def _on_reply(self, reply: wire.Reply) -> None:
        answer = self._asked.pop(reply.id)
        self._window.release()
        if not answer.done():
            answer.set_result(reply.result)

    def _on_refuse(self, refusal: wire.Refuse) -> None:
        answer = self._asked.pop(refusal.id)
        self._window.release()
        if not answer.done():
            kind = RateLimited if refusal.retry_s > 0 else ApiError
            answer.set_exception(kind(refusal.code, refusal.message, refusal.retry_s))

    async def _proceed(self, call_id: int) -> bool:
        if call_id not in self._running or call_id in self._proceeding:
            raise RuntimeError("an operation goes on once, and not after the hook has answered")
        ended: asyncio.Future[bool] = self._loop.create_future()
        self._proceeding[call_id] = ended
        self._send(wire.Proceed(call_id))
        return await ended

    def _on_proceeded(self, proceeded: wire.Proceeded) -> None:
        ended = self._proceeding.get(proceeded.id)
        if ended is not None and not ended.done():
            ended.set_result(proceeded.ok)

    def log(self, level: str, message: str, fields: Mapping[str, Any]) -> None:
        """One line. Fields that msgpack cannot say are written as text, too large ones are left out."""
        try:
            packed = wire.raw(fields)
        except (TypeError, ValueError, OverflowError, RecursionError):
            fields = {said(name): said(value) for name, value in fields.items()}
            packed = wire.raw(fields)
        if len(packed) > MAX_FIELDS_BYTES:
            fields = {"left_out_bytes": len(packed)}
        self._offer(wire.Log(level, said(message, MAX_LINE_CHARACTERS), fields))

    def figure(self, name: str, kind: str, value: float) -> None:
        """One figure."""
        self._offer(wire.Figure(said(name, MAX_MESSAGE_CHARACTERS), kind, float(value)))


def _seconds(value: object) -> float:
    """What an author said of a time, 0 for what is none."""
    return float(value) if isinstance(value, int | float) and 0 < value < 1e9 else 0.0


def _pack(method: str, args: Mapping[str, Any]) -> Raw:
    try:
        return wire.raw(args)
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{method}: {error}") from error


def _failure(question_id: int, error: BaseException) -> wire.Failed:
    retry_s = _seconds(error.retry_s) if isinstance(error, RateLimited) else 0.0
    kind = type(error).__name__
    return wire.Failed(question_id, kind, said(error, MAX_MESSAGE_CHARACTERS), trace_of(error), retry_s)
