"""One watchdog for all async handlers: a timer that runs only while a handler does."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol


class Runner(Protocol):
    """Whoever runs a handler."""

    running_since_s: float

    def overran(self) -> None:
        """End the handler that runs now."""
        ...


class Deadlines:
    """Which handlers run, and who has to end. `running`: by the task that runs the handler."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.running: dict[asyncio.Task[Any], Runner] = {}
        self._timer: asyncio.TimerHandle | None = None

    def began(self, task: asyncio.Task[Any], runner: Runner) -> None:
        """Watch a handler that begins to run."""
        self.running[task] = runner
        if self._timer is None:
            self._arm()

    def ended(self, task: asyncio.Task[Any]) -> None:
        """Stop watching it."""
        self.running.pop(task, None)

    def close(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        # A quarter of the deadline: a handler is cancelled at most 25 % late, for one timer in all.
        self._timer = asyncio.get_running_loop().call_later(self._timeout_s / 4, self._check)

    def _check(self) -> None:
        now_s = asyncio.get_running_loop().time()
        for runner in list(self.running.values()):
            if now_s - runner.running_since_s > self._timeout_s:
                runner.overran()
        self._timer = None
        if self.running:
            self._arm()
