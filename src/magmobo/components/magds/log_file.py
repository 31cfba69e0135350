"""The server's log file, kept small. Postgres writes it itself, so nothing is lost when the node is busy or dies.

Opened for appending, so cutting it to zero while Postgres writes is safe: the next line lands at the new end.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import IO

MAX_BYTES = 8 * 1_048_576
TAIL_LINES = 12
_TAIL_BYTES = 8_192


class LogFile:
    """One log and one older copy of it, together at most about twice MAX_BYTES plus half a minute of writing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start_bytes = 0

    def begin(self) -> None:
        """A new run of the server starts here; `tail` shows nothing older."""
        self.trim()
        self._start_bytes = self._path.stat().st_size if self._path.exists() else 0

    def open(self) -> IO[bytes]:
        """The file for the child to append to, mode 0600."""
        return os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")

    def trim(self) -> None:
        """Move the content to `….1` when the file has grown past its limit."""
        if self._path.exists() and self._path.stat().st_size > MAX_BYTES:
            older = self._path.with_name(f"{self._path.name}.1")
            older.touch(mode=0o600)  # the copy keeps the mode of what is there, else the umask would choose it
            shutil.copyfile(self._path, older)
            os.truncate(self._path, 0)
            self._start_bytes = 0

    def tail(self) -> str:
        """The last lines of this run, for an error message."""
        if not self._path.exists():
            return "(it wrote no log)"
        with self._path.open("rb") as file:
            size_bytes = file.seek(0, os.SEEK_END)
            file.seek(max(self._start_bytes, size_bytes - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-TAIL_LINES:]) or "(it wrote no log)"
