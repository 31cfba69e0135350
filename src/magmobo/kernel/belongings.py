"""What one component holds of the node: its context with tasks, subscriptions and command handlers, in two generations.

Invariant: after `end_serving` nothing is left that was asked for since `begin_serving`, after `close` nothing at all;
but for tasks that ignore their cancellation, which are named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from magmobo.kernel.context import ComponentContext
from magmobo.kernel.subscriptions import ComponentBus
from magmobo.kernel.surroundings import Surroundings
from magmobo.kernel.tasks import TaskSet


class Footprint(Struct, frozen=True):
    """What a component holds at this moment."""

    tasks: int
    subscriptions: int


class Belongings:
    """Of one component. `on_failure` is told the error of a task that raised."""

    def __init__(
        self,
        component: str,
        around: Surroundings,
        capabilities: Sequence[str],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._bus, self._tasks = ComponentBus(around.bus, component), TaskSet(component, on_failure)
        self.context = ComponentContext(component, around, self._bus, self._tasks, capabilities=capabilities)

    @property
    def footprint(self) -> Footprint:
        """What it holds now."""
        return Footprint(len(self._tasks), len(self._bus))

    def begin_serving(self) -> None:
        """What is asked for from now on ends with `end_serving`."""
        self._tasks.begin_serving()
        self._bus.begin_serving()
        self.context.begin_serving()

    async def end_serving(self) -> None:
        """End what was asked for since `begin_serving`; what is spawned and subscribed later ends with the next one."""
        self.context.end_serving()
        await self._bus.end_serving()
        self._complain(await self._tasks.end_serving())

    async def close(self) -> None:
        """End everything; nothing can be spawned any more."""
        self._complain(await self._tasks.close())
        await self._bus.close()
        await self.context.close()

    def _complain(self, left: Sequence[str]) -> None:
        if left:
            self.context.log.warning("tasks of the component do not end", tasks=left)
