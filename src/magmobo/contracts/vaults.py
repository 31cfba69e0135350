"""The commands about the vault, and the shapes of their answers. None of them gives a secret back.

The name of a secret stands in a field `entry`: what stands under a name that sounds secret is hidden in records.
Boundary: declarations only; `kernel/secrets.py` answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from msgspec import Meta, Struct

from magmobo.contracts.commands import Command
from magmobo.contracts.planes import SecretInfo
from magmobo.contracts.secret import Secret

SecretName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}(?![\s\S])")]


class SecretUse(Struct, frozen=True):
    """A secret and the settings that take it: `keys` are whole, such as `magds.dsn`."""

    info: SecretInfo
    keys: Sequence[str]


class VaultContents(Struct, frozen=True):
    """What the vault holds, without the secrets. `driver` is `local` or `hashicorp`; `key_source` says in a few words
    where its key comes from.
    """

    driver: str
    key_source: str
    secrets: Sequence[SecretUse]


class ListSecrets(Command, frozen=True, kw_only=True):
    """What the vault holds, and which settings take it."""

    name = "vault:list"
    summary = "What the vault holds, without the secrets."
    capability = "kernel.config.read"
    reply = VaultContents


class SecretChanged(Struct, frozen=True):
    """A secret has a new version. `reloaded` are the settings that took it at once; `config_version` is what counts
    now.
    """

    info: SecretInfo
    reloaded: Sequence[str]
    config_version: int


class SetSecret(Command, frozen=True, kw_only=True):
    """Store a secret, or a new version of one; settings that refer to it take it at once."""

    name = "vault:set"
    summary = "Store a secret."
    capability = "kernel.secret.write"
    audit_action = "secret.write"
    reply = SecretChanged
    entry: SecretName
    value: Secret


class RotateSecret(Command, frozen=True, kw_only=True):
    """Store a new version of a secret that is there. Without `value` one is made, of `size_bytes` random bytes.

    With `version` it is what that older version held.
    """

    name = "vault:rotate"
    summary = "Give a secret a new version."
    capability = "kernel.secret.write"
    audit_action = "secret.rotate"
    reply = SecretChanged
    entry: SecretName
    value: Secret | None = None
    version: Annotated[int, Meta(ge=1)] | None = None
    size_bytes: Annotated[int, Meta(ge=16, le=128)] = 32


class RemoveSecret(Command, frozen=True, kw_only=True):
    """Forget a secret with all its versions; refused while a setting refers to it."""

    name = "vault:remove"
    summary = "Forget a secret."
    capability = "kernel.secret.write"
    audit_action = "secret.remove"
    reply = VaultContents
    entry: SecretName


class ImportReport(Struct, frozen=True):
    """What an import did: names that are new, that have a new version, and that held the same already."""

    added: Sequence[str]
    changed: Sequence[str]
    same: Sequence[str]
    reloaded: Sequence[str] = ()


class ImportSecrets(Command, frozen=True, kw_only=True):
    """Store several secrets, all of them or none."""

    name = "vault:import"
    summary = "Store the secrets of a .env, age or SOPS file."
    capability = "kernel.secret.write"
    audit_action = "secret.import"
    reply = ImportReport
    dry_run = True
    entries: Annotated[Mapping[SecretName, Secret], Meta(min_length=1, max_length=500)]


class RekeyVault(Command, frozen=True, kw_only=True):
    """Encrypt the vault under a new key; the secrets stay as they are. The new key file is made beside the old one,
    which goes when the vault is readable with the new.
    """

    name = "vault:rekey"
    summary = "Encrypt the vault under a new key."
    capability = "kernel.secret.write"
    audit_action = "vault.rekey"
    reply = VaultContents


VAULT: Sequence[type[Command]] = (
    ListSecrets, SetSecret, RotateSecret, RemoveSecret, ImportSecrets, RekeyVault,
)  # fmt: skip
