"""An event loop whose time passes only when nothing is left to do: deadlines of minutes cost no time, and none is
missed because the machine is busy.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Does not wait: tells the loop how long it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("the loop waits for something that never comes")
            self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """What the loop complained about is in `complaints`."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self.complaints: list[str] = []
        self.set_exception_handler(lambda _, context: self.complaints.append(str(context)))

    def time(self) -> float:
        return self._jumping.now_s


class LoopClock:
    """Implements `contracts.clock.Clock` on the time of a loop. The wall clock may be stepped."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._offset_s = loop, 1_700_000_000.0

    def time_s(self) -> float:
        return self._offset_s + self._loop.time()

    def monotonic_s(self) -> float:
        return self._loop.time()

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s)

    def step_wall_time(self, duration_s: float) -> None:
        self._offset_s += duration_s


def run_virtually(story: Coroutine[Any, Any, T]) -> T:
    """Run a whole test; nothing may be left of it, and the loop must have had no complaint."""
    loop = VirtualLoop()
    try:
        outcome = loop.run_until_complete(story)
        left = [task.get_name() for task in asyncio.all_tasks(loop)]
        assert not left, f"tasks left behind: {left}"
        assert not loop.complaints
        return outcome
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
