"""Settings and the vault: what is merged, what is taken back, and that no name in the vault is refused there."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.extensions.lifecycle_parts import DictVault
from tests.unit.extensions.package.making import calm, manifest

from magmobo.extensions.lifecycle.ownsecrets import OwnSecrets, vault_name
from magmobo.extensions.lifecycle.records import Entry
from magmobo.extensions.lifecycle.settings import Settings, shown
from magmobo.extensions.lifecycle.states import State
from magmobo.extensions.package.errors import SettingsRefused

SCHEMA = {
    "type": "object",
    "properties": {
        "url": {"type": "string"},
        "key": {"type": "string", "x-secret": True},
        "mail": {
            "type": "object",
            "properties": {"host": {"type": "string"}, "passWord": {"type": "string", "x-secret": True}},
        },
    },
}


def entry(settings: dict[str, Any] | None = None, *secrets: str) -> Entry:
    return Entry(
        id="demo", state=State.INSTALLED, resume=None, sha256="", previous="", pending="", target="", guest="",
        since_s=0.0, detail="", halt_reason="", guarded=False, delete_data=False, watch_until_s=0.0, uid=1, folder="",
        versions={}, settings=settings or {}, secrets=secrets,
    )  # fmt: skip


def stored(vault: DictVault) -> list[str]:
    """Without the mark of whose they are."""
    return sorted(secret for name, secret in vault.secrets.items() if not name.endswith(".x-owner"))


async def test_secrets_go_to_the_vault_and_come_from_there() -> None:
    vault, read = DictVault(), manifest(settings=SCHEMA)
    settings = Settings(OwnSecrets(lambda: vault))
    change = await settings.plan(
        entry(), read, {"url": "u", "key": "hunter2", "mail": {"host": "h", "passWord": "p4ss"}}
    )
    assert (change.plain, sorted(change.secrets)) == ({"url": "u", "mail": {"host": "h"}}, ["key", "mail.passWord"])
    assert "hunter2" not in repr(change)
    await settings.keep_secrets(entry(), change)
    assert stored(vault) == ["hunter2", "p4ss"]
    there = entry(change.plain, *change.secrets)
    assert await settings.resolved(there, read) == {
        "url": "u",
        "key": "hunter2",
        "mail": {"host": "h", "passWord": "p4ss"},
    }
    assert shown(there, read) == {"url": "u", "key": "***", "mail": {"host": "h", "passWord": "***"}}
    change = await settings.plan(there, read, {"mail": None, "url": "v"})
    assert (change.plain, list(change.secrets), list(change.remove)) == ({"url": "v"}, ["key"], ["mail.passWord"])
    await settings.keep_secrets(there, change)
    assert stored(vault) == ["hunter2"]
    await settings.forget(entry(change.plain, *change.secrets))
    assert vault.secrets == {}


async def test_what_is_refused_writes_nothing() -> None:
    vault, read = DictVault(), manifest(settings=SCHEMA)
    with pytest.raises(SettingsRefused):
        await Settings(OwnSecrets(lambda: vault)).plan(entry(), read, {"key": "k", "nothing": 1})
    assert vault.secrets == {}


async def test_an_extension_without_secrets_asks_no_vault() -> None:
    def vault() -> Any:
        raise AssertionError("nobody needs it")

    read = manifest(settings={"type": "object", "properties": {"url": {"type": "string"}}})
    settings = Settings(OwnSecrets(vault))
    change = await settings.plan(entry(), read, {"url": "u"})
    await settings.keep_secrets(entry(), change)
    assert await settings.resolved(entry(change.plain), read) == {"url": "u"}


async def test_settings_of_another_version_are_left_out() -> None:
    read = manifest(settings={"type": "object", "properties": {"url": {"type": "string"}}})
    old = entry({"url": "u", "gone": 1})
    assert await Settings(OwnSecrets(DictVault)).resolved(old, read) == {"url": "u"}
    assert shown(old, read) == {"url": "u"}


_SETTING = st.from_regex(r"[a-z][A-Za-z0-9_]{0,59}", fullmatch=True)
_PATH = st.lists(_SETTING, min_size=1, max_size=5).map(".".join)


@calm
@given(st.from_regex(r"[a-z][a-z0-9]{0,39}", fullmatch=True), _PATH, _PATH)
def test_names_in_the_vault_are_names_and_differ(extension_id: str, one: str, other: str) -> None:
    name = vault_name(extension_id, one)
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,99}", name)
    assert name.startswith(f"extensions.{extension_id}.")
    assert (name == vault_name(extension_id, other)) == (one == other)
