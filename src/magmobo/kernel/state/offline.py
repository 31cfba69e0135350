"""Reading the state file from outside of the node: while it runs, after it was killed, from a copy on read-only media.

Boundary: nothing in the folder of the file is made or changed, but for SQLite's own index of a write-ahead log that a
killed node left there. Invariant: an entry is only returned from a file in which everything was found sound.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from magmobo.contracts.errors import StateUnavailable
from magmobo.contracts.stores import StateEntry
from magmobo.kernel.state.database import Database, translated
from magmobo.kernel.state.errors import StateDamaged, StateTooNew, StateWentBack
from magmobo.kernel.state.files import companion, read_mark
from magmobo.kernel.state.scope import entry_of

_TRIES = 5


def read_offline(path: Path, owner: str, key: str) -> StateEntry | None:
    """One entry of the state file at `path`, None when it has none of that name.

    Raises: StateUnavailable and its kinds; a file that is not there, or is not sound, is an error.
    """
    with translated():
        for _ in range(_TRIES):
            acknowledged = read_mark(path)  # first: the file itself is never behind it
            if companion(path, "-shm").exists():  # a node has the file open, or was killed with it
                try:
                    return _read(path, owner, key, acknowledged)
                except (StateDamaged, StateTooNew, StateWentBack):
                    raise
                except StateUnavailable:
                    pass  # where the index cannot be written, for example; a copy can be read there
            with tempfile.TemporaryDirectory(prefix="mag-state-") as folder:
                if (copy := _copied(path, Path(folder))) is not None:
                    return _read(copy, owner, key, acknowledged)
    raise StateUnavailable("the file changes while it is read; a node seems to be starting or stopping")


def _read(path: Path, owner: str, key: str, acknowledged: int) -> StateEntry | None:
    database = Database(path, mode="ro")
    try:
        commits = database.verify()
        if commits < acknowledged:
            raise StateWentBack(commits, acknowledged)
        row = database.get(owner, key)
    finally:
        database.close()
    return None if row is None else entry_of(row)


def _copied(path: Path, folder: Path) -> Path | None:
    """A copy to open without touching the original, None when it changed meanwhile. Raises: OSError.

    A file that nobody has open is not opened here either: that would make a log and an index beside it, or fail where
    they cannot be made. SQLite's `immutable` would leave the log unread.
    """
    before = _state_of(path)
    copy = folder / path.name
    shutil.copyfile(path, copy)
    with suppress(FileNotFoundError):
        shutil.copyfile(companion(path, "-wal"), companion(copy, "-wal"))
    return copy if _state_of(path) == before else None


def _state_of(path: Path) -> tuple[tuple[int, int, int] | None, ...]:
    """Identity, size and time of change of the file and its log."""
    found: list[tuple[int, int, int] | None] = []
    for file in (path, companion(path, "-wal")):
        try:
            status = file.stat()
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except FileNotFoundError:
            found.append(None)
    return tuple(found)
