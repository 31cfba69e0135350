"""Components that kill their own node at one place of its boot, by dotted name.

Each dies where something must be true first (a file of the database is there, its server answers), so the place is the
same on a fast machine and on a slow one.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from magmobo.contracts.component import Announcement, Component, Context, Needs
from magmobo.contracts.planes import Database, Listener


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def die_when(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await asyncio.sleep(0)
    die()


class _Killer(Component):
    name = "killer"

    def __init__(self, context: Context) -> None:
        self._context = context

    def _cluster_has(self, name: str) -> bool:
        """Whether a file of the cluster is there; as root it lies outside of the data folder."""
        places = [self._context.data_dir, Path(os.environ["MAG_MAGDS__SYSTEM_DIR"])]
        return any(found for place in places for found in place.glob(f"**/{name}"))


class AtConfigure(_Killer):
    """component_load: nothing has been started."""

    def configure(self, config: object) -> None:
        die()


class WhileTheClusterIsMade(_Killer):
    """component_load: initdb is at work."""

    async def boot(self) -> None:
        await die_when(lambda: self._cluster_has("PG_VERSION"))


class WhileTheServerStarts(_Killer):
    """component_load: the server has written its pid and does not answer yet, or has just begun to."""

    async def boot(self) -> None:
        await die_when(lambda: self._cluster_has("postmaster.pid"))


class WhenTheDatabaseIsUp(_Killer):
    """component_load: those that need the database boot."""

    def __init__(self, context: Context, database: Needs[Database]) -> None:
        super().__init__(context)
        self._database = database

    async def boot(self) -> None:
        async with self._database.session() as connection:
            await connection.execute("create table public.before_the_crash (id int primary key)")
        die()


class AtStart(_Killer):
    """service_start: everything is booted."""

    async def start(self) -> None:
        die()


class WhenTheDoorIsOpen(_Killer):
    """service_start: the listener serves, others still start."""

    def __init__(self, context: Context, listener: Needs[Listener]) -> None:
        super().__init__(context)
        self._listener = listener

    async def start(self) -> None:
        assert self._listener.address
        die()


class WhenReady(_Killer):
    """The boot is over; the banner is not out yet."""

    def announce(self) -> Announcement:
        die()
        return Announcement()


def __getattr__(name: str) -> type[Component]:
    """`AtLookup`: the node dies when it looks for the class, before it has a data folder."""
    if name == "AtLookup":
        die()
    raise AttributeError(name)
