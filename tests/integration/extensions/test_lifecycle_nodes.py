"""Two nodes on one database, workers that misbehave, and a database that goes away."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.integration.extensions.lifecycle_parts import (
    ADMIN,
    EMIT,
    READ,
    SCHEMA,
    TABLES,
    UP1,
    UP2,
    DictVault,
    Trouble,
    World,
    execute,
    node_at,
    package,
    rows,
    traces,
    until,
)
from tests.unit.extensions.package import making

from magmobo.contracts.errors import Unavailable
from magmobo.contracts.events import DatabaseSchemaChanged
from magmobo.extensions.lifecycle import store
from magmobo.extensions.lifecycle.errors import (
    DataOfAnother,
    EnableFailed,
    LifecycleBusy,
    RegistryDamaged,
    UpgradeFailed,
)
from magmobo.extensions.package.errors import SettingsRefused
from magmobo.extensions.package.keys import generate, public_text
from magmobo.extensions.sandbox.errors import PremisesRefused


@pytest.fixture
def database(dsn: str) -> str:
    execute(dsn, TABLES)
    return dsn


async def test_another_node_follows(database: str, tmp_path: Path) -> None:
    first = package(tmp_path / "p", files=UP1, capabilities=[SCHEMA])
    second = package(tmp_path / "p", "1.1.0", files=UP2, capabilities=[SCHEMA])
    async with node_at(database, tmp_path / "one") as one, node_at(database, tmp_path / "two") as two:
        await (await one.trusted()).enabled(first)
        two.lifecycle._core.ports.bus.emit(DatabaseSchemaChanged("notify"))
        await until(lambda: two.in_place() is not None)
        assert two.versions_on_disk() == one.versions_on_disk()
        old = two.worker()
        await one.lifecycle.upgrade(second, ADMIN)
        await until(lambda: two.worker().installed.version == "1.1.0")
        await until(lambda: old.state == "drained")
        await one.lifecycle.revoke("demo", "database.schema", ADMIN)
        await until(lambda: not two.worker().installed.grants)
        await two.lifecycle.kill("", False, ADMIN)
        await until(lambda: one.in_place() is None)
        await one.lifecycle.kill("", True, ADMIN)
        await until(lambda: two.in_place() is not None)
        await two.lifecycle.disable("demo", ADMIN)
        await until(lambda: one.in_place() is None)
        assert await one.state() == "disabled"
        await one.lifecycle.uninstall("demo", True, ADMIN)
        await until(lambda: two.versions_on_disk() == set())
        assert (await two.lifecycle.list()).extensions == []


async def test_one_that_another_node_disabled_is_not_enabled_beside_itself(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path / "one") as one, node_at(database, tmp_path / "two") as two:
        await (await one.trusted()).enabled(package(tmp_path / "p"))
        two.lifecycle._core.ports.bus.emit(DatabaseSchemaChanged("notify"))
        await until(lambda: two.in_place() is not None)
        for empty_files in (False, True):
            old = two.worker()
            (old.data_dir / "diary").write_text("of the one before")
            async with two.lifecycle._core.turn:  # it did not come to follow
                await one.lifecycle.disable("demo", ADMIN)
            await two.lifecycle.enable("demo", ADMIN, empty_files=empty_files)
            assert two.worker() is not old
            assert old.state == "drained"
            assert (two.worker().data_dir / "diary").exists() is not empty_files
            assert [worker.state for worker in two.world.workers].count("ready") == 1


async def test_files_are_not_emptied_where_nobody_knows_which_are_used(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "p"))
        diary = node.worker().data_dir / "diary"
        diary.write_text("kept")
        await node.lifecycle.disable("demo", ADMIN)

        def refuse() -> Path:
            raise PremisesRefused("/data", "there are files in another folder, too")

        with monkeypatch.context() as change:
            change.setattr(node.lifecycle._core.ports.premises, "root", refuse)
            with pytest.raises(PremisesRefused):
                await node.lifecycle.enable("demo", ADMIN, empty_files=True)
        assert diary.read_text() == "kept"
        await node.lifecycle.enable("demo", ADMIN, empty_files=True)
        assert not diary.exists()


async def test_one_node_changes_at_a_time(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = package(tmp_path / "p", "1.1.0")
    async with node_at(database, tmp_path / "one") as one:
        await (await one.trusted()).enabled(package(tmp_path / "p"))
        async with node_at(database, tmp_path / "two") as two:
            held, go = asyncio.Event(), asyncio.Event()

            async def hold(step: str, about: Any) -> None:
                if step == "worker" and about.version == "1.1.0":
                    held.set()
                    await go.wait()

            one.world.on_step = hold
            upgrading = asyncio.create_task(one.lifecycle.upgrade(second, ADMIN))
            await held.wait()
            monkeypatch.setattr(two.lifecycle._core, "change", _impatient(two.lifecycle._core.change))
            with pytest.raises(LifecycleBusy):
                await two.lifecycle.disable("demo", ADMIN)
            await two.lifecycle._following.look()
            assert two.worker().installed.version == "1.0.0", "what is under way is not taken for what is left behind"
            await two.lifecycle.kill("demo", False, ADMIN)
            assert two.in_place() is None, "a kill waits for nobody"
            go.set()
            with pytest.raises(UpgradeFailed, match="killed by uid:0"):
                await upgrading
            await until(lambda: one.in_place() is None)
            await until(lambda: rows(database, "select state, halt_reason from mag.extension") == [("disabled", "")])


def _impatient(change: Any) -> Any:
    return lambda **_: change(wait_s=0.05)


async def test_who_gave_up_does_not_leave_half_of_it(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "p"))
        held, go = asyncio.Event(), asyncio.Event()

        async def hold(step: str, about: Any) -> None:
            if step == "worker":
                held.set()
                await go.wait()

        node.world.on_step = hold
        asking = asyncio.create_task(node.lifecycle.upgrade(package(tmp_path / "p", "1.1.0"), ADMIN))
        await held.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        go.set()
        await until(lambda: node.worker().installed.version == "1.1.0")


async def test_a_stop_in_the_middle_leads_back(database: str, tmp_path: Path) -> None:
    second = package(tmp_path / "p", "1.1.0", files=UP2, capabilities=[SCHEMA])
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "p", files=UP1, capabilities=[SCHEMA]))
        before, held = traces(database, tmp_path), asyncio.Event()

        async def hold(step: str, about: Any) -> None:
            if step == "worker":
                held.set()
                await asyncio.Event().wait()

        node.world.on_step = hold
        asking = asyncio.create_task(node.lifecycle.upgrade(second, ADMIN))
        await held.wait()
    await asyncio.gather(asking, return_exceptions=True)
    assert traces(database, tmp_path) == before


# ---------------------------------------------------------------- misbehaving


async def test_an_attempt_to_escape_ends_it_everywhere(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "p"))
        worker = node.worker()
        worker.on_escape(worker.installed, "system call 41 (socket)")
        await until(lambda: not node.lifecycle._watching._acting)
        assert worker.state == "killed"
        assert "demo" in node.router.guarded
        info = (await node.lifecycle.show("demo")).info
        assert (info.state, "system call 41" in info.detail) == ("disabled", True)
        assert [record["what"] for record in await node.records("extension.escape_attempt")] == [
            "system call 41 (socket)"
        ]
        assert "extension.escape_attempt" in node.topics()
    async with node_at(database, tmp_path) as node:
        assert (node.in_place(), "demo" in node.router.guarded) == (None, True)
        for broken in ({"1.0.0"}, set[str]()):
            node.world.broken = broken
            node.world.on_step = None if broken else _refuse_endpoints
            with pytest.raises(EnableFailed):
                await node.lifecycle.enable("demo", ADMIN)
            assert "demo" in node.router.guarded, "a try that failed opens nothing"
        node.world.on_step = None
        await node.lifecycle.enable("demo", ADMIN)
        assert (node.in_place() is not None, node.router.guarded) == (True, set())
        assert rows(database, "select guarded from mag.extension") == [(False,)]


def _refuse_endpoints(step: str, about: Any) -> None:
    if step == "endpoints":
        raise Trouble


async def test_one_that_escapes_while_it_comes_up_beside_stops_the_extension(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "p"))

        def escape(step: str, about: Any) -> None:
            if step == "endpoints" and about.version == "1.1.0":
                node.world.workers[-1].on_escape(about, "a frame of 4 GB")

        node.world.on_step = escape
        with suppress(UpgradeFailed):  # it may be known before the new version counts, or right behind
            await node.lifecycle.upgrade(package(tmp_path / "p", "1.1.0"), ADMIN)
        await until(lambda: not node.lifecycle._watching._acting)
        await until(lambda: rows(database, "select state from mag.extension") == [("disabled",)])
        assert node.in_place() is None
        assert all(worker.state in ("killed", "drained") for worker in node.world.workers)


async def test_five_crashes_are_enough(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "p"))
        worker = node.worker()
        for _ in range(4):
            worker.on_crash(worker.installed, "signal 11")
        await asyncio.sleep(0)
        assert node.in_place() is worker
        worker.on_crash(worker.installed, "signal 11")
        await until(lambda: not node.lifecycle._watching._acting)
        info = (await node.lifecycle.show("demo")).info
        assert (info.state, "ended 5 times" in info.detail) == ("disabled", True)
        assert [record["what"] for record in await node.records("extension.lifecycle")] == ["disabled"]
        assert node.topics().count("extension.error") == 5


async def test_one_that_does_not_come_up_at_a_start_holds_its_place_and_is_tried_again(
    database: str, tmp_path: Path
) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "p"))
        await node.lifecycle.install(package(tmp_path / "p", id="other"), ADMIN)
        await node.lifecycle.enable("other", ADMIN)
    world = World(broken={"1.0.0"})
    async with node_at(database, tmp_path, world=world) as node:
        assert node.router.guarded == {"demo", "other"}
        assert "MAG-TEST-001" in node.lifecycle.problems["demo"]
        assert (await node.lifecycle.show("demo")).info.state == "enabled"
        world.broken.clear()
        await until(lambda: node.in_place() is not None and node.in_place("other") is not None)
        assert not node.router.guarded
        assert not node.lifecycle.problems


async def test_the_places_are_held_before_and_behind(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "p"))
        await node.lifecycle.stop()
        assert (node.in_place(), node.router.guarded) == (None, {"demo"})
        await node.lifecycle.start()
        assert node.in_place() is not None
    async with node_at(database, tmp_path, start=False) as node:
        assert await node.lifecycle.boot()
        assert (node.in_place(), node.router.guarded) == (None, {"demo"})


# ---------------------------------------------------------------- trouble


async def test_a_kill_counts_while_the_database_is_away(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "p"))
        session, worker = node.database.session, node.worker()

        def away(**_: Any) -> Any:
            raise Unavailable("the database")

        node.database.session = away  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await node.lifecycle.kill("demo", False, ADMIN)
        assert (worker.state, node.in_place()) == ("killed", None)
        node.database.session = session  # type: ignore[method-assign]
        await until(lambda: rows(database, "select state from mag.extension") == [("disabled",)])
        assert node.in_place() is None


async def test_a_revocation_counts_while_the_database_is_away(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "p", capabilities=[READ, EMIT]))
        worker = node.worker()

        def away(**_: Any) -> Any:
            raise Unavailable("the database")

        node.database.session = away  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await node.lifecycle.revoke("demo", "database.read", ADMIN)
        assert set(worker.installed.grants) == {"api.emit_events"}


async def test_a_table_that_is_gone_keeps_no_right_from_being_taken(database: str, tmp_path: Path) -> None:
    read = READ | {"tables": ["public.orders", "public.prices"]}
    optional = {"optional": True, "fallback": "does not mark"}
    write = {"name": "database.write", "reason": "marks", "tables": ["public.prices"], **optional}
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "p", capabilities=[read, write]))
        execute(database, "drop table public.orders")
        await node.lifecycle.revoke("demo", "database.write", ADMIN)
        assert traces(database, tmp_path)["rights"] == [("prices", "SELECT")]
        await node.lifecycle.disable("demo", ADMIN)
        with pytest.raises(EnableFailed, match=r"public\.orders"):
            await node.lifecycle.enable("demo", ADMIN)


async def test_a_damaged_row_stops_nobody_else(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "p"))
        await node.lifecycle.install(package(tmp_path / "p", id="other"), ADMIN)
        await node.lifecycle.enable("other", ADMIN)
    damages = (
        "update mag.extension set state = 'dancing' where id = 'other'",
        "update mag.extension_version set manifest = '{\"id\": 7}' where extension_id = 'other'",
        "update mag.extension set previous_sha256 = 'f00d' where id = 'other'",
        "update mag.extension_version set manifest = manifest || '{\"id\": \"demo\"}' where extension_id = 'other'",
    )
    for damage in damages:
        kept = rows(database, "select state, previous_sha256 from mag.extension where id = 'other'")[0]
        manifest = rows(database, "select manifest::text from mag.extension_version where extension_id = 'other'")[0][0]
        execute(database, damage)
        async with node_at(database, tmp_path) as node:
            assert (node.in_place() is None, node.in_place("other")) == (False, None)
            lines = {line.id: line.state for line in (await node.lifecycle.list()).extensions}
            assert lines == {"demo": "enabled", "other": "error"}
            with pytest.raises(RegistryDamaged):
                await node.lifecycle.show("other")
        rows(
            database,
            "update mag.extension_version set manifest = %s::jsonb where extension_id = 'other' returning 1",
            manifest,
        )
        rows(
            database, "update mag.extension set state = %s, previous_sha256 = %s where id = 'other' returning 1", *kept
        )
    execute(database, damages[0])
    async with node_at(database, tmp_path) as node:
        await node.lifecycle.uninstall("other", True, ADMIN)
        assert [line.id for line in (await node.lifecycle.list()).extensions] == ["demo"]


@pytest.mark.parametrize("delete_data", [True, False])
async def test_what_a_damaged_one_left_is_no_newcomer_s(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delete_data: bool
) -> None:
    """Nobody can say any more who signed it; so who comes next may be anybody."""
    damage = "update mag.extension set state = 'dancing'"
    stranger = generate()
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "p", files=UP1, capabilities=[SCHEMA]))
        execute(database, "insert into ext_demo.seen values (1)")
        old = node.worker()
        (old.data_dir / "diary").write_text("its own")
        await node.lifecycle.disable("demo", ADMIN)
        execute(database, damage)
        await node.lifecycle._core.refresh()
        await node.lifecycle.uninstall("demo", delete_data, ADMIN)
        assert old.data_dir.exists() is not delete_data
        await node.lifecycle.trust(public_text(stranger.public), "stranger", False, ADMIN)
        with monkeypatch.context() as change:
            change.setattr(making, "PAIR", stranger)
            data = package(tmp_path / "p", files=UP1, capabilities=[SCHEMA])
        if not delete_data:
            with pytest.raises(DataOfAnother, match="not known any more"):
                await node.lifecycle.install(data, ADMIN)
            assert rows(database, "select id from ext_demo.seen") == [(1,)]
            await node.lifecycle.uninstall("demo", True, ADMIN)
        await node.enabled(data)
        assert node.worker().data_dir != old.data_dir
        assert rows(database, "select id from ext_demo.seen") == []


async def test_a_package_that_was_changed_in_the_registry_does_not_run(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "p"))
    other = package(tmp_path / "p", "1.0.0", description="another")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("update mag.extension_version set package = %b", (other,))
    async with node_at(database, tmp_path) as node:
        assert (node.in_place(), node.router.guarded) == (None, {"demo"})
        assert "MAG-EXT-319" in node.lifecycle.problems["demo"]


async def test_settings_and_their_secrets(database: str, tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "required": ["url"],
        "properties": {
            "url": {"type": "string"},
            "tries": {"type": "integer", "default": 3},
            "auth": {"type": "object", "properties": {"apiKey": {"type": "string", "x-secret": True, "minLength": 3}}},
        },
    }
    vault = DictVault()
    async with node_at(database, tmp_path, vault=vault) as node:
        await (await node.trusted()).lifecycle.install(package(tmp_path / "p", settings=schema), ADMIN)
        with pytest.raises(EnableFailed, match="MAG-EXT-170"):
            await node.lifecycle.enable("demo", ADMIN)
        with pytest.raises(SettingsRefused):
            await node.lifecycle.configure("demo", {"url": "x", "auth": {"apiKey": "k"}}, ADMIN)
        assert vault.secrets == {}
        given = {"url": "x", "auth": {"apiKey": "hunter22"}}
        detail = await node.lifecycle.configure("demo", given, ADMIN)
        assert detail.settings == {"url": "x", "tries": 3, "auth": {"apiKey": "***"}}
        assert "hunter22" in vault.secrets.values()
        assert "hunter22" not in str(rows(database, "select * from mag.extension_setting"))
        await node.lifecycle.enable("demo", ADMIN)
        worker = node.worker()
        assert worker.installed.settings == {"url": "x", "tries": 3, "auth": {"apiKey": "hunter22"}}
        await node.lifecycle.configure("demo", {"tries": 5}, ADMIN)
        assert worker.installed.settings == {"url": "x", "tries": 5, "auth": {"apiKey": "hunter22"}}
        assert worker.told == 1
        vault.fails = True
        with pytest.raises(Trouble):
            await node.lifecycle.configure("demo", {"url": "y", "auth": {"apiKey": "other"}}, ADMIN)
        vault.fails = False
        assert (await node.lifecycle.show("demo")).settings["url"] == "x"
        await node.lifecycle.configure("demo", {"auth": {"apiKey": None}, "tries": None}, ADMIN)
        assert (worker.installed.settings, vault.secrets) == ({"url": "x", "tries": 3, "auth": {}}, {})
        await node.lifecycle.configure("demo", {"auth": {"apiKey": "again"}}, ADMIN)
        await node.lifecycle.disable("demo", ADMIN)
        await node.lifecycle.uninstall("demo", True, ADMIN)
        assert vault.secrets == {}
        assert rows(database, "select * from mag.extension_setting") == []


async def test_uids_are_given_once(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "UIDS", range(56_000, 56_002))
    async with node_at(database, tmp_path) as node:
        await node.trusted()
        for name in ("one", "two"):
            await node.lifecycle.install(package(tmp_path / "p", id=name), ADMIN)
        assert rows(database, "select uid from mag.extension_uid order by extension_id") == [(56_000,), (56_001,)]
        with pytest.raises(RegistryDamaged, match="user ids"):
            await node.lifecycle.install(package(tmp_path / "p", id="three"), ADMIN)
        assert len(node.versions_on_disk()) == 2
        await node.lifecycle.uninstall("one", True, ADMIN)
        await node.lifecycle.install(package(tmp_path / "p", id="three"), ADMIN)
        assert ("three", 56_000) in rows(database, "select extension_id, uid from mag.extension_uid")
