"""Facts about processes, read from /proc: who still serves a cluster, and whether a recorded process is still the same;
and the promise of a child to leave when its parent dies.

Nothing here ends a process. Where /proc is missing (not Linux) only the caller's own child is known.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

_PROC = Path("/proc")
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def leave_with_parent(signal_number: int) -> Callable[[], None]:
    """A `preexec_fn` after which the child gets this signal when the thread that started it ends.

    subprocess calls it after changing the uid, which is what counts: changing the uid clears the setting. It runs
    between fork and exec, so it only calls functions that are already looked up and takes no lock.
    """
    parent = os.getpid()
    prctl = _LIBC.prctl if _LIBC is not None else None
    getppid, leave = os.getppid, os._exit

    def promise() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
            if getppid() != parent:  # it died before we asked
                leave(127)

    return promise


def started_at(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot; with the pid it names a process for good. None: no such
    process, or it is a zombie.
    """
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


def is_running(pid: int, started: str | None) -> bool:
    """Whether the process that had this pid and start time still runs."""
    now = started_at(pid)
    return now is not None and now == started


def exists(pid: int) -> bool:
    """Whether any process, zombies included, has this pid."""
    return (_PROC / str(pid)).exists()


def serving(pgdata: Path) -> list[int]:
    """Pids of live Postgres processes that work in this cluster's folder, the postmaster first when there is one."""
    found = [int(entry.name) for entry in _PROC.glob("[0-9]*") if _serves(entry, pgdata)]
    return sorted(found, key=lambda pid: (pid != postmaster_pid(pgdata), pid))


def postmaster_pid(pgdata: Path) -> int | None:
    """The pid that `postmaster.pid` names, dead or alive."""
    try:
        first = (pgdata / "postmaster.pid").read_text().partition("\n")[0]
        return abs(int(first)) or None
    except (OSError, ValueError):
        return None


def _serves(process: Path, pgdata: Path) -> bool:
    """Proof is the working folder (every Postgres process stays in its cluster) or, where that may not be read, the
    command line together with the owner.
    """
    try:
        argv = (process / "cmdline").read_bytes().split(b"\0")
        if not Path(os.fsdecode(argv[0])).name.startswith("postgres"):
            return False
        try:
            return os.path.samestat((process / "cwd").stat(), pgdata.stat())
        except PermissionError:
            named = os.fsencode(pgdata) in argv
            return named and process.stat().st_uid == pgdata.stat().st_uid
    except OSError:
        return False
