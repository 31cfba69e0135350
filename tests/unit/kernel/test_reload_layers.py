"""Each layer of what is set at run time must be valid without those above it, or something could never end."""

from __future__ import annotations

import asyncio
from typing import Annotated

import pytest
from msgspec import Struct
from tests.unit.kernel.reloads import OPERATOR, Scene, Section, Witness, reloading, witness
from tests.unit.kernel.test_reload_probation import FUSE_S, settled, until

from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.errors import ConfigError
from magmobo.contracts.secret import Secret
from magmobo.contracts.settings import LIVE
from magmobo.kernel.config.source import Runtime, RuntimeSetting
from magmobo.testing.clock import FakeClock

ADMIN = Actor(name="uid:0", role=Role.ADMIN, via="control")
One = witness("one")


class Pair(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    low: Annotated[int, LIVE] = 0
    high: Annotated[int, LIVE] = 10
    level: int = 0

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


class Kept(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    key: Secret | None = None
    level: int = 0


def said(**values: str) -> Runtime:
    return Runtime({key.replace("_", ".", 1): RuntimeSetting(value, "uid:1000", 0.0) for key, value in values.items()})


async def refused(scene: Scene, key: str, value: str, ttl_s: float | None = None) -> str:
    before = scene.section("one")
    with pytest.raises(ConfigError) as caught:
        await scene.reloader.set(key, value, ttl_s, actor=OPERATOR)
    assert scene.section("one") is before
    return str(caught.value)


async def test_a_patch_hides_no_wrong_override() -> None:
    clock = FakeClock()
    async with reloading(One, clock=clock) as scene:
        await scene.reloader.set("one.level", "5", 10.0, actor=OPERATOR)
        assert "override by uid:1000" in await refused(scene, "one.level", "many")
        await scene.reloader.set("one.level", "3", None, actor=OPERATOR)
        assert scene.section("one").level == 5, "the patch counts until it ends"
        await clock.advance(11)
        await ended(scene)
        assert scene.section("one").level == 3


async def ended(scene: Scene) -> None:
    """A patch has ended by itself."""
    await until(scene, "expiry")
    await settled(scene)
    scene.told.clear()


async def test_what_stands_on_a_patch_must_not_outlast_it() -> None:
    """Two keys that are valid together only: whichever ends first leaves something valid."""
    pair = witness("one", config_type=Pair)
    clock = FakeClock()
    async with reloading(pair, clock=clock) as scene:
        await scene.reloader.set("one.high", "20", 60.0, actor=OPERATOR)
        assert "low" in await refused(scene, "one.low", "15", 90.0)
        assert "low" in await refused(scene, "one.low", "15", None)
        await scene.reloader.set("one.low", "15", 30.0, actor=OPERATOR)
        await clock.advance(31)
        await ended(scene)
        await clock.advance(31)
        await ended(scene)
        assert (scene.section("one").low, scene.section("one").high) == (0, 10)  # type: ignore[attr-defined]


@pytest.mark.parametrize("ttl_s", [None, 600.0])
async def test_a_file_that_is_wrong_below_what_was_set_is_refused_as_at_a_start(ttl_s: float | None) -> None:
    async with reloading(One) as scene:
        await scene.reloader.set("one.level", "5", ttl_s, actor=OPERATOR)
        with pytest.raises(ConfigError, match=r"mag\.toml"):
            await scene.reload({"one": {"level": "many", "name": "new"}})
        assert scene.section("one") == Section(level=5)
        assert (await scene.reload({"one": {"level": 1, "name": "new"}})).applied
        assert scene.section("one") == Section(level=5, name="new")


async def test_secrets_below_a_patch_are_read_on_record_too() -> None:
    keeper = witness("keeper", config_type=Kept)
    async with reloading(keeper, secrets={"a": "s1", "b": "s2"}) as scene:
        await scene.reloader.set("keeper.key", "vault:a", None, actor=ADMIN)
        await scene.reloader.set("keeper.key", "vault:b", 60.0, actor=ADMIN)
        read = [str(record["reference"]) for record in await scene.records("secret.read")]
        assert read == ["vault:a", "vault:b", "vault:a"]


# ---------------------------------------------------------------- a safe start


async def test_a_safe_start_goes_on_without_what_was_set_until_somebody_sets_something() -> None:
    runtime = said(one_level="9", one_name="set")
    async with reloading(One, runtime=runtime, start={"leaves_out": True}) as scene:
        [line] = scene.reloader.notices()
        assert "one.level, one.name" in line
        await scene.reload({"one": {"level": 1}})
        assert scene.section("one") == Section(level=1)
        await scene.reloader.secrets_changed(["x"], actor=OPERATOR)
        await scene.reloader.unset("one.level", actor=OPERATOR)
        assert scene.section("one") == Section(level=1)
        assert "one.level" not in scene.reloader.notices()[0]
        await scene.reloader.set("one.level", "4", None, actor=OPERATOR)
        assert scene.section("one") == Section(level=4, name="set")
        assert scene.reloader.notices() == []


async def test_settings_that_are_refused_by_now_are_taken_back_one_by_one() -> None:
    clock = FakeClock()
    runtime = said(one_level="many", one_place="there")
    runtime = Runtime(runtime.overrides, {"one.name": RuntimeSetting("x", "uid:1000", 0.0, clock.time_s() + 5)})
    async with reloading(One, runtime=runtime, start={"leaves_out": True}, clock=clock) as scene:
        assert (await scene.reload({"one": {"level": 1}})).applied, "what is left out refuses nothing"
        await clock.advance(6)
        await settled(scene)
        assert await scene.records("config.patch_expired") == [{"keys": ["one.name"]}]
        for key in ("one.level", "one.place"):
            assert not (await scene.reloader.unset(key, actor=OPERATOR)).applied
        assert (await scene.reloader.set("one.level", "4", None, actor=OPERATOR)).applied


async def test_a_version_that_is_held_is_remembered_by_a_safe_start_and_not_said_to_count() -> None:
    start = {"leaves_out": True, "held_digest": "files", "held_version": 7, "last_version": 7}
    async with reloading(One, start=start) as scene:
        assert not scene.reloader.tree().held
        assert scene.reloader.notices() == []


# ---------------------------------------------------------------- what is told of a refusal


async def test_a_file_that_was_refused_stays_a_notice_while_other_things_change() -> None:
    async with reloading(One) as scene:
        with pytest.raises(ConfigError):
            await scene.reload({"one": {"level": "many"}})
        assert (await scene.reloader.set("one.name", "x", None, actor=OPERATOR)).applied
        assert "one.level" in scene.reloader.last_refusal
        assert not (await scene.reload({"one": {}})).applied
        assert (scene.reloader.last_refusal, scene.reloader.notices()) == ("", [])


async def test_a_patch_that_cannot_end_is_told_once_however_often_it_is_tried() -> None:
    clock = FakeClock()
    async with reloading(One, clock=clock) as scene:
        await scene.reloader.set("one.level", "5", 10.0, actor=OPERATOR)
        Witness.plans["one", "prepare", 0] = "refuse"
        await clock.advance(11)
        await ended(scene)
        for tries in range(2, 5):
            await clock.advance(31)
            await reached(scene, tries)
        assert len(await scene.records("config.reload_failed")) == 1
        assert (scene.told, "is taken" in scene.reloader.last_refusal) == ([], True)
        Witness.plans.clear()
        await clock.advance(31)
        await ended(scene)
        assert (scene.section("one").level, scene.reloader.last_refusal) == (0, "")


async def reached(scene: Scene, failed: int) -> None:
    """So many changes failed."""
    async with asyncio.timeout(FUSE_S):
        while scene.reloader.counts["failed"] < failed:
            await asyncio.sleep(0.001)
    await settled(scene)
