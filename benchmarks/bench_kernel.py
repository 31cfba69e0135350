"""What the kernel itself costs: from nothing to a kernel without components that is ready, a setting read, a count.

Both processes are timed from their spawn to a line they print: the yardstick when it has imported asyncio and msgspec,
the kernel when it has booted; both run from compiled bytecode. A setting is read the way a component reads it, as an
attribute of the section it was configured with, beside the same value in a dict and in a slot of a plain object; that
other settings may come while it serves costs a read nothing. A counter of
`context.metrics` is counted up by its method, and in the form for hot paths, beside a plain int in a slot. The
method costs the call of a Python function, which is what one increment costs: it is there for comfort.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import timeit
from functools import partial
from pathlib import Path

from benchmarks.measure import Figure, Sample, compared, interleaved, median_of
from magmobo.kernel.config.core import CORE_SECTIONS, HealthConfig
from magmobo.kernel.config.loader import load_config
from magmobo.kernel.observe.metrics import MetricsRegistry

READY_LIMIT, READ_LIMIT, COUNT_LIMIT = 1.7, 1.2, 2.0
STARTS_A_ROUND = 5
READS = 2_000_000
COUNTS = 1_000_000
IMPORTS, DICT, SLOT, PLAIN = 'python -c "import asyncio, msgspec"', "a dict read", "a plain slot", "a plain int"
PRINT_IMPORTED = "import asyncio, msgspec; print('ready', flush=True)"
PRINT_BOOTED = """
import asyncio, sys
from pathlib import Path
from magmobo.kernel.config.core import CORE_SECTIONS
from magmobo.kernel.config.loader import load_config
from magmobo.kernel.kernel import Kernel

async def main():
    kernel = Kernel(components=(), config=load_config(CORE_SECTIONS, []), data_dir=Path(sys.argv[1]),
                    environment="benchmark", instance_id="benchmark", version="0")
    await kernel.boot()
    print("ready", flush=True)
    await kernel.shutdown()

asyncio.run(main())
"""


def run(rounds: int) -> list[Figure]:
    """Milliseconds to ready, nanoseconds a read and a count."""
    with tempfile.TemporaryDirectory(prefix="mag-bench-") as folder:
        kernel = partial(_until_ready, PRINT_BOOTED, folder)
        kernel()  # the first start compiles
        starts = interleaved(rounds, {"kernel": kernel, IMPORTS: partial(_until_ready, PRINT_IMPORTED)})
    reads = interleaved(rounds, {"section": _read_section, DICT: _read_dict, SLOT: _read_slot})
    counts = interleaved(rounds, {"inc": _count_by_method, "value": _count_by_attribute, PLAIN: _count_plainly})
    return [
        compared(
            starts, "kernel", IMPORTS, "ready_ms", "kernel without components ready", "ms", "lower",
            note=_limit(starts["kernel"], starts[IMPORTS], "ready_ms", READY_LIMIT),
        ),
        compared(
            reads, "section", DICT, "read_ns", "a setting read", "ns", "lower",
            note=_limit(reads["section"], reads[DICT], "read_ns", READ_LIMIT),
        ),
        compared(reads, "section", SLOT, "read_ns", "a setting read", "ns", "lower"),
        compared(
            counts, "inc", PLAIN, "count_ns", "counter.inc()", "ns", "lower",
            note=_limit(counts["inc"], counts[PLAIN], "count_ns", COUNT_LIMIT),
        ),
        compared(
            counts, "value", PLAIN, "count_ns", "counter.value += 1", "ns", "lower",
            note=_limit(counts["value"], counts[PLAIN], "count_ns", COUNT_LIMIT),
        ),
    ]  # fmt: skip


def _limit(ours: list[Sample], theirs: list[Sample], key: str, limit: float) -> str:
    times = median_of([{key: one[key] / other[key]} for one, other in zip(ours, theirs, strict=True)], key)
    verdict = "met" if times <= limit else "NOT met"
    return f"{times:.2f} times the yardstick; the limit is {limit:g}, {verdict}."


def _until_ready(program: str, *arguments: str) -> Sample:
    """The median of a few starts, from the spawn to the line that says ready."""
    return {"ready_ms": median_of([_start(program, *arguments) for _ in range(STARTS_A_ROUND)], "ready_ms")}


def _start(program: str, *arguments: str) -> Sample:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began_s = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, env=environment,
        cwd=Path(__file__).resolve().parent.parent,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        elapsed_s = time.perf_counter() - began_s
    if line != b"ready\n" or process.returncode != 0:
        raise RuntimeError(f"the start ended with {process.returncode}")
    return {"ready_ms": elapsed_s * 1_000}


def _read_section() -> Sample:
    section: HealthConfig = load_config(CORE_SECTIONS, []).section("health")
    return _read("section.timeout_s", section=section)


def _read_dict() -> Sample:
    return _read('section["timeout_s"]', section={"interval_s": 10.0, "timeout_s": 2.0, "failures": 3, "successes": 2})


def _read_slot() -> Sample:
    return _read("section.value", section=_Plain())


def _read(expression: str, *, section: object) -> Sample:
    elapsed_s = min(timeit.repeat(expression, globals={"section": section}, number=READS, repeat=3))
    return {"read_ns": elapsed_s / READS * 1e9}


class _Plain:
    """What counting would be without anything around it."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


def _count_by_method() -> Sample:
    return _count("one.inc()", MetricsRegistry().scoped("bench").counter("mag_bench_total", "Counts."))


def _count_by_attribute() -> Sample:
    return _count("one.value += 1", MetricsRegistry().scoped("bench").counter("mag_bench_total", "Counts."))


def _count_plainly() -> Sample:
    return _count("one.value += 1", _Plain())


def _count(statement: str, one: object) -> Sample:
    elapsed_s = min(timeit.repeat(statement, globals={"one": one}, number=COUNTS, repeat=5))
    return {"count_ns": elapsed_s / COUNTS * 1e9}
