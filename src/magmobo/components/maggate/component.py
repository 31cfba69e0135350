"""MagGate as a component: mounts the gateway on the public port and keeps its schema cache fresh."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set
from contextlib import suppress

import psycopg
from msgspec import Struct

from magmobo.components.maggate.app import RestApp
from magmobo.components.maggate.auth import Authenticator
from magmobo.components.maggate.catalogue import Snapshot
from magmobo.components.maggate.config import MagGateConfig
from magmobo.components.maggate.gate import Gate
from magmobo.components.maggate.hooks import Guards, Witnesses
from magmobo.components.maggate.privileges import Privileges, refusal_of
from magmobo.components.maggate.request import PREFIX
from magmobo.components.maggate.schema_cache import SchemaCache
from magmobo.contracts.bus import Subscription
from magmobo.contracts.component import Announcement, Component, Context, Needs
from magmobo.contracts.errors import MagError, ReloadRefused, Unavailable
from magmobo.contracts.events import DatabaseSchemaChanged, Envelope
from magmobo.contracts.health import HealthCheck, HealthReport, HealthStatus
from magmobo.contracts.planes import Caller, Database, Gateway, Listener, Mount

DRAIN_S = 10.0
# The storage plane reads roles on its own; one created a moment ago is given this long to be seen.
ROLE_WAIT_S = 2.0
_ROLE_POLL_S = 0.05


class _Prepared(Struct, frozen=True):
    """A section that can be taken; `snapshot` is of its schemas, None when those are the same."""

    config: MagGateConfig
    authenticator: Authenticator
    snapshot: Snapshot | None


class MagGate(Component):
    """REST over the exposed schemas, at /rest/v1/."""

    name = "maggate"
    provides = (Gateway,)
    config_type = MagGateConfig

    def __init__(self, context: Context, listener: Needs[Listener], database: Needs[Database]) -> None:
        self._context, self._listener, self._database = context, listener, database
        self._known_roles: frozenset[str] = frozenset()
        self._mount: Mount | None = None
        self._subscription: Subscription | None = None
        self._refresher: asyncio.Task[None] | None = None
        self._prepared: _Prepared | None = None

    def configure(self, config: MagGateConfig) -> None:
        self._config = config

    async def boot(self) -> None:
        """Raises: JwtSettingsRefused."""
        context, config, database = self._context, self._config, self._database
        self._cache = SchemaCache(database, config.schemas, context.clock, context.log)
        self._privileges = Privileges(database, context.clock)
        self._authenticator = self._authenticator_for(config)
        self._guards = Guards(context.hooks)
        witnesses = Witnesses(context.hooks, context.bus, context.clock)
        self._app = RestApp(self._gate(), config, witnesses, context.log, context.hide)

    async def start(self) -> None:
        """Raises: AnonymousRoleRefused; psycopg.Error and Unavailable when the catalogue cannot be read."""
        await self._check_anonymous_role(self._config.anonymous_role)
        self._subscription = self._context.bus.on(DatabaseSchemaChanged, self._on_schema_changed)
        await self._cache.load()
        self._refresher = self._context.spawn(self._cache.keep_fresh(), name="schema-cache")
        self._mount = self._listener.mount_http(PREFIX.decode(), self._app)

    async def stop(self) -> None:
        """Take no new request, let those under way end, then stop refreshing."""
        if self._mount is not None:
            self._mount.release()
            self._mount = None
            if not await self._app.drain(DRAIN_S):
                self._context.log.warning("requests were still being answered at stop", waited_s=DRAIN_S)
        if self._subscription is not None:
            self._subscription.cancel()
            self._subscription = None
        if self._refresher is not None:
            self._refresher.cancel()
            self._refresher = None

    # ------------------------------------------------------------ other settings

    async def prepare_reload(self, new: MagGateConfig, changed: Set[str]) -> None:
        """Raises: ReloadRefused for a key that verifies nothing, a role that requests may not use, a catalogue that
        cannot be read.
        """
        authenticator, snapshot = self._authenticator, None
        try:
            if any(key == "anonymous_role" or key.partition(".")[0] == "jwt" for key in changed):
                authenticator = self._authenticator_for(new)
            if "anonymous_role" in changed:
                await self._check_anonymous_role(new.anonymous_role)
            if "schemas" in changed:
                snapshot = await self._cache.read(new.schemas)
        except MagError as error:
            raise ReloadRefused(f"{error} [{error.code}]. {error.next_step()}") from error
        except psycopg.Error as error:
            raise ReloadRefused(f"the database was asked and failed: {' '.join(str(error).split())}") from error
        self._prepared = _Prepared(new, authenticator, snapshot)

    def commit_reload(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            return
        self._config, self._authenticator = prepared.config, prepared.authenticator
        if prepared.snapshot is not None:
            self._cache.adopt(self._config.schemas, prepared.snapshot)
        self._app.adopt(self._gate(), self._config)

    async def abort_reload(self) -> None:
        self._prepared = None

    def _authenticator_for(self, config: MagGateConfig) -> Authenticator:
        """Raises: JwtSettingsRefused."""
        return Authenticator(config.jwt, config.anonymous_role, self._roles, self._context.clock)

    def _gate(self) -> Gate:
        parts = self._database, self._cache, self._authenticator, self._privileges, self._guards
        return Gate(self._config, *parts)

    # ------------------------------------------------------------ Gateway

    def identify(self, authorization: bytes | None) -> Caller:
        """Raises: IdentityError."""
        identity, anonymous = self._authenticator.identify(authorization)
        return Caller(identity.role, anonymous, identity.claims)

    @property
    def schemas(self) -> Sequence[str]:
        return self._config.schemas

    # ------------------------------------------------------------ what people see

    async def health(self) -> HealthReport:
        problem = self._cache.last_error
        role = self._config.anonymous_role
        usable = not role or role in self._roles()
        return HealthReport.of(
            HealthCheck("schema cache", HealthStatus.DEGRADED if problem else HealthStatus.HEALTHY, problem),
            HealthCheck(
                "anonymous role",
                HealthStatus.HEALTHY if usable else HealthStatus.DEGRADED,
                "" if usable else f"requests may no longer use {role}",
            ),
        )

    def announce(self) -> Announcement:
        url = self._listener.base_url + PREFIX.decode()
        notices = []
        if not self._config.anonymous_role and not self._authenticator.verifies_tokens:
            notices.append("REST answers 401: set maggate.anonymous_role or maggate.jwt (docs/rest.md)")
        if not self._cache.snapshot.tables:
            notices.append(f"REST has nothing to show: no tables in {', '.join(self._config.schemas)} yet")
        return Announcement(urls={"rest": url}, notices=tuple(notices))

    def _roles(self) -> frozenset[str]:
        """Roles requests may use; while the database is away the last known ones, for it checks them again itself."""
        with suppress(Unavailable):
            self._known_roles = self._database.grantable_roles()
        return self._known_roles

    def _on_schema_changed(self, envelope: Envelope[DatabaseSchemaChanged]) -> None:
        self._cache.invalidate()

    async def _check_anonymous_role(self, role: str | None) -> None:
        clock = self._context.clock
        deadline_s = clock.monotonic_s() + ROLE_WAIT_S
        while role and role not in self._roles():
            if clock.monotonic_s() >= deadline_s:
                raise await refusal_of(self._database, role)
            await clock.sleep(_ROLE_POLL_S)
