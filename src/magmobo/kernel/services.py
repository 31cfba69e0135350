"""What the kernel keeps for its components: durable state, cache, audit log, figures and commands, each by owner.

They are opened once, before the first component is made, and closed after the last one has gone; a reset of the node
leaves them open, so that the order for it is still on record and answered. Cache and commands are made for the first
who wants them: together they take 5 ms. Invariant: what an owner got here is gone after `close_owner`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import AuditUnavailable, MagError, StateUnavailable, Unavailable
from magmobo.kernel.audit.log import AuditLog
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.bus.trace import cause_here
from magmobo.kernel.config.core import CacheConfig, SecurityConfig
from magmobo.kernel.errors import describe
from magmobo.kernel.known import KnownSecrets
from magmobo.kernel.observe.metrics import MetricsRegistry
from magmobo.kernel.observe.quiet import QuietLog
from magmobo.kernel.places import audit_dir, state_file
from magmobo.kernel.state.manager import StateManager

if TYPE_CHECKING:
    from magmobo.contracts.planes import Vault
    from magmobo.kernel.cache.manager import CacheManager
    from magmobo.kernel.commands.bus import CommandBus, ScopedCommands
    from magmobo.kernel.hooks import HookBoard
    from magmobo.kernel.security.gate import Gate
    from magmobo.kernel.vault.driver import VaultDriver
    from magmobo.kernel.vault.store import SecretStore

KERNEL = "kernel"
KERNEL_ACTOR = Actor(name=KERNEL, role=Role.ADMIN, via="kernel")


class Services:
    """One of each, for one node. `problems` is what an operator should know about them; `known` hides its secrets.

    `furnish` gets the command bus when it is made, before anybody else can answer a command. `vault`: where secrets are
    kept, if anywhere.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        instance_id: str,
        security: SecurityConfig,
        cache: CacheConfig,
        known: KnownSecrets,
        bus: EventBus,
        clock: Clock,
        log: QuietLog,
        furnish: Callable[[CommandBus], None],
        vault: VaultDriver | None = None,
    ) -> None:
        self._vault = vault
        self._data_dir, self._bus, self._clock, self._log = data_dir, bus, clock, log
        self._instance_id, self._cache_config, self._furnish = instance_id, cache, furnish
        self._is_open = self._is_closed = False
        self.known = known
        self.metrics = MetricsRegistry(known.hidden)
        self.states = StateManager(state_file(data_dir), self._problem)
        self.audit = AuditLog(
            audit_dir(data_dir),
            self.states.scope("audit"),
            mask=known.value,
            time_s=clock.time_s,
            checkpoint_every=security.audit_checkpoint_every,
            on_problem=self._problem,
        )

    @cached_property
    def hooks(self) -> HookBoard:
        from magmobo.kernel.hooks import HookBoard

        return HookBoard()

    @cached_property
    def caches(self) -> CacheManager:
        """Raises: Unavailable after `close`."""
        from magmobo.kernel.cache.manager import CacheManager

        self._check_not_closed("the cache")
        return CacheManager(
            self._cache_config,
            monotonic_s=self._clock.monotonic_s,
            node_id=self._instance_id,
            on_problem=self._problem,
        )

    @cached_property
    def secrets(self) -> SecretStore | None:
        """The vault of this node, None where there is none."""
        if self._vault is None:
            return None
        from magmobo.kernel.vault.store import SecretStore

        return SecretStore(self._vault, self.states.scope("vault"), on_secret=self.known.add, on_problem=self._problem)

    @cached_property
    def gate(self) -> Gate:
        """What is asked before a command is let through."""
        from magmobo.kernel.security.gate import Gate

        return Gate(self._bus.emit)

    @cached_property
    def commands(self) -> CommandBus:
        """Raises: Unavailable after `close`."""
        from magmobo.kernel.commands.bus import CommandBus

        self._check_not_closed("the command bus")
        commands = CommandBus(
            gate=self.gate,
            audit=self.audit,
            state=self.states.scope("commands"),
            time_s=self._clock.time_s,
            monotonic_s=self._clock.monotonic_s,
            trace=self._bus.trace,
            current_trace=_current_trace,
            on_failure=self._command_failed,
            hide=self.known.answer,
        )
        self._furnish(commands)
        return commands

    @property
    def problems(self) -> Sequence[str]:
        """Damage that was found and set aside, layers that are gone; a line each."""
        caches = self.caches.problems if self._is_made("caches") else ()
        return [*self.states.problems, *self.audit.problems, *caches]

    async def open(self) -> None:
        """Open what is not open yet, and see that the vault is the newest one known.

        Raises: StateUnavailable, AuditUnavailable, VaultUnavailable and their kinds; then all is closed.
        """
        if self._is_open:
            return
        _make_folder(state_file(self._data_dir).parent, StateUnavailable)
        _make_folder(audit_dir(self._data_dir), AuditUnavailable)
        try:
            await self.states.open()
            await self.audit.open()
            if self.secrets is not None:
                await self.secrets.check()
            if self._cache_config.redis_url is not None:  # the other layer needs no opening
                await self.caches.open()
        except BaseException:
            await self._close_stores()
            raise
        self._is_open = True

    def tune(self, security: SecurityConfig, cache: CacheConfig) -> None:
        """Other settings count from now on; a Redis stays the one that it was opened with."""
        self.known.hides_emails = security.redact_emails
        self.audit.tune(checkpoint_every=security.audit_checkpoint_every)
        self._cache_config = structs.replace(self._cache_config, memory_bytes=cache.memory_bytes)
        if self._is_made("caches"):
            self.caches.memory.resize(cache.memory_bytes)

    async def close(self) -> None:
        """Let go of everything; calling it again does nothing."""
        self._is_closed = True
        if self._is_made("commands"):
            await self.commands.close()
        await self._close_stores()
        self._is_open = False

    async def _close_stores(self) -> None:
        if self._is_made("caches"):
            await self.caches.close()
        if self._is_made("secrets") and self.secrets is not None:
            await self.secrets.close()
        await self.audit.close()
        await self.states.close()

    # ------------------------------------------------------------ by owner

    def commands_of(self, owner: str, capabilities: Sequence[str]) -> ScopedCommands:
        """The command bus for a component, which asks with exactly these capabilities."""
        return self.commands.scoped(owner, _component(owner, capabilities))

    def vault_of(self, owner: str) -> Vault:
        """The vault for a component. Raises: Unavailable where there is none."""
        if self.secrets is None:
            raise Unavailable("the vault")
        from magmobo.kernel.vault.manager import ComponentVault

        return ComponentVault(self.secrets, self.audit, _component(owner))

    async def close_owner(self, owner: str) -> None:
        """End what a component has here; its durable entries stay."""
        if self._is_made("commands"):
            await self.commands.close_owner(owner)
        self.states.close_owner(owner)
        if self._is_made("caches"):
            await self.caches.close_owner(owner)
        self.metrics.close_owner(owner)

    # ------------------------------------------------------------ inside

    def _is_made(self, name: str) -> bool:
        return name in self.__dict__  # where `cached_property` keeps what it made

    def _check_not_closed(self, what: str) -> None:
        if self._is_closed:
            raise Unavailable(what)

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


def _component(owner: str, capabilities: Sequence[str] = ()) -> Actor:
    return Actor(name=f"component:{owner}", role=Role.VIEWER, via="component", capabilities=frozenset(capabilities))


def _make_folder(folder: Path, unavailable: Callable[[str], MagError]) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError as error:
        raise unavailable(f"what is called {folder.name} in the data folder is no folder") from error
    except OSError as error:
        raise unavailable(f"{folder.name} in the data folder: {error.strerror}") from error


def _current_trace() -> str:
    cause = cause_here.get()
    return "" if cause is None else cause.trace_id or cause.id
