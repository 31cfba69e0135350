"""Faults at an exact place: the n-th time that a task suspends while a boot is under way.

Every task made inside `armed` runs through `Stepped`, which sees each suspension. What happens at the chosen one is the
fault's `mode`:

- `cancel`: whoever called for the boot cancels it;
- `storm`: the same, and again at every suspension that follows, the rollback's too;
- `raise`: what a component waits for there fails;
- `hang`: what a component waits for there never comes.

The latter two strike only where a component waits for something outside of itself, not for a task of its own: failing
there would mean that the task had ended, which it has not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Literal

Mode = Literal["cancel", "storm", "raise", "hang"]


class Injected(Exception):
    """The fault."""


class Fault:
    """One fault; `struck` once it has happened. `victims`: names of components, whose tasks `raise` and `hang` hit."""

    def __init__(self, mode: Mode, at: int, victims: frozenset[str]) -> None:
        self.mode, self.at, self.victims = mode, at, victims
        self.seen, self.struck = 0, False
        self.boot: asyncio.Task[None] | None = None

    def suspended(self, stepped: Stepped, awaited: Any) -> Any:
        """A task waits for `awaited`; returns what it waits for instead."""
        if self.boot is None or self.boot.done():
            return awaited
        if self.mode in ("cancel", "storm"):
            self.seen += 1
            if self.seen == self.at or (self.mode == "storm" and self.struck):
                self.struck = True
                self.boot.cancel()
            return awaited
        if self.struck or isinstance(awaited, asyncio.Task) or not self._is_component(asyncio.current_task()):
            return awaited
        self.seen += 1
        if self.seen < self.at:
            return awaited
        self.struck = True
        return self._fail(stepped, awaited) if self.mode == "raise" else _never(awaited)

    def _fail(self, stepped: Stepped, awaited: Any) -> Any:
        if isinstance(awaited, asyncio.Future):
            awaited.cancel()
        return stepped.inner.throw(Injected())

    def _is_component(self, task: asyncio.Task[Any] | None) -> bool:
        return task is not None and task.get_name().replace(":", ".").split(".")[0] in self.victims


def _never(awaited: Any) -> asyncio.Future[None]:
    stand_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    stand_in._asyncio_future_blocking = True
    if isinstance(awaited, asyncio.Future):
        stand_in.add_done_callback(lambda _: awaited.cancel())
    return stand_in


class Stepped(Coroutine[Any, Any, Any]):
    """A coroutine whose suspensions are seen by a fault."""

    def __init__(self, inner: Coroutine[Any, Any, Any], fault: Fault) -> None:
        self.inner, self._fault = inner, fault

    def send(self, value: Any) -> Any:
        return self._fault.suspended(self, self.inner.send(value))

    def throw(self, *error: Any) -> Any:
        return self._fault.suspended(self, self.inner.throw(*error))

    def close(self) -> None:
        self.inner.close()

    def __await__(self) -> Any:
        return self.inner.__await__()

    @property
    def cr_frame(self) -> Any:
        return None

    @property
    def cr_await(self) -> Any:
        return self.inner


@contextmanager
def armed(fault: Fault) -> Iterator[None]:
    """Inside the block every new task of this loop is seen by `fault`."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        return asyncio.Task(Stepped(coroutine, fault), loop=loop, **more)

    loop.set_task_factory(make)
    try:
        yield
    finally:
        loop.set_task_factory(before)
