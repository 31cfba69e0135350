"""The plane put together: which room gets what of which. Built by hand, top to bottom; it is the wiring diagram.

Made when a node has an extension, or is first asked about any. Boundary: joins, and leads its life; each part decides
for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, msgpack

from magmobo import __version__
from magmobo.contracts.component import Announcement, Context
from magmobo.contracts.extensions import DeadLetters, SandboxReport
from magmobo.contracts.guests import Guests, Migrations
from magmobo.contracts.health import HealthCheck, HealthReport, HealthStatus
from magmobo.contracts.planes import Changes, Database, Gateway, Listener, Realtime, Vault
from magmobo.extensions.adapters.maggate import Endpoints
from magmobo.extensions.adapters.magws import RealtimeMethods
from magmobo.extensions.answers import Answers
from magmobo.extensions.api.http import HttpMethods
from magmobo.extensions.api.settings import SettingsMethods
from magmobo.extensions.config import ExtensionsConfig
from magmobo.extensions.errors import NoSuchCommand, NotRunning, PlaneOff
from magmobo.extensions.events.router import EventRouter
from magmobo.extensions.events.schema import MIGRATIONS as EVENT_TABLES
from magmobo.extensions.figures import ExtensionFigures
from magmobo.extensions.gate.budgets import Budgets
from magmobo.extensions.gate.dispatch import ApiDispatcher
from magmobo.extensions.gate.gatekeeper import Gatekeeper
from magmobo.extensions.gate.outbox import actor_of
from magmobo.extensions.hooks.router import HookRouter
from magmobo.extensions.housing import Housing
from magmobo.extensions.installed import ApiMethod, Installed, Question
from magmobo.extensions.journal import ExtensionJournal
from magmobo.extensions.lifecycle.manager import Lifecycle
from magmobo.extensions.lifecycle.ports import Ports
from magmobo.extensions.lifecycle.schema import MIGRATIONS as TABLES
from magmobo.extensions.premises import Premises
from magmobo.extensions.sandbox import tiers
from magmobo.extensions.sandbox.spawner import Spawner
from magmobo.extensions.sql.methods import SqlMethods, rights_of
from magmobo.extensions.staging import Staging
from magmobo.extensions.workers.errors import HandlerFailed
from magx import wire

SAMPLE_EVERY_S = 5.0
NAMES_RECORDED, NAME_CHARS = 20, 60


class Plane:
    """The extensions of one node."""

    def __init__(
        self,
        context: Context,
        config: ExtensionsConfig,
        *,
        database: Database,
        guests: Guests,
        migrations: Migrations,
        changes: Changes | None,
        realtime: Realtime | None,
        gateway: Gateway | None,
        listener: Listener | None,
    ) -> None:
        self._context, self._config = context, config
        self.is_started = False
        self._sampling: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._gatekeeper = gatekeeper = Gatekeeper(context.clock, context.audit, context.bus, context.metrics)
        self._journal = journal = ExtensionJournal(context.log, context.clock.time_s, context.hide)
        self._figures = figures = ExtensionFigures(
            context.metrics, gatekeeper.holds, lambda owner, level, text: journal.add(owner, level, text, {})
        )
        self._events = EventRouter(context, database, changes, gatekeeper=gatekeeper, config=lambda: self._config)
        self._http = HttpMethods(denied=gatekeeper.denied, networks=config.http_networks)
        methods: list[ApiMethod] = [
            *SqlMethods(guests, gatekeeper).methods(),
            *self._events.methods(),
            *self._http.methods(),
            *SettingsMethods(self._configure).methods(),
        ]
        if realtime is not None:
            methods += RealtimeMethods(realtime, denied=gatekeeper.denied).methods()
        dispatcher = ApiDispatcher(methods, gatekeeper, context.log)
        self._spawner = Spawner(log=context.log, allow_unsandboxed=config.allow_unsandboxed)
        self._housing = housing = Housing(
            self._spawner,
            dispatcher,
            gatekeeper,
            config=lambda: self._config,
            log=context.log,
            on_log=lambda installed, level, text, fields: journal.add(installed.id, level, text, fields),
            on_figure=figures.take,
        )
        self._endpoints: Endpoints | _NoEndpoints = (
            _NoEndpoints()
            if listener is None
            else Endpoints(listener, gateway, context.hooks, holds=gatekeeper.holds, log=context.log, hide=context.hide)
        )
        self._premises = Premises(context.data_dir, lambda: self._config.system_dir, context.log)
        self._hooks = HookRouter(context.hooks, gatekeeper, context.log)
        ports = Ports(
            database=database,
            guests=guests,
            migrations=migrations,
            make_worker=housing.worker,
            hooks=self._hooks,
            events=self._events,
            endpoints=self._endpoints,
            audit=context.audit,
            bus=context.bus,
            vault=self._vault,
            clock=context.clock,
            log=context.log,
            spawn=lambda coroutine, name: context.spawn(coroutine, name=name),
            config=lambda: self._config,
            tier=self._tier,
            rights_of=rights_of,
            used=lambda extension_id, capability: gatekeeper.used(extension_id).get(capability, 0),
            forget=self.forget,
            tables=[*TABLES, *EVENT_TABLES],
            premises=self._premises,
            node_version=__version__,
        )
        self._lifecycle = Lifecycle(ports)
        self._budgets = Budgets(
            gatekeeper,
            database,
            context.clock,
            context.log,
            installed=self._lifecycle.installed,
            spawn=ports.spawn,
        )
        self.answers = Answers(self, self._lifecycle, Staging(context.clock.monotonic_s), journal)

    # ------------------------------------------------------------ life

    async def boot(self) -> None:
        """Hold the places of extensions that must be asked, and no others: who switched extensions off switched their
        guards off, too. Raises: Unavailable, and then what held a place goes on to do so.
        """
        if self._config.enabled:
            await self._lifecycle.boot()
        else:
            await self._lifecycle.read()
        self._hooks.take_over()

    async def start(self) -> None:
        """Start what is enabled; calling it twice is fine."""
        async with self._starting:
            if self.is_started:
                return
            self._endpoints.start()
            if self._config.enabled:
                await self._budgets.start()
                await self._events.start()
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
            self._endpoints.stop()
            await self._lifecycle.stop()
            await self._events.stop()
            await self._budgets.stop()
            await self._gatekeeper.close()
            await self._http.close()
            await self._spawner.close()
            self._premises.leave()

    def adopt(self, config: ExtensionsConfig) -> None:
        """These settings count from now on; workers that run take theirs when they start again."""
        self._config = config
        self._http.adopt(config.http_networks)
        self._housing.adopt(config)

    def check_on(self) -> None:
        """Raises: PlaneOff."""
        if not self._config.enabled:
            raise PlaneOff

    def forget(self, extension_id: str) -> None:
        """It was uninstalled: nothing of it stays in memory."""
        self._gatekeeper.forget(extension_id)
        self._journal.forget(extension_id)
        self._figures.forget(extension_id)
        self._http.forget(extension_id)

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
        report = tiers.report(await self._spawner.tiers())
        return SandboxReport(report.tier, [*report.lines, await asyncio.to_thread(self._premises.look)])

    # ------------------------------------------------------------ work

    async def dead_letters(self, extension_id: str, *, retry: bool, replay_s: float) -> DeadLetters:
        """Events that an extension could not take, after what was wished. Raises: MagError."""
        if retry:
            await self._events.retry_dead(extension_id)
        if replay_s > 0:
            await self._events.replay(extension_id, replay_s)
        return await self._events.dead_letters(extension_id)

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
            self._figures.sample(used)
            await self._context.clock.sleep(SAMPLE_EVERY_S)

    def _vault(self) -> Vault:
        return self._context.vault

    async def _tier(self) -> str:
        return (await self._spawner.tiers()).tier.value

    async def _configure(self, extension: Installed, values: Mapping[str, Any]) -> None:
        """What an operator set may be changed here, so it is on record first. Raises: AuditUnavailable and others."""
        names = [name[:NAME_CHARS] for name in sorted(values)[:NAMES_RECORDED]]
        said = {"capability": "", "method": "config.set", "settings": names, "count": len(values)}
        await self._context.audit.record("extension.call", actor=actor_of(extension.id), payload=said)
        await self._lifecycle.configure(extension.id, values, actor_of(extension.id))


def _in_json(extension_id: str, handler: str, said: Raw) -> Raw:
    """What a handler answered, for those who read JSON. Raises: HandlerFailed when JSON has no words for it."""
    try:
        return Raw(msgspec.json.encode(msgpack.decode(said)))
    except (msgspec.MsgspecError, TypeError, ValueError, NotImplementedError, RecursionError) as error:
        raise HandlerFailed(extension_id, handler, type(error).__name__, "its answer cannot be said in JSON") from error


class _NoEndpoints:
    """A node without a public port serves no endpoint; extensions that offer some run all the same."""

    def start(self) -> None:
        """Nothing to serve."""

    def stop(self) -> None:
        """Nothing was served."""

    async def attach(self, worker: object) -> None:
        """Its endpoints are not there."""

    def detach(self, extension_id: str) -> None:
        """Nothing was there."""
