"""An extension that has as much refused as it can does not fill the audit log: records are few, none is uncounted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from msgspec import Struct
from tests.integration.extensions.mediation import Mediation, grant, installed, lines, mediation

from magmobo.contracts.errors import MagError
from magmobo.extensions.gate.dispatch import ApiDispatcher
from magmobo.extensions.gate.gatekeeper import Gatekeeper
from magmobo.extensions.gate.hours import DAY_S
from magmobo.extensions.gate.pace import MOST_PER_MINUTE
from magmobo.extensions.installed import ApiMethod, Caller
from magmobo.testing.clock import FakeClock
from magx import wire

METHODS, FLOOD_S = 20, 2.5


class Args(Struct, frozen=True, forbid_unknown_fields=True):
    number: int


async def never(caller: Caller, args: Args) -> None:
    raise AssertionError("nothing of this may be done")


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Mediation]:
    async with mediation(tmp_path) as plane:
        yield plane


def size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "audit").glob("*.jsonl"))


async def test_a_flood_of_refusals_leaves_a_handful_of_records(plane: Mediation, tmp_path: Path) -> None:
    """Everything at once that is refused: no grant, a rate, wrong arguments, names that there are not."""
    methods = [ApiMethod(f"m.{number}", "database.write", Args, never) for number in range(METHODS)]
    methods += [ApiMethod("rated", "api.emit_events", Args, never), ApiMethod("free", "", Args, never)]
    flooder = installed(tmp_path, "flooder", "", grants=())
    flooder.grants = {"api.emit_events": grant("api.emit_events", rate_per_minute=1)}
    dispatcher = ApiDispatcher(methods, plane.gatekeeper, structlog.stdlib.get_logger())
    caller, wrong, refused = Caller(flooder, (), float("inf")), wire.raw({"number": "x"}), Counter[str]()
    loop, before = asyncio.get_running_loop(), size_bytes(tmp_path)
    ends_s = loop.time() + FLOOD_S
    while loop.time() < ends_s:
        for name in [*(method.name for method in methods), f"none.{refused.total()}"]:
            with pytest.raises(MagError) as caught:
                dispatcher.admit(caller, name, wrong)
            refused[caught.value.code] += 1
        await asyncio.sleep(0)
    denied = await plane.records("extension.denied")
    assert sum(record["count"] for record in denied) == refused.total() - refused["MAG-EXT-146"]
    assert max(Counter((record["method"], record["reason"]) for record in denied).values()) <= MOST_PER_MINUTE
    calls = await plane.records("extension.calls")
    assert len(calls) <= MOST_PER_MINUTE
    assert sum(line["count"] for line in lines(calls)) == refused.total() - refused["MAG-EXT-145"]
    kinds = METHODS + 3
    assert size_bytes(tmp_path) - before < (kinds + 6) * MOST_PER_MINUTE * 1000, "most of a minute, whatever it does"
    assert {line["result"] for line in lines(calls)} == {"refused"}


async def test_a_flood_that_goes_on_for_an_hour_has_a_record_a_minute(plane: Mediation, tmp_path: Path) -> None:
    clock = FakeClock(time_s=20_000.0 * DAY_S)
    gatekeeper = plane.gatekeeper = Gatekeeper(clock, plane.audit, plane.bus, plane.metrics.scoped("hour"))
    flooder = installed(tmp_path, "flooder", "", grants=())
    for _ in range(3600):
        for _ in range(20):
            gatekeeper.denied(flooder, "database.write", "db.execute", "not_granted")
        clock._monotonic_s += 1.0
    records = await plane.records("extension.denied")
    assert sum(record["count"] for record in records) == 72_000
    assert len(records) <= 60 + MOST_PER_MINUTE


async def test_what_is_refused_is_on_record_soon_without_anybody_asking(plane: Mediation, tmp_path: Path) -> None:
    gatekeeper, extension = plane.gatekeeper, installed(tmp_path, "one", "", grants=())
    gatekeeper.refused(extension, "db.execute")
    async with asyncio.timeout(30):
        while not await plane.audit.read(after_seq=0, limit=1):
            await asyncio.sleep(0.01)
        gatekeeper.denied(extension, "database.write", "db.execute", "table")
        gatekeeper.denied(extension, "database.write", "db.execute", "table")
        while len(await plane.audit.read(after_seq=0, limit=10)) < 3:
            await asyncio.sleep(0.01)
    found = await plane.audit.read(after_seq=0, limit=10)
    assert [record.action for record in found] == ["extension.calls", "extension.denied", "extension.denied"]


async def test_one_that_is_forgotten_is_still_on_record(plane: Mediation, tmp_path: Path) -> None:
    extension = installed(tmp_path, "one", "", grants=())
    plane.gatekeeper.refused(extension, "db.execute")
    plane.gatekeeper.forget("one")
    plane.gatekeeper.refused(extension, "db.execute")
    records = await plane.records("extension.calls")
    assert [line["count"] for line in lines(records)] == [1, 1]
