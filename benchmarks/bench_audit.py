"""The audit log: records until they are durable and acknowledged, one at a time and sixteen at a time, on a real folder
with the real state store, beside the least that a durable write costs: 512 bytes and fdatasync, from this process.

A record is durable twice: in the log, and by its head in the state store, which is a SQLite commit. Both must reach the
disk one after the other, so a single record cannot cost less than two syncs. The last figure is the offline judge.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.measure import Figure, Sample, compared, interleaved
from magmobo.contracts.capabilities import Actor, Role
from magmobo.kernel.audit.log import AuditLog
from magmobo.kernel.audit.record import hash_of, head_from
from magmobo.kernel.audit.verify import verify
from magmobo.kernel.redact import redact
from magmobo.kernel.state.manager import StateManager

RECORDS, GROUP, JUDGED = 200, 16, 20_000
FLOOR, HASHING = "pwrite + fdatasync", "readline + sha256"
ACTOR = Actor(name="uid:1000", role=Role.OPERATOR, via="control", address="127.0.0.1")


def run(rounds: int) -> list[Figure]:
    """Microseconds a record, and records a second of the judge."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # a temporary file system may be memory
        place = Path(folder)
        written = interleaved(
            rounds,
            {"one": partial(_write, place, 1), "group": partial(_write, place, GROUP), FLOOR: partial(_floor, place)},
        )
        log, head = asyncio.run(_filled(place))
        judged = interleaved(rounds, {"verify": partial(_verify, log, head), HASHING: partial(_hashing, log)})
    return [
        compared(written, "one", FLOOR, "us", "one record, acknowledged", "us", "lower"),
        compared(written, "group", FLOOR, "us", f"a record, {GROUP} at a time", "us", "lower"),
        compared(judged, "verify", HASHING, "records_s", "verify, offline", "records/s", "higher"),
    ]


def _write(place: Path, at_once: int) -> Sample:
    return asyncio.run(_timed(place, at_once))


async def _timed(place: Path, at_once: int) -> Sample:
    with tempfile.TemporaryDirectory(dir=place) as folder:
        state, log = await _open(Path(folder))
        times_s: list[float] = []
        for _ in range(RECORDS // at_once):
            began_s = time.perf_counter()
            await asyncio.gather(*(_record(log, number) for number in range(at_once)))
            times_s.append(time.perf_counter() - began_s)
        await log.close()
        await state.close()
    return {"us": statistics.median(times_s) / at_once * 1e6}


async def _open(folder: Path) -> tuple[StateManager, AuditLog]:
    state = StateManager(folder / "state.db")
    await state.open()
    log = AuditLog(folder / "audit", state.scope("audit"), mask=redact)
    await log.open()
    return state, log


async def _record(log: AuditLog, number: int) -> None:
    payload = {"component": "magds", "dry_run": False, "idempotency_key": f"key-{number}", "phase": "intent"}
    await log.record("component.restart", actor=ACTOR, payload=payload, trace_id="0af7651916cd43dd8448eb211c80319c")


def _floor(place: Path) -> Sample:
    times_s: list[float] = []
    descriptor = os.open(place / "floor", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for number in range(RECORDS):
            began_s = time.perf_counter()
            os.pwrite(descriptor, bytes(512), number * 512)
            os.fdatasync(descriptor)
            times_s.append(time.perf_counter() - began_s)
    finally:
        os.close(descriptor)
    return {"us": statistics.median(times_s) * 1e6}


async def _filled(place: Path) -> tuple[Path, object]:
    state, log = await _open(place)
    for _ in range(JUDGED // 200):
        await asyncio.gather(*(_record(log, number) for number in range(200)))
    await log.close()
    entry = await state.scope("audit").get("head")
    await state.close()
    return place / "audit", entry.value if entry is not None else None


def _verify(folder: Path, head: object) -> Sample:
    began_s = time.perf_counter()
    verdict = verify(folder, head_from(head))
    assert verdict.ok, verdict.breaks
    return {"records_s": verdict.records / (time.perf_counter() - began_s)}


def _hashing(folder: Path) -> Sample:
    """The least a judge must do: read every line and hash it."""
    began_s, records = time.perf_counter(), 0
    for path in sorted(folder.glob("audit-*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                assert hash_of(line[:-1]) is not None
                records += 1
    return {"records_s": records / (time.perf_counter() - began_s)}
