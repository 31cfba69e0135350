"""What the kernel keeps for its components: durable state, cache, audit log, figures and commands, each by owner.

They are opened once, before the first component is made, and closed after the last one has gone; a reset of the node
leaves them open, so that the order for it is still on record and answered. Invariant: what an owner got here is gone
after `close_owner`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.clock import Clock
from magmobo.kernel.audit.log import AuditLog
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.bus.trace import cause_here
from magmobo.kernel.cache.manager import CacheManager
from magmobo.kernel.commands.bus import CommandBus, ScopedCommands
from magmobo.kernel.config.core import CacheConfig, SecurityConfig
from magmobo.kernel.errors import describe
from magmobo.kernel.observe.metrics import MetricsRegistry
from magmobo.kernel.observe.quiet import QuietLog
from magmobo.kernel.observe.redact import redact
from magmobo.kernel.places import audit_dir, state_file
from magmobo.kernel.security.gate import Gate
from magmobo.kernel.state.manager import StateManager

KERNEL = "kernel"
KERNEL_ACTOR = Actor(name=KERNEL, role=Role.ADMIN, via="kernel")


class Services:
    """One of each, for one node. `problems` is what an operator should know about them."""

    def __init__(
        self,
        *,
        data_dir: Path,
        instance_id: str,
        security: SecurityConfig,
        cache: CacheConfig,
        bus: EventBus,
        clock: Clock,
        log: QuietLog,
    ) -> None:
        self._data_dir, self._bus, self._log = data_dir, bus, log
        self._is_open = False
        self.metrics = MetricsRegistry()
        self.states = StateManager(state_file(data_dir), self._problem)
        self.audit = AuditLog(
            audit_dir(data_dir),
            self.states.scope("audit"),
            mask=redact,
            time_s=clock.time_s,
            checkpoint_every=security.audit_checkpoint_every,
            on_problem=self._problem,
        )
        self.caches = CacheManager(cache, monotonic_s=clock.monotonic_s, node_id=instance_id, on_problem=self._problem)
        self.gate = Gate(bus.emit)
        self.commands = CommandBus(
            gate=self.gate,
            audit=self.audit,
            state=self.states.scope("commands"),
            time_s=clock.time_s,
            monotonic_s=clock.monotonic_s,
            trace=bus.trace,
            current_trace=_current_trace,
            on_failure=self._command_failed,
        )

    @property
    def problems(self) -> Sequence[str]:
        """Damage that was found and set aside, layers that are gone; a line each."""
        return [*self.states.problems, *self.audit.problems, *self.caches.problems]

    async def open(self) -> None:
        """Open what is not open yet. Raises: StateUnavailable, AuditUnavailable and their kinds; then all is closed."""
        if self._is_open:
            return
        for folder in (state_file(self._data_dir).parent, audit_dir(self._data_dir)):
            folder.mkdir(mode=0o700, exist_ok=True)
        try:
            await self.states.open()
            await self.audit.open()
            await self.caches.open()
        except BaseException:
            await self._close_stores()
            raise
        self._is_open = True

    async def close(self) -> None:
        """Let go of everything; calling it again does nothing."""
        await self.commands.close()
        await self._close_stores()
        self._is_open = False

    async def _close_stores(self) -> None:
        await self.caches.close()
        await self.audit.close()
        await self.states.close()

    # ------------------------------------------------------------ by owner

    def commands_of(self, owner: str, capabilities: Sequence[str]) -> ScopedCommands:
        """The command bus for a component, which asks with exactly these capabilities."""
        actor = Actor(
            name=f"component:{owner}", role=Role.VIEWER, via="component", capabilities=frozenset(capabilities)
        )
        return self.commands.scoped(owner, actor)

    async def close_owner(self, owner: str) -> None:
        """End what a component has here; its durable entries stay."""
        await self.commands.close_owner(owner)
        self.states.close_owner(owner)
        await self.caches.close_owner(owner)
        self.metrics.close_owner(owner)

    # ------------------------------------------------------------ what goes wrong

    def _problem(self, text: str) -> None:
        self._log.error("a store of the kernel has a problem", problem=text)

    def _command_failed(self, owner: str, command: str, trace_id: str, error: BaseException) -> None:
        self._log.error(
            "command failed",
            owner=owner,
            command=command,
            correlation_id=trace_id,
            error=describe(error),
            exc_info=error,
        )


def _current_trace() -> str:
    cause = cause_here.get()
    return "" if cause is None else cause.trace_id or cause.id
