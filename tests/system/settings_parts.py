"""Third-party components whose settings the system tests change, run in real nodes by dotted name.

Invariant that the tests look for: whoever is in `SERVING` serves with the settings noted there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from typing import Annotated, Any, Literal

from msgspec import Struct

from magmobo.contracts.commands import Call, Command
from magmobo.contracts.component import Component, Context, Needs
from magmobo.contracts.errors import ReloadRefused
from magmobo.contracts.health import HealthCheck, HealthReport, HealthStatus
from magmobo.contracts.planes import Listener, Mount
from magmobo.contracts.secret import Secret
from magmobo.contracts.settings import LIVE

HERE = "tests.system.settings_parts"
SERVING: dict[str, int] = {}
Mode = Literal["well", "sick", "broken"]


class MoodyConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [moody]: `live` is taken while it serves, `anew` makes another instance."""

    live: Annotated[Mode, LIVE] = "well"
    anew: Mode = "well"
    note: Annotated[str, LIVE] = ""


class Moody(Component):
    """Serves as its settings say: well, unhealthy, or with a task that fails."""

    name = "moody"
    config_type = MoodyConfig

    def __init__(self, context: Context) -> None:
        self._context = context
        self._changed, self._asked = asyncio.Event(), asyncio.Event()

    def configure(self, config: MoodyConfig) -> None:
        self._config = self._next = config

    async def prepare_reload(self, new: MoodyConfig, changed: Set[str]) -> None:
        self._next = new

    def commit_reload(self) -> None:
        self._config = self._next
        self._changed.set()

    async def start(self) -> None:
        self._changed.set()
        self._context.spawn(self._work(), name="work")

    async def _work(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._config.anew == "broken":
                await self._asked.wait()  # it came up, and is asked how it is
            if "broken" in (self._config.live, self._config.anew):
                raise RuntimeError("the work cannot be done like this")

    async def health(self) -> HealthReport:
        self._asked.set()
        if "sick" in (self._config.live, self._config.anew):
            return HealthReport.of(HealthCheck("mood", HealthStatus.UNHEALTHY, "not like this"))
        return HealthReport.of()


class VersionedConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section whose `version` is taken while the component serves."""

    version: Annotated[int, LIVE] = 0


class AnewConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section whose `version` makes the component anew."""

    version: int = 0


class _Versioned(Component):
    def __init__(self, context: Context) -> None: ...

    def configure(self, config: Any) -> None:
        self._config = self._next = config

    async def prepare_reload(self, new: Any, changed: Set[str]) -> None:
        await asyncio.sleep(0)  # others have their turn between the questions
        if self.name == "right" and new.version % 10 == 3:
            raise ReloadRefused("not with a 3 at the end")
        self._next = new

    def commit_reload(self) -> None:
        self._config = self._next
        SERVING[self.name] = self._config.version

    async def start(self) -> None:
        await asyncio.sleep(0)
        if self.name == "anew" and self._config.version % 10 == 7:
            raise RuntimeError("not with a 7 at the end")
        SERVING[self.name] = self._config.version

    async def stop(self) -> None:
        SERVING.pop(self.name, None)


class Left(_Versioned):
    """Takes its version live."""

    name = "left"
    config_type = VersionedConfig


class Right(_Versioned):
    """Takes its version live, but none that ends with 3."""

    name = "right"
    config_type = VersionedConfig


class Anew(_Versioned):
    """Is made anew with its version, and does not come up with one that ends with 7."""

    name = "anew"
    config_type = AnewConfig


class Versions(Struct, frozen=True):
    """What each component that serves has, read in one turn."""

    serving: Mapping[str, int]


class ShowVersions(Command, frozen=True, kw_only=True):
    """Asks for them."""

    name = "probe:versions"
    summary = "The versions that serve."
    reply = Versions


class Probe(Component):
    """Tells with which versions the components serve: as a command, and on the public port."""

    name = "probe"

    def __init__(self, context: Context, listener: Needs[Listener]) -> None:
        self._context, self._listener = context, listener
        self._mount: Mount | None = None

    async def start(self) -> None:
        self._context.commands.handle(ShowVersions, self._show)
        self._mount = self._listener.mount_http("/versions/", answering(lambda: SERVING))

    async def stop(self) -> None:
        if self._mount is not None:
            self._mount.release()

    async def _show(self, command: ShowVersions, call: Call) -> Versions:
        return Versions(dict(SERVING))


class Door(Component):
    """Has a path of its own on the public port, and is made anew with its version."""

    name = "door"
    config_type = AnewConfig

    def __init__(self, context: Context, listener: Needs[Listener]) -> None:
        self._listener = listener
        self._mount: Mount | None = None

    def configure(self, config: AnewConfig) -> None:
        self._version = config.version

    async def start(self) -> None:
        self._mount = self._listener.mount_http("/door/", answering(lambda: {"version": self._version}))

    async def stop(self) -> None:
        if self._mount is not None:
            self._mount.release()


class GateConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [gate]."""

    greeting: Annotated[str, LIVE] = "hello"
    password: Annotated[Secret | None, LIVE] = None


class Gate(Component):
    """Boots only while the data folder has no file `hold`; `held` says that it waits. Refuses weak passwords."""

    name = "gate"
    config_type = GateConfig

    def __init__(self, context: Context) -> None:
        self._folder = context.data_dir

    async def prepare_reload(self, new: GateConfig, changed: Set[str]) -> None:
        if new.password is not None and new.password.reveal().startswith("weak"):
            raise ReloadRefused("the password is weak")

    def commit_reload(self) -> None:
        """It reads nothing of its section while it serves."""

    async def boot(self) -> None:
        while (self._folder / "hold").exists():
            (self._folder / "held").touch()
            await asyncio.sleep(0.01)


def answering(say: Callable[[], Mapping[str, int]]) -> Any:
    """An ASGI app that answers everything with what `say` gives at that moment."""

    async def app(scope: Any, receive: Any, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        body = json.dumps(say()).encode()
        headers: Sequence[tuple[bytes, bytes]] = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app
