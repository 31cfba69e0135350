"""Watches the extensions of this node: asks how they are, counts their crashes, and acts when it is enough.

Enough is `health.STRIKES` bad answers in a row, `health.CRASHES` ends of the process within the window, or one attempt
to escape. A version that came by an upgrade goes back by itself when it is not well while it is watched; anything else
is stopped until an operator enables it. Invariant: what is decided here is noted in the audit log and told as an event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from magmobo.contracts.errors import MagError
from magmobo.contracts.events import (
    ExtensionError,
    ExtensionEscapeAttempt,
    ExtensionHealthStatusChanged,
)
from magmobo.extensions.installed import Installed
from magmobo.extensions.lifecycle.core import PLANE_ACTOR, Core, reason_of
from magmobo.extensions.lifecycle.following import Following
from magmobo.extensions.lifecycle.health import CRASHES, STRIKES, Said, ask_health
from magmobo.extensions.lifecycle.stage import Running
from magmobo.extensions.lifecycle.switching import Switching
from magmobo.extensions.lifecycle.versions import VersionChange
from magmobo.extensions.workers.errors import WorkerEnded

LOOK_EVERY_S = 1.0
WATCHED_EVERY_S = 5.0
"""How often a version that came by an upgrade is asked while it is watched."""
WATCHED_CRASHES = 2


class Watching:
    """Asks each extension every `health_every_s` of its manifest."""

    def __init__(self, core: Core, switching: Switching, versions: VersionChange, following: Following) -> None:
        self._core, self._switching, self._versions, self._following = core, switching, versions, following
        self._stage = core.stage
        self._next_s: dict[str, float] = {}
        self._acting: dict[str, asyncio.Task[None]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch."""
        if self._task is None:
            self._task = self._core.ports.spawn(self._watch(), "extension_health")

    async def stop(self) -> None:
        """Watch no more; what is being done about one is done first."""
        task, self._task = self._task, None
        asking = list(self._asking.values())
        for one in [*([task] if task is not None else []), *asking]:
            one.cancel()
        await asyncio.gather(*([task] if task is not None else []), *asking, return_exceptions=True)
        await asyncio.gather(*self._acting.values(), return_exceptions=True)

    # ------------------------------------------------------------ health

    async def _watch(self) -> None:
        while True:
            await self._core.ports.clock.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """Ask those whose time it is; send back those that do not come up while they are watched."""
        now_s = self._core.ports.clock.monotonic_s()
        for extension_id, running in self._stage.running.items():
            if extension_id not in self._asking and self._next_s.get(extension_id, 0.0) <= now_s:
                every_s = float(running.installed.manifest.health_every_s)
                if self._is_watched(extension_id):
                    every_s = min(every_s, WATCHED_EVERY_S)
                self._next_s[extension_id] = now_s + every_s
                self._run(self._asking, extension_id, self._ask(running))
        for extension_id in self._next_s.keys() - self._stage.running.keys():
            del self._next_s[extension_id]
        for extension_id, problem in self._following.problems.items():
            if self._is_watched(extension_id) and extension_id not in self._acting:
                self._run(self._acting, extension_id, self._enough(extension_id, f"it does not start: {problem}"))

    async def _ask(self, running: Running) -> None:
        if running.worker.is_idle:
            return  # it was well when it was needed last, and is not woken for this
        said = await ask_health(running.worker)
        if self._stage.has(running.installed):
            self._take(running, said)

    def _take(self, running: Running, said: Said) -> None:
        installed, before = running.installed, running.book.note(said)
        if before is not None:
            self._core.tell(
                ExtensionHealthStatusChanged(
                    extension_id=installed.id, old_status=before.status, new_status=said.status, reason=said.detail
                )
            )
        strikes = 1 if self._is_watched(installed.id) else STRIKES
        if running.book.strikes >= strikes:
            times = f"{running.book.strikes} times in a row" if running.book.strikes > 1 else "after an upgrade"
            self._act(installed, f"not well {times}: {said.detail}".rstrip(": "))

    # ------------------------------------------------------------ crashes and escapes

    def crashed(self, installed: Installed, ended: object) -> None:
        """The process of a worker ended by itself."""
        reason = " ".join(str(getattr(ended, "reason", ended)).split())[:300]
        self._core.tell(
            ExtensionError(extension_id=installed.id, version=installed.version, reason=f"{WorkerEnded.code} {reason}")
        )
        running = self._stage.running.get(installed.id)
        if running is None or running.installed is not installed:
            return  # one that comes up beside it; whoever starts it sees that
        crashes = running.book.note_crash(self._core.ports.clock.monotonic_s())
        if crashes >= (WATCHED_CRASHES if self._is_watched(installed.id) else CRASHES):
            self._act(installed, f"its process ended {crashes} times: {reason}")

    def escaped(self, installed: Installed, what: str) -> None:
        """A worker did what no honest extension does; its process is gone."""
        self._run(self._acting, installed.id, self._condemn(installed, what[:300]))

    async def _condemn(self, installed: Installed, what: str) -> None:
        core = self._core
        reason = f"escape attempt: {what}"
        core.tell(ExtensionEscapeAttempt(extension_id=installed.id, version=installed.version, what=what))
        await self._halt(installed.id, reason)
        payload = {"extension": installed.id, "version": installed.version, "sha256": installed.sha256, "what": what}
        try:
            await core.ports.audit.record("extension.escape_attempt", actor=PLANE_ACTOR, payload=payload)
        except MagError as error:
            core.ports.log.critical("extension.escape_attempt", **payload, not_recorded=str(error))

    # ------------------------------------------------------------ enough

    def _act(self, installed: Installed, reason: str) -> None:
        if installed.id not in self._acting:
            self._run(self._acting, installed.id, self._enough(installed.id, reason))

    async def _enough(self, extension_id: str, reason: str) -> None:
        if self._is_watched(extension_id) and await self._went_back(extension_id, reason):
            return
        await self._halt(extension_id, reason)
        await self._core.note(extension_id, "disabled", reason=reason)

    async def _went_back(self, extension_id: str, reason: str) -> bool:
        """Bring it to the version before its upgrade; whether that was possible."""
        try:
            async with self._core.change() as connection:
                entry = self._core.entry(extension_id)
                if not self._is_watched(extension_id):
                    return not entry.may_run  # somebody was faster
                way = await self._versions.way_back_now(entry, f"{entry.current.version} went back: {reason}"[:500])
                await self._versions.take(connection, way)
        except MagError as error:
            self._core.ports.log.warning("extension.did_not_go_back", extension=extension_id, error=reason_of(error))
            return False
        await self._core.note(extension_id, "rolled_back", reason=reason, version=way.target.version)
        return True

    async def _halt(self, extension_id: str, reason: str) -> None:
        try:
            await self._switching.halt(extension_id, reason, guard=True)
        except MagError as error:  # it is ended here; the database is told when it is back
            self._core.ports.log.warning("extension.halt_not_told", extension=extension_id, error=reason_of(error))

    def _is_watched(self, extension_id: str) -> bool:
        entry = self._core.registry.entries.get(extension_id)
        return entry is not None and entry.may_run and bool(entry.previous) and entry.watch_until_s > self._core.now_s

    def _run(self, tasks: dict[str, asyncio.Task[None]], extension_id: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._logged(extension_id, work))
        tasks[extension_id] = task
        task.add_done_callback(lambda done: tasks.pop(extension_id) if tasks.get(extension_id) is done else None)

    async def _logged(self, extension_id: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # one extension's trouble is not the node's
            self._core.ports.log.exception("extension.watch_failed", extension=extension_id, error=reason_of(error))
