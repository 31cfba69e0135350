"""The vault's commands on a data folder that no node uses: same handlers, same gate, same records."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from magmobo.admin import audit
from magmobo.admin.data_folder import DataFolder, NodeLock
from magmobo.admin.errors import DataFolderOccupied, NodeAlreadyRuns
from magmobo.admin.vault_offline import ask_vault
from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.commands import Command
from magmobo.contracts.errors import MagError
from magmobo.contracts.secret import Secret
from magmobo.contracts.vaults import (
    ImportSecrets,
    ListSecrets,
    RekeyVault,
    RemoveSecret,
    RotateSecret,
    SetSecret,
    VaultContents,
)
from magmobo.kernel.config.core import VaultConfig
from magmobo.kernel.config.source import SecretRead
from magmobo.kernel.security.errors import CapabilityDenied
from magmobo.kernel.vault.errors import SecretInUse, VaultKeyWrong
from magmobo.kernel.vault.opening import open_vault
from magmobo.testing.harness import running_kernel

ADMIN = Actor(name=f"uid:{os.getuid()}", role=Role.ADMIN, via="control")
VIEWER = Actor(name="uid:1", role=Role.DEVELOPER, via="control")


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """One that is not there yet."""
    return DataFolder(tmp_path / "mag_data")


async def ask(folder: DataFolder, command: Command, **how: Any) -> Any:
    how = {"settings": VaultConfig(), "actor": ADMIN} | how
    return await ask_vault(folder, how.pop("settings"), command, **how)


async def test_a_secret_is_there_before_the_first_start(folder: DataFolder) -> None:
    changed = await ask(folder, SetSecret(entry="db", value=Secret("postgres://hidden")))
    assert (changed.info.version, changed.reloaded, changed.config_version) == (1, [], 0)
    assert open_vault(VaultConfig(), folder.path).read("db") == ("postgres://hidden", 1)
    async with running_kernel(data_dir=folder.path) as kernel:
        assert kernel.services.states.problems == ()
    contents = await ask(folder, ListSecrets(), reads=[SecretRead("magds.dsn", "vault:db")])
    assert [(use.info.name, list(use.keys)) for use in contents.secrets] == [("db", ["magds.dsn"])]


async def test_every_command_works_and_is_on_record(folder: DataFolder) -> None:
    await ask(folder, SetSecret(entry="db", value=Secret("hidden one")))
    assert (await ask(folder, RotateSecret(entry="db"))).info.version == 2
    news = {"db": Secret("hidden two"), "more": Secret("hidden three")}
    assert (await ask(folder, ImportSecrets(entries=news), dry_run=True)).added == ["more"]
    assert (await ask(folder, ImportSecrets(entries=news))).changed == ["db"]
    assert len((await ask(folder, RekeyVault())).secrets) == 2
    with pytest.raises(SecretInUse):
        await ask(folder, RemoveSecret(entry="db"), reads=[SecretRead("magds.dsn", "vault:db")])
    assert [use.info.name for use in (await ask(folder, RemoveSecret(entry="db"))).secrets] == ["more"]
    assert audit.verify(folder).ok
    lines = b"".join(audit.export(folder))
    for action in ("secret.write", "secret.rotate", "secret.import", "vault.rekey", "secret.remove"):
        assert f'"action":"{action}"'.encode() in lines
    assert f'"actor":"{ADMIN.name}"'.encode() in lines
    assert b"hidden" not in lines + folder.log_file.read_bytes()


async def test_nothing_is_made_by_looking(folder: DataFolder) -> None:
    contents = await ask(folder, ListSecrets())
    assert contents == VaultContents("local", "secrets/vault.key in the data folder", ())
    assert not folder.path.exists()


async def test_a_folder_that_a_node_uses_or_that_is_somebody_elses_is_left_alone(
    folder: DataFolder, tmp_path: Path
) -> None:
    folder.claim()
    lock = NodeLock(folder)
    lock.acquire()
    with pytest.raises(NodeAlreadyRuns):
        await ask(folder, SetSecret(entry="db", value=Secret("x")))
    lock.release()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").touch()
    with pytest.raises(DataFolderOccupied):
        await ask(DataFolder(tmp_path / "theirs"), SetSecret(entry="db", value=Secret("x")))
    assert [one.name for one in (tmp_path / "theirs").iterdir()] == ["file"]


async def test_who_may_not_is_denied_and_the_folder_is_free_afterwards(folder: DataFolder) -> None:
    with pytest.raises(CapabilityDenied):
        await ask(folder, SetSecret(entry="db", value=Secret("x")), actor=VIEWER)
    with pytest.raises(MagError):
        await ask(folder, SetSecret(entry="BAD NAME", value=Secret("x")))
    assert (await ask(folder, ListSecrets(), actor=VIEWER)).secrets == []
    assert b'"action":"security.denied"' in b"".join(audit.export(folder))
    lock = NodeLock(folder)
    lock.acquire()
    lock.release()


async def test_the_settings_say_which_key(folder: DataFolder) -> None:
    settings = VaultConfig(key=Secret("11" * 32))
    await ask(folder, SetSecret(entry="db", value=Secret("x")), settings=settings)
    with pytest.raises(VaultKeyWrong):
        await ask(folder, ListSecrets(), settings=VaultConfig(key=Secret("22" * 32)))
    assert not (folder.path / "secrets" / "vault.key").exists()


async def test_a_vault_that_was_put_back_from_a_copy_is_taken_by_rekey(folder: DataFolder) -> None:
    await ask(folder, SetSecret(entry="db", value=Secret("old")))
    file = folder.path / "vault" / "vault.mag"
    copy = file.read_bytes()
    await ask(folder, SetSecret(entry="db", value=Secret("new")))
    file.write_bytes(copy)
    with pytest.raises(MagError, match="generation 1") as caught:
        await ask(folder, ListSecrets())
    assert "vault:rekey" in caught.value.next_step()
    await ask(folder, RekeyVault())
    assert open_vault(VaultConfig(), folder.path).read("db") == ("old", 1)
    assert len((await ask(folder, ListSecrets())).secrets) == 1
