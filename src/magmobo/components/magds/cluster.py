"""Making the embedded cluster, or taking the one that is there.

Everything here blocks: call it in a thread. Invariant: a cluster appears under its name only when initdb has finished
and everything is on disk; what an interrupted first start left behind is removed and made anew.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from psycopg.conninfo import make_conninfo

from magmobo.components.magds.binaries import Binaries, binaries_for, choose_binaries
from magmobo.components.magds.errors import ClusterDamaged, DiskFull, NoAccount, ServerStartFailed
from magmobo.components.magds.place import Owner, Passwords, Place, Records, choose_place, sync_folder, writing
from magmobo.components.magds.processes import leave_with_parent

SUPERUSER = "postgres"
INITDB_TIMEOUT_S = 300
NOBODY = Owner(65_534, 65_534)  # initdb wants a uid that has an account; the server does not

# Small by default: an idle server should cost little. Whoever wants more uses ALTER SYSTEM, which wins over these.
_SETTINGS = """
# Set by MagMoBo when the cluster was made; ALTER SYSTEM overrides.
max_connections = 60
shared_buffers = 64MB
wal_buffers = 1MB
max_wal_size = 512MB
max_worker_processes = 4
max_parallel_workers = 2
max_logical_replication_workers = 0
autovacuum_max_workers = 2
jit = off
log_line_prefix = '%m [%p] '
log_timezone = 'UTC'
timezone = 'UTC'
password_encryption = 'scram-sha-256'
"""
_SETTINGS_18 = "io_method = sync\n"  # three processes fewer; one node's load does not need them


@dataclass(frozen=True)
class Cluster:
    """A cluster that can be started: where it is, by which binaries, as whom."""

    place: Place
    binaries: Binaries
    records: Records
    passwords: Passwords

    @property
    def pgdata(self) -> Path:
        return self.place.cluster

    def spawn_options(self) -> dict[str, Any]:
        """Arguments for `subprocess` that make a server run as the cluster's owner and shut down when we die."""
        return spawn_options(self.place.owner, last_signal=signal.SIGINT)

    def conninfo(self, socket_dir: Path, *, user: str, password: str, database: str) -> str:
        """libpq connection string over the Unix socket. It holds a password: never print it."""
        return make_conninfo(
            "", host=str(socket_dir), port=5432, user=user, password=password, dbname=database, client_encoding="UTF8"
        )


def prepare_cluster(data_dir: Path, *, bin_dir: str | None, system_dir: Path) -> Cluster:
    """The cluster of this data folder, made when it does not exist.

    Raises: PlaceRefused, ClusterDamaged, ClusterVersionMismatch, BinariesMissing, DiskFull, ServerStartFailed.
    """
    records = Records(data_dir)
    place = choose_place(records, system_dir)
    exists = place.cluster.exists()
    binaries = choose_binaries(bin_dir, cluster=place.cluster, major=_major_of(place.cluster) if exists else None)
    if place.owner is not None:
        with writing(place.home):
            binaries = binaries_for(binaries, place.owner.uid, place.home)
    passwords = records.passwords(create=not exists)
    if not exists:
        with writing(place.home):
            _make(place, binaries, passwords)
    if not place.initialised:
        place = replace(place, initialised=True)
        records.save_place(place)
    return Cluster(place, binaries, records, passwords)


def spawn_options(owner: Owner | None, *, last_signal: int = signal.SIGKILL) -> dict[str, Any]:
    """Arguments for `subprocess` that make a child run as `owner` (None: as we are) with a small environment, in a
    session of its own (a Ctrl-C in the terminal is the node's to handle), and get `last_signal` when we die.
    """
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
    options: dict[str, Any] = {"env": environment, "cwd": "/", "stdin": subprocess.DEVNULL, "start_new_session": True}
    options["preexec_fn"] = leave_with_parent(last_signal)
    if owner is not None:
        options |= {"user": owner.uid, "group": owner.gid, "extra_groups": []}
    return options


def no_space(text: str) -> bool:
    """Whether a Postgres program complains about a full disk or quota."""
    return re.search(r"No space left on device|Disk quota exceeded|File too large", text) is not None


def _major_of(cluster: Path) -> int:
    try:
        return int((cluster / "PG_VERSION").read_text().split(".")[0])
    except (OSError, ValueError) as error:
        raise ClusterDamaged(cluster, "its PG_VERSION file cannot be read") from error


def _make(place: Place, binaries: Binaries, passwords: Passwords) -> None:
    """initdb under another name, then rename."""
    draft, password_file = place.home / "cluster.new", place.home / ".initdb-password"
    shutil.rmtree(draft, ignore_errors=True)
    password_file.unlink(missing_ok=True)
    draft.mkdir(mode=0o700)
    maker = NOBODY if place.owner else None
    try:
        password_file.touch(mode=0o600)
        password_file.write_text(passwords.superuser + "\n")
        if maker:
            os.chown(draft, maker.uid, maker.gid)
            os.chown(password_file, maker.uid, maker.gid)
        _initdb(draft, binaries, password_file, maker)
        if place.owner:
            _give(draft, place.owner)
        _append(draft / "postgresql.conf", _SETTINGS + (_SETTINGS_18 if binaries.major >= 18 else ""))
        draft.rename(place.cluster)
        sync_folder(place.home)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    finally:
        password_file.unlink(missing_ok=True)


def _initdb(draft: Path, binaries: Binaries, password_file: Path, maker: Owner | None) -> None:
    command: list[str | Path] = [
        binaries.bin_dir / "initdb", f"--pgdata={draft}", f"--username={SUPERUSER}", "--auth=scram-sha-256",
        f"--pwfile={password_file}", "--encoding=UTF8", "--data-checksums", "--no-instructions",
    ]  # fmt: skip
    # Code point order everywhere: it does not change with the operating system, so indexes never rot.
    if binaries.major >= 17:
        command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    else:
        command += ["--locale=C.UTF-8"]
    try:
        answer = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
            timeout=INITDB_TIMEOUT_S, **spawn_options(maker),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ServerStartFailed("initdb", f"it did not finish within {INITDB_TIMEOUT_S} s") from None
    if answer.returncode != 0:
        last_lines = "\n".join(answer.stdout.strip().splitlines()[-8:])
        if no_space(answer.stdout):
            raise DiskFull(draft.parent, last_lines)
        if maker is None and not _has_account(os.geteuid()):
            raise NoAccount(os.geteuid())
        raise ServerStartFailed("initdb", last_lines)


def _has_account(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _give(folder: Path, owner: Owner) -> None:
    """Hand a tree to its owner. Its maker is an account that others may run as, so nothing in it is trusted: links are
    not followed, a file with a second name elsewhere is refused, and the door is shut (the top folder given) first.
    """
    os.chown(folder, owner.uid, owner.gid, follow_symlinks=False)
    for _, folders, files, descriptor in os.fwalk(folder, follow_symlinks=False):
        for name in files:
            if os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_nlink > 1:
                raise ServerStartFailed("initdb", f"{name} in {folder} has a second name; somebody meddled with it")
        for name in [*folders, *files]:
            os.chown(name, owner.uid, owner.gid, dir_fd=descriptor, follow_symlinks=False)


def _append(path: Path, text: str) -> None:
    """Add to a file that must be there and must not be a link, and see it to the disk."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC), "a") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
