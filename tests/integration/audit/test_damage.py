"""What a writer does that finds its log torn, cut, edited or without its head; and what it never does: go on as if."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.integration.audit.support import Place, write

from magmobo.contracts.errors import AuditUnavailable
from magmobo.kernel.audit.record import Head, head_from, record_of


async def filled(place: Place, records: int = 9) -> bytes:
    """A log of one segment with so many records and a checkpoint; its bytes."""
    async with place.running() as log:
        await write(log, records)
    [path] = place.segments()
    return path.read_bytes()


async def head_of(place: Place) -> Head | None:
    async with place.stored() as manager:
        entry = await manager.scope("audit").get("head")
        return None if entry is None else head_from(entry.value)


async def set_head(place: Place, head: Head) -> None:
    async with place.stored() as manager:
        await manager.scope("audit").put("head", msgspec.to_builtins(head))


async def actions(place: Place) -> list[str]:
    async with place.running() as log:
        return [record.action for record in await log.read(after_seq=0, limit=1_000)]


@pytest.mark.parametrize("length", [1, 40, 300])
async def test_a_torn_record_beyond_the_head_is_set_aside_and_told(place: Place, length: int) -> None:
    genuine = await filled(place)
    torn = genuine[:length]
    place.segments()[0].write_bytes(genuine + torn)
    assert [(found.seq, found.kind) for found in place.verdict().breaks] == [(11, "beyond_head")]
    async with place.running() as log:
        await write(log, 1)
        assert [record.action for record in await log.read(after_seq=10, limit=5)] == [
            "audit.torn_record", "component.restart",
        ]  # fmt: skip
        [told, _] = await log.read(after_seq=10, limit=5)
    [kept] = place.aside()
    assert kept.read_bytes() == torn
    assert told.payload == {"file": kept.name, "size_bytes": length, "whole_records": 0, "after_seq": 10}
    assert any(kept.name in problem for problem in place.problems)
    assert place.verdict().ok
    assert (await actions(place)).count("audit.torn_record") == 1


async def test_whole_records_beyond_the_head_were_never_acknowledged_and_go_aside_too(place: Place) -> None:
    genuine = await filled(place)
    head = await head_of(place)
    assert head is not None
    lines = genuine.splitlines(keepends=True)
    record = record_of(lines[6])
    assert record is not None
    await set_head(place, Head(7, record.hash, head.keys))
    async with place.running() as log:
        [told] = await log.read(after_seq=7, limit=5)
        assert told.payload["whole_records"] == 3
    assert place.aside()[0].read_bytes() == b"".join(lines[7:])
    assert place.verdict().ok


async def test_what_was_set_aside_and_not_yet_told_is_told_after_the_crash(place: Place) -> None:
    await filled(place)
    (place.audit / "torn-000000000001-0123456789abcdef.pending").write_bytes(b"half")
    async with place.running() as log:
        [told] = await log.read(after_seq=10, limit=5)
        assert told.payload["size_bytes"] == 4
    assert [path.name for path in place.aside()] == ["torn-000000000001-0123456789abcdef.jsonl"]


async def test_a_segment_that_was_begun_and_never_acknowledged_goes_aside(place: Place) -> None:
    genuine = await filled(place)
    (place.audit / "audit-000000000011.jsonl").write_bytes(b'{"half')
    (place.audit / "audit-000000000012.jsonl").write_bytes(b"")
    async with place.running() as log:
        await write(log, 1)
    assert place.segments()[0].read_bytes().startswith(genuine)
    assert [path.read_bytes() for path in place.aside()] == [b'{"half']
    assert place.verdict().ok


def cut_tail(log: bytes) -> bytes:
    return log[: log.rindex(b"\n", 0, -1) + 1]


def cut_mid_record(log: bytes) -> bytes:
    return log[:-100]


def cut_newline(log: bytes) -> bytes:
    return log[:-1]


def edit_last(log: bytes) -> bytes:
    return log[:-200] + bytes([log[-200] ^ 1]) + log[-199:]


def empty(log: bytes) -> bytes:
    return b""


def rubbish(log: bytes) -> bytes:
    return b"\n" * 70_000 + b"x" * 70_000


def head_s_end_again_and_again(log: bytes) -> bytes:
    return log[: -len(log.splitlines()[-1])] + log[-76:] * 20_000


@pytest.mark.parametrize(
    "damage", [cut_tail, cut_mid_record, cut_newline, edit_last, empty, rubbish, head_s_end_again_and_again]
)
async def test_a_log_that_does_not_hold_the_head_is_a_break_for_ever(
    place: Place, damage: Callable[[bytes], bytes]
) -> None:
    broken = damage(await filled(place))
    evidence = place.segments()[0]
    evidence.write_bytes(broken)
    async with place.running() as log:
        assert any("tampered" in problem for problem in log.problems)
        await write(log, 2)
        assert [record.action for record in await log.read(after_seq=10, limit=9)] == [
            "audit.break_found", "component.restart", "component.restart",
        ]  # fmt: skip
    assert evidence.read_bytes() == broken, "the evidence was touched"
    assert len(place.segments()) == 2
    for _ in range(2):
        verdict = place.verdict()
        assert not verdict.ok
        assert "recorded_break" in [found.kind for found in verdict.breaks]
        async with place.running() as log:
            await write(log, 1)
        assert place.problems == [], "the break is recorded once"
    assert len(place.segments()) == 2


async def test_a_missing_segment_is_a_break(place: Place) -> None:
    await filled(place)
    place.segments()[0].unlink()
    async with place.running() as log:
        await write(log, 1)
    first = place.verdict().first_break
    assert first is not None
    assert first.seq == 10


async def test_a_head_far_behind_the_log_is_a_break_and_no_crash_s_remains(place: Place) -> None:
    genuine = await filled(place, 400)
    head = await head_of(place)
    record = record_of(genuine.splitlines()[9])
    assert record is not None
    assert head is not None
    await set_head(place, Head(10, record.hash, head.keys))
    async with place.running() as log:
        await write(log, 1)
        assert log.head_seq == 403
    assert place.aside() == []
    assert place.segments()[0].read_bytes() == genuine
    assert [(found.seq, found.kind) for found in place.verdict().breaks] == [(11, "recorded_break")]


async def test_a_log_without_the_state_store_it_belongs_to_is_a_break(place: Place) -> None:
    genuine = await filled(place)
    shutil.rmtree(place.state.parent)
    async with place.running() as log:
        await write(log, 1)
        assert log.head_seq == 12
    assert place.segments()[0].read_bytes() == genuine
    assert "recorded_break" in [found.kind for found in place.verdict().breaks]


async def test_a_head_that_is_none_is_a_break(place: Place) -> None:
    await filled(place)
    async with place.stored() as manager:
        await manager.scope("audit").put("head", {"seq": "ten"})
    assert [found.kind for found in place.verdict().breaks] == ["head_unknown"]
    async with place.running() as log:
        await write(log, 1)
    assert [found.kind for found in place.verdict().breaks][-1] == "recorded_break"


async def test_names_that_only_look_like_segments_do_not_stop_the_log(place: Place) -> None:
    await filled(place)
    for name in ("audit-1.jsonl", "audit-00000000000x.jsonl", "audit-9999999999999999.jsonl", "notes"):
        (place.audit / name).write_bytes(b"hello")
    (place.audit / "audit-999999999999.jsonl").write_bytes(b"hello")
    async with place.running() as log:
        await write(log, 1)
    assert len(place.aside()) == 1
    async with place.running() as log:
        await write(log, 1)
    assert place.verdict().ok


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"{}\n")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def replace(path: Path) -> None:
    copy = path.read_bytes()
    path.unlink()
    path.write_bytes(copy)


@pytest.mark.parametrize("touch", [append, truncate, replace, Path.unlink])
async def test_nothing_is_acknowledged_into_a_segment_that_somebody_touched(
    place: Place, touch: Callable[[Path], None]
) -> None:
    async with place.running() as log:
        await write(log, 3)
        touch(place.segments()[0])
        for _ in range(2):
            with pytest.raises(AuditUnavailable):
                await write(log, 1)
        assert log.problems != []
    async with place.running() as log:
        await write(log, 1)
    assert place.verdict().ok == (touch in (append, replace)), "what was acknowledged is there, or it is a break"
