"""Who may do something with a component now: one operation at a time, and a shutdown that does not queue.

An operation that takes the component down for good is the last: it ends a hook that tries to bring the component up,
and gives any other one some time to end by itself. A reload holds the turns of several components together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from magmobo.kernel.supervision.errors import NotNow
from magmobo.kernel.supervision.hooks import HookRunner


class Turns:
    """Of one component. `is_leaving`: it is being taken down for good. `is_rising`: a hook runs that is to end with the
    component serving. `is_held`: by a reload, beside which a running component may fail.
    """

    def __init__(self, component: str, hooks: HookRunner) -> None:
        self._component, self._hooks = component, hooks
        self._lock = asyncio.Lock()
        self.is_leaving = self.is_rising = self.is_held = False

    @property
    def is_taken(self) -> bool:
        """Whether an operation is under way."""
        return self._lock.locked()

    @asynccontextmanager
    async def next(self, *, for_good_s: float | None = None) -> AsyncIterator[None]:
        """The next turn, for the length of the block. Raises: NotNow once the component leaves for good.

        for_good_s: this is the last operation; what is under way gets so long to end by itself, a rising hook no time.
        """
        patience: asyncio.TimerHandle | None = None
        if for_good_s is not None:
            self.is_leaving = True
            delay_s = 0.0 if self.is_rising else for_good_s
            patience = asyncio.get_running_loop().call_later(delay_s, self._hooks.interrupt, self.not_now())
        try:
            await self._lock.acquire()
        finally:
            if patience is not None:
                patience.cancel()
        try:
            if self.is_leaving and for_good_s is None:
                raise self.not_now()
            yield
        finally:
            self._lock.release()

    async def hold(self) -> None:
        """Take the turn and keep it until `let_go`. Raises: NotNow."""
        await self._lock.acquire()
        if self.is_leaving:
            self._lock.release()
            raise self.not_now()
        self.is_held = True

    def let_go(self) -> None:
        """Give a held turn back; calling it again does nothing."""
        if self.is_held:
            self.is_held = False
            self._lock.release()

    async def rest(self) -> None:
        """Return when what is under way has ended."""
        async with self._lock:
            pass

    def not_now(self) -> NotNow:
        """Why nothing can be done with a component that leaves."""
        return NotNow(self._component, "it is being taken down")


async def hold_together(turns: Sequence[Turns]) -> None:
    """Hold all of them. None is kept while another is waited for, so that nobody else has to wait for that, too.

    Raises: NotNow; then none is held.
    """
    while busy := next((one for one in turns if one.is_taken), None):
        await busy.rest()
    try:
        for one in turns:
            await one.hold()
    except BaseException:
        for one in turns:
            one.let_go()
        raise
