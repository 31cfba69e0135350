"""The vault of a data folder while no node runs on it: a database's password may be in it before the first start.

Boundary: the commands, their handlers, the gate and the audit log are those of a running node; what is missing is the
settings that would take a new version, they read it when the node starts. The folder is locked meanwhile, so that no
node starts half way. `vault:rekey` also takes a vault that is older than the newest one known, after a copy was put
back: that is the one way to say that it is meant to count.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from msgspec import Struct

from magmobo.admin.data_folder import DataFolder, NodeLock
from magmobo.admin.errors import data_folder_error
from magmobo.admin.params import params_of
from magmobo.contracts.capabilities import Actor
from magmobo.contracts.commands import Command
from magmobo.contracts.configuration import ReloadOutcome, ReloadPlan
from magmobo.contracts.vaults import ListSecrets, VaultContents
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.clock import SystemClock
from magmobo.kernel.config.core import CacheConfig, SecurityConfig, VaultConfig
from magmobo.kernel.config.source import SecretRead
from magmobo.kernel.known import KnownSecrets
from magmobo.kernel.observe.logging import configure_logging
from magmobo.kernel.observe.quiet import QuietLog
from magmobo.kernel.secrets import SecretOperations
from magmobo.kernel.services import KERNEL_ACTOR, Services
from magmobo.kernel.vault.opening import open_vault
from magmobo.kernel.vault.store import SecretStore

OWNER = "vault"


class _AtRest(Struct, frozen=True):
    """Implements `kernel.secrets.SettingsOfSecrets` where no node runs: what is stored counts at the next start."""

    reads: Sequence[SecretRead]
    version: int = 0

    async def secrets_changed(self, names: Collection[str], *, actor: Actor) -> ReloadOutcome:
        return ReloadOutcome(self.version, False, ReloadPlan(()))


async def ask_vault(
    folder: DataFolder,
    settings: VaultConfig,
    command: Command,
    *,
    actor: Actor,
    reads: Sequence[SecretRead] = (),
    dry_run: bool = False,
    timeout_s: float = 60.0,
) -> Any:
    """The answer to one command of `contracts.vaults.VAULT`, an instance of its `reply`.

    Args:
        reads: the references that the settings of this folder hold, as far as they are known.
    Raises: NodeAlreadyRuns when a node runs after all, DataFolderError, and what the command bus raises.
    """
    if isinstance(command, ListSecrets) and not folder.path.exists():
        return VaultContents(settings.driver, open_vault(settings, folder.path).key_source, ())
    async with _services(folder) as services:
        store = SecretStore(
            open_vault(settings, folder.path),
            services.states.scope(OWNER),
            on_secret=services.known.add,
            on_problem=_log().warning,
        )
        try:
            at_rest = _AtRest(reads)
            operations = SecretOperations(store, lambda: at_rest, accept_old=True)
            operations.register(services.commands.scoped(OWNER, KERNEL_ACTOR))
            answer = await services.commands.run(
                command.name,
                msgspec.json.encode(params_of(command)),
                actor=actor,
                dry_run=dry_run,
                timeout_s=timeout_s,
            )
        finally:
            await store.close()
    return msgspec.json.decode(answer, type=command.reply)


@asynccontextmanager
async def _services(folder: DataFolder) -> AsyncIterator[Services]:
    """State, audit log and command bus of a folder that no node uses meanwhile; problems go into the node's log."""
    lock, clock, known = NodeLock(folder), SystemClock(), KnownSecrets()
    folder.claim()
    lock.acquire()
    try:
        folder.furnish()
        try:
            output = configure_logging(
                level="info",
                format="json",
                instance_id=folder.instance_id(),
                file=folder.log_file,
                stream=None,
                mask=known.value,
            )
        except OSError as error:
            raise data_folder_error(folder.path, error) from error
        services = Services(
            data_dir=folder.path,
            instance_id=folder.instance_id(),
            security=SecurityConfig(),
            cache=CacheConfig(),
            known=known,
            bus=EventBus(time_s=clock.time_s, monotonic_s=clock.monotonic_s),
            clock=clock,
            log=_log(),
            furnish=lambda _: None,
        )
        try:
            await services.open()
            yield services
        finally:
            await services.close()
            output.close()
    finally:
        lock.release()


def _log() -> QuietLog:
    return QuietLog(component=OWNER)
