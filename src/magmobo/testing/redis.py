"""A real Redis server for tests, which they may kill, freeze and start again.

Boundary: it listens on a Unix socket in a temporary folder of its own, never on TCP, and keeps nothing on disk.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class RedisServer:
    """One server; `url` stays the same when it is started again. Nothing is kept over a restart."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "redis.sock"
        self.url = f"unix://{self._socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers. Raises: RuntimeError."""
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError("redis-server is not installed; scripts/need.sh redis-server does it")
        command = [program, "--port", "0", "--unixsocket", str(self._socket), "--save", "", "--appendonly", "no",
                   "--dir", str(self._socket.parent), "--logfile", str(self._socket.parent / "log")]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError):
                if self.ask("PING") == b"+PONG\r\n":
                    return
            time.sleep(0.005)
        raise RuntimeError((self._socket.parent / "log").read_text())

    def ask(self, *words: str) -> bytes:
        """The raw answer to one command. Raises: OSError."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self._socket))
            parts = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)
            connection.sendall(b"*%d\r\n%s" % (len(words), parts))
            return connection.recv(1 << 16)

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It keeps its connections and answers nothing, until `revive`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def revive(self) -> None:
        """Make it answer, whatever was done to it before."""
        if self._process is None:
            self.start()
        else:
            self._process.send_signal(signal.SIGCONT)


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """A server that ends with the block."""
    with tempfile.TemporaryDirectory(prefix="magredis") as folder:
        server = RedisServer(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.kill()
