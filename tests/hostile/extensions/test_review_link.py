"""What a worker sends that nobody asked for costs it, whatever it calls that; and slowness alone is no attack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.extensions.mediation import Mediation, installed, mediation, question, until
from tests.integration.extensions.played import Played

from magmobo.extensions.installed import Installed
from magmobo.extensions.workers import link
from magmobo.extensions.workers.credit import BURST
from magmobo.extensions.workers.errors import CallTimedOut
from magmobo.extensions.workers.worker import Worker
from magx import wire

POINT = "hook:api.before_request"


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Mediation]:
    async with mediation(tmp_path) as plane:
        yield plane


async def playing(plane: Mediation, folder: Path) -> tuple[Worker, Played]:
    extension = installed(folder, "sender", "", hooks=[{"point": POINT.removeprefix("hook:")}], grants=())

    async def spawn(_: Installed) -> Played:
        return Played()

    worker = plane.worker(extension, spawn=spawn)
    starting = asyncio.create_task(worker.start())
    await until(lambda: bool(plane.processes))
    await plane.processes[0].greet(POINT)
    await starting
    return worker, plane.processes[0]


async def expired(worker: Worker, peer: Played) -> int:
    """The number of a question that nobody waits for any more."""
    asking = asyncio.create_task(worker.ask(question(POINT, timeout_s=0.05)))
    call = await peer.next(wire.Call)
    with pytest.raises(CallTimedOut):
        await asking
    await peer.send(wire.Pong((await peer.next(wire.Ping)).id))
    return int(call.id)


async def test_letting_go_on_again_and_again_what_nobody_waits_for_is_held_back(
    plane: Mediation, tmp_path: Path
) -> None:
    worker, peer = await playing(plane, tmp_path)
    frames = wire.encode(wire.Proceed(await expired(worker, peer))) * 400_000
    flooding = asyncio.create_task(peer.write(frames))
    await asyncio.wait({flooding}, timeout=2.0)
    assert not flooding.done(), "all of it went through"
    flooding.cancel()
    assert not plane.escapes


async def test_a_large_question_costs_as_much_as_many_small_ones(plane: Mediation, tmp_path: Path) -> None:
    _, peer = await playing(plane, tmp_path)
    frames = wire.encode(wire.Api(1, 0, "none", wire.raw({"text": "x" * 900_000}))) * int(BURST / 4)
    flooding = asyncio.create_task(peer.write(frames))
    await asyncio.wait({flooding}, timeout=2.0)
    assert not flooding.done(), "225 MB went through"
    flooding.cancel()
    assert not plane.escapes


async def test_a_line_that_no_honest_worker_sends_ends_it(plane: Mediation, tmp_path: Path) -> None:
    _, peer = await playing(plane, tmp_path)
    await peer.send(wire.Log("info", "", {"all": [None] * (wire.MAX_TOLD_BYTES - 100)}))
    await until(lambda: bool(plane.logs))
    await peer.send(wire.Log("info", "", {"all": [None] * wire.MAX_TOLD_BYTES}))
    await until(lambda: bool(plane.escapes))
    assert "a line or a figure of" in plane.escapes[0]
    assert len(plane.logs) == 1


async def test_large_lines_are_held_back_before_small_ones(plane: Mediation, tmp_path: Path) -> None:
    _, peer = await playing(plane, tmp_path)
    frames = wire.encode(wire.Log("info", "x" * 60_000, {})) * int(BURST / 2)
    flooding = asyncio.create_task(peer.write(frames))
    await until(lambda: bool(plane.logs))
    await asyncio.wait({flooding}, timeout=0.5)
    assert not flooding.done(), "30 MB went through"
    flooding.cancel()
    assert len(plane.logs) < BURST / 4


async def test_a_slow_worker_is_not_taken_for_an_attacker(
    plane: Mediation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More questions ran out of time than the node remembers, then it answers the first, as it was asked to."""
    monkeypatch.setattr(link, "_LATE_ANSWERS", 16)
    worker, peer = await playing(plane, tmp_path)
    for _ in range(40):
        asking = asyncio.create_task(worker.ask(question(POINT)))
        await peer.next(wire.Call)
        asking.cancel()
        await asyncio.wait({asking})
    for number in range(1, 41):
        await peer.send(wire.Done(number, wire.raw(None)))
    asking = asyncio.create_task(worker.ask(question(POINT)))
    call = await peer.next(wire.Call)
    await peer.send(wire.Done(call.id, wire.raw("yes")))
    assert wire.value(await asking) == "yes"
    assert not plane.escapes


async def test_late_answers_again_and_again_are_held_back(
    plane: Mediation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_LATE_ANSWERS", 1)
    worker, peer = await playing(plane, tmp_path)
    first = await expired(worker, peer)
    await expired(worker, peer)
    flooding = asyncio.create_task(peer.write(wire.encode(wire.Done(first, wire.raw(None))) * 400_000))
    await asyncio.wait({flooding}, timeout=2.0)
    assert not flooding.done(), "all of it went through"
    flooding.cancel()
    assert not plane.escapes
