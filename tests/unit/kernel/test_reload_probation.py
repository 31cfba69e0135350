"""What happens by itself after a reload: settings that do harm are taken back, patches end, versions are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import structs
from tests.unit.kernel.reloads import OPERATOR, Scene, Section, Witness, reloading, witness

from magmobo.contracts.configuration import ConfigVersion
from magmobo.contracts.errors import StateUnavailable
from magmobo.contracts.events import ConfigReloaded, ConfigReloadFailed
from magmobo.contracts.health import HealthCheck, HealthReport, HealthStatus
from magmobo.kernel.config.source import Base, Runtime, RuntimeSetting
from magmobo.kernel.config.versions import Held, Kept, Snapshot
from magmobo.kernel.errors import NoFormerVersion
from magmobo.kernel.probation import Probation
from magmobo.testing.clock import FakeClock

One, Two = witness("one"), witness("two")
SICK = HealthReport.of(HealthCheck("answers", HealthStatus.UNHEALTHY, "none"))
RECOVERING = {"recovery": {"backoff_s": 1.0, "jitter": 0.0}}
FUSE_S = 10.0


async def until(scene: Scene, trigger: str) -> Any:
    """The first event of a reload with this trigger; durable stores work in threads, so turns alone do not bring it."""
    async with asyncio.timeout(FUSE_S):
        while True:
            for event in scene.told:
                if getattr(event, "trigger", "") == trigger:
                    return event
            await asyncio.sleep(0.001)


async def settled(scene: Scene) -> None:
    """Nothing is under way any more."""
    async with asyncio.timeout(FUSE_S):
        while scene.reloader._turnover._chores or scene.reloader._turnover._turn.locked():
            await asyncio.sleep(0.001)


async def test_settings_with_which_a_component_fails_are_taken_back() -> None:
    clock = FakeClock()
    async with reloading(One, Two, values=RECOVERING, clock=clock) as scene:
        await scene.reload({**RECOVERING, "one": {"level": 5}})
        await clock.advance(10)
        scene.crash("one")
        await until(scene, "probation")
        await settled(scene)
        assert scene.kernel.config.section("one").level == 0
        assert scene.reloader.tree().held
        assert not (await scene.reload()).applied  # the files still say 5
        [record] = await scene.records("config.rolled_back")
        assert (record["version"], record["to"]) == (2, 1)
        assert "crashed" in record["reason"]
        newest = scene.reloader.history(1).versions[0]
        assert (newest.version, newest.trigger) == (3, "probation")
        assert "crashed" in newest.note
        await clock.advance(2)
        assert (scene.state("one"), scene.section("one").level) == ("running", 0)


async def test_settings_with_which_a_component_is_unhealthy_are_taken_back_soon() -> None:
    clock = FakeClock()
    values = {"health": {"interval_s": 3600.0, "on_unhealthy": "report", "failures": 2}}
    async with reloading(One, Two, values=values, clock=clock) as scene:
        await clock.advance(1)
        await scene.reload({**values, "one": {"level": 5}})
        scene.component("two").report = SICK
        await clock.advance(5)  # asked each second now, not each hour
        await until(scene, "probation")
        assert scene.kernel.config.section("one").level == 0


async def test_a_shorter_interval_of_health_counts_at_once() -> None:
    clock = FakeClock()
    values = {"health": {"interval_s": 3600.0, "on_unhealthy": "report", "failures": 2}}
    async with reloading(One, values=values, clock=clock) as scene:
        await clock.advance(1)
        await scene.reload({"health": {**values["health"], "interval_s": 5.0}, "kernel": {"reload_window_s": 0.0}})
        scene.component("one").report = SICK
        await clock.advance(12)
        assert scene.kernel.state == "degraded"


async def test_who_was_unwell_before_tells_nothing_against_the_settings() -> None:
    clock = FakeClock()
    values = {"health": {"interval_s": 1.0, "on_unhealthy": "report", "failures": 1}}
    async with reloading(One, Two, values=values, clock=clock) as scene:
        scene.component("two").report = SICK
        await clock.advance(3)
        await scene.reload({**values, "one": {"level": 5}})
        scene.crash("two")
        await clock.advance(20)
        await settled(scene)
        assert scene.section("one").level == 5


async def test_what_fails_after_the_window_is_no_fault_of_the_settings() -> None:
    clock = FakeClock()
    async with reloading(One, Two, clock=clock) as scene:
        await scene.reload({"one": {"level": 5}})
        await clock.advance(31)
        scene.crash("two")
        await clock.advance(20)
        await settled(scene)
        assert scene.section("one").level == 5


async def test_a_window_of_nothing_never_takes_back() -> None:
    clock = FakeClock()
    values = {"kernel": {"reload_window_s": 0.0}}
    async with reloading(One, values=values, clock=clock) as scene:
        await scene.reload({**values, "one": {"level": 5}})
        scene.crash("one")
        await clock.advance(20)
        await settled(scene)
        assert scene.kernel.config.section("one").level == 5


async def test_what_was_taken_back_is_not_on_probation() -> None:
    clock = FakeClock()
    async with reloading(One, Two, values=RECOVERING, clock=clock) as scene:
        await scene.reload({**RECOVERING, "one": {"level": 5}})
        scene.crash("one")
        await until(scene, "probation")
        await settled(scene)
        scene.crash("two")
        await clock.advance(20)
        await settled(scene)
        assert (scene.reloader.version, scene.kernel.config.section("one").level) == (3, 0)


async def test_a_refused_reload_leaves_the_one_before_it_on_probation_and_unblamed() -> None:
    clock = FakeClock()
    async with reloading(One, Two, values=RECOVERING, clock=clock) as scene:
        await scene.reload({**RECOVERING, "one": {"level": 5}})
        Witness.plans["two", "boot", 6] = "raise"
        with pytest.raises(Exception, match="boot of 6"):
            await scene.reload({**RECOVERING, "one": {"level": 5}, "two": {"level": 6, "place": 1}})
        await settled(scene)
        assert (scene.reloader.version, scene.section("one").level) == (2, 5)
        scene.crash("one")
        await until(scene, "probation")
        await settled(scene)
        assert scene.kernel.config.section("one").level == 0


async def test_nobody_can_refuse_what_is_taken_back() -> None:
    clock = FakeClock()
    async with reloading(One, Two, values=RECOVERING, clock=clock) as scene:
        await scene.reload({**RECOVERING, "one": {"level": 5}, "two": {"level": 5}})
        Witness.plans["two", "prepare", 0] = "refuse"
        scene.crash("one")
        await until(scene, "probation")
        await settled(scene)
        assert scene.section("two").level == 0
        assert scene.hooks("two") == ["configure 0", "boot 0", "start 0"]


async def test_a_patch_that_does_harm_is_taken_back_and_holds_nothing() -> None:
    clock = FakeClock()
    async with reloading(One, Two, clock=clock) as scene:
        await scene.reloader.set("one.level", "5", 600.0, actor=OPERATOR)
        scene.crash("two")
        await until(scene, "probation")
        await settled(scene)
        assert (scene.section("one").level, scene.reloader.tree().held) == (0, False)


async def test_who_fails_while_others_are_made_anew_tells_against_the_settings() -> None:
    gate = asyncio.Event()

    class Slow(Witness):
        name = "slow"

        async def boot(self) -> None:
            await super().boot()
            if self.section.place:
                await gate.wait()

    clock = FakeClock()
    async with reloading(One, Slow, values=RECOVERING, clock=clock) as scene:
        scene.files.values = {**RECOVERING, "one": {"level": 5}, "slow": {"place": 5}}
        change = asyncio.create_task(scene.reload())
        while "boot 0" not in scene.hooks("slow") or scene.section("slow").place == 0:
            await asyncio.sleep(0)
        scene.crash("one")
        gate.set()
        assert (await change).applied
        await until(scene, "probation")
        await settled(scene)
        assert scene.kernel.config.section("slow").place == 0
        assert "crashed" in scene.reloader.history(1).versions[0].note


async def test_who_becomes_unhealthy_while_others_are_made_anew_tells_against_the_settings() -> None:
    gate = asyncio.Event()

    class Slow(Witness):
        name = "slow"

        async def boot(self) -> None:
            await super().boot()
            if self.section.place:
                await gate.wait()

    clock = FakeClock()
    values = {"health": {"interval_s": 1.0, "on_unhealthy": "report", "failures": 1}}
    async with reloading(One, Slow, values=values, clock=clock) as scene:
        await clock.advance(3)
        scene.files.values = {**values, "one": {"level": 5}, "slow": {"place": 5}}
        change = asyncio.create_task(scene.reload())
        while "boot 0" not in scene.hooks("slow") or scene.section("slow").place == 0:
            await asyncio.sleep(0)
        scene.component("one").report = SICK
        await clock.advance(3)
        gate.set()
        assert (await change).applied
        await until(scene, "probation")
        await settled(scene)
        assert "unhealthy" in scene.reloader.history(1).versions[0].note


async def test_a_later_change_is_not_taken_back_for_what_failed_before_it() -> None:
    clock = FakeClock()
    async with reloading(One, Two, values=RECOVERING, clock=clock) as scene:
        await scene.reload({**RECOVERING, "one": {"level": 5}})
        scene.files.values = {**RECOVERING, "one": {"level": 6}}
        change = asyncio.create_task(scene.reload())
        await asyncio.sleep(0)  # it reads the files
        scene.crash("two")
        assert (await change).version == 3
        await settled(scene)
        assert (scene.reloader.version, scene.section("one").level) == (3, 6)
        scene.crash("one")
        await until(scene, "probation")
        await settled(scene)
        assert (scene.reloader.version, scene.kernel.config.section("one").level) == (4, 5)


async def test_a_probation_tells_once_and_leaves_nothing_behind() -> None:
    clock, told = FakeClock(), list[str]()
    async with reloading(One, Two, clock=clock) as scene:
        await scene.reload()
        bus, before = scene.kernel.bus, scene.kernel.bus.subscription_count("kernel")
        probation = Probation(bus, clock, told.append)
        probation.begin(scene.kernel.assembly, {"one", "two"}, 30.0)
        assert bus.subscription_count("kernel") == before + 2
        scene.crash("one")
        scene.crash("two")
        assert len(told) == 1
        assert bus.subscription_count("kernel") == before


# ---------------------------------------------------------------- patches


async def test_a_patch_ends_by_itself_and_on_record() -> None:
    clock = FakeClock()
    async with reloading(One, values={"one": {"level": 1}}, clock=clock) as scene:
        await scene.reloader.set("one.level", "2", None, actor=OPERATOR)
        await scene.reloader.set("one.level", "5", 600.0, actor=OPERATOR)
        [entry] = scene.reloader.tree("one.level").entries
        assert (entry.layer, entry.expires_at) == ("patch", "2023-11-14T22:23:20.000+00:00")
        await clock.advance(599)
        assert scene.section("one").level == 5
        await clock.advance(2)
        event = await until(scene, "expiry")
        await settled(scene)
        assert event == ConfigReloaded(version=4, changed_keys=["one.level"], trigger="expiry")
        assert scene.section("one").level == 2  # the override below it counts again
        assert await scene.records("config.patch_expired") == [{"keys": ["one.level"]}]


async def test_a_patch_whose_end_is_refused_is_tried_again() -> None:
    clock = FakeClock()
    async with reloading(One, clock=clock) as scene:
        await scene.reloader.set("one.level", "5", 10.0, actor=OPERATOR)
        Witness.plans["one", "prepare", 0] = "refuse"
        await clock.advance(11)
        assert isinstance(await until(scene, "expiry"), ConfigReloadFailed)
        await settled(scene)
        assert "level 0 is taken" in scene.reloader.last_refusal
        await clock.advance(10)
        await settled(scene)
        assert len(scene.told) == 2  # it was set, its end was refused, and nobody runs in circles
        Witness.plans.clear()
        scene.told.clear()
        await clock.advance(40)
        assert isinstance(await until(scene, "expiry"), ConfigReloaded)
        await settled(scene)
        assert scene.section("one").level == 0


async def test_a_patch_ends_although_the_wall_clock_was_stepped() -> None:
    clock = FakeClock()
    async with reloading(One, clock=clock) as scene:
        await scene.reloader.set("one.level", "5", 86_400.0, actor=OPERATOR)
        clock.step_wall_time(86_400.0)
        await clock.advance(31)
        await until(scene, "expiry")


async def test_the_shorter_of_two_patches_ends_first() -> None:
    clock = FakeClock()
    async with reloading(One, clock=clock) as scene:
        await scene.reloader.set("one.level", "5", 25.0, actor=OPERATOR)
        await scene.reloader.set("one.name", "x", 5.0, actor=OPERATOR)
        await clock.advance(6)
        await until(scene, "expiry")
        await settled(scene)
        assert scene.section("one") == Section(level=5)


# ---------------------------------------------------------------- versions


class Shelf:
    """`Versions` in memory; `error` is raised by whatever writes."""

    def __init__(self, kept: Kept | None = None) -> None:
        self.kept = kept or Kept()
        self.metas: list[ConfigVersion] = []
        self.snapshots: dict[int, Snapshot] = {}
        self.error: Exception | None = None
        self.runtimes: list[Runtime] = []

    def read_runtime(self) -> Kept:
        return self.kept

    async def keep_runtime(self, runtime: Runtime, held: Held | None) -> None:
        if self.error is not None:
            raise self.error
        self.kept = structs.replace(self.kept, runtime=runtime, held=held)
        self.runtimes.append(runtime)

    async def add(self, meta: ConfigVersion, base: Base, runtime: Runtime) -> None:
        if self.error is not None:
            raise self.error
        assert all(meta.version > one.version for one in self.metas)
        self.metas.insert(0, meta)
        self.snapshots[meta.version] = Snapshot(base, runtime)

    async def list(self, limit: int) -> Sequence[ConfigVersion]:
        return [structs.replace(one, running=False) for one in self.metas[:limit]]

    async def holds(self, version: int, base: Base, runtime: Runtime) -> bool:
        known = self.snapshots[version]
        return (known.base.digest, known.runtime) == (base.digest, runtime)

    async def snapshot(self, version: int) -> Snapshot:
        return self.snapshots[version]


async def test_versions_outlive_the_node() -> None:
    shelf = Shelf()
    async with reloading(One, values={"one": {"level": 1}}, versions=shelf) as scene:
        await scene.reload({"one": {"level": 2}})
        await scene.reloader.set("one.name", "x", None, actor=OPERATOR)
    assert [(one.version, one.trigger) for one in shelf.metas] == [(3, "patch"), (2, "command"), (1, "boot")]
    assert set(shelf.kept.runtime.overrides) == {"one.name"}
    async with reloading(One, values={"one": {"level": 9}}, versions=shelf, start={"last_version": 3}) as scene:
        await scene.reloader.rollback(2, actor=OPERATOR)
        assert (scene.reloader.version, scene.section("one").level) == (5, 2)
        assert shelf.kept.held is not None
        assert shelf.kept.held.version == 2


async def test_a_start_with_what_counted_last_is_no_new_version() -> None:
    shelf = Shelf()
    for _ in range(3):
        last = shelf.metas[0].version if shelf.metas else 0
        async with reloading(One, values={"one": {"level": 1}}, versions=shelf, start={"last_version": last}) as scene:
            await scene.reload()
            assert scene.reloader.version == 1
    assert len(shelf.metas) == 1


async def test_so_many_versions_are_kept_and_no_more() -> None:
    values = {"kernel": {"config_versions": 2}}
    async with reloading(One, values=values) as scene:
        for level in range(1, 5):
            await scene.reload({**values, "one": {"level": level}})
        assert [one.version for one in scene.reloader.history(10).versions] == [5, 4]
        with pytest.raises(NoFormerVersion):
            await scene.reloader.rollback(3, actor=OPERATOR)
        await scene.reloader.rollback(None, actor=OPERATOR)
        assert scene.section("one").level == 3


async def test_a_held_start_stays_held_while_the_files_say_the_same() -> None:
    async with reloading(One, values={"one": {"level": 1}}, start={"held_version": 4, "held_digest": "old"}) as scene:
        assert scene.reloader.tree().held
        assert any("version 4" in notice for notice in scene.kernel.status().notices)
        await scene.reload({"one": {"level": 2}})
        assert (scene.reloader.tree().held, scene.section("one").level) == (False, 2)


async def test_a_disk_that_cannot_be_written_costs_the_way_back_and_says_so() -> None:
    shelf = Shelf()
    async with reloading(One, versions=shelf) as scene:
        await scene.reload()
        shelf.error = StateUnavailable("no room")
        assert (await scene.reload({"one": {"level": 5}})).applied
        assert scene.section("one").level == 5
        newest = scene.reloader.history(1).versions[0]
        assert (newest.version, newest.restorable) == (2, False)
        assert any("no room" in notice for notice in scene.reloader.notices())
        shelf.error = None
        await scene.reload({"one": {"level": 6}})
        assert not any("no room" in notice for notice in scene.reloader.notices())


async def test_a_patch_that_was_kept_ends_after_the_restart() -> None:
    clock = FakeClock()
    patch = RuntimeSetting("5", "uid:1", clock.time_s(), clock.time_s() + 10)
    async with reloading(One, runtime=Runtime(patches={"one.level": patch}), clock=clock) as scene:
        assert scene.section("one").level == 5
        async with asyncio.timeout(FUSE_S):
            while not clock.sleeping or scene.kernel.settings.reloader_in_use is None:
                await asyncio.sleep(0.001)
        await settled(scene)
        await clock.advance(11)
        await until(scene, "expiry")
        assert scene.section("one").level == 0


async def test_a_patch_that_ended_while_the_node_was_away_is_on_record_once() -> None:
    shelf = Shelf()
    async with reloading(One, versions=shelf, start={"expired": ["one.level"]}) as scene:
        await scene.reloader.noted()
        await settled(scene)
        assert await scene.records("config.patch_expired") == [{"keys": ["one.level"]}]
        assert shelf.runtimes == [Runtime()]  # so that the next start knows nothing of it
