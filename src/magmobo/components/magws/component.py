"""The realtime plane as a component: mounts `/app/` and `/apps/` on the public port, follows the change stream."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Coroutine, Sequence, Set
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

from magmobo.components.magws import signing
from magmobo.components.magws.broadcasts import Broadcast
from magmobo.components.magws.clients import PREFIX
from magmobo.components.magws.config import AppConfig, MagWSConfig
from magmobo.components.magws.errors import NoApp, ReservedChannel
from magmobo.components.magws.http_api import PREFIX as API_PREFIX
from magmobo.components.magws.http_api import HttpApi
from magmobo.components.magws.plane import Plane
from magmobo.components.magws.protocol import names
from magmobo.components.magws.published import TableBook
from magmobo.components.magws.verdicts import Verdicts
from magmobo.contracts.component import Announcement, Component, Context, Needs
from magmobo.contracts.errors import ConfigError, MagError
from magmobo.contracts.events import DatabaseChange, DatabaseChangesLost, DatabaseSchemaChanged, Envelope
from magmobo.contracts.health import HealthCheck, HealthReport, HealthStatus
from magmobo.contracts.planes import Changes, Database, Listener, Realtime

TICK_S = 1.0
RETRY_S = 2.0
DRAIN_S = 5.0


class MagWS(Component):
    """Pusher protocol on the public port, with the changes of published tables."""

    name = "magws"
    provides = (Realtime,)
    config_type = MagWSConfig

    def __init__(
        self, context: Context, listener: Needs[Listener], changes: Needs[Changes], database: Needs[Database]
    ) -> None:
        self._context, self._listener, self._changes, self._database = context, listener, changes, database
        self._config = MagWSConfig()
        self._stack = AsyncExitStack()
        self._schema_moved = asyncio.Event()
        self._book = TableBook((), changes, database)
        self._plane = self._new_plane()
        self._unpublished = ""
        self._api: HttpApi | None = None
        self._prepared: MagWSConfig | None = None

    def configure(self, config: MagWSConfig) -> None:
        """Raises: ConfigError when two apps share an id or a key, or a table is listed twice."""
        _check(config)
        self._config = config

    async def start(self) -> None:
        self._book = TableBook(self._config.tables, self._changes, self._database)
        plane = self._plane = self._new_plane()
        bus, clock, log = self._context.bus, self._context.clock, self._context.log
        async with AsyncExitStack() as stack:
            stack.push_async_callback(plane.forget_waiting)
            stack.callback(bus.on(DatabaseChange, plane.feed.on_change).cancel)
            stack.callback(bus.on(DatabaseChangesLost, plane.feed.on_lost).cancel)
            stack.callback(bus.on(DatabaseSchemaChanged, self._on_schema_changed).cancel)
            await self._refresh_book()
            self._spawn(stack, self._tick(), "ticker")
            self._spawn(stack, plane.feed.followers.run(), "followers")
            self._spawn(stack, plane.leavers.run(), "leavers")
            self._spawn(stack, self._keep_book(), "tables")
            api = self._api = HttpApi(plane, self._config.apps, clock, log, self._context.hide)
            stack.callback(self._listener.mount_http(API_PREFIX, api).release)
            stack.callback(self._listener.mount_websocket(PREFIX, plane.open).release)
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        """Ask every client to come back (4200), at a pace; drop those that do not answer in time."""
        plane = self._plane
        plane.close_all()
        try:
            async with asyncio.timeout(DRAIN_S):
                while len(plane):
                    await self._context.clock.sleep(0.01)
        except TimeoutError:
            self._context.log.warning("realtime_clients_dropped", count=len(plane))
            plane.abort_all()
        await self._stack.aclose()

    # ------------------------------------------------------------ other settings

    async def prepare_reload(self, new: MagWSConfig, changed: Set[str]) -> None:
        """Raises: ConfigError as `configure` does."""
        _check(new)
        self._prepared = new

    def commit_reload(self) -> None:
        """New tables are asked for in the background; one that cannot be had shows in `health`, as after a start."""
        prepared, self._prepared = self._prepared, None
        if prepared is None or self._api is None:
            return
        tables_before, self._config = self._config.tables, prepared
        self._plane.adopt(prepared)
        self._api.adopt(prepared.apps)
        if prepared.tables != tables_before:
            self._book.adopt(prepared.tables)
            self._plane.feed.recheck()
            self._schema_moved.set()

    async def abort_reload(self) -> None:
        self._prepared = None

    # ------------------------------------------------------------ what people see

    async def health(self) -> HealthReport:
        plane = self._plane
        facts = f"{len(plane)} connections, {plane.deliveries} deliveries, {plane.traffic.slow} slow, "
        refused = "; ".join(f"{table}: {refusal.reason}" for table, refusal in self._book.refused.items())
        return HealthReport.of(
            HealthCheck("clients", HealthStatus.HEALTHY, f"{facts}{plane.traffic.gaps} gaps"),
            HealthCheck(
                "tables",
                HealthStatus.DEGRADED if self._unpublished else HealthStatus.HEALTHY,
                self._unpublished or (f"not live: {refused}" if refused else ""),
            ),
        )

    def announce(self) -> Announcement:
        app = self._first_app()
        if app is None:
            return Announcement(notices=[f"realtime: {NoApp()}. {NoApp.remedy}"])
        url = f"{self._listener.base_url.replace('http', 'ws', 1)}{PREFIX}{app.key}"
        open_channels = [name for name in self._book.channels() if not name.startswith(names.PRIVATE)]
        examples = [f"{_subscriber()} {url} '{name}'" for name in open_channels[:1] if _subscriber()]
        notices = [refusal.notice(table) for table, refusal in self._book.refused.items()]
        if self._unpublished:
            notices.append(f"not live: {self._unpublished}")
        return Announcement(urls={"realtime": url}, examples=examples, notices=notices)

    # ------------------------------------------------------------ Realtime

    def publish(
        self,
        channels: Sequence[str],
        event: str,
        data: str,
        *,
        exclude_socket_id: str | None = None,
        origin: str = "component",
    ) -> None:
        """Raises: ReservedChannel for table channels and reserved names, BadChannelName, NoApp."""
        for message in self._messages(channels, event, data, exclude_socket_id or "", origin):
            self._plane.broadcast(message)

    async def deliver(
        self,
        channels: Sequence[str],
        event: str,
        data: str,
        *,
        exclude_socket_id: str | None = None,
        origin: str = "component",
    ) -> None:
        """Raises: as `publish`; HookDenied, HookUnavailable, BroadcastDropped, Unavailable."""
        verdicts = Verdicts()
        for message in self._messages(channels, event, data, exclude_socket_id or "", origin):
            self._plane.broadcast(message, verdicts.of(message.channel))
        for error in (await verdicts.wait()).values():
            raise error

    def _messages(
        self, channels: Sequence[str], event: str, data: str, exclude: str, origin: str
    ) -> Sequence[Broadcast]:
        app = self._app()
        for name in channels:
            names.kind_of(name)
            if names.is_reserved(name) or names.is_reserved_event(event):
                raise ReservedChannel(
                    "only the realtime plane itself publishes on this channel or with this event name"
                )
        return [Broadcast(app.id, name, event, data, exclude, origin) for name in channels]

    def authorise(self, socket_id: str, channel: str) -> str:
        """Raises: BadChannelName when the channel is not a private one, ValueError for a socket id of another shape."""
        app = self._app()
        if names.kind_of(channel) is not names.Kind.PRIVATE:
            raise ValueError("only private channels are authorised")
        if not names.is_socket_id(socket_id):
            raise ValueError("a socket id has the form 123.456")
        return signing.channel_auth(app.key, app.secret, socket_id, channel)

    @property
    def app_key(self) -> str:
        """Raises: NoApp."""
        return self._app().key

    def table_channels(self) -> Sequence[str]:
        return self._book.channels()

    # ------------------------------------------------------------ inside

    def _new_plane(self) -> Plane:
        context = self._context
        parts = context.bus, context.hooks, context.clock, context.log, context.hide
        return Plane(self._config, self._changes, self._book, *parts)

    def _first_app(self) -> AppConfig | None:
        return self._config.apps[0] if self._config.apps else None

    def _app(self) -> AppConfig:
        app = self._first_app()
        if app is None:
            raise NoApp
        return app

    def _spawn(self, stack: AsyncExitStack, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        stack.push_async_callback(_end, self._context.spawn(coroutine, name=name))

    def _on_schema_changed(self, envelope: Envelope[DatabaseSchemaChanged]) -> None:
        self._schema_moved.set()

    async def _tick(self) -> None:
        while True:
            await self._context.clock.sleep(TICK_S)
            self._plane.tick(self._context.clock.monotonic_s())
            if self._book.is_stale():
                self._schema_moved.set()

    async def _keep_book(self) -> None:
        """Read the catalogue again whenever the schema changed, and until it could be read."""
        while True:
            if not self._unpublished:
                await self._schema_moved.wait()
            else:
                await self._context.clock.sleep(RETRY_S)
            self._schema_moved.clear()
            await self._refresh_book()

    async def _refresh_book(self) -> None:
        """A database or change stream that does not answer leaves the tables as they are; `_keep_book` asks again."""
        try:
            await self._book.refresh(self._plane.feed.recheck)
            self._unpublished = ""
        except (MagError, psycopg.Error) as error:
            code = f" [{error.code}]" if isinstance(error, MagError) else ""
            step = f" {error.next_step()}" if isinstance(error, MagError) else ""
            self._unpublished = f"{error}{code}{step}" if self._config.tables else ""
            self._context.log.warning("realtime_tables_not_read", error=str(error))
        self._plane.feed.recheck()


def _check(config: MagWSConfig) -> None:
    problems = [
        f"magws.{setting}: {value} occurs more than once"
        for setting, values in (
            ("apps.id", [app.id for app in config.apps]),
            ("apps.key", [app.key for app in config.apps]),
            ("tables.table", [entry.table for entry in config.tables]),
        )
        for value in sorted({value for value in values if values.count(value) > 1})
    ]
    if problems:
        raise ConfigError(problems)


def _subscriber() -> str:
    """How to run the example client from here; empty where the project's sources or the client's library are not."""
    script = Path(__file__).parents[4] / "examples" / "subscribe.py"
    if not script.is_file() or find_spec("pysher") is None:
        return ""
    here = Path.cwd()
    paths = [path.relative_to(here) if path.is_relative_to(here) else path for path in (Path(sys.executable), script)]
    return shlex.join(map(str, paths))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
