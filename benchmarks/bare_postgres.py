"""The yardstick of everything that starts a database: the same server program, alone.

The cluster is made with the flags that the node uses (checksums, code point order) and runs with the same memory,
write-ahead log and durability; roles are trusted, so no password is hashed. The socket is in a temporary folder.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from magmobo.testing.postgres import pg_binary

DEADLINE_S = 60.0
POLL_S = 0.005
SETTINGS = {
    "wal_level": "logical",
    "shared_buffers": "64MB",
    "wal_buffers": "1MB",
    "max_wal_size": "512MB",
    "max_connections": "60",
    "jit": "off",
    "io_method": "sync",
    "timezone": "UTC",
}


class BarePostgres:
    """One cluster, and at most one server on it at a time."""

    def __init__(self, folder: Path, user: str | None) -> None:
        self._folder, self._user = folder, user
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """The superuser's connection string."""
        return f"host={self._folder} port=5432 user=postgres dbname=postgres"

    @property
    def pid(self) -> int:
        """The postmaster. Raises: RuntimeError when no server runs."""
        if self._process is None:
            raise RuntimeError("no server runs")
        return self._process.pid

    def make(self) -> None:
        """Run initdb."""
        flags = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--data-checksums", "--no-instructions"]
        flags += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        subprocess.run([pg_binary("initdb"), "-D", self._data, *flags], check=True, capture_output=True, **self._as())

    def start(self, *, tuned: bool = True) -> None:
        """Return when the server takes connections; `tuned`: with the node's settings instead of the defaults."""
        options = [f"-c{key}={value}" for key, value in SETTINGS.items() if tuned]
        places = [f"-cunix_socket_directories={self._folder}", "-clisten_addresses="]
        command: list[str | Path] = [pg_binary("postgres"), "-D", self._data, *places, *options]
        nowhere = subprocess.DEVNULL
        process: subprocess.Popen[bytes] = subprocess.Popen(command, stdout=nowhere, stderr=nowhere, **self._as())
        self._process = process
        give_up_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < give_up_s and process.poll() is None:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.dsn, connect_timeout=2).close()
                return
            time.sleep(POLL_S)
        raise RuntimeError("the bare server did not start")

    def stop(self) -> None:
        """Fast shutdown; without a server nothing happens."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _as(self) -> dict[str, Any]:
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
        return {"user": self._user, "cwd": self._folder, "env": environment}


@contextmanager
def bare_postgres() -> Iterator[BarePostgres]:
    """A folder for a cluster; stops the server and removes the folder at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="mag-bench-pg-"))
    user = None
    if os.geteuid() == 0:  # Postgres refuses root
        user = "nobody"
        shutil.chown(folder, user, pwd.getpwnam(user).pw_gid)
    server = BarePostgres(folder, user)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
