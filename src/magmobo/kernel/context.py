"""What one component sees of the node. Everything made through it belongs to that component and ends with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from magmobo.contracts.audit import Audit
from magmobo.contracts.bus import Bus
from magmobo.contracts.stores import Cache, State, StateEntry, StateWatch
from magmobo.kernel.surroundings import Surroundings
from magmobo.kernel.tasks import TaskSet

if TYPE_CHECKING:
    import structlog

    from magmobo.contracts.commands import C, Command, CommandHandler, CommandRegistration
    from magmobo.contracts.hooks import Hooks
    from magmobo.contracts.metrics import Metrics
    from magmobo.contracts.planes import Vault
    from magmobo.kernel.commands.bus import ScopedCommands
    from magmobo.kernel.commands.handlers import Handler


class ComponentCommands:
    """Implements `contracts.commands.Commands`. What is answered since the component serves ends when it stops."""

    def __init__(self, open_scope: Callable[[], ScopedCommands]) -> None:
        self._open_scope = open_scope
        self._serving: list[Handler] | None = None

    @cached_property
    def _scoped(self) -> ScopedCommands:
        return self._open_scope()  # a component without commands needs no command bus

    def handle(self, command_type: type[C], handler: CommandHandler[C]) -> CommandRegistration:
        registration = self._scoped.handle(command_type, handler)
        if self._serving is not None:
            self._serving.append(registration)
        return registration

    async def call(self, command: Command, *, timeout_s: float = 30.0) -> Any:
        return await self._scoped.call(command, timeout_s=timeout_s)

    def begin_serving(self) -> None:
        """What is registered from now on ends with `end_serving`."""
        self._serving = []

    def end_serving(self) -> None:
        """Answer no more what was registered since `begin_serving`; what is being answered is interrupted."""
        for registration in self._serving or ():
            registration.revoke()
        self._serving = []


class ComponentState:
    """Implements `contracts.stores.State`. What is watched since the component serves ends when it stops."""

    def __init__(self, scope: State) -> None:
        self.get, self.entries = scope.get, scope.entries
        self.put, self.put_all, self.delete = scope.put, scope.put_all, scope.delete
        self._watch = scope.watch
        self._serving: list[StateWatch] | None = None

    def watch(self, prefix: str, handler: Callable[[StateEntry | None, str], None]) -> StateWatch:
        watch = self._watch(prefix, handler)
        if self._serving is not None:
            self._serving.append(watch)
        return watch

    def begin_serving(self) -> None:
        """What is watched from now on ends with `end_serving`."""
        self._serving = []

    def end_serving(self) -> None:
        """Watch no more what was watched since `begin_serving`."""
        for watch in self._serving or ():
            watch.cancel()
        self._serving = []


class ComponentContext:
    """Implements `contracts.component.Context`."""

    def __init__(
        self, component: str, around: Surroundings, bus: Bus, tasks: TaskSet, *, capabilities: Sequence[str] = ()
    ) -> None:
        self.component = component
        self.instance_id, self.environment, self.data_dir = around.instance_id, around.environment, around.data_dir
        self.bus, self.clock = bus, around.clock
        self.spawn = tasks.spawn
        self._services = around.services
        self.commands = ComponentCommands(lambda: around.services.commands_of(component, capabilities))
        self.metrics: Metrics = around.services.metrics.scoped(component)
        self._state = ComponentState(around.services.states.scope(component))
        self.state: State = self._state
        self.audit: Audit = around.services.audit
        self.hide = around.services.known.public_text

    @cached_property
    def log(self) -> structlog.stdlib.BoundLogger:
        import structlog  # 60 ms; a component that logs nothing costs none

        logger: structlog.stdlib.BoundLogger = structlog.get_logger().bind(component=self.component)
        return logger

    @cached_property
    def cache(self) -> Cache:
        return self._services.caches.scope(self.component)

    @cached_property
    def hooks(self) -> Hooks:
        return self._services.hooks

    @cached_property
    def vault(self) -> Vault:
        return self._services.vault_of(self.component)

    def begin_serving(self) -> None:
        """What is asked for from now on ends with `end_serving`."""
        self.commands.begin_serving()
        self._state.begin_serving()

    def end_serving(self) -> None:
        """End what was asked for since `begin_serving`."""
        self.commands.end_serving()
        self._state.end_serving()

    async def close(self) -> None:
        """End everything that the component asked for."""
        await self._services.close_owner(self.component)
