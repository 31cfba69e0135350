"""What goes wrong with a vault on a server, codes MAG-VAULT-050 to -058; and two answers that the driver acts on.

Invariant: no text here holds the token, a secret, or words of the server, which might quote either.
"""

from __future__ import annotations

from collections.abc import Sequence

from magmobo.contracts.errors import VaultUnavailable


class VaultServerSettings(VaultUnavailable):
    """Section [vault] does not say how to reach the server: address, token, mount or path is missing or not usable."""

    code = "MAG-VAULT-050"
    exit_code = 5
    retryable = False
    remedy = "Correct the named setting, then `mag config:reload`."


class VaultServerUnreachable(VaultUnavailable):
    """The Vault server cannot be reached, or did not answer in time."""

    code = "MAG-VAULT-051"
    remedy = "See whether it runs and is reachable from here: `vault status`. vault.timeout_s is how long we wait."


class VaultServerUntrusted(VaultUnavailable):
    """The certificate of the Vault server is not one to trust, or what answers does not speak TLS. Nothing was sent."""

    code = "MAG-VAULT-052"
    retryable = False
    remedy = "Name the authority that signed its certificate in vault.ca_path, and the server by a name it is made for."


class VaultServerSealed(VaultUnavailable):
    """The Vault server is sealed, not initialised, or is not the active one."""

    code = "MAG-VAULT-053"
    remedy = "Unseal it (`vault operator unseal`), or name the active server in vault.address."


class VaultServerDenied(VaultUnavailable):
    """The Vault server does not let this token do what was asked; it may have expired."""

    code = "MAG-VAULT-054"
    http_status = 403
    retryable = False
    remedy = "Give the node a valid token in vault.token, with the rules that docs/design/vault-server.md lists."


class VaultServerMisfit(VaultUnavailable):
    """What answers is not a KV engine of version 2 with secrets of ours: another mount, version, format or server."""

    code = "MAG-VAULT-055"
    retryable = False
    remedy = "See that vault.address, vault.mount and vault.path are right: `vault secrets list -detailed`."


class VaultServerBusy(VaultUnavailable):
    """Others write the same secret all the time, or the Vault server asks us to slow down; nothing was stored."""

    code = "MAG-VAULT-056"
    remedy = "Try again in a moment."


class VaultWriteUnfinished(VaultUnavailable):
    """Some secrets were stored on the Vault server, then it failed; it has no way to store several at once."""

    code = "MAG-VAULT-057"
    remedy = "Do the same again when the named reason is gone: those which are stored then count as the same."

    def __init__(self, reason: str, stored: Sequence[str]) -> None:
        super().__init__(reason)
        self.args = (reason, stored)
        self.stored = stored

    def __str__(self) -> str:
        return f"{super().__str__()}; stored before it failed: {', '.join(self.stored)}"


class VaultExtraMissing(VaultUnavailable):
    """The package that talks to a Vault server is not installed."""

    code = "MAG-VAULT-058"
    retryable = False
    remedy = "pip install 'magmobo[vault]' in the environment that runs `mag`."


class NotThere(Exception):
    """The server has nothing at that path. `told_why`: it says more than that, as it does of a mount it lacks."""

    def __init__(self, told_why: bool) -> None:
        super().__init__(told_why)
        self.told_why = told_why


class NotTheNewest(Exception):
    """Somebody wrote this secret meanwhile; nothing was stored."""
