"""Settings of extensions: what is no secret in the registry, secrets in the vault, both together only for the worker.

Boundary: values against the manifest's schema; `ownsecrets` knows the vault. Invariant: no secret is in the registry,
in a reply or in an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from magmobo.contracts.secret import HIDDEN, Secret
from magmobo.extensions.lifecycle.ownsecrets import OwnSecrets
from magmobo.extensions.lifecycle.records import Entry
from magmobo.extensions.package.manifest import Manifest
from magmobo.extensions.package.settings import check_settings, secret_paths, with_defaults


class Change(Struct, frozen=True):
    """What a change of settings comes to: the plain values as a whole, names of all secrets, and which to write."""

    plain: dict[str, Any]
    secrets: Sequence[str]
    write: Mapping[str, Secret]
    remove: Sequence[str]


class Settings:
    """Of all extensions."""

    def __init__(self, secrets: OwnSecrets) -> None:
        self._secrets = secrets

    async def resolved(self, entry: Entry, manifest: Manifest) -> Mapping[str, Any]:
        """Everything that the extension is told, defaults and secrets included.

        Raises: SettingsRefused when something it must have is missing; VaultUnavailable and others of the vault.
        """
        values = _copied(entry.settings)
        paths = {".".join(path): path for path in secret_paths(manifest.settings)}
        known = [name for name in paths if name in entry.secrets]
        for name, found in (await self._secrets.read(entry, known, mark=True)).items():
            _put(values, paths[name], found)
        return check_settings(manifest.settings, _known(manifest.settings, values))

    async def plan(self, entry: Entry, manifest: Manifest, values: Mapping[str, Any]) -> Change:
        """What `values` would change; a null takes a setting back, objects are merged. Changes nothing.

        Raises: SettingsRefused; those of the vault.
        """
        merged = _merged(_copied(entry.settings), values)
        write: dict[str, Secret] = {}
        secrets, whole = [], _copied(merged)
        paths = {".".join(path): path for path in secret_paths(manifest.settings)}
        taken = {name: _take(merged, path) for name, path in paths.items()}
        known = [name for name, given in taken.items() if given is None and name in entry.secrets]
        remove = [name for name in known if _says_null(values, paths[name])]
        there = await self._secrets.read(entry, [name for name in known if name not in remove])
        for name, path in paths.items():
            given = taken[name]
            if given is not None:
                write[name] = Secret(str(given))
            elif (given := there.get(name)) is not None:
                _put(whole, path, given)
            if given is not None:
                secrets.append(name)
        check_settings(manifest.settings, whole)
        return Change(merged, secrets, write, remove)

    async def keep_secrets(self, entry: Entry, change: Change) -> None:
        """Store those of a change, and forget those it takes back. Raises: those of the vault."""
        await self._secrets.write(entry, change.write)
        if change.secrets:
            await self._secrets.remove(entry, change.remove)
        elif change.remove:
            await self._secrets.forget(entry)

    async def forget(self, entry: Entry) -> None:
        """Remove the secrets of an extension. Raises: those of the vault."""
        if entry.secrets:
            await self._secrets.forget(entry)


def shown(entry: Entry, manifest: Manifest) -> Mapping[str, Any]:
    """Settings as people see them, defaults included, secrets hidden."""
    values = with_defaults(manifest.settings, _known(manifest.settings, entry.settings))
    values = _copied(values)
    for name in entry.secrets:
        _put(values, tuple(name.split(".")), HIDDEN)
    return values


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
