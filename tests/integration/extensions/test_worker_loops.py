"""What depends on the event loop, on both: after a loop was held up, what has come is read before deadlines count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from tests.integration.extensions.mediation import Mediation, installed, mediation, question, until
from tests.integration.extensions.played import Played

from magmobo.extensions.installed import Installed
from magmobo.extensions.workers.errors import CallTimedOut
from magmobo.extensions.workers.link import PING_S, STALL_S
from magmobo.extensions.workers.worker import Worker
from magx import wire

HANDLER = "hook:api.before_request"
ANSWER_S = 0.8  # more than it takes to ask, also on a busy machine
Scene = Callable[[Mediation, Worker, Played], Awaitable[None]]


async def playing(folder: Path, scene: Scene) -> None:
    async with mediation(folder) as plane:

        async def spawn(_: Installed) -> Played:
            return Played()

        worker = plane.worker(installed(folder, "one", "", hooks=[{"point": "api.before_request"}]), spawn=spawn)
        starting = asyncio.create_task(worker.start())
        await until(lambda: bool(plane.processes))
        await plane.processes[0].greet(HANDLER)
        await starting
        await scene(plane, worker, plane.processes[0])


async def answers_that_came_meanwhile(plane: Mediation, worker: Worker, peer: Played) -> None:
    asking = asyncio.create_task(worker.ask(question(HANDLER, timeout_s=ANSWER_S)))
    call = await peer.next(wire.Call)
    peer.peer.send(wire.encode(wire.Done(call.id, wire.raw("in time"))))
    time.sleep(ANSWER_S + 0.2)
    assert wire.value(await asking) == "in time"


async def the_rest_of_a_frame_that_came_meanwhile(plane: Mediation, worker: Worker, peer: Played) -> None:
    frame = wire.encode(wire.Log("info", "x" * 100, {}))
    await peer.write(frame[:50])
    await asyncio.sleep(0.05)
    peer.peer.send(frame[50:])
    time.sleep(STALL_S + 0.2)
    await until(lambda: bool(plane.logs))
    assert not plane.escapes


async def a_pong_that_came_meanwhile(plane: Mediation, worker: Worker, peer: Played) -> None:
    with pytest.raises(CallTimedOut):
        await worker.ask(question(HANDLER, timeout_s=0.02))
    ping = await peer.next(wire.Ping)
    peer.peer.send(wire.encode(wire.Pong(ping.id)))
    time.sleep(PING_S + 0.2)
    asking = asyncio.create_task(worker.ask(question(HANDLER)))
    call = await peer.next(wire.Call)
    await peer.send(wire.Done(call.id, wire.raw(None)))
    await asking
    assert not plane.crashes


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(
    "scene", [answers_that_came_meanwhile, the_rest_of_a_frame_that_came_meanwhile, a_pong_that_came_meanwhile]
)
def test_a_loop_that_was_held_up_blames_nobody(
    tmp_path: Path, loop_factory: Callable[[], asyncio.AbstractEventLoop], scene: Scene
) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(playing(tmp_path, scene))
