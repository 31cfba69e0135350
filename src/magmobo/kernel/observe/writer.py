"""Writes lines in a thread of its own, so that a slow disk or a full pipe never holds up the event loop.

Bounded: past `MAX_WAITING` lines new ones are counted, not kept, and the next line that fits says how many were lost.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from pathlib import Path
from typing import BinaryIO, Protocol, TextIO

MAX_WAITING = 10_000
MAX_FILE_BYTES = 32 * 1_048_576
KEPT_FILES = 3
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Target(Protocol):
    """Where lines go."""

    def write(self, lines: bytes) -> None:
        """Write whole lines. Raises: OSError, ValueError (closed)."""
        ...

    def close(self) -> None:
        """Release what was opened."""
        ...


class StreamTarget:
    """An open text stream, for example stderr; it is not ours to close."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, lines: bytes) -> None:
        self._stream.write(lines.decode(errors="replace"))
        self._stream.flush()

    def close(self) -> None:
        """Leaves the stream open."""


class FileTarget:
    """A file of mode 0600 that starts anew at 32 MiB and keeps three old ones: `mag.log.1` is the newest of them."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._path, self._max_bytes = path, max_bytes
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = self._open()

    def _open(self) -> BinaryIO:
        descriptor = os.open(self._path, _FLAGS, 0o600)
        return os.fdopen(descriptor, "ab", buffering=0)

    def write(self, lines: bytes) -> None:
        if self._file.tell() + len(lines) > self._max_bytes and self._file.tell() > 0:
            self._rotate()
        self._file.write(lines)

    def _rotate(self) -> None:
        for number in range(KEPT_FILES, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path.with_name(f"{self._path.name}.{number - 1}") if number > 1 else self._path
            if newer.exists():
                newer.replace(older)
        full, self._file = self._file, self._open()
        full.close()

    def close(self) -> None:
        self._file.close()


class LineWriter:
    """One thread in front of one target. `close` writes what waits, at most `timeout_s`."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lost, self._counting = 0, threading.Lock()
        self._thread = threading.Thread(target=self._run, name="mag-log", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Queue one line, with its line end. Never blocks, never raises."""
        if self._lines.qsize() >= MAX_WAITING:
            self._lose(1)
            return
        if self._lost:
            with self._counting:
                lost, self._lost = self._lost, 0
            self._lines.put(b'{"level":"warning","event":"log lines lost","lost":%d}\n' % lost)
        self._lines.put(line)

    def close(self, *, timeout_s: float = 2.0) -> None:
        """Write what waits and end the thread."""
        self._lines.put(None)
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self._target.close()

    def _lose(self, lines: int) -> None:
        with self._counting:
            self._lost += lines

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch = [self._lines.get()]
            with contextlib.suppress(queue.Empty):
                while len(batch) < 1000:
                    batch.append(self._lines.get_nowait())
            lines = [line for line in batch if line is not None]
            is_open = len(lines) == len(batch)
            try:
                self._target.write(b"".join(lines))
            except (OSError, ValueError):
                self._lose(len(lines))  # a full disk: said in the next line that can be written
