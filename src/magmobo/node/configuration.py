"""Where this node's settings come from: its files, environment, credentials and command line, read as often as asked.

Implements `kernel.config.source.ConfigSource`. Boundary: reads, never writes but for what the guard remembers. What the
running node was started with stays: its environment's name chooses the files, and the command line is the one it was
given. Invariant: what is compared with the accepted files is the very text that was parsed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from magmobo.contracts.errors import ConfigError
from magmobo.contracts.secret import Secret
from magmobo.kernel.config.core import VaultConfig
from magmobo.kernel.config.errors import FilesVanished
from magmobo.kernel.config.layers import Layer
from magmobo.kernel.config.loader import build_config
from magmobo.kernel.config.overlay import Overlaid, overlaid, refer_to_vault
from magmobo.kernel.config.references import References
from magmobo.kernel.config.secret_text import follow
from magmobo.kernel.config.source import Base, Built, Runtime
from magmobo.kernel.vault.driver import VaultDriver
from magmobo.kernel.vault.opening import open_vault
from magmobo.node.settings import NodeOptions, Settings, read_settings

if TYPE_CHECKING:
    from magmobo.kernel.config.guard import FileGuard


_READINGS_KEPT = 4  # whose texts may still be accepted: one that is refused is never asked about again
_FILES_REFERRED = 100


class NodeConfigSource:
    """Implements `ConfigSource`.

    Args:
        options: what the command line said.
        settings: what was read with them at the start.
        sections: those of the components this node starts with; `add_section` makes them more.
        generated: what the node made up for itself, None while it is not known.
        guard: tells a file that is meant from one that is cut off or gone.
        digest_key: of the digests of what is read.
    """

    def __init__(
        self,
        options: NodeOptions,
        settings: Settings,
        sections: Mapping[str, type[Struct]],
        *,
        generated: Layer | None = None,
        guard: FileGuard | None = None,
        digest_key: bytes = b"",
    ) -> None:
        self._options, self._settings = options, settings
        self._sections, self._generated, self._guard = dict(sections), generated, guard
        self._later: dict[str, type[Struct]] = {}
        self._digest_key = digest_key
        self._texts: dict[str, Mapping[Path, bytes]] = {}
        self._referred: dict[Path, None] = {}
        self._vault: VaultDriver | None = None
        self._vault_config = VaultConfig()

    # ------------------------------------------------------------ as the kernel asks

    async def read(self, *, accept_removed: bool = False) -> Base:
        return await asyncio.to_thread(self.read_now, accept_removed=accept_removed)

    async def build(self, base: Base, runtime: Runtime) -> Built:
        return await asyncio.to_thread(self.build_now, base, runtime)

    async def accepted(self, base: Base) -> None:
        await asyncio.to_thread(self.accepted_now, base)

    # ------------------------------------------------------------ the same, at once

    def read_now(self, *, accept_removed: bool = False) -> Base:
        """As `read`, in this thread."""
        settings = read_settings(self._options, environment=self._settings.kernel.environment)
        return self.base_of(settings, accept_removed=accept_removed)

    def base_of(self, settings: Settings, *, accept_removed: bool = False) -> Base:
        """What was read already, compared with what was accepted last. Raises: FilesVanished."""
        if self._guard is not None and not accept_removed and (problems := self._guard.problems(settings.texts)):
            raise FilesVanished(list(problems))
        base = settings.base(self._known_sections, self._generated, digest_key=self._digest_key)
        self._texts[base.digest] = settings.texts
        while len(self._texts) > _READINGS_KEPT:
            del self._texts[next(iter(self._texts))]
        return base

    def build_now(self, base: Base, runtime: Runtime) -> Built:
        """As `build`, in this thread."""
        merged = overlaid(base, runtime, self._known_sections)
        with self._vault_of(merged) as vault:
            if vault.name == "local":  # a server would be asked for all its names at each reload, mostly to find none
                refer_to_vault(merged, [info.name for info in vault.infos()], self._known_sections)
            references = self._references(vault)
            sections = {name: one for name, one in self._known_sections.items() if self._is_built(name, merged)}
            try:
                config = build_config(sections, *merged, resolve=references)
            finally:
                self._refer(references.files)
            return Built(config, tuple(references.reads))

    def accepted_now(self, base: Base) -> None:
        """As `accepted`, in this thread."""
        texts = self._texts.pop(base.digest, None)
        self._texts.clear()
        if texts is not None and self._guard is not None:
            self._guard.accept(texts)

    def referred_files(self) -> Collection[Path]:
        """Files that settings refer to or did lately, also in vain: what is put there may be what was missing."""
        return tuple(self._referred)

    def dsn(self) -> Secret | None:
        """The user's own database, when one is named. Raises: ConfigError, VaultUnavailable."""
        merged = overlaid(self.base_of(self._settings), Runtime(), self._sections)
        section = merged.values.get("magds")
        named = section.get("dsn") if isinstance(section, Mapping) else None
        if not named:
            return None
        with self._vault_of(merged) as vault:
            references = self._references(vault)
            followed = follow(str(named), merged.origins["magds.dsn"], lambda found: references(found, "magds.dsn"))
        if followed.problems:
            raise ConfigError([f"magds.dsn: {problem}" for problem in followed.problems])
        return Secret(followed.text)

    # ------------------------------------------------------------ what changes while the node runs

    def add_section(self, name: str, section: type[Struct]) -> None:
        self._later[name] = section

    def take_vault(self, driver: VaultDriver, config: VaultConfig) -> None:
        """Follow references with the node's own driver wherever section [vault] names the vault that `config` names."""
        self._vault, self._vault_config = driver, config

    @property
    def vault_settings(self) -> VaultConfig:
        """Section [vault] as the node's own driver follows it."""
        return self._vault_config

    def take_vault_settings(self, config: VaultConfig) -> None:
        """The node's own driver follows these settings now."""
        self._vault_config = config

    # ------------------------------------------------------------ inside

    def _refer(self, files: Collection[Path]) -> None:
        """The newest of them stay; replaced as a whole, because the watch goes over them in another thread."""
        kept = [path for path in self._referred if path not in files][-_FILES_REFERRED:]
        self._referred = dict.fromkeys([*kept, *files])

    @property
    def _known_sections(self) -> Mapping[str, type[Struct]]:
        return {**self._sections, **self._later} if self._later else self._sections

    def _is_built(self, name: str, merged: Overlaid) -> bool:
        """Not the section of one that may have left again, and that needs more than defaults."""
        if name not in self._later or name in merged.values:
            return True
        try:
            self._later[name]()
        except (TypeError, ValueError):
            return False
        return True

    def _references(self, vault: VaultDriver | None) -> References:
        return References(
            environ=self._options.environ,
            credentials_dir=self._options.credentials_dir,
            base_dir=self._options.working_dir,
            read_vault=None if vault is None else vault.read,
        )

    @contextmanager
    def _vault_of(self, merged: Overlaid) -> Iterator[VaultDriver]:
        """The vault that these values name: the node's own, unless they name another.

        A local vault is the node's own whatever its key is: a changed key is taken by encrypting it anew.
        """
        section = {name: table for name, table in merged.values.items() if name == "vault"}
        wanted: VaultConfig = build_config(
            {"vault": VaultConfig}, section, merged.origins, merged.layers, resolve=self._references(None)
        ).section("vault")
        is_ours = wanted == self._vault_config or wanted.driver == self._vault_config.driver == "local"
        if self._vault is not None and is_ours:
            yield self._vault
            return
        driver = open_vault(wanted, self._settings.folder.path)
        try:
            yield driver
        finally:
            driver.close()
