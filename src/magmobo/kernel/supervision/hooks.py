"""The hooks of one component, one at a time, each under a deadline.

Invariant: no hook begins while an earlier one still runs, also when that one swallowed its cancellation; only the last
hook, `shutdown`, runs in any case, because what `boot` took must be given back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from magmobo.kernel.deadline import Overrun, end, run_bounded, waiting_at
from magmobo.kernel.errors import PhaseTimeout
from magmobo.kernel.supervision.errors import HookStuck


class HookRunner:
    """Runs the hooks of `component` in tasks named `<component>.<phase>`."""

    def __init__(self, component: str) -> None:
        self._component = component
        self._phase = ""
        self._task: asyncio.Task[None] | None = None
        self._interruption: asyncio.Future[BaseException] | None = None

    async def run(self, phase: str, hook: Callable[[], Coroutine[Any, Any, None]], timeout_s: float) -> None:
        """Await one hook. Raises: PhaseTimeout, HookStuck, HookEscaped, its interruption, whatever the hook raises."""
        if phase != "shutdown":
            await self._wait_for_the_last_one()
        self._phase, self._interruption = phase, asyncio.get_running_loop().create_future()
        try:
            await run_bounded(
                hook(), timeout_s=timeout_s, name=f"{self._component}.{phase}",
                interruption=self._interruption, began=self._began,
            )  # fmt: skip
        except Overrun as error:
            raise PhaseTimeout(self._component, phase, timeout_s, error.where) from error
        finally:
            self._interruption = None

    def interrupt(self, reason: BaseException) -> bool:
        """End the hook that runs now; its caller gets `reason`. Whether there was one."""
        if self._interruption is None or self._interruption.done():
            return False
        self._interruption.set_result(reason)
        return True

    def _began(self, task: asyncio.Task[None]) -> None:
        self._task = task

    async def _wait_for_the_last_one(self) -> None:
        if self._task is None or self._task.done() or await end(self._task):
            return
        raise HookStuck(self._component, self._phase, waiting_at(self._task))
