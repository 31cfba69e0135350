"""A disk that is full, fails or cannot be written, and a state store that does: refused, told, and later well again."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.audit.support import OPERATOR, Place, write

from magmobo.contracts.errors import AuditUnavailable, StateUnavailable
from magmobo.contracts.stores import State
from magmobo.kernel.audit.log import AuditLog

CHILD, ROOT = "tests.integration.audit.limited_writer", Path(__file__).parents[3]


def test_a_full_disk_refuses_records_and_keeps_what_was_acknowledged(place: Place) -> None:
    """The disk is a limit on the size of files, which needs no rights and stops a write half way, as a disk does."""
    place.path.mkdir()
    told = subprocess.run(
        [sys.executable, "-m", CHILD, str(place.path)], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT
    )
    answers = [json.loads(line) for line in told.stdout.splitlines()]
    kinds = [answer["what"] for answer in answers]
    acknowledged = [answer["id"] for answer in answers if answer["what"] == "written"]
    assert kinds.count("refused") == 5
    assert kinds[-3:] == ["written"] * 3, "with room again, it writes again"
    assert {answer["code"] for answer in answers if answer["what"] == "refused"} == {"MAG-AUDIT-001"}
    ids = [json.loads(line)["id"] for path in place.segments() for line in path.read_bytes().splitlines()]
    assert set(acknowledged) <= set(ids)
    assert len(acknowledged) > 10
    verdict = place.verdict()
    assert verdict.ok, verdict.breaks
    assert place.aside() == []


FAULTS = [
    ("pwrite", errno.ENOSPC), ("pwrite", errno.EIO), ("fdatasync", errno.EIO), ("pwrite", errno.EROFS),
    ("fdatasync", errno.ENOSPC),
]  # fmt: skip


@pytest.mark.parametrize(("function", "number"), FAULTS)
async def test_a_failing_disk_refuses_and_recovers(
    place: Place, monkeypatch: pytest.MonkeyPatch, function: str, number: int
) -> None:
    async with place.running() as log:
        await write(log, 3)
        real = getattr(os, function)

        def failing(*args: Any) -> Any:
            if function == "pwrite":
                real(args[0], bytes(args[1])[:50], args[2])  # half of it arrives
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as broken:
            broken.setattr(os, function, failing)
            results = await asyncio.gather(*(write(log, 1) for _ in range(4)), return_exceptions=True)
            assert [type(result) for result in results] == [AuditUnavailable] * 4
            assert os.strerror(number) in str(results[0])
            assert log.head_seq == 3
            assert len(log.problems) == 1
        assert place.verdict().ok, "what was half written was cut off at once"
        assert log.write_errors_total == 4
        await write(log, 2)
        assert log.problems == []
    assert len(place.problems) == 1, "an outage is told once"
    assert place.verdict().ok
    assert place.verdict().records == 6


async def test_what_cannot_be_cut_off_now_is_cut_off_before_the_next_write(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.running() as log:
        await write(log, 1)
        with monkeypatch.context() as broken:
            real = os.pwrite

            def half(descriptor: int, data: Any, at: int) -> int:
                real(descriptor, bytes(data)[:50], at)
                raise OSError(errno.EIO, "gone")

            def never(*args: Any) -> None:
                raise OSError(errno.EIO, "gone")

            broken.setattr(os, "pwrite", half)
            broken.setattr(os, "ftruncate", never)
            with pytest.raises(AuditUnavailable):
                await write(log, 1)
            assert place.verdict().first_break is not None
        await write(log, 1)
        assert place.verdict().ok


async def test_a_folder_that_cannot_be_made_is_told(place: Place) -> None:
    place.path.mkdir()
    place.audit.write_bytes(b"a file")
    async with place.stored() as manager:
        log = AuditLog(place.audit, manager.scope("audit"), mask=lambda value: value)
        with pytest.raises(AuditUnavailable):
            await log.open()
        place.audit.unlink()
        await log.open()
        await write(log, 1)
        await log.close()


async def test_a_log_that_opens_on_a_full_disk_owes_what_it_found(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.running() as log:
        await write(log, 3)
    path = place.segments()[0]
    path.write_bytes(path.read_bytes()[:-10])
    async with place.stored() as manager:
        log = AuditLog(place.audit, manager.scope("audit"), mask=lambda value: value)
        with monkeypatch.context() as broken:

            def full(*args: Any) -> int:
                raise OSError(errno.ENOSPC, "No space left on device")

            broken.setattr(os, "pwrite", full)
            await log.open()
            with pytest.raises(AuditUnavailable):
                await write(log, 1)
        await write(log, 1)
        found = await log.read(after_seq=4, limit=9)
        assert [record.action for record in found] == ["audit.break_found", "component.restart"]
        await log.close()


class Moody:
    """A state store that does what it is asked and says what it likes."""

    def __init__(self, real: State) -> None:
        self._real = real
        self.before_put: Callable[[], Awaitable[None]] | None = None
        self.after_put: Callable[[], Awaitable[None]] | None = None
        self.on_get: Callable[[], Awaitable[None]] | None = None

    async def get(self, key: str) -> Any:
        if self.on_get is not None:
            await self.on_get()
        return await self._real.get(key)

    async def put(self, key: str, value: Any, **rest: Any) -> Any:
        if self.before_put is not None:
            await self.before_put()
        entry = await self._real.put(key, value, **rest)
        if self.after_put is not None:
            await self.after_put()
        return entry


async def fail() -> None:
    raise StateUnavailable("the disk is full")


async def moody(place: Place, act: Callable[[AuditLog, Moody], Awaitable[None]]) -> None:
    async with place.stored() as manager:
        state: Any = Moody(manager.scope("audit"))
        log = AuditLog(place.audit, state, mask=lambda value: value)
        await log.open()
        await write(log, 2)
        await act(log, state)
        await log.close()
    verdict = place.verdict()
    assert verdict.ok, verdict.breaks


async def refused(log: AuditLog) -> None:
    with pytest.raises(AuditUnavailable):
        await write(log, 1)


async def test_a_head_that_was_not_written_takes_its_group_back(place: Place) -> None:
    async def act(log: AuditLog, state: Moody) -> None:
        state.before_put = fail
        await refused(log)
        await refused(log)
        state.before_put = None
        assert log.head_seq == 2
        record = await log.record("component.stop", actor=OPERATOR, payload={})
        assert record.seq == 3

    await moody(place, act)


async def test_a_head_that_was_written_though_the_store_said_no_stands(place: Place) -> None:
    async def act(log: AuditLog, state: Moody) -> None:
        state.after_put = fail
        await refused(log)
        state.after_put = None
        record = await log.record("component.stop", actor=OPERATOR, payload={})
        assert record.seq == 4

    await moody(place, act)


async def test_while_nobody_can_tell_what_became_of_a_group_nothing_is_written(place: Place) -> None:
    async def act(log: AuditLog, state: Moody) -> None:
        state.after_put = state.on_get = fail
        await refused(log)
        size = place.segments()[0].stat().st_size
        await refused(log)
        assert place.segments()[0].stat().st_size == size
        state.after_put = state.on_get = None
        await write(log, 1)

    await moody(place, act)


async def test_a_head_that_somebody_else_changed_stops_the_log(place: Place) -> None:
    async with place.stored() as manager:
        state: Any = Moody(manager.scope("audit"))
        log = AuditLog(place.audit, state, mask=lambda value: value)
        await log.open()
        await write(log, 2)
        state.before_put = fail
        await refused(log)
        state.before_put = None
        await manager.scope("audit").put("head", {"seq": 1, "hash": "a" * 64})
        with pytest.raises(AuditUnavailable, match="changed by somebody else"):
            await write(log, 1)
        await log.close()


async def test_a_defect_in_the_store_leaves_nobody_waiting(place: Place) -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    async with place.stored() as manager:
        state: Any = Moody(manager.scope("audit"))
        log = AuditLog(place.audit, state, mask=lambda value: value)
        await log.open()
        state.before_put = broken
        await refused(log)
        state.before_put = None
        await write(log, 1)
        await log.close()
    assert place.verdict().ok
