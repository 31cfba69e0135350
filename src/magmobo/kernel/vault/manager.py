"""The vault as components see it: every access is on record before it happens.

Rules: a component reaches the secrets whose name begins with its own name and a dot (`billing.api_key` for `billing`)
and no other; people get no secret back at all. Components live in one process with the kernel,
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


class ComponentVault:
    """Implements `contracts.planes.Vault` for one component, whose name `owner` has as `component:<name>`."""

    def __init__(self, store: SecretStore, audit: Audit, owner: Actor) -> None:
        self._store, self._audit, self._owner = store, audit, owner
        self._prefix = owner.name.removeprefix("component:") + "."

    async def read(self, name: str, *, version: int | None = None, purpose: str = "") -> Secret:
        await self._record("secret.read", name, version=version, purpose=purpose)
        text, _ = await self._store.read(name, version)
        return Secret(text)

    async def write(self, name: str, value: Secret) -> SecretInfo:
        await self._record("secret.write", name)
        [info] = await self._store.write({name: value.reveal()})
        return info

    async def restore(self, name: str, version: int) -> SecretInfo:
        await self._record("secret.rotate", name, version=version)
        text, _ = await self._store.read(name, version)
        [info] = await self._store.write({name: text})
        return info

    async def remove(self, name: str) -> None:
        await self._record("secret.remove", name)
        await self._store.remove(name)

    async def infos(self) -> Sequence[SecretInfo]:
        return [info for info in await self._store.infos() if info.name.startswith(self._prefix)]

    async def _record(self, action: str, name: str, **more: str | int | None) -> None:
        """Raises: SecretDenied, AuditUnavailable."""
        if not name.startswith(self._prefix):
            payload = {"action": action, "name": name}
            with suppress(MagError):  # a denial stands, recorded or not
                await self._audit.record("security.denied", actor=self._owner, payload=payload)
            raise SecretDenied(self._owner.name, name)
        await self._audit.record(action, actor=self._owner, payload={"name": name, **more})
