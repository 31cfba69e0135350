"""What a node begins with: its files, what was set at run time, and the vault, made into the first configuration.

Boundary: reads, and writes nothing; the data folder is locked by the caller. Invariant: what counted when the node
went down counts when it comes up, unless the files say something new: overrides, patches whose time is not over, and an
older version that was taken back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from msgspec import Struct

from magmobo.contracts.errors import ConfigError, MagError
from magmobo.kernel.config.core import VaultConfig
from magmobo.kernel.config.errors import SealKeyDamaged, VersionDamaged, VersionUnknown
from magmobo.kernel.config.guard import FileGuard
from magmobo.kernel.config.layers import Layer
from magmobo.kernel.config.loader import Config
from magmobo.kernel.config.sealing import Sealer
from magmobo.kernel.config.source import Base, Built, Runtime, Start
from magmobo.kernel.config.version_folder import VersionFolder
from magmobo.kernel.config.versions import Kept
from magmobo.kernel.patches import expired, without_expired
from magmobo.kernel.vault.driver import VaultDriver
from magmobo.kernel.vault.opening import open_vault
from magmobo.node.configuration import NodeConfigSource
from magmobo.node.errors import HeldVersionLost, RuntimeSettingRefused
from magmobo.node.settings import NodeOptions, Settings


class Beginning(Struct, frozen=True):
    """The parts of a kernel that have to do with settings, as it takes them."""

    config: Config
    source: NodeConfigSource
    start: Start
    versions: VersionFolder
    vault: VaultDriver


def check(options: NodeOptions, settings: Settings, sections: Mapping[str, type[Struct]]) -> None:
    """Find a mistake of the user's before a folder is made for it. Raises: ConfigError, VaultUnavailable."""
    source = NodeConfigSource(options, settings, sections)
    source.build_now(source.base_of(settings), Runtime())


async def begin(
    options: NodeOptions,
    settings: Settings,
    sections: Mapping[str, type[Struct]],
    *,
    generated: Layer,
    keep: Callable[[], int],
    digest_key: bytes,
) -> Beginning:
    """The first configuration of a node, and how to make others.

    A safe start leaves out what was set at run time, without forgetting it, so that `config:unset` can mend it.

    Args:
        generated: what the node made up for itself.
        keep: how many versions of the settings are kept, asked for each.
        digest_key: of the digests of what is read, the same at every start.
    Raises: ConfigError with every problem, RuntimeSettingRefused, HeldVersionLost, VaultUnavailable, RuntimeLost,
        VersionsUnavailable.
    """
    folder = settings.folder.path
    guard = FileGuard(folder / "config" / "files.json", options.main_file.parent)
    source = NodeConfigSource(options, settings, sections, generated=generated, guard=guard, digest_key=digest_key)
    versions = VersionFolder(folder / "config", sealer=Sealer(folder / "secrets" / "config.key"), keep=keep)
    kept = _kept(versions, safe=options.safe)
    read = base = source.base_of(settings, accept_removed=options.accept_removed)
    held = kept.held if kept.held is not None and kept.held.digest == read.digest else None
    if held is not None and not options.safe:
        base = await _base_of(versions, held.version)
    now_s = time.time()
    runtime = without_expired(kept.runtime, now_s)
    built = source.build_now(base, Runtime()) if options.safe else _built(source, base, runtime)
    source.accepted_now(read)
    vault_config: VaultConfig = built.config.section("vault")
    vault = open_vault(vault_config, folder)
    source.take_vault(vault, vault_config)
    start = Start(
        base,
        runtime,
        built.reads,
        held_digest=held.digest if held is not None else "",
        held_version=held.version if held is not None else 0,
        last_version=kept.last_version,
        expired=expired(kept.runtime, now_s),
        leaves_out=options.safe,
    )
    return Beginning(built.config, source, start, versions, vault)


async def _base_of(versions: VersionFolder, held: int) -> Base:
    """Raises: HeldVersionLost, VersionsUnavailable."""
    try:
        return (await versions.snapshot(held)).base
    except (VersionDamaged, VersionUnknown, SealKeyDamaged) as error:
        raise HeldVersionLost(held, str(error)) from error


def _kept(versions: VersionFolder, *, safe: bool) -> Kept:
    """A safe start begins even where what was set at run time is lost."""
    try:
        return versions.read_runtime()
    except MagError:
        if not safe:
            raise
    with suppress(MagError):  # whatever is wrong with the folder is told when a version cannot be kept
        return Kept(last_version=versions.last_version())
    return Kept()


def _built(source: NodeConfigSource, base: Base, runtime: Runtime) -> Built:
    """Raises: RuntimeSettingRefused when it is what was set at run time that the node cannot start with."""
    try:
        return source.build_now(base, runtime)
    except ConfigError as error:
        if runtime == Runtime():
            raise
        source.build_now(base, Runtime())  # else the files are wrong as well, and they come first
        raise RuntimeSettingRefused(error.problems) from error
