"""`python vault_killer.py DATA_DIR KILLS`: writers that are killed, and whether what they acknowledged is there.

Prints one JSON object, or fails with what is wrong. A writer says over a pipe what it is about to do and what is done,
a line each; the pipe keeps what a killed writer said. Every writer opens the vault as a new process would, with its
mark in a state store: a file that is behind its mark, or cannot be opened with the key that is there, ends the test.
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

from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: F401  (as above)
from msgspec import json

from magmobo.kernel.config.core import VaultConfig
from magmobo.kernel.state.manager import StateManager
from magmobo.kernel.vault.file import LocalVault
from magmobo.kernel.vault.store import SecretStore

NAMES = [f"n{number}" for number in range(6)]
PIPE_BYTES = 1_048_576
LINES = (0, 1, 2, 2, 4, 6, 10)
"""What a writer has said when its end is near, however fast this machine is: 0 while it opens, 2, 4, … in a change."""
Contents = dict[str, list[str]]  # every version that is kept, oldest first


class Ledger:
    """What was acknowledged, and the one change that was under way when the writer died."""

    def __init__(self) -> None:
        self.contents: Contents = {}
        self.pending: Contents | None = None
        self.acknowledged = 0

    def hear(self, line: bytes) -> None:
        said = json.decode(line)
        if "begin" in said:
            self.pending = said["begin"]
        else:
            self.contents, self.pending = said["done"], None
            self.acknowledged += 1

    def judge(self, found: Contents) -> None:
        """Raises: AssertionError unless `found` is what was acknowledged, with or without the change under way."""
        assert found in (self.contents, self.pending), (found, self.contents, self.pending)
        self.contents, self.pending = found, None


def opened(data_dir: Path) -> LocalVault:
    return LocalVault(VaultConfig(versions=3), data_dir)


async def contents_of(store: SecretStore) -> Contents:
    return {
        info.name: [(await store.read(info.name, version))[0] for version in info.versions]
        for info in await store.infos()
    }


async def write(data_dir: Path, ledger: Ledger, pipe: int, chance: random.Random) -> None:
    """Look at everything, then write until killed."""
    states = StateManager(data_dir / "state.db")
    await states.open()
    assert not states.problems, states.problems
    vault = opened(data_dir)
    store = SecretStore(vault, states.scope("vault"), on_secret=lambda _: None, on_problem=_fail)
    await store.check()
    found = await contents_of(store)
    ledger.judge(found)
    say(pipe, done=found)
    while True:
        found = await one_change(store, found, pipe, chance)
        say(pipe, done=found)


async def one_change(store: SecretStore, found: Contents, pipe: int, chance: random.Random) -> Contents:
    """Announce a change and make it; what the vault holds then."""
    what = chance.random()
    if what < 0.1 and found:
        gone = chance.choice(sorted(found))
        after = {name: versions for name, versions in found.items() if name != gone}
        say(pipe, begin=after)
        await store.remove(gone)
    elif what < 0.2:
        after = found
        say(pipe, begin=after)
        await store.rekey()
    else:
        news = {name: f"{chance.random()}" + "x" * chance.choice((0, 100, 9_000)) for name in chance.sample(NAMES, 2)}
        after = found | {name: [*found.get(name, []), text][-3:] for name, text in news.items()}
        say(pipe, begin=after)
        await store.write(news)
    return after


def say(pipe: int, **said: Any) -> None:
    os.write(pipe, json.encode(said) + b"\n")


def _fail(problem: str) -> None:
    raise AssertionError(problem)


def one_writer(data_dir: Path, ledger: Ledger, chance: random.Random) -> None:
    """Fork a writer, let it get so far, kill it, take down what it said. Raises: AssertionError when it ended alone."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)  # a writer never waits for its listener
    seed = chance.random()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            asyncio.run(write(data_dir, ledger, writing, random.Random(seed)))
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


def main(data_dir: Path, kills: int) -> None:
    (data_dir / "secrets").mkdir(mode=0o700)
    ledger, chance = Ledger(), random.Random(kills)
    killed_while_writing = 0
    for _ in range(kills):
        one_writer(data_dir, ledger, chance)
        killed_while_writing += ledger.pending is not None
    vault = opened(data_dir)
    ledger.judge(
        {info.name: [vault.read(info.name, version)[0] for version in info.versions] for info in vault.infos()}
    )
    result = {"kills": kills, "acknowledged": ledger.acknowledged, "killed_while_writing": killed_while_writing}
    print(json.encode(result).decode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
