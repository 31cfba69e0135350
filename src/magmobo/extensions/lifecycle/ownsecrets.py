"""Secrets of extensions in the vault of this node, and whose they are.

The vault may be this node's own file, so each node forgets by itself what an extension left that was removed with its
data; or a server that nodes share. Another extension may have the name by then. So a mark lies beside the secrets: of
the installation that they belong to, by its folder, which no other one gets. Nobody is given what is another
installation's, and a removal takes its own, whenever a node comes to it. Secrets without a mark are those that an
operator stored; the mark follows when they are used first.
Boundary: names and the vault; which settings are secrets is decided in `settings`. Invariant: the mark is there before
the first secret that was set here, and goes behind the last one. Names are `extensions.<id>.<setting>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from hashlib import sha256

from magmobo.contracts.errors import MagError, SecretUnknown
from magmobo.contracts.planes import Vault
from magmobo.contracts.secret import Secret
from magmobo.extensions.lifecycle.records import Entry, Gone

PREFIX = "extensions."
_PLAIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
_HASHED = "x-"
_MARK = "x-owner"


class OwnSecrets:
    """Of all extensions. `vault` is asked for only where there are any."""

    def __init__(self, vault: Callable[[], Vault]) -> None:
        self._vault = vault

    async def read(self, entry: Entry, names: Collection[str], *, mark: bool = False) -> Mapping[str, str]:
        """Those of these settings that are there and its own; `mark`: put the mark beside those that have none.

        Raises: those of the vault.
        """
        if not names or (marked := await self._mark(entry.id)) not in ("", _mark_of(entry)):
            return {}
        found: dict[str, str] = {}
        for name in names:
            with suppress(SecretUnknown):
                found[name] = await self._text(entry.id, vault_name(entry.id, name))
        if mark and found and not marked:
            with suppress(MagError):  # a vault that may only be read from has been read
                await self._put_mark(entry)
        return found

    async def write(self, entry: Entry, values: Mapping[str, Secret]) -> None:
        """Store these; what another installation left goes before. Raises: those of the vault."""
        if not values:
            return
        marked = await self._mark(entry.id)
        if marked not in ("", _mark_of(entry)):
            await self._remove((await self._names()).get(entry.id, ()))
            marked = ""
        if not marked:
            await self._put_mark(entry)
        for name, secret in values.items():
            await self._vault().write(vault_name(entry.id, name), secret)

    async def remove(self, entry: Entry, names: Iterable[str]) -> None:
        """Forget these, if they are its own. Raises: those of the vault."""
        if (wanted := [vault_name(entry.id, name) for name in names]) and await self._owns(entry):
            await self._remove(wanted)

    async def forget(self, entry: Entry) -> None:
        """Forget all of them, if they are its own; the mark too. Raises: those of the vault."""
        if await self._owns(entry):
            await self._remove((await self._names()).get(entry.id, ()))

    async def forget_gone(self, gone: Iterable[Gone], is_known: Callable[[str], bool]) -> None:
        """Forget what is here of extensions that are gone with their data. What has no mark goes where nobody of that
        name is known. Doing it again is fine. Raises: those of the vault.
        """
        names = await self._names()
        for one in gone:
            if one.id not in names:
                continue
            marked = await self._mark(one.id)
            if marked == _mark_of(one) or not (marked or is_known(one.id)):
                await self._remove(names.pop(one.id))

    # ------------------------------------------------------------ inside

    async def _owns(self, entry: Entry) -> bool:
        return await self._mark(entry.id) in ("", _mark_of(entry))

    async def _mark(self, extension_id: str) -> str:
        """Of whoever the secrets belong to; empty: there is none."""
        try:
            return await self._text(extension_id, _mark_name(extension_id))
        except SecretUnknown:
            return ""

    async def _put_mark(self, entry: Entry) -> None:
        await self._vault().write(_mark_name(entry.id), Secret(_mark_of(entry)))

    async def _text(self, extension_id: str, name: str) -> str:
        secret = await self._vault().read(name, purpose=f"settings of extension {extension_id}")
        return secret.reveal()

    async def _names(self) -> dict[str, list[str]]:
        """Id -> names in the vault. Ids have no dots."""
        found: dict[str, list[str]] = {}
        for info in await self._vault().infos():
            if info.name.startswith(PREFIX):
                found.setdefault(info.name.split(".")[1], []).append(info.name)
        return found

    async def _remove(self, names: Iterable[str]) -> None:
        """Those of one extension, the mark last, so that what a node left half done is still known to be theirs."""
        for name in sorted(names, key=lambda name: name.endswith(f".{_MARK}")):
            with suppress(SecretUnknown):
                await self._vault().remove(name)


def vault_name(extension_id: str, name: str) -> str:
    """Names of settings may have capitals, those in the vault not."""
    fits = _PLAIN.fullmatch(name) is not None and not name.startswith(_HASHED)
    return f"{PREFIX}{extension_id}.{name if fits else _HASHED + sha256(name.encode()).hexdigest()[:32]}"


def _mark_name(extension_id: str) -> str:
    return f"{PREFIX}{extension_id}.{_MARK}"


def _mark_of(one: Entry | Gone) -> str:
    """A digest: what is read from a vault is hidden in logs, and the folder is to be seen there."""
    return sha256(one.folder.encode()).hexdigest()[:32]
