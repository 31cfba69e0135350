"""Reads records from the segments, also while a writer adds to them. Blocking I/O, for a thread or a command.

Gives what is there: whether it is genuine is for `verify` to say. A line that is no record is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from magmobo.contracts.audit import AuditRecord
from magmobo.kernel.audit.record import MAX_LINE_BYTES, link_of, record_of
from magmobo.kernel.audit.segments import segments_in


def records_in(folder: Path, *, after_seq: int, up_to_seq: int | None = None) -> Iterator[AuditRecord]:
    """Records behind `after_seq`, oldest first, up to `up_to_seq` when it is given. Raises: OSError."""
    for line in lines_in(folder, after_seq=after_seq, up_to_seq=up_to_seq):
        if (record := record_of(line)) is not None:
            yield record


def lines_in(folder: Path, *, after_seq: int, up_to_seq: int | None = None) -> Iterator[bytes]:
    """As `records_in`, but the very bytes, newline included: their hashes can be checked anywhere. Raises: OSError."""
    segments = segments_in(folder)
    while len(segments) > 1 and segments[1].first_seq <= after_seq + 1:
        del segments[0]
    for segment in segments:
        if up_to_seq is not None and segment.first_seq > up_to_seq:
            return
        with segment.path.open("rb") as file:
            _seek(file, after_seq + 1)
            while (line := file.readline(MAX_LINE_BYTES)).endswith(b"\n") or len(line) == MAX_LINE_BYTES:
                link = link_of(line)
                if link is None or link.seq <= after_seq:
                    continue
                if up_to_seq is not None and link.seq > up_to_seq:
                    return
                after_seq = link.seq
                yield line


def _seek(file: BinaryIO, seq: int) -> None:
    """Go to a line at or shortly before record `seq`, by halving: numbers grow from line to line."""
    low, high = 0, file.seek(0, os.SEEK_END)
    while high - low > MAX_LINE_BYTES:
        middle = (low + high) // 2
        file.seek(middle)
        file.readline(MAX_LINE_BYTES)
        start = file.tell()
        link = link_of(file.readline(MAX_LINE_BYTES))
        if link is not None and link.seq <= seq and start < high:
            low = start
        else:
            high = middle
    file.seek(low)
