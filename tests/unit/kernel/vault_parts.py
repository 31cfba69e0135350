"""What the tests of the vault have in common: a data folder, its vault, and the real stores around it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from magmobo.contracts.secret import Secret
from magmobo.kernel.audit.log import AuditLog
from magmobo.kernel.config.core import VaultConfig
from magmobo.kernel.state.manager import StateManager
from magmobo.kernel.vault.file import LocalVault
from magmobo.kernel.vault.store import SecretStore

KEY, OTHER_KEY = Secret("11" * 32), Secret("ab" * 32)
CHEAP = (14, 8, 1)
"""The least that a passphrase may cost; 30 ms."""


def vault_in(data_dir: Path, config: VaultConfig | None = None) -> LocalVault:
    """As a new process would open it."""
    data_dir.mkdir(mode=0o700, exist_ok=True)
    (data_dir / "secrets").mkdir(mode=0o700, exist_ok=True)
    return LocalVault(config or VaultConfig(), data_dir)


def put(vault: LocalVault, **secrets: str) -> None:
    vault.write(secrets, pinned={})


def file_of(data_dir: Path) -> Path:
    return data_dir / "vault" / "vault.mag"


class Around(Struct):
    """A vault with its stores; `problems` and `learnt` are what operators and redaction were told."""

    vault: LocalVault
    store: SecretStore
    states: StateManager
    audit: AuditLog
    problems: list[str]
    learnt: list[str]

    async def actions(self) -> list[tuple[str, str, str]]:
        """Action, actor and name of the secret, as the audit log has them."""
        records = await self.audit.read(after_seq=0, limit=1000)
        return [(record.action, record.actor, str(record.payload.get("name", ""))) for record in records]


@asynccontextmanager
async def around(data_dir: Path, config: VaultConfig | None = None) -> AsyncIterator[Around]:
    """One run of a node, as far as its vault is concerned."""
    vault = vault_in(data_dir, config)
    (data_dir / "state").mkdir(mode=0o700, exist_ok=True)
    states = StateManager(data_dir / "state" / "state.db")
    await states.open()
    audit = AuditLog(data_dir / "audit", states.scope("audit"), mask=lambda value: value)
    await audit.open()
    problems: list[str] = []
    learnt: list[str] = []
    store = SecretStore(vault, states.scope("vault"), on_secret=learnt.append, on_problem=problems.append)
    try:
        yield Around(vault, store, states, audit, problems, learnt)
    finally:
        await store.close()
        await audit.close()
        await states.close()
