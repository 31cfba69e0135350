"""A mediation plane without sandbox and lifecycle: gate, router and workers in plain processes; the rest is real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import structlog
from msgspec import Raw

from magmobo.contracts.events import Envelope, SecurityCapabilityDenied
from magmobo.extensions.gate.dispatch import ApiDispatcher
from magmobo.extensions.gate.gatekeeper import Gatekeeper
from magmobo.extensions.hooks.router import HookRouter
from magmobo.extensions.installed import ApiMethod, Grant, Installed, Question
from magmobo.extensions.package.manifest import Manifest
from magmobo.extensions.workers.process import Ended
from magmobo.extensions.workers.worker import Worker
from magmobo.kernel.audit.log import AuditLog
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.clock import SystemClock
from magmobo.kernel.hooks import HookBoard
from magmobo.kernel.observe.metrics import MetricsRegistry
from magmobo.kernel.state.manager import StateManager
from magmobo.testing.extensions import PlainWorker
from magx import wire

HEAD = "import asyncio, os, time\nfrom magx import Extension, HookDenied\next = Extension()\n"
REQUEST = {"before": "api.before_request", "rbac": "api.rbac_check", "query": "database.around_query"}


def grant(capability: str, **more: Any) -> Grant:
    return Grant(capability=capability, rate_per_minute=more.pop("rate_per_minute", 100_000), **more)


def installed(folder: Path, extension_id: str, code: str, **manifest: Any) -> Installed:
    """An extension of this code. Every capability that its hooks take is granted, and those of `grants`."""
    grants = manifest.pop("grants", ("api.intercept_request", "database.admin", "system.metrics"))
    code_dir = folder / extension_id
    code_dir.mkdir(parents=True, exist_ok=True)
    (code_dir / "extension.py").write_text(HEAD + code)
    read = msgspec.convert({"id": extension_id, "name": extension_id, "version": "1.0.0", **manifest}, Manifest)
    granted = {name: grant(name) for name in grants}
    return Installed(extension_id, "1.0.0", "0" * 64, read, code_dir, "test", grants=granted)


def question(handler: str, argument: Any = None, timeout_s: float = 5.0) -> Question:
    return Question(handler, wire.raw({} if argument is None else argument), timeout_s)


@dataclass
class Mediation:
    """Everything that a node has of the plane in these tests, and what it told others."""

    gatekeeper: Gatekeeper
    audit: AuditLog
    board: HookBoard
    bus: EventBus
    metrics: MetricsRegistry
    router: HookRouter
    stack: AsyncExitStack
    methods: list[ApiMethod] = field(default_factory=list)
    crashes: list[Ended] = field(default_factory=list)
    escapes: list[str] = field(default_factory=list)
    logs: list[tuple[str, str]] = field(default_factory=list)
    figures: list[tuple[str, str, float]] = field(default_factory=list)
    denied: list[SecurityCapabilityDenied] = field(default_factory=list)
    processes: list[Any] = field(default_factory=list)

    def worker(self, extension: Installed, **more: Any) -> Worker:
        """A worker that is not started, and ends with the test."""
        log = structlog.stdlib.get_logger()
        spawn = more.pop("spawn", PlainWorker.spawn)

        async def noted(of: Installed) -> Any:
            process = await spawn(of)
            self.processes.append(process)
            return process

        worker = Worker(
            extension, noted, ApiDispatcher(self.methods, self.gatekeeper, log), self.gatekeeper, log=log,
            on_crash=more.pop("on_crash", lambda _, ended: self.crashes.append(ended)),
            on_escape=more.pop("on_escape", lambda _, what: self.escapes.append(what)),
            on_log=lambda _, level, message, fields: self.logs.append((level, message)),
            on_figure=lambda _, name, kind, value: self.figures.append((name, kind, value)),
            **more,
        )  # fmt: skip
        self.stack.push_async_callback(worker.drain, 0.0)
        return worker

    async def running(self, extension: Installed, *, attach: bool = True, **more: Any) -> Worker:
        """A worker that runs and takes part."""
        worker = self.worker(extension, **more)
        await worker.start()
        if attach:
            self.router.attach(worker)
        return worker

    def be_patient(self) -> None:
        """From now on hooks have half a minute to answer, for tests in which none is late on purpose.

        How long hosts wait at most is not in question there; how soon a process gets a processor is the machine's.
        """
        for point in self.board.points():
            point.spec = msgspec.structs.replace(point.spec, timeout_s=30.0)

    async def records(self, action: str = "") -> list[Mapping[str, Any]]:
        """Payloads of the audit log so far, once everything that waits is in it, with the actor."""
        await self.gatekeeper.close()
        found = await self.audit.read(after_seq=0, limit=10_000)
        return [{**one.payload, "actor": one.actor} for one in found if one.action == action]


@asynccontextmanager
async def mediation(folder: Path) -> AsyncIterator[Mediation]:
    """Raises what a test left unfinished."""
    async with AsyncExitStack() as stack:
        manager = StateManager(folder / "state" / "state.sqlite")
        (folder / "state").mkdir(parents=True)
        await manager.open()
        stack.push_async_callback(manager.close)
        audit = AuditLog(folder / "audit", manager.scope("audit"), mask=lambda value: value)
        await audit.open()
        stack.push_async_callback(audit.close)
        clock, metrics, board = SystemClock(), MetricsRegistry(), HookBoard()
        bus = EventBus(origin="0123456789ab", time_s=clock.time_s)
        gatekeeper = Gatekeeper(clock, audit, bus, metrics.scoped("extensions"))
        stack.push_async_callback(gatekeeper.close)
        router = HookRouter(board, gatekeeper, structlog.stdlib.get_logger())
        plane = Mediation(gatekeeper, audit, board, bus, metrics, router, stack)

        def heard(envelope: Envelope[SecurityCapabilityDenied]) -> None:
            plane.denied.append(envelope.data)

        bus.on(SecurityCapabilityDenied, heard)
        yield plane


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait for what others do on this loop. Raises: TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.001)


def said(answer: Raw) -> Any:
    return wire.value(answer)


def lines(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lines of batches, as they are on record."""
    return [line for record in records for line in json.loads(json.dumps(record["calls"]))]
