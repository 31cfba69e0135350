"""From an extension to its process: what of its manifest and grants becomes a bound of the sandbox, and its own folder.

Boundary: the one place where the sandbox, the workers and what an extension may have meet. Invariant: a folder of its
own is there only for who was granted one, belongs to its uid alone, and outlives its versions.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from magmobo.extensions.config import MIB, ExtensionsConfig
from magmobo.extensions.gate.dispatch import ApiDispatcher
from magmobo.extensions.gate.gatekeeper import Gatekeeper
from magmobo.extensions.installed import Installed
from magmobo.extensions.sandbox.errors import DataFolderFull
from magmobo.extensions.sandbox.kinds import Layer
from magmobo.extensions.sandbox.quota import find_excess
from magmobo.extensions.sandbox.spawner import Spawner
from magmobo.extensions.sandbox.worker import WorkerProcess, WorkerSpec
from magmobo.extensions.workers.worker import Worker

if TYPE_CHECKING:
    import structlog

FOLDER_CAPABILITIES = ("filesystem.write", "filesystem.read")
TEMP_CAPABILITIES = ("filesystem.temp_only", "filesystem.write")
TEMP_BYTES, LEAST_TEMP_BYTES = 16 * MIB, 4096


class Housing:
    """Makes the workers of a node."""

    def __init__(
        self,
        spawner: Spawner,
        dispatcher: ApiDispatcher,
        gatekeeper: Gatekeeper,
        *,
        config: Callable[[], ExtensionsConfig],
        log: structlog.stdlib.BoundLogger,
        on_log: Callable[[Installed, str, str, Mapping[str, Any]], None],
        on_figure: Callable[[Installed, str, str, float], None],
    ) -> None:
        self._spawner, self._dispatcher, self._gatekeeper, self._config = spawner, dispatcher, gatekeeper, config
        self._log, self._on_log, self._on_figure = log, on_log, on_figure
        self._workers: WeakSet[Worker] = WeakSet()

    def worker(
        self,
        installed: Installed,
        *,
        uid: int,
        data_dir: Path,
        on_crash: Callable[[Installed, Any], None],
        on_escape: Callable[[Installed, str], None],
    ) -> Worker:
        """A worker that is not started; see `lifecycle.ports.WorkerFactory`."""
        folder = data_dir if self._has(installed, FOLDER_CAPABILITIES) else None

        async def spawn(wanted: Installed) -> WorkerProcess:
            return await self._spawn(wanted, uid, folder)

        worker = Worker(
            installed,
            spawn,
            self._dispatcher,
            self._gatekeeper,
            log=self._log,
            data_dir=folder,
            idle_stop_s=self._config().idle_stop_s,
            on_crash=on_crash,
            on_escape=on_escape,
            on_log=self._on_log,
            on_figure=self._on_figure,
        )
        self._workers.add(worker)
        return worker

    def adopt(self, config: ExtensionsConfig) -> None:
        """Workers that are there end after this time without a question; bounds count from their next start."""
        for worker in self._workers:
            worker.idle_stop_s = config.idle_stop_s

    async def _spawn(self, installed: Installed, uid: int, folder: Path | None) -> WorkerProcess:
        """Raises: DataFolderFull, what `Spawner.spawn` raises; OSError when the folder cannot be made."""
        limits = installed.manifest.limits
        owner = uid if Layer.USER in (await self._spawner.tiers()).layers else None
        if owner is not None:
            await asyncio.to_thread(_let_in, installed.code_dir, owner)
        if folder is not None:
            excess = await asyncio.to_thread(_furnish, folder, owner, limits.data_bytes)
            if excess:
                raise DataFolderFull(installed.id, excess)
        return await self._spawner.spawn(
            WorkerSpec(
                extension_id=installed.id,
                code_dir=installed.code_dir,
                data_dir=folder,
                memory_bytes=min(limits.memory_bytes, self._config().max_memory_bytes),
                data_bytes=limits.data_bytes,
                temp_bytes=TEMP_BYTES if self._has(installed, TEMP_CAPABILITIES) else LEAST_TEMP_BYTES,
                uid=owner,
            )
        )

    def _has(self, installed: Installed, capabilities: tuple[str, ...]) -> bool:
        return any(self._gatekeeper.holds(installed, one) for one in capabilities)


def _let_in(code_dir: Path, uid: int) -> None:
    """Code is read by the group of its extension, which its worker is in, and by nobody else."""
    os.chown(code_dir, 0, uid, follow_symlinks=False)
    code_dir.chmod(0o750)


def _furnish(folder: Path, uid: int | None, bound_bytes: int) -> str:
    """Make a folder of its own where it is not there, closed to all others. Returns: what is too much in it, or an
    empty text. Raises: OSError, for a link too: files that were moved here may be of a time when others could make one.
    """
    if folder.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, "it is a link, and no folder", str(folder))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    if os.geteuid() == 0:
        owner = 0 if uid is None else uid
        os.chown(folder, owner, owner, follow_symlinks=False)
    return find_excess(folder, bound_bytes)
