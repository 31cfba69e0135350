"""The settings of one kernel: those that count, and whoever may change them while it runs.

The reloader takes 15 ms to load, so it is made when somebody wants it, or behind the start. Invariant: a secret that
was read for the first configuration is on record before a component is made with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING

from msgspec import Struct

from magmobo.contracts.component import Component
from magmobo.contracts.errors import Unavailable
from magmobo.kernel.chronicle import record_reads
from magmobo.kernel.config.loader import Config
from magmobo.kernel.current import Current
from magmobo.kernel.deadline import end
from magmobo.kernel.observe.quiet import QuietLog
from magmobo.kernel.services import KERNEL_ACTOR
from magmobo.kernel.surroundings import Surroundings

if TYPE_CHECKING:
    from magmobo.kernel.assembly import Assembly
    from magmobo.kernel.commands.bus import ScopedCommands
    from magmobo.kernel.config.source import ConfigSource, Start
    from magmobo.kernel.config.versions import Versions
    from magmobo.kernel.reloader import Reloader
    from magmobo.kernel.stages import Stages
    from magmobo.kernel.tuning import OnCoreChange

_AFTER_READY_S = 0.2  # loading it at once made who waits for the node wait 5 ms longer


class Settings:
    """Of one kernel. Arguments as of the kernel; without a `source` they stay as they are."""

    def __init__(
        self,
        config: Config,
        source: ConfigSource | None,
        start: Start | None,
        versions: Versions | None,
        on_core_change: OnCoreChange | None,
        log: QuietLog,
    ) -> None:
        self.current = Current(config)
        self._source, self._start, self._versions = source, start, versions
        self._on_core_change, self._log = on_core_change, log
        self._unrecorded = start.reads if start is not None else ()
        self._beginning: asyncio.Task[None] | None = None

    def join(self, around: Surroundings, stages: Stages, assembly: Callable[[], Assembly]) -> None:
        """Learn of the rest of the kernel. `assembly` raises NotReady while components come up or go down."""
        self._around, self._stages, self._assembly = around, stages, assembly

    @cached_property
    def reloader(self) -> Reloader:
        """Raises: Unavailable without a `source`."""
        from magmobo.kernel.attempt import Node
        from magmobo.kernel.reloader import Reloader
        from magmobo.kernel.tuning import Tuning

        if self._source is None or self._start is None:
            raise Unavailable("the change of settings")
        around = self._around
        tuning = Tuning(self.current, self._stages, around.services, around.bus, self._log, self._on_core_change)
        node = Node(
            environment=around.environment,
            current=self.current,
            assembly=self._assembly,
            services=around.services,
            bus=around.bus,
            clock=around.clock,
            tuning=tuning,
            log=self._log,
        )
        return Reloader(node, self._source, self._start, self._versions)

    @property
    def reloader_in_use(self) -> Reloader | None:
        """The reloader once it was made: before, nothing can be told of it."""
        return self.reloader if "reloader" in self.__dict__ else None  # where `cached_property` keeps what it made

    def answer(self, commands: ScopedCommands) -> None:
        """Answer the commands about settings and secrets, where there are any to change."""
        if self._source is None:
            return
        from magmobo.kernel.configuration import ConfigurationOperations

        ConfigurationOperations(lambda: self.reloader, self._sections).register(commands)
        if (secrets := self._around.services.secrets) is not None:
            from magmobo.kernel.secrets import SecretOperations

            SecretOperations(secrets, lambda: self.reloader).register(commands)

    def _sections(self) -> Mapping[str, type[Struct]]:
        config = self.current.config
        return {name: type(config.section(name)) for name in config.sections}

    def notices(self) -> Sequence[str]:
        """What an operator should know about the settings, a line each."""
        return self.reloader_in_use.notices() if self.reloader_in_use is not None else ()

    async def record_reads(self) -> None:
        """Put on record which secrets the first configuration holds; once. Raises: AuditUnavailable."""
        reads, self._unrecorded = self._unrecorded, ()
        await record_reads(self._around.services.audit, reads, KERNEL_ACTOR)

    async def admit(self, component_type: type[Component]) -> None:
        """A component is to join: let its section count. Raises: as `Reloader.admit`."""
        if component_type.config_type is not None:
            await self.reloader.admit(component_type.name, component_type.config_type)

    def begin(self) -> None:
        """The node is ready. At the first time, what was set at run time begins to be watched, behind the start."""
        if self._source is not None and self._beginning is None:
            self._beginning = asyncio.create_task(self._begin(), name="kernel:settings")

    async def _begin(self) -> None:
        await asyncio.sleep(_AFTER_READY_S)
        await asyncio.to_thread(import_module, "magmobo.kernel.reloader")
        self.reloader.begin()

    async def close(self, timeout_s: float) -> None:
        """The node goes down: a change under way gets about `timeout_s` to be taken back; none is begun any more."""
        if self._beginning is not None:
            await end(self._beginning)
        if self.reloader_in_use is not None:
            await self.reloader_in_use.close(timeout_s)
