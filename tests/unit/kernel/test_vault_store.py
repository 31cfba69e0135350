"""The vault of a node: old files are told from new ones, and every access of a component is on record."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.unit.kernel.vault_parts import KEY, Around, around, file_of, put, vault_in

from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.errors import AuditUnavailable, SecretUnknown, StateUnavailable, VaultUnavailable
from magmobo.contracts.secret import Secret
from magmobo.kernel.config.core import VaultConfig
from magmobo.kernel.vault.errors import SecretDenied, VaultReplayed
from magmobo.kernel.vault.manager import ComponentVault

BILLING = Actor(name="component:billing", role=Role.VIEWER, via="component")
THE_KERNEL = Actor(name="kernel", role=Role.ADMIN, via="kernel")
PERSON = Actor(name="uid:0", role=Role.ADMIN, via="control")


async def run_once(data_dir: Path, **secrets: str) -> None:
    """One life of a node that stores `secrets`."""
    async with around(data_dir) as node:
        await node.store.check()
        if secrets:
            await node.store.write(secrets)


# ---------------------------------------------------------------- replays


async def test_a_node_without_a_vault_starts_and_makes_none(tmp_path: Path) -> None:
    await run_once(tmp_path)
    assert not (tmp_path / "vault").exists()


async def test_a_vault_is_taken_over_from_one_run_to_the_next(tmp_path: Path) -> None:
    for number in range(3):
        await run_once(tmp_path, a=f"{number}")
    async with around(tmp_path) as node:
        assert await node.store.read("a") == ("2", 3)
        assert [info.version for info in await node.store.infos()] == [3]
        assert not node.problems


async def test_an_older_file_is_refused_at_the_start_and_by_every_use(tmp_path: Path) -> None:
    await run_once(tmp_path, a="old")
    shutil.copy(file_of(tmp_path), tmp_path / "copy")
    await run_once(tmp_path, a="new")
    shutil.copy(tmp_path / "copy", file_of(tmp_path))
    async with around(tmp_path) as node:
        for use in (
            node.store.check(), node.store.read("a"), node.store.infos(), node.store.write({"a": "x"}),
            node.store.remove("a"), node.store.rekey(), node.store.reconfigure(VaultConfig(key=KEY)),
        ):  # fmt: skip
            with pytest.raises(VaultReplayed, match="generation 1, this node has seen 2"):
                await use
    assert file_of(tmp_path).read_bytes() == (tmp_path / "copy").read_bytes()


async def test_an_older_file_is_refused_while_the_node_runs(tmp_path: Path) -> None:
    async with around(tmp_path) as node:
        await node.store.write({"a": "old"})
        shutil.copy(file_of(tmp_path), tmp_path / "copy")
        await node.store.write({"a": "new"})
        shutil.copy(tmp_path / "copy", file_of(tmp_path))
        with pytest.raises(VaultReplayed):
            await node.store.read("a")


async def test_another_generation_of_the_same_number_is_refused(tmp_path: Path) -> None:
    await run_once(tmp_path, a="old")
    shutil.copy(file_of(tmp_path), tmp_path / "copy")
    await run_once(tmp_path, a="new")
    shutil.copy(tmp_path / "copy", file_of(tmp_path))
    put(vault_in(tmp_path), a="forked")
    async with around(tmp_path) as node:
        with pytest.raises(VaultReplayed, match="another generation 2"):
            await node.store.check()


async def test_another_vault_is_refused(tmp_path: Path) -> None:
    await run_once(tmp_path, a="x")
    file_of(tmp_path).unlink()
    for text in ("y", "z"):
        put(vault_in(tmp_path), a=text)
    async with around(tmp_path) as node:
        with pytest.raises(VaultReplayed, match="another vault"):
            await node.store.check()


async def test_a_vault_that_is_gone_is_not_an_empty_one(tmp_path: Path) -> None:
    await run_once(tmp_path, a="x")
    file_of(tmp_path).unlink()
    async with around(tmp_path) as node:
        for use in (node.store.check(), node.store.write({"a": "y"}), node.store.infos()):
            with pytest.raises(VaultReplayed, match="is gone"):
                await use
    assert not file_of(tmp_path).exists()


async def test_a_file_ahead_of_its_mark_is_taken(tmp_path: Path) -> None:
    """As after a crash between the two; and several of them, as after the state store was restored from a copy."""
    await run_once(tmp_path, a="x")
    for text in ("y", "z"):
        put(vault_in(tmp_path), a=text)
        shutil.copy(file_of(tmp_path), tmp_path / text)
    async with around(tmp_path) as node:
        assert await node.store.read("a") == ("z", 3)
    shutil.copy(tmp_path / "y", file_of(tmp_path))
    async with around(tmp_path) as node:
        with pytest.raises(VaultReplayed):
            await node.store.check()


@pytest.mark.parametrize("lost", ["older", "gone"])
async def test_an_operator_can_say_that_this_one_is_to_count(tmp_path: Path, lost: str) -> None:
    await run_once(tmp_path, a="old")
    shutil.copy(file_of(tmp_path), tmp_path / "copy")
    await run_once(tmp_path, a="new")
    if lost == "older":
        shutil.copy(tmp_path / "copy", file_of(tmp_path))
    else:
        file_of(tmp_path).unlink()
    async with around(tmp_path) as node:
        await node.store.rekey(accept=True)
        mark = node.vault.mark()
        assert mark is not None
        assert mark.generation == 3
    async with around(tmp_path) as node:
        assert [info.name for info in await node.store.infos()] == (["a"] if lost == "older" else [])
        await node.store.write({"a": "newest"})
    shutil.copy(tmp_path / "copy", file_of(tmp_path))
    async with around(tmp_path) as node:
        with pytest.raises(VaultReplayed):
            await node.store.check()


async def test_what_is_accepted_must_still_be_sound(tmp_path: Path) -> None:
    await run_once(tmp_path, a="old")
    file_of(tmp_path).write_bytes(file_of(tmp_path).read_bytes()[:-5])
    async with around(tmp_path) as node:
        with pytest.raises(VaultUnavailable):
            await node.store.rekey(accept=True)


# ---------------------------------------------------------------- when stores fail


async def test_a_vault_that_cannot_be_compared_is_not_read(tmp_path: Path) -> None:
    await run_once(tmp_path, a="x")
    async with around(tmp_path) as node:
        await node.states.close()
        for use in (node.store.read("a"), node.store.write({"a": "y"})):
            with pytest.raises(VaultUnavailable, match="state store"):
                await use
    async with around(tmp_path) as node:
        assert await node.store.read("a") == ("x", 1)


async def test_a_mark_that_cannot_be_written_is_told_and_the_write_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with around(tmp_path) as node:
        await node.store.write({"a": "x"})

        async def full(change: Any) -> Any:
            raise StateUnavailable("no room")

        monkeypatch.setattr(node.states, "change", full)
        await node.store.write({"a": "y"})
        assert len(node.problems) == 1
        assert await node.store.read("a") == ("y", 2)
        monkeypatch.undo()
    async with around(tmp_path) as node:
        assert await node.store.read("a") == ("y", 2)


async def test_a_change_goes_on_when_its_caller_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with around(tmp_path) as node:
        entered, go_on = threading.Event(), threading.Event()
        write = node.vault.write

        def slow(*args: Any, **named: Any) -> Any:
            entered.set()
            go_on.wait()
            return write(*args, **named)

        monkeypatch.setattr(node.vault, "write", slow)
        caller = asyncio.create_task(node.store.write({"a": "x"}))
        await asyncio.to_thread(entered.wait)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        closing = asyncio.create_task(node.store.close())
        await asyncio.to_thread(lambda: None)
        go_on.set()
        await closing
        noted = await node.states.scope("vault").get("mark")
        assert noted is not None
        assert noted.value["generation"] == 1
    async with around(tmp_path) as node:
        assert await node.store.read("a") == ("x", 1)


async def test_everything_that_is_read_or_stored_becomes_known_as_secret(tmp_path: Path) -> None:
    await run_once(tmp_path, a="first")
    async with around(tmp_path) as node:
        await node.store.infos()
        assert node.learnt == []
        await node.store.read("a")
        await node.store.write({"b": "second"})
        assert node.learnt == ["first", "second"]


# ---------------------------------------------------------------- components


def managed(node: Around) -> ComponentVault:
    return ComponentVault(node.store, node.audit, BILLING)


async def test_a_component_keeps_its_own_secrets_and_all_is_on_record(tmp_path: Path) -> None:
    async with around(tmp_path) as node:
        vault = managed(node)
        await vault.write("billing.key", Secret("first-key"))
        await vault.write("billing.key", Secret("second-key"))
        assert (await vault.read("billing.key", purpose="invoices")).reveal() == "second-key"
        assert (await vault.read("billing.key", version=1)).reveal() == "first-key"
        assert (await vault.restore("billing.key", 1)).version == 3
        await node.store.write({"other.key": "x"})
        assert [info.name for info in await vault.infos()] == ["billing.key"]
        await vault.remove("billing.key")
        assert await node.actions() == [
            ("secret.write", "component:billing", "billing.key"),
            ("secret.write", "component:billing", "billing.key"),
            ("secret.read", "component:billing", "billing.key"),
            ("secret.read", "component:billing", "billing.key"),
            ("secret.rotate", "component:billing", "billing.key"),
            ("secret.remove", "component:billing", "billing.key"),
        ]
        records = await node.audit.read(after_seq=0, limit=100)
        assert records[2].payload["purpose"] == "invoices"
        assert not [record for record in records if "-key" in str(record.payload)]


@pytest.mark.parametrize("name", ["billing", "billingx.key", "other.key", "billing_key"])
async def test_what_is_not_a_components_own_is_denied_and_on_record(tmp_path: Path, name: str) -> None:
    async with around(tmp_path) as node:
        await node.store.write({name: "x"})
        vault = managed(node)
        for use in (
            vault.read(name), vault.write(name, Secret("y")),
            vault.restore(name, 1), vault.remove(name),
        ):  # fmt: skip
            with pytest.raises(SecretDenied):
                await use
        assert await node.store.read(name) == ("x", 1)
        assert [action for action, *_ in await node.actions()] == ["security.denied"] * 4


async def test_nothing_is_read_or_changed_that_cannot_be_recorded(tmp_path: Path) -> None:
    async with around(tmp_path) as node:
        vault = managed(node)
        await vault.write("billing.key", Secret("first-key"))
        mark = node.vault.mark()
        node.learnt.clear()
        await node.audit.close()
        for use in (
            vault.read("billing.key"), vault.write("billing.key", Secret("second-key")),
            vault.restore("billing.key", 1), vault.remove("billing.key"),
        ):  # fmt: skip
            with pytest.raises(AuditUnavailable):
                await use
        with pytest.raises(SecretDenied):
            await vault.read("other.key")
        assert node.vault.mark() == mark
        assert node.learnt == []


async def test_a_secret_that_is_not_there_is_said(tmp_path: Path) -> None:
    async with around(tmp_path) as node:
        vault = managed(node)
        for use in (
            vault.read("billing.key"), vault.restore("billing.key", 1),
            vault.remove("billing.key"),
        ):  # fmt: skip
            with pytest.raises(SecretUnknown):
                await use
