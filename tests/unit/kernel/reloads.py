"""A kernel whose settings a test changes: files are a dictionary, components remember what they were given."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct

from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.clock import Clock
from magmobo.contracts.component import Component, Context
from magmobo.contracts.configuration import ReloadOutcome
from magmobo.contracts.errors import ReloadRefused
from magmobo.contracts.events import Envelope, Event
from magmobo.contracts.health import HealthReport
from magmobo.contracts.settings import LIVE, NEEDS_NODE_RESTART
from magmobo.kernel.choice import Newcomer
from magmobo.kernel.config.core import CORE_SECTIONS
from magmobo.kernel.config.layers import Layer
from magmobo.kernel.config.loader import build_config, merge
from magmobo.kernel.config.overlay import overlaid
from magmobo.kernel.config.source import Base, Built, Runtime, SecretRead, Start
from magmobo.kernel.config.versions import Versions
from magmobo.kernel.kernel import Kernel
from magmobo.kernel.reloader import Reloader
from magmobo.kernel.tuning import OnCoreChange

OPERATOR = Actor(name="uid:1000", role=Role.OPERATOR, via="control")
Values = dict[str, dict[str, Any]]


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of every component of these tests."""

    level: Annotated[int, Meta(ge=0), LIVE] = 0
    name: Annotated[str, LIVE] = ""
    place: int = 0
    home: Annotated[int, NEEDS_NODE_RESTART] = 0


class Witness(Component):
    """Remembers its settings and its hooks; does what `plans` says: `raise`, `refuse`, `hang`."""

    name = "witness"
    config_type = Section
    plans: ClassVar[dict[tuple[str, str, int], str]] = {}
    """(component, hook, level) -> what to do; emptied by `reloading`."""
    alive: ClassVar[dict[str, Witness]] = {}

    def __init__(self, context: Context) -> None:
        self.context = context
        self.hooks: list[str] = []
        self.changed: Set[str] = frozenset()
        self.prepared: Section | None = None
        self.report = HealthReport.of()
        self.section: Section = Section()

    def configure(self, config: Section) -> None:
        self.section = config
        self.alive[self.name] = self
        self._act_now("configure", config)

    async def prepare_reload(self, new: Section, changed: Set[str]) -> None:
        self.changed = changed
        await self._act("prepare", new)
        self.prepared = new

    def commit_reload(self) -> None:
        assert self.prepared is not None, "commit without prepare"
        self.section, self.prepared = self.prepared, None
        self._act_now("commit", self.section)

    async def abort_reload(self) -> None:
        self.prepared = None
        await self._act("abort", self.section)

    async def boot(self) -> None:
        await self._act("boot", self.section)

    async def start(self) -> None:
        await self._act("start", self.section)

    async def stop(self) -> None:
        await self._act("stop", self.section)

    async def shutdown(self, timeout_s: float) -> None:
        await self._act("shutdown", self.section)

    async def health(self) -> HealthReport:
        return self.report

    async def _act(self, hook: str, section: Section) -> None:
        await asyncio.sleep(0)
        self._act_now(hook, section)
        if self.plans.get((self.name, hook, section.level)) == "hang":
            await asyncio.Event().wait()

    def _act_now(self, hook: str, section: Section) -> None:
        self.hooks.append(f"{hook} {section.level}")
        word = self.plans.get((self.name, hook, section.level))
        if word == "refuse":
            raise ReloadRefused(f"level {section.level} is taken")
        if word == "raise":
            raise LookupError(f"{hook} of {section.level}")


def witness(name: str, **more: Any) -> type[Witness]:
    """A component class of that name."""
    return type(name.title(), (Witness,), {"name": name, "__module__": __name__, **more})


class Files:
    """A `ConfigSource` whose files are `values`; `secrets` are what `vault:` leads to."""

    def __init__(self, *components: type[Component], values: Values) -> None:
        self.sections: dict[str, type[Struct]] = dict(CORE_SECTIONS)
        self.sections |= {component.name: component.config_type for component in components if component.config_type}
        self.values, self.secrets = values, dict[str, str]()
        self.error: Exception | None = None
        self.accepted_digests: list[str] = []
        self.builds = 0

    def base(self) -> Base:
        merged = merge([Layer("test", "mag.toml", json.loads(json.dumps(self.values)), kind="file")])
        digest = hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).hexdigest()
        return Base(merged.values, merged.origins, merged.layers, digest)

    def built(self, base: Base, runtime: Runtime) -> Built:
        reads: list[SecretRead] = []

        def resolve(reference: Any, key: str) -> str:
            name = str(reference).removeprefix("vault:")
            reads.append(SecretRead(key, f"vault:{name}", 1))
            return self.secrets[name]

        return Built(build_config(self.sections, *overlaid(base, runtime, self.sections), resolve=resolve), reads)

    async def read(self, *, accept_removed: bool = False) -> Base:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.base()

    async def build(self, base: Base, runtime: Runtime) -> Built:
        await asyncio.sleep(0)
        self.builds += 1
        return self.built(base, runtime)

    def add_section(self, name: str, section: type[Struct]) -> None:
        self.sections[name] = section

    async def accepted(self, base: Base) -> None:
        self.accepted_digests.append(base.digest)


class Scene:
    """A running kernel, its settings and what it told."""

    def __init__(self, kernel: Kernel, files: Files) -> None:
        self.kernel, self.files = kernel, files
        self.told: list[Event] = []
        kernel.bus.scoped("test").on("config.*", self._hear)

    def _hear(self, envelope: Envelope[Any]) -> None:
        self.told.append(envelope.data)

    @property
    def reloader(self) -> Reloader:
        return self.kernel.reloader

    def state(self, name: str) -> str:
        return str(self.kernel.assembly.board.slot(name).state)

    def section(self, name: str) -> Section:
        """What the component itself goes by."""
        return self.component(name).section

    def hooks(self, name: str) -> list[str]:
        return self.component(name).hooks

    async def reload(self, values: Values | None = None, **more: Any) -> ReloadOutcome:
        """Reload, with other files if they are given."""
        self.files.values = self.files.values if values is None else values
        return await self.reloader.reload(**{"trigger": "command", "actor": OPERATOR, **more})

    async def records(self, action: str) -> list[Mapping[str, Any]]:
        """Payloads in the audit log."""
        found = await self.kernel.services.audit.read(after_seq=0, limit=10_000)
        return [record.payload for record in found if record.action == action]

    def component(self, name: str) -> Witness:
        """The present instance."""
        component = self.kernel.assembly.board.slot(name).component
        assert isinstance(component, Witness)
        return component

    def crash(self, name: str) -> None:
        """A running component fails."""
        self.kernel.assembly.supervisor.failed(name, RuntimeError("crashed"))


@asynccontextmanager
async def reloading(
    *components: type[Component],
    values: Mapping[str, Mapping[str, Any]] = {},
    clock: Clock | None = None,
    versions: Versions | None = None,
    on_core_change: OnCoreChange | None = None,
    start: Mapping[str, Any] = {},
    runtime: Runtime | None = None,
    secrets: Mapping[str, str] = {},
    joining: Sequence[type[Component]] = (),
) -> AsyncIterator[Scene]:
    """A booted kernel over `values`; it is shut down when the block ends, after which no task of it may be left."""
    Witness.plans.clear()
    Witness.alive.clear()
    before = asyncio.all_tasks()
    files = Files(*components, values={name: dict(section) for name, section in values.items()})
    files.secrets |= secrets
    base = files.base()
    runtime = runtime or Runtime()
    built = files.built(base, Runtime() if start.get("leaves_out") else runtime)
    with tempfile.TemporaryDirectory(prefix="mag-test-") as scratch:
        kernel = Kernel(
            components=components,
            config=built.config,
            source=files,
            start=Start(base, runtime, built.reads, **start),
            versions=versions,
            on_core_change=on_core_change,
            data_dir=Path(scratch),
            environment="test",
            instance_id="test-node",
            version="0",
            clock=clock,
            resolve=lambda name: Newcomer(next(one for one in joining if one.name == name), "here"),
        )
        await kernel.boot()
        try:
            yield Scene(kernel, files)
        finally:
            await kernel.shutdown()
        left = [task.get_name() for task in asyncio.all_tasks() - before if task.get_name().startswith("kernel:")]
        assert not left, f"tasks left behind: {left}"
