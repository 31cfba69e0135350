"""What one component sees of the node. Everything made through it belongs to that component and ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import structlog
from msgspec import Struct

from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import Unavailable
from magmobo.kernel.bus.bus import EventBus, ScopedBus
from magmobo.kernel.deadline import end

T = TypeVar("T")


class Surroundings(Struct, frozen=True):
    """What all components of a node have in common."""

    instance_id: str
    environment: str
    version: str
    data_dir: Path
    bus: EventBus
    clock: Clock


class TaskSet:
    """The tasks of one component. A task that raises reports the component as failed; the others go on."""

    def __init__(self, owner: str, on_failure: Callable[[BaseException], None]) -> None:
        self._owner, self._on_failure = owner, on_failure
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def spawn(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """See `contracts.component.Context.spawn`. Raises: Unavailable once the component has ended."""
        if self._closed:
            coroutine.close()
            raise Unavailable(f'component "{self._owner}"')
        task = asyncio.create_task(coroutine, name=f"{self._owner}:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(error)

    async def close(self) -> None:
        """Cancel every task and wait for their ends; nothing can be spawned any more."""
        self._closed = True
        await asyncio.gather(*(end(task) for task in tuple(self._tasks)))

    def __len__(self) -> int:
        return len(self._tasks)


class ComponentContext:
    """Implements `contracts.component.Context`."""

    def __init__(self, component: str, around: Surroundings, bus: ScopedBus, tasks: TaskSet) -> None:
        self.component = component
        self.instance_id, self.environment, self.data_dir = around.instance_id, around.environment, around.data_dir
        self.bus, self.clock = bus, around.clock
        self.log: structlog.stdlib.BoundLogger = structlog.get_logger().bind(component=component)
        self.spawn = tasks.spawn
