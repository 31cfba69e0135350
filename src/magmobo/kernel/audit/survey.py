"""What the log looks like when a writer comes to it: does it reach the head, and what lies beyond. Blocking I/O.

Beyond the head there may be at most one group of records: what a crash left between writing and acknowledging. It is
set aside. Anything else is a breach: the segments stay as they are, and the log goes on in a new one whose first
record names the breach. Invariant: nothing here removes a byte that is not in another file, synced, before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from magmobo.kernel.audit.record import GENESIS, MAX_LINE_BYTES, Head, end_of, hash_of, link_of
from magmobo.kernel.audit.segments import MAX_SEQ, Segment, discard_empty, open_file, segments_in
from magmobo.kernel.durable import sync_folder

MAX_GROUP = 256
_BLOCK_BYTES = 65_536
_MAX_LOOKS = 10_000  # in a file that somebody filled to keep us busy
_PENDING, _REPORTED = ".pending", ".jsonl"


class Breach(Struct, frozen=True):
    """The log is not what was acknowledged. `seq` is the first record that is known to be concerned."""

    seq: int
    reason: str


class Leftover(Struct, frozen=True):
    """Bytes beyond the head: `path` from byte `start` on."""

    path: Path
    start: int


class Survey(Struct, frozen=True):
    """Where to go on: behind byte `end` of `path` (None: a new segment), after record `seq` with `hash`."""

    seq: int
    hash: str
    path: Path | None = None
    end: int = 0
    leftovers: Sequence[Leftover] = ()
    breach: Breach | None = None


def survey(folder: Path, head: Head | None) -> Survey:
    """Compare the folder with the head. Changes nothing but segments that are empty. Raises: OSError."""
    segments = [segment for segment in segments_in(folder) if not _dropped_empty(segment, head)]
    if head is None:
        if not segments:
            return Survey(0, GENESIS)
        reason = "the state store has no head of this log"
        return Survey(_free_seq(segments), last_link(segments)[1], breach=Breach(1, reason))
    reached = [segment for segment in segments if segment.first_seq <= head.seq]
    if head.seq == 0:
        return _with_leftovers(segments, None, 0, head)
    end = _end_of_head(reached[-1].path, head.hash) if reached else None
    if end is None:
        reason = "the log does not hold the record that the head names"
        return Survey(_free_seq(segments, head.seq), head.hash, breach=Breach(head.seq, reason))
    return _with_leftovers(segments, reached[-1], end, head)


def set_aside(folder: Path, leftover: Leftover) -> Path:
    """Keep these bytes in a file of their own, still to be reported; they are taken off the log before the next write.

    Doing it again after a crash gives the same file. Raises: OSError.
    """
    with leftover.path.open("rb") as source:
        source.seek(leftover.start)
        digest = sha256()
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
        kept = folder / f"torn-{leftover.path.stem.removeprefix('audit-')}-{digest.hexdigest()[:16]}{_PENDING}"
        source.seek(leftover.start)
        with os.fdopen(open_file(kept, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as target:
            while block := source.read(_BLOCK_BYTES):
                target.write(block)
            target.flush()
            os.fsync(target.fileno())
    sync_folder(folder)
    if leftover.start == 0:
        leftover.path.unlink()
    return kept


def unreported(folder: Path) -> list[Path]:
    """Files that were set aside and are not yet in the log, by name. Raises: OSError."""
    return sorted(path for path in folder.glob(f"torn-*{_PENDING}") if path.is_file())


def whole_records(kept: Path) -> int:
    """How many lines of a file that was set aside are records. Raises: OSError."""
    with kept.open("rb") as file:
        return sum(hash_of(line) is not None for line in iter(lambda: file.readline(MAX_LINE_BYTES).rstrip(b"\n"), b""))


def mark_reported(kept: Path) -> Path:
    """Give a file that was set aside its final name. Raises: OSError."""
    return kept.rename(reported_name(kept))


def reported_name(kept: Path) -> Path:
    """The name that a file has once the log tells of it."""
    return kept.with_suffix(_REPORTED)


def _dropped_empty(segment: Segment, head: Head | None) -> bool:
    """Whether this segment was begun and never written to, after the head; then it is gone now."""
    if head is None or segment.first_seq <= head.seq or segment.path.stat().st_size:
        return False
    discard_empty(segment)
    return True


def _with_leftovers(segments: Sequence[Segment], last: Segment | None, end: int, head: Head) -> Survey:
    parts = [] if last is None else [(last.path, end)]
    parts += [(segment.path, 0) for segment in segments if segment.first_seq > head.seq]
    leftovers, seq, digest = [], head.seq, head.hash
    for path, start in parts:
        if path.stat().st_size <= start:
            continue
        seq, digest = _follow(path, start, seq, digest)
        if seq - head.seq > MAX_GROUP:
            end_seq, end_hash = last_link(segments)
            reason = f"the head in the state store is behind the log, which goes on to record {end_seq}"
            return Survey(_free_seq(segments), end_hash, breach=Breach(head.seq + 1, reason))
        leftovers.append(Leftover(path, start))
    return Survey(head.seq, head.hash, last.path if last else None, end, leftovers)


def _end_of_head(path: Path, digest: str) -> int | None:
    """The byte behind the record with this hash, searched from the end; None when it is not there as it was written."""
    wanted = end_of(digest)
    with path.open("rb") as file:
        for end in islice(_backwards(file, wanted), _MAX_LOOKS):
            start = max(0, end - MAX_LINE_BYTES)
            file.seek(start)
            if hash_of(file.read(end - start - 1).rpartition(b"\n")[2]) == digest:
                return end
    return None


def _backwards(file: BinaryIO, wanted: bytes) -> Iterator[int]:
    """Where each occurrence of `wanted` ends, last first."""
    size = stop = file.seek(0, os.SEEK_END)
    while stop > 0:
        start = max(0, stop - _BLOCK_BYTES)
        file.seek(start)
        block = file.read(min(size, stop + len(wanted) - 1) - start)
        at = block.rfind(wanted)
        while at >= 0:
            yield start + at + len(wanted)
            at = block.rfind(wanted, 0, at + len(wanted) - 1)
        stop = start


def _follow(path: Path, start: int, seq: int, digest: str) -> tuple[int, str]:
    """How far whole records behind byte `start` go on from `seq` and `digest`, looked at for two groups' length."""
    with path.open("rb") as file:
        file.seek(start)
        for _ in range(2 * MAX_GROUP):
            line = file.readline(MAX_LINE_BYTES)
            found, link = hash_of(line[:-1]), link_of(line)
            if found is None or link is None or (link.seq, link.prev_hash) != (seq + 1, digest):
                break
            seq, digest = link.seq, found
    return seq, digest


def last_link(segments: Sequence[Segment]) -> tuple[int, str]:
    """Number and hash of the last line that is a record in itself; what stands before it may be anything.

    Raises: OSError.
    """
    for segment in reversed(segments):
        with segment.path.open("rb") as file:
            stop: int | None = None
            for start in chain(islice(_backwards(file, b"\n"), _MAX_LOOKS), (0,)):
                if stop is not None and stop - start <= MAX_LINE_BYTES:
                    file.seek(start)
                    line = file.read(stop - start)
                    digest, link = hash_of(line), link_of(line)
                    if digest is not None and link is not None and 0 < link.seq < MAX_SEQ:
                        return link.seq, digest
                stop = start - 1
    return 0, GENESIS


def _free_seq(segments: Sequence[Segment], *others: int) -> int:
    """A number such that no segment and no record of `segments` has a greater one."""
    return max(last_link(segments)[0], *(segment.first_seq for segment in segments), *others)
