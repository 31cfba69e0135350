"""Hooks of sandboxed extensions through the whole mediation plane (point, chain, gate, rate, breaker, deadline, worker,
answer checked and applied, batched audit on disk, figures), beside `grpc.aio` that only carries bytes.

Question of some 400 bytes, answer of some 90, both in the same process on uvloop; the yardstick's server is a process
on a Unix socket. "Noise" is the plane beside itself. A neighbour floods its log as fast as it can, on the same cores:
what a call loses then is mostly CPU time. What an empty hook point costs is one attribute read and a comparison, beside
the call of an empty function.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import tempfile
import time
import timeit
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from benchmarks.extension_plane import CONTEXT, POINT, Plane, grpc_call, running_plane
from benchmarks.measure import Better, Figure, Sample, compared, figure, interleaved, percentile
from magmobo.extensions.installed import Question
from magmobo.extensions.workers.errors import WorkerEnded
from magmobo.extensions.workers.worker import Worker
from magmobo.kernel.hooks import HookBoard
from magx import wire

CALLS, SLOW_CALLS, AT_ONCE = 20_000, 500, 64
STARTS, EMPTY_READS = 5, 200_000
HOOK, AGAIN, GRPC, FLOODED = "hook", "hook again", "grpc.aio", "hook beside a flood"
P50_US, P99_US, PER_S, RATIO, START_MS, RESTART_MS, EMPTY_NS, FLOOD = 50.0, 250.0, 50_000, 8.0, 30.0, 50.0, 100.0, 1.1
Call = Callable[[], Awaitable[object]]


def run(rounds: int) -> list[Figure]:
    """Latency and rate of calls, starts, and what is there when nobody takes part."""
    with (
        tempfile.TemporaryDirectory(prefix="mag-bench-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        Path(folder).chmod(0o755)
        stack = AsyncExitStack()
        try:
            bench = runner.run(_Bench.begun(stack, Path(folder)))
            return _figures(rounds, runner, bench)
        finally:
            runner.run(stack.aclose())


class _Bench:
    """One plane with two extensions, one gRPC server, all of them warm."""

    def __init__(self, plane: Plane, grpc: Callable[[bytes], Awaitable[bytes]], noisy: Worker) -> None:
        self.plane, self.noisy, self._grpc = plane, noisy, grpc
        self._point = plane.board.point(POINT)
        self._packed = msgspec.msgpack.encode(CONTEXT)

    @classmethod
    async def begun(cls, stack: AsyncExitStack, folder: Path) -> _Bench:
        plane = await stack.enter_async_context(running_plane(folder))
        good, noisy = plane.worker("good"), plane.worker("noisy")
        await good.start()
        await noisy.start()
        grpc = await stack.enter_async_context(grpc_call(folder))
        plane.router.attach(good)
        bench = cls(plane, grpc, noisy)
        for call in (bench.hook, bench.grpc):
            await _timed(call, 300)
        return bench

    async def hook(self) -> object:
        chain = self._point.chain
        assert chain is not None
        changed = await chain.before(CONTEXT)
        assert changed is not CONTEXT, "the extension did not answer"
        return changed

    async def grpc(self) -> object:
        return await self._grpc(self._packed)

    async def flooded(self) -> Sample:
        await self.noisy.ask(_command("flood"))
        try:
            return await _timed(self.hook, CALLS)
        finally:
            await self.noisy.ask(_command("quiet"))

    async def starts(self) -> Sample:
        """Milliseconds from nothing to the first answer, and from a kill to the next."""
        first_ms, next_ms, private_bytes = [], [], 0
        for number in range(STARTS):
            worker = self.plane.worker(f"new{number}")
            began_s = time.perf_counter()
            await worker.start()
            await worker.ask(_hook_question())
            first_ms.append((time.perf_counter() - began_s) * 1000)
            life = worker.process
            assert life is not None
            private_bytes = max(private_bytes, getattr(life.usage(), "private_bytes", 0))
            os.kill(life.pid, signal.SIGKILL)
            began_s = time.perf_counter()
            await _answered(worker)
            next_ms.append((time.perf_counter() - began_s) * 1000)
            await worker.drain(1.0)
        return {
            "first_ms": statistics.median(first_ms), "next_ms": statistics.median(next_ms),
            "private_mib": private_bytes / 1_048_576,
        }  # fmt: skip


async def _answered(worker: Worker) -> None:
    """Returns with the first answer of whichever process."""
    while True:
        try:
            await worker.ask(_hook_question())
        except WorkerEnded:
            continue
        return


def _command(name: str) -> Question:
    return Question(f"command:{name}", wire.raw({"arguments": []}), 30.0)


def _hook_question() -> Question:
    return Question(f"hook:{POINT}", wire.raw(CONTEXT), 30.0)


async def _timed(call: Call, calls: int) -> Sample:
    """One after another, then `AT_ONCE` at a time."""
    times_s = []
    for _ in range(calls):
        began_s = time.perf_counter()
        await call()
        times_s.append(time.perf_counter() - began_s)

    async def drive() -> None:
        for _ in range(2 * calls // AT_ONCE):
            await call()

    began_s = time.perf_counter()
    await asyncio.gather(*(drive() for _ in range(AT_ONCE)))
    per_s = 2 * calls // AT_ONCE * AT_ONCE / (time.perf_counter() - began_s)
    return {"p50_us": percentile(times_s, 50) * 1e6, "p99_us": percentile(times_s, 99) * 1e6, "per_s": per_s}


def _figures(rounds: int, runner: asyncio.Runner, bench: _Bench) -> list[Figure]:
    def sync(work: Callable[[], Any]) -> Callable[[], Sample]:
        return lambda: runner.run(work())

    calls = interleaved(
        rounds,
        {
            HOOK: sync(partial(_timed, bench.hook, CALLS)),
            AGAIN: sync(partial(_timed, bench.hook, CALLS)),
            GRPC: sync(partial(_timed, bench.grpc, SLOW_CALLS)),
            FLOODED: sync(bench.flooded),
        },
    )
    starts = [runner.run(bench.starts()) for _ in range(rounds)]
    empty = interleaved(rounds, {"empty": _empty, "call": _empty_call})
    return [
        _compared(calls, HOOK, GRPC, "p50_us", "round trip, p50", "us", "lower", P50_US, ratio=RATIO),
        _compared(calls, HOOK, GRPC, "p99_us", "round trip, p99", "us", "lower", P99_US),
        _compared(calls, HOOK, GRPC, "per_s", f"calls, {AT_ONCE} at once", "1/s", "higher", PER_S),
        compared(calls, HOOK, AGAIN, "p50_us", "noise, p50", "us", "lower"),
        compared(calls, HOOK, AGAIN, "p99_us", "noise, p99", "us", "lower"),
        _compared(calls, FLOODED, HOOK, "p50_us", "beside a flood, p50", "us", "lower", None),
        _compared(calls, FLOODED, HOOK, "p99_us", "beside a flood, p99", "us", "lower", None, ratio=1 / FLOOD),
        _alone(starts, "first_ms", "start to first answer", "ms", START_MS),
        _alone(starts, "next_ms", "kill -9 to next answer", "ms", RESTART_MS),
        _alone(starts, "private_mib", "private memory of an idle worker", "MiB", 4.0),
        _compared(empty, "empty", "call", "ns", "empty hook point", "ns", "lower", EMPTY_NS),
    ]


def _verdict(met: bool) -> str:
    return "met" if met else "NOT met"


def _compared(
    samples: dict[str, list[Sample]],
    subject: str,
    yardstick: str,
    key: str,
    name: str,
    unit: str,
    better: Better,
    limit: float | None,
    *,
    ratio: float | None = None,
) -> Figure:
    measured = compared(samples, subject, yardstick, key, name, unit, better)
    said = []
    if limit is not None:
        met = measured.value <= limit if better == "lower" else measured.value >= limit
        said.append(f"the target is {limit:g} {unit}, {_verdict(met)}")
    if ratio is not None and measured.ratio is not None:
        said.append(f"the target is a ratio of {ratio:.2g}, {_verdict(measured.ratio >= ratio)}")
    note = "; ".join(said) + "." if said else ""
    return compared(samples, subject, yardstick, key, name, unit, better, note=note)


def _alone(samples: list[Sample], key: str, name: str, unit: str, limit: float) -> Figure:
    values = [sample[key] for sample in samples]
    met = _verdict(statistics.median(values) <= limit)
    return figure(name, unit, "lower", values, note=f"the target is {limit:g} {unit}, {met}.")


def _empty() -> Sample:
    """The test that a host makes where nobody takes part, less the loop around it."""
    point = HookBoard().point(POINT)
    scope = {"point": point}
    with_test = min(timeit.repeat("if point.chain is not None: pass", globals=scope, number=EMPTY_READS, repeat=5))
    without = min(timeit.repeat("pass", globals=scope, number=EMPTY_READS, repeat=5))
    return {"ns": (with_test - without) / EMPTY_READS * 1e9}


def _empty_call() -> Sample:
    """The call of a function that does nothing."""
    scope = {"nothing": lambda: None}
    with_call = min(timeit.repeat("nothing()", globals=scope, number=EMPTY_READS, repeat=5))
    without = min(timeit.repeat("pass", globals=scope, number=EMPTY_READS, repeat=5))
    return {"ns": (with_call - without) / EMPTY_READS * 1e9}
