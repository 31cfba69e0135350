"""One version of an extension as something to ask: its process is there when it is needed, and again when it ended.

Whoever asks never sees processes. A call that comes while there is none starts it, or waits for it, inside its own
deadline. Boundary: what a crash or an escape leads to is told to the lifecycle, which decides. Invariant: after `kill`
or `drain` there is no process, and none is started any more. An escape ends it for good as well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from magmobo.extensions.gate.gatekeeper import Gatekeeper
from magmobo.extensions.installed import Installed, Question
from magmobo.extensions.workers.api import Dispatcher
from magmobo.extensions.workers.asked import CURRENT
from magmobo.extensions.workers.backoff import Backoff
from magmobo.extensions.workers.errors import (
    HandlerFailed,
    WorkerBusy,
    WorkerEnded,
    WorkerStartFailed,
    WorkerUnavailable,
)
from magmobo.extensions.workers.life import Life, Spawn
from magmobo.extensions.workers.link import Link
from magmobo.extensions.workers.process import Ended, Process
from magmobo.extensions.workers.states import WorkerState
from magmobo.extensions.workers.tallies import Tallies, counted, result_of
from magmobo.extensions.workers.totals import Totals
from magmobo.extensions.workers.window import WindowFull
from magx import wire

if TYPE_CHECKING:
    import structlog

START_TIMEOUT_S = 10.0
IDLE_FINISH_S = 1.0


def _nobody(*_: Any) -> None:
    """Nobody wants to know."""


class Worker:
    """Asks one version of an extension. Use it on the node's loop.

    Args:
        spawn: makes the process, with every limit applied.
        data_dir: its own folder as the process sees it, empty when it has none.
        idle_stop_s: seconds without a question after which the process ends; it may be set at any time.
        on_crash, on_escape: told after the process is gone, with how it ended; may call `kill`.
        on_log, on_figure: told (installed, level, message, fields) and (installed, name, kind, value).
    """

    def __init__(
        self,
        installed: Installed,
        spawn: Spawn,
        dispatcher: Dispatcher,
        gatekeeper: Gatekeeper,
        *,
        log: structlog.stdlib.BoundLogger,
        data_dir: Path | None = None,
        idle_stop_s: float = 300.0,
        start_timeout_s: float = START_TIMEOUT_S,
        on_crash: Callable[[Installed, Ended], None] = _nobody,
        on_escape: Callable[[Installed, str], None] = _nobody,
        on_log: Callable[[Installed, str, str, Mapping[str, Any]], None] = _nobody,
        on_figure: Callable[[Installed, str, str, float], None] = _nobody,
    ) -> None:
        self.installed, self._idle_stop_s = installed, idle_stop_s
        self.state = WorkerState.NEW
        self.handlers: frozenset[str] = frozenset()
        self.lives = 0
        """Processes that became ready; another number is another one."""
        self._spawn, self._dispatcher, self._gatekeeper, self._log = spawn, dispatcher, gatekeeper, log
        self._data_dir = "" if data_dir is None else str(data_dir)
        self._start_timeout_s = start_timeout_s
        self._on_crash, self._on_escape, self._on_log, self._on_figure = on_crash, on_escape, on_log, on_figure
        self._loop = asyncio.get_running_loop()
        self._time_s = self._loop.time
        self._link: Link | None = None
        self._life: Life | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._escaped = False
        self._starting: asyncio.Task[None] | None = None
        self._up: asyncio.Future[None] = self._loop.create_future()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._backoff = Backoff()
        self._tallies = Tallies(gatekeeper, installed.id)
        self._totals, self._restarts = Totals(), 0
        self._asked_for_health = 0

    # ------------------------------------------------------------ asking

    async def ask(self, question: Question) -> Raw:
        """The answer of one handler.

        Raises: HandlerDenied, HandlerFailed, CallTimedOut, WorkerEnded, WorkerUnavailable, WorkerBusy, CallTooLarge.
        """
        if question.handler == "health":
            return await self._ask_for_health(question)
        return await self._ask(question)

    async def _ask_for_health(self, question: Question) -> Raw:
        """What is asked, and asked back, for this alone does not say that anybody needs the worker."""
        life = self._life
        before = 0 if life is None else life.link.last_id + life.api.asked
        try:
            return await self._ask(question)
        finally:
            if life is not None and life is self._life:
                self._asked_for_health += life.link.last_id + life.api.asked - before

    async def _ask(self, question: Question) -> Raw:
        handler = question.handler
        hook = handler.startswith("hook:")
        tally = self._tallies[handler]  # as `counted` does it, without one more coroutine for each hook
        began_s = time.perf_counter()
        try:
            deadline_s = self._time_s() + question.timeout_s
            link = self._link
            if link is None or not link.window.take_now(hook=hook):
                link = await self._reach(deadline_s, hook=hook)
            asked = link.call(question, deadline_s, CURRENT.get(), hook=hook)
            try:
                answer: Raw = await asked.answer
            except asyncio.CancelledError:
                link.abandon(asked)
                raise
        except BaseException as error:
            tally.note(result_of(error), time.perf_counter() - began_s)
            raise
        tally.note("ok", time.perf_counter() - began_s)
        return answer

    async def around(self, question: Question, proceed: Callable[[], Awaitable[bool]]) -> Raw:
        """As `ask`, for a hook that decides when `proceed` runs; that runs here, says whether it went well, and must
        not raise. Its time does not count. Raises: as `ask`; HandlerFailed for a hook that ends without it.
        """
        return await counted(self._tallies[question.handler], self._around(question, proceed))

    async def deliver(self, subscription: str, items: Sequence[wire.Item], timeout_s: float) -> wire.Acked:
        """Hand over 1 to `wire.MAX_EVENTS` events; its answer says which of them it did not take.

        Raises: HandlerFailed, CallTimedOut, WorkerEnded, WorkerUnavailable, WorkerBusy; CallTooLarge: send fewer.
        """
        tally = self._tallies[f"event:{subscription}"]
        return await counted(tally, self._deliver(subscription, items, timeout_s))

    async def _around(self, question: Question, proceed: Callable[[], Awaitable[bool]]) -> Raw:
        deadline_s = self._time_s() + question.timeout_s
        link = await self._reach(deadline_s, hook=True)
        asked = link.call(question, deadline_s, CURRENT.get(), hook=True, around=True)
        try:
            goes_on = asked.permit is not None and await asked.permit
            if goes_on:
                link.proceeded(asked, ok=await proceed())
            answer: Raw = await asked.answer
        except asyncio.CancelledError:
            link.abandon(asked)
            raise
        if not goes_on:
            said = "it ended without letting the operation go on"
            raise HandlerFailed(self.installed.id, question.handler, "RuntimeError", said)
        return answer

    async def _deliver(self, subscription: str, items: Sequence[wire.Item], timeout_s: float) -> wire.Acked:
        deadline_s = self._time_s() + timeout_s
        link = await self._reach(deadline_s, hook=False)
        asked = link.deliver(subscription, items, timeout_s, deadline_s)
        try:
            acked: wire.Acked = await asked.answer
        except asyncio.CancelledError:
            link.abandon(asked)
            raise
        return acked

    async def _reach(self, deadline_s: float, *, hook: bool) -> Link:
        """A link with a place on it, which is the caller's. Raises: WorkerUnavailable, WorkerBusy."""
        try:
            async with asyncio.timeout_at(deadline_s):
                while True:
                    link = self._link or await self._awake()
                    try:
                        await link.window.take(hook=hook)
                    except WorkerEnded:
                        continue
                    if link is self._link:
                        return link
                    link.window.give(hook=hook)
        except TimeoutError:
            raise WorkerUnavailable(self.installed.id, f"it is {self.state.value}") from None
        except WindowFull:
            raise WorkerBusy(self.installed.id) from None

    async def _awake(self) -> Link:
        """The link once there is one; whoever needs an idle worker starts it."""
        while self._link is None:
            if self.state is WorkerState.IDLE:
                self._revive(0.0)
            elif self.state in (WorkerState.NEW, WorkerState.ENDED):
                raise WorkerUnavailable(self.installed.id, "it is stopped")
            await asyncio.shield(self._up)
        return self._link

    # ------------------------------------------------------------ being there

    async def start(self) -> None:
        """Returns once its process is ready. Raises: WorkerStartFailed, HandlersDiffer, WorkerUnavailable; what
        `spawn` raises.
        """
        if self.state in (WorkerState.DRAINING, WorkerState.ENDED):
            raise WorkerUnavailable(self.installed.id, "it is stopped")
        if self.state is not WorkerState.NEW:
            await self._awake()
            return
        self.state = WorkerState.STARTING
        starting = self._starting = self._loop.create_task(self._begin_life(), name=f"start {self.installed.id}")
        try:
            await asyncio.wait({starting})
        finally:
            starting.cancel()  # harmless when it ended: whoever gave up waiting does not want it any more
            if self.state is WorkerState.STARTING:
                self.state = WorkerState.NEW
        if starting.cancelled():
            raise WorkerUnavailable(self.installed.id, "it is stopped")
        starting.result()

    async def _begin_life(self) -> None:
        life = Life(self.installed, self._dispatcher, self._data_dir, self._told, self._lost)
        try:
            await life.start(self._spawn, self._start_timeout_s)
        except WorkerStartFailed:
            self._check_escape(life)
            raise
        self._life, self._link, self.handlers = life, life.link, life.handlers
        self._asked_for_health = 0
        self.state = WorkerState.READY
        self.lives += 1
        self._up.set_result(None)
        self._up = self._loop.create_future()
        self._watch_idle(-1)

    def _revive(self, delay_s: float) -> None:
        """Start a process again and again until one is ready."""
        self.state = WorkerState.RESTARTING
        self._starting = self._loop.create_task(self._restart(delay_s), name=f"restart {self.installed.id}")

    async def _restart(self, delay_s: float) -> None:
        while self.state is WorkerState.RESTARTING:
            await asyncio.sleep(delay_s)
            try:
                await self._begin_life()
            except Exception as error:  # whatever keeps it from starting: it is tried again, and told
                self._log.warning("an extension does not start", extension=self.installed.id, error=str(error))
                self._on_crash(self.installed, Ended(str(error)))
                delay_s = self._backoff.next_s(0.0)

    def _lost(self, life: Life) -> None:
        """Nothing can be asked of this life any more."""
        self._totals.add(life)
        crashed = False
        if life is self._life:
            self._life = self._link = None
            if self.state is WorkerState.READY:
                self.state, crashed = WorkerState.RESTARTING, True
        task = self._loop.create_task(self._follow(life, crashed=crashed), name=f"end {self.installed.id}")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _follow(self, life: Life, *, crashed: bool) -> None:
        ended = await life.ended
        if self._check_escape(life) or not crashed:
            return
        self._restarts += 1
        self._on_crash(self.installed, ended)
        if self.state is WorkerState.RESTARTING:
            self._revive(self._backoff.next_s(self._loop.time() - life.began_s))

    def _check_escape(self, life: Life) -> bool:
        what = life.escape
        if what and not self._escaped:
            self._escaped = True
            self.kill()
            self._on_escape(self.installed, what)
        return bool(what)

    @property
    def idle_stop_s(self) -> float:
        """Seconds without a question after which the process ends; set anew, they count from now."""
        return self._idle_stop_s

    @idle_stop_s.setter
    def idle_stop_s(self, idle_stop_s: float) -> None:
        self._idle_stop_s = idle_stop_s
        self._watch_idle(-1)

    # ------------------------------------------------------------ being gone

    def _watch_idle(self, asked_before: int) -> None:
        """Called now and then; two times with nothing asked in between is idle."""
        life = self._life
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if life is None:
            return
        asked = life.link.last_id + life.api.asked - self._asked_for_health
        if asked == asked_before and not life.link.pending and not life.api.in_flight:
            self.state = WorkerState.IDLE
            self._let_finish(life, IDLE_FINISH_S)
            return
        self._idle_timer = self._loop.call_later(self._idle_stop_s, self._watch_idle, asked)

    def _let_finish(self, life: Life, timeout_s: float) -> None:
        """It is told to end; nothing is asked of it from here on."""
        life.stop(timeout_s)
        self._link = None

    async def drain(self, timeout_s: float) -> None:
        """Let it finish what it does, and end it; returns when it is gone, at the latest after `timeout_s` and what a
        kill takes. What is asked meanwhile is still answered.
        """
        if self.state is not WorkerState.ENDED:
            self.state = WorkerState.DRAINING
        deadline_s = self._loop.time() + timeout_s
        life = self._life
        while life is not None and self._link is not None and life.link.pending:
            left_s = deadline_s - self._loop.time()
            if left_s <= 0:
                break
            await asyncio.wait([one.answer for one in life.link.pending.values()], timeout=left_s)
        if life is not None and self._link is not None:
            left_s = max(0.0, deadline_s - self._loop.time())
            self._let_finish(life, left_s)
            await asyncio.wait({life.ended}, timeout=left_s)
        self.kill()
        going = self._ending | ({self._starting} if self._starting is not None else set())
        if going:
            await asyncio.wait(going)

    def kill(self) -> None:
        """End it now, for good."""
        self.state = WorkerState.ENDED
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._starting is not None and self._starting is not asyncio.current_task(self._loop):
            self._starting.cancel()
        if self._life is not None:
            self._life.kill()
        if not self._up.done():
            self._up.set_result(None)

    # ------------------------------------------------------------ else

    def tell_settings(self) -> None:
        """Let it know of `installed.settings` and of what it may do now."""
        if self._link is not None:
            self._link.send(wire.Settings(self.installed.settings, sorted(self.installed.grants)))

    @property
    def process(self) -> Process | None:
        """The process that can be asked now."""
        return self._life.process if self._life is not None else None

    @property
    def is_idle(self) -> bool:
        """Whether its process ended because nobody needed it; the next question starts one."""
        return self.state is WorkerState.IDLE

    def figures(self) -> Mapping[str, float]:
        """Counts since it was made, and what its process uses now: CPU seconds, bytes."""
        return {**self._totals.with_life(self._life), "restarts": self._restarts}

    def _told(self, frame: wire.Log | wire.Figure) -> None:
        if isinstance(frame, wire.Log):
            self._on_log(self.installed, frame.level, frame.message, frame.fields)
        elif self._gatekeeper.holds(self.installed, "system.metrics"):
            self._on_figure(self.installed, frame.name, frame.kind, frame.value)
        else:
            self._gatekeeper.denied(self.installed, "system.metrics", "metrics", "not_granted")
