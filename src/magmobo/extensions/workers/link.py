"""The node's end of a worker's socket: frames in and out, questions and their answers, deadlines.

One timer watches everything of a link: answers that are due, a frame that does not become whole, a loop that does not
answer a ping. It runs only while something is due and is set anew only for something earlier, so a call costs no timer.
Both loops read before they run timers: a loop that was held up takes what has come for in time.
Boundary: what a broken rule, a question of the worker or its end means is for the `Keeper`. Invariant: every question
is answered once, here with an error if not there; after a fault nothing more is read.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, cast

from magmobo.extensions.installed import Question
from magmobo.extensions.workers.asked import Asked
from magmobo.extensions.workers.credit import Credit
from magmobo.extensions.workers.errors import (
    CallTimedOut,
    CallTooLarge,
    HandlerDenied,
    HandlerFailed,
    WorkerBusy,
    WorkerEnded,
)
from magmobo.extensions.workers.keeper import Keeper
from magmobo.extensions.workers.window import Window
from magx import wire
from magx.spin import Spin
from magx.wire import ProtocolFault

TURN_FRAMES = 64
"""Frames taken in one turn of the loop; others come first then, and so do other workers."""
STALL_S, WHOLE_S = 0.5, 5.0
"""How long a frame may have begun: without another byte, and in all."""
PING_S, DEAF_S = 1.0, 5.0
"""How long a ping may go unanswered, and what is written to a worker unread."""
UNREAD_BYTES = 4 * wire.MAX_FRAME_BYTES
_TICK_S = 0.005
_LATE_ANSWERS = 4096
_BYTES_PER_CREDIT = {wire.Api: 32_768, wire.Log: 4096, wire.Figure: 4096}
"""What nobody asked for costs one, and one more for so many bytes: lines are decoded as they come, arguments not."""


class Link(asyncio.Protocol):
    """One life of a worker. `ready` is its first frame; whoever asks takes a place of `window` before."""

    def __init__(self, keeper: Keeper, extension_id: str, pid: int, concurrency: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._keeper, self._extension_id, self._pid = keeper, extension_id, pid
        self.ready: asyncio.Future[wire.Ready] = self._loop.create_future()
        self.window = Window(min(concurrency, wire.WINDOW), self._loop)
        self.pending: dict[int, Asked] = {}
        self.last_id = self.timeouts = 0
        self._transport: asyncio.Transport | None = None
        self._frames = wire.Frames()
        self._credit = Credit(self._loop.time())
        self._answers = self._unasked = 0
        self._late: OrderedDict[int, None] = OrderedDict()
        self._forgotten_id = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = inf
        self._ping_id, self._ping_due_s, self._deaf_due_s = 0, inf, inf
        self._stall_due_s, self._whole_due_s = inf, inf
        self._pauses = 0
        self._spin = Spin(self._loop)
        self._held: list[bytes] | None = None
        self._take: dict[type, Callable[[Any], None]] = {
            wire.Ready: self._on_ready,
            wire.Denied: self._on_denied,
            wire.Failed: self._on_failed,
            wire.Acked: self._on_acked,
            wire.Proceed: self._on_proceed,
            wire.Pong: self._on_pong,
            wire.Api: keeper.on_api,
            wire.Log: keeper.on_told,
            wire.Figure: keeper.on_told,
        }

    # ------------------------------------------------------------ questions

    def call(
        self, question: Question, deadline_s: float, above: Asked | None, *, hook: bool, around: bool = False
    ) -> Asked:
        """Ask on behalf of the call `above`, having taken a place; the place is free again when the answer is there.

        Raises: WorkerEnded, WorkerBusy, CallTooLarge; the place is free then.
        """
        number = self.last_id + 1
        left_ms = max(1, int((deadline_s - self._loop.time()) * 1000))
        handler, answer = question.handler, self._loop.create_future()
        asked = Asked(number, handler, hook, question.chain, question.timeout_s, deadline_s, answer, above)
        if around:
            asked.permit = self._loop.create_future()
            asked.answer.add_done_callback(asked.without_permit)
        self._ask(asked, wire.Call(number, handler, left_ms, question.argument))
        return asked

    def deliver(self, subscription: str, items: Sequence[wire.Item], timeout_s: float, deadline_s: float) -> Asked:
        """Hand events over, having taken a place; else as `call`."""
        number = self.last_id + 1
        handler = f"event:{subscription}"
        asked = Asked(number, handler, False, (), timeout_s, deadline_s, self._loop.create_future(), None)
        asked.events = len(items)
        left_ms = max(1, int((deadline_s - self._loop.time()) * 1000))
        self._ask(asked, wire.Deliver(number, subscription, left_ms, items))
        return asked

    def _ask(self, asked: Asked, frame: wire.Call | wire.Deliver) -> None:
        transport = self._transport
        if transport is None or self._deaf_due_s != inf:
            self.window.give(hook=asked.hook)
            raise WorkerBusy(self._extension_id) if transport else self._ended()
        try:
            data = wire.encode(frame)
        except ProtocolFault as fault:
            self.window.give(hook=asked.hook)
            raise CallTooLarge(self._extension_id, asked.handler, str(fault)) from None
        self._write(transport, data)
        self.last_id = asked.id
        self.pending[asked.id] = asked
        if asked.hook and len(self.pending) == 1:  # with more there is enough to do, and answers come together
            self._spin.expect()
        if asked.deadline_s < self._due_s:
            self._watch(asked.deadline_s)

    def abandon(self, asked: Asked) -> None:
        """Nobody waits for this answer any more."""
        if self.pending.pop(asked.id, None) is None:
            if asked.answer.done() and not asked.answer.cancelled():
                asked.answer.exception()  # it came in the moment in which nobody waited any more
            return
        self._late[asked.id] = None  # its answer may be on the way already
        if len(self._late) > _LATE_ANSWERS:
            self._forgotten_id = max(self._forgotten_id, self._late.popitem(last=False)[0])
        self.window.give(hook=asked.hook)
        self.send(wire.Cancel(asked.id))

    def proceeded(self, asked: Asked, *, ok: bool) -> None:
        """The operation of an around hook ended; its time counts again."""
        asked.deadline_s = self._loop.time() + asked.timeout_s
        if asked.id in self.pending:
            self.send(wire.Proceeded(asked.id, ok))
            if asked.deadline_s < self._due_s:
                self._watch(asked.deadline_s)

    def send(self, frame: wire.Frame) -> None:
        """Send a frame; nothing happens when the worker is gone. Raises: ProtocolFault when it is too large."""
        if self._transport is not None:
            self._write(self._transport, wire.encode(frame))

    def _write(self, transport: asyncio.Transport, data: bytes) -> None:
        """The first bytes of a turn of the loop go out at once, the others of the turn together at its end."""
        if self._held is None:
            self._held = []
            self._loop.call_soon(self._flush)
            transport.write(data)
        else:
            self._held.append(data)

    def _flush(self) -> None:
        held, self._held = self._held, None
        if held and self._transport is not None:
            self._transport.write(b"".join(held))

    def cut(self) -> None:
        """End the link now; whoever waits is told that the worker ended."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        self._let_go()

    # ------------------------------------------------------------ bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=UNREAD_BYTES)

    def data_received(self, data: bytes) -> None:
        decode, done = wire.decode_from_worker, wire.Done
        try:
            bodies = self._frames.feed(data, TURN_FRAMES)
            for body in bodies:
                frame = decode(body)
                if type(frame) is done:
                    asked = self._answered(frame.id, is_call=True)
                    if asked is not None and not asked.answer.done():
                        asked.answer.set_result(frame.result)
                else:
                    self._take_else(frame, len(body))
        except ProtocolFault as fault:
            self._fault(str(fault))
            return
        if self._unasked or len(bodies) == TURN_FRAMES:
            self._yield(whole=len(bodies) < TURN_FRAMES)
        if self._frames.is_partial or self._whole_due_s != inf:
            self._watch_partial(began=bool(bodies))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._transport = None
            self._let_go()
            self._keeper.on_lost()

    def pause_writing(self) -> None:
        self._deaf_due_s = self._loop.time() + DEAF_S
        self._watch(min(self._due_s, self._deaf_due_s))
        self._pause()

    def resume_writing(self) -> None:
        self._deaf_due_s = inf
        self._resume()

    def _yield(self, *, whole: bool) -> None:
        """Read on later, when the worker has used up its credit or others should have their turn."""
        unasked, self._unasked, answers, self._answers = self._unasked, 0, self._answers, 0
        self._credit.per_s = self._keeper.frames_per_s()
        pause_s = self._credit.spend(unasked, answers, self._loop.time())
        if (pause_s > 0 or not whole) and self._transport is not None:
            self._pause()
            self._loop.call_later(pause_s, self._go_on)

    def _go_on(self) -> None:
        self._resume()
        if self._transport is not None:
            self.data_received(b"")

    def _pause(self) -> None:
        self._pauses += 1
        if self._pauses == 1 and self._transport is not None:
            self._transport.pause_reading()

    def _resume(self) -> None:
        self._pauses -= 1
        if self._pauses == 0 and self._transport is not None:
            self._transport.resume_reading()

    # ------------------------------------------------------------ frames

    def _take_else(self, frame: wire.FromWorker, size_bytes: int) -> None:
        kind = type(frame)
        unit_bytes = _BYTES_PER_CREDIT.get(kind)
        if unit_bytes is not None:
            if kind is not wire.Api and size_bytes > wire.MAX_TOLD_BYTES:
                raise ProtocolFault(f"a line or a figure of {size_bytes} bytes, the limit is {wire.MAX_TOLD_BYTES}")
            self._unasked += 1 + size_bytes // unit_bytes
        self._take[kind](frame)

    def _answered(self, number: int, *, is_call: bool) -> Asked | None:
        """The question of this answer; None when nobody waits for it any more. Raises: ProtocolFault."""
        asked = self.pending.get(number)
        if asked is None:
            if not self._is_late(number):
                raise ProtocolFault("an answer to what was not asked, or answered before")
            self._late.pop(number, None)
            return None
        if is_call is (asked.events > 0):
            raise ProtocolFault("an answer of another kind than the question")
        del self.pending[number]
        self._answers += 1
        self._spin.came()
        self.window.give(hook=asked.hook)
        return asked

    def _is_late(self, number: int) -> bool:
        """Whether nobody waits any more for this answer, as far back as that is known; it costs, and earns nothing."""
        late = number in self._late or 0 < number <= self._forgotten_id
        self._unasked += late
        return late

    def _on_ready(self, ready: wire.Ready) -> None:
        if self.ready.done() and not self.ready.cancelled():
            raise ProtocolFault("it is ready twice")
        if not self.ready.done():
            self.ready.set_result(ready)

    def _on_denied(self, denied: wire.Denied) -> None:
        asked = self._answered(denied.id, is_call=True)
        if asked is not None and not asked.answer.done():
            asked.answer.set_exception(HandlerDenied(self._extension_id, denied.reason, denied.retry_s))

    def _on_failed(self, failed: wire.Failed) -> None:
        asked = self.pending.get(failed.id)
        asked = self._answered(failed.id, is_call=asked is None or asked.events == 0)
        if asked is None:
            return
        said = f"{asked.handler} raised {failed.error}: {failed.message}"
        level = "info" if failed.retry_s > 0 else "error"  # a limit of the node is no fault of the handler
        self._keeper.on_told(wire.Log(level, said, {"trace": failed.trace}))
        if not asked.answer.done():
            told = (failed.error, failed.message, failed.trace, failed.retry_s)
            asked.answer.set_exception(HandlerFailed(self._extension_id, asked.handler, *told))

    def _on_acked(self, acked: wire.Acked) -> None:
        given = self.pending.get(acked.id)
        places = [place for place, _ in (*acked.failed, *acked.later)]
        if given is not None and (len(set(places)) < len(places) or any(not 0 <= one < given.events for one in places)):
            raise ProtocolFault("it failed events that it was not given")
        asked = self._answered(acked.id, is_call=False)
        if asked is not None and not asked.answer.done():
            asked.answer.set_result(acked)

    def _on_proceed(self, proceed: wire.Proceed) -> None:
        asked = self.pending.get(proceed.id)
        if asked is None and self._is_late(proceed.id):
            return
        if asked is None or asked.permit is None or asked.permit.done():
            raise ProtocolFault("it lets go on what is not its to let")
        asked.deadline_s = inf  # the operation has a deadline of its own
        asked.permit.set_result(True)

    def _on_pong(self, pong: wire.Pong) -> None:
        if self._ping_due_s == inf or pong.id != self._ping_id:
            raise ProtocolFault("an answer to a ping that was not sent")
        self._ping_due_s = inf

    def _fault(self, what: str) -> None:
        self.cut()
        self._keeper.on_fault(what)

    def _let_go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.window.close(self._ended())
        pending, self.pending = self.pending, {}
        for asked in pending.values():
            if not asked.answer.done():
                asked.answer.set_exception(self._ended())
        if not self.ready.done():
            self.ready.set_exception(self._ended())
            self.ready.exception()  # who started it may have given up before it asked

    def _ended(self) -> WorkerEnded:
        return WorkerEnded(self._extension_id, self._pid)

    # ------------------------------------------------------------ time

    def _watch(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due_s = due_s
        self._timer = self._loop.call_at(due_s, self._check)

    def _watch_partial(self, *, began: bool) -> None:
        if not self._frames.is_partial or self._pauses:
            self._stall_due_s = self._whole_due_s = inf
            return
        now_s = self._loop.time()
        self._stall_due_s = now_s + STALL_S
        if began or self._whole_due_s == inf:
            self._whole_due_s = now_s + WHOLE_S
        if self._stall_due_s < self._due_s:
            self._watch(self._stall_due_s)

    def _check(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        if min(self._stall_due_s, self._whole_due_s) <= now_s:
            self._fault("a frame that does not become whole")
            return
        if min(self._ping_due_s, self._deaf_due_s) <= now_s:
            self.cut()
            self._keeper.on_deaf()
            return
        for asked in [one for one in self.pending.values() if one.deadline_s <= now_s]:
            self._expire(asked, now_s)
        dues = (self._ping_due_s, self._deaf_due_s, self._stall_due_s, self._whole_due_s)
        due_s = min([*dues, *(one.deadline_s for one in self.pending.values())])
        self._due_s = inf
        if due_s != inf and self._transport is not None:
            self._watch(max(due_s, now_s + _TICK_S))

    def _expire(self, asked: Asked, now_s: float) -> None:
        self.timeouts += 1
        self.abandon(asked)
        if not asked.answer.done():
            asked.answer.set_exception(CallTimedOut(self._extension_id, asked.handler, asked.timeout_s))
        if self._ping_due_s == inf:
            self._ping_id += 1
            self._ping_due_s = now_s + PING_S
            self.send(wire.Ping(self._ping_id))
