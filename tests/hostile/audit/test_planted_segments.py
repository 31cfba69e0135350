"""Who can write into the audit folder, without key or state store: each plant is told, none ends the judge."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from tests.integration.audit.support import OPERATOR, Place

from magmobo.contracts.errors import UnknownAuditAction
from magmobo.kernel.audit.verify import Verdict

DEADLINE_S = 60
TELLS_NO_TEXT = b'{"seq":2,"reason":"\xff\xfe"}'
PAYLOADS = [
    TELLS_NO_TEXT, b'{"seq":1e999,"reason":""}', b'{"seq":' + b"9" * 400 + b',"reason":""}', b"[]", b"null", b"\xff",
    b'{"seq":2,"seq":3,"reason":"a","reason":"\\u0000"}', b"[" * 5_000 + b"]" * 5_000,
    b'{"seq":2,"hash":"","public_key":"00","signature":"00"}',
    b'{"seq":2,"hash":"\xff","public_key":"","signature":""}',
]  # fmt: skip


@pytest.fixture
async def place(tmp_path: Path) -> Place:
    """A log of three records that is whole."""
    place = Place(tmp_path / "mag_data")
    async with place.running() as log:
        for _ in range(3):
            await log.record("component.restart", actor=OPERATOR, payload={"component": "magds"})
    assert place.verdict().ok
    return place


def judged(place: Place) -> Verdict:
    """The verdict, from a thread, so that a judge that hangs fails the test instead of holding it."""
    found: list[Verdict] = []
    judge = threading.Thread(target=lambda: found.append(place.verdict()), daemon=True)
    judge.start()
    judge.join(DEADLINE_S)
    assert found, "the judge did not come to an end"
    return found[0]


def forged(action: bytes, payload: bytes, seq: bytes) -> bytes:
    """A line that carries its own right hash, as anybody can make one."""
    body = b'{"seq":%s,"prev_hash":"%s","action":"%s","payload":%s' % (seq, b"0" * 64, action, payload)
    return body + b',"hash":"' + sha256(body).hexdigest().encode() + b'"}\n'


@pytest.mark.parametrize("action", [b"audit.break_found", b"audit.checkpoint", b"component.restart"])
@pytest.mark.parametrize("seq", [b"5", b"9" * 30, b"-1", b"9223372036854775807"])
async def test_a_forged_record_is_a_break_whatever_it_holds(place: Place, action: bytes, seq: bytes) -> None:
    planted = place.audit / "audit-000000000005.jsonl"
    for payload in PAYLOADS:
        planted.write_bytes(forged(action, payload, seq))
        verdict = judged(place)
        assert not verdict.ok
        assert verdict.breaks


PLANTS: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a device without end": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a hole of 64 MB": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), 64 << 20),
}


@pytest.mark.parametrize("what", PLANTS)
@pytest.mark.parametrize("name", ["audit-000000000002.jsonl", "audit-000000000009.jsonl"])
async def test_what_is_no_file_holds_up_neither_judge_nor_node(place: Place, what: str, name: str) -> None:
    PLANTS[what](place.audit / name)
    assert judged(place).head_seq
    async with place.running() as log:
        record = await log.record("component.restart", actor=OPERATOR, payload={})
        assert await log.read(after_seq=record.seq - 1, limit=1) == [record]


async def test_a_pipe_that_waits_to_be_reported_holds_up_no_start(place: Place) -> None:
    os.mkfifo(place.audit / "torn-000000000001-0000.pending")
    async with place.running() as log:
        await log.record("component.restart", actor=OPERATOR, payload={})


@pytest.mark.parametrize("action", ["audit.break_found", "audit.checkpoint", "audit.torn_record"])
async def test_what_the_log_says_of_itself_nobody_else_can_say(place: Place, action: str) -> None:
    async with place.running() as log:
        with pytest.raises(UnknownAuditAction):
            log.action(action)
        with pytest.raises(UnknownAuditAction):
            await log.record(action, actor=OPERATOR, payload={"seq": 1, "reason": "made up"})
    assert place.verdict().ok
