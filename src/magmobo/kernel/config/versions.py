"""The memory of a node's settings: each version that counted, and what was set at run time.

Boundary: shapes and a Protocol, no I/O; `version_folder.py` keeps them on the disk. Invariant: what a call that writes
returned for is there after a crash at any moment, and a version is there wholly or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from magmobo.kernel.config.source import Base, Runtime

if TYPE_CHECKING:
    from magmobo.contracts.configuration import ConfigVersion


class Held(Struct, frozen=True):
    """An older state of the settings was taken back and counts although the files say something else.

    `version` is the one whose base counts, `digest` is of the base that it was taken back against: as soon as what the
    files say has another digest, the files count again.
    """

    version: int
    digest: str


class Kept(Struct, frozen=True):
    """What a node starts with besides its files. `last_version` is the highest number ever given, 0 at first."""

    runtime: Runtime = Runtime()
    held: Held | None = None
    last_version: int = 0


class Snapshot(Struct, frozen=True):
    """Everything that `ConfigSource.build` needs to make one version again; it holds secrets."""

    base: Base
    runtime: Runtime


class Versions(Protocol):
    """The versions of one node. All but `read_runtime` work in a thread."""

    def read_runtime(self) -> Kept:
        """What was kept last; an empty `Kept` where nothing ever was.

        Raises: RuntimeLost when it was kept and cannot be read, VersionsUnavailable.
        """
        ...

    async def keep_runtime(self, runtime: Runtime, held: Held | None) -> None:
        """Let `read_runtime` give these from now on. Raises: VersionsUnavailable; then the former are kept."""
        ...

    async def add(self, meta: ConfigVersion, base: Base, runtime: Runtime) -> None:
        """Keep a version that counts now; the oldest beyond the limit go, the one that is held never.

        meta: in the clear, so without secrets; `running` and `restorable` are not kept.
        Raises: ValueError for a number that is not above all before it; VersionsUnavailable, SealKeyDamaged.
        """
        ...

    async def list(self, limit: int) -> Sequence[ConfigVersion]:
        """The newest `limit` versions, newest first, `running` always False.

        A version whose file is damaged is among them, not `restorable`, and its `note` says why.
        Raises: VersionsUnavailable.
        """
        ...

    async def holds(self, version: int, base: Base, runtime: Runtime) -> bool:
        """Whether these counted in this version, found out without opening it. Raises: as `snapshot`."""
        ...

    async def snapshot(self, version: int) -> Snapshot:
        """What counted in this version. Raises: VersionUnknown, VersionDamaged, VersionsUnavailable, SealKeyDamaged."""
        ...
