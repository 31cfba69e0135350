"""The commands about the vault: the real command bus, gate, stores and file; only the settings are a stand-in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import json, to_builtins
from tests.unit.kernel.vault_parts import KEY, Around, around, file_of, put, vault_in

from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.configuration import ConfigChange, ReloadOutcome, ReloadPlan
from magmobo.contracts.errors import AuditUnavailable, MagError, ReloadRefused, SecretUnknown
from magmobo.contracts.planes import SecretInfo
from magmobo.contracts.settings import Effect
from magmobo.kernel.commands.bus import CommandBus
from magmobo.kernel.commands.errors import CommandMalformed
from magmobo.kernel.config.core import VaultConfig
from magmobo.kernel.config.source import SecretRead
from magmobo.kernel.secrets import SecretOperations
from magmobo.kernel.security.errors import CapabilityDenied
from magmobo.kernel.security.gate import Gate
from magmobo.kernel.vault.errors import (
    RekeyRefused,
    SecretDenied,
    SecretInUse,
    SecretNotTaken,
    SecretRefused,
    VaultKeyWrong,
    VaultReplayed,
)

ADMIN = Actor(name="uid:0", role=Role.ADMIN, via="control")
OPERATOR = Actor(name="uid:1", role=Role.OPERATOR, via="control")


class Settings:
    """Settings that take what the vault holds, unless it begins with `bad`."""

    def __init__(self, *reads: SecretRead) -> None:
        self.version, self.reads = 1, reads
        self.taken: dict[str, str] = {}
        self.told: list[Collection[str]] = []
        self.node: Around | None = None
        self.waiting: tuple[str, ...] = ()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def secrets_changed(self, names: Collection[str], *, actor: Actor) -> ReloadOutcome:
        assert self.node is not None
        self.told.append(names)
        await self.may_go_on.wait()
        news = {}
        for read in self.reads:
            name, _, pin = read.reference.removeprefix("vault:").partition("@")
            if read.reference.startswith("vault:"):
                news[read.key], _ = await self.node.store.read(name, int(pin) if pin else None)
        if refused := [key for key, text in news.items() if text.startswith("bad")]:
            raise ReloadRefused(f"{refused[0]} does not work")
        changed = [key for key, text in news.items() if self.taken.get(key) != text]
        self.taken, self.version = news, self.version + 1
        changes = [ConfigChange(key, "***", "***", "vault", Effect.LIVE, is_secret=True) for key in changed]
        return ReloadOutcome(self.version, True, ReloadPlan(changes, waiting=self.waiting))


class Bench:
    def __init__(self, node: Around, settings: Settings, bus: CommandBus) -> None:
        self.node, self.settings, self.bus = node, settings, bus

    async def ask(self, command: str, *, actor: Actor = ADMIN, dry_run: bool = False, **params: Any) -> Any:
        """As it comes over the control socket."""
        answer = await self.bus.run(command, json.encode(params), actor=actor, dry_run=dry_run)
        return json.decode(answer)

    async def versions(self, name: str) -> dict[int, str]:
        [info] = [info for info in await self.node.store.infos() if info.name == name]
        return {version: (await self.node.store.read(name, version))[0] for version in info.versions}


@asynccontextmanager
async def bench(
    data_dir: Path, *reads: SecretRead, config: VaultConfig | None = None, accept_old: bool = False
) -> AsyncIterator[Bench]:
    async with around(data_dir, config) as node:
        settings = Settings(*reads)
        settings.node = node
        bus = CommandBus(gate=Gate(lambda _: None), audit=node.audit, state=node.states.scope("commands"))
        SecretOperations(node.store, lambda: settings, accept_old=accept_old).register(bus.scoped("vault", ADMIN))
        try:
            yield Bench(node, settings, bus)
        finally:
            await bus.close()


DSN = SecretRead("magds.dsn", "vault:db")


async def test_a_secret_is_stored_listed_and_never_shown(tmp_path: Path) -> None:
    async with bench(tmp_path, SecretRead("magds.dsn", "vault:db", 1), SecretRead("a.b", "env:X")) as it:
        answer = await it.ask("vault:set", entry="db", value="postgres://hidden")
        assert answer["info"]["version"] == 1
        assert answer["reloaded"] == []
        contents = await it.ask("vault:list")
        assert contents["driver"] == "local"
        assert contents["key_source"] == "secrets/vault.key in the data folder"
        [use] = contents["secrets"]
        assert (use["info"]["name"], use["keys"]) == ("db", ["magds.dsn"])
        records = await it.node.audit.read(after_seq=0, limit=100)
        assert [record.action for record in records] == ["secret.write"] * 2
        assert "hidden" not in str([answer, contents, [to_builtins(record) for record in records]])


async def test_settings_take_a_new_version_at_once(tmp_path: Path) -> None:
    put(vault_in(tmp_path), db="old", other="x")
    async with bench(tmp_path, DSN, SecretRead("cache.redis_url", "vault:db")) as it:
        it.settings.waiting = ("cache.redis_url",)
        answer = await it.ask("vault:set", entry="db", value="new")
        assert answer["reloaded"] == ["magds.dsn"]
        assert answer["config_version"] == 2
        assert it.settings.taken["magds.dsn"] == "new"
        await it.ask("vault:set", entry="other", value="y")
        await it.ask("vault:set", entry="unheard_of", value="z")
        assert it.settings.told == [["db"]], "settings that do not take it are not asked"


async def test_a_secret_with_the_name_of_a_setting_is_told_when_it_is_new(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        await it.ask("vault:set", entry="magds.dsn", value="x")
        assert it.settings.told == [["magds.dsn"]]
        it.settings.reads = (SecretRead("maggate.jwt.secret", "vault:maggate.jwt.secret"),)
        with pytest.raises(SecretNotTaken, match=r"maggate\.jwt\.secret is removed again"):
            await it.ask("vault:set", entry="maggate.jwt.secret", value="bad")
        assert [info.name for info in await it.node.store.infos()] == ["magds.dsn"]


@pytest.mark.parametrize("kept", [1, 10])
async def test_what_settings_refuse_does_not_count_and_is_not_lost(tmp_path: Path, kept: int) -> None:
    config = VaultConfig(versions=kept)
    put(vault_in(tmp_path, config), db="good")
    async with bench(tmp_path, DSN, config=config) as it:
        with pytest.raises(SecretNotTaken, match=r"magds\.dsn does not work.*as db version 3") as caught:
            await it.ask("vault:set", entry="db", value="bad one")
        assert "`mag vault:rotate db --version 2`" in caught.value.next_step()
        assert caught.value.exit_code == 5
        assert (await it.node.store.read("db")) == ("good", 3)
        if kept > 1:
            assert await it.versions("db") == {1: "good", 2: "bad one", 3: "good"}
            with pytest.raises(SecretNotTaken):
                await it.ask("vault:rotate", entry="db", version=2)
        assert "bad one" not in str(caught.value)


async def test_a_refused_version_that_cannot_be_taken_back_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(vault_in(tmp_path), db="good")
    async with bench(tmp_path, DSN) as it:
        write, calls = it.node.vault.write, []

        def once(*args: Any, **named: Any) -> Sequence[SecretInfo]:
            calls.append(args)
            if len(calls) > 1:
                raise VaultKeyWrong("a disk on fire")
            return write(*args, **named)

        monkeypatch.setattr(it.node.vault, "write", once)
        with pytest.raises(SecretNotTaken, match=r"could not be taken back .*a disk on fire"):
            await it.ask("vault:set", entry="db", value="bad")


async def test_one_change_is_over_before_the_next_begins(tmp_path: Path) -> None:
    """Else what counted before the one would be taken back over the other."""
    put(vault_in(tmp_path), db="good")
    async with bench(tmp_path, DSN) as it:
        it.settings.may_go_on.clear()
        first = asyncio.create_task(it.ask("vault:set", entry="db", value="bad"))
        second = asyncio.create_task(it.ask("vault:set", entry="db", value="better"))
        while not it.settings.told:
            await asyncio.sleep(0)
        it.settings.may_go_on.set()
        with pytest.raises(SecretNotTaken):
            await first
        await second
        assert it.settings.taken == {"magds.dsn": "better"}
        assert list((await it.versions("db")).values()) == ["good", "bad", "good", "better"]


async def test_a_change_whose_caller_left_is_still_told_and_taken_back(tmp_path: Path) -> None:
    put(vault_in(tmp_path), db="good")
    async with bench(tmp_path, DSN) as it:
        it.settings.may_go_on.clear()
        asked = asyncio.create_task(it.ask("vault:set", entry="db", value="bad"))
        while not it.settings.told:
            await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        it.settings.may_go_on.set()
    assert vault_in(tmp_path).read("db") == ("good", 3)


# ---------------------------------------------------------------- rotate


async def test_rotate_makes_a_secret_that_nobody_has_seen(tmp_path: Path) -> None:
    put(vault_in(tmp_path), token="old")
    async with bench(tmp_path) as it:
        answer = await it.ask("vault:rotate", entry="token")
        made = (await it.node.store.read("token"))[0]
        assert len(made) == 43
        assert made not in str(answer)
        await it.ask("vault:rotate", entry="token", size_bytes=128)
        assert len((await it.node.store.read("token"))[0]) == 171
        assert made in it.node.learnt


async def test_rotate_takes_a_value_or_an_older_version(tmp_path: Path) -> None:
    put(vault_in(tmp_path), db="one")
    async with bench(tmp_path, DSN) as it:
        assert (await it.ask("vault:rotate", entry="db", value="two"))["info"]["version"] == 2
        assert (await it.ask("vault:rotate", entry="db", version=1))["reloaded"] == ["magds.dsn"]
        assert await it.versions("db") == {1: "one", 2: "two", 3: "one"}
        for params in ({"entry": "nobody"}, {"entry": "db", "version": 9}, {"entry": "nobody", "value": "x"}):
            with pytest.raises(SecretUnknown):
                await it.ask("vault:rotate", **params)
        with pytest.raises(SecretRefused):
            await it.ask("vault:rotate", entry="db", value="x", version=1)
        assert len(await it.versions("db")) == 3


async def test_a_version_that_settings_name_stays_however_often_it_is_rotated(tmp_path: Path) -> None:
    config = VaultConfig(versions=2)
    put(vault_in(tmp_path, config), db="one")
    async with bench(tmp_path, SecretRead("magds.dsn", "vault:db@1", 1), config=config) as it:
        for _ in range(4):
            await it.ask("vault:rotate", entry="db")
        assert sorted(await it.versions("db")) == [1, 4, 5]
        assert it.settings.told == [], "a setting that names a version takes no other"
        with pytest.raises(SecretInUse, match=r"magds\.dsn"):
            await it.ask("vault:remove", entry="db")


# ---------------------------------------------------------------- remove, import, rekey


async def test_remove_forgets_unless_a_setting_takes_it(tmp_path: Path) -> None:
    put(vault_in(tmp_path), db="x", old="y")
    async with bench(tmp_path, DSN) as it:
        assert [use["info"]["name"] for use in (await it.ask("vault:remove", entry="old"))["secrets"]] == ["db"]
        with pytest.raises(SecretInUse):
            await it.ask("vault:remove", entry="db")
        with pytest.raises(SecretUnknown):
            await it.ask("vault:remove", entry="old")
        assert sorted(await it.versions("db")) == [1]


async def test_import_stores_what_is_new_and_leaves_what_is_the_same(tmp_path: Path) -> None:
    put(vault_in(tmp_path), db="old", same="s")
    secrets = {"db": "new", "same": "s", "more": "m"}
    expected = {"added": ["more"], "changed": ["db"], "same": ["same"]}
    async with bench(tmp_path, DSN) as it:
        mark = it.node.vault.mark()
        assert await it.ask("vault:import", dry_run=True, entries=secrets) == expected | {"reloaded": []}
        assert it.node.vault.mark() == mark
        assert await it.ask("vault:import", entries=secrets) == expected | {"reloaded": ["magds.dsn"]}
        again = await it.ask("vault:import", entries=secrets)
        assert again == {"added": [], "changed": [], "same": ["db", "more", "same"], "reloaded": []}
        assert {info.name: info.version for info in await it.node.store.infos()} == {"db": 2, "more": 1, "same": 1}
        records = await it.node.audit.read(after_seq=0, limit=100)
        assert "'new'" not in str([to_builtins(record) for record in records])


async def test_an_import_that_is_refused_takes_back_what_settings_follow(tmp_path: Path) -> None:
    put(vault_in(tmp_path), db="good")
    async with bench(tmp_path, DSN) as it:
        with pytest.raises(SecretNotTaken):
            await it.ask("vault:import", entries={"db": "bad", "more": "m"})
        assert await it.node.store.read("db") == ("good", 3)
        assert await it.node.store.read("more") == ("m", 1)


async def test_an_import_with_one_bad_secret_stores_none(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        for secrets in ({"ok": "x", "BAD NAME": "y"}, {"ok": "x", "empty": ""}, {}):
            with pytest.raises((CommandMalformed, SecretRefused)):
                await it.ask("vault:import", entries=secrets)
        assert not file_of(tmp_path).exists()


async def test_rekey_keeps_the_secrets_and_needs_a_key_of_its_own(tmp_path: Path) -> None:
    put(vault_in(tmp_path), db="x")
    before = (tmp_path / "secrets" / "vault.key").read_bytes()
    async with bench(tmp_path) as it:
        assert len((await it.ask("vault:rekey"))["secrets"]) == 1
        assert await it.node.store.read("db") == ("x", 1)
    assert (tmp_path / "secrets" / "vault.key").read_bytes() != before
    async with bench(tmp_path, config=VaultConfig(key=KEY)) as it:
        await it.ask("vault:rekey")
        with pytest.raises(RekeyRefused):
            await it.ask("vault:rekey")


@pytest.mark.parametrize("accept_old", [True, False])
async def test_only_where_no_node_runs_rekey_takes_an_older_vault(tmp_path: Path, *, accept_old: bool) -> None:
    async with bench(tmp_path) as it:
        await it.ask("vault:set", entry="db", value="x")
    file_of(tmp_path).unlink()
    async with bench(tmp_path, accept_old=accept_old) as it:
        if accept_old:
            assert (await it.ask("vault:rekey"))["secrets"] == []
            return
        with pytest.raises(VaultReplayed):
            await it.ask("vault:rekey")


# ---------------------------------------------------------------- who may


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("vault:set", {"entry": "db", "value": "new"}),
    ("vault:rotate", {"entry": "db"}),
    ("vault:remove", {"entry": "db"}),
    ("vault:import", {"entries": {"db": "new"}}),
    ("vault:rekey", {}),
]


@pytest.mark.parametrize(("command", "params"), CHANGES, ids=[command for command, _ in CHANGES])
async def test_changes_are_for_admins_and_are_on_record_or_do_not_happen(
    tmp_path: Path, command: str, params: dict[str, Any]
) -> None:
    put(vault_in(tmp_path), db="x")
    async with bench(tmp_path) as it:
        before = it.node.vault.mark()
        with pytest.raises(CapabilityDenied):
            await it.ask(command, actor=OPERATOR, **params)
        assert [use["info"]["name"] for use in (await it.ask("vault:list", actor=OPERATOR))["secrets"]] == ["db"]
        await it.node.audit.close()
        with pytest.raises(AuditUnavailable):
            await it.ask(command, **params)
        assert it.node.vault.mark() == before


async def test_names_are_checked_where_bytes_enter(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        for name in ("", "A", "a/b", "a\n", "x" * 101):
            with pytest.raises(CommandMalformed):
                await it.ask("vault:set", entry=name, value="x")


@pytest.mark.parametrize(
    "error",
    [SecretNotTaken("r", "o", [SecretInfo("a", 1, (1,), "", "")]), SecretNotTaken("r", "o", ()),
     SecretInUse("a", ["k"]), SecretRefused("r", "a"), SecretRefused("r"), RekeyRefused("r"), SecretDenied("c", "a")],
)  # fmt: skip
def test_errors_survive_another_process(error: MagError) -> None:
    import pickle

    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.next_step()) == (str(error), error.next_step())
