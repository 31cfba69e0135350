"""The judge: reads a log from its first byte to its last and says where it is not what was acknowledged.

Needs the folder and the head that the state store keeps, no kernel and no running node. Streams, so a log may be larger
than memory. Sound against whoever can write the log but not the state store; checkpoints hold against both, for
somebody who kept a public key or an exported checkpoint elsewhere. Source: CONTRACTS section 9.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
from msgspec import Struct, json

from magmobo.kernel.audit.catalogue import BREAK_FOUND, CHECKPOINT
from magmobo.kernel.audit.checkpoint import fault_of
from magmobo.kernel.audit.record import GENESIS, MAX_LINE_BYTES, Head, Link, hash_of, link_of
from magmobo.kernel.audit.segments import segments_in
from magmobo.kernel.audit.survey import last_link

BreakKind = Literal[
    "edited", "cut_tail", "cut_head", "reordered", "inserted", "missing", "missing_segment", "renamed_segment",
    "bad_checkpoint", "head_mismatch", "beyond_head", "head_unknown", "recorded_break",
]  # fmt: skip
MAX_LISTED = 20
_BEYOND = (
    "the log goes on behind the last acknowledged record, as a full disk or a crash leaves it; the next start "
    "sets that aside"
)


class Break(Struct, frozen=True):
    """One place where the log is not whole. `seq` is the first record concerned.

    `recorded_break` is one that the node found itself and wrote into the log.
    """

    seq: int
    kind: BreakKind
    detail: str


class Verdict(Struct, frozen=True):
    """What `verify` found. `breaks` are in the order of the log, at most 20 of `breaks_found`.

    `signed_seq`: everything up to this record is under a checkpoint whose signature is right.
    """

    ok: bool
    records: int
    segments: int
    first_seq: int
    last_seq: int
    head_seq: int | None
    checkpoints: int
    signed_seq: int
    breaks_found: int = 0
    breaks: tuple[Break, ...] = ()

    @property
    def first_break(self) -> Break | None:
        """Where it begins to be broken, None when it is whole."""
        return self.breaks[0] if self.breaks else None


class Extent(Struct, frozen=True):
    """How much log there was at one moment, while a writer may be at work: bytes by file, the last whole record."""

    sizes: Mapping[Path, int]
    last_seq: int
    torn: bool

    @property
    def needed_seq(self) -> int:
        """A head of this number or above covers every byte of the extent, if a writer is still at work on it."""
        return self.last_seq + self.torn


def measure(folder: Path) -> Extent:
    """The present extent of a log. Raises: OSError."""
    segments = segments_in(folder)
    sizes = {segment.path: segment.path.stat().st_size for segment in segments}
    torn = False
    if segments and sizes[segments[-1].path]:
        with segments[-1].path.open("rb") as file:
            file.seek(sizes[segments[-1].path] - 1)
            torn = file.read(1) != b"\n"
    return Extent(sizes, last_link(segments)[0], torn)


def verify(
    folder: Path, head: Head | None, *, no_head: str = "the state store has none", extent: Extent | None = None
) -> Verdict:
    """Judge the log in `folder` by the head from the state store.

    Args:
        head: None when there is none to be had, for which `no_head` is the reason; then the log can be consistent but
            not proven whole: not ok.
        extent: what a writer added after this was measured and behind `head` is not looked at.
    Raises: OSError.
    """
    segments = segments_in(folder)
    walk = _Walk(head, no_head)
    for number, segment in enumerate(segments):
        ours = None if extent is None else extent.sizes.get(segment.path, 0)
        with segment.path.open("rb") as file:
            walk.segment(segment.first_seq, file, last=number == len(segments) - 1, unseen_from=ours)
    return walk.verdict()


def judge(segments: Iterable[tuple[int, BinaryIO]], head: Head | None) -> Verdict:
    """As `verify`, for segments that are open already: the number their name promises and their bytes."""
    walk, rest = _Walk(head, "it was not asked for"), list(segments)
    for number, (first_seq, file) in enumerate(rest):
        walk.segment(first_seq, file, last=number == len(rest) - 1, unseen_from=None)
    return walk.verdict()


class _Walk:
    """Follows the chain. `_seq` counts the places of records, `_hash` is that of the last record that is one."""

    def __init__(self, head: Head | None, no_head: str) -> None:
        self._head = head
        self._seq, self._hash = 0, GENESIS
        self._unsure = False  # the last line was no record: the next one says whether it took a record's place
        self._gap: tuple[int, range] | None = None  # index of the break, numbers that were not there
        self._breaks: list[Break] = []
        self._found = self._records = self._segments = self._checkpoints = self._signed_seq = self._first_seq = 0
        self._beyond = False
        if head is None:
            self._break(1, "head_unknown", f"nothing says where the log should end, for there is no head: {no_head}")

    def segment(self, first_seq: int, file: BinaryIO, *, last: bool, unseen_from: int | None) -> None:
        """Read one segment. From byte `unseen_from` on, what lies behind the head is none of this walk's business."""
        self._segments += 1
        at_start, reads_all = True, unseen_from is None
        lines = _lines(file)
        while (reads_all or not self._seen_enough(file.tell(), unseen_from)) and (line := next(lines, b"")):
            if line.endswith(b"\n"):
                self._line(line[:-1], first_seq if at_start else None)
            else:
                self._torn(line, last=last)
            at_start = False

    def _seen_enough(self, position: int, unseen_from: int | None) -> bool:
        head = self._head
        return unseen_from is not None and position >= unseen_from and head is not None and self._seq >= head.seq

    def verdict(self) -> Verdict:
        """Everything has been read."""
        head = self._head
        if head is not None and self._seq < head.seq:
            detail = f"the log ends with record {self._seq}, record {head.seq} was acknowledged"
            self._break(self._seq + 1, "cut_tail", detail)
        return Verdict(
            ok=not self._found,
            records=self._records,
            segments=self._segments,
            first_seq=self._first_seq,
            last_seq=self._seq,
            head_seq=None if head is None else head.seq,
            checkpoints=self._checkpoints,
            signed_seq=self._signed_seq,
            breaks_found=self._found,
            breaks=tuple(self._breaks),
        )

    def _line(self, line: bytes, first_seq: int | None) -> None:
        """One line; `first_seq` is what the segment's name promises when the line is its first."""
        digest = hash_of(line)
        link = link_of(line) if digest is not None else None
        if digest is None or link is None:
            if not self._past_head(ahead=1):
                self._break(self._seq + 1, "edited", "the bytes of this record are not those that were hashed")
            self._seq, self._unsure = self._seq + 1, True
            return
        begins_anew = link.action == BREAK_FOUND and first_seq is not None
        if not begins_anew and not self._in_order(link, digest, first_seq):
            return
        if link.action == BREAK_FOUND:
            self._recorded(link)
        self._accept(link, digest)
        if first_seq is not None and link.seq != first_seq:
            self._break(link.seq, "renamed_segment", f"the segment's name promises record {first_seq}")

    def _in_order(self, link: Link, digest: str, first_seq: int | None) -> bool:
        """Note what is wrong with this record's place; whether the chain goes on from it."""
        expected, unsure, self._unsure = self._seq + 1, self._unsure, False
        if unsure and link.seq == self._seq and link.prev_hash == self._hash:
            # The line before stood between two records, not in place of one.
            self._relabel(len(self._breaks) - 1, "inserted", "a line stands here that is no record")
            return True
        if link.seq > expected:
            kind, what = self._kind_of_gap(first_seq), f"record {link.seq} stands where {expected} should be"
            self._break(expected, kind, what)
            self._gap = (len(self._breaks) - 1, range(expected, link.seq))
            return True
        if link.seq < expected:
            if self._gap is not None and link.seq in self._gap[1]:
                self._relabel(self._gap[0], "reordered", f"record {link.seq} stands behind record {self._seq}")
            at = link.seq if link.seq == self._seq and digest != self._hash else expected
            self._break(at, "inserted", f"record {link.seq} stands here once more")
            return False
        if not unsure and link.prev_hash != self._hash:
            what = f"record {link.seq} is chained to another record than the one before it"
            self._break(max(1, self._seq), "edited", what)
        return True

    def _kind_of_gap(self, first_seq: int | None) -> BreakKind:
        if self._records == 0:
            return "cut_head"
        return "missing" if first_seq is None else "missing_segment"

    def _recorded(self, link: Link) -> None:
        """The node itself found the log, or its key, not as it had left it."""
        try:
            told = json.decode(link.payload, type=_Told)
        except (msgspec.MsgspecError, UnicodeDecodeError):  # the bytes of a payload are looked at here first
            told = _Told(link.seq, "it does not say what")
        self._break(told.seq, "recorded_break", f"record {link.seq}, by the node itself: {told.reason}")

    def _accept(self, link: Link, digest: str) -> None:
        self._records += 1
        self._first_seq = self._first_seq or link.seq
        self._seq, self._hash, self._unsure = link.seq, digest, False
        head = self._head
        if self._past_head():
            return
        if head is not None and link.seq == head.seq and digest != head.hash:
            self._break(link.seq, "head_mismatch", "the state store has another hash for this record")
        if link.action == CHECKPOINT:
            self._checkpoint(link)

    def _checkpoint(self, link: Link) -> None:
        pinned = self._head.keys if self._head is not None else None
        fault = fault_of(link.payload, link.seq - 1, link.prev_hash, pinned)
        if fault:
            self._break(link.seq, "bad_checkpoint", fault)
        else:
            self._checkpoints += 1
            self._signed_seq = link.seq - 1

    def _torn(self, line: bytes, *, last: bool) -> None:
        if not self._past_head(ahead=1) and not last:
            self._break(self._seq + 1, "edited", f"the record is cut off after {len(line)} bytes")

    def _past_head(self, *, ahead: int = 0) -> bool:
        """Whether the place `ahead` records on is behind the head, which is noted once."""
        if self._head is None or self._seq + ahead <= self._head.seq:
            return False
        if not self._beyond:
            self._break(self._head.seq + 1, "beyond_head", _BEYOND)
        self._beyond = True
        return True

    def _break(self, seq: int, kind: BreakKind, detail: str) -> None:
        self._found += 1
        if len(self._breaks) < MAX_LISTED:
            self._breaks.append(Break(seq, kind, detail))

    def _relabel(self, index: int, kind: BreakKind, detail: str) -> None:
        if index < len(self._breaks) and self._breaks[index].kind != "beyond_head":
            self._breaks[index] = Break(self._breaks[index].seq, kind, detail)


class _Told(Struct, frozen=True):
    """Payload of `audit.break_found`."""

    seq: int
    reason: str


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines with their newline, the last one perhaps without; an empty line for one that is too long to be ours."""
    while line := file.readline(MAX_LINE_BYTES):
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (more := file.readline(MAX_LINE_BYTES)) and not more.endswith(b"\n"):
                pass
            line = b"\n"
        yield line
