"""The state file among its companions: how it is made, marked and set aside. Nothing here reads what is in it.

`state.db` has `-wal` and `-shm` beside it while it is open, and always a `-mark`: how many commits have been
acknowledged. SQLite ends its recovery of a write-ahead log at the first frame that is not sound, and takes a log that
is gone for one that never was; with the mark such a loss is noticed. The mark is written after the commit is durable
and never synced, so it may be behind the file and is never ahead of it.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from magmobo.kernel.durable import sync_folder

COMPANIONS = ("-wal", "-shm", "-mark")


def companion(path: Path, suffix: str) -> Path:
    """`state.db` and `-wal` give `state.db-wal`."""
    return path.with_name(path.name + suffix)


def sync_file(path: Path) -> None:
    """Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private(path: Path) -> None:
    """An empty file of mode 0600 in place of whatever is there, also of a log without its file. Raises: OSError."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        companion(path, suffix).unlink(missing_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def check_writable(path: Path) -> None:
    """SQLite would quietly open a file that it may only read. Raises: OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def set_aside(path: Path, *, keep: bool = False) -> Path:
    """Give the file and its companions another name, or with `keep` make copies of that name; the name of the file.

    The file itself goes last: when the process ends half way, the next start finds it damaged again. The index of the
    log goes nowhere: SQLite makes it anew. Raises: OSError.
    """
    import shutil  # 3 ms, for damage alone

    stamp = f"corrupt-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    aside = path.with_name(f"{path.name}.{stamp}")
    number = 1
    while aside.exists() or any(companion(aside, suffix).exists() for suffix in COMPANIONS):
        number += 1
        aside = path.with_name(f"{path.name}.{stamp}-{number}")
    if not keep:
        companion(path, "-shm").unlink(missing_ok=True)
    for suffix in ("-mark", "-wal", ""):
        with suppress(FileNotFoundError):
            if keep:
                shutil.copy2(companion(path, suffix), companion(aside, suffix))
            else:
                companion(path, suffix).replace(companion(aside, suffix))
    sync_folder(path.parent)
    return aside


def read_mark(path: Path) -> int:
    """Commits that were acknowledged, 0 when there is no mark or it cannot be read as one. Raises: OSError."""
    try:
        text = companion(path, "-mark").read_bytes()
    except FileNotFoundError:
        return 0
    number = text[:20]
    return int(number) if number.isdigit() and text == _mark(int(number)) else 0


class Mark:
    """The open mark of one state file. Raises: OSError."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(companion(path, "-mark"), flags, 0o600)

    def write(self, commits: int) -> None:
        """Note that `commits` have been acknowledged. A mark that cannot be written stays behind, which is safe."""
        with suppress(OSError):
            os.pwrite(self._descriptor, _mark(commits), 0)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


def _mark(commits: int) -> bytes:
    number = b"%020d" % commits
    return number + b" %08x\n" % zlib.crc32(number)
