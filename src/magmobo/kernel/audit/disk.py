"""The log's files as its thread sees them: opening, sealing and writing groups, checkpoints. Blocking I/O, no loop.

Boundary: knows nothing of the state store; it is told the head at `open` and by `keep` that the last group was
acknowledged. What it finds wrong becomes records of its own that go first into the next group.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

from magmobo.contracts.capabilities import Actor, Role
from magmobo.kernel.audit.catalogue import BREAK_FOUND, CATALOGUE, CHECKPOINT, TORN_RECORD
from magmobo.kernel.audit.record import GENESIS, Draft, Head, draft, seal
from magmobo.kernel.audit.segments import Tail, lock
from magmobo.kernel.audit.survey import (
    MAX_GROUP,
    Survey,
    mark_reported,
    reported_name,
    set_aside,
    survey,
    unreported,
    whole_records,
)

if TYPE_CHECKING:
    from magmobo.kernel.audit.checkpoint import CheckpointKey

MAX_DRAFTS = MAX_GROUP - 16  # of others; the rest of a group is for records of its own
_KERNEL = Actor(name="kernel", role=Role.ADMIN, via="kernel")


class Sealed(Struct, frozen=True):
    """Where a record came to stand."""

    seq: int
    prev_hash: str
    hash: str


class Written(Struct, frozen=True):
    """A group on disk, in the order in which it was given, and the head that makes it count."""

    sealed: Sequence[Sealed]
    head: Head


class Disk:
    """One log that was taken over, see `open_disk`. Use it from one thread at a time; `problems` grows."""

    def __init__(
        self,
        folder: Path,
        found: Survey,
        head: Head,
        lock: int,
        *,
        time_s: Callable[[], float],
        segment_bytes: int,
        checkpoint_every: int,
    ) -> None:
        self._folder, self._time_s, self._lock = folder, time_s, lock
        self.checkpoint_every = checkpoint_every
        self._base = structs.replace(head, seq=found.seq, hash=found.hash)
        self._next = self._base
        self._tail = Tail(folder, found.path, found.end, segment_bytes=segment_bytes)
        self._key: CheckpointKey | None = None
        self._key_due_seq = 0
        self._own: list[tuple[Draft, Path | None]] = []
        self._own_written = 0
        self._reported: list[Path] = []
        self.problems: list[str] = []
        if found.breach is not None:
            self._note_break(found.breach.seq, found.breach.reason)
        for path in unreported(folder):
            self._note_torn(path, head.seq)

    @property
    def owes(self) -> bool:
        """Whether records of its own wait to be written."""
        return bool(self._own)

    @property
    def unsigned(self) -> bool:
        """Whether records stand behind the last checkpoint."""
        return self._base.seq > self._base.signed_seq

    def write(self, drafts: Sequence[Draft], checkpoint: bool) -> Written:
        """Seal and write one group of at most `MAX_DRAFTS`, and sync it. Raises: OSError, and then nothing
        of it counts.
        """
        key = self._key_for_checkpoint(len(drafts), asked=checkpoint)
        own = [draft for draft, _ in self._own[: MAX_GROUP - MAX_DRAFTS - 1]]
        lines: list[bytes] = []
        sealed: list[Sealed] = []
        head = self._base
        for item in (*own, *drafts):
            head = _sealed_onto(head, item, lines, sealed)
        if key is not None:
            signed = self._own_draft(CHECKPOINT, structs.asdict(key.sign(head.seq, head.hash)))
            keys = head.keys if key.fingerprint in head.keys else (*head.keys, key.fingerprint)
            signed_seq = head.seq
            head = structs.replace(_sealed_onto(head, signed, lines, sealed), keys=keys, signed_seq=signed_seq + 1)
        try:
            if lines:
                self._tail.append(self._base.seq + 1, b"".join(lines))
        except OSError:
            with suppress(OSError):  # else the next write does it before it writes
                self._tail.cut_back()
            raise
        self._next, self._own_written = head, len(own)
        return Written(sealed[len(own) : len(own) + len(drafts)], head)

    def keep(self) -> None:
        """The last group was acknowledged. Does no I/O."""
        self._tail.keep()
        self._base = self._next
        self._reported += [path for _, path in self._own[: self._own_written] if path is not None]
        del self._own[: self._own_written]

    @property
    def untidy(self) -> bool:
        """Whether `tidy` has something to do."""
        return bool(self._reported)

    def tidy(self) -> None:
        """Give the files that the log tells of by now their final names. Raises: OSError."""
        while self._reported:
            mark_reported(self._reported[-1])
            self._reported.pop()

    def close(self) -> None:
        """Give everything back, the lock last."""
        self._tail.close()
        os.close(self._lock)

    def _note_break(self, seq: int, reason: str) -> None:
        self._own.append((self._own_draft(BREAK_FOUND, {"seq": seq, "reason": reason}), None))
        self.problems.append(f"the audit log was tampered with or damaged at record {seq}: {reason}; see audit:verify")

    def _note_torn(self, path: Path, after_seq: int) -> None:
        size, name = path.stat().st_size, reported_name(path).name
        payload = {"file": name, "size_bytes": size, "whole_records": whole_records(path), "after_seq": after_seq}
        self._own.append((self._own_draft(TORN_RECORD, payload), path))
        self.problems.append(
            f"{size} bytes behind record {after_seq} of the audit log had not been acknowledged; set aside as {name}"
        )

    def _key_for_checkpoint(self, drafts: int, *, asked: bool) -> CheckpointKey | None:
        """The key when a checkpoint belongs into the next group. A key that cannot be had costs the signature only."""
        seq = self._base.seq + len(self._own) + drafts
        due = seq - self._base.signed_seq >= self.checkpoint_every and seq >= self._key_due_seq
        if not (due or asked):
            return None
        if self._key is None:
            from magmobo.kernel.audit.checkpoint import load_or_make  # seldom, and not at the start

            try:
                self._key, problem = load_or_make(self._folder, self._base.keys)
            except OSError as error:
                self._key_due_seq = seq + self.checkpoint_every
                self.problems.append(f"the audit log is not signed: its key cannot be had ({error.strerror})")
                return None
            if problem:
                self._note_break(self._base.signed_seq + 1, problem)
        return self._key

    def _own_draft(self, action: str, payload: Mapping[str, Any]) -> Draft:
        return draft(CATALOGUE[action], payload, actor=_KERNEL, mask=_as_it_is, time_s=self._time_s())


def open_disk(
    folder: Path, head: Head | None, *, time_s: Callable[[], float], segment_bytes: int, checkpoint_every: int
) -> Disk:
    """Take over the log in `folder`, which is made when it is missing; `head` is what the state store holds.

    Raises: BlockingIOError when another writer has it, OSError.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    held = lock(folder)
    try:
        found = survey(folder, head)
        for leftover in found.leftovers:
            set_aside(folder, leftover)
        return Disk(
            folder,
            found,
            head or Head(0, GENESIS),
            held,
            time_s=time_s,
            segment_bytes=segment_bytes,
            checkpoint_every=checkpoint_every,
        )
    except BaseException:
        os.close(held)
        raise


def _sealed_onto(head: Head, item: Draft, lines: list[bytes], sealed: list[Sealed]) -> Head:
    line, digest = seal(item, head.seq + 1, head.hash)
    lines.append(line)
    sealed.append(Sealed(head.seq + 1, head.hash, digest))
    return structs.replace(head, seq=head.seq + 1, hash=digest)


def _as_it_is(value: Any) -> Any:
    return value  # these records hold what this package says itself
