"""Somebody who may patch settings does not become more by it: neither an admin, nor one who reads files and secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Struct
from tests.unit.kernel.reloads import OPERATOR, reloading, witness

from magmobo.cli.configdocs import all_sections, settings_of
from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.errors import ConfigError
from magmobo.contracts.secret import Secret
from magmobo.contracts.settings import ADMINS_ONLY, AUTHORITY, LIVE
from magmobo.kernel.config.authority import is_reserved, reserved, said_anew, set_anew
from magmobo.kernel.config.overlay import Overlaid, put
from magmobo.kernel.config.source import Base, Runtime, RuntimeSetting
from magmobo.kernel.security.errors import CapabilityDenied

ADMIN = Actor(name="uid:0", role=Role.ADMIN, via="control")
HASH, OTHER_HASH = "a" * 64, "b" * 64


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str = ""


class Around(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    level: int = 0
    script: Annotated[str, ADMINS_ONLY] = ""


class Door(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    level: Annotated[int, LIVE] = 0
    host: Annotated[str, LIVE, ADMINS_ONLY] = "localhost"
    dsn: Annotated[Secret | None, LIVE] = None
    passwords: dict[str, Secret] = {}
    tables: Annotated[tuple[Table, ...] | None, LIVE, ADMINS_ONLY] = None
    limits: dict[str, int] = {}
    notes: dict[str, str] = {}
    inner: Annotated[Table, ADMINS_ONLY] = Table()
    around: Around = Around()
    many: dict[str, Around] = {}


DoorWitness = witness("door", config_type=Door, _act_now=lambda self, hook, section: self.hooks.append(hook))

RESERVED = (
    ("door.host", "0.0.0.0"),
    ("door.dsn", "vault:other"),
    ("door.dsn", "file:/etc/passwd"),
    ("door.dsn", "env:HOME"),
    ("door.dsn", "postgres://app:${file:/etc/passwd}@elsewhere.example/db"),
    ("door.tables", "[]"),
    ("door.inner", "{}"),
    ("door.inner.name", "x"),
    ("door.around", '{"level": 1}'),
    ("door.around.script", "x"),
    ("door.many", "{}"),
    ("door.many.a", "{}"),
    ("door.many.a.script", "x"),
    ("door.passwords", "{}"),
    ("door.passwords.a", "vault:a"),
    ("admin.token_sha256", "vault:mine"),
    ("admin.host", "0.0.0.0"),
    ("kernel.components", '["os:system"]'),
    ("vault.address", "https://elsewhere.example"),
    ("security.audit_checkpoint_every", "100000"),
)


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(("key", "value"), RESERVED)
async def test_an_operator_sets_no_key_for_admins(key: str, value: str, dry_run: bool) -> None:
    async with reloading(DoorWitness) as scene:
        builds = scene.files.builds
        with pytest.raises(CapabilityDenied) as denied:
            await scene.reloader.set(key, value, 60, actor=OPERATOR, dry_run=dry_run)
        with pytest.raises(CapabilityDenied):
            await scene.reloader.unset(key, actor=OPERATOR, dry_run=dry_run)
        assert (denied.value.capability, denied.value.least_role) == (AUTHORITY, "admin")
        assert scene.files.builds == builds, "no reference was followed"
        assert scene.told == []
        assert scene.reloader.last_refusal == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [("door.level", "3"), ("door.limits.x", "3"), ("door.around.level", "3"), ("health.interval_s", "5")],
)
async def test_an_operator_sets_the_others(key: str, value: str) -> None:
    async with reloading(DoorWitness) as scene:
        assert (await scene.reloader.set(key, value, None, actor=OPERATOR)).applied


async def test_a_component_that_may_patch_needs_more_for_such_a_key() -> None:
    may_patch = Actor(
        name="component:x", role=Role.ADMIN, via="component", capabilities=frozenset({"kernel.config.patch"})
    )
    may_more = msgspec.structs.replace(may_patch, capabilities=frozenset({"kernel.config.patch", AUTHORITY}))
    async with reloading(DoorWitness) as scene:
        with pytest.raises(CapabilityDenied):
            await scene.reloader.set("door.host", "h", None, actor=may_patch)
        assert (await scene.reloader.set("door.host", "h", None, actor=may_more)).applied


async def test_who_breaks_the_glass_is_let_through_and_heard() -> None:
    hurried = msgspec.structs.replace(OPERATOR, justification="the host moved")
    async with reloading(DoorWitness) as scene:
        heard: list[Any] = []
        scene.kernel.bus.scoped("test").on("security.*", lambda envelope: heard.append(envelope.data.capability))
        assert (await scene.reloader.set("door.host", "h", None, actor=hurried)).applied
        assert heard == [AUTHORITY]


async def test_what_stands_under_a_name_that_sounds_secret_is_not_on_record() -> None:
    async with reloading(DoorWitness) as scene:
        run = scene.kernel.services.commands.run
        for key in ("door.notes.password", "door.nothing.x", "door.dsn"):
            params = msgspec.json.encode({"key": key, "value": "zXq83-planted-Kp"})
            with suppress(ConfigError):
                await run("config:set", params, actor=ADMIN)
        records = await scene.kernel.services.audit.read(after_seq=0, limit=1_000)
        assert [record.payload["params"]["value"] for record in records if "params" in record.payload] == ["***"] * 3
        assert "planted" not in str(records)


def test_a_thousand_overrides_are_not_each_compared_with_all_others() -> None:
    looked = 0

    class Origins(dict[str, str]):
        def __iter__(self) -> Iterator[str]:
            nonlocal looked
            looked += 1
            return super().__iter__()

    found = Overlaid({"door": {"notes": {"k": "v"}}}, Origins(), {})
    for number in range(1_000):
        assert put(found, f"door.notes.k{number}", "x", "test", "override")
    assert looked == 0
    assert put(found, "door.notes", {}, "test", "override")
    assert looked == 1
    assert list(found.origins) == ["door.notes"]


# ---------------------------------------------------------------- rollback


async def test_a_rollback_gives_no_revoked_token_back_to_an_operator() -> None:
    async with reloading(DoorWitness, values={"admin": {"token_sha256": HASH}}) as scene:
        await scene.reload({"admin": {"token_sha256": OTHER_HASH}}, actor=ADMIN)
        with pytest.raises(CapabilityDenied) as denied:
            await scene.reloader.rollback(1, actor=OPERATOR)
        assert denied.value.context == "config:rollback of admin.token_sha256"
        assert (scene.reloader.version, scene.reloader.last_refusal) == (2, "")
        assert (await scene.reloader.rollback(1, actor=ADMIN)).applied


async def test_a_rollback_brings_back_no_setting_of_run_time_for_admins() -> None:
    async with reloading(DoorWitness, values={"door": {"host": "h"}}) as scene:
        await scene.reloader.set("door.host", "x", None, actor=ADMIN)
        await scene.reloader.unset("door.host", actor=ADMIN)
        with pytest.raises(CapabilityDenied):
            await scene.reloader.rollback(2, actor=OPERATOR)
        # The value that counts is the same; that a later edit of the file counts no more is what an override changes.
        await scene.reload({"door": {"host": "x"}})
        with pytest.raises(CapabilityDenied):
            await scene.reloader.rollback(2, actor=OPERATOR)


async def test_a_rollback_of_other_keys_is_for_operators() -> None:
    values = {"door": {"host": "h", "dsn": "vault:x", "level": 1}, "admin": {"token_sha256": HASH}}
    async with reloading(DoorWitness, values=values, secrets={"x": "sesame"}) as scene:
        await scene.reload({**values, "door": {**values["door"], "level": 2}})
        assert (await scene.reloader.rollback(None, actor=OPERATOR)).applied


# ---------------------------------------------------------------- what is compared


def test_differences_below_and_above_the_files_are_found() -> None:
    def base(values: Mapping[str, Any]) -> Base:
        return Base(values, {}, {}, "")

    assert said_anew(base({"a": {"b": 1, "c": {"d": [1]}}}), base({"a": {"b": 1, "c": {"d": [1]}}})) == set()
    assert said_anew(base({"a": {"b": 1, "c": {"d": [1]}}}), base({"a": {"b": 2, "e": {}}})) == {"a.b", "a.c.d"}
    assert said_anew(base({"a": {"b": {"c": 1}}}), base({"a": {"b": 1}})) == {"a.b", "a.b.c"}
    one, later = RuntimeSetting("1", "x", 0.0, 5.0), RuntimeSetting("1", "y", 1.0, 9.0)
    assert set_anew(Runtime(patches={"a.b": one}), Runtime(patches={"a.b": one})) == set()
    assert set_anew(Runtime(patches={"a.b": one}), Runtime(patches={"a.b": later})) == {"a.b"}
    assert set_anew(Runtime(overrides={"a.b": one}), Runtime(patches={"a.b": one})) == {"a.b"}
    assert reserved({"door.host", "door", "door.level", "nothing.host", "door.nothing"}, {"door": Door}) == [
        "door.host"
    ]


def test_every_key_that_opens_something_is_reserved() -> None:
    """A new setting that opens something belongs here, and wants the mark."""
    found = {
        row.key
        for name, section in all_sections().items()
        for row in settings_of(section, name)
        if is_reserved(section, row.key.partition(".")[2].replace("[]", "[0]"))
    }
    sections = {key.partition(".")[0] for key in found}
    assert sections == {
        "kernel",
        "admin",
        "security",
        "cache",
        "extensions",
        "vault",
        "listener",
        "magds",
        "maggate",
        "magws",
        "demo",
    }
    assert found >= {
        "kernel.components", "kernel.data_dir", "kernel.environment", "admin.token_sha256", "admin.host", "admin.port",
        "security.audit_checkpoint_every", "security.redact_emails", "cache.redis_url", "vault.driver", "vault.key",
        "vault.passphrase", "vault.address", "vault.ca_path", "vault.token", "vault.mount", "vault.path",
        "listener.host", "listener.allowed_hosts", "magds.dsn", "magds.bin_dir", "magds.system_dir", "maggate.schemas",
        "extensions.system_dir",
        "maggate.anonymous_role", "maggate.jwt.secret", "maggate.jwt.public_key", "maggate.jwt.algorithms",
        "maggate.jwt.role_claim", "maggate.cors_origins", "magws.apps[].secret", "magws.apps[].client_events",
        "magws.tables[].access", "magws.tables[].rls", "demo.jwt_secret",
    }  # fmt: skip
    assert not found & {"maggate.max_rows", "magds.pool_size", "listener.port", "kernel.watch_files", "logging.level"}
