"""What a question to a running node costs: the whole process of `mag kernel:status --json`, beside the least that any
Python program with a socket and JSON costs, and one round trip over the control socket.

The node runs the listener alone, so that the answer is small and the node idle. The time of the round trip is taken off
the process's before the two are compared: the limit is on what the command line adds.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Figure, Sample, compared, figure, interleaved, median_of
from magmobo.admin.client import AdminClient
from magmobo.admin.data_folder import DataFolder
from magmobo.testing.node import start_node

LIMIT = 2.2
PYTHON = 'python -c "import socket, json"'
RUNS, QUESTIONS = 9, 50
COMPONENTS = "magmobo.components.listener.component:ListenerComponent"
MAG = Path(sys.executable).with_name("mag")


def run(rounds: int) -> list[Figure]:
    """Milliseconds of the process, and of the question alone."""
    with _node() as folder:
        words = ["kernel:status", "--json", "--data-dir", str(folder.path)]
        samples = interleaved(
            rounds,
            {
                "mag": lambda: _command(folder, str(MAG), *words),
                PYTHON: lambda: _process(sys.executable, "-c", "import socket, json"),
                "question": lambda: _question(folder),
            },
        )
    return [
        compared(
            samples, "mag", PYTHON, "ms", "mag kernel:status, without the round trip", "ms", "lower",
            note=_met(samples),
        ),
        figure("one question over the control socket", "ms", "lower", [sample["ms"] for sample in samples["question"]]),
    ]  # fmt: skip


def _met(samples: dict[str, list[Sample]]) -> str:
    times = [ours["ms"] / theirs["ms"] for ours, theirs in zip(samples["mag"], samples[PYTHON], strict=True)]
    verdict = "met by every round" if max(times) <= LIMIT else "NOT met by every round"
    whole_ms = median_of(samples["mag"], "whole_ms")
    return (
        f"the limit is {LIMIT} times, {verdict}: median {statistics.median(times):.2f}, worst {max(times):.2f}; "
        f"with the round trip {whole_ms:.1f} ms."
    )


@contextmanager
def _node() -> Iterator[DataFolder]:
    with tempfile.TemporaryDirectory(prefix="mag-bench-") as place, asyncio.Runner() as runner:
        data_dir = Path(place) / "data"
        node = runner.run(start_node(data_dir, environment={"MAG_KERNEL__COMPONENTS": COMPONENTS}))
        try:
            yield DataFolder(data_dir)
        finally:
            runner.run(node.stop())


def _command(folder: DataFolder, *words: str) -> Sample:
    whole_ms = _process(*words)["ms"]
    return {"ms": whole_ms - _question(folder)["ms"], "whole_ms": whole_ms}


def _process(*words: str) -> Sample:
    # With bytecode, as an installed program has it, whatever the environment of the benchmark says.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {"ms": _median_ms(RUNS, lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=environ))}


def _question(folder: DataFolder) -> Sample:
    client = AdminClient(folder)
    return {"ms": _median_ms(QUESTIONS, client.status)}


def _median_ms(times: int, what: Callable[[], object]) -> float:
    """The median of so many runs, after one that does not count."""
    what()
    taken: list[float] = []
    for _ in range(times):
        began_s = time.perf_counter()
        what()
        taken.append((time.perf_counter() - began_s) * 1_000)
    return statistics.median(taken)
