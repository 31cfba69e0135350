"""The component `demo`: loads the chosen demo before anything is served, and plays it while the node runs.

Boundary: reaches the database only through `Database`. Tables are published by the realtime plane when it starts, which
is after the load: the load itself is never anybody's event.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Set
from pathlib import Path

from magmobo.components.demo import flights, tasks
from magmobo.components.demo.config import DemoConfig
from magmobo.components.demo.load import DemoSchema, is_loaded, load_once
from magmobo.components.demo.progress import shown_on
from magmobo.components.demo.replay import Replay
from magmobo.contracts.component import Announcement, Component, Context, Needs, Wants
from magmobo.contracts.health import HealthCheck, HealthReport, HealthStatus
from magmobo.contracts.planes import Database, Listener

SCHEMAS: dict[str, DemoSchema] = {"flights": flights.SCHEMA, "tasks": tasks.SCHEMA}


class Demo(Component):
    """Real rows for the first minute; only `mag up --demo` brings it in."""

    name = "demo"
    essential = False
    config_type = DemoConfig

    def __init__(self, context: Context, database: Needs[Database], listener: Wants[Listener]) -> None:
        self._context, self._database, self._listener = context, database, listener
        self._config = DemoConfig()
        self._replay: Replay | None = None
        self._replay_task: asyncio.Task[None] | None = None
        self._prepared: DemoConfig | None = None

    def configure(self, config: DemoConfig) -> None:
        self._config = config

    async def boot(self) -> None:
        """Load the demo unless this database has it.

        Raises: DatasetMissing, DatasetUnexpected, NameTaken, DemoIncomplete, DemoNotAllowed.
        """
        async with self._database.session() as connection:
            if not await is_loaded(connection, SCHEMAS[self._config.name]):
                if self._config.name == "flights":
                    fill = flights.FlightsFill()
                    with shown_on(sys.stderr, "demo flights: loading 367,687 rows", fill.total_bytes) as progress:
                        await load_once(connection, flights.SCHEMA, fill, progress)
                else:
                    with shown_on(sys.stderr, "demo tasks: making 1,000 rows", 1) as progress:
                        await load_once(connection, tasks.SCHEMA, tasks.fill, progress)
        if self._config.name == "tasks" and self._config.jwt_secret:
            token = tasks.member_token(self._config.jwt_secret, now_s=self._context.clock.time_s())
            await asyncio.to_thread(tasks.write_private, self._token_path, token)

    async def start(self) -> None:
        self._begin()

    def _begin(self) -> None:
        if self._config.name == "flights" and self._config.speed > 0:
            self._replay = Replay(
                self._database.session, self._context.clock, self._context.log, speed=self._config.speed
            )
            self._replay_task = self._context.spawn(self._replay.run(), name="replay")

    async def stop(self) -> None:
        if self._replay_task is not None:
            self._replay_task.cancel()
            await asyncio.wait({self._replay_task})
        self._replay = self._replay_task = None

    async def prepare_reload(self, new: DemoConfig, changed: Set[str]) -> None:
        self._prepared = new

    def commit_reload(self) -> None:
        """Another speed: the replay goes on from where it is; at 0 it ends until there is one again."""
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            return
        self._config = prepared
        if self._replay is None or self._replay_task is None:
            self._begin()
        elif prepared.speed > 0:
            self._replay.hurry(prepared.speed)
        else:
            self._replay_task.cancel()
            self._replay = self._replay_task = None

    async def abort_reload(self) -> None:
        self._prepared = None

    async def health(self) -> HealthReport:
        if self._replay is None:
            return HealthReport.of()
        if self._replay.waiting:
            return HealthReport.of(HealthCheck("replay", HealthStatus.DEGRADED, "waits for the database"))
        return HealthReport.of(HealthCheck("replay", HealthStatus.HEALTHY, f"{self._replay.inserted} departures"))

    def announce(self) -> Announcement:
        if self._listener is None:
            return Announcement()
        base_url = self._listener.base_url
        if self._config.name == "flights":
            query = "dest=eq.SEA&order=dep_delay.desc.nullslast&limit=3"
            return Announcement(examples=(f"curl '{base_url}/rest/v1/flights?{query}'",))
        if not self._config.jwt_secret:
            return Announcement(notices=("demo tasks: no token was made, demo.jwt_secret is not set",))
        bearer = f'-H "Authorization: Bearer $(cat {_short(self._token_path)})"'
        return Announcement(examples=(f"curl {bearer} '{base_url}/rest/v1/tasks?status=eq.doing&limit=3'",))

    @property
    def _token_path(self) -> Path:
        return self._context.data_dir / "demo" / "member.jwt"


def _short(path: Path) -> str:
    """The path as one would type it in a shell here."""
    working_dir = Path.cwd()
    return shlex.quote(str(path.relative_to(working_dir) if path.is_relative_to(working_dir) else path))
