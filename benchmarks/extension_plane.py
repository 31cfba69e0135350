"""What the benchmark of extensions runs: the mediation plane with everything on, and the same question over gRPC.

Gate, batched audit on a real folder, router, breakers and the sandbox that this machine gives are those of a node. The
gRPC server is a process of its own on a Unix socket, without a sandbox, and answers bytes with bytes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import structlog

from magmobo.contracts.hooks import RequestContext
from magmobo.extensions.config import ExtensionsConfig
from magmobo.extensions.gate.dispatch import ApiDispatcher
from magmobo.extensions.gate.gatekeeper import Gatekeeper
from magmobo.extensions.hooks.router import HookRouter
from magmobo.extensions.housing import Housing
from magmobo.extensions.installed import Grant, Installed
from magmobo.extensions.package.manifest import CommandBinding, HookBinding, Manifest
from magmobo.extensions.sandbox.spawner import Spawner
from magmobo.extensions.workers.worker import Worker
from magmobo.kernel.audit.log import AuditLog
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.clock import SystemClock
from magmobo.kernel.hooks import HookBoard
from magmobo.kernel.observe.metrics import MetricsRegistry
from magmobo.kernel.state.manager import StateManager

POINT, CAPABILITY = "api.before_request", "api.intercept_request"
FIRST_UID = 61_000
CODE = """
import asyncio
from magx import Extension

ext = Extension()
going = asyncio.Event()


@ext.hook("api.before_request")
async def before(call):
    return {"query": "select=id,carrier,flight,dep_delay,dest&dest=eq.SEA&limit=20"}


@ext.command("flood")
async def flood(arguments):
    going.set()
    asyncio.get_running_loop().create_task(send())


async def send():
    while going.is_set():
        for _ in range(100):
            ext.log.info("x" * 100)
        await asyncio.sleep(0)


@ext.command("quiet")
async def quiet(arguments):
    going.clear()
"""
CONTEXT = RequestContext(
    request_id="0123456789abcdef", method="GET", path="/rest/v1/flights", query="select=*&dest=eq.SEA&limit=20",
    table="public.flights", role="web_user", anonymous=False, claims='{"role":"web_user","sub":"42"}',
    headers={"accept": "application/json", "user-agent": "a browser, of some length", "host": "localhost:8787"},
    body="", body_bytes=0,
)  # fmt: skip
GRPC_SERVER = """
import asyncio, sys
import grpc

async def answer(request, context):
    return b"x" * 90

async def main():
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("hooks", {"before": handler})])
    server.add_insecure_port("unix:" + sys.argv[1])
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()

import uvloop
uvloop.run(main())
"""


class Plane:
    """A running plane. `router` and `board` as in a node; `worker` makes one that is not started."""

    def __init__(self, folder: Path, stack: AsyncExitStack, gatekeeper: Gatekeeper, spawner: Spawner) -> None:
        self._folder, self._stack, self._made = folder, stack, 0
        self.board, self.spawner = HookBoard(), spawner
        log = structlog.stdlib.get_logger()
        self.router = HookRouter(self.board, gatekeeper, log)
        dispatcher = ApiDispatcher([], gatekeeper, log)
        self._housing = Housing(
            spawner, dispatcher, gatekeeper, config=ExtensionsConfig, log=log, on_log=_nobody, on_figure=_nobody
        )

    def worker(self, name: str) -> Worker:
        """One of a new extension."""
        self._made += 1
        code_dir = self._folder / f"code-{self._made}"
        code_dir.mkdir(mode=0o755)
        (code_dir / "extension.py").write_text(CODE)
        manifest = Manifest(
            id=name, name=name, version="1.0.0", hooks=[HookBinding(point=POINT)],
            commands=[CommandBinding(name="flood"), CommandBinding(name="quiet")],
        )  # fmt: skip
        grants = {CAPABILITY: Grant(capability=CAPABILITY, rate_per_minute=1000)}
        installed = Installed(name, "1.0.0", "0" * 64, manifest, code_dir, "benchmark", grants=grants)
        data_dir = self._folder / f"data-{self._made}"
        worker = self._housing.worker(
            installed, uid=FIRST_UID + self._made, data_dir=data_dir, on_crash=_nobody, on_escape=_nobody
        )
        self._stack.push_async_callback(worker.drain, 1.0)
        return worker


def _nobody(*_: Any) -> None:
    """Nobody wants to know."""


@asynccontextmanager
async def running_plane(folder: Path) -> AsyncIterator[Plane]:
    """A plane with its files below `folder`, which every uid can enter."""
    async with AsyncExitStack() as stack:
        (folder / "state").mkdir()
        manager = StateManager(folder / "state" / "state.sqlite")
        await manager.open()
        stack.push_async_callback(manager.close)
        audit = AuditLog(folder / "audit", manager.scope("audit"), mask=lambda value: value)
        await audit.open()
        stack.push_async_callback(audit.close)
        clock, metrics = SystemClock(), MetricsRegistry().scoped("extensions")
        gatekeeper = Gatekeeper(clock, audit, EventBus(origin="0123456789ab", time_s=clock.time_s), metrics)
        stack.push_async_callback(gatekeeper.close)
        spawner = Spawner(log=structlog.stdlib.get_logger())
        stack.push_async_callback(spawner.close)
        yield Plane(folder, stack, gatekeeper, spawner)


@asynccontextmanager
async def grpc_call(folder: Path) -> AsyncIterator[Any]:
    """A coroutine function: the question's bytes to the answer's, by `grpc.aio` over a Unix socket."""
    address = folder / "grpc.sock"
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", GRPC_SERVER, str(address), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        await server.stdout.readline()
        import grpc  # it watches forks of this process from then on

        async with grpc.aio.insecure_channel(f"unix:{address}") as channel:
            yield channel.unary_unary("/hooks/before")
    finally:
        server.kill()
        await server.wait()
