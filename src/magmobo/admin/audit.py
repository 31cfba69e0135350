"""The audit log of a data folder, for commands that work whether or not a node runs on it.

Boundary: reads only, prints nothing. The log is judged by the head that the state store keeps, which is read from its
file. A running node may be writing meanwhile: what it adds while the log is read is left to the next look.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from magmobo.admin.data_folder import DataFolder
from magmobo.contracts.errors import AuditUnavailable, StateUnavailable
from magmobo.kernel.audit.errors import AuditLogMissing
from magmobo.kernel.audit.reader import lines_in
from magmobo.kernel.audit.record import HEAD_KEY, Head, head_from
from magmobo.kernel.audit.segments import segments_in
from magmobo.kernel.audit.survey import last_link
from magmobo.kernel.audit.verify import Extent, Verdict, measure
from magmobo.kernel.audit.verify import verify as judge
from magmobo.kernel.audit.view import View, Wanted, last_records
from magmobo.kernel.places import audit_dir, state_file
from magmobo.kernel.state.offline import read_offline

T = TypeVar("T")

OWNER = "audit"
_PAUSE_S = 0.02
_ANY = Wanted()


def verify(folder: DataFolder, *, patience_s: float = 1.0) -> Verdict:
    """Whether the log is what was acknowledged, and where it is not. Never ok when the head cannot be read.

    Args:
        patience_s: how long a node that is writing may take to commit its head, before what lies behind it counts as
            never acknowledged.
    Raises: AuditLogMissing, AuditUnavailable.
    """
    place = _place(folder)
    try:
        extent = measure(place)
        head, no_head = _head_of(folder, extent, patience_s)
        return judge(place, head, no_head=no_head, extent=extent)
    except OSError as error:
        raise AuditUnavailable(error.strerror or type(error).__name__) from error


def export(folder: DataFolder, *, after_seq: int = 0) -> Iterator[bytes]:
    """The lines behind `after_seq` as they are on disk, newline included, up to the head where it can be read.

    They can be checked without us: CONTRACTS says how a line's hash is made. What is given is not verified here.
    Raises: AuditLogMissing, AuditUnavailable.
    """
    place = _place(folder)
    head, _ = _head_of(folder)
    return _readable(lines_in(place, after_seq=after_seq, up_to_seq=head.seq if head is not None else None))


def tail(folder: DataFolder, limit: int, wanted: Wanted = _ANY) -> View:
    """The last `limit` records, oldest first, up to the head where it can be read; not verified.

    Raises: AuditLogMissing, AuditUnavailable.
    """
    place = _place(folder)
    head, _ = _head_of(folder)
    end_seq = last_link(segments_in(place))[0]
    last_seq = end_seq if head is None else min(head.seq, end_seq)  # a tail that was cut leaves a head that is too high
    try:
        return last_records(place, wanted, limit=limit, up_to_seq=last_seq)
    except OSError as error:
        raise AuditUnavailable(error.strerror or type(error).__name__) from error


def _place(folder: DataFolder) -> Path:
    place = audit_dir(folder.path)
    if not place.is_dir():
        raise AuditLogMissing(str(folder.path))
    return place


def _head_of(folder: DataFolder, extent: Extent | None = None, patience_s: float = 0.0) -> tuple[Head | None, str]:
    """The head, or why there is none. A writer that is at work on the extent gets the time to commit its head."""
    waits_until_s = time.monotonic() + patience_s
    while True:
        try:
            entry = read_offline(state_file(folder.path), OWNER, HEAD_KEY)
        except StateUnavailable as error:
            return None, str(error)
        if entry is None:
            return None, "the state store has none"
        if (head := head_from(entry.value)) is None:
            return None, "what the state store has is no head"
        if extent is None or head.seq >= extent.needed_seq or time.monotonic() > waits_until_s:
            return head, ""
        time.sleep(_PAUSE_S)


def _readable(found: Iterator[T]) -> Iterator[T]:
    try:
        yield from found
    except OSError as error:
        raise AuditUnavailable(error.strerror or type(error).__name__) from error
