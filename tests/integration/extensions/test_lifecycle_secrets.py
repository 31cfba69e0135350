"""Secrets of an extension that was uninstalled with its data stay in no node's vault, and nobody else gets them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.integration.extensions.lifecycle_parts import (
    ADMIN,
    TABLES,
    DictVault,
    Node,
    execute,
    node_at,
    package,
    until,
)
from tests.system.extension_shell import Shell, packed, trusted
from tests.unit.extensions.package.making import folder

from magmobo.contracts.events import DatabaseSchemaChanged
from magmobo.extensions.lifecycle import removals
from magmobo.testing.node import running_node

SETTINGS = {
    "type": "object",
    "properties": {"url": {"type": "string"}, "token": {"type": "string", "x-secret": True}},
}
TOKEN = "extensions.demo.token"


@pytest.fixture
def database(dsn: str) -> str:
    execute(dsn, TABLES)
    return dsn


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    return package(tmp_path / "p", settings=SETTINGS)


async def both_have(one: Node, two: Node, data: bytes) -> None:
    """An enabled extension, whose secret is in both vaults."""
    await (await one.trusted()).enabled(data)
    await one.lifecycle.configure("demo", {"token": "hunter-one"}, ADMIN)
    two.lifecycle._core.ports.bus.emit(DatabaseSchemaChanged("notify"))
    await until(lambda: two.in_place() is not None)
    await two.lifecycle.configure("demo", {"token": "hunter-two"}, ADMIN)
    assert (one.vault.secrets[TOKEN], two.vault.secrets[TOKEN]) == ("hunter-one", "hunter-two")


async def removed(node: Node, *, delete_data: bool = True) -> None:
    await node.lifecycle.disable("demo", ADMIN)
    await node.lifecycle.uninstall("demo", delete_data, ADMIN)


async def at_rest(node: Node) -> None:
    await node.lifecycle._core.refresh()
    await node.lifecycle._core.sweep_files()
    await node.lifecycle._core.removals.settled()


async def test_a_node_that_hears_of_it_forgets_its_own(database: str, tmp_path: Path, data: bytes) -> None:
    async with node_at(database, tmp_path / "one") as one, node_at(database, tmp_path / "two") as two:
        await both_have(one, two, data)
        two.vault.secrets["extensions.demonstration.token"] = "another's"
        await removed(one)
        assert one.vault.secrets == {}
        await until(lambda: list(two.vault.secrets) == ["extensions.demonstration.token"])


async def test_kept_data_keeps_its_secrets_and_finds_them_again(database: str, tmp_path: Path, data: bytes) -> None:
    async with node_at(database, tmp_path / "one") as one, node_at(database, tmp_path / "two") as two:
        await both_have(one, two, data)
        await removed(one, delete_data=False)
        await until(lambda: two.forgotten == ["demo"])
        await at_rest(two)
        assert two.vault.secrets[TOKEN] == "hunter-two"
        await one.enabled(data)
        await until(lambda: two.in_place() is not None)
        assert two.worker().installed.settings == {"token": "hunter-two"}


async def test_one_that_was_down_gives_them_to_no_newcomer(database: str, tmp_path: Path, data: bytes) -> None:
    """The name is another installation's by the time, and has a secret of the same name."""
    vault = DictVault()
    async with node_at(database, tmp_path / "one") as one:
        async with node_at(database, tmp_path / "two", vault=vault) as two:
            await both_have(one, two, data)
        await removed(one)
        await one.enabled(data)
        await one.lifecycle.configure("demo", {"token": "new-one"}, ADMIN)
        assert vault.secrets[TOKEN] == "hunter-two"
        async with node_at(database, tmp_path / "two", vault=vault) as two:
            await until(lambda: two.in_place() is not None)
            assert "token" not in two.worker().installed.settings
            await at_rest(two)
            assert vault.secrets == {}
            await two.lifecycle.configure("demo", {"token": "new-two"}, ADMIN)
        async with node_at(database, tmp_path / "two", vault=vault) as two:
            await until(lambda: two.in_place() is not None)
            await at_rest(two)
            assert two.worker().installed.settings == {"token": "new-two"}, "it looks at what is gone at each start"
        assert one.vault.secrets[TOKEN] == "new-one"


async def test_a_vault_that_nodes_share_keeps_the_newcomers(database: str, tmp_path: Path, data: bytes) -> None:
    vault = DictVault()
    async with node_at(database, tmp_path / "one", vault=vault) as one:
        async with node_at(database, tmp_path / "two", vault=vault) as two:
            await (await one.trusted()).enabled(data)
            await one.lifecycle.configure("demo", {"token": "old"}, ADMIN)
            await at_rest(two)
        await removed(one)
        assert vault.secrets == {}
        await one.enabled(data)
        await one.lifecycle.configure("demo", {"token": "new"}, ADMIN)
        async with node_at(database, tmp_path / "two", vault=vault) as two:
            await until(lambda: two.in_place() is not None)
            await at_rest(two)
            assert two.worker().installed.settings == {"token": "new"}


async def test_what_an_operator_stored_is_the_extensions_from_its_first_use_on(
    database: str, tmp_path: Path, data: bytes
) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(data)
        await node.lifecycle.configure("demo", {"token": "t"}, ADMIN)
        node.vault.secrets = {TOKEN: "by hand", "extensions.other.token": "left by nobody that is known"}
        await node.lifecycle.configure("demo", {"url": "u"}, ADMIN)
        assert node.worker().installed.settings == {"url": "u", "token": "by hand"}
        assert len(node.vault.secrets) == 3
        await removed(node)
        assert list(node.vault.secrets) == ["extensions.other.token"]


async def test_a_vault_that_is_away_or_a_node_that_is_killed_half_way_is_followed_to_the_end(
    database: str, tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removals, "TRY_AGAIN_S", (0.01,))
    vault = DictVault()
    async with node_at(database, tmp_path / "one") as one:
        async with node_at(database, tmp_path / "two", vault=vault) as two:
            await both_have(one, two, data)
            remove, tried = vault.remove, 0

            async def half_way(name: str) -> None:
                nonlocal tried
                tried += 1
                if tried < 4:
                    raise OSError("the vault is away")
                await remove(name)
                await asyncio.Event().wait()  # and here the node ends

            monkeypatch.setattr(vault, "remove", half_way)
            await removed(one)
            await until(lambda: tried == 4)
        assert list(vault.secrets) == ["extensions.demo.x-owner"]
        monkeypatch.undo()
        async with node_at(database, tmp_path / "two", vault=vault, start=False) as two:
            await two.lifecycle.read()
            await two.lifecycle._core.removals.settled()
            assert vault.secrets == {}


async def test_real_nodes_with_vaults_of_their_own(dsn: str, tmp_path: Path) -> None:
    environment: dict[str, Any] = {"DATABASE_URL": dsn}
    async with (
        running_node(tmp_path / "one", environment=environment) as first,
        running_node(tmp_path / "two", environment=environment) as second,
    ):
        one, two = Shell(tmp_path, first), Shell(tmp_path, second)
        code = "from magx import Extension\next = Extension()\n"
        folder(tmp_path / "demo", {"extension.py": code}, settings=SETTINGS)
        archive = await packed(Shell(tmp_path), "demo")
        await trusted(one)
        await one.mag("extension:install", archive, "--approve", "--enable", "--yes")
        for operator in (one, two):
            await operator.mag("extension:configure", "demo", "token=-", typed="hunter22")

        async def names(operator: Shell) -> list[str]:
            listed = (await operator.answer("vault:list"))["secrets"]
            stored = [one["info"]["name"] for one in listed]
            return sorted(name for name in stored if name.startswith("extensions."))

        assert await names(one) == await names(two) == [TOKEN, "extensions.demo.x-owner"]
        await one.mag("extension:disable", "demo", "--yes")
        await one.mag("extension:uninstall", "demo", "--delete-data", "--yes")
        async with asyncio.timeout(20):
            while await names(two):
                await asyncio.sleep(0.1)
        shown = await one.answer("audit:tail", "--extension", "demo", "--action", "extension.uninstall")
        assert [record["payload"]["phase"] for record in shown["records"]] == ["intent", "outcome"]
        for operator in (one, two):
            shown = await operator.answer("audit:tail", "--action", "secret.remove")
            assert {record["actor"] for record in shown["records"]} == {"component:extensions"}
            assert [record["payload"]["name"] for record in shown["records"]] == [TOKEN, "extensions.demo.x-owner"]
