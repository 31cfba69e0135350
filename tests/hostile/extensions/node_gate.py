"""A whole node in this process, for hostile extensions: packed, signed, installed, approved, enabled by its commands.

Boundary: drives the command bus and reads the audit log; which extension does what is said in `gate_cases_*.py`. A beat
measures how late the node's event loop is; time in which the machine ran somebody else is told apart.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import structlog

from magmobo.components.listener.component import ListenerComponent
from magmobo.components.magds.access import embedded_access
from magmobo.components.magds.component import MagDS
from magmobo.components.maggate.component import MagGate
from magmobo.components.magws.component import MagWS
from magmobo.contracts.audit import AuditRecord
from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.errors import MagError
from magmobo.contracts.extensions import STAGE_CHUNK_BYTES
from magmobo.extensions.component import ExtensionPlane
from magmobo.extensions.package.build import pack, sign
from magmobo.extensions.package.keys import KeyPair, generate, public_text
from magmobo.kernel.kernel import Kernel
from magmobo.testing.harness import running_kernel

ADMIN = Actor(name="uid:0", role=Role.ADMIN, via="control")
CORPUS = Path(__file__).resolve().parents[3] / "examples" / "extensions" / "hostile" / "corpus.py"
ALLOWED = "127.0.0.77"
"""An address of this machine that requests of extensions may reach, for those that redirect from there."""
SCHEMA = """
create table public.orders (id int primary key, note text);
create table public.salaries (id int primary key, amount int);
insert into public.orders values (1, 'one'); insert into public.salaries values (1, 999999);
create table public.tenants (id int, owner text);
insert into public.tenants values (1, 'mine'), (2, 'theirs');
"""
BEAT_S = 0.005


def load_corpus() -> ModuleType:
    """`examples/extensions/hostile/corpus.py`, which is no package."""
    found = spec_from_file_location("hostile_corpus", CORPUS)
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


class Beat:
    """How late the loop is. `late_s`: at worst since `begin`, less the time in which it wanted a processor and another
    process, or another machine on the same host, had it; `raw_s` with that time.
    """

    def __init__(self) -> None:
        self.late_s = self.raw_s = 0.0
        self._status, self._machine = Path("/proc/thread-self/schedstat"), Path("/proc/stat")
        self._tick_s = 1 / os.sysconf("SC_CLK_TCK")

    def begin(self) -> None:
        self.late_s = self.raw_s = 0.0

    def _waited_s(self) -> float:
        waited_s = 0.0
        with suppress(OSError, IndexError):
            waited_s += int(self._status.read_text().split()[1]) / 1e9
        with suppress(OSError, IndexError):
            waited_s += int(self._machine.read_text().split(maxsplit=9)[8]) * self._tick_s  # `steal`, of all processors
        return waited_s

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, waited_s = loop.time() + BEAT_S, self._waited_s()
            await asyncio.sleep(BEAT_S)
            raw_s = loop.time() - due_s
            self.raw_s = max(self.raw_s, raw_s)
            self.late_s = max(self.late_s, raw_s - (self._waited_s() - waited_s))


@dataclass
class Scene:
    """What came of one case."""

    case: int
    stopped: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    recorded: list[str] = field(default_factory=list)
    wanting: list[str] = field(default_factory=list)

    def note(self, kind: str, what: str, how: str) -> None:
        """One attempt: `leaked`, `stopped` or `absent`."""
        getattr(self, kind).append(f"{what}: {how}"[:240])


class Gate:
    """The node, and what an operator of it does."""

    def __init__(self, kernel: Kernel, folder: Path, dsn: str) -> None:
        self.kernel, self.folder, self.dsn = kernel, folder, dsn
        self.key: KeyPair = generate()
        self.corpus = load_corpus()
        self.beat = Beat()
        self.warnings: list[str] = []
        self._numbers = itertools.count(1)
        self.tier = ""

    # ------------------------------------------------------------ commands

    async def command(self, name: str, *, timeout_s: float = 30.0, **params: Any) -> Any:
        """One command's answer. Raises: MagError."""
        packed = json.dumps(params).encode()
        answer = await self.kernel.services.commands.run(name, packed, actor=ADMIN, timeout_s=timeout_s)
        return json.loads(answer)

    async def refused(self, name: str, **params: Any) -> MagError | None:
        """The error of a command, None when it was done."""
        try:
            await self.command(name, **params)
        except MagError as error:
            return error
        return None

    async def stage(self, data: bytes) -> str:
        """Bring a package to the node; its digest."""
        digest = sha256(data).hexdigest()
        for at in range(0, len(data), STAGE_CHUNK_BYTES):
            part = b64encode(data[at : at + STAGE_CHUNK_BYTES]).decode()
            await self.command("extension:stage", sha256=digest, size_bytes=len(data), offset=at, data=part)
        return digest

    async def package(self, extension_id: str, *, key: KeyPair | None = None, **changed: Any) -> bytes:
        """The signed package of one of the corpus. Made beside the loop, whose beat is the node's."""
        return await asyncio.to_thread(lambda: sign(pack(self.author(extension_id, **changed)), key or self.key))

    def author(self, extension_id: str, **changed: Any) -> Path:
        """The folder of whoever wrote one of the corpus."""
        folder = self.folder / "authors" / f"{extension_id}-{next(self._numbers)}"
        written: Path = self.corpus.write(self.corpus.find(extension_id), folder, **changed)
        return written

    async def admit(self, extension_id: str, **changed: Any) -> None:
        """Install, approve and enable one of the corpus."""
        await self.admit_package(extension_id, await self.package(extension_id, **changed))

    async def admit_package(self, extension_id: str, data: bytes) -> None:
        """Install, approve and enable a package."""
        digest = await self.stage(data)
        shown = await self.command("extension:install", sha256=digest)
        if any(grant["state"] == "pending" for grant in shown["grants"]):
            await self.command("extension:approve", id=extension_id, confirm=extension_id)
        await self.command("extension:enable", id=extension_id)

    async def run(self, extension_id: str, command: str, *, timeout_s: float = 15.0, **arguments: Any) -> Any:
        """What a command of an extension answers. Raises: MagError."""
        said = await self.command(
            "extension:run", id=extension_id, command=command, arguments=arguments, timeout_s=timeout_s
        )
        return said["result"]

    async def state(self, extension_id: str) -> str:
        """Its place in the lifecycle."""
        shown = await self.command("extension:show", id=extension_id)
        return str(shown["info"]["state"])

    @property
    def premises(self) -> Path:
        """Where files of extensions lie, once there are some."""
        homes = list((self.folder / "system" / "extensions").glob("*"))
        return homes[0] if homes else self.folder / "node" / "extensions"

    # ------------------------------------------------------------ audit

    @property
    def head(self) -> int:
        """The last record."""
        return self.kernel.services.audit.head_seq

    async def record(
        self, since: int, action: str, about: str, holds: Callable[[Mapping[str, Any]], bool] = lambda payload: True
    ) -> AuditRecord | None:
        """The first record behind `since` of this action that mentions `about`; waits up to 30 s for it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(30):
                while True:
                    for one in await self.records(since):
                        text = json.dumps(one.payload, default=str)
                        if one.action == action and (about in one.actor or about in text) and holds(one.payload):
                            return one
                    await asyncio.sleep(0.02)  # between two questions
        return None

    async def records(self, since: int) -> Sequence[AuditRecord]:
        """All behind `since`."""
        found: list[AuditRecord] = []
        while page := await self.kernel.services.audit.read(after_seq=found[-1].seq if found else since, limit=500):
            found += page
        return found

    async def must_record(self, scene: Scene, since: int, action: str, about: str, what: str = "") -> None:
        """Note whether it is on record."""
        found = await self.record(since, action, about, lambda payload: what in json.dumps(payload, default=str))
        said = f"{action} {what}".strip()
        (scene.recorded if found else scene.wanting).append(said)

    # ------------------------------------------------------------ the rest of the world

    async def sql(self, text: str) -> list[Any]:
        """As the owner of the database."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            cursor = await connection.execute(text)
            return await cursor.fetchall() if cursor.description else []

    def hear(self, _logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Keep what the node warns of; a processor of structlog."""
        if method != "info":
            self.warnings.append(f"{event}")
        return event

    async def until(self, holds: Callable[[], Any], timeout_s: float = 30.0) -> bool:
        """Whether a coroutine's answer became true in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not await holds():
                    await asyncio.sleep(0.02)  # between two questions
                return True
        return False


@asynccontextmanager
async def gate(folder: Path, **more: Mapping[str, Any]) -> AsyncIterator[Gate]:
    """A node on a new embedded Postgres below `folder`, with a trusted key and an extension that warmed it up. `more`
    are further settings, by their sections.
    """
    (folder / "authors").mkdir()
    config: dict[str, Mapping[str, Any]] = {
        "listener": {"port": 0},
        "magds": {"system_dir": str(folder / "system")},
        "magws": {"apps": [{"id": "1", "key": "gate-key", "secret": "gate-secret"}], "tables": []},
        "extensions": {
            "http_networks": [f"{ALLOWED}/32"],
            "drain_s": 1.0,  # one of the corpus never comes to an end
            "system_dir": str(folder / "system" / "extensions"),
        },
    }
    for section, settings in more.items():
        config[section] = {**config.get(section, {}), **settings}
    parts = (ListenerComponent, MagDS, MagGate, MagWS, ExtensionPlane)
    os.environ["MAG_HOSTILE_SECRET"] = marker()
    data_dir = folder / "node"
    data_dir.mkdir(mode=0o700)
    async with running_kernel(*parts, config=config, data_dir=data_dir) as kernel:
        node = Gate(kernel, folder, embedded_access(data_dir).dsn)
        structlog.get_config()["processors"].insert(0, node.hear)  # in place: loggers hold this very list
        await node.sql(SCHEMA)
        await node.command("extension:trust", public=public_text(node.key.public), label="the gate")
        await node.admit("quiet")
        await node.run("quiet", "hello")
        gc.collect()
        gc.freeze()  # as a node does when it is ready
        node.tier = (await node.command("extension:doctor"))["tier"]
        beating = asyncio.create_task(node.beat.run(), name="beat")
        try:
            yield node
        finally:
            beating.cancel()
            with suppress(asyncio.CancelledError):
                await beating


def marker() -> str:
    """A text that only the node knows; never in one piece in the memory of who is told of it."""
    return f"gate-marker-{os.getpid()}"
