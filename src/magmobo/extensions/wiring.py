"""The rooms of the plane put together: which of them gets what of which. Built by hand, top to bottom.

Boundary: makes and joins; nothing is started here, and each room decides for itself. `plane.Plane` leads their life.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from magmobo import __version__
from magmobo.contracts.component import Context
from magmobo.extensions.adapters.maggate import Endpoints
from magmobo.extensions.adapters.magws import RealtimeMethods
from magmobo.extensions.api.http import HttpMethods
from magmobo.extensions.api.settings import SettingsMethods
from magmobo.extensions.config import ExtensionsConfig
from magmobo.extensions.events.router import EventRouter
from magmobo.extensions.events.schema import MIGRATIONS as EVENT_TABLES
from magmobo.extensions.figures import ExtensionFigures
from magmobo.extensions.gate.budgets import Budgets
from magmobo.extensions.gate.dispatch import ApiDispatcher
from magmobo.extensions.gate.gatekeeper import Gatekeeper
from magmobo.extensions.gate.outbox import actor_of
from magmobo.extensions.hooks.router import HookRouter
from magmobo.extensions.housing import Housing
from magmobo.extensions.installed import ApiMethod, Installed
from magmobo.extensions.journal import ExtensionJournal
from magmobo.extensions.lifecycle.manager import Lifecycle
from magmobo.extensions.lifecycle.ports import Ports
from magmobo.extensions.lifecycle.schema import MIGRATIONS as TABLES
from magmobo.extensions.neighbours import Neighbours
from magmobo.extensions.premises import Premises
from magmobo.extensions.sandbox.spawner import Spawner
from magmobo.extensions.sql.methods import SqlMethods, rights_of

ConfigSource = Callable[[], ExtensionsConfig]
NAMES_RECORDED, NAME_CHARS = 20, 60


class Rooms:
    """The parts of one node's plane. `config` gives the settings that count when it is asked."""

    def __init__(self, context: Context, neighbours: Neighbours, config: ConfigSource) -> None:
        self._context = context
        self.gatekeeper = Gatekeeper(context.clock, context.audit, context.bus, context.metrics)
        self.journal = ExtensionJournal(context.log, context.clock.time_s, context.hide)
        self.figures = ExtensionFigures(context.metrics, self.gatekeeper.holds, self._note)
        self.spawner = Spawner(log=context.log, allow_unsandboxed=config().allow_unsandboxed)
        self.premises = Premises(context.data_dir, lambda: config().system_dir, context.log)
        self.hooks = HookRouter(context.hooks, self.gatekeeper, context.log)
        self.events = EventRouter(
            context, neighbours.database, neighbours.changes, gatekeeper=self.gatekeeper, config=config
        )
        self.http = HttpMethods(denied=self.gatekeeper.denied, networks=config().http_networks)
        self.endpoints = self._endpoints(neighbours)
        self.housing = Housing(
            self.spawner,
            ApiDispatcher(self._api_methods(neighbours), self.gatekeeper, context.log),
            self.gatekeeper,
            config=config,
            log=context.log,
            on_log=lambda installed, level, text, fields: self.journal.add(installed.id, level, text, fields),
            on_figure=self.figures.take,
        )
        ports = self._ports(neighbours, config)
        self.lifecycle = Lifecycle(ports)
        self.budgets = Budgets(
            self.gatekeeper,
            neighbours.database,
            context.clock,
            context.log,
            installed=self.lifecycle.installed,
            spawn=ports.spawn,
        )

    def forget(self, extension_id: str) -> None:
        """It was uninstalled: nothing of it stays in memory."""
        self.gatekeeper.forget(extension_id)
        self.journal.forget(extension_id)
        self.figures.forget(extension_id)
        self.http.forget(extension_id)

    # ------------------------------------------------------------ what the rooms are made with

    def _api_methods(self, neighbours: Neighbours) -> Sequence[ApiMethod]:
        """Everything of the node that extensions may call."""
        methods: list[ApiMethod] = [
            *SqlMethods(neighbours.guests, self.gatekeeper).methods(),
            *self.events.methods(),
            *self.http.methods(),
            *SettingsMethods(self._configure).methods(),
        ]
        if neighbours.realtime is not None:
            methods += RealtimeMethods(neighbours.realtime, denied=self.gatekeeper.denied).methods()
        return methods

    def _endpoints(self, neighbours: Neighbours) -> Endpoints | NoEndpoints:
        if neighbours.listener is None:
            return NoEndpoints()
        return Endpoints(
            neighbours.listener,
            neighbours.gateway,
            self._context.hooks,
            holds=self.gatekeeper.holds,
            log=self._context.log,
            hide=self._context.hide,
        )

    def _ports(self, neighbours: Neighbours, config: ConfigSource) -> Ports:
        context = self._context
        return Ports(
            database=neighbours.database,
            guests=neighbours.guests,
            migrations=neighbours.migrations,
            make_worker=self.housing.worker,
            hooks=self.hooks,
            events=self.events,
            endpoints=self.endpoints,
            audit=context.audit,
            bus=context.bus,
            vault=lambda: context.vault,
            clock=context.clock,
            log=context.log,
            hide=context.hide,
            spawn=lambda coroutine, name: context.spawn(coroutine, name=name),
            config=config,
            tier=self._tier,
            rights_of=rights_of,
            used=lambda extension_id, capability: self.gatekeeper.used(extension_id).get(capability, 0),
            forget=self.forget,
            tables=[*TABLES, *EVENT_TABLES],
            premises=self.premises,
            node_version=__version__,
        )

    def _note(self, extension_id: str, level: str, text: str) -> None:
        self.journal.add(extension_id, level, text, {})

    async def _tier(self) -> str:
        return (await self.spawner.tiers()).tier.value

    async def _configure(self, extension: Installed, values: Mapping[str, Any]) -> None:
        """What an operator set may be changed here, so it is on record first. Raises: AuditUnavailable and others."""
        names = [name[:NAME_CHARS] for name in sorted(values)[:NAMES_RECORDED]]
        said = {"capability": "", "method": "config.set", "settings": names, "count": len(values)}
        await self._context.audit.record("extension.call", actor=actor_of(extension.id), payload=said)
        await self.lifecycle.configure(extension.id, values, actor_of(extension.id))


class NoEndpoints:
    """A node without a public port serves no endpoint; extensions that offer some run all the same."""

    def start(self) -> None:
        """Nothing to serve."""

    def stop(self) -> None:
        """Nothing was served."""

    async def attach(self, worker: object) -> None:
        """Its endpoints are not there."""

    def detach(self, extension_id: str) -> None:
        """Nothing was there."""
