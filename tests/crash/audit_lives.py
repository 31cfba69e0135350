"""Run by test_kill_audit.py: one audit log, many short lives of its writer, each ended by kill -9.

Everything is loaded once; each life is a fork. A life tells by a pipe which records were acknowledged to it. Prints one
line of JSON at the end: all of them, as `seq hash`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from tests.integration.audit.support import OPERATOR, Place

from magmobo.kernel.audit.log import AuditLog

WRITERS = 3  # at the same time, so that there are groups
SEGMENT_BYTES, CHECKPOINT_EVERY = 30_000, 40


async def live(place: Place, pipe: int) -> None:
    """Write and tell, for ever."""
    async with place.running(segment_bytes=SEGMENT_BYTES, checkpoint_every=CHECKPOINT_EVERY) as log:
        await asyncio.gather(*(write_on(log, pipe) for _ in range(WRITERS)))


async def write_on(log: AuditLog, pipe: int) -> None:
    while True:
        record = await log.record("component.restart", actor=OPERATOR, payload={"pid": os.getpid()})
        os.write(pipe, f"{record.seq} {record.hash}\n".encode())


def one_life(place: Place, chance: random.Random) -> list[str]:
    """Fork a writer, let it get so far, kill it; what was acknowledged to it."""
    told, pipe = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        try:
            asyncio.run(live(place, pipe))
        finally:
            os._exit(1)  # a life that ends by itself is a failure, unless nobody listens any more
    os.close(pipe)
    wanted, heard = chance.choice((0, 0, 1, 2, 3, 5, 8)), b""
    while heard.count(b"\n") < wanted:
        if not (more := os.read(told, 4_096)):
            break
        heard += more
    time.sleep(chance.uniform(0, 0.003 if wanted else 0.02))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"a writer ended by itself: {status}"
    while more := os.read(told, 65_536):
        heard += more
    os.close(told)
    return heard.decode().splitlines()


def main() -> None:
    """Arguments: data folder, number of lives, seed."""
    place, lives, chance = Place(Path(sys.argv[1])), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    place.state.parent.mkdir(parents=True)
    # Loaded here, not in every life.
    import sqlite3  # noqa: F401

    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: F401

    acknowledged: list[str] = []
    for _ in range(lives):
        acknowledged += one_life(place, chance)
    print(json.dumps(acknowledged))


if __name__ == "__main__":
    main()
