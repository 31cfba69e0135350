"""Answers to the commands about the vault (`contracts/vaults.py`), and how settings hear of what changed there.

Boundary: the command bus has checked the right and written the audit record before a function here runs, so the vault's
own records are for components alone. Invariant: a version that the settings refuse does not count afterwards: the one
before is stored again as the newest, and the refused one stays in the vault as an older version, to be tried again. One
that is new and refused is removed: it has the name of a setting, and the next start would take it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from magmobo.contracts import vaults as ops
from magmobo.contracts.capabilities import Actor
from magmobo.contracts.commands import Call, Commands
from magmobo.contracts.configuration import ReloadOutcome
from magmobo.contracts.errors import MagError, SecretUnknown
from magmobo.contracts.planes import SecretInfo
from magmobo.kernel.config.source import SecretRead
from magmobo.kernel.vault.errors import SecretInUse, SecretNotTaken, SecretRefused
from magmobo.kernel.vault.store import SecretStore

_VAULT = "vault:"


class SettingsOfSecrets(Protocol):
    """The settings, as far as secrets are concerned; the reloader of a running node."""

    @property
    def version(self) -> int:
        """Of the configuration that counts; 0 while no node runs."""
        ...

    @property
    def reads(self) -> Sequence[SecretRead]:
        """The references that were followed for the configuration that counts."""
        ...

    async def secrets_changed(self, names: Collection[str], *, actor: Actor) -> ReloadOutcome:
        """Take the new versions of these secrets. Raises: MagError when they are refused; then nothing changed."""
        ...


class SecretOperations:
    """The handlers of one node. `accept_old`: `vault:rekey` takes an older vault than the newest one known, or none;
    for when no node runs.
    """

    def __init__(
        self, store: SecretStore, settings: Callable[[], SettingsOfSecrets], *, accept_old: bool = False
    ) -> None:
        self._store, self._settings, self._accept_old = store, settings, accept_old
        self._turn = asyncio.Lock()  # from one version that counts to the next

    def register(self, commands: Commands) -> None:
        """Answer all of them on `commands`, until its owner is gone."""
        handlers: list[tuple[Any, Callable[[Any, Call], Any]]] = [
            (ops.ListSecrets, self._list),
            (ops.SetSecret, self._set),
            (ops.RotateSecret, self._rotate),
            (ops.RemoveSecret, self._remove),
            (ops.ImportSecrets, self._import),
            (ops.RekeyVault, self._rekey),
        ]
        for command_type, handler in handlers:
            commands.handle(command_type, handler)

    # ------------------------------------------------------------ commands

    async def _list(self, command: ops.ListSecrets, call: Call) -> ops.VaultContents:
        return await self._contents()

    async def _set(self, command: ops.SetSecret, call: Call) -> ops.SecretChanged:
        return await self._changed(command.entry, command.value.reveal(), call.actor)

    async def _rotate(self, command: ops.RotateSecret, call: Call) -> ops.SecretChanged:
        name = command.entry
        if command.value is not None and command.version is not None:
            raise SecretRefused("a value and a version are both given", name)
        if all(info.name != name for info in await self._store.infos()):
            raise SecretUnknown(name)
        if command.value is not None:
            text = command.value.reveal()
        elif command.version is not None:
            text, _ = await self._store.read(name, command.version)
        else:
            text = secrets.token_urlsafe(command.size_bytes)
        return await self._changed(name, text, call.actor)

    async def _remove(self, command: ops.RemoveSecret, call: Call) -> ops.VaultContents:
        if keys := self._uses().get(command.entry):
            raise SecretInUse(command.entry, keys)
        await self._store.remove(command.entry)
        return await self._contents()

    async def _import(self, command: ops.ImportSecrets, call: Call) -> ops.ImportReport:
        given = {name: value.reveal() for name, value in command.entries.items()}
        present = {info.name for info in await self._store.infos()}
        same = [name for name in given if name in present and (await self._store.read(name))[0] == given[name]]
        added = [name for name in given if name not in present]
        changed = [name for name in given if name in present and name not in same]
        reloaded: Sequence[str] = ()
        if not call.dry_run:
            news = {name: given[name] for name in (*added, *changed)}
            _, reloaded = await self._stored(news, call.actor)
        return ops.ImportReport(sorted(added), sorted(changed), sorted(same), reloaded)

    async def _rekey(self, command: ops.RekeyVault, call: Call) -> ops.VaultContents:
        await self._store.rekey(accept=self._accept_old)
        return await self._contents()

    # ------------------------------------------------------------ inside

    async def _contents(self) -> ops.VaultContents:
        uses = self._uses()
        infos = await self._store.infos()
        contents = [ops.SecretUse(info, uses.get(info.name, ())) for info in infos]
        return ops.VaultContents(self._store.name, await self._store.key_source(), contents)

    async def _changed(self, name: str, text: str, actor: Actor) -> ops.SecretChanged:
        infos, reloaded = await self._stored({name: text}, actor)
        return ops.SecretChanged(infos[0], reloaded, self._settings().version)

    async def _stored(self, news: Mapping[str, str], actor: Actor) -> tuple[Sequence[SecretInfo], Sequence[str]]:
        """Store new versions and let the settings take them; the keys that did. It goes on when the caller is
        cancelled. Raises: SecretNotTaken.
        """
        return await self._store.to_the_end(self._store_and_tell(news, actor)) if news else ([], ())

    async def _store_and_tell(
        self, news: Mapping[str, str], actor: Actor
    ) -> tuple[Sequence[SecretInfo], Sequence[str]]:
        async with self._turn:
            present = {info.name for info in await self._store.infos()}
            followed = self._uses(pinned=False)
            # A new one may have the name of a setting, and counts for it then: all of those have a dot.
            told = [name for name in news if (name in followed if name in present else "." in name)]
            before = {name: (await self._store.read(name))[0] for name in told if name in present}
            infos = await self._store.write(news, pinned=self._pins())
            if not told:
                return infos, ()
            try:
                outcome = await self._settings().secrets_changed(told, actor=actor)
            except MagError as error:
                kept = [info for info in infos if info.name in before]
                became = await self._taken_back(before, [name for name in told if name not in present])
                raise SecretNotTaken(str(error), became, kept) from error
            waiting = set(outcome.plan.waiting)
            return infos, [change.key for change in outcome.plan.changes if change.key not in waiting]

    async def _taken_back(self, before: Mapping[str, str], new: Sequence[str]) -> str:
        """What is so now, in words."""
        said = []
        try:
            if before:
                infos = await self._store.write(before, pinned=self._pins())
                counting = ", ".join(f"{info.name} version {info.version}" for info in infos)
                said.append(f"what counted before counts again, as {counting}")
            for name in new:
                await self._store.remove(name)
                said.append(f"{name} is removed again")
        except MagError as error:
            said.append(f"it could not be taken back ({error}) and would count at the next start")
        return "; ".join(said)

    def _uses(self, *, pinned: bool = True) -> Mapping[str, Sequence[str]]:
        """Secrets and the settings that refer to them; without `pinned`, those that follow the newest version."""
        uses: dict[str, list[str]] = {}
        for read in self._settings().reads:
            name, pin = _named(read)
            if name and (pinned or pin is None):
                uses.setdefault(name, []).append(read.key)
        return uses

    def _pins(self) -> Mapping[str, Collection[int]]:
        """Versions that settings refer to by number."""
        pins: dict[str, set[int]] = {}
        for read in self._settings().reads:
            name, pin = _named(read)
            if pin is not None:
                pins.setdefault(name, set()).add(pin)
        return pins


def _named(read: SecretRead) -> tuple[str, int | None]:
    """Name and version of a reference `vault:name@3`; an empty name when it is of another kind."""
    name, _, pin = read.reference.removeprefix(_VAULT).partition("@")
    if not read.reference.startswith(_VAULT):
        return "", None
    return name, int(pin) if pin.isdigit() else None
