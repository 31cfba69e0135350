"""`python versions_killer.py DATA_DIR KILLS`: writers of settings that are killed, and whether what was acknowledged is
there.

Prints one JSON object, or fails with what is wrong. A writer says over a pipe what it is about to write and what has
been written, a line each; the pipe keeps what a killed writer said.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path

import cryptography.hazmat.primitives.ciphers.aead  # noqa: F401  (imported before the forks, not by each writer)
from msgspec import json
from tests.unit.kernel.version_parts import base_of, folder_in, meta_of, runtime_of

from magmobo.kernel.config.source import Runtime
from magmobo.kernel.config.versions import Held, Kept, Snapshot

KEEP = 4
LINES = (2, 3, 3, 3, 5, 7, 11)
"""What a writer has said when its end is near, however fast this machine is: 2 before its first change (one that looks
is not what the test is about), 3, 5, … in one.
"""
SETTLED = {"add": 0, "keep": 0}


class Ledger:
    """The number of the last version and of the last run-time settings that were acknowledged, and what was under way
    when the writer died.
    """

    def __init__(self) -> None:
        self.done = dict(SETTLED)
        self.pending: dict[str, int] = {}
        self.acknowledged = self.killed_while_writing = 0

    def hear(self, line: bytes) -> None:
        word, kind, number = line.decode().split()
        if word == "begin":
            self.pending = {kind: int(number)}
        else:
            self.pending = {}
            self.done[kind] = int(number)
            self.acknowledged += 1

    def judge(self, kept: Kept, listed: list[int]) -> None:
        """Raises: AssertionError unless this is what was acknowledged, with or without what was under way."""
        added, set_at = kept.last_version, number_of(kept.runtime)
        assert added in {self.done["add"], self.pending.get("add")}, (added, self.done, self.pending)
        allowed = {self.done["keep"], self.pending.get("keep")}
        assert set_at in allowed, (set_at, self.done, self.pending)
        assert kept.held == (Held(set_at % 7 + 1, str(set_at)) if set_at else None), "half of it is from before"
        wanted = [*range(max(1, added - KEEP + 1), added + 1)]
        assert listed[-len(wanted) :] == wanted if wanted else not listed, (listed, added)
        self.done, self.pending = {"add": added, "keep": set_at}, {}


def number_of(runtime: Runtime) -> int:
    return int(runtime.overrides["magws.limit"].value) if runtime.overrides else 0


async def look(data_dir: Path, ledger: Ledger) -> None:
    """As a start does, and further: every version must open."""
    versions = folder_in(data_dir, keep=KEEP)
    found = list(reversed(await versions.list(1_000)))
    assert all(version.restorable for version in found), found
    for version in found:
        assert await versions.snapshot(version.version) == Snapshot(base_of(version.version), Runtime())
    ledger.judge(versions.read_runtime(), [version.version for version in found])


async def write(data_dir: Path, ledger: Ledger, pipe: int, chance: random.Random) -> None:
    """Look at everything, then write until killed."""
    await look(data_dir, ledger)
    versions = folder_in(data_dir, keep=KEEP)
    versions.read_runtime()
    done = dict(ledger.done)
    os.write(pipe, f"done add {done['add']}\ndone keep {done['keep']}\n".encode())
    while True:
        kind = chance.choice(("add", "keep"))
        number = done[kind] + 1
        os.write(pipe, f"begin {kind} {number}\n".encode())
        if kind == "add":
            await versions.add(meta_of(number), base_of(number), Runtime())
        else:
            await versions.keep_runtime(runtime_of(number), Held(number % 7 + 1, str(number)))
        done[kind] = number
        os.write(pipe, f"done {kind} {number}\n".encode())


def one_writer(data_dir: Path, ledger: Ledger, chance: random.Random) -> None:
    """Fork a writer, let it get so far, kill it, take down what it said. Raises: AssertionError when it ended alone."""
    reading, writing = os.pipe()
    seed = chance.random()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            asyncio.run(write(data_dir, ledger, writing, random.Random(seed)))
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = [pipe.readline() for _ in range(chance.choice(LINES))]
        time.sleep(chance.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        said += pipe.readlines()
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the writer found something wrong, see above"
    for line in said:
        ledger.hear(line)
    ledger.killed_while_writing += bool(ledger.pending)


def main(data_dir: Path, kills: int) -> None:
    ledger, chance = Ledger(), random.Random(kills)
    for _ in range(kills):
        one_writer(data_dir, ledger, chance)
    asyncio.run(look(data_dir, ledger))
    left = [path.name for path in (data_dir / "config").rglob("*")]
    assert len(left) < 3 * KEEP + 8, left
    report = {"kills": kills, "acknowledged": ledger.acknowledged, "killed_while_writing": ledger.killed_while_writing}
    print(json.encode(report).decode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
