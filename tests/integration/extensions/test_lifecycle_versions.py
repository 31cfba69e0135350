"""Upgrades beside the running version, ways back, and what is watched afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.integration.extensions.lifecycle_parts import (
    ADMIN,
    EMIT,
    READ,
    SCHEMA,
    TABLES,
    UP1,
    UP2,
    Node,
    Trouble,
    World,
    execute,
    node_at,
    package,
    rows,
    traces,
    until,
)

from magmobo.contracts.extensions import BindingInfo, GrantCapability, UpgradeInfo, Widening
from magmobo.extensions.lifecycle.errors import NoWayBack, TierTooLow, UpgradeFailed
from magmobo.extensions.package.errors import UpgradeRefused
from magmobo.testing.clock import FakeClock

CAPABILITIES = [SCHEMA, READ]
HOOK = {"name": "api.intercept_request", "reason": "sees requests"}
WRITE = {"name": "database.write", "reason": "sets prices", "tables": ["public.prices"]}
COLUMNS_1 = [("ext_demo", "seen", "id")]
COLUMNS_2 = [("ext_demo", "seen", "id"), ("ext_demo", "seen", "note")]


@pytest.fixture
def database(dsn: str) -> str:
    execute(dsn, TABLES)
    return dsn


@pytest.fixture
def first(tmp_path: Path) -> bytes:
    return package(tmp_path / "a", files=UP1, capabilities=CAPABILITIES)


@pytest.fixture
def second(tmp_path: Path) -> bytes:
    return package(tmp_path / "a", "1.1.0", files=UP2, capabilities=CAPABILITIES)


async def test_an_upgrade_puts_the_new_version_beside_and_in_the_place_of_the_old(
    database: str, tmp_path: Path, first: bytes, second: bytes
) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(first)
        old = node.worker()

        def beside(step: str, about: Any) -> None:
            if step in ("worker", "endpoints"):
                assert old.state == "ready", "the old one serves until the new one is in place"
                assert node.router.hooks["demo"] is old
            elif step == "drain":
                assert node.worker().installed.version == "1.1.0"

        node.world.on_step = beside
        detail = await node.lifecycle.upgrade(second, ADMIN)
        node.world.on_step = None
        assert (detail.info.version, detail.info.state) == ("1.1.0", "enabled")
        assert (node.worker().installed.version, old.state) == ("1.1.0", "drained")
        assert list(detail.versions) == ["1.0.0", "1.1.0"]
        found = traces(database, tmp_path)
        assert (found["columns"], found["rights"]) == (COLUMNS_2, [("orders", "SELECT")])
        assert len(found["files"]) == 2, "the version before is kept"
        assert node.topics()[-1] == "extension.upgraded"


async def test_a_rollback_undoes_migrations(database: str, tmp_path: Path, first: bytes, second: bytes) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(first)
        with pytest.raises(NoWayBack):
            await node.lifecycle.rollback("demo", ADMIN)
        await node.lifecycle.upgrade(second, ADMIN)
        new = node.worker()
        await node.lifecycle.rollback("demo", ADMIN, dry_run=True)
        assert node.worker() is new
        detail = await node.lifecycle.rollback("demo", ADMIN)
        assert (detail.info.version, detail.info.state, list(detail.versions)) == ("1.0.0", "enabled", ["1.0.0"])
        assert (node.worker().installed.version, new.state) == ("1.0.0", "drained")
        found = traces(database, tmp_path)
        assert (found["columns"], len(found["files"])) == (COLUMNS_1, 1)
        with pytest.raises(NoWayBack):
            await node.lifecycle.rollback("demo", ADMIN)
        await node.lifecycle.upgrade(second, ADMIN)
        assert traces(database, tmp_path)["columns"] == COLUMNS_2


async def test_what_cannot_be_undone_is_no_way_back(database: str, tmp_path: Path, first: bytes) -> None:
    one_way = {name: text for name, text in UP2.items() if name != "migrations/0002_note.down.sql"}
    second = package(tmp_path / "a", "1.1.0", files=one_way, capabilities=CAPABILITIES)
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(first)
        await node.lifecycle.upgrade(second, ADMIN)
        with pytest.raises(NoWayBack, match="0002"):
            await node.lifecycle.rollback("demo", ADMIN)
        assert node.worker().installed.version == "1.1.0"
        await say_unwell(node)
        await until(lambda: node.worker().installed.version == "1.0.0")
        await until(lambda: not node.lifecycle._watching._acting)
        assert traces(database, tmp_path)["columns"] == COLUMNS_2, "worse than storage with a column more is to be down"


@pytest.mark.parametrize("step", ["worker", "endpoints", "health", "migration", "rights"])
async def test_an_upgrade_that_fails_leaves_everything_as_it_was(
    database: str, tmp_path: Path, first: bytes, step: str
) -> None:
    files = dict(UP2)
    if step == "migration":
        files["migrations/0003_bad.up.sql"] = "select nothing from nowhere"
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(first)
        before, old = traces(database, tmp_path), node.worker()
        if step == "health":
            node.world.health["1.1.0"] = {"status": "unhealthy", "detail": "no"}
        if step == "rights":
            execute(database, "alter table public.orders rename to elsewhere")

        def fail(at: str, about: Any) -> None:
            if at == step and about.version == "1.1.0":
                raise Trouble

        node.world.on_step = fail
        second = package(tmp_path / "a", "1.1.0", files=files, capabilities=CAPABILITIES)
        with pytest.raises(UpgradeFailed):
            await node.lifecycle.upgrade(second, ADMIN)
        if step == "rights":
            execute(database, "alter table public.elsewhere rename to orders")
        assert node.worker() is old
        assert node.world.workers[-1] is old or node.world.workers[-1].state == "killed"
        after = traces(database, tmp_path)
        assert after == (before if step != "rights" else before | {"rights": []}), "of a table that went, and came back"
        info = (await node.lifecycle.show("demo")).info
        assert (info.state, info.version, "1.1.0" in info.detail) == ("enabled", "1.0.0", True)


async def test_more_capabilities_wait_for_approval_while_the_old_version_goes_on(
    database: str, tmp_path: Path, first: bytes
) -> None:
    wider = READ | {"tables": ["public.orders", "public.prices"]}
    second = package(tmp_path / "a", "1.1.0", files=UP2, capabilities=[SCHEMA, wider, EMIT])
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(first)
        old = node.worker()
        detail = await node.lifecycle.upgrade(second, ADMIN)
        assert (detail.info.version, detail.info.pending_version) == ("1.0.0", "1.1.0")
        assert [(one.capability, one.state) for one in detail.grants if one.new] == [
            ("database.read", "pending"), ("api.emit_events", "granted"),
        ]  # fmt: skip
        assert node.worker() is old
        found = traces(database, tmp_path)
        assert (found["columns"], found["rights"]) == (COLUMNS_1, [("orders", "SELECT")])
        assert "api.emit_events" not in old.installed.grants
        node.world.tier = "S1"
        with pytest.raises(TierTooLow):
            await node.lifecycle.approve("demo", (), "", ADMIN)
        assert (await node.lifecycle.show("demo")).info.pending_version == "1.1.0"
        node.world.tier = "S3"
        detail = await node.lifecycle.approve("demo", (), "", ADMIN)
        assert (detail.info.version, detail.info.pending_version) == ("1.1.0", "")
        assert node.worker().installed.version == "1.1.0"
        found = traces(database, tmp_path)
        assert (found["columns"], found["rights"]) == (COLUMNS_2, [("orders", "SELECT"), ("prices", "SELECT")])
        await node.lifecycle.rollback("demo", ADMIN)
        assert traces(database, tmp_path)["rights"] == [("orders", "SELECT")]


async def test_what_an_upgrade_changes_is_shown_before_it_is_approved(database: str, tmp_path: Path) -> None:
    after_insert = {"name": "seen", "topic": "database.change", "tables": ["public.orders"]}
    before_request = {"point": "api.before_request", "priority": 10}
    tell = {"name": "tell", "summary": "Tells."}
    first = package(tmp_path / "a", capabilities=[READ, HOOK, EMIT], hooks=[before_request], commands=[tell])
    wider, write = READ | {"tables": ["public.orders", "public.prices"]}, WRITE
    second = package(
        tmp_path / "a", "1.1.0", capabilities=[wider, write, HOOK], events=[after_insert],
        hooks=[before_request | {"priority": 20}], commands=[tell],
    )  # fmt: skip
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(first)
        assert (await node.lifecycle.show("demo")).upgrade is None
        planned = await node.lifecycle.upgrade(second, ADMIN, dry_run=True)
        await node.lifecycle.upgrade(second, ADMIN)
        shown = await node.lifecycle.show("demo")
        seen = UpgradeInfo(
            version="1.1.0",
            risk="high",
            added=["database.write"],
            widened=[Widening("database.read", "tables", "public.prices")],
            removed=["api.emit_events"],
            bindings_added=[
                BindingInfo("hook", "api.before_request", "priority 20"),
                BindingInfo("event", "seen", "database.change public.orders"),
            ],
            bindings_removed=[BindingInfo("hook", "api.before_request", "priority 10")],
            reads=["public.orders", "public.prices"],
            writes=["public.prices"],
        )
        assert (planned.upgrade, shown.upgrade) == (seen, seen)
        assert (shown.reads, shown.writes) == (["public.orders"], []), "what runs is as it was"
        approved = await node.lifecycle.approve("demo", (), "", ADMIN, dry_run=True)
        assert approved.upgrade == seen
        assert (await node.lifecycle.approve("demo", (), "", ADMIN)).upgrade is None


async def test_an_upgrade_that_asks_for_nothing_more_shows_what_it_takes_part_in(database: str, tmp_path: Path) -> None:
    first = package(tmp_path / "a", capabilities=[HOOK])
    second = package(tmp_path / "a", "1.1.0", capabilities=[HOOK], hooks=[{"point": "api.before_request"}])
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(first)
        planned = await node.lifecycle.upgrade(second, ADMIN, dry_run=True)
        assert planned.upgrade is not None
        assert (planned.upgrade.risk, [one.name for one in planned.upgrade.bindings_added]) == (
            "",
            ["api.before_request"],
        )


async def test_what_operators_decided_stays_decided(database: str, tmp_path: Path) -> None:
    two = READ | {"tables": ["public.orders", "public.prices"]}
    optional = EMIT | {"optional": True, "fallback": "tells nobody"}
    first = package(tmp_path / "a", capabilities=[two, optional])
    second = package(tmp_path / "a", "1.1.0", capabilities=[two, optional])
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(first)
        only_prices = {"tables": ["public.prices"]}
        await node.lifecycle.grant(
            GrantCapability(id="demo", wanted="database.read", scope=only_prices, rate_per_minute=9), ADMIN
        )
        await node.lifecycle.revoke("demo", "api.emit_events", ADMIN)
        await node.lifecycle.upgrade(second, ADMIN)
        grants = node.worker().installed.grants
        assert set(grants) == {"database.read"}
        assert (list(grants["database.read"].scope["tables"]), grants["database.read"].rate_per_minute) == (
            ["public.prices"], 9,
        )  # fmt: skip
        assert traces(database, tmp_path)["rights"] == [("prices", "SELECT")]


async def test_another_signer_and_older_versions_are_refused(database: str, tmp_path: Path, second: bytes) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(second)
        for bad in (package(tmp_path / "b", "1.0.0"), package(tmp_path / "b", "1.1.0", description="other")):
            with pytest.raises(UpgradeRefused):
                await node.lifecycle.upgrade(bad, ADMIN)
        assert node.worker().installed.version == "1.1.0"


async def test_one_that_does_not_run_changes_its_version_and_migrates_when_it_is_enabled(
    database: str, tmp_path: Path, first: bytes, second: bytes
) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(first)
        await node.lifecycle.disable("demo", ADMIN)
        detail = await node.lifecycle.upgrade(second, ADMIN)
        assert (detail.info.state, detail.info.version) == ("disabled", "1.1.0")
        assert (node.in_place(), traces(database, tmp_path)["columns"]) == (None, COLUMNS_1)
        await node.lifecycle.enable("demo", ADMIN)
        assert traces(database, tmp_path)["columns"] == COLUMNS_2
        await node.lifecycle.disable("demo", ADMIN)
        await node.lifecycle.rollback("demo", ADMIN)
        assert traces(database, tmp_path)["columns"] == COLUMNS_1


async def test_storage_that_a_failed_upgrade_brought_goes_again(database: str, tmp_path: Path) -> None:
    world = World(broken={"1.1.0"})
    async with node_at(database, tmp_path, world=world) as node:
        await (await node.trusted()).enabled(package(tmp_path / "a"))
        second = package(tmp_path / "a", "1.1.0", files=UP1, capabilities=[SCHEMA])
        detail = await node.lifecycle.upgrade(second, ADMIN)
        assert detail.upgrade is not None
        assert detail.upgrade.writes == ["its own tables"], "which have no name yet"
        assert traces(database, tmp_path)["roles"] == []
        with pytest.raises(UpgradeFailed):
            await node.lifecycle.approve("demo", (), "", ADMIN)
        found = traces(database, tmp_path)
        assert (found["roles"], found["schemas"], len(found["files"])) == ([], [], 2)
        info = (await node.lifecycle.show("demo")).info
        assert (info.version, info.pending_version, info.state) == ("1.0.0", "1.1.0", "enabled"), (
            "it can be tried again"
        )
        world.broken.clear()
        await node.lifecycle.approve("demo", (), "", ADMIN)
        assert traces(database, tmp_path)["columns"] == COLUMNS_1


# ---------------------------------------------------------------- watched


async def say_unwell(node: Node) -> None:
    """Let the worker in place be unwell, and its time to be asked come."""
    node.worker().health = {"status": "unhealthy", "detail": "lost its way"}
    node.lifecycle._watching._next_s.clear()
    node.lifecycle._watching.look()


async def test_an_upgraded_version_that_is_unwell_goes_back_by_itself(
    database: str, tmp_path: Path, first: bytes, second: bytes
) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(first)
        await node.lifecycle.upgrade(second, ADMIN)
        await say_unwell(node)
        await until(lambda: node.worker().installed.version == "1.0.0")
        await until(lambda: not node.lifecycle._watching._acting)
        assert node.topics()[-1] == "extension.upgraded"
        assert traces(database, tmp_path)["columns"] == COLUMNS_1
        info = (await node.lifecycle.show("demo")).info
        assert (info.state, info.version, "lost its way" in info.detail) == ("enabled", "1.0.0", True)
        assert [record["what"] for record in await node.records("extension.lifecycle")] == ["rolled_back"]


async def test_an_upgraded_version_that_crashes_twice_goes_back(
    database: str, tmp_path: Path, first: bytes, second: bytes
) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(first)
        await node.lifecycle.upgrade(second, ADMIN)
        new = node.worker()
        new.on_crash(new.installed, "signal 11")
        assert node.worker() is new
        new.on_crash(new.installed, "signal 11")
        await until(lambda: node.worker().installed.version == "1.0.0")
        await until(lambda: not node.lifecycle._watching._acting)


async def test_an_upgraded_version_that_does_not_start_again_goes_back(
    database: str, tmp_path: Path, first: bytes, second: bytes
) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(first)
        await node.lifecycle.upgrade(second, ADMIN)
    async with node_at(database, tmp_path, world=World(broken={"1.1.0"})) as node:
        assert node.in_place() is None
        await until(lambda: node.in_place() is not None)
        await until(lambda: not node.lifecycle._watching._acting)
        assert node.worker().installed.version == "1.0.0"
        assert traces(database, tmp_path)["columns"] == COLUMNS_1


async def test_behind_the_watch_it_takes_three_bad_answers_and_stops_it(
    database: str, tmp_path: Path, first: bytes, second: bytes
) -> None:
    async with node_at(database, tmp_path, upgrade_watch_s=0) as node:
        await (await node.trusted()).enabled(first)
        await node.lifecycle.upgrade(second, ADMIN)
        for strike in range(3):
            assert node.in_place() is not None
            await say_unwell(node)
            await until(lambda: not node.lifecycle._watching._asking)
            assert strike == 2 or node.worker().installed.version == "1.1.0"
        await until(lambda: node.in_place() is None)
        await until(lambda: not node.lifecycle._watching._acting)
        info = (await node.lifecycle.show("demo")).info
        assert (info.state, "3 times in a row: lost its way" in info.detail) == ("disabled", True)
        assert "demo" in node.router.guarded, "its hooks that fail closed deny until an operator decides"
        assert "extension.health_status.changed" in node.topics()
        await node.lifecycle.disable("demo", ADMIN)
        assert "demo" not in node.router.guarded
        assert rows(database, "select guarded from mag.extension") == [(False,)]


async def test_health_is_asked_in_the_manifests_time(database: str, tmp_path: Path) -> None:
    clock = FakeClock()
    async with node_at(database, tmp_path, clock=clock) as node:
        await (await node.trusted()).enabled(package(tmp_path / "a", health_every_s=30))
        worker = node.worker()
        worker.health = {"status": "degraded", "detail": "slow"}
        await clock.advance(1)
        await until(lambda: "extension.health_status.changed" in node.topics())
        worker.health = {"status": "healthy"}
        await clock.advance(28)
        assert (await node.lifecycle.show("demo")).info.health == "degraded"
        await clock.advance(3)
        assert (await node.lifecycle.show("demo")).info.health == "healthy"
        worker.is_idle, worker.health = True, Trouble()
        await clock.advance(120)
        assert (await node.lifecycle.show("demo")).info.health == "healthy", "nobody is woken for this"
