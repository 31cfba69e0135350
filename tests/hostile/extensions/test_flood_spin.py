"""Case 38 of the hostile list, the worker's side: one that floods, spins, blocks or does not read costs itself.

Asserted is what bounds it: frames taken in one turn of the loop, how much it gets rid of, how much waits for it, how
often it is on record. How little another extension notices is measured in benchmarks/bench_extensions.py.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec import Struct
from tests.integration.extensions.mediation import Mediation, installed, mediation, question, said, until
from tests.integration.extensions.played import Played

from magmobo.extensions.installed import ApiMethod, Caller, Installed
from magmobo.extensions.workers import link
from magmobo.extensions.workers.credit import BURST
from magmobo.extensions.workers.errors import CallTimedOut, WorkerBusy, WorkerEnded
from magmobo.extensions.workers.worker import Worker
from magx import wire

POINT = "api.before_request"
GOOD = f"""
@ext.hook("{POINT}")
async def hook(call):
    return None

@ext.command("answer")
def answer(arguments):
    return "yes"
"""


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Mediation]:
    async with mediation(tmp_path) as plane:
        yield plane


async def playing(plane: Mediation, folder: Path) -> tuple[Worker, Played]:
    extension = installed(folder, "flooder", "", hooks=[{"point": POINT}], grants=())

    async def spawn(_: Installed) -> Played:
        return Played()

    worker = plane.worker(extension, spawn=spawn)
    starting = asyncio.create_task(worker.start())
    await until(lambda: bool(plane.processes))
    await plane.processes[0].greet(f"hook:{POINT}")
    await starting
    return worker, plane.processes[0]


async def test_a_flood_is_read_in_small_parts_and_then_held_back(plane: Mediation, tmp_path: Path) -> None:
    _, peer = await playing(plane, tmp_path)
    loop, taken = asyncio.get_running_loop(), [0]

    def turn() -> None:
        taken.append(len(plane.logs))
        if not flooding.done():
            loop.call_soon(turn)

    frames = wire.encode(wire.Log("info", "x" * 1000, {})) * 10_000
    flooding = asyncio.create_task(peer.write(frames))
    loop.call_soon(turn)
    await until(lambda: len(plane.logs) >= BURST)
    await asyncio.wait({flooding}, timeout=0.5)
    assert not flooding.done(), "10 MB went through; the flood was not held back"
    flooding.cancel()
    assert BURST <= len(plane.logs) < 3 * BURST
    assert max(after - before for before, after in pairwise(taken)) <= 2 * link.TURN_FRAMES


async def test_others_are_served_meanwhile(plane: Mediation, tmp_path: Path) -> None:
    _, peer = await playing(plane, tmp_path)
    good = await plane.running(
        installed(tmp_path, "good", GOOD, hooks=[{"point": POINT}], commands=[{"name": "answer"}])
    )
    flooding = asyncio.create_task(peer.write(wire.encode(wire.Api(1, 0, "none", wire.raw({}))) * 100_000))
    for _ in range(300):
        assert said(await good.ask(question("command:answer", {"arguments": []}))) == "yes"
    flooding.cancel()
    assert not plane.escapes


async def test_refused_questions_are_on_record_now_and_then_with_their_number(plane: Mediation, tmp_path: Path) -> None:
    async def nothing(caller: Caller, args: Struct) -> None:
        raise AssertionError("it is not granted")

    plane.methods.append(ApiMethod("db.execute", "database.write", Struct, nothing))
    _, peer = await playing(plane, tmp_path)
    await peer.send(*(wire.Api(number, 0, "db.execute", wire.raw({})) for number in range(1, 501)))
    for number in range(1, 501):
        refusal = await peer.next(wire.Refuse)
        assert (refusal.id, refusal.code) == (number, "MAG-EXT-141")
    records = await plane.records("extension.denied")
    assert sum(record["count"] for record in records) == 500
    assert len(records) <= 3
    assert {record["reason"] for record in records} == {"not_granted"}
    assert {record["actor"] for record in records} == {"extension:flooder"}
    assert {(event.capability, event.context) for event in plane.denied} == {("database.write", "db.execute")}
    assert len(plane.denied) == len(records)


async def test_what_is_asked_of_one_that_does_not_read_is_bounded(
    plane: Mediation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "DEAF_S", 0.3)
    monkeypatch.setattr(link, "PING_S", 60.0)
    worker, _ = await playing(plane, tmp_path)
    large = question(f"hook:{POINT}", {"data": "x" * 900_000}, timeout_s=20)
    asking = []
    for _ in range(12):
        asking.append(asyncio.create_task(worker.ask(large)))
        for _ in range(3):  # what is asked in one turn of the loop is written at its end
            await asyncio.sleep(0)
    async with asyncio.timeout(20):
        results = await asyncio.gather(*asking, return_exceptions=True)
    assert any(isinstance(result, WorkerBusy) for result in results), "all 12 MB were kept for it"
    assert all(isinstance(result, WorkerBusy | WorkerEnded) for result in results)
    await until(lambda: bool(plane.crashes))
    assert "did not answer" in plane.crashes[0].reason
    assert not plane.escapes


SPINS = f"""
@ext.hook("{POINT}")
async def hook(call):
    if os.path.exists(os.path.dirname(__file__) + "/spin"):
        while True:
            pass
    return None

@ext.command("block")
def block(arguments):
    time.sleep(0.4)
"""


async def test_one_that_spins_is_ended_and_there_again(plane: Mediation, tmp_path: Path) -> None:
    extension = installed(tmp_path, "spins", SPINS, hooks=[{"point": POINT}], commands=[{"name": "block"}])
    worker = await plane.running(extension)
    spin = extension.code_dir / "spin"
    spin.touch()
    with pytest.raises(CallTimedOut):
        await worker.ask(question(f"hook:{POINT}", timeout_s=0.05))
    spin.unlink()
    await until(lambda: bool(plane.crashes))
    await worker.ask(question(f"hook:{POINT}", timeout_s=15))
    assert [(crash.signal, crash.reason) for crash in plane.crashes] == [
        (signal.SIGKILL, "it was ended: its loop did not answer")
    ]
    assert worker.figures()["restarts"] == 1
    assert not plane.escapes


async def test_one_that_only_blocks_for_a_moment_lives_on(
    plane: Mediation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "PING_S", 20.0)  # a moment, also where others have the processors meanwhile
    extension = installed(tmp_path, "blocks", SPINS, hooks=[{"point": POINT}], commands=[{"name": "block"}])
    worker = await plane.running(extension)
    with pytest.raises(CallTimedOut):
        await worker.ask(question("command:block", {"arguments": []}, timeout_s=0.02))
    await worker.ask(question(f"hook:{POINT}", timeout_s=30))
    assert not plane.crashes
    assert len(plane.processes) == 1
