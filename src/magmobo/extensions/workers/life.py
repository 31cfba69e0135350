"""One life of a worker: a process from spawn to end, its link, and the questions that it asks.

Boundary: whether another life follows is the worker's business. Invariant: a process that was spawned is reaped, and
none outlives its link by more than `LINGER_S`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from magmobo.extensions.installed import Installed
from magmobo.extensions.workers.api import ApiService, Dispatcher
from magmobo.extensions.workers.credit import LEAST_PER_S
from magmobo.extensions.workers.errors import HandlersDiffer, WorkerEnded, WorkerStartFailed
from magmobo.extensions.workers.link import Link
from magmobo.extensions.workers.process import Ended, Exit, Process
from magx import wire

Spawn = Callable[[Installed], Awaitable[Process]]
Told = Callable[[wire.Log | wire.Figure], None]
LINGER_S = 0.5
_WELCOME = frozenset(["health"])


class Life:
    """Implements `link.Keeper`. `lost` is called once, when nothing can be asked any more of what was ready; the
    process may still have to end.
    """

    def __init__(
        self, installed: Installed, dispatcher: Dispatcher, data_dir: str, told: Told, lost: Callable[[Life], None]
    ) -> None:
        self._fault = self._why = ""
        self.handlers: frozenset[str] = frozenset()
        self._installed, self._dispatcher, self._data_dir = installed, dispatcher, data_dir
        self._told, self._lost = told, lost
        self._loop = asyncio.get_running_loop()
        self.began_s = self._loop.time()
        self._is_lost = self._is_ready = False
        self._exit: Exit | None = None
        self._last_error = ""

    async def start(self, spawn: Spawn, timeout_s: float) -> None:
        """Returns when the extension is ready; else nothing of it is left. Raises: WorkerStartFailed, HandlersDiffer;
        what `spawn` raises.
        """
        self.process = await spawn(self._installed)
        self.ended: asyncio.Task[Ended] = self._loop.create_task(self._reap(), name=f"worker {self._installed.id}")
        concurrency = self._installed.manifest.limits.concurrency
        self.link = Link(self, self._installed.id, self.process.pid, concurrency)
        self.api = ApiService(self._installed, self.link, self._dispatcher)
        try:
            async with asyncio.timeout(timeout_s):
                await self._shake_hands()
        except BaseException as error:
            await self._undo()
            if isinstance(error, TimeoutError):
                raise self._failed(f"it was not ready within {timeout_s:g} s") from None
            if isinstance(error, WorkerEnded):
                raise self._failed(self._fault or self._last_error or self.ended.result().reason) from None
            raise
        self._is_ready = True

    async def _shake_hands(self) -> None:
        installed, link = self._installed, self.link
        await self._loop.create_unix_connection(lambda: link, sock=self.process.socket)
        link.send(
            wire.Start(
                wire.PROTOCOL,
                installed.id,
                installed.version,
                installed.manifest.entry,
                str(installed.code_dir),
                self._data_dir,
                installed.settings,
                sorted(installed.grants),
            )
        )
        ready = await link.ready
        if ready.protocol != wire.PROTOCOL:
            raise self._failed("it speaks another protocol")
        there, wanted = frozenset(ready.handlers), installed.manifest.handlers()
        missing, unknown = sorted(wanted - there), sorted(there - wanted - _WELCOME)
        if missing or unknown:
            raise HandlersDiffer(installed.id, tuple(missing), tuple(unknown[:5]))
        self.handlers = there

    async def _undo(self) -> None:
        self.kill()
        await asyncio.shield(self.ended)

    def _failed(self, reason: str) -> WorkerStartFailed:
        return WorkerStartFailed(self._installed.id, reason)

    async def _reap(self) -> Ended:
        exit = await self.process.wait()
        self._exit = exit
        self._leave()
        return Ended.of(exit, self._why)

    @property
    def escape(self) -> str:
        """What it did that no honest worker does, as far as is known; empty when nothing."""
        return self._fault or ("" if self._exit is None else self._exit.escape)

    def stop(self, timeout_s: float) -> None:
        """Ask it to finish and end; what does not by then is killed."""
        self.link.send(wire.Stop(int(timeout_s * 1000)))
        self._loop.call_later(timeout_s + LINGER_S, self.process.kill)

    def kill(self) -> None:
        """End it now."""
        self.process.kill()
        self._leave()

    def _leave(self) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        self.link.cut()
        self.api.close()
        if self._is_ready:
            self._lost(self)

    # ------------------------------------------------------------ what the link tells

    def on_told(self, frame: wire.Log | wire.Figure) -> None:
        if not self._is_ready and isinstance(frame, wire.Log) and frame.level == "error":
            self._last_error = frame.message
        self._told(frame)

    def on_api(self, frame: wire.Api) -> None:
        self.api.serve(frame)

    def on_fault(self, what: str) -> None:
        self._fault = self._why = what
        self.kill()

    def on_deaf(self) -> None:
        self._why = "it was ended: its loop did not answer"
        self.kill()

    def on_lost(self) -> None:
        # An honest worker ends with its socket, and says how; one that lives on has lost the right to.
        self._loop.call_later(LINGER_S, self.process.kill)
        self._leave()

    def frames_per_s(self) -> float:
        granted = sum(grant.rate_per_minute for grant in self._installed.grants.values())
        return LEAST_PER_S + 2 * granted / 60
