"""Which vault a node has; asked before there is a kernel, because settings may refer to secrets.

Boundary: this module is loaded by every start, so what works on vaults (6 ms, a server's library more) is loaded by the
first call that needs it. A node without a vault never does.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from magmobo.contracts.planes import SecretInfo
    from magmobo.kernel.vault.driver import Mark, VaultDriver, VaultSettings


def open_vault(settings: VaultSettings, data_dir: Path) -> VaultDriver:
    """The vault that section [vault] names. Nothing is opened, asked or made before its first call."""
    return _Vault(settings, data_dir)


class _Vault:
    """Implements `driver.VaultDriver` with the one that the settings name, made by the first call."""

    def __init__(self, settings: VaultSettings, data_dir: Path) -> None:
        self._settings, self._data_dir = settings, data_dir
        self._turn = threading.Lock()
        self._made: VaultDriver | None = None

    @property
    def name(self) -> str:
        return self._settings.driver

    @property
    def key_source(self) -> str:
        return self._driver().key_source

    def read(self, name: str, version: int | None = None) -> tuple[str, int]:
        return self._driver().read(name, version)

    def write(self, secrets: Mapping[str, str], *, pinned: Mapping[str, Collection[int]]) -> Sequence[SecretInfo]:
        return self._driver().write(secrets, pinned=pinned)

    def remove(self, name: str) -> None:
        self._driver().remove(name)

    def infos(self) -> Sequence[SecretInfo]:
        return [] if self._is_nothing() else self._driver().infos()

    def rekey(self, *, above_generation: int) -> None:
        self._driver().rekey(above_generation=above_generation)

    def reconfigure(self, settings: VaultSettings) -> None:
        with self._turn:
            if self._made is not None:
                self._made.reconfigure(settings)
            elif settings.driver == "local" and _has_file(self._data_dir):
                self._made = _make(self._settings, self._data_dir)
                self._made.reconfigure(settings)  # it may have to be encrypted anew
            self._settings = settings

    def mark(self) -> Mark | None:
        return None if self._is_nothing() else self._driver().mark()

    def close(self) -> None:
        with self._turn:
            if self._made is not None:
                self._made.close()

    def _is_nothing(self) -> bool:
        """Whether there is no local vault; every start asks."""
        return self._made is None and self.name == "local" and not _has_file(self._data_dir)

    def _driver(self) -> VaultDriver:
        with self._turn:
            if self._made is None:
                self._made = _make(self._settings, self._data_dir)
            return self._made


def _has_file(data_dir: Path) -> bool:
    return os.path.lexists(data_dir / "vault" / "vault.mag")


def _make(settings: VaultSettings, data_dir: Path) -> VaultDriver:
    """Raises: MagError of the server's driver, when its library is not installed."""
    if settings.driver == "hashicorp":
        from magmobo.kernel.vault.hashicorp import HashiCorpVault

        return HashiCorpVault(settings)
    from magmobo.kernel.vault.file import LocalVault

    return LocalVault(settings, data_dir)
