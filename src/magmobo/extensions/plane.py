"""The plane of one node: when its rooms begin and end, what people see of them, and the calls that need several.

Made when a node has an extension, or is first asked about any. Boundary: leads the life of what `wiring` joined; each
part decides for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, msgpack

from magmobo.contracts.component import Announcement, Context
from magmobo.contracts.extensions import DeadLetters, SandboxReport
from magmobo.contracts.health import HealthCheck, HealthReport, HealthStatus
from magmobo.extensions.answers import Answers
from magmobo.extensions.config import ExtensionsConfig
from magmobo.extensions.errors import NoSuchCommand, NotRunning, PlaneOff
from magmobo.extensions.installed import Question
from magmobo.extensions.neighbours import Neighbours
from magmobo.extensions.sandbox import tiers
from magmobo.extensions.staging import Staging
from magmobo.extensions.wiring import Rooms
from magmobo.extensions.workers.errors import HandlerFailed
from magx import wire

SAMPLE_EVERY_S = 5.0


class Plane:
    """The extensions of one node."""

    def __init__(self, context: Context, config: ExtensionsConfig, neighbours: Neighbours) -> None:
        self._context, self._config = context, config
        self.is_started = False
        self._sampling: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._rooms = rooms = Rooms(context, neighbours, lambda: self._config)
        self._lifecycle = rooms.lifecycle
        self.answers = Answers(self, rooms.lifecycle, Staging(context.clock.monotonic_s), rooms.journal)

    # ------------------------------------------------------------ life

    async def boot(self) -> None:
        """Hold the places of extensions that must be asked, and no others: who switched extensions off switched their
        guards off, too. Raises: Unavailable, and then what held a place goes on to do so.
        """
        if self._config.enabled:
            await self._lifecycle.boot()
        else:
            await self._lifecycle.read()
        self._rooms.hooks.take_over()

    async def start(self) -> None:
        """Start what is enabled; calling it twice is fine."""
        async with self._starting:
            if self.is_started:
                return
            self._rooms.endpoints.start()
            if self._config.enabled:
                await self._rooms.budgets.start()
                await self._rooms.events.start()
                await self._lifecycle.start()
            self._sampling = self._context.spawn(self._sample(), name="extensions.figures")
            self.is_started = True

    async def stop(self) -> None:
        """Drain and end every worker."""
        async with self._starting:
            self.is_started = False
            if self._sampling is not None:
                self._sampling.cancel()
                self._sampling = None
            self._rooms.endpoints.stop()
            await self._lifecycle.stop()
            await self._rooms.events.stop()
            await self._rooms.budgets.stop()
            await self._rooms.gatekeeper.close()
            await self._rooms.http.close()
            await self._rooms.spawner.close()
            self._rooms.premises.leave()

    def adopt(self, config: ExtensionsConfig) -> None:
        """These settings count from now on; workers that run take theirs when they start again."""
        self._config = config
        self._rooms.http.adopt(config.http_networks)
        self._rooms.housing.adopt(config)

    def check_on(self) -> None:
        """Raises: PlaneOff."""
        if not self._config.enabled:
            raise PlaneOff

    # ------------------------------------------------------------ what people see

    def health(self) -> HealthReport:
        """Extensions that should run here and do not are a worry, never a reason to restart the plane."""
        problems = self._lifecycle.problems
        said = "; ".join(f"{extension_id}: {reason}" for extension_id, reason in sorted(problems.items()))
        status = HealthStatus.DEGRADED if problems else HealthStatus.HEALTHY
        running = len(self._lifecycle.installed())
        return HealthReport.of(HealthCheck("extensions", status, said[:500] or f"{running} running", outside=True))

    def announce(self) -> Announcement:
        """What an operator should know at the start."""
        notices = [f"extension {one} does not run: {why}" for one, why in sorted(self._lifecycle.problems.items())]
        if not self._config.enabled:
            notices.append("extensions are switched off (extensions.enabled)")
        return Announcement(notices=notices[:5])

    async def sandbox_report(self) -> SandboxReport:
        """What this machine's sandbox is, and whether workers come to their files."""
        report = tiers.report(await self._rooms.spawner.tiers())
        return SandboxReport(report.tier, [*report.lines, await asyncio.to_thread(self._rooms.premises.look)])

    # ------------------------------------------------------------ work

    async def dead_letters(self, extension_id: str, *, retry: bool, replay_s: float) -> DeadLetters:
        """Events that an extension could not take, after what was wished. Raises: MagError."""
        if retry:
            await self._rooms.events.retry_dead(extension_id)
        if replay_s > 0:
            await self._rooms.events.replay(extension_id, replay_s)
        return await self._rooms.events.dead_letters(extension_id)

    async def run_command(
        self, extension_id: str, command: str, arguments: Mapping[str, Any], deadline_s: float
    ) -> Any:
        """The answer of one of its commands. Raises: ExtensionUnknown, NotRunning, NoSuchCommand; those of workers."""
        worker = self._lifecycle.worker(extension_id)
        if worker is None:
            await self._lifecycle.show(extension_id)  # one that is not there is not one that does not run
            raise NotRunning(extension_id)
        known = [one.name for one in worker.installed.manifest.commands]
        if command not in known:
            raise NoSuchCommand(extension_id, command, known)
        timeout_s = max(0.001, deadline_s - self._context.clock.monotonic_s())
        question = Question(f"command:{command}", wire.raw({"arguments": dict(arguments)}), timeout_s)
        return _in_json(extension_id, question.handler, await worker.ask(question))

    # ------------------------------------------------------------ inside

    async def _sample(self) -> None:
        """What workers use, for whoever draws it."""
        while True:
            used: dict[str, Mapping[str, float]] = {}
            for extension_id in list(self._lifecycle.installed()):
                if (worker := self._lifecycle.worker(extension_id)) is not None:
                    used[extension_id] = worker.figures()
                    await asyncio.sleep(0)  # the system counts a process's pages for each, some 0.3 ms
            self._rooms.figures.sample(used)
            await self._context.clock.sleep(SAMPLE_EVERY_S)


def _in_json(extension_id: str, handler: str, said: Raw) -> Raw:
    """What a handler answered, for those who read JSON. Raises: HandlerFailed when JSON has no words for it."""
    try:
        return Raw(msgspec.json.encode(msgpack.decode(said)))
    except (msgspec.MsgspecError, TypeError, ValueError, NotImplementedError, RecursionError) as error:
        raise HandlerFailed(extension_id, handler, type(error).__name__, "its answer cannot be said in JSON") from error
