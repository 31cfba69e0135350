"""Gives the secrets that settings refer to: `vault:`, `file:`, `env:`, `cred:`.

Boundary: reads files, and the environment and vault it is given; the grammar is in `secret_text`. It notes every read,
so that reads can be audited before a configuration counts, and reads each secret once, so that one configuration never
holds two versions of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from magmobo.contracts.errors import SecretUnknown
from magmobo.kernel.config.errors import ReferenceFailed
from magmobo.kernel.config.layers import read_value
from magmobo.kernel.config.secret_text import Reference
from magmobo.kernel.config.source import SecretRead

ReadVault = Callable[[str, int | None], tuple[str, int]]
_LINE = re.compile(r"(.+) line \d+")


class References:
    """Follows the references of one configuration; `reads` is what was read, in order, `files` where
    secrets were looked for.

    Args:
        base_dir: where a relative path starts that no file says.
        read_vault: (name, version or None for the one that counts) -> (secret, version). Raises: SecretUnknown,
            VaultUnavailable. None where there is no vault.
    """

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        credentials_dir: Path | None,
        base_dir: Path,
        read_vault: ReadVault | None = None,
    ) -> None:
        self._environ, self._credentials_dir, self._base_dir = environ, credentials_dir, base_dir
        self._read_vault = read_vault
        self._known: dict[str, tuple[str, int | None]] = {}
        self.reads: list[SecretRead] = []
        self.files: set[Path] = set()

    def __call__(self, reference: Reference, key: str) -> str:
        """The secret for the setting `key`. Raises: ReferenceFailed, VaultUnavailable."""
        if reference.kind == "vault" and key.startswith("vault."):
            raise ReferenceFailed(str(reference), "the vault cannot keep what opens it; use file:, env: or cred:")
        place = str(self._path(reference)) if reference.kind == "file" else str(reference)
        if place not in self._known:
            self._known[place] = self._read(reference)
        text, version = self._known[place]
        if not text:
            raise ReferenceFailed(str(reference), "there is nothing in it")
        self.reads.append(SecretRead(key, str(reference), version))
        return text

    def _read(self, reference: Reference) -> tuple[str, int | None]:
        if reference.kind == "vault":
            return self._from_vault(reference)
        if reference.kind == "file":
            return self._from_file(reference, self._path(reference)), None
        if reference.kind == "cred":
            if self._credentials_dir is None:
                raise ReferenceFailed(str(reference), "$CREDENTIALS_DIRECTORY is not set, so there are no credentials")
            return self._from_file(reference, self._credentials_dir / reference.name), None
        if reference.name not in self._environ:
            raise ReferenceFailed(str(reference), "this variable is not set")
        return self._environ[reference.name], None

    def _from_vault(self, reference: Reference) -> tuple[str, int]:
        if self._read_vault is None:
            raise ReferenceFailed(str(reference), "there is no vault here")
        try:
            return self._read_vault(reference.name, reference.version)
        except SecretUnknown as error:
            raise ReferenceFailed(str(reference), str(error)) from error

    def _from_file(self, reference: Reference, path: Path) -> str:
        self.files.add(path)
        try:
            return read_value(path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ReferenceFailed(str(reference), f"the file cannot be read ({reason})") from error

    def _path(self, reference: Reference) -> Path:
        """A relative path starts in the folder of the file that says it."""
        said_in = _LINE.fullmatch(reference.origin)
        return (Path(said_in[1]).parent if said_in else self._base_dir) / Path(reference.name).expanduser()
