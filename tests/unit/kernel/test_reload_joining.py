"""Components that join a running node by name: their settings, and what a reload does with them afterwards."""

from __future__ import annotations

import pytest
from msgspec import Struct
from tests.unit.kernel.reloads import Section, Witness, reloading, witness
from tests.unit.kernel.test_reload_layers import ADMIN, Kept

from magmobo.contracts.errors import ConfigError, MagError
from magmobo.kernel.errors import RegistryError, ReloadTakenBack

One, Two = witness("one"), witness("two")
Keeper = witness("keeper", config_type=Kept)


class Other(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section of somebody else."""

    level: int = 77


async def test_who_joins_takes_its_own_settings_and_no_other_of_an_edit() -> None:
    async with reloading(One, joining=[Two]) as scene:
        scene.files.values = {"one": {"level": 5}, "two": {"level": 9}}
        with pytest.raises(ConfigError, match="two"):
            await scene.reload()
        assert await scene.kernel.register_source("two") == "two"
        assert (scene.section("two").level, scene.section("one").level) == (9, 0)
        [entry] = scene.reloader.tree("two.level").entries
        assert (entry.value, entry.layer, entry.origin) == (9, "file", "mag.toml")
        await scene.reloader.set("one.name", "x", None, actor=ADMIN)
        assert scene.section("two").level == 9, "a change elsewhere does not forget them"
        await scene.reload()
        assert (scene.section("two").level, scene.section("one").level) == (9, 5)
        await scene.reload({"two": {"level": 10}})
        assert scene.section("two").level == scene.kernel.config.section("two").level == 10


async def test_who_joins_takes_what_was_set_at_run_time_too() -> None:
    async with reloading(One, joining=[Two]) as scene:
        await scene.kernel.register_source("two")
        await scene.reloader.set("two.level", "3", None, actor=ADMIN)
        await scene.kernel.unregister_component("two")
        await scene.kernel.register_source("two")
        assert scene.section("two").level == 3


async def test_a_reload_that_is_taken_back_leaves_who_joined_as_it_was() -> None:
    async with reloading(One, joining=[Two]) as scene:
        scene.files.values = {"two": {"level": 9}}
        await scene.kernel.register_source("two")
        Witness.plans["one", "boot", 7] = "raise"
        with pytest.raises(ReloadTakenBack):
            await scene.reload({"one": {"level": 7, "place": 1}, "two": {"level": 1}})
        assert scene.section("two").level == scene.kernel.config.section("two").level == 9
        assert (await scene.reload({"two": {"level": 2}})).applied
        assert scene.section("two").level == 2


async def test_so_does_one_that_was_given_its_section() -> None:
    async with reloading(One) as scene:
        assert scene.reloader.version, "it is made before somebody joins"
        await scene.kernel.register_component(Two, Section(level=9))
        Witness.plans["one", "boot", 7] = "raise"
        with pytest.raises(ReloadTakenBack):
            await scene.reload({"one": {"level": 7, "place": 1}})
        assert scene.kernel.config.section("two").level == 9


async def test_the_secrets_of_who_joins_are_on_record_and_known_before_it_is_made() -> None:
    async with reloading(One, joining=[Keeper], secrets={"pin": "correct horse battery"}) as scene:
        scene.files.values = {"keeper": {"key": "vault:pin"}}
        await scene.kernel.register_source("keeper")
        record = {"reference": "vault:pin", "version": 1, "setting": "keeper.key"}
        assert await scene.records("secret.read") == [record]
        assert [read.key for read in scene.reloader.reads] == ["keeper.key"]
        assert "horse" not in str(scene.kernel.services.known.value("it is correct horse battery"))
        await scene.kernel.unregister_component("keeper")
        await scene.kernel.register_source("keeper")
        assert [read.key for read in scene.reloader.reads] == ["keeper.key"]
        await scene.kernel.unregister_component("keeper")
        await scene.kernel.services.audit.close()
        with pytest.raises(MagError):
            await scene.kernel.register_source("keeper")
        assert "keeper" not in scene.kernel.assembly.board.slots


async def test_who_cannot_join_changes_no_settings() -> None:
    namesake = witness("one", config_type=Other)
    async with reloading(One, joining=[namesake, Two]) as scene:
        with pytest.raises(RegistryError):
            await scene.kernel.register_source("one")
        assert (await scene.reload({"one": {"level": 4}})).applied
        assert scene.section("one") == Section(level=4)
        scene.files.values = {"one": {"level": 4}, "two": {"level": "many"}}
        with pytest.raises(ConfigError, match=r"two\.level"):
            await scene.kernel.register_source("two")
        assert "two" not in scene.kernel.config.sections
