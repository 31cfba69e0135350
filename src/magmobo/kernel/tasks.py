"""The tasks of one component, in two generations: those of its boot and those since it began to serve.

Invariant: a task is cancelled by `end_serving` when it was spawned after `begin_serving`, and by `close` in any case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from magmobo.contracts.errors import Unavailable
from magmobo.kernel.deadline import contain, end

T = TypeVar("T")
_ROUNDS = 3  # a task that is cancelled may spawn another one in its `finally`


class TaskSet:
    """A task that raises is reported to `on_failure`; the others go on."""

    def __init__(self, owner: str, on_failure: Callable[[BaseException], None]) -> None:
        self._owner, self._on_failure = owner, on_failure
        self._of_boot: set[asyncio.Task[Any]] = set()
        self._serving: set[asyncio.Task[Any]] = set()
        self._current, self._closed = self._of_boot, False

    def spawn(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """See `contracts.component.Context.spawn`. Raises: Unavailable once the component has ended."""
        if self._closed:
            coroutine.close()
            raise Unavailable(f'component "{self._owner}"')
        task = asyncio.create_task(contain(coroutine), name=f"{self._owner}:{name}")
        # Cancelled before its first step, it would leave the coroutine unawaited.
        task.add_done_callback(lambda _: coroutine.close())
        task.add_done_callback(self._ended)
        self._current.add(task)
        return task

    def begin_serving(self) -> None:
        """What is spawned from now on ends with `end_serving`."""
        self._current = self._serving

    async def end_serving(self) -> list[str]:
        """Cancel what was spawned since `begin_serving` and wait; returns the names of those that did not end."""
        return await _end_all(self._serving)

    async def close(self) -> list[str]:
        """Cancel every task and wait; nothing can be spawned any more. Returns the names of those that did not end."""
        self._closed = True
        return [*await _end_all(self._serving), *await _end_all(self._of_boot)]

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._serving.discard(task)
        self._of_boot.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(error)

    def __len__(self) -> int:
        return len(self._of_boot) + len(self._serving)


async def _end_all(tasks: set[asyncio.Task[Any]]) -> list[str]:
    for _ in range(_ROUNDS):
        if not tasks:
            break
        await asyncio.gather(*(end(task) for task in tuple(tasks)))
    return sorted(task.get_name() for task in tasks)
