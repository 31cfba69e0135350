"""The versions of a node's settings, newest first, as its operators see them; what is kept of each is for `Versions`.

A disk that cannot be written costs a version its way back, and a line to the operator, but not the reload: it counts
already. Without a `Versions`, as in a test, what is needed to go back is kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import structs

from magmobo.contracts.configuration import ConfigVersion, ConfigVersions
from magmobo.contracts.errors import MagError
from magmobo.kernel.config.source import Base, Runtime
from magmobo.kernel.config.versions import Held, Snapshot, Versions
from magmobo.kernel.errors import NoFormerVersion, describe

if TYPE_CHECKING:
    from magmobo.kernel.observe.quiet import QuietLog

BOOT = "boot"


class VersionLog:
    """Of one node.

    Args:
        keep: how many versions are kept.
        problem: what an operator should know about what could not be kept; empty when all was.
    """

    def __init__(self, versions: Versions | None, keep: Callable[[], int], log: QuietLog) -> None:
        self._versions, self._keep, self._log = versions, keep, log
        self._in_memory: dict[int, Snapshot] = {}
        self._known: list[ConfigVersion] = []
        self.problem = ""

    async def begin(self, boot: ConfigVersion, base: Base, runtime: Runtime) -> int:
        """Read what is known of earlier versions and add the one of this start, unless it is the last one still.

        Returns: the number of the version that counts.
        """
        self._known = await self._listed()
        newest = next(iter(self._known), None)
        if newest is not None and await self._is(newest, base, runtime):
            self._known[0] = structs.replace(newest, running=True)
            return newest.version
        await self.add(boot, base, runtime)
        return boot.version

    async def add(self, meta: ConfigVersion, base: Base, runtime: Runtime) -> None:
        """Remember a version that counts now, and keep what is needed to go back to it."""
        meta = structs.replace(meta, running=True, restorable=True)
        if self._versions is None:
            self._in_memory[meta.version] = Snapshot(base, runtime)
        else:
            try:
                await self._versions.add(meta, base, runtime)
                self.problem = ""
            except MagError as error:
                self._failed(f"version {meta.version} of the settings is not kept", error)
                meta = structs.replace(meta, restorable=False)
        self._known = [meta, *(structs.replace(one, running=False) for one in self._known)][: self._keep()]
        for gone in self._in_memory.keys() - {one.version for one in self._known}:
            del self._in_memory[gone]

    async def keep_runtime(self, runtime: Runtime, held: Held | None) -> None:
        """Let what was set at run time outlive the node."""
        if self._versions is None:
            return
        try:
            await self._versions.keep_runtime(runtime, held)
            self.problem = ""
        except MagError as error:
            self._failed("what was set at run time counts only until the node ends", error)

    def history(self, limit: int) -> ConfigVersions:
        """The newest versions."""
        return ConfigVersions(self._known[:limit])

    def before(self, version: int) -> int:
        """The newest version before this one that can be gone back to. Raises: NoFormerVersion."""
        for one in self._known:
            if one.version < version and one.restorable:
                return one.version
        raise NoFormerVersion

    async def snapshot(self, version: int) -> Snapshot:
        """What counted in a version. Raises: as `Versions.snapshot`; NoFormerVersion."""
        if self._versions is not None:
            return await self._versions.snapshot(version)
        if version not in self._in_memory:
            raise NoFormerVersion
        return self._in_memory[version]

    async def _listed(self) -> list[ConfigVersion]:
        if self._versions is None:
            return []
        try:
            return list(await self._versions.list(self._keep()))
        except MagError as error:
            self._failed("the earlier versions of the settings cannot be listed", error)
            return []

    async def _is(self, newest: ConfigVersion, base: Base, runtime: Runtime) -> bool:
        if self._versions is None or not newest.restorable:
            return False
        try:
            return await self._versions.holds(newest.version, base, runtime)
        except MagError:
            return False

    def _failed(self, what: str, error: MagError) -> None:
        self.problem = f"{what}: {describe(error)}"
        self._log.error(what, error=describe(error))
