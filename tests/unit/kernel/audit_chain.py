"""An audit log in memory, made of the product's own parts, for tests that must not touch a disk."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import structs

from magmobo.contracts.capabilities import Actor, Role
from magmobo.kernel.audit.catalogue import CATALOGUE, CHECKPOINT
from magmobo.kernel.audit.checkpoint import CheckpointKey
from magmobo.kernel.audit.record import GENESIS, Head, draft, seal
from magmobo.kernel.audit.verify import Verdict, judge

OPERATOR = Actor(name="uid:1000", role=Role.OPERATOR, via="control", address="127.0.0.1")


class Log(NamedTuple):
    """Lines with their newline, segment by segment, as (number in the name, lines); and the head."""

    segments: Sequence[tuple[int, Sequence[bytes]]]
    head: Head

    def files(self) -> list[tuple[int, bytes]]:
        return [(first_seq, b"".join(lines)) for first_seq, lines in self.segments]

    def lines(self) -> list[bytes]:
        return [line for _, lines in self.segments for line in lines]


def sealed(
    seq: int,
    prev_hash: str,
    action: str = "component.restart",
    payload: dict[str, Any] | None = None,
    trace_id: str | None = None,
) -> tuple[bytes, str]:
    """One genuine line and its hash."""
    told = {"component": f"part{seq}", "reason": 'ünïcode \\ " \n'} if payload is None else payload
    trace_id = f"t{seq}" if trace_id is None else trace_id
    item = draft(
        CATALOGUE[action], told, actor=OPERATOR, mask=lambda value: value, time_s=1.7e9 + seq, trace_id=trace_id
    )
    return seal(item, seq, prev_hash)


def make_log(sizes: Sequence[int], *, checkpoint_every: int) -> Log:
    """A log with segments of so many records, every `checkpoint_every`-th of which is a signed checkpoint."""
    key = CheckpointKey(Ed25519PrivateKey.generate())
    segments: list[tuple[int, list[bytes]]] = []
    seq, digest = 0, GENESIS
    for size in sizes:
        segments.append((seq + 1, []))
        for _ in range(size):
            if (seq + 1) % checkpoint_every == 0:
                line, digest = sealed(seq + 1, digest, CHECKPOINT, structs.asdict(key.sign(seq, digest)))
            else:
                line, digest = sealed(seq + 1, digest)
            seq += 1
            segments[-1][1].append(line)
    return Log(segments, Head(seq, digest, (key.fingerprint,)))


def verdict_on(files: Sequence[tuple[int, bytes]], head: Head | None) -> Verdict:
    """The judge's word on segments given as (number in the name, bytes)."""
    return judge([(first_seq, io.BytesIO(data)) for first_seq, data in files], head)
