"""Starts workers one after another, asks each for one hook, and says in JSON what memory each has of its own, in bytes:
`after_call` then, `in_the_end` when all the others were forked as well.

A program of its own, so that it can be run as any user: `python idle_workers.py FOLDER`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import structlog
import uvloop

from magmobo.extensions.sandbox.spawner import Spawner
from magmobo.extensions.sandbox.worker import WorkerProcess, WorkerSpec
from magx import wire

WORKERS = 4
POINT = "api.before_request"
CODE = f"""
from magx import Extension

ext = Extension()


@ext.hook("{POINT}")
async def before(call):
    return {{"query": call.data["query"] + "&limit=20"}}
"""
CONTEXT = {"method": "GET", "path": "/rest/v1/flights", "query": "select=*", "headers": {"accept": "application/json"}}


async def started(spawner: Spawner, folder: Path, number: int) -> WorkerProcess:
    """A worker that has answered once."""
    code_dir, data_dir = folder / f"code-{number}", folder / f"data-{number}"
    code_dir.mkdir(mode=0o755)
    data_dir.mkdir()
    (code_dir / "extension.py").write_text(CODE)
    manifest = {"id": "idle", "name": "Idle", "version": "1.0.0", "hooks": [{"point": POINT}]}
    (code_dir / "manifest.json").write_text(json.dumps(manifest))
    uid = 23_000 + number if os.geteuid() == 0 else None
    spec = WorkerSpec(extension_id="idle", code_dir=code_dir, data_dir=data_dir, uid=uid)
    worker = await spawner.spawn(spec)
    start = wire.Start(
        wire.PROTOCOL, "idle", "1.0.0", "extension:ext", str(code_dir), str(data_dir), {}, ["api.intercept_request"]
    )
    await answered(worker, start, wire.Ready)
    await answered(worker, wire.Call(1, f"hook:{POINT}", 1000, wire.raw(CONTEXT)), wire.Done)
    return worker


async def answered(worker: WorkerProcess, frame: wire.FromNode, kind: type[wire.Frame]) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(worker.socket, wire.encode(frame))
    frames = wire.Frames()
    async with asyncio.timeout(20):
        while not (bodies := frames.feed(data := await loop.sock_recv(worker.socket, 65_536))):
            assert data, "the worker ended"
    answer = wire.decode_from_worker(bodies[0])
    assert isinstance(answer, kind), answer


async def main(folder: Path) -> None:
    spawner = Spawner(log=structlog.get_logger())
    try:
        tier = (await spawner.tiers()).tier
        workers, after_call = [], []
        for number in range(WORKERS):
            workers.append(await started(spawner, folder, number))
            after_call.append(workers[-1].usage().private_bytes)
        in_the_end = [worker.usage().private_bytes for worker in workers]
        print(json.dumps({"tier": tier, "after_call": after_call, "in_the_end": in_the_end}))
    finally:
        await spawner.close()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))  # as a node: what is read of the same files is shared
