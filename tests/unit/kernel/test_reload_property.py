"""Ten thousand random reloads over 73 components that need each other: whatever they refuse, raise or hang at, and
whoever restarts what meanwhile, no component ever serves with other settings than those that count.

Time is virtual, so that deadlines cost nothing; the kernel is not booted, its stores stay closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Set
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Annotated, Any, Protocol

import pytest
import structlog
from msgspec import Struct, structs
from tests.unit.kernel.reloads import OPERATOR
from tests.unit.kernel.virtual_time import LoopClock, VirtualLoop

from magmobo.contracts.component import Component, Context, Needs
from magmobo.contracts.configuration import ReloadOutcome
from magmobo.contracts.errors import MagError, ReloadRefused
from magmobo.contracts.events import ConfigReloaded, ConfigReloadFailed, Envelope
from magmobo.contracts.settings import LIVE
from magmobo.kernel.assembly import Assembly
from magmobo.kernel.attempt import Node
from magmobo.kernel.config.differences import changed_settings
from magmobo.kernel.config.loader import Config
from magmobo.kernel.config.source import Base, Built, Runtime, Start
from magmobo.kernel.current import Current
from magmobo.kernel.errors import ReloadTakenBack
from magmobo.kernel.lifecycle import State
from magmobo.kernel.observe.quiet import QuietLog
from magmobo.kernel.reloader import Reloader
from magmobo.kernel.selection import select
from magmobo.kernel.tuning import Tuning
from magmobo.testing.harness import make_config, make_kernel

COMPONENTS = 73
RELOADS, PROGRAMS = 2_500, 4
SILENT = 0.97  # of all hooks do nothing special
NEVER_S = 3600.0


@pytest.fixture(autouse=True, scope="module")
def _silent() -> Iterator[None]:
    """Thousands of failures on purpose, each with its traceback, would be most of the run."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


class Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section of each component."""

    live: Annotated[int, LIVE] = 0
    anew: int = 0


class World:
    """What the components see, and what went wrong."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.current: Current
        self.assembly: Assembly
        self.is_wild = False
        self.turn: Config | None = None
        """The configuration that components commit to in this turn of the loop."""
        self.last_turn: Config | None = None
        self.mixtures: list[str] = []
        self.commits = 0

    def look(self, where: str) -> None:
        """Whoever serves has the settings that count."""
        for slot in self.assembly.board.slots.values():
            if slot.state is State.RUNNING:
                component: Any = slot.component
                if component.section is not self.current.config.section(slot.name):
                    self.mixtures.append(f"{where}: {slot.name} serves with {component.section}")

    def commit(self, name: str) -> None:
        """A component commits: all of one reload do so in one turn of the loop."""
        self.commits += 1
        if self.turn is None:
            if self.current.config is self.last_turn:
                self.mixtures.append(f"{name} commits in a later turn than others")
            asyncio.get_running_loop().call_soon(self._end_turn)
        self.turn = self.last_turn = self.current.config

    def _end_turn(self) -> None:
        self.turn = None

    async def act(self, component: Citizen, hook: str, *, may_fail: bool = True) -> None:
        """A hook runs: look around, and sometimes misbehave."""
        self.look(f"{component.name}.{hook}")
        if not self.is_wild or self.random.random() < SILENT:
            return
        word = self.random.choice(("wait", "wait", "raise", "hang", "crash", "exit"))
        if word == "wait" or not may_fail:
            await asyncio.sleep(self.random.random())
        elif word == "raise":
            raise ReloadRefused("on purpose") if hook == "prepare" else LookupError("on purpose")
        elif word == "exit":
            raise SystemExit(3)
        elif word == "hang":
            await asyncio.Event().wait()
        elif component.doom is not None and not component.doom.done():
            component.doom.set_exception(RuntimeError("crashed"))
        self.look(f"{component.name}.{hook}, later")


WORLD: list[World] = []


class Citizen(Component):
    """One of many; it takes `live` while it serves."""

    config_type = Part

    def __init__(self, context: Context) -> None:
        self.context, self.world = context, WORLD[-1]
        self.providers: list[Any] = []
        self.doom: asyncio.Future[None] | None = None
        self.prepared: Part | None = None
        self.section = Part()

    def configure(self, config: Part) -> None:
        self.section = config

    async def prepare_reload(self, new: Part, changed: Set[str]) -> None:
        assert self.prepared is None, "prepared twice"
        assert changed == {"live"}
        self.prepared = new
        try:
            await self.world.act(self, "prepare")
        except BaseException:
            self.prepared = None
            raise

    def commit_reload(self) -> None:
        assert self.prepared is not None, "commit without prepare"
        self.section, self.prepared = self.prepared, None
        self.world.commit(self.name)
        if self.world.is_wild and self.world.random.random() < 0.01:
            raise LookupError("commit on purpose")

    async def abort_reload(self) -> None:
        self.prepared = None
        await self.world.act(self, "abort")

    async def boot(self) -> None:
        await self.world.act(self, "boot")

    async def start(self) -> None:
        self.doom = asyncio.get_running_loop().create_future()
        self.context.spawn(self._live(self.doom), name="life")
        await self.world.act(self, "start")

    async def stop(self) -> None:
        await self.world.act(self, "stop")

    async def shutdown(self, timeout_s: float) -> None:
        await self.world.act(self, "shutdown")

    async def _live(self, doom: asyncio.Future[None]) -> None:
        await doom

    async def call(self) -> Part:
        """Another component asks for its settings."""
        self.world.look(f"{self.name}.call")
        return self.section


def citizens(random: Random) -> list[type[Component]]:
    """Classes; each needs up to two of those before it."""
    made: list[type[Component]] = []
    protocols: list[type] = []

    def none(self: Any, context: Context) -> None:
        Citizen.__init__(self, context)

    def one(self: Any, context: Context, first: Any) -> None:
        Citizen.__init__(self, context)
        self.providers = [first]

    def two(self: Any, context: Context, first: Any, second: Any) -> None:
        Citizen.__init__(self, context)
        self.providers = [first, second]

    for number in range(COMPONENTS):
        needed = random.sample(protocols, min(len(protocols), random.choice((0, 1, 2))))
        body = (none, one, two)[len(needed)]
        init = type(body)(body.__code__, body.__globals__, "__init__", None, body.__closure__)
        init.__annotations__ = {"context": Context, "return": None}
        init.__annotations__ |= {name: Needs[wanted] for name, wanted in zip(("first", "second"), needed, strict=False)}
        members = {"call": Citizen.call, "__module__": __name__, "_is_protocol": True}
        protocol = type(f"Protocol{number}", (Protocol,), members)  # type: ignore[arg-type]
        protocols.append(protocol)
        made.append(
            type(
                f"Citizen{number}",
                (Citizen,),
                {"name": f"c{number}", "__init__": init, "provides": (protocol,), "__module__": __name__},
            )
        )
    return made


class Files:
    """A `ConfigSource`: each base holds the sections that it changes."""

    def __init__(self, root: Config) -> None:
        self.root, self.values, self.reads = root, dict[str, Part](), 0

    async def read(self, *, accept_removed: bool = False) -> Base:
        self.reads += 1
        return Base(dict(self.values), {}, {}, f"{self.reads}")

    async def build(self, base: Base, runtime: Runtime) -> Built:
        return Built(self.root.replaced(base.values))

    async def accepted(self, base: Base) -> None:
        """Nothing is compared here."""


class Town:
    """A board, its supervision and a reloader, as the kernel joins them."""

    def __init__(self, seed: int, *, window_s: float) -> None:
        self.world = world = World(seed)
        WORLD[:] = [world]
        loop = asyncio.get_running_loop()
        types = citizens(Random(seed))
        values: dict[str, Any] = {
            "kernel": {"reload_window_s": window_s, "reload_timeout_s": 5.0},
            "health": {"interval_s": NEVER_S},
            "recovery": {"restarts": 100, "backoff_s": 0.1, "backoff_max_s": 0.2, "jitter": 0.0},
        }
        clock = LoopClock(loop)
        # Never booted: it only makes what all components of a node have in common.
        kernel = make_kernel(*types, data_dir=Path("/nowhere"), clock=clock)
        world.current = self.current = Current(make_config(*types, values=values))
        world.assembly = self.assembly = Assembly(
            select(types),
            kernel._around,
            {},
            self.current,
            random=Random(seed),
            on_exit=lambda _: None,
            is_active=lambda: self.active,
        )
        kernel._stages.assembly = self.assembly
        self.active, self.bus, self.files = False, kernel.bus, Files(self.current.config)
        log = QuietLog(component="kernel")
        tuning = Tuning(self.current, kernel._stages, kernel.services, kernel.bus, log, None)
        node = Node("test", self.current, lambda: self.assembly, kernel.services, kernel.bus, clock, tuning, log)
        self.reloader = Reloader(node, self.files, Start(Base({}, {}, {}, "0"), Runtime()), None)
        self.told: list[Any] = []
        self.bus.scoped("test").on("**", self._hear)

    def _hear(self, envelope: Envelope[Any]) -> None:
        self.world.look(envelope.topic)
        if isinstance(envelope.data, ConfigReloaded | ConfigReloadFailed):
            self.told.append(envelope.data)

    async def boot(self) -> Town:
        await self.assembly.load()
        await self.assembly.start()
        self.active = True
        self.assembly.begin_supervision()
        self.reloader.begin()
        return self

    async def close(self) -> None:
        self.world.is_wild = False
        await self.reloader.close(60)
        self.active = False
        await self.assembly.take_down(60)
        self.bus.cancel_all("test")

    # ------------------------------------------------------------ what happens

    def edit(self) -> None:
        """Somebody changes some sections of the files."""
        random = self.world.random
        names = random.sample(sorted(self.assembly.board.slots), random.choice((1, 1, 2, 3, 5, 20)))
        for name in names:
            former = self.files.values.get(name, self.files.root.section(name))
            key = random.choice(("live", "live", "anew"))
            self.files.values[name] = structs.replace(former, **{key: getattr(former, key) + 1})

    async def reload(self) -> ReloadOutcome | MagError:
        """One reload, and everything that must be so behind it."""
        before, told = self.current.config, len(self.told)
        try:
            outcome = await self.reloader.reload(trigger="command", actor=OPERATOR)
        except (ReloadRefused, ReloadTakenBack) as error:
            assert self.current.config is before
            [event] = self.told[told:]
            assert isinstance(event, ConfigReloadFailed)
            # What is refused is edited away, else nothing would ever count again.
            self.files.values = {name: before.section(name) for name in self.assembly.board.slots}
            return error
        changed = sorted(changed_settings(before, self.current.config))
        events = [ConfigReloaded(outcome.version, changed, "command")] if outcome.applied else []
        assert self.told[told:] == events
        assert outcome.applied is bool(changed)
        return outcome

    async def meddle(self) -> None:
        """Somebody restarts, stops, starts, calls or crashes something."""
        random = self.world.random
        name = random.choice(sorted(self.assembly.board.slots))
        slot, supervisor = self.assembly.board.slots[name], self.assembly.supervisor
        what = random.choice(("restart", "restart", "stop", "start", "crash", "call", "call"))
        with suppress(MagError):
            if what == "crash":
                supervisor.failed(name, RuntimeError("meddled with"))
            elif what == "call":
                component: Any = slot.component
                for provider in component.providers:
                    await provider.call()
            else:
                await getattr(supervisor, what)(name)

    async def calm(self) -> None:
        """Everything that was stopped runs again, and nobody misbehaves."""
        self.world.is_wild = False
        async with asyncio.timeout(NEVER_S):
            while down := [slot for slot in self.assembly.board.slots.values() if slot.state is not State.RUNNING]:
                for slot in down:
                    if slot.state in (State.STOPPED, State.QUARANTINED, State.FAILED):
                        with suppress(MagError):
                            await self.assembly.supervisor.start(slot.name)
                await asyncio.sleep(1)
        self.world.look("calm")


async def program(seed: int, reloads: int, *, window_s: float = 0.0) -> Town:
    town = await Town(seed, window_s=window_s).boot()
    random, counts = town.world.random, {"applied": 0, "refused": 0, "taken back": 0}
    for number in range(reloads):
        town.world.is_wild = True
        meddling = [asyncio.create_task(town.meddle()) for _ in range(random.choice((0, 0, 1, 2)))]
        town.edit()
        if random.random() < 0.05:  # who asks goes away; the next one waits for what goes on
            leaving = asyncio.create_task(town.reloader.reload(trigger="file", actor=OPERATOR))
            await asyncio.sleep(random.random() * 0.01)
            leaving.cancel()
            await asyncio.wait({leaving})
            async with town.reloader._turnover._turn:
                town.files.values = {name: town.current.config.section(name) for name in town.assembly.board.slots}
            town.edit()
        outcome = await town.reload()
        kind = "taken back" if isinstance(outcome, ReloadTakenBack) else "refused"
        counts[kind if isinstance(outcome, MagError) else "applied"] += 1
        await asyncio.gather(*meddling)
        assert not town.world.mixtures, town.world.mixtures[:3]
        if number % 50 == 0:
            await town.calm()
    await town.calm()
    for slot in town.assembly.board.slots.values():
        component: Any = slot.component
        assert component.section is town.current.config.section(slot.name)
        assert component.prepared is None
    assert not town.world.mixtures, town.world.mixtures[:3]
    print(counts, town.world.commits)
    if reloads >= 1000 and not window_s:
        assert min(counts.values()) >= reloads // 50, counts  # every way it can end was taken often
    await town.close()
    return town


def run(story: Any) -> None:
    loop = VirtualLoop()
    try:
        loop.run_until_complete(story)
        left = [task.get_name() for task in asyncio.all_tasks(loop)]
        assert not left, left
        assert not loop.complaints, loop.complaints[:3]
    finally:
        loop.close()


@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_no_component_ever_serves_with_other_settings_than_those_that_count(seed: int) -> None:
    run(program(seed, RELOADS))


async def on_probation(seed: int, reloads: int) -> None:
    """Components crash, and what they crash with is taken back."""
    town = await Town(seed, window_s=5.0).boot()
    random = town.world.random
    for number in range(reloads):
        town.world.is_wild = True
        meddling = [asyncio.create_task(town.meddle()) for _ in range(random.choice((0, 1, 2)))]
        town.edit()
        with suppress(ReloadRefused, ReloadTakenBack):
            await town.reloader.reload(trigger="command", actor=OPERATOR)
        await asyncio.sleep(random.choice((0.0, 0.5, 3.0, 8.0)))
        if random.random() < 0.5:
            town.assembly.supervisor.failed(random.choice(sorted(town.assembly.board.slots)), RuntimeError("crashed"))
        await asyncio.gather(*meddling)
        assert not town.world.mixtures, town.world.mixtures[:3]
        if number % 20 == 0:
            await town.calm()
    await town.calm()
    await asyncio.sleep(60)
    for slot in town.assembly.board.slots.values():
        component: Any = slot.component
        assert component.section is town.current.config.section(slot.name)
    reloaded = [event for event in town.told if isinstance(event, ConfigReloaded)]
    assert [event.version for event in reloaded] == list(range(2, len(reloaded) + 2))
    assert not any(one.trigger == two.trigger == "probation" for one, two in pairwise(reloaded))
    assert sum(event.trigger == "probation" for event in reloaded) >= reloads // 20
    await town.close()


def test_what_components_crash_with_is_taken_back_and_never_twice() -> None:
    run(on_probation(11, 400))
