"""The embedded Postgres server as our own child: cleared way, start, readiness, shutdown, restart when it dies.

Only processes that provably serve our cluster are ever signalled (working folder or command line, see processes.py),
and only when the node that started them is gone. The server gets SIGINT (fast shutdown) when this node dies, whatever
kills it, so that no orphan stays.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from magmobo.components.magds.cluster import SUPERUSER, Cluster, no_space
from magmobo.components.magds.errors import ClusterInUse, DiskFull, ServerStartFailed, StorageError
from magmobo.components.magds.log_file import LogFile
from magmobo.components.magds.place import sync_folder, writing
from magmobo.components.magds.processes import exists, is_running, postmaster_pid, serving, started_at
from magmobo.contracts.errors import Unavailable

POLL_S = 0.01
QUIT_GRACE_S = 8.0  # an immediate shutdown kills its children itself after 5 s
WATCH_LOG_EVERY_S = 30.0
BACKOFF_S = (0.0, 0.2, 1.0, 2.0, 5.0, 10.0)
STEADY_S = 30.0  # a server that ran this long starts again without delay
_SOCKET_PATH_LIMIT = 90  # of 107 bytes; the rest is Postgres' own file name


class Runtime(Struct, frozen=True):
    """Who runs the cluster now; start times tell a process from a later one with the same pid."""

    node_pid: int
    node_started: str | None
    socket_dir: str
    postmaster_pid: int = 0
    postmaster_started: str | None = None


class PostgresServer:
    """One server on one cluster. `on_down(error)` is called whenever it ends without having been asked."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        max_slot_wal_keep_size_bytes: int,
        start_timeout_s: float,
        stop_timeout_s: float,
        log: structlog.stdlib.BoundLogger,
        on_down: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self._cluster, self._log, self._on_down = cluster, log, on_down
        self._slot_wal_bytes = max_slot_wal_keep_size_bytes
        self._start_timeout_s, self._stop_timeout_s = start_timeout_s, stop_timeout_s
        self._file = LogFile(cluster.records.log)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_dir: Path | None = None
        self._stopping = False
        self.restarts = 0
        self.last_error = ""

    def adjust(self, *, start_timeout_s: float, stop_timeout_s: float) -> None:
        """Deadlines of the next start and stop."""
        self._start_timeout_s, self._stop_timeout_s = start_timeout_s, stop_timeout_s

    @property
    def pid(self) -> int | None:
        """The postmaster while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def socket_dir(self) -> Path:
        """Where the server's socket is, from `start` to `stop`. Raises: Unavailable outside of that."""
        if self._socket_dir is None:
            raise Unavailable("the embedded database")
        return self._socket_dir

    def conninfo(self, *, user: str = SUPERUSER, password: str | None = None, database: str = "postgres") -> str:
        """libpq connection string; without a user, that of the superuser. It holds a password."""
        password = password or self._cluster.passwords.superuser
        return self._cluster.conninfo(self.socket_dir, user=user, password=password, database=database)

    async def start(self) -> None:
        """Clear the way, start, return when it takes connections.

        Raises: ClusterInUse, DiskFull, PlaceRefused, ServerStartFailed.
        """
        self._stopping = False
        await self._clear_the_way()
        if self._socket_dir is None:
            with writing(Path(tempfile.gettempdir())):
                self._socket_dir = _make_socket_dir(self._cluster)
        self._save_runtime()
        try:
            await self._launch()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Fast shutdown, then an immediate one at the deadline; returns when every server process is gone."""
        self._stopping = True
        process = self._process
        if process is not None and process.poll() is None:
            await self._end(process)
        self._process = None
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
            self._socket_dir = None
        self._cluster.records.runtime.unlink(missing_ok=True)

    async def supervise(self) -> None:
        """Start the server again, with growing pauses, whenever it ends by itself. Runs until cancelled."""
        failures = 0
        while True:
            process, since_s = self._process, asyncio.get_running_loop().time()
            if process is not None:
                await self._until_exit(process)
            if self._stopping:
                return
            if asyncio.get_running_loop().time() - since_s > STEADY_S:
                failures = 0
            self._report(ServerStartFailed("Postgres", self._file.tail()))
            await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
            failures += 1
            try:
                await self._restart()
            except StorageError as error:
                self._process = None
                self._report(error)

    # ------------------------------------------------------------ starting

    async def _restart(self) -> None:
        await self._clear_the_way()
        for stale in self.socket_dir.iterdir():  # of our own dead child; the folder is ours alone
            stale.unlink(missing_ok=True)
        await self._launch()
        self.restarts += 1
        self._log.warning("postgres.restarted", pid=self.pid, restarts=self.restarts)

    async def _launch(self) -> None:
        with writing(self._cluster.records.folder):
            self._file.begin()
            with self._file.open() as log:
                # From this very thread: the parent-death signal follows the thread that forks, not the process.
                self._process = subprocess.Popen(  # noqa: ASYNC220  # forks and execs in a few ms
                    self._command(), stdout=log, stderr=log, **self._cluster.spawn_options()
                )
        self._save_runtime()
        await self._until_ready(self._process)
        self.last_error = ""
        self._log.info("postgres.ready", pid=self._process.pid, version=self._cluster.binaries.version)

    def _command(self) -> list[str]:
        """What must hold whatever postgresql.conf says; the rest is tuning and stays in the file."""
        must = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._socket_dir),
            "unix_socket_permissions": "0700",
            "port": "5432",
            "wal_level": "logical",
            "max_slot_wal_keep_size": f"{self._slot_wal_bytes // 1_048_576}MB",
            "logging_collector": "off",
            "log_destination": "stderr",
        }
        options = [f"--{name}={value}" for name, value in must.items()]
        return [str(self._cluster.binaries.bin_dir / "postgres"), "-D", str(self._cluster.pgdata), *options]

    async def _until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Postgres writes `ready` into its pid file when it takes connections: cheaper to watch than to connect."""
        status_file = self._cluster.pgdata / "postmaster.pid"
        try:
            async with asyncio.timeout(self._start_timeout_s):
                while not _says_ready(status_file, process.pid):
                    if process.poll() is not None:
                        raise self._start_failure()
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise ServerStartFailed(
                "Postgres", f"not ready within {self._start_timeout_s:g} s\n{self._file.tail()}"
            ) from None

    def _start_failure(self) -> StorageError:
        text = self._file.tail()
        return DiskFull(self._cluster.pgdata, text) if no_space(text) else ServerStartFailed("Postgres", text)

    # ------------------------------------------------------------ what an earlier node left behind

    async def _clear_the_way(self) -> None:
        """Nobody else serves this cluster when this returns.

        Raises: ClusterInUse when somebody does who is not an orphan of a dead node.
        """
        records, pgdata = self._cluster.records, self._cluster.pgdata
        former = read_runtime(records.runtime)
        pids = serving(pgdata)
        if pids:
            if former is None or _is_alive_elsewhere(former):
                raise ClusterInUse(pgdata, pids[0])
            await self._see_off(former, pids)
        if former is not None and former.socket_dir != str(self._socket_dir) and not _is_alive_elsewhere(former):
            _remove_socket_dir(former.socket_dir)
        named = postmaster_pid(pgdata)
        if named is not None and exists(named):
            # A zombie or another program has that pid now; Postgres would take it for a live server.
            self._log.info("postgres.stale_lock_removed", pid=named)
            (pgdata / "postmaster.pid").unlink(missing_ok=True)

    async def _see_off(self, former: Runtime, pids: list[int]) -> None:
        """End the server of a node that died: it is on its way already, unless its signal was lost."""
        self._log.warning("postgres.orphan_found", pids=pids)
        pgdata = self._cluster.pgdata
        known = pids[0] != postmaster_pid(pgdata) or is_running(former.postmaster_pid, former.postmaster_started)
        for number, patience_s in ((signal.SIGINT, self._stop_timeout_s), (signal.SIGQUIT, QUIT_GRACE_S)):
            for pid in serving(pgdata)[:1] if known else ():
                os.kill(pid, number)
            if await self._until_nobody_serves(patience_s):
                return
        raise ClusterInUse(pgdata, pids[0])

    async def _until_nobody_serves(self, timeout_s: float) -> bool:
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        while serving(self._cluster.pgdata):
            if asyncio.get_running_loop().time() > deadline_s:
                return False
            await asyncio.sleep(POLL_S)
        return True

    # ------------------------------------------------------------ ending

    async def _end(self, process: subprocess.Popen[bytes]) -> None:
        steps = ((signal.SIGINT, self._stop_timeout_s), (signal.SIGQUIT, QUIT_GRACE_S), (signal.SIGKILL, 5.0))
        for number, patience_s in steps:
            process.send_signal(number)
            try:
                async with asyncio.timeout(patience_s):
                    await self._until_exit(process)
                    break
            except TimeoutError:
                self._log.warning("postgres.stop_is_slow", signal=number.name, waited_s=patience_s)
        await self._until_nobody_serves(QUIT_GRACE_S)

    async def _until_exit(self, process: subprocess.Popen[bytes]) -> None:
        """Return when the child has ended and is reaped; keeps its log small meanwhile."""
        loop = asyncio.get_running_loop()
        trim_at_s = loop.time() + WATCH_LOG_EVERY_S
        ended = asyncio.Event()
        descriptor = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") and process.poll() is None else None
        if descriptor is not None:
            loop.add_reader(descriptor, ended.set)
        try:
            while process.poll() is None:
                try:
                    async with asyncio.timeout(WATCH_LOG_EVERY_S if descriptor is not None else POLL_S * 5):
                        await ended.wait()
                except TimeoutError:
                    if loop.time() >= trim_at_s:
                        trim_at_s = loop.time() + WATCH_LOG_EVERY_S
                        self._file.trim()
        finally:
            if descriptor is not None:
                loop.remove_reader(descriptor)
                os.close(descriptor)

    def _report(self, error: StorageError) -> None:
        self.last_error = str(error)
        self._log.error("postgres.down", error=self.last_error, code=error.code)
        self._on_down(error)

    def _save_runtime(self) -> None:
        pid = self._process.pid if self._process is not None else 0
        runtime = Runtime(os.getpid(), started_at(os.getpid()), str(self._socket_dir), pid, started_at(pid))
        records = self._cluster.records
        with writing(records.folder):
            records.write(records.runtime, msgspec.json.encode(runtime))


def _is_alive_elsewhere(runtime: Runtime) -> bool:
    """Whether the node that wrote this is another process and still runs."""
    return runtime.node_pid != os.getpid() and is_running(runtime.node_pid, runtime.node_started)


def read_runtime(path: Path) -> Runtime | None:
    """The record at `path`; None when nobody is known to run the cluster."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Runtime)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None  # first start, or a clean stop


def _says_ready(status_file: Path, pid: int) -> bool:
    """Lines of postmaster.pid: 1 the pid, 8 the status. Source: src/include/utils/pidfile.h of Postgres."""
    try:
        lines = status_file.read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _make_socket_dir(cluster: Cluster) -> Path:
    """A private folder with a short name: a socket's path has at most 107 bytes."""
    # Another user's runtime folder (sudo keeps the variable) would be closed to the cluster's own uid.
    first = os.environ.get("XDG_RUNTIME_DIR") if cluster.place.owner is None else "/run"
    candidates = [first, tempfile.gettempdir(), "/tmp"]  # noqa: S108  # mkdtemp makes the private folder
    for base in candidates:
        if base and len(base) < _SOCKET_PATH_LIMIT - 20 and Path(base).is_dir() and os.access(base, os.W_OK | os.X_OK):
            folder = Path(tempfile.mkdtemp(prefix="mag-", dir=base))
            if cluster.place.owner is not None:
                os.chown(folder, cluster.place.owner.uid, cluster.place.owner.gid)
            return folder
    raise PermissionError(13, "no folder with a short path for the server's socket")


def _remove_socket_dir(recorded: str) -> None:
    """Remove what a dead node left; only a folder that looks like one of ours, whatever the record says."""
    folder = Path(recorded)
    if folder.name.startswith("mag-") and folder.is_dir() and not folder.is_symlink():
        for name in (".s.PGSQL.5432", ".s.PGSQL.5432.lock"):
            (folder / name).unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
            sync_folder(folder.parent)
