"""Settings of extensions: what is no secret in the registry, secrets in the vault, both together only for the worker.

Boundary: values against the manifest's schema, and the vault. Invariant: no secret is in the registry, in a reply or in
an error. Names in the vault are `extensions.<id>.<setting>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from msgspec import Struct

from magmobo.contracts.errors import SecretUnknown
from magmobo.contracts.planes import Vault
from magmobo.contracts.secret import HIDDEN, Secret
from magmobo.extensions.lifecycle.records import Entry
from magmobo.extensions.package.manifest import Manifest
from magmobo.extensions.package.settings import check_settings, secret_paths, with_defaults

PREFIX = "extensions."
_PLAIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
_HASHED = "x-"


class Change(Struct, frozen=True):
    """What a change of settings comes to: the plain values as a whole, names of all secrets, and which to write."""

    plain: dict[str, Any]
    secrets: Sequence[str]
    write: Mapping[str, Secret]
    remove: Sequence[str]


class Settings:
    """Reads and writes secrets of extensions. `vault` is asked for only where there are any."""

    def __init__(self, vault: Callable[[], Vault]) -> None:
        self._vault = vault

    async def resolved(self, entry: Entry, manifest: Manifest) -> Mapping[str, Any]:
        """Everything that the extension is told, defaults and secrets included.

        Raises: SettingsRefused when something it must have is missing; VaultUnavailable and others of the vault.
        """
        values = _copied(entry.settings)
        for path in secret_paths(manifest.settings):
            if ".".join(path) in entry.secrets:
                found = await self._read(entry.id, path)
                if found is not None:
                    _put(values, path, found)
        return check_settings(manifest.settings, _known(manifest.settings, values))

    async def plan(self, entry: Entry, manifest: Manifest, values: Mapping[str, Any]) -> Change:
        """What `values` would change; a null takes a setting back, objects are merged. Changes nothing.

        Raises: SettingsRefused; those of the vault.
        """
        merged = _merged(_copied(entry.settings), values)
        write: dict[str, Secret] = {}
        secrets, remove, whole = [], [], _copied(merged)
        for path in secret_paths(manifest.settings):
            name, given = ".".join(path), _take(merged, path)
            if given is not None:
                write[name] = Secret(str(given))
            elif name in entry.secrets and not _says_null(values, path):
                given = await self._read(entry.id, path)
            elif name in entry.secrets:
                remove.append(name)
            if given is not None:
                secrets.append(name)
                _put(whole, path, given)
        check_settings(manifest.settings, whole)
        return Change(merged, secrets, write, remove)

    async def keep_secrets(self, entry: Entry, change: Change) -> None:
        """Store those of a change, and forget those it takes back. Raises: those of the vault."""
        for name, secret in change.write.items():
            await self._vault().write(_vault_name(entry.id, name), secret)
        await self._remove(_vault_name(entry.id, name) for name in change.remove)

    async def forget(self, entry: Entry) -> None:
        """Remove the secrets of an extension. Raises: those of the vault."""
        await self._remove(_vault_name(entry.id, name) for name in entry.secrets)

    async def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                await self._vault().remove(name)
            except SecretUnknown:
                continue

    async def _read(self, extension_id: str, path: tuple[str, ...]) -> str | None:
        try:
            secret = await self._vault().read(
                _vault_name(extension_id, ".".join(path)), purpose=f"settings of extension {extension_id}"
            )
        except SecretUnknown:
            return None
        return secret.reveal()


def shown(entry: Entry, manifest: Manifest) -> Mapping[str, Any]:
    """Settings as people see them, defaults included, secrets hidden."""
    values = with_defaults(manifest.settings, _known(manifest.settings, entry.settings))
    values = _copied(values)
    for name in entry.secrets:
        _put(values, tuple(name.split(".")), HIDDEN)
    return values


def _vault_name(extension_id: str, name: str) -> str:
    """Names of settings may have capitals, those in the vault not."""
    fits = _PLAIN.fullmatch(name) is not None and not name.startswith(_HASHED)
    return f"{PREFIX}{extension_id}.{name if fits else _HASHED + sha256(name.encode()).hexdigest()[:32]}"


def _known(schema: Mapping[str, Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without what another version of the extension had settings for."""
    if schema.get("additionalProperties") is True:
        return values
    known = schema.get("properties", {})
    return {
        name: _known(known[name], value) if isinstance(value, dict) and known[name].get("type") == "object" else value
        for name, value in values.items()
        if name in known
    }


def _merged(values: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        if value is None:
            values.pop(name, None)
        elif isinstance(value, dict):
            below = values.get(name)
            values[name] = _merged(below if isinstance(below, dict) else {}, value)
        else:
            values[name] = value
    return values


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copied(value) if isinstance(value, dict) else value for name, value in values.items()}


def _put(values: dict[str, Any], path: tuple[str, ...], value: str) -> None:
    for name in path[:-1]:
        below = values.get(name)
        values = values.setdefault(name, {}) if isinstance(below, dict) or below is None else {}
    values[path[-1]] = value


def _take(values: dict[str, Any], path: tuple[str, ...]) -> Any:
    """Take a value out; None where there is none."""
    for name in path[:-1]:
        below = values.get(name)
        if not isinstance(below, dict):
            return None
        values = below
    return values.pop(path[-1], None)


def _says_null(values: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    """Whether a change takes back what is at this path, or an object around it."""
    for name in path:
        if name not in values:
            return False
        if values[name] is None:
            return True
        if not isinstance(values[name], dict):
            return False
        values = values[name]
    return False
