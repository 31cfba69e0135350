"""`python state_killer.py STATE_FILE KILLS`: writers that are killed, and whether what they acknowledged is there.

Prints one JSON object, or fails with what is wrong. A writer says over a pipe what it is about to write and what has
been written, a line each; the pipe keeps what a killed writer said.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import signal
import sqlite3  # noqa: F401  (imported before the forks, not by each writer)
import sys
import time
from pathlib import Path
from typing import Any

from msgspec import json

from magmobo.contracts.stores import StateEntry
from magmobo.kernel.state.manager import StateManager

KEYS = [f"k{number}" for number in range(12)]
PIPE_BYTES = 1_048_576
LINES = (0, 1, 2, 2, 4, 6, 10)
"""What a writer has said when its end is near, however fast this machine is: 0 while it opens, 2, 4, … in a change."""
Entry = tuple[Any, int]  # value and version, (None, 0) when there is none


class Ledger:
    """What was acknowledged, and the one change that was under way when the writer died."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = dict.fromkeys(KEYS, (None, 0))
        self.pending: dict[str, Any] | None = None
        self.acknowledged = 0

    def hear(self, line: bytes) -> None:
        said = json.decode(line)
        if "begin" in said:
            self.pending = said["begin"]
        else:
            self.entries |= {key: (entry[0], entry[1]) for key, entry in said["done"].items()}
            self.pending = None
            self.acknowledged += 1

    def judge(self, found: dict[str, Entry]) -> None:
        """Raises: AssertionError unless `found` is what was acknowledged, with or without the change under way."""
        if self.pending is not None and found != self.entries:
            changed = {key: found[key] for key in self.pending}
            assert {key: entry[0] for key, entry in changed.items()} == self.pending, "half done"
            for key, (value, version) in changed.items():
                assert (version > self.entries[key][1]) if value is not None else version == 0, "a version went back"
            self.entries |= changed
        self.pending = None
        assert found == self.entries, {
            key: (found[key], self.entries[key]) for key in KEYS if found[key] != self.entries[key]
        }


async def write(path: Path, ledger: Ledger, pipe: int, chance: random.Random) -> None:
    """Look at everything, then write until killed."""
    manager = StateManager(path)
    await manager.open()
    assert not manager.problems, manager.problems
    state = manager.scope("crash")
    found = {key: await state.get(key) for key in KEYS}
    ledger.judge({key: (entry.value, entry.version) if entry else (None, 0) for key, entry in found.items()})
    os.write(pipe, json.encode({"done": ledger.entries}) + b"\n")
    while True:
        keys = chance.sample(KEYS, chance.choice((1, 1, 1, 3)))
        values: dict[str, Any] = {key: [chance.random(), "x" * chance.choice((0, 100, 6_000))] for key in keys}
        if len(keys) == 1 and chance.random() < 0.2:
            values = {keys[0]: None}
        os.write(pipe, json.encode({"begin": values}) + b"\n")
        done: list[StateEntry]
        if None in values.values():
            await state.delete(keys[0])
            done = []
        else:
            done = list(await state.put_all(values))
        entries: dict[str, Entry] = dict.fromkeys(keys, (None, 0))
        entries |= {entry.key: (entry.value, entry.version) for entry in done}
        os.write(pipe, json.encode({"done": entries}) + b"\n")


def one_writer(path: Path, ledger: Ledger, chance: random.Random) -> None:
    """Fork a writer, let it get so far, kill it, take down what it said. Raises: AssertionError when it ended alone."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)  # a writer never waits for its listener
    seed = chance.random()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            asyncio.run(write(path, ledger, writing, random.Random(seed)))
        finally:
            os._exit(1)
    os.close(writing)
    wanted, heard = chance.choice(LINES), b""
    while heard.count(b"\n") < wanted and (more := os.read(reading, 65_536)):
        heard += more
    time.sleep(chance.uniform(0, 0.003 if wanted else 0.02))
    os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, "rb") as pipe:
        said = (heard + pipe.read()).split(b"\n")[:-1]
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the writer found something wrong, see above"
    for line in said:
        ledger.hear(line)


def main(path: Path, kills: int) -> None:
    ledger, chance = Ledger(), random.Random(kills)
    killed_while_writing = 0
    for _ in range(kills):
        one_writer(path, ledger, chance)
        killed_while_writing += ledger.pending is not None
    asyncio.run(look(path, ledger))
    print(
        json.encode(
            {"kills": kills, "acknowledged": ledger.acknowledged, "killed_while_writing": killed_while_writing}
        ).decode()
    )


async def look(path: Path, ledger: Ledger) -> None:
    manager = StateManager(path)
    await manager.open()
    found = {key: await manager.scope("crash").get(key) for key in KEYS}
    ledger.judge({key: (entry.value, entry.version) if entry else (None, 0) for key, entry in found.items()})
    await manager.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
