"""The vault as components see it: every access is on record before it happens.

Rules: a component reaches the secrets whose name begins with its own name and a dot (`billing.api_key` for `billing`)
and no other; the kernel reaches all; people get no secret back at all. Components live in one process with the kernel,
so this is a guard against mistakes and a trail, not a wall. Boundary: what settings make of a new version is not
decided here; a component that wants them to take it sends the command `vault:set`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from magmobo.contracts.audit import Audit
from magmobo.contracts.capabilities import Actor
from magmobo.contracts.errors import MagError
from magmobo.contracts.planes import SecretInfo
from magmobo.contracts.secret import Secret
from magmobo.kernel.vault.errors import SecretDenied
from magmobo.kernel.vault.store import SecretStore


class VaultManager:
    """Implements `contracts.planes.Vault`. Every method but `infos` also raises SecretDenied."""

    def __init__(self, store: SecretStore, audit: Audit) -> None:
        self._store, self._audit = store, audit

    async def read(self, name: str, *, reader: Actor, version: int | None = None, purpose: str = "") -> Secret:
        await self._record("secret.read", reader, name, version=version, purpose=purpose)
        text, _ = await self._store.read(name, version)
        return Secret(text)

    async def write(self, name: str, value: Secret, *, actor: Actor) -> SecretInfo:
        await self._record("secret.write", actor, name)
        [info] = await self._store.write({name: value.reveal()})
        return info

    async def restore(self, name: str, version: int, *, actor: Actor) -> SecretInfo:
        await self._record("secret.rotate", actor, name, version=version)
        text, _ = await self._store.read(name, version)
        [info] = await self._store.write({name: text})
        return info

    async def remove(self, name: str, *, actor: Actor) -> None:
        await self._record("secret.remove", actor, name)
        await self._store.remove(name)

    async def infos(self) -> Sequence[SecretInfo]:
        return await self._store.infos()

    async def _record(self, action: str, actor: Actor, name: str, **more: str | int | None) -> None:
        """Raises: SecretDenied, AuditUnavailable."""
        if not _reaches(actor, name):
            payload = {"action": action, "name": name}
            with suppress(MagError):  # a denial stands, recorded or not
                await self._audit.record("security.denied", actor=actor, payload=payload)
            raise SecretDenied(actor.name, name)
        await self._audit.record(action, actor=actor, payload={"name": name, **more})


def _reaches(actor: Actor, name: str) -> bool:
    if actor.via == "kernel":
        return True
    return actor.via == "component" and name.startswith(actor.name.removeprefix("component:") + ".")
