"""What keeps secrets, as the rest of the vault sees it: the file in the data folder, or a server.

Boundary: a driver is synchronous and takes its time; whoever calls it does so in a thread. It knows neither actors nor
the audit log: `manager` does. It costs nothing until its first call: no file is opened and no library loaded before.
Invariant: what a change returned for survives a crash; one that raised changed nothing, unless the disk or the server
failed while it was being made.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from magmobo.contracts.planes import SecretInfo
from magmobo.contracts.secret import Secret

MAX_SECRET_BYTES = 32_768
"""The longest secret, in UTF-8: a certificate with chain and key fits, and so does the command that brings it."""


class VaultSettings(Protocol):
    """Section [vault], as far as drivers use it; `kernel.config.core.VaultConfig` fits."""

    @property
    def driver(self) -> str: ...
    @property
    def key(self) -> Secret | None: ...
    @property
    def passphrase(self) -> Secret | None: ...
    @property
    def versions(self) -> int: ...
    @property
    def address(self) -> str: ...
    @property
    def ca_path(self) -> Path | None: ...
    @property
    def token(self) -> Secret | None: ...
    @property
    def mount(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def timeout_s(self) -> float: ...


class Mark(Struct, frozen=True):
    """Which state of which vault this is: `generation` grows by one with every change, `seal` is of its content."""

    vault_id: str
    generation: int
    seal: str


class VaultDriver(Protocol):
    """One vault. Its methods may be called from several threads at once.

    Every method raises VaultUnavailable, or a kind of it, when the vault cannot be read or written now. No error holds
    a secret, a key or a token.
    """

    @property
    def name(self) -> str:
        """`local` or `hashicorp`."""
        ...

    @property
    def key_source(self) -> str:
        """In a few words where the key, or the right to read, comes from; for people. Does not ask a server."""
        ...

    def read(self, name: str, version: int | None = None) -> tuple[str, int]:
        """The secret and its version; of the version that counts (the newest) unless one is named.

        Raises: SecretUnknown, also for a version that was dropped or deleted.
        """
        ...

    def write(self, secrets: Mapping[str, str], *, pinned: Mapping[str, Collection[int]]) -> Sequence[SecretInfo]:
        """Store a new version of each secret (name -> text), in the order given: all of them or none.

        A driver whose server has no such transaction stores one after the other and raises on the first that fails,
        with an error that names those which were stored.

        Args:
            pinned: versions by name that must not be dropped to make room; a server that drops by itself ignores it.
        Raises: SecretRefused for a text that cannot be kept.
        """
        ...

    def remove(self, name: str) -> None:
        """Forget a secret with all its versions. Raises: SecretUnknown."""
        ...

    def infos(self) -> Sequence[SecretInfo]:
        """Every secret, by name; none of them is decrypted."""
        ...

    def rekey(self, *, above_generation: int) -> None:
        """Encrypt everything under a new key; `mark` is then above this generation.

        Raises: RekeyRefused when the key is not the driver's to make.
        """
        ...

    def reconfigure(self, settings: VaultSettings) -> None:
        """Take changed settings; `driver` is the same as before. The local file is encrypted under a new key at once.

        When it raises, the settings before count on.
        """
        ...

    def mark(self) -> Mark | None:
        """What is there now, None when nothing is. Cheap: needs no key.

        Always None for a server, which keeps its own history.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections, and forget keys. Nothing is called after it."""
        ...
