"""How much a good extension notices of a bad one: p99 of its hook alone, and beside one that floods, spins, or both.

Everything runs on a whole node with sandboxed workers: `python -m benchmarks.hostile`. The contenders take turns in
every round; "noise" is the good one beside nobody twice, and what is within it says nothing. The goal is a p99 that
moves by less than a tenth. The bad ones are `examples/extensions/hostile/code/busy.py`: a spinner keeps one processor,
a flood asks, is refused and asks again.

What a spinner costs is of two kinds: the processor that it takes, which no plane can give back, and whatever else it
does to others. So beside it the good one is compared, too, with itself alone on a machine with one processor less.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvloop
from tests.hostile.extensions.node_gate import Gate, gate

from benchmarks import report
from benchmarks.bench_memory import descendants
from benchmarks.measure import CpuClock, Figure, Sample, compared, interleaved, percentile
from magmobo.contracts.hooks import HookPoint, RequestContext
from magmobo.extensions.package.build import pack, sign

ROUNDS, GOAL = 5, 1.1
MEASURED_S, BAD_S = 3.0, 5.0
"""What a flood has free is used up in the first tenth; a bad one is at work for longer, and waited for before the next
contender.
"""
GOOD, POINT = "good", "api.before_request"
ALONE, AGAIN, FEWER = "alone", "alone again", "alone, a processor less"
FLOOD, SPIN, BOTH = "beside a flood", "beside a spinner", "beside both"
BAD = {ALONE: (), AGAIN: (), FEWER: (), FLOOD: ("flood",), SPIN: ("spin",), BOTH: ("flood", "spin")}
CODE = """
from magx import Extension

ext = Extension()


@ext.hook("api.before_request")
def before(call):
    return {"query": "select=id&limit=20"}
"""
CONTEXT = RequestContext(
    request_id="0123456789abcdef", method="GET", path="/rest/v1/orders", query="select=*", table="public.orders",
    role="web_user", anonymous=False, claims='{"role":"web_user"}', headers={"accept": "application/json"}, body="",
    body_bytes=0,
)  # fmt: skip


def good(folder: Path) -> Path:
    """The author's folder of the good one."""
    manifest = {
        "id": GOOD, "name": "Good", "version": "1.0.0", "hooks": [{"point": POINT}],
        "capabilities": [{"name": "api.intercept_request", "reason": "It is what is measured."}],
    }  # fmt: skip
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "extension.py").write_text(CODE)
    return folder


async def prepare(node: Gate, folder: Path) -> HookPoint[RequestContext]:
    """The good one and the bad ones, each of a package of its own."""
    await node.admit_package(GOOD, sign(pack(good(folder)), node.key))
    for name in ("flood", "spin"):
        await node.admit_package(f"busy-{name}", await node.package("busy", id=f"busy-{name}"))
    point: HookPoint[RequestContext] = node.kernel.services.hooks.point(POINT)
    return point


@contextmanager
def one_processor_less() -> Iterator[None]:
    """The node and all that it started do without one of the processors that they may use."""
    usable = os.sched_getaffinity(0)
    pids = [os.getpid(), *descendants(os.getpid())]
    try:
        for pid in pids:
            os.sched_setaffinity(pid, usable - {max(usable)} or usable)
        yield
    finally:
        for pid in pids:
            os.sched_setaffinity(pid, usable)


async def measured(node: Gate, point: HookPoint[RequestContext], bad: Sequence[str]) -> Sample:
    """One round of one contender."""
    bads = [
        asyncio.create_task(node.run(f"busy-{command}", command, timeout_s=2 * BAD_S, seconds=BAD_S)) for command in bad
    ]
    await asyncio.sleep(0.2)  # by then it is busy
    times_s: list[float] = []
    skipped = 0
    end_s = time.perf_counter() + MEASURED_S
    while (began_s := time.perf_counter()) < end_s:
        chain = point.chain
        assert chain is not None
        answer = await chain.before(CONTEXT)
        times_s.append(time.perf_counter() - began_s)
        skipped += answer is CONTEXT
    were_busy = not any(task.done() for task in bads)
    await asyncio.gather(*bads)
    assert were_busy, "a bad one ended before the good one was measured"
    assert skipped * 1000 <= len(times_s), f"the good one was skipped in {skipped} of {len(times_s)} calls"
    return {"p50_us": percentile(times_s, 50) * 1e6, "p99_us": percentile(times_s, 99) * 1e6}


def run(rounds: int) -> list[Figure]:
    """The figures, noise first."""
    folder = Path(tempfile.mkdtemp(prefix="mag-hostile-"))
    folder.chmod(0o755)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return _figures(rounds, runner, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _figures(rounds: int, runner: asyncio.Runner, folder: Path) -> list[Figure]:
    running = gate(folder)
    node = runner.run(running.__aenter__())
    try:
        point = runner.run(prepare(node, folder / "good"))

        def contender(name: str) -> Callable[[], Sample]:
            return lambda: runner.run(measured(node, point, BAD[name]))

        def fewer() -> Sample:
            with one_processor_less():
                return contender(FEWER)()

        samples = interleaved(rounds, {name: contender(name) for name in BAD} | {FEWER: fewer})
    finally:
        runner.run(running.__aexit__(None, None, None))
    figures = [compared(samples, ALONE, AGAIN, "p99_us", "noise, p99", "us", "lower")]
    for name, yardstick in ((FLOOD, ALONE), (SPIN, ALONE), (BOTH, ALONE), (SPIN, FEWER), (BOTH, FEWER)):
        for key, what in (("p50_us", "p50"), ("p99_us", "p99")):
            figures.append(compared(samples, name, yardstick, key, f"{name}, {what}", "us", "lower"))
    return figures


def main() -> int:
    """Measure and print; 0 whatever the figures are."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    clock = CpuClock()
    figures = run(rounds)
    for item in figures:
        moved = "" if item.ratio is None or not item.name.endswith("p99") else f"   moved {1 / item.ratio - 1:+.0%}"
        print(report.line(item) + moved)
    print(f"({report.company(clock.others())}; the goal is a p99 that moves by less than {GOAL - 1:.0%})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
