"""Starts workers: keeps one zygote, and gives each worker the sandbox that this machine has.

Nothing is started before it is needed; a zygote that ended is started anew with the next worker. Invariant: `spawn`
returns a worker with every layer around it, or raises and nothing of the extension has run.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from magmobo.extensions.sandbox import quota, unsandboxed
from magmobo.extensions.sandbox.control import Finding
from magmobo.extensions.sandbox.errors import NoSandbox, WorkerUnfit, ZygoteFailed
from magmobo.extensions.sandbox.kinds import Layer
from magmobo.extensions.sandbox.line import Line
from magmobo.extensions.sandbox.tiers import Tier, Tiers
from magmobo.extensions.sandbox.worker import WorkerProcess, WorkerSpec

if TYPE_CHECKING:
    import structlog

_PACKAGES = ("magmobo", "magx", "msgspec", "uvloop")
_BIRTHS_AT_ONCE = 8
_START_S, _SPAWN_S, _STOP_S = 20.0, 10.0, 5.0
_ELSEWHERE = Tiers(Tier.S0, frozenset(), [Finding(Layer.SECCOMP, False, f"{sys.platform} is not Linux")])


class Spawner:
    """Starts workers of extensions. `python` runs the zygote; `runtime` is `module:function` of what a worker runs,
    found in `import_from` or beside this package. A `rehearse` of that module is called before anything forks.
    """

    def __init__(
        self,
        *,
        log: structlog.stdlib.BoundLogger,
        python: str = sys.executable,
        allow_unsandboxed: bool = False,
        runtime: str = "magx.runtime:run",
        import_from: Sequence[Path] = (),
    ) -> None:
        self._log, self._python, self._allow_unsandboxed = log, python, allow_unsandboxed
        self._runtime, self._paths = runtime, [*(str(one.absolute()) for one in import_from), *_package_folders()]
        self._line: Line | None = None
        self._starting = asyncio.Lock()
        self._births = asyncio.Semaphore(_BIRTHS_AT_ONCE)
        self._watches: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start the zygote unless it runs. Raises: ZygoteFailed."""
        if sys.platform == "linux":
            await self._running()

    async def tiers(self) -> Tiers:
        """What this machine gives; found once in the life of a zygote. Raises: ZygoteFailed."""
        return (await self._running()).tiers if sys.platform == "linux" else _ELSEWHERE

    async def spawn(self, spec: WorkerSpec) -> WorkerProcess:
        """Start a worker. Raises: NoSandbox, SandboxFailed, WorkerUnfit, ZygoteFailed."""
        found = await self.tiers()
        if found.tier is Tier.S0 and spec.layers is None:
            return await self._spawn_unsandboxed(spec, found)
        line = await self._running()
        layers = _layers(spec, found, is_root=line.is_root)
        async with self._births:
            worker = await line.spawn(spec, layers, _SPAWN_S)
        if spec.data_dir is not None:
            self._keep(asyncio.create_task(quota.watch(worker), name=f"data folder of {spec.extension_id}"))
        return worker

    async def close(self) -> None:
        """End every worker and the zygote."""
        async with self._starting:
            line, self._line = self._line, None
            if line is not None:
                await line.close(_STOP_S)
        watches = list(self._watches)
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)

    async def _running(self) -> Line:
        async with self._starting:
            if self._line is None or self._line.is_over:
                self._line = await Line.open(self._log, self._python, self._runtime, self._paths, _START_S)
            return self._line

    async def _spawn_unsandboxed(self, spec: WorkerSpec, found: Tiers) -> WorkerProcess:
        if not self._allow_unsandboxed:
            raise NoSandbox(found.missing)
        self._log.warning("an extension runs without a sandbox", extension=spec.extension_id, missing=found.missing)
        try:
            worker, waiting = await unsandboxed.spawn(spec, self._python, self._runtime, self._paths)
        except OSError as error:
            raise ZygoteFailed(str(error)) from error
        self._keep(waiting)
        return worker

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)


async def probe(log: structlog.stdlib.BoundLogger, python: str = sys.executable) -> Tiers:
    """What this machine gives, asked of a zygote that then ends. Raises: ZygoteFailed."""
    spawner = Spawner(log=log, python=python)
    try:
        return await spawner.tiers()
    finally:
        await spawner.close()


def _layers(spec: WorkerSpec, found: Tiers, *, is_root: bool) -> frozenset[Layer]:
    layers = found.layers if spec.layers is None else spec.layers
    if is_root and Layer.USER in layers and spec.uid is None:
        raise WorkerUnfit(spec.extension_id, "the node is root and no uid was given for it")
    return layers


def _package_folders() -> list[str]:
    """Folders that the packages of the zygote are in."""
    found = (importlib.util.find_spec(name) for name in _PACKAGES)
    origins = [spec.origin for spec in found if spec and spec.origin]
    return list(dict.fromkeys(str(Path(origin).parent.parent) for origin in origins))
