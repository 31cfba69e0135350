"""What the gate lets through, what it puts on record, what it counts. The audit log is a real one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from msgspec import Struct
from tests.integration.extensions.mediation import Mediation, grant, installed, lines, mediation

from magmobo.contracts.audit import Severity
from magmobo.contracts.capabilities import Actor
from magmobo.contracts.errors import AuditUnavailable
from magmobo.extensions.gate.dispatch import ApiDispatcher
from magmobo.extensions.gate.errors import (
    ArgumentsRefused,
    BudgetSpent,
    NotGranted,
    OutsideHours,
    RateLimited,
    UnknownMethod,
)
from magmobo.extensions.gate.gatekeeper import FREE_RATE_PER_MINUTE, Gatekeeper
from magmobo.extensions.gate.hours import DAY_S
from magmobo.extensions.gate.outbox import MAX_WAITING
from magmobo.extensions.installed import ApiMethod, Caller, Installed
from magmobo.testing.clock import FakeClock
from magx import wire


class Args(Struct, frozen=True, forbid_unknown_fields=True):
    number: int


done: list[int] = []


async def handle(caller: Caller, args: Args) -> int:
    done.append(args.number)
    return args.number + 1


WRITE = ApiMethod("db.execute", "database.write", Args, handle)
FREE = ApiMethod("config.get", "", Args, handle)
ADMIN = ApiMethod("db.admin", "database.admin", Args, handle)


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    done.clear()


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Mediation]:
    async with mediation(tmp_path) as plane:
        yield plane


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(time_s=20_000.0 * DAY_S)


@pytest.fixture
def gatekeeper(plane: Mediation, clock: FakeClock) -> Gatekeeper:
    """The plane's, with a clock of the test."""
    plane.gatekeeper = Gatekeeper(clock, plane.audit, plane.bus, plane.metrics.scoped("extensions"))
    return plane.gatekeeper


@pytest.fixture
def extension(tmp_path: Path) -> Installed:
    return installed(tmp_path, "one", "", grants=())


def caller(extension: Installed) -> Caller:
    return Caller(extension, ("one/api.before_request",), float("inf"))


async def test_nothing_is_granted_by_default(gatekeeper: Gatekeeper, extension: Installed) -> None:
    with pytest.raises(NotGranted) as caught:
        gatekeeper.allow(caller(extension), WRITE)
    assert caught.value.code == "MAG-EXT-141"
    gatekeeper.allow(caller(extension), FREE)


async def test_grant_and_revocation_count_from_the_next_call(gatekeeper: Gatekeeper, extension: Installed) -> None:
    extension.grants = {"database.write": grant("database.write")}
    gatekeeper.allow(caller(extension), WRITE)
    assert gatekeeper.holds(extension, "database.write")
    extension.grants = {}
    with pytest.raises(NotGranted):
        gatekeeper.allow(caller(extension), WRITE)
    assert not gatekeeper.holds(extension, "database.write")


async def test_a_grant_ends(gatekeeper: Gatekeeper, clock: FakeClock, extension: Installed) -> None:
    extension.grants = {"database.write": grant("database.write", expires_at_s=clock.time_s() + 10)}
    gatekeeper.allow(caller(extension), WRITE)
    assert gatekeeper.holds(extension, "database.write")
    await clock.advance(10)
    with pytest.raises(NotGranted):
        gatekeeper.allow(caller(extension), WRITE)
    assert not gatekeeper.holds(extension, "database.write")


async def test_a_grant_has_hours(gatekeeper: Gatekeeper, clock: FakeClock, extension: Installed) -> None:
    extension.grants = {"database.write": grant("database.write", hours="01:00-02:00")}
    with pytest.raises(OutsideHours):
        gatekeeper.allow(caller(extension), WRITE)
    assert not gatekeeper.holds(extension, "database.write")
    await clock.advance(3600)
    gatekeeper.allow(caller(extension), WRITE)
    assert gatekeeper.holds(extension, "database.write")


async def test_a_grant_has_a_rate(gatekeeper: Gatekeeper, clock: FakeClock, extension: Installed) -> None:
    extension.grants = {"database.write": grant("database.write", rate_per_minute=6)}
    for _ in range(6):
        gatekeeper.allow(caller(extension), WRITE)
    with pytest.raises(RateLimited) as caught:
        gatekeeper.allow(caller(extension), WRITE)
    assert caught.value.retry_s == pytest.approx(10)
    await clock.advance(10)
    gatekeeper.allow(caller(extension), WRITE)
    assert gatekeeper.used("one") == {"database.write": 7}


async def test_methods_without_a_capability_have_a_rate_each(gatekeeper: Gatekeeper, extension: Installed) -> None:
    for _ in range(FREE_RATE_PER_MINUTE):
        gatekeeper.allow(caller(extension), FREE)
    with pytest.raises(RateLimited):
        gatekeeper.allow(caller(extension), FREE)
    gatekeeper.allow(caller(extension), ApiMethod("kv.get", "", Args, handle))


async def test_a_grant_has_a_budget_of_the_day(gatekeeper: Gatekeeper, clock: FakeClock, extension: Installed) -> None:
    extension.grants = {"database.write": grant("database.write", budget_per_day=3)}
    for _ in range(3):
        gatekeeper.allow(caller(extension), WRITE)
    await clock.advance(DAY_S - 1.5)
    with pytest.raises(BudgetSpent) as caught:
        gatekeeper.allow(caller(extension), WRITE)
    assert (caught.value.retry_s, caught.value.retryable) == (1.5, True)
    await clock.advance(caught.value.retry_s)
    gatekeeper.allow(caller(extension), WRITE)


async def test_extensions_have_rates_of_their_own(gatekeeper: Gatekeeper, tmp_path: Path, extension: Installed) -> None:
    other = installed(tmp_path, "two", "")
    for one in (extension, other):
        one.grants = {"database.write": grant("database.write", rate_per_minute=1)}
        gatekeeper.allow(caller(one), WRITE)
    with pytest.raises(RateLimited):
        gatekeeper.allow(caller(other), WRITE)


# ---------------------------------------------------------------- records


async def test_denials_are_told_at_once_and_then_counted(
    plane: Mediation, gatekeeper: Gatekeeper, clock: FakeClock, extension: Installed
) -> None:
    for _ in range(50):
        with pytest.raises(NotGranted):
            gatekeeper.allow(caller(extension), WRITE)
    assert [(event.actor, event.capability, event.context) for event in plane.denied] == [
        ("extension:one", "database.write", "db.execute")
    ]
    await clock.advance(1)
    with pytest.raises(NotGranted):
        gatekeeper.allow(caller(extension), WRITE)
    records = await plane.records("extension.denied")
    assert [record["count"] for record in records] == [1, 50]
    assert {(record["actor"], record["reason"]) for record in records} == {("extension:one", "not_granted")}
    (family,) = [family for family in plane.metrics.families() if family.name == "mag_extension_denied_total"]
    assert [(one.labels, one.value) for one in family.samples] == [({"extension": "one"}, 51)]


async def test_what_was_only_counted_is_on_record_soon_and_at_the_end(
    plane: Mediation, gatekeeper: Gatekeeper, extension: Installed
) -> None:
    for _ in range(3):
        with pytest.raises(NotGranted):
            gatekeeper.allow(caller(extension), WRITE)
    assert sum(record["count"] for record in await plane.records("extension.denied")) == 3


async def test_each_reason_is_a_kind_of_its_own(plane: Mediation, gatekeeper: Gatekeeper, extension: Installed) -> None:
    with pytest.raises(NotGranted):
        gatekeeper.allow(caller(extension), WRITE)
    extension.grants = {"database.write": grant("database.write", rate_per_minute=1)}
    gatekeeper.allow(caller(extension), WRITE)
    with pytest.raises(RateLimited):
        gatekeeper.allow(caller(extension), WRITE)
    gatekeeper.denied(extension, "database.write", "db.execute", "table")
    records = await plane.records("extension.denied")
    assert [record["reason"] for record in records] == ["not_granted", "rate", "table"]


class Refusing:
    """An audit log that cannot be written."""

    def __init__(self, plane: Mediation) -> None:
        self._audit, self.works = plane.audit, False

    async def record(
        self, action: str, *, actor: Actor, payload: Mapping[str, Any], severity: Severity | None = None
    ) -> Any:
        if not self.works:
            raise AuditUnavailable("the disk is full")
        return await self._audit.record(action, actor=actor, payload=payload)


def dispatcher(gatekeeper: Gatekeeper) -> ApiDispatcher:
    return ApiDispatcher([WRITE, FREE, ADMIN], gatekeeper, structlog.stdlib.get_logger())


def endless(extension: Installed) -> Caller:
    return Caller(extension, ("one/api.before_request",), 1e12)


async def test_a_privileged_call_is_on_record_before_it_happens(
    plane: Mediation, gatekeeper: Gatekeeper, extension: Installed
) -> None:
    extension.grants = {"database.admin": grant("database.admin")}
    await dispatcher(gatekeeper).call(endless(extension), "db.admin", wire.raw({"number": 1}))
    (record,) = await plane.records("extension.call")
    assert record == {
        "actor": "extension:one",
        "capability": "database.admin",
        "method": "db.admin",
        "path": ["one/api.before_request"],
    }


async def test_a_privileged_call_that_cannot_be_recorded_does_not_happen(
    plane: Mediation, clock: FakeClock, extension: Installed
) -> None:
    extension.grants = {"database.admin": grant("database.admin"), "database.write": grant("database.write")}
    audit: Any = Refusing(plane)
    gatekeeper = Gatekeeper(clock, audit, plane.bus, plane.metrics.scoped("x"))
    with pytest.raises(AuditUnavailable):
        await dispatcher(gatekeeper).call(endless(extension), "db.admin", wire.raw({"number": 1}))
    assert not done
    await dispatcher(gatekeeper).call(endless(extension), "db.execute", wire.raw({"number": 2}))
    assert done == [2]
    await gatekeeper.close()


async def test_records_that_were_lost_are_counted_by_the_next(
    plane: Mediation, clock: FakeClock, extension: Installed
) -> None:
    audit: Any = Refusing(plane)
    gatekeeper = Gatekeeper(clock, audit, plane.bus, plane.metrics.scoped("x"))
    for reason in ("a", "b", "c"):
        gatekeeper.denied(extension, "database.write", "db.execute", reason)
    await gatekeeper.close()
    audit.works = True
    gatekeeper.denied(extension, "database.write", "db.execute", "d")
    await gatekeeper.close()
    records = await plane.records("extension.denied")
    assert [(record["reason"], record.get("missing")) for record in records] == [("d", 3)]


async def test_records_that_wait_are_bounded(plane: Mediation, gatekeeper: Gatekeeper, extension: Installed) -> None:
    for number in range(MAX_WAITING + 10):
        gatekeeper.denied(extension, "database.write", "db.execute", str(number))
    records = await plane.records("extension.denied")
    assert len(records) == MAX_WAITING
    assert sum(record.get("missing", 0) for record in records) == 10


async def test_a_batch_is_cut_into_records_that_fit(plane: Mediation, gatekeeper: Gatekeeper) -> None:
    for number in range(150):
        gatekeeper.tally("one", "endpoint", f"GET /{'x' * 90}{number}").note("ok", 0.001)
    records = await plane.records("extension.calls")
    assert len(records) == 3
    assert len(lines(records)) == 150
    assert all("excerpt" not in record for record in records)


# ---------------------------------------------------------------- the dispatcher


async def test_a_call_is_checked_made_and_answered(gatekeeper: Gatekeeper, extension: Installed) -> None:
    extension.grants = {"database.write": grant("database.write")}
    answer = await dispatcher(gatekeeper).call(endless(extension), "db.execute", wire.raw({"number": 1}))
    assert wire.value(answer) == 2
    assert done == [1]


@pytest.mark.parametrize("args", [{}, {"number": "1"}, {"number": 1, "more": 2}, [1], None, {"number": 2**70}])
async def test_arguments_are_what_the_method_takes(gatekeeper: Gatekeeper, extension: Installed, args: Any) -> None:
    packed = msgspec.Raw(b"\xc1") if args == {"number": 2**70} else wire.raw(args)
    with pytest.raises(ArgumentsRefused):
        await dispatcher(gatekeeper).call(endless(extension), "config.get", packed)
    assert not done


async def test_a_method_that_is_not_there_is_denied_under_one_name(
    plane: Mediation, gatekeeper: Gatekeeper, extension: Installed
) -> None:
    for number in range(20):
        with pytest.raises(UnknownMethod):
            await dispatcher(gatekeeper).call(endless(extension), f"no.{number}", wire.raw({"number": 1}))
    records = await plane.records("extension.denied")
    assert sum(record["count"] for record in records) == 20
    assert {(record["method"], record["reason"]) for record in records} == {("unknown", "unknown_method")}


async def test_one_name_is_one_method(gatekeeper: Gatekeeper) -> None:
    with pytest.raises(ValueError, match="one name"):
        ApiDispatcher([FREE, FREE], gatekeeper, structlog.stdlib.get_logger())


async def test_what_is_forgotten_begins_anew(plane: Mediation, gatekeeper: Gatekeeper, extension: Installed) -> None:
    extension.grants = {"database.write": grant("database.write", rate_per_minute=1)}
    gatekeeper.allow(caller(extension), WRITE)
    gatekeeper.forget("one")
    assert gatekeeper.used("one") == {}
    gatekeeper.allow(caller(extension), WRITE)
