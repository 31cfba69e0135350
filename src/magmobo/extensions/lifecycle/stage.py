"""The workers of this node: put in place where the node asks extensions, changed for others, taken out.

Boundary: this process alone; what the database says of an extension is for others. Invariant: one worker of an
extension is in place at a time, and a worker that was taken out is ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from magmobo.extensions.installed import Installed
from magmobo.extensions.lifecycle.health import HealthBook, ask_health
from magmobo.extensions.lifecycle.ports import Ports, Worker

Crashed = Callable[[Installed, object], None]
Escaped = Callable[[Installed, str], None]


@dataclass(slots=True)
class Running:
    """A worker in place, and how it has been."""

    worker: Worker
    book: HealthBook = field(default_factory=HealthBook)

    @property
    def installed(self) -> Installed:
        """Its version."""
        return self.worker.installed


class Stage:
    """`on_crash` and `on_escape` hear of workers, in place or not."""

    def __init__(self, ports: Ports, *, on_crash: Crashed, on_escape: Escaped) -> None:
        self._ports, self._on_crash, self._on_escape = ports, on_crash, on_escape
        self.running: dict[str, Running] = {}

    def has(self, installed: Installed) -> bool:
        """Whether just this one is in place."""
        running = self.running.get(installed.id)
        return running is not None and running.installed is installed

    async def started(self, installed: Installed, *, uid: int, data_dir: Path) -> Worker:
        """A worker that is ready and says that it is well; not in place yet. Raises: MagError."""
        worker = self._ports.make_worker(
            installed,
            uid=uid,
            data_dir=data_dir,
            on_crash=self._on_crash,
            on_escape=self._on_escape,
        )
        try:
            await worker.start()
            await ask_health(worker, must_be_well=True)
        except BaseException:
            worker.kill()
            raise
        return worker

    async def put(self, worker: Worker) -> None:
        """Ask it from now on. Raises: HookDenied when another extension does not let it answer requests."""
        extension_id = worker.installed.id
        try:
            await self._ports.endpoints.attach(worker)
            await self._ports.events.attach(worker)
            self._ports.hooks.attach(worker)
        except BaseException:
            await self._take_out(extension_id)
            raise
        self.running[extension_id] = Running(worker)

    async def swap(self, new: Worker) -> Worker | None:
        """Ask `new` from now on in the place of the worker that is there, which is not ended; that one. Without one
        there, this is `put`. When it raises, the former one is in place.
        """
        extension_id = new.installed.id
        old = self.running.get(extension_id)
        if old is None:
            await self.put(new)
            return None
        try:
            await self._ports.endpoints.attach(new)
            await self._ports.events.attach(new)
            self._ports.hooks.swap(old.worker, new)
        except BaseException:
            await self._ports.endpoints.attach(old.worker)
            await self._ports.events.attach(old.worker)
            raise
        self.running[extension_id] = Running(new)
        return old.worker

    def guard(self, installed: Installed) -> None:
        """Let its hooks that fail closed deny."""
        self._ports.hooks.guard(installed)

    def unguard(self, extension_id: str) -> None:
        """Ask nothing for it any more, not even its placeholder."""
        self._ports.hooks.detach(extension_id)

    async def stop(self, extension_id: str, *, guard: bool = False) -> None:
        """Ask it nothing more and let it finish. `guard`: its hooks that fail closed deny from now on."""
        worker = await self._take_out(extension_id, guard=guard)
        if worker is not None:
            await worker.drain(self._ports.config().drain_s)

    async def kill(self, extension_id: str, *, guard: bool = False) -> None:
        """End it at once; the rest as in `stop`."""
        running = self.running.get(extension_id)
        if running is not None:
            running.worker.kill()
        await self._take_out(extension_id, guard=guard)

    async def kill_all(self) -> None:
        """End all of them at once."""
        for running in self.running.values():
            running.worker.kill()
        for extension_id in list(self.running):
            await self._take_out(extension_id)

    async def stop_all(self) -> None:
        """The node ends, or stops mediating for a while: hooks that fail closed deny until it is back."""
        await asyncio.gather(*(self.stop(extension_id, guard=True) for extension_id in list(self.running)))

    async def _take_out(self, extension_id: str, *, guard: bool = False) -> Worker | None:
        running = self.running.pop(extension_id, None)
        if not guard:
            self.unguard(extension_id)
        elif running is not None:
            self.guard(running.installed)
        self._ports.endpoints.detach(extension_id)
        await self._ports.events.detach(extension_id)
        return None if running is None else running.worker
