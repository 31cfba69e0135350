"""Keeps a running node at what its settings say: files that change, SIGHUP, and what the process itself does then.

Boundary: asks the kernel's reloader, which decides and tells; here is what a process has besides its kernel: its log,
its operators' token, its vault's driver, its service manager.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Set
from contextlib import suppress
from pathlib import Path

import structlog

from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.errors import MagError
from magmobo.contracts.events import ConfigReloaded, SystemReady
from magmobo.kernel.config.core import AdminConfig, KernelConfig, LoggingConfig, VaultConfig
from magmobo.kernel.config.loader import Config
from magmobo.kernel.errors import NotReady
from magmobo.kernel.kernel import Kernel
from magmobo.kernel.observe.logging import LogOutput
from magmobo.node.configuration import NodeConfigSource
from magmobo.node.notify import Notifier
from magmobo.node.operators import NodeOperators
from magmobo.node.settings import NodeOptions, watched_files
from magmobo.node.watch import FileWatch

FILES = Actor(name="files", role=Role.ADMIN, via="kernel")
SIGNAL = Actor(name="signal", role=Role.ADMIN, via="kernel")
VAULT = Actor(name="vault", role=Role.ADMIN, via="kernel")
OWNER = "node"
_UP = ("ready", "degraded")
_COARSE_S = 1.0  # some file systems' clocks are no finer than that


class Following:
    """Of one node. `config` is what counts first; its files were read after `read_at_s` (seconds since 1970)."""

    def __init__(
        self, options: NodeOptions, config: Config, source: NodeConfigSource, notifier: Notifier, *, read_at_s: float
    ) -> None:
        self._options, self._config, self._source, self._notifier = options, config, source, notifier
        self._read_at_s = read_at_s
        self._environment = self._kernel_section.environment
        self._log = structlog.get_logger().bind(component="config")
        self._signalled, self._came_back, self._vault_changed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.watch = FileWatch(
            self._files,
            self._files_changed,
            interval_s=lambda: self._kernel_section.watch_interval_s,
            is_on=lambda: self._kernel_section.watch_files,
        )
        self._output: LogOutput | None = None
        self._operators: NodeOperators | None = None
        self._kernel: Kernel | None = None
        self._is_signal_due = self._has_refused = False

    # ------------------------------------------------------------ the node's side

    def versions_kept(self) -> int:
        """How many versions of the settings are kept."""
        return self._kernel_section.config_versions

    def log_to(self, output: LogOutput) -> None:
        """The log whose level and format follow the settings."""
        self._output = output

    def signalled(self) -> None:
        """SIGHUP came. Also before the node is ready: then it counts as soon as it is."""
        self._signalled.set()

    def core_changed(self, config: Config, changed: Set[str]) -> None:
        """See `kernel.tuning.OnCoreChange`."""
        self._config = config
        if self._output is not None and not changed.isdisjoint({"logging.level", "logging.format"}):
            logging: LoggingConfig = config.section("logging")
            self._output.set_level(logging.level)
            if "logging.format" in changed:
                stream = None if logging.format == "off" else sys.stderr
                self._output.set_stream(stream, "pretty" if logging.format == "pretty" else "json")
        if any(key.startswith("vault.") for key in changed):
            self._vault_changed.set()
        if self._operators is not None and "admin.token_sha256" in changed:
            admin: AdminConfig = config.section("admin")
            self._operators.take_token(admin.token_sha256)

    # ------------------------------------------------------------ while it serves

    def operators(self, operators: NodeOperators) -> None:
        """Those whose token follows the settings."""
        self._operators = operators

    async def run(self, kernel: Kernel) -> None:
        """Follow until cancelled; the node is ready."""
        self._kernel = kernel
        self.watch.note()
        if self._kernel_section.watch_files and await asyncio.to_thread(self._may_have_changed):
            await self._files_changed()
        # A reload is refused while the node resets, so the files are read once more when it has come back.
        kernel.bus.subscribe(OWNER, SystemReady, lambda _: self._came_back.set())
        kernel.bus.subscribe(OWNER, ConfigReloaded, lambda _: self._well())
        async with asyncio.TaskGroup() as group:
            group.create_task(self.watch.run(), name="node:watch")
            group.create_task(self._obey_signals(), name="node:sighup")
            group.create_task(self._read_again(), name="node:read-again")
            group.create_task(self._follow_vault(kernel), name="node:vault")

    async def _obey_signals(self) -> None:
        while True:
            await self._signalled.wait()
            self._signalled.clear()
            self._notifier.reloading()
            if await self._reload("signal", SIGNAL):
                self._notifier.ready()
            else:  # the reset says that it is ready, and the signal's turn comes then
                self._is_signal_due = True

    async def _read_again(self) -> None:
        while True:
            await self._came_back.wait()
            self._came_back.clear()
            if self._is_signal_due:
                self._is_signal_due = False
                self._signalled.set()
            elif self._kernel_section.watch_files:
                await self._files_changed()

    async def _follow_vault(self, kernel: Kernel) -> None:
        """What section [vault] says now: another token for a server, or another key, under which the local file is
        encrypted anew. Settings that the vault cannot follow are taken back.
        """
        store = kernel.services.secrets
        if store is None:
            return
        taken = self._source.vault_settings
        while True:
            await self._vault_changed.wait()
            self._vault_changed.clear()
            config: VaultConfig = self._config.section("vault")
            try:
                if store.name == "local" and (config.key, config.passphrase) != (taken.key, taken.passphrase):
                    await kernel.services.audit.record("vault.rekey", actor=VAULT, payload={"because": "settings"})
                await store.reconfigure(config)
                self._source.take_vault_settings(config)
                taken = config
            except Exception as error:
                self._log.exception("the vault does not take its settings, which are taken back", error=str(error))
                with suppress(MagError):
                    await kernel.reloader.rollback(None, actor=VAULT)

    async def _files_changed(self) -> None:
        await self._reload("file", FILES)

    async def _reload(self, trigger: str, actor: Actor) -> bool:
        """Returns: False when the node resets, so that it is to be asked again."""
        assert self._kernel is not None  # noqa: S101 - set by `run`, which runs this
        try:
            await self._kernel.reloader.reload(trigger=trigger, actor=actor)
            self._well()
        except NotReady:
            if self._kernel.state in _UP:  # it came back meanwhile
                self._came_back.set()
            return False
        except MagError as error:
            self._has_refused = True
            told = self._kernel.services.known.text(f"the settings were not reloaded: {error}")
            self._notifier.status(told)
            self._log.debug("a reload was refused", trigger=trigger, error=str(error))
        except Exception as error:  # a defect must not end the watch
            self._log.exception("a reload failed", trigger=trigger, error=str(error))
        return True

    def _well(self) -> None:
        """What the service manager shows of a refusal is over."""
        if self._has_refused:
            self._has_refused = False
            self._notifier.status("serving, the settings were reloaded")

    # ------------------------------------------------------------ inside

    @property
    def _kernel_section(self) -> KernelConfig:
        section: KernelConfig = self._config.section("kernel")
        return section

    def _may_have_changed(self) -> bool:
        """Whether a file was written so late that its change may lie between reading it and the first look at it."""
        with suppress(OSError):
            return any(path.stat().st_ctime >= self._read_at_s - _COARSE_S for path in self._files() if path.exists())
        return True

    def _files(self) -> Iterable[Path]:
        return [*watched_files(self._options, self._environment), *self._source.referred_files()]
