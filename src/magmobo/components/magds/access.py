"""The way into the embedded database for people and programs on this machine: as the node's own role.

Boundary: reads the records of a data folder, connects to nothing. Only who may read those records (mode 0600, the
node's own user) gets in, so the password on the way out is no new secret to them.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct
from psycopg.conninfo import make_conninfo

from magmobo.components.magds.bootstrap import DATABASE, NODE_ROLE
from magmobo.components.magds.errors import NotEmbedded
from magmobo.components.magds.place import Records
from magmobo.components.magds.processes import is_running
from magmobo.components.magds.supervisor import read_runtime


class Access(Struct, frozen=True):
    """`dsn` holds the password. `psql` is the client beside the server's binaries, or the one in PATH."""

    dsn: str
    psql: str


def embedded_access(data_dir: Path) -> Access:
    """How to reach the embedded database of the node that runs on `data_dir`.

    Raises: NotEmbedded when no embedded server runs there; ClusterDamaged when its records are broken.
    """
    records = Records(data_dir)
    place, runtime = records.place(), read_runtime(records.runtime)
    if place is None or runtime is None or not is_running(runtime.postmaster_pid, runtime.postmaster_started):
        raise NotEmbedded(data_dir)
    password = records.passwords(create=False).node
    dsn = make_conninfo(host=runtime.socket_dir, port=5432, dbname=DATABASE, user=NODE_ROLE, password=password)
    program = Path(f"/proc/{runtime.postmaster_pid}/exe")
    try:
        psql = program.readlink().with_name("psql")
    except OSError:  # another user's process: its binary cannot be named
        psql = Path("psql")
    return Access(dsn, str(psql) if psql.exists() else "psql")
