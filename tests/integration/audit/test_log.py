"""The writer on a real folder: groups, segments, reading, opening again, the key, who else wants to write."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading

import pytest
from tests.integration.audit.support import OPERATOR, Place, write

from magmobo.admin import audit as offline
from magmobo.admin.data_folder import DataFolder
from magmobo.contracts.errors import AuditUnavailable, UnknownAuditAction
from magmobo.kernel.audit.errors import AuditLogInUse, AuditLogMissing
from magmobo.kernel.audit.log import AuditLog
from magmobo.kernel.audit.record import hash_of, record_of


async def test_what_record_returned_is_what_stands_on_the_line(place: Place) -> None:
    async with place.running() as log:
        given = await log.record(
            "security.breakglass",
            actor=OPERATOR,
            payload={"why": "ünïcode", "password": "x"},
            trace_id="t1",
            severity="critical",
        )
        [line] = place.segments()[0].read_bytes().splitlines()
        assert record_of(line) == given
        assert given.payload == {"why": "ünïcode", "password": "***"}
        assert log.head_seq == given.seq == 1
    assert place.problems == []


async def test_the_chain_goes_on_over_closings_and_a_checkpoint_covers_each_run(place: Place) -> None:
    for _ in range(3):
        async with place.running() as log:
            await write(log, 4)
            assert place.verdict().ok
    verdict = place.verdict()
    assert verdict.ok
    assert (verdict.records, verdict.checkpoints, verdict.signed_seq) == (15, 3, 14)


async def test_a_run_that_records_nothing_writes_nothing(place: Place) -> None:
    async with place.running():
        pass
    assert place.segments() == []
    assert place.verdict().ok


async def test_records_that_wait_together_share_a_sync_and_a_head(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[str] = []
    real = os.fdatasync

    def counted(descriptor: int) -> None:
        syncs.append(threading.current_thread().name)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", counted)
    heads: list[int] = []
    async with place.stored() as manager:
        log = AuditLog(place.audit, manager.scope("audit"), mask=lambda value: value)
        await log.open()
        manager.scope("audit").watch("head", lambda entry, key: heads.append(entry.value["seq"] if entry else -1))
        records = await asyncio.gather(
            *(log.record("component.stop", actor=OPERATOR, payload={"n": turn}) for turn in range(400))
        )
        assert heads == [240, 400]  # 240 go at once
        assert len([name for name in syncs if name.startswith("mag-audit")]) == 2
        await log.close()
    assert [record.seq for record in records] == list(range(1, 401))
    assert [record.payload["n"] for record in records] == list(range(400))
    assert place.verdict().ok


async def test_the_chain_goes_on_over_segments_and_reading_finds_its_way(place: Place) -> None:
    async with place.running(segment_bytes=20_000, checkpoint_every=50) as log:
        await write(log, 300)
        assert len(place.segments()) > 4
        for after in (0, 1, 41, 42, 43, 150, log.head_seq - 1):
            seqs = [record.seq for record in await log.read(after_seq=after, limit=20)]
            assert seqs == list(range(after + 1, min(after + 20, log.head_seq) + 1))
        assert await log.read(after_seq=log.head_seq, limit=5) == []
        assert await log.read(after_seq=-5, limit=1) == await log.read(after_seq=0, limit=1)
        assert len(await log.read(after_seq=0, limit=10_000)) == log.head_seq
    assert place.verdict().ok
    for path in place.segments()[:-1]:
        assert path.stat().st_size < 20_000 + 1_000


async def test_what_could_not_be_read_is_a_hole_and_no_end(place: Place) -> None:
    async with place.running() as log:
        await write(log, 5)
        path = place.segments()[0]
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*lines[:2], b"x" * (len(lines[2]) - 1) + b"\n", *lines[3:]]))
        assert [record.seq for record in await log.read(after_seq=0, limit=10)] == [1, 2, 4, 5]


async def test_an_unknown_action_writes_nothing(place: Place) -> None:
    async with place.running() as log:
        with pytest.raises(UnknownAuditAction):
            await log.record("component.explode", actor=OPERATOR, payload={})
        assert log.head_seq == 0
    assert place.segments() == []


async def test_before_opening_and_after_closing_nothing_is_taken(place: Place) -> None:
    async with place.stored() as manager:
        log = AuditLog(place.audit, manager.scope("audit"), mask=lambda value: value)
        with pytest.raises(AuditUnavailable):
            await log.record("kernel.stop", actor=OPERATOR, payload={})
        await log.open()
        waiting = asyncio.create_task(log.record("kernel.stop", actor=OPERATOR, payload={}))
        await asyncio.sleep(0)
        await log.close()
        assert (await waiting).seq == 1
        with pytest.raises(AuditUnavailable):
            await log.record("kernel.stop", actor=OPERATOR, payload={})
        await log.close()


async def test_a_caller_that_gives_up_does_not_hurt_its_neighbours(place: Place) -> None:
    async with place.running() as log:
        tasks = [
            asyncio.create_task(log.record("component.stop", actor=OPERATOR, payload={"n": turn})) for turn in range(20)
        ]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [True, False] * 10
        assert [task.result().payload["n"] for task in tasks[1::2]] == list(range(1, 20, 2))
    assert place.verdict().ok


async def test_only_one_writes(place: Place) -> None:
    async with place.running() as log, place.stored_elsewhere() as other:
        second = AuditLog(place.audit, other.scope("audit"), mask=lambda value: value)
        with pytest.raises(AuditLogInUse):
            await second.open()
        await write(log, 1)
    async with place.running() as log:
        await write(log, 1)


async def test_files_are_for_the_owner_only(place: Place) -> None:
    async with place.running(checkpoint_every=2) as log:
        await write(log, 3)
    assert stat.S_IMODE(place.audit.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.audit.iterdir()}
    assert set(modes) == {"audit-000000000001.jsonl", "checkpoint.key", "writer.lock"}
    assert set(modes.values()) == {0o600}


async def test_a_symbolic_link_in_place_of_a_segment_is_not_followed(place: Place) -> None:
    async with place.running():
        pass
    target = place.path / "elsewhere"
    target.write_bytes(b"")
    (place.audit / "audit-000000000001.jsonl").symlink_to(target)
    async with place.running() as log:
        await write(log, 1)
    assert target.read_bytes() == b""
    assert not place.segments()[0].is_symlink()


async def test_somebody_waits_for_the_next_record(place: Place) -> None:
    async with place.running() as log:
        waiting = asyncio.create_task(log.wait_beyond(0, 30))
        await asyncio.sleep(0)
        await write(log, 1)
        assert await waiting
        assert not await log.wait_beyond(1, 0.01)


async def test_a_key_that_is_gone_is_replaced_and_that_is_a_break(place: Place) -> None:
    async with place.running() as log:
        await write(log, 1)
    (place.audit / "checkpoint.key").unlink()
    async with place.running() as log:
        await write(log, 1)
    assert any("key" in problem for problem in place.problems)
    verdict = place.verdict()
    assert [(found.seq, found.kind) for found in verdict.breaks] == [(3, "recorded_break")]
    assert verdict.checkpoints == 2


async def test_a_key_that_was_put_in_place_of_ours_is_not_used(place: Place) -> None:
    async with place.running() as log:
        await write(log, 1)
    (place.audit / "checkpoint.key").write_text("17" * 32 + "\n")
    async with place.running() as log:
        await write(log, 1)
    assert (place.audit / "checkpoint.key").read_text() != "17" * 32 + "\n"
    assert len(list(place.audit.glob("checkpoint.key.*.refused"))) == 1
    verdict = place.verdict()
    assert [found.kind for found in verdict.breaks] == ["recorded_break"]
    assert verdict.checkpoints == 2


async def test_a_key_that_cannot_be_read_costs_the_signature_only(place: Place) -> None:
    async with place.running() as log:
        await write(log, 1)
    (place.audit / "checkpoint.key").unlink()
    (place.audit / "checkpoint.key").mkdir()
    async with place.running() as log:
        await write(log, 1)
    assert any("not signed" in problem for problem in place.problems)
    assert place.verdict().ok


async def test_verify_while_a_node_writes_never_cries_wolf(place: Place) -> None:
    async with place.running(checkpoint_every=40, segment_bytes=30_000) as log:
        writing = asyncio.create_task(keep_writing(log))
        for _ in range(30):
            verdict = await asyncio.to_thread(place.verdict, patience_s=10)
            assert verdict.ok, verdict.breaks
        writing.cancel()
        await asyncio.wait([writing])
        assert log.head_seq > 100


async def keep_writing(log: AuditLog) -> None:
    while True:
        await asyncio.gather(*(write(log, 1) for _ in range(3)))


async def test_an_export_can_be_checked_without_us_and_a_tail_is_the_end(place: Place) -> None:
    async with place.running() as log:
        await write(log, 10)
        folder = DataFolder(place.path)
        lines = list(offline.export(folder, after_seq=3))
        assert [json.loads(line)["seq"] for line in lines] == list(range(4, 11))
        assert all(hash_of(line[:-1]) for line in lines)
        assert [record.seq for record in offline.tail(folder, 3).records] == [8, 9, 10]
        assert len(offline.tail(folder, 100).records) == 10


def test_a_folder_without_a_log_is_an_error_and_no_verdict(place: Place) -> None:
    for ask in (
        place.verdict,
        lambda: offline.tail(DataFolder(place.path), 1),
        lambda: offline.export(DataFolder(place.path)),
    ):
        with pytest.raises(AuditLogMissing):
            ask()


async def test_without_the_state_file_the_head_cannot_be_checked(place: Place) -> None:
    async with place.running() as log:
        await write(log, 3)
    for path in place.state.parent.iterdir():
        path.unlink()
    verdict = place.verdict()
    assert not verdict.ok
    assert [found.kind for found in verdict.breaks] == ["head_unknown"]
    assert verdict.records == 4
