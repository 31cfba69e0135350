"""The files of the audit log: how they are named, and the open end of the last one. Blocking I/O, for a thread.

`audit-<seq of its first record>.jsonl`, 0600; `torn-…` are bytes that were set aside. Invariant of `Tail`: what lies
behind `end` was never acknowledged and is cut off before anything else is written. No segment is ever removed.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from magmobo.kernel.durable import sync_folder

SEGMENT_BYTES = 64 * 1_048_576
LOCK_FILE = "writer.lock"
MAX_SEQ = 10**15  # a name or a record beyond is none of ours
_TOUCHED = "the segment was changed or replaced while it was being written; restart the node and run audit:verify"
_BEFORE, _AFTER = "audit-", ".jsonl"


class Segment(Struct, frozen=True, order=True):
    """One file of the log, by the number of the record that its name promises as the first."""

    first_seq: int
    path: Path


def segments_in(folder: Path) -> list[Segment]:
    """Every segment, oldest first; none when there is no folder. What is no file, a pipe for instance, is none.

    Raises: OSError.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _first_seq(entry.name) is not None and _is_file(entry)]
    except FileNotFoundError:
        return []
    found = ((_first_seq(name), name) for name in names)
    return sorted(Segment(seq, folder / name) for seq, name in found if seq is not None and seq <= MAX_SEQ)


def _first_seq(name: str) -> int | None:
    """What the name of a segment promises, None for the name of anything else."""
    digits = name.removeprefix(_BEFORE).removesuffix(_AFTER)
    is_one = name == f"{_BEFORE}{digits}{_AFTER}" and 12 <= len(digits) <= 16 and digits.isascii() and digits.isdigit()
    return int(digits) if is_one else None


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False


def segment_path(folder: Path, first_seq: int) -> Path:
    """Where the segment that begins with this record lies."""
    return folder / f"{_BEFORE}{first_seq:012d}{_AFTER}"


def open_file(path: Path, flags: int) -> int:
    """A descriptor on a file of ours, 0600 when this makes it; never through a symbolic link. Raises: OSError."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def lock(folder: Path) -> int:
    """The right to write, held until the descriptor is closed, also by kill -9. Raises: BlockingIOError, OSError."""
    descriptor = open_file(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class Tail:
    """The end of the log where records are added. Use it from one thread at a time.

    `path` is the segment to go on with, durable up to byte `end`; None begins a new one with the next record.
    """

    def __init__(self, folder: Path, path: Path | None, end: int, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder, self._path, self._segment_bytes = folder, path, segment_bytes
        self._end = self._written = end
        self._descriptor: int | None = None
        self._clean = path is None  # nothing behind `_end`, and that is synced

    def append(self, first_seq: int, data: bytes) -> None:
        """Write whole lines and sync them; they count once `keep` is called. Raises: OSError, and then none counts."""
        self.cut_back()
        self._check_untouched()
        if self._path is None or self._end >= self._segment_bytes:
            self._begin(segment_path(self._folder, first_seq))
        descriptor, view, self._clean = self._open(), memoryview(data), False
        while view:
            sent = os.pwrite(descriptor, view, self._written)
            self._written += sent
            view = view[sent:]
        os.fdatasync(descriptor)

    def keep(self) -> None:
        """What was appended is acknowledged now."""
        self._end, self._clean = self._written, True

    def cut_back(self) -> None:
        """Take away what was appended and not kept. Raises: OSError."""
        if self._clean:
            return
        descriptor = self._open()
        size = os.fstat(descriptor).st_size
        if size < self._end:
            raise OSError(errno.ESTALE, _TOUCHED)
        if size > self._end:
            os.ftruncate(descriptor, self._end)
        # Also when the size is right: after a failed sync only a later successful one says what is on the disk.
        os.fsync(descriptor)
        self._written, self._clean = self._end, True

    def close(self) -> None:
        """Give the file back; what was not kept is found by the next opening."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None

    def _check_untouched(self) -> None:
        """Nothing is acknowledged into a file that is gone, or that somebody else wrote to. Raises: OSError."""
        if self._path is None:
            return
        ours, there = os.fstat(self._open()), self._path.lstat()
        if not os.path.samestat(ours, there) or ours.st_size != self._end:
            raise OSError(errno.ESTALE, _TOUCHED)

    def _begin(self, path: Path) -> None:
        if path.exists() and path.stat().st_size:
            raise FileExistsError(errno.EEXIST, "a segment of the next record's name is there already")
        os.close(open_file(path, os.O_RDWR | os.O_CREAT))
        sync_folder(self._folder)
        self.close()
        self._path, self._end, self._written = path, 0, 0

    def _open(self) -> int:
        if self._descriptor is None:
            if self._path is None:
                raise FileNotFoundError(errno.ENOENT, "no segment was begun")
            self._descriptor = open_file(self._path, os.O_RDWR)
        return self._descriptor


def discard_empty(segment: Segment) -> None:
    """Remove a segment that was begun and never written to; it holds nothing."""
    with suppress(FileNotFoundError):
        segment.path.unlink()
