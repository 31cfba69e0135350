"""Plays a node with things worth stealing, starts a worker for each attack, and says how each went, as JSON.

`python scenario.py REQUEST` with `attacks` (names; empty: all), `layers` (names of layers; null: what the machine
gives), `without` (layers to leave out) and `watched` (whether somebody looks after the data folders). Answers `tier`,
`layers`, and for each attack `outcome`, `how` and `escape`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import structlog

from magmobo.extensions.sandbox.errors import SandboxFailed
from magmobo.extensions.sandbox.kinds import Layer
from magmobo.extensions.sandbox.quota import EVERY_S
from magmobo.extensions.sandbox.spawner import Spawner
from magmobo.extensions.sandbox.worker import WorkerProcess, WorkerSpec

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]
MIB = 1_048_576
MEMORY_BYTES, DATA_BYTES, TEMP_BYTES = 128 * MIB, 4 * MIB, 4 * MIB
UID = 20_001
ATTEMPT_S = 20.0
WORKERS_AT_ONCE = 4


class Node:
    """Files, sockets and a process of the node, which no extension should reach."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        (folder / "node").mkdir(mode=0o700)
        self.secret = folder / "node" / "secret"
        self.secret.write_text(os.environ["MAG_HOSTILE_SECRET"])
        self.secret.chmod(0o600)
        self.unix = _listening(stack, socket.AF_UNIX, str(folder / "node" / "socket"))
        self.abstract = f"mag-hostile-{os.getpid()}"
        _listening(stack, socket.AF_UNIX, "\0" + self.abstract)
        self.tcp_port = _listening(stack, socket.AF_INET, ("127.0.0.1", 0)).getsockname()[1]
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        self.udp_port = udp.getsockname()[1]
        victim = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={}
        )
        self.victim_pid = victim.pid
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        leaked = os.open(self.secret, os.O_RDONLY)
        os.set_inheritable(leaked, True)
        stack.callback(os.close, leaked)

    def target(self, name: str) -> dict[str, Any]:
        """Folders of an extension, and where everything is."""
        home = self.folder / name
        code, data, other = home / "code", home / "data", home / "other"
        for one in (code, data, other):
            one.mkdir(parents=True)
        home.chmod(0o755)
        node = home / "node"
        node.symlink_to(self.folder / "node")
        for file in ("attacks.py", "prey.py"):
            (code / file).write_text((HERE / "attacks.py").read_text() if file == "attacks.py" else "PREY = 1\n")
        code.chmod(0o755)
        (other / "theirs").write_text("of another extension")
        return {
            "secret": str(self.secret), "sibling": str(other / "theirs"), "code_dir": str(code), "data_dir": str(data),
            "library": str(Path(json.__file__).parent), "node_pid": os.getpid(), "victim_pid": self.victim_pid,
            "unix_path": str(self.folder / "node" / "socket"), "abstract": self.abstract, "tcp_port": self.tcp_port,
            "udp_port": self.udp_port, "secret_reversed": os.environ["MAG_HOSTILE_SECRET"][::-1],
            "memory_bytes": MEMORY_BYTES, "data_bytes": DATA_BYTES, "temp_bytes": TEMP_BYTES,
            "watched_s": 8 * EVERY_S,
        }  # fmt: skip


def _listening(stack: ExitStack, family: int, address: Any) -> socket.socket:
    server = stack.enter_context(socket.socket(family))
    server.bind(address)
    server.listen()
    return server


async def attempt(
    spawner: Spawner, node: Node, name: str, layers: frozenset[Layer], *, is_watched: bool
) -> dict[str, str]:
    """One attack by one worker."""
    target = node.target(name)
    spec = WorkerSpec(
        extension_id=name, code_dir=Path(target["code_dir"]), data_dir=Path(target["data_dir"]) if is_watched else None,
        memory_bytes=MEMORY_BYTES, data_bytes=DATA_BYTES,
        temp_bytes=TEMP_BYTES, layers=layers,
        uid=UID if os.geteuid() == 0 else None,
    )  # fmt: skip
    worker = await spawner.spawn(spec)
    try:
        async with asyncio.timeout(ATTEMPT_S):
            return await _ask(worker, name, target)
    except TimeoutError:
        return {"outcome": "stopped", "how": "it did not come to an end", "escape": ""}
    finally:
        worker.kill()
        await worker.wait()
        worker.socket.close()


async def _ask(worker: WorkerProcess, name: str, target: dict[str, Any]) -> dict[str, str]:
    reader, writer = await asyncio.open_connection(sock=worker.socket)
    writer.write(json.dumps({"attack": name, "target": target}).encode() + b"\n")
    with suppress(ConnectionError):
        if answer := await reader.readline():
            outcome, how = json.loads(answer)
            return {"outcome": outcome, "how": how, "escape": ""}
    ended = await worker.wait()
    writer.close()
    if ended.code == 0:
        return {"outcome": "leaked", "how": "another program ran in its place", "escape": ended.escape}
    return {"outcome": "stopped", "how": f"{ended.signal or ended.code} {ended.reason}", "escape": ended.escape}


async def play(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """All attacks of the request."""
    import attacks

    known = {**attacks.ATTACKS, **attacks.INHERITED}
    results: dict[str, dict[str, str]] = {}
    spawner = Spawner(log=structlog.get_logger(), runtime="standin:run", import_from=[HERE])
    with ExitStack() as stack:
        node = Node(folder, stack)
        try:
            found = await spawner.tiers()
            layers = found.layers if request["layers"] is None else frozenset(map(Layer, request["layers"]))
            layers -= frozenset(map(Layer, request["without"]))
            gate = asyncio.Semaphore(WORKERS_AT_ONCE)

            async def one(name: str) -> None:
                async with gate:
                    try:
                        results[name] = await attempt(spawner, node, name, layers, is_watched=request["watched"])
                    except SandboxFailed as error:
                        results[name] = {"outcome": "failed", "how": str(error), "escape": ""}

            async with asyncio.TaskGroup() as group:
                for name in request["attacks"] or known:
                    group.create_task(one(name))
        finally:
            await spawner.close()
    return {"tier": found.tier, "layers": sorted(layers), "missing": found.missing, "results": results}


def main(request: str) -> None:
    """Play and print."""
    folder = Path(tempfile.mkdtemp(prefix="mag-hostile-"))
    folder.chmod(0o755)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        print(json.dumps(asyncio.run(play(json.loads(request), folder))))
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
