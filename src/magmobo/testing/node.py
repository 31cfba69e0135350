"""A whole node as its own process, the way a user starts it: `mag up` with a free port and a data folder of its own.

Boundary: knows the command line and the control socket, nothing inside. Nothing outlives the block: `running_node`
stops the node, and kills it when it does not stop.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec

from magmobo.admin.client import AdminClient
from magmobo.admin.data_folder import DataFolder
from magmobo.contracts.errors import MagError
from magmobo.contracts.planes import NodeStatus
from magmobo.extensions.sandbox.children import send_signal

_SYSTEM_DIRS = {"MAG_MAGDS__SYSTEM_DIR": ".", "MAG_EXTENSIONS__SYSTEM_DIR": "extensions"}


class NodeFailed(Exception):
    """The process ended before the node was ready; the text is what it printed."""


class NodeProcess:
    """One run of `mag up`. `base_url` and `status` hold from the moment it was ready."""

    def __init__(self, process: asyncio.subprocess.Process, data_dir: Path, output: Path) -> None:
        self.process, self.data_dir, self._output = process, data_dir, output
        self.status: NodeStatus

    @property
    def base_url(self) -> str:
        """`http://host:port` of the public port."""
        return self.status.urls["http"].rstrip("/")

    @property
    def printed(self) -> str:
        """Everything the node wrote to its terminal so far."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    @property
    def _has_announced(self) -> bool:
        """Whether the banner, or the object of `--json`, is there; a node answers a moment before it prints."""
        return any(line.startswith(("MagMoBo ", '{"schema"')) for line in self.printed.splitlines())

    @property
    def admin_token(self) -> str:
        """The token from the banner; only a first start prints it."""
        words = next(line.split() for line in self.printed.splitlines() if line.split()[:1] == ["token"])
        return words[1]

    async def wait_until_ready(self, timeout_s: float) -> None:
        """Return when the node says ready and has printed how to reach it.

        Raises: NodeFailed, TimeoutError with what was printed.
        """
        client = AdminClient(DataFolder(self.data_dir), timeout_s=timeout_s)
        deadline = asyncio.get_running_loop().time() + timeout_s
        while asyncio.get_running_loop().time() < deadline:
            if self.process.returncode is not None:
                raise NodeFailed(f"exit {self.process.returncode}\n{self.printed}")
            try:
                status = msgspec.convert(await asyncio.to_thread(client.status), NodeStatus)
            except MagError:
                status = None
            if status is not None and status.state in {"ready", "degraded"} and self._has_announced:
                self.status = status
                return
            await asyncio.sleep(0.02)  # between two questions, not instead of one
        raise TimeoutError(f"not ready after {timeout_s:g} s\n{self.printed}")

    async def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM and wait; returns the exit code."""
        send_signal(self.process, signal.SIGTERM)
        async with asyncio.timeout(timeout_s):
            return await self.process.wait()

    async def kill(self) -> None:
        """SIGKILL and reap, as a crash would look."""
        send_signal(self.process, signal.SIGKILL)
        await self.process.wait()


@contextmanager
def disposable_system_dir() -> Iterator[Path]:
    """Let nodes of this block keep what they have outside of their data folder in one that goes away with it, by way of
    the environment.

    Only nodes run by root do, with clusters and files of extensions; see `magds.system_dir`, `extensions.system_dir`.
    """
    folder = Path(tempfile.mkdtemp(prefix="mag-system-"))
    folder.chmod(0o711)
    former = {name: os.environ.get(name) for name in _SYSTEM_DIRS}
    os.environ.update({name: str(folder / below) for name, below in _SYSTEM_DIRS.items()})
    try:
        yield folder
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)


async def start_node(
    data_dir: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    port: int | None = 0,
    cwd: Path | None = None,
    timeout_s: float = 60,
) -> NodeProcess:
    """Run `mag up` on `data_dir` and wait until it is ready.

    Args:
        arguments: more of the command line, such as a DSN or `--demo tasks`.
        environment: variables on top of this process's own.
        port: None leaves it to the settings.
        cwd: where a `mag.toml` may lie; by default the data folder's parent.
    """
    sink, output = tempfile.mkstemp(prefix="node-", suffix=".txt", dir=data_dir.parent)
    command = [sys.executable, "-m", "magmobo.cli.main", "up", *arguments]
    command += ["--data-dir", str(data_dir), *([] if port is None else ["--port", str(port)])]
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=sink, stderr=sink, env={**os.environ, **(environment or {})}, cwd=cwd or data_dir.parent
        )
    finally:
        os.close(sink)
    node = NodeProcess(process, data_dir, Path(output))
    try:
        await node.wait_until_ready(timeout_s)
    except BaseException:
        await node.kill()
        raise
    return node


@asynccontextmanager
async def running_node(
    data_dir: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    port: int | None = 0,
    cwd: Path | None = None,
) -> AsyncIterator[NodeProcess]:
    """A node for the length of a block; stopped in order at its end."""
    node = await start_node(data_dir, *arguments, environment=environment, port=port, cwd=cwd)
    try:
        yield node
    finally:
        try:
            await node.stop()
        finally:
            await node.kill()
