"""What the vault refuses, and what is wrong with it. Codes MAG-VAULT-010 to -039; a server's are with its driver."""

from __future__ import annotations

from collections.abc import Sequence

from magmobo.contracts.errors import MagError, VaultUnavailable
from magmobo.contracts.planes import SecretInfo


class VaultKeyMissing(VaultUnavailable):
    """The vault is there, but not the key that opens it."""

    code = "MAG-VAULT-010"
    retryable = False
    remedy = "Put the key back where the reason says, from the copy you keep; without it the vault cannot be read."


class VaultKeyWrong(VaultUnavailable):
    """The key or the passphrase is not the one the vault is encrypted under."""

    code = "MAG-VAULT-011"
    retryable = False
    remedy = (
        "Set the former vault.key or vault.passphrase again. To change it, change it while the node runs: the vault is "
        "then encrypted anew."
    )


class VaultKeyExposed(VaultUnavailable):
    """The file with the key of the vault can be read by other users of this machine."""

    code = "MAG-VAULT-012"
    retryable = False
    remedy = "`chmod 600` the named file; if somebody may have read it, `mag vault:rekey` and rotate the secrets."


class VaultDamaged(VaultUnavailable):
    """The file of the vault is not what was written: cut off, or changed by the disk."""

    code = "MAG-VAULT-013"
    retryable = False
    remedy = "Put a copy of vault/vault.mag back and stop the node, then `mag vault:rekey` accepts it."


class VaultTampered(VaultUnavailable):
    """The file of the vault was changed by somebody without the key: its seal is wrong."""

    code = "MAG-VAULT-014"
    retryable = False
    remedy = (
        "Find out who could write to the data folder. Put a copy back and stop the node; `mag vault:rekey` takes it."
    )


class VaultReplayed(VaultUnavailable):
    """The file of the vault is older than the last one this node wrote, another one, or gone."""

    code = "MAG-VAULT-015"
    retryable = False
    remedy = "Put the newest copy back. If this one is meant to count: `mag vault:rekey` while no node runs."


class VaultBusy(VaultUnavailable):
    """Another process is writing the vault; nothing was changed."""

    code = "MAG-VAULT-016"
    remedy = "Try again in a moment."


class VaultFormatUnknown(VaultUnavailable):
    """The file of the vault was written by a newer MagMoBo."""

    code = "MAG-VAULT-017"
    retryable = False
    remedy = "Run the version that wrote it, or a newer one."


class SecretRefused(MagError):
    """A secret or its name is not one the vault can keep; nothing was changed."""

    code = "MAG-VAULT-018"
    http_status = 422
    remedy = (
        "Names are lower-case letters, digits, dots, dashes and underscores, at most 100 of them, a letter or digit "
        "first; a secret is 1 to 32,768 bytes of text."
    )

    def __init__(self, reason: str, name: str = "") -> None:
        super().__init__(reason, name)
        self.reason, self.name = reason, name

    def __str__(self) -> str:
        return f"{self.name!r} is not stored: {self.reason}" if self.name else f"nothing is stored: {self.reason}"


class RekeyRefused(MagError):
    """The vault's key is not the vault's to change; nothing was changed."""

    code = "MAG-VAULT-019"
    http_status = 409
    remedy = "Change the key where it comes from; the local vault is encrypted anew when the setting changes."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the vault is not encrypted under a new key: {self.reason}"


class SecretDenied(MagError):
    """A component asked for a secret that is not its own; nothing was read or changed."""

    code = "MAG-VAULT-020"
    exit_code = 6
    http_status = 403
    remedy = "A component reaches the secrets that begin with its name and a dot; store this one under such a name."

    def __init__(self, actor: str, name: str) -> None:
        super().__init__(actor, name)
        self.actor, self.name = actor, name

    def __str__(self) -> str:
        return f'{self.actor} may not reach the secret "{self.name}"'


class SecretInUse(MagError):
    """Settings refer to this secret; it was not removed."""

    code = "MAG-VAULT-021"
    http_status = 409
    remedy = (
        "Give the named settings another value and reload first. A secret with the name of a setting counts above the "
        "files: `mag config:set` counts above it."
    )

    def __init__(self, name: str, keys: Sequence[str]) -> None:
        super().__init__(name, keys)
        self.name, self.keys = name, keys

    def __str__(self) -> str:
        return f'the secret "{self.name}" is used by {", ".join(self.keys)}'


class SecretNotTaken(MagError):
    """The settings that take a secret cannot take its new version; what counted before counts, in the vault too."""

    code = "MAG-VAULT-022"
    exit_code = 5
    http_status = 422
    remedy = "Correct what the reason names, then `mag vault:rotate NAME --version N` tries the refused version again."

    def __init__(self, reason: str, outcome: str, refused: Sequence[SecretInfo]) -> None:
        super().__init__(reason, outcome, refused)
        self.reason, self.outcome, self.refused = reason, outcome, refused

    def __str__(self) -> str:
        return f"the settings do not take it: {self.reason}; {self.outcome}"

    def next_step(self) -> str:
        if not self.refused:
            return self.remedy
        again = " and ".join(f"`mag vault:rotate {one.name} --version {one.version}`" for one in self.refused)
        return f"Correct what the reason names; the refused version is kept, {again} tries it again."
