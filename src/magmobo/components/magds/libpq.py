"""`PQsendPipelineSync`, which psycopg 3.3 does not wrap, from the libpq that psycopg has loaded.

psycopg's `pipeline_sync` writes to the socket each time; this one only queues, so a loop turn costs one write instead
of one per request (about a tenth of throughput). Where it cannot be found (libpq before 17, not Linux) the wrapped
call is used: same behaviour, more writes.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg import pq

_FIRST_WITH_SEND_SYNC = 170_000


@functools.cache
def _send_pipeline_sync() -> Callable[[ctypes.c_void_p], int] | None:
    """The C function inside the library this process already uses, never another copy of libpq."""
    if pq.version() < _FIRST_WITH_SEND_SYNC:
        return None
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
        paths = {line.split(maxsplit=5)[-1] for line in lines if "/libpq" in line and ".so" in line}
        if len(paths) != 1:  # none, or several and no way to tell which one is ours
            return None
        function = ctypes.PyDLL(paths.pop()).PQsendPipelineSync
    except (OSError, AttributeError):
        return None
    function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_int
    return function


def pipeline_sync(pgconn: pq.abc.PGconn) -> Callable[[], None]:
    """A function that queues a Sync on this connection.

    Raises (when called): psycopg.OperationalError when libpq refuses.
    """
    function = _send_pipeline_sync()
    pointer = getattr(pgconn, "pgconn_ptr", None)
    if function is None or not pointer:
        return pgconn.pipeline_sync
    handle = ctypes.c_void_p(pointer)

    def send_sync() -> None:
        if function(handle) != 1:
            raise psycopg.OperationalError("libpq refused a pipeline sync")

    return send_sync
