"""An extension comes, is approved, runs, is stopped and goes; everything that a change leaves behind is looked at."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.integration.extensions.lifecycle_parts import (
    ADMIN,
    EMIT,
    READ,
    SCHEMA,
    TABLES,
    UP1,
    Trouble,
    World,
    execute,
    node_at,
    package,
    rows,
    traces,
    until,
)
from tests.unit.extensions.package.making import PAIR

from magmobo.contracts.extensions import GrantCapability
from magmobo.extensions.lifecycle.errors import (
    AlreadyInstalled,
    ConfirmationMissing,
    DataOfAnother,
    EnableFailed,
    ExtensionBusyWith,
    ExtensionUnknown,
    GrantRefused,
    KeyUnknown,
    NeededByOthers,
    NotApproved,
    PlaneStopped,
    SignerNotTrusted,
    StillHere,
    TierTooLow,
    TooManyExtensions,
)
from magmobo.extensions.package.errors import RequirementsUnmet, SignerUnknown
from magmobo.extensions.package.keys import generate, public_text


@pytest.fixture
def database(dsn: str) -> str:
    execute(dsn, TABLES)
    return dsn


async def test_a_node_without_extensions_asks_one_question(dsn: str, tmp_path: Path) -> None:
    async with node_at(dsn, tmp_path) as node:
        assert node.database.asked == 1
        assert not node.tasks or all("follow" not in task.get_name() for task in node.tasks)
        assert (await node.lifecycle.list()).extensions == []
        assert not await node.lifecycle.boot()
    assert rows(dsn, "select to_regclass('mag.extension') is null") == [(True,)]


async def test_from_install_to_uninstall(database: str, tmp_path: Path) -> None:
    before = traces(database, tmp_path)
    data = package(tmp_path / "a", files=UP1, capabilities=[SCHEMA, READ, EMIT])
    async with node_at(database, tmp_path) as node:
        await node.trusted()
        detail = await node.lifecycle.install(data, ADMIN)
        assert {grant.capability: grant.state for grant in detail.grants} == {
            "database.schema": "pending", "database.read": "pending", "api.emit_events": "granted",
        }  # fmt: skip
        assert (detail.info.state, detail.info.risk, detail.info.signer) == ("installed", "high", PAIR.key_id)
        with pytest.raises(NotApproved):
            await node.lifecycle.enable("demo", ADMIN)
        assert traces(database, tmp_path)["rights"] == []
        detail = await node.lifecycle.approve("demo", (), "", ADMIN)
        assert detail.reads == ["public.orders", "its own tables (ext_demo)"]
        detail = await node.lifecycle.enable("demo", ADMIN)
        assert (detail.info.state, detail.info.health) == ("enabled", "healthy")
        worker = node.worker()
        assert set(worker.installed.grants) == {"database.schema", "database.read", "api.emit_events"}
        assert worker.uid == 56_000
        found = traces(database, tmp_path)
        assert found["columns"] == [("ext_demo", "seen", "id")]
        assert found["rights"] == [("orders", "SELECT")]
        await node.lifecycle.disable("demo", ADMIN)
        assert node.in_place() is None
        assert worker.state == "drained"
        page = await node.lifecycle.uninstall("demo", True, ADMIN)
        assert page.extensions == []
        assert node.topics() == [
            "extension.installed", "extension.enabled", "extension.disabled", "extension.uninstalled",
        ]  # fmt: skip
        assert node.router.events.forgotten == ["demo"]
        with pytest.raises(ExtensionUnknown):
            await node.lifecycle.show("demo")
    after = traces(database, tmp_path)
    assert {**after, "files": []} == {**before, "files": []}
    assert after["files"] == []
    assert rows(database, "select * from mag.extension_uid") == []


async def test_kept_data_waits_for_the_same_signer(database: str, tmp_path: Path) -> None:
    data = package(tmp_path / "a", files=UP1, capabilities=[SCHEMA])
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(data)
        execute(database, "insert into ext_demo.seen values (7)")
        await node.lifecycle.disable("demo", ADMIN)
        await node.lifecycle.uninstall("demo", False, ADMIN)
        assert (node.router.events.unfollowed, node.router.events.forgotten) == (["demo"], [])
        assert traces(database, tmp_path)["roles"] == []
        execute(database, "update mag.extension_kept set signer = 'somebody'")
        with pytest.raises(DataOfAnother):
            await node.lifecycle.install(data, ADMIN)
        execute(database, f"update mag.extension_kept set signer = '{PAIR.key_id}'")
        await node.enabled(data)
        assert rows(database, "select * from ext_demo.seen") == [(7,)]
        assert node.world.workers[-1].uid == 56_000, "files that stayed are still its own"
        await node.lifecycle.disable("demo", ADMIN)
        await node.lifecycle.uninstall("demo", True, ADMIN)
    assert traces(database, tmp_path)["schemas"] == []


async def test_kept_data_can_be_removed_without_the_package(database: str, tmp_path: Path) -> None:
    data = package(tmp_path / "a", files=UP1, capabilities=[SCHEMA])
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(data)
        folder = node.world.workers[-1].data_dir
        folder.mkdir(parents=True, exist_ok=True)
        await node.lifecycle.disable("demo", ADMIN)
        await node.lifecycle.uninstall("demo", False, ADMIN)
        execute(database, "update mag.extension_kept set signer = 'somebody'")
        with pytest.raises(ExtensionUnknown):
            await node.lifecycle.uninstall("demo", False, ADMIN)
        await node.lifecycle.uninstall("demo", True, ADMIN, dry_run=True)
        assert traces(database, tmp_path)["schemas"] == [("ext_demo",)]
        assert folder.is_dir()
        await node.lifecycle.uninstall("demo", True, ADMIN)
        left = traces(database, tmp_path)
        assert (left["schemas"], left["data"], node.router.events.forgotten) == ([], [], ["demo"])
        assert [rows(database, f"select * from mag.extension_{name}") for name in ("kept", "uid")] == [[], []]
        with pytest.raises(ExtensionUnknown):
            await node.lifecycle.uninstall("demo", True, ADMIN)
        await node.enabled(data)
        assert rows(database, "select * from ext_demo.seen") == []
        with pytest.raises(StillHere):
            await node.lifecycle.uninstall("demo", True, ADMIN)


async def test_what_is_refused_changes_nothing(database: str, tmp_path: Path) -> None:
    data = package(tmp_path / "a", capabilities=[READ])
    async with node_at(database, tmp_path) as node:
        with pytest.raises(SignerUnknown):
            await node.lifecycle.install(data, ADMIN)
        await node.trusted()
        with pytest.raises(RequirementsUnmet):
            await node.lifecycle.install(package(tmp_path / "b", requires={"magmobo": ">=9"}), ADMIN)
        before = traces(database, tmp_path)
        await node.lifecycle.install(data, ADMIN, dry_run=True)
        assert traces(database, tmp_path) == before
        await node.lifecycle.install(data, ADMIN)
        with pytest.raises(AlreadyInstalled):
            await node.lifecycle.install(data, ADMIN)
        with pytest.raises(ExtensionBusyWith):
            await node.lifecycle.disable("demo", ADMIN)
        with pytest.raises(ExtensionUnknown):
            await node.lifecycle.enable("nobody", ADMIN)
        with pytest.raises(GrantRefused):
            await node.lifecycle.approve("demo", ["network.outbound"], "", ADMIN)
        with pytest.raises(GrantRefused):
            await node.lifecycle.grant(
                GrantCapability(id="demo", wanted="database.read", scope={"tables": ["public.prices"]}), ADMIN
            )
        await node.lifecycle.approve("demo", (), "", ADMIN)
        for dry_run in (True, False):
            await node.lifecycle.enable("demo", ADMIN, dry_run=dry_run)
            assert (node.in_place() is None) is dry_run
        with pytest.raises(StillHere):
            await node.lifecycle.uninstall("demo", False, ADMIN)
        await node.lifecycle.disable("demo", ADMIN, dry_run=True)
        assert node.in_place() is not None


async def test_a_critical_capability_asks_for_the_name(database: str, tmp_path: Path) -> None:
    admin = {"name": "database.admin", "reason": "guards", "tables": ["public.orders"]}
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).lifecycle.install(package(tmp_path / "a", capabilities=[admin]), ADMIN)
        for confirm in ("", "dem"):
            with pytest.raises(ConfirmationMissing):
                await node.lifecycle.approve("demo", (), confirm, ADMIN)
            with pytest.raises(ConfirmationMissing):
                await node.lifecycle.grant(GrantCapability(id="demo", wanted="database.admin", confirm=confirm), ADMIN)
        would = await node.lifecycle.approve("demo", (), "demo", ADMIN, dry_run=True)
        assert would.grants[0].state == "granted"
        assert (await node.lifecycle.show("demo")).grants[0].state == "pending"
        await node.lifecycle.approve("demo", (), "demo", ADMIN)
        assert (await node.lifecycle.show("demo")).grants[0].state == "granted"


async def test_one_that_does_not_start_is_left_as_it_was(database: str, tmp_path: Path) -> None:
    world = World(broken={"1.0.0"})
    async with node_at(database, tmp_path, world=world) as node:
        await (await node.trusted()).lifecycle.install(package(tmp_path / "a"), ADMIN)
        with pytest.raises(EnableFailed, match="MAG-TEST-001"):
            await node.lifecycle.enable("demo", ADMIN)
        assert node.in_place() is None
        info = (await node.lifecycle.show("demo")).info
        assert (info.state, "as the test wants it" in info.detail) == ("installed", True)
        world.broken.clear()
        for health in ({"status": "unhealthy", "detail": "no disk"}, {"disk": False}, "nonsense", Trouble()):
            world.health["1.0.0"] = health
            with pytest.raises(EnableFailed):
                await node.lifecycle.enable("demo", ADMIN)
            assert node.in_place() is None
            assert world.workers[-1].state == "killed"
        world.health["1.0.0"] = {"status": "degraded"}
        await node.lifecycle.enable("demo", ADMIN)
        assert node.in_place() is not None


async def test_what_must_hold_before_one_starts(database: str, tmp_path: Path) -> None:
    base, needs = package(tmp_path / "a", id="base"), {"extensions": {"base": "^1.0"}}
    async with node_at(database, tmp_path, max_workers=2) as node:
        await node.trusted()
        await node.lifecycle.install(base, ADMIN)
        await node.lifecycle.install(package(tmp_path / "b", id="user", requires=needs, min_tier="S3"), ADMIN)
        await node.lifecycle.install(package(tmp_path / "c", id="third"), ADMIN)
        with pytest.raises(RequirementsUnmet):
            await node.lifecycle.enable("user", ADMIN)
        await node.lifecycle.enable("base", ADMIN)
        node.world.tier = "S2"
        with pytest.raises(TierTooLow):
            await node.lifecycle.enable("user", ADMIN)
        node.world.tier = "S3"
        await node.lifecycle.enable("user", ADMIN)
        with pytest.raises(TooManyExtensions):
            await node.lifecycle.enable("third", ADMIN)
        with pytest.raises(NeededByOthers):
            await node.lifecycle.disable("base", ADMIN)
        await node.lifecycle.kill("base", False, ADMIN)
        assert await node.state("base") == "disabled"


async def test_a_revocation_counts_from_the_next_call_on(database: str, tmp_path: Path) -> None:
    write = {"name": "database.write", "reason": "marks", "tables": ["public.orders"]}
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "a", capabilities=[write, EMIT]))
        worker = node.worker()
        assert set(worker.installed.grants) == {"database.write", "database.read", "api.emit_events"}
        revoking = asyncio.create_task(node.lifecycle.revoke("demo", "database.write", ADMIN))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert set(worker.installed.grants) == {"api.emit_events"}, "before the database was asked"
        detail = await revoking
        assert [grant.state for grant in detail.grants] == ["revoked", "granted"]
        assert traces(database, tmp_path)["rights"] == []
        assert worker.told > 0
        await node.lifecycle.grant(GrantCapability(id="demo", wanted="database.write", rate_per_minute=7), ADMIN)
        assert worker.installed.grants["database.write"].rate_per_minute == 7
        assert ("orders", "UPDATE") in traces(database, tmp_path)["rights"]
        with pytest.raises(GrantRefused):
            await node.lifecycle.revoke("demo", "network.outbound", ADMIN)


async def test_a_grant_ends_by_time(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "a", capabilities=[READ]))
        worker = node.worker()
        await node.lifecycle.grant(GrantCapability(id="demo", wanted="database.read", ttl_s=0.05), ADMIN)
        await until(lambda: "database.read" not in worker.installed.grants)
        await until(lambda: traces(database, tmp_path)["rights"] == [])
        ended = [("revoked", "time")]
        await until(lambda: rows(database, "select state, decided_by from mag.extension_grant") == ended)
        assert await node.state() == "enabled"


async def test_a_grant_ends_by_time_also_while_no_node_runs(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "a", capabilities=[READ]))
        await node.lifecycle.grant(GrantCapability(id="demo", wanted="database.read", ttl_s=3600), ADMIN)
        assert traces(database, tmp_path)["rights"] == [("orders", "SELECT")]
    execute(database, "update mag.extension_grant set expires_at = now() - interval '1 second'")
    async with node_at(database, tmp_path) as node:
        assert node.worker().installed.grants == {}
        await until(lambda: traces(database, tmp_path)["rights"] == [])


async def test_the_kill_switch_for_all_is_durable(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "a"))
        page = await node.lifecycle.kill("", False, ADMIN)
        assert page.stopped
        assert node.in_place() is None
        assert node.router.guarded == set()
        with pytest.raises(PlaneStopped):
            await node.lifecycle.enable("demo", ADMIN)
    async with node_at(database, tmp_path) as node:
        assert (await node.lifecycle.list()).stopped
        assert node.in_place() is None
        await node.lifecycle.kill("", True, ADMIN)
        assert node.in_place() is not None


async def test_a_removed_key_stops_what_it_signed(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "a"))
        other = generate()
        keys = await node.lifecycle.trust(public_text(other.public), "other", "", ADMIN)
        assert {key.key_id for key in keys.keys} == {PAIR.key_id, other.key_id}
        with pytest.raises(KeyUnknown):
            await node.lifecycle.trust("", "", "0" * 32, ADMIN)
        await node.lifecycle.trust("", "", PAIR.key_id, ADMIN)
        assert node.in_place() is None
        assert await node.state() == "disabled"
        with pytest.raises(SignerNotTrusted):
            await node.lifecycle.enable("demo", ADMIN)
