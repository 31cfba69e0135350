"""Durable writes to the state store, one after the other and sixteen at a time, beside what the disk itself needs: 128
bytes written over an existing block and one `fdatasync`, with nothing around it.

Every write changes the stored bytes; SQLite leaves out the write and the sync of a row that stays the same. A put logs
at least two pages of 4,096 bytes (the entry's and the count of commits) and takes the way through the event loop, the
writer's thread and back. Sixteen that wait at the same time share one sync.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.measure import Figure, Sample, compared, interleaved
from magmobo.kernel.state.manager import StateManager

WRITES, AT_ONCE = 320, 16
FLOOR = "pwrite of 128 bytes and fdatasync"
KEYS = tuple(f"component/{number}" for number in range(73))


def run(rounds: int) -> list[Figure]:
    """Writes a second."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder, asyncio.Runner() as runner:
        manager = StateManager(Path(folder) / "state.db")
        runner.run(manager.open())
        runner.run(_fill(manager))
        samples = interleaved(
            rounds,
            {
                "one": lambda: runner.run(_one_after_the_other(manager)),
                "many": lambda: runner.run(_at_once(manager)),
                FLOOR: partial(_floor, Path(folder) / "floor"),
            },
        )
        runner.run(manager.close())
    return [
        compared(samples, "one", FLOOR, "writes_s", "state: durable put, one after the other", "writes/s", "higher"),
        compared(samples, "many", FLOOR, "writes_s", f"state: durable put, {AT_ONCE} at a time", "writes/s", "higher"),
    ]


async def _fill(manager: StateManager) -> None:
    """As many entries as a node with 73 components has, and a log that has been begun anew once."""
    state = manager.scope("bench")
    for turn in range(30):
        await state.put_all({key: {"state": "running", "turn": turn, "pad": "x" * 2_000} for key in KEYS})


async def _one_after_the_other(manager: StateManager) -> Sample:
    state, stamp = manager.scope("bench"), time.time_ns()
    began_s = time.perf_counter()
    for number in range(WRITES):
        await state.put(KEYS[number % len(KEYS)], {"state": "running", "turn": stamp + number})
    return {"writes_s": WRITES / (time.perf_counter() - began_s)}


async def _at_once(manager: StateManager) -> Sample:
    state, stamp = manager.scope("bench"), time.time_ns()
    began_s = time.perf_counter()
    for start in range(0, WRITES * 4, AT_ONCE):
        numbers = range(start, start + AT_ONCE)
        await asyncio.gather(
            *(state.put(KEYS[number % len(KEYS)], {"state": "running", "turn": stamp + number}) for number in numbers)
        )
    return {"writes_s": WRITES * 4 / (time.perf_counter() - began_s)}


def _floor(path: Path) -> Sample:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, bytes(128 * WRITES), 0)
        os.fsync(descriptor)
        began_s = time.perf_counter()
        for number in range(WRITES):
            os.pwrite(descriptor, os.urandom(128), number * 128)
            os.fdatasync(descriptor)
        return {"writes_s": WRITES / (time.perf_counter() - began_s)}
    finally:
        os.close(descriptor)
