"""Reloads of a real kernel: who takes what, in which order, what a refusal leaves behind, and what is told of it."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import pytest
from tests.unit.kernel.reloads import OPERATOR, Section, Witness, reloading, witness

from magmobo.contracts.component import Component, Context, Needs
from magmobo.contracts.errors import AuditUnavailable, ConfigError, ReloadRefused, Unavailable
from magmobo.contracts.events import ConfigReloaded, ConfigReloadFailed
from magmobo.contracts.settings import Effect
from magmobo.kernel.errors import NoFormerVersion, NotReady, NotSetAtRuntime, ReloadTakenBack
from magmobo.kernel.supervision.errors import NotNow
from magmobo.kernel.supervision.hooks import HookRunner
from magmobo.kernel.turns import Turns, hold_together
from magmobo.testing.harness import make_kernel

One, Two = witness("one"), witness("two")
HANG = {"kernel": {"reload_timeout_s": 0.05, "start_timeout_s": 0.05, "stop_timeout_s": 0.05}}


# ---------------------------------------------------------------- who takes what


async def test_a_live_key_is_taken_by_the_component_that_serves() -> None:
    async with reloading(One, Two, values={"one": {"level": 1}}) as scene:
        before = scene.component("one")
        outcome = await scene.reload({"one": {"level": 2}})
        assert (outcome.version, outcome.applied) == (2, True)
        assert (outcome.plan.live, outcome.plan.restarts, outcome.plan.waiting) == (["one"], [], [])
        assert scene.component("one") is before
        assert scene.section("one").level == scene.kernel.config.section("one").level == 2
        assert scene.hooks("one") == ["configure 1", "boot 1", "start 1", "prepare 2", "commit 2"]
        assert scene.component("one").changed == {"level"}
        assert scene.hooks("two") == ["configure 0", "boot 0", "start 0"]
        assert scene.told == [ConfigReloaded(version=2, changed_keys=["one.level"], trigger="command")]


async def test_a_key_without_a_mark_makes_the_component_anew() -> None:
    async with reloading(One, Two, values={"one": {"level": 1}}) as scene:
        former = scene.component("one")
        outcome = await scene.reload({"one": {"level": 1, "place": 5}})
        assert (outcome.plan.live, outcome.plan.restarts) == ([], ["one"])
        assert former.hooks[-2:] == ["stop 1", "shutdown 1"]
        assert scene.hooks("one") == ["configure 1", "boot 1", "start 1"]
        assert (scene.section("one").place, scene.state("one")) == (5, "running")
        assert scene.kernel.assembly.detail("one", "").restarts[-1].by == "reload"


async def test_a_key_for_the_node_keeps_its_running_value_and_says_so() -> None:
    async with reloading(One, values={"one": {"home": 1, "level": 1}}) as scene:
        outcome = await scene.reload({"one": {"home": 2, "level": 2}, "kernel": {"without": ["x"]}})
        assert outcome.plan.waiting == ["kernel.without", "one.home"]
        assert [change.effect for change in outcome.plan.changes] == [Effect.NODE, Effect.NODE, Effect.LIVE]
        assert scene.section("one") == scene.kernel.config.section("one") == Section(home=1, level=2)
        waiting = [entry.key for entry in scene.reloader.tree().entries if entry.waiting]
        assert waiting == ["kernel.without", "one.home"]
        assert any("one.home" in notice for notice in scene.kernel.status().notices)
        again = await scene.reload()
        assert (again.applied, again.version, again.plan.waiting) == (False, 2, ["kernel.without", "one.home"])


async def test_a_component_that_did_not_write_commit_has_no_live_keys() -> None:
    class Plain(Component):
        name = "plain"
        config_type = Section

        def configure(self, config: Section) -> None:
            self.section = config

    async with reloading(Plain) as scene:
        outcome = await scene.reload({"plain": {"level": 3}})
        assert (outcome.plan.live, outcome.plan.restarts) == ([], ["plain"])
        assert outcome.plan.changes[0].effect is Effect.COMPONENT
        component: Any = scene.kernel.assembly.board.slot("plain").component
        assert component.section.level == 3


async def test_nothing_changed_is_nothing_done() -> None:
    async with reloading(One, values={"one": {"level": 1}}) as scene:
        outcome = await scene.reload({"one": {"level": 1, "place": 0}})  # the default, now written down
        assert (outcome.applied, outcome.version, scene.told) == (False, 1, [])
        assert scene.hooks("one") == ["configure 1", "boot 1", "start 1"]
        entry = next(one for one in scene.reloader.tree("one.place").entries)
        assert entry.layer == "file"  # who says so is up to date all the same


async def test_components_that_do_not_run_are_made_anew_when_they_start() -> None:
    async with reloading(One, Two) as scene:
        await scene.kernel.stop_component("one")
        outcome = await scene.reload({"one": {"level": 4}, "two": {"level": 4}})
        assert outcome.applied
        assert (scene.state("one"), scene.section("one").level, scene.section("two").level) == ("stopped", 0, 4)
        former = scene.component("one")
        await scene.kernel.start_component("one")
        assert scene.component("one") is not former
        assert former.hooks[-1] == "shutdown 0"
        assert scene.hooks("one") == ["configure 4", "boot 4", "start 4"]


async def test_a_disabled_component_gets_the_section_that_counts_when_it_is_enabled() -> None:
    async with reloading(One, Two) as scene:
        await scene.kernel.disable_component("one")
        await scene.reload({"one": {"level": 7}})
        assert scene.state("one") == "disabled"
        await scene.kernel.enable_component("one")
        assert scene.section("one").level == 7


async def test_a_component_that_joined_later_keeps_its_section() -> None:
    async with reloading(One) as scene:
        await scene.kernel.register_component(Two, Section(level=9))
        assert (await scene.reload({"one": {"level": 1}})).applied
        assert scene.section("two").level == scene.kernel.config.section("two").level == 9


class Number(Protocol):
    async def number(self) -> int: ...


class Provider(Witness):
    name = "provider"
    provides = (Number,)

    async def number(self) -> int:
        return self.section.place


class Consumer(Witness):
    name = "consumer"

    def __init__(self, context: Context, number: Needs[Number]) -> None:
        super().__init__(context)
        self.number = number


async def test_providers_outlive_their_consumers_while_both_are_made_anew() -> None:
    async with reloading(Provider, Consumer) as scene:
        changes: list[tuple[str, str]] = []
        scene.kernel.bus.scoped("test").on(
            "component.state_changed", lambda envelope: changes.append((envelope.data.name, envelope.data.new_state))
        )
        await scene.reload({"provider": {"place": 5}, "consumer": {"place": 5}})
        ends = [change for change in changes if change[1] in ("stopped", "running")]
        assert ends == [
            ("consumer", "stopped"), ("provider", "stopped"), ("provider", "running"), ("consumer", "running")
        ]  # fmt: skip


async def test_calls_of_consumers_wait_while_their_provider_is_made_anew() -> None:
    async with reloading(Provider, Consumer) as scene:
        consumer = scene.component("consumer")
        assert isinstance(consumer, Consumer)
        assert await consumer.number.number() == 0
        change = asyncio.create_task(scene.reload({"provider": {"place": 5}}))
        answers = set()
        while not change.done():
            answers.add(await consumer.number.number())
            await asyncio.sleep(0)
        assert await consumer.number.number() == 5
        assert answers <= {0, 5}
        assert scene.component("consumer") is consumer


async def test_a_former_instance_leaves_nothing_behind() -> None:
    class Busy(Witness):
        name = "busy"

        async def start(self) -> None:
            self.context.spawn(asyncio.Event().wait(), name="forever")
            self.context.bus.on("config.*", lambda _: None)

        async def boot(self) -> None:
            self.context.spawn(asyncio.Event().wait(), name="of boot")
            await self.context.state.put("boots", 1)

    async with reloading(Busy) as scene:
        slot = scene.kernel.assembly.board.slot("busy")
        before = slot.footprint
        for place in range(1, 4):
            await scene.reload({"busy": {"place": place}})
        assert slot.footprint == before
        assert scene.kernel.bus.subscription_count("busy") == 1


# ---------------------------------------------------------------- refusals


async def test_a_refusal_changes_nothing_anywhere() -> None:
    async with reloading(One, Two, values={"one": {"level": 1}}) as scene:
        Witness.plans["two", "prepare", 5] = "refuse"
        with pytest.raises(ReloadRefused, match="two: level 5 is taken"):
            await scene.reload({"one": {"level": 5}, "two": {"level": 5}, "logging": {"level": "debug"}})
        assert scene.section("one").level == 1
        assert scene.kernel.config.section("logging").level == "info"
        assert scene.hooks("one")[-2:] == ["prepare 5", "abort 1"]
        assert scene.hooks("two")[-1] == "prepare 5"  # it raised, so it holds nothing
        [told] = scene.told
        assert isinstance(told, ConfigReloadFailed)
        assert told.changed_keys == ["logging.level", "one.level", "two.level"]
        assert "two: level 5 is taken" in scene.reloader.last_refusal
        assert scene.reloader.tree().refused == scene.reloader.last_refusal
        assert (scene.reloader.version, scene.reloader.counts["failed"]) == (1, 1)
        [record] = await scene.records("config.reload_failed")
        assert record["trigger"] == "command"
        assert (await scene.reload({"one": {"level": 2}})).version == 2
        assert scene.reloader.last_refusal == ""


async def test_every_refusal_is_told_at_once() -> None:
    async with reloading(One, Two) as scene:
        Witness.plans.update({("one", "prepare", 5): "refuse", ("two", "prepare", 5): "raise"})
        with pytest.raises(ReloadRefused) as refusal:
            await scene.reload({"one": {"level": 5}, "two": {"level": 5}})
        assert "one: level 5 is taken" in str(refusal.value)
        assert "two: LookupError: prepare of 5" in str(refusal.value)


async def test_a_component_that_hangs_while_it_gets_ready_refuses_and_lets_go() -> None:
    async with reloading(One, Two, values=HANG) as scene:
        Witness.plans["one", "prepare", 5] = "hang"
        with pytest.raises(ReloadRefused, match=r"one: prepare_reload .* did not finish within 0.05 s"):
            await scene.reload({**HANG, "one": {"level": 5}, "two": {"level": 5}})
        assert scene.hooks("one")[-2:] == ["prepare 5", "abort 0"]
        assert scene.hooks("two")[-1] == "abort 0"
        assert (scene.state("one"), scene.state("two")) == ("running", "running")


async def test_an_abort_that_fails_is_nobody_elses_concern() -> None:
    async with reloading(One, Two) as scene:
        Witness.plans.update({("one", "abort", 0): "raise", ("two", "prepare", 5): "refuse"})
        with pytest.raises(ReloadRefused):
            await scene.reload({"one": {"level": 5}, "two": {"level": 5}})
        assert scene.state("one") == "running"


async def test_a_component_that_fails_while_it_gets_ready_refuses() -> None:
    class Fragile(Witness):
        name = "fragile"

        async def prepare_reload(self, new: Section, changed: Any) -> None:
            async def crash() -> None:
                raise RuntimeError("its task crashed")

            self.context.spawn(crash(), name="crash")
            await asyncio.Event().wait()

    async with reloading(Fragile) as scene:
        with pytest.raises(ReloadRefused, match="its task crashed"):
            await scene.reload({"fragile": {"level": 5}})
        assert scene.state("fragile") == "failed"
        assert scene.hooks("fragile")[-1] == "abort 0"


async def test_mistakes_in_files_are_refused_and_told() -> None:
    async with reloading(One) as scene:
        with pytest.raises(ConfigError, match=r"one\.levle"):
            await scene.reload({"one": {"levle": 5}})
        scene.files.error = ConfigError(["mag.toml: cannot be read"])
        with pytest.raises(ConfigError):
            await scene.reload({"one": {"level": 5}})
        assert [type(event) for event in scene.told] == [ConfigReloadFailed] * 2
        assert "cannot be read" in scene.reloader.last_refusal
        assert scene.section("one").level == 0


# ---------------------------------------------------------------- what cannot be refused any more


async def test_a_commit_that_raises_makes_the_component_anew_with_the_new_settings() -> None:
    async with reloading(One, Two) as scene:
        Witness.plans["one", "commit", 5] = "raise"
        outcome = await scene.reload({"one": {"level": 5}, "two": {"level": 5}})
        assert outcome.applied
        assert scene.hooks("one") == ["configure 5", "boot 5", "start 5"]
        assert scene.hooks("two")[-1] == "commit 5"
        assert (scene.state("one"), scene.reloader.version) == ("running", 2)


async def test_who_fails_when_it_is_too_late_to_refuse_comes_back_with_the_new_settings() -> None:
    values = {"recovery": {"backoff_s": 0.01, "jitter": 0.0}}
    async with reloading(One, Two, values=values) as scene:
        former = scene.component("one")
        scene.files.values = {**values, "one": {"level": 5}, "two": {"place": 5}}
        change = asyncio.create_task(scene.reload())
        while scene.state("two") == "running":
            await asyncio.sleep(0)
        scene.crash("one")
        assert (await change).applied
        assert former.hooks[3:5] == ["prepare 5", "abort 0"]
        async with asyncio.timeout(20):
            while scene.state("one") != "running":
                await asyncio.sleep(0.01)
        assert scene.hooks("one") == ["configure 5", "boot 5", "start 5"]


@pytest.mark.parametrize("hook", ["configure", "boot", "start"])
async def test_a_component_that_does_not_come_up_takes_everything_back(hook: str) -> None:
    async with reloading(One, Two, values={"logging": {"level": "error"}}) as scene:
        Witness.plans["one", hook, 5] = "raise"
        with pytest.raises(ReloadTakenBack, match=rf"{hook} of 5") as error:
            await scene.reload({"one": {"level": 5, "place": 1}, "two": {"level": 5}, "logging": {"level": "debug"}})
        assert error.value.left == ()
        assert (scene.section("one"), scene.section("two")) == (Section(), Section())
        assert scene.kernel.config.section("logging").level == "error"
        assert (scene.state("one"), scene.state("two")) == ("running", "running")
        assert scene.hooks("two")[-4:] == ["prepare 5", "commit 5", "prepare 0", "commit 0"]
        assert [type(event) for event in scene.told] == [ConfigReloadFailed]
        assert scene.reloader.version == 1


async def test_who_cannot_take_its_former_settings_live_is_made_anew_with_them() -> None:
    async with reloading(One, Two) as scene:
        Witness.plans.update({("one", "boot", 5): "raise", ("two", "prepare", 0): "refuse"})
        with pytest.raises(ReloadTakenBack):
            await scene.reload({"one": {"level": 5, "place": 1}, "two": {"level": 5}})
        assert scene.hooks("two") == ["configure 0", "boot 0", "start 0"]
        assert (scene.state("one"), scene.state("two")) == ("running", "running")


async def test_who_does_not_come_up_with_its_former_settings_either_is_left_to_the_supervisor() -> None:
    async with reloading(One, values={"recovery": {"backoff_s": 0.01, "jitter": 0.0}}) as scene:
        Witness.plans.update({("one", "boot", 5): "raise", ("one", "boot", 0): "raise"})
        with pytest.raises(ReloadTakenBack) as error:
            await scene.reload({**scene.files.values, "one": {"level": 5, "place": 1}})
        assert error.value.left == ("one",)
        del Witness.plans["one", "boot", 0]
        async with asyncio.timeout(20):
            while scene.state("one") != "running":
                await asyncio.sleep(0.01)
        assert scene.section("one") == Section()


async def test_a_stop_that_fails_or_hangs_does_not_keep_the_new_settings_out() -> None:
    async with reloading(One, Two, values=HANG) as scene:
        Witness.plans.update({("one", "stop", 0): "raise", ("two", "stop", 0): "hang", ("two", "shutdown", 0): "raise"})
        outcome = await scene.reload({**HANG, "one": {"place": 1}, "two": {"place": 1}})
        assert outcome.applied
        assert (scene.section("one").place, scene.section("two").place) == (1, 1)
        Witness.plans.clear()


# ---------------------------------------------------------------- one at a time, and to its end


async def test_reloads_wait_for_each_other() -> None:
    async with reloading(One) as scene:
        scene.files.values = {"one": {"level": 1}}
        outcomes = await asyncio.gather(*(scene.reload() for _ in range(3)))
        assert [outcome.applied for outcome in outcomes] == [True, False, False]
        assert scene.hooks("one").count("commit 1") == 1


async def test_a_caller_that_goes_away_leaves_nothing_half_done() -> None:
    async with reloading(One, Two) as scene:
        scene.files.values = {"one": {"level": 1}, "two": {"place": 1}}
        caller = asyncio.create_task(scene.reload())
        while "prepare 1" not in scene.hooks("one"):
            await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert not (await scene.reload()).applied  # it waited for the one that went on
        assert (scene.section("one").level, scene.section("two").place) == (1, 1)
        assert scene.reloader.version == 2


async def test_an_operators_restart_waits_and_finds_the_new_settings() -> None:
    async with reloading(One) as scene:
        scene.files.values = {"one": {"place": 3}}
        change = asyncio.create_task(scene.reload())
        while scene.state("one") == "running":
            await asyncio.sleep(0)
        await scene.kernel.restart_component("one")
        assert (await change).applied
        assert (scene.section("one").place, scene.state("one")) == (3, "running")


async def test_who_has_taken_its_settings_is_free_while_others_are_made_anew() -> None:
    gate = asyncio.Event()

    class Slow(Witness):
        name = "slow"

        async def boot(self) -> None:
            if self.section.place:
                await gate.wait()

    async with reloading(One, Slow) as scene:
        scene.files.values = {"one": {"level": 5}, "slow": {"place": 5}}
        change = asyncio.create_task(scene.reload())
        while scene.state("slow") != "starting":
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await scene.kernel.restart_component("one")
        assert scene.hooks("one")[-2:] == ["stop 5", "start 5"]
        gate.set()
        assert (await change).applied


async def test_nobody_is_held_while_another_is_waited_for() -> None:
    free, busy = (Turns(name, HookRunner(name)) for name in ("free", "busy"))
    async with busy.next():
        holding = asyncio.create_task(hold_together([free, busy]))
        await asyncio.sleep(0)
        assert not free.is_taken
        async with asyncio.timeout(30), free.next():
            pass
    await holding
    assert (free.is_held, busy.is_held) == (True, True)
    busy.let_go()
    async with busy.next(for_good_s=1.0):
        pass
    free.let_go()
    with pytest.raises(NotNow):
        await hold_together([free, busy])
    assert not free.is_taken


async def test_a_shutdown_during_a_reload_ends_it() -> None:
    async with reloading(One, Two) as scene:
        scene.files.values = {"one": {"level": 1}, "two": {"level": 1}}
        Witness.plans["one", "prepare", 1] = "hang"
        change = asyncio.create_task(scene.reload())
        while "prepare 1" not in scene.hooks("two"):
            await asyncio.sleep(0)
        await scene.kernel.shutdown()
        with pytest.raises(Unavailable):
            await change
        assert "abort 0" in scene.hooks("two")
        assert scene.kernel.config.section("one").level == 0


async def test_a_reset_during_a_reload_ends_it_and_boots_what_counts() -> None:
    async with reloading(One, Two) as scene:
        Witness.plans["one", "boot", 1] = "hang"
        scene.files.values = {"one": {"level": 1, "place": 1}, "two": {"level": 1}}
        change = asyncio.create_task(scene.reload())
        while "boot 1" not in scene.hooks("one"):
            await asyncio.sleep(0)
        await scene.kernel.reset()
        with pytest.raises(Unavailable):
            await change
        assert (scene.section("one"), scene.section("two")) == (Section(), Section())
        Witness.plans.clear()
        assert (await scene.reload()).applied


async def test_nothing_is_changed_while_the_node_is_not_ready() -> None:
    async with reloading(One) as scene:
        reset = asyncio.create_task(scene.kernel.reset())
        await asyncio.sleep(0)
        with pytest.raises((NotReady, Unavailable)):
            await scene.reload({"one": {"level": 1}})
        await reset
        assert (await scene.reload()).applied


# ---------------------------------------------------------------- asking first


async def test_a_dry_run_asks_and_changes_nothing() -> None:
    async with reloading(One, Two) as scene:
        outcome = await scene.reload({"one": {"level": 5}, "two": {"place": 5}}, dry_run=True)
        assert (outcome.applied, outcome.version) == (False, 1)
        assert (outcome.plan.live, outcome.plan.restarts) == (["one"], ["two"])
        assert scene.hooks("one")[-2:] == ["prepare 5", "abort 0"]
        assert scene.hooks("two") == ["configure 0", "boot 0", "start 0"]
        Witness.plans["one", "prepare", 5] = "refuse"
        with pytest.raises(ReloadRefused):
            await scene.reload(dry_run=True)
        assert (scene.told, scene.reloader.last_refusal) == ([], "")
        assert scene.kernel.config.section("one").level == 0
        Witness.plans.clear()
        await scene.reload({"security": {"redact_emails": True}}, dry_run=True)
        assert not scene.kernel.services.known.hides_emails


async def test_a_diff_asks_nobody() -> None:
    async with reloading(One) as scene:
        scene.files.values = {"one": {"level": 5}}
        plan = await scene.reloader.diff()
        assert [(one.key, one.old, one.new) for one in plan.changes] == [("one.level", 0, 5)]
        assert scene.hooks("one") == ["configure 0", "boot 0", "start 0"]
        await scene.reload()
        back = await scene.reloader.diff(1)
        assert [(one.key, one.old, one.new) for one in back.changes] == [("one.level", 5, 0)]


# ---------------------------------------------------------------- the node itself


async def test_core_settings_count_without_a_restart() -> None:
    heard: list[Any] = []
    async with reloading(One, on_core_change=lambda config, changed: heard.append((config, changed))) as scene:
        kernel = scene.kernel
        outcome = await scene.reload(
            {
                "kernel": {"start_timeout_s": 7.0, "stop_timeout_s": 3.0},
                "health": {"interval_s": 2.0},
                "recovery": {"restarts": 1},
                "observability": {"events_kept": 5, "loop_stall_s": 9.0},
                "security": {"audit_checkpoint_every": 7, "redact_emails": True},
                "cache": {"memory_bytes": 1000},
                "logging": {"level": "debug"},
            }
        )
        assert (outcome.plan.live, outcome.plan.waiting) == (["core"], [])
        deadlines = kernel.assembly.supervisor.deadlines
        assert (deadlines.start_s, deadlines.stop_s) == (7.0, 3.0)
        assert kernel.assembly.supervisor.budget_left("one") == 1
        [(config, changed)] = heard
        assert config is kernel.config
        assert "logging.level" in changed
        for level in range(1, 10):
            await scene.reload({**scene.files.values, "one": {"level": level}})
        assert len(kernel.bus.history.page(0, 100)[0]) <= 5
        assert kernel.services.known.hides_emails
        assert kernel.services.caches.memory._limit_bytes == 1000


async def test_history_can_be_turned_off_and_on_again() -> None:
    async with reloading(One) as scene:
        await scene.reload({"observability": {"events_kept": 0}})
        await scene.reload({"observability": {"events_kept": 0}, "one": {"level": 1}})
        assert scene.kernel.bus.history.page(0, 100)[0] == []
        await scene.reload({"one": {"level": 2}})
        topics = [envelope.topic for _, envelope in scene.kernel.bus.history.page(0, 100)[0]]
        assert "config.reloaded" in topics


async def test_what_the_process_raises_when_it_is_told_keeps_nobody_from_the_new_settings() -> None:
    def fail(config: Any, changed: Any) -> None:
        raise RuntimeError("broken")

    async with reloading(One, on_core_change=fail) as scene:
        assert (await scene.reload({"one": {"level": 1}, "logging": {"level": "debug"}})).applied
        assert scene.section("one").level == 1


# ---------------------------------------------------------------- set, unset, rollback, secrets


async def test_a_key_is_set_and_unset() -> None:
    async with reloading(One, values={"one": {"level": 1}}) as scene:
        outcome = await scene.reloader.set("one.level", "5", None, actor=OPERATOR)
        assert (outcome.applied, scene.section("one").level) == (True, 5)
        [entry] = scene.reloader.tree("one.level").entries
        assert (entry.layer, entry.origin, entry.value) == ("override", "override by uid:1000", 5)
        await scene.reload({"one": {"level": 2}})  # the files change below it
        assert scene.section("one").level == 5
        await scene.reloader.unset("one.level", actor=OPERATOR)
        assert scene.section("one").level == 2
        with pytest.raises(NotSetAtRuntime, match=r"mag\.toml"):
            await scene.reloader.unset("one.level", actor=OPERATOR)


async def test_setting_a_key_never_reads_files() -> None:
    async with reloading(One, values={"one": {"level": 1}}) as scene:
        scene.files.values = {"one": {"level": 1, "place": 9}}  # an edit that nobody has reloaded yet
        await scene.reloader.set("one.level", "5", None, actor=OPERATOR)
        assert scene.section("one") == Section(level=5)


async def test_a_wrong_value_is_refused_and_is_no_refusal_of_a_reload() -> None:
    async with reloading(One) as scene:
        for key, value in (("one.level", "many"), ("one.levle", "1"), ("on.level", "1")):
            with pytest.raises(ConfigError):
                await scene.reloader.set(key, value, None, actor=OPERATOR)
        assert scene.reloader.last_refusal == ""
        assert (await scene.reloader.set("one.level", "5", None, actor=OPERATOR, dry_run=True)).applied is False
        assert scene.section("one").level == 0


async def test_a_rollback_counts_until_the_files_change() -> None:
    async with reloading(One, values={"one": {"level": 1}}) as scene:
        await scene.reload({"one": {"level": 2}})
        outcome = await scene.reloader.rollback(None, actor=OPERATOR)
        assert (outcome.version, scene.section("one").level, scene.reloader.tree().held) == (3, 1, True)
        assert not (await scene.reload()).applied  # the files say what they said
        assert scene.section("one").level == 1
        await scene.reloader.set("one.name", "x", None, actor=OPERATOR)
        assert (scene.section("one").level, scene.reloader.tree().held) == (1, True)
        await scene.reload({"one": {"level": 3}})
        assert (scene.section("one").level, scene.reloader.tree().held) == (3, False)
        triggers = [(one.version, one.trigger, one.running) for one in scene.reloader.history(10).versions]
        assert triggers == [
            (5, "command", True), (4, "patch", False), (3, "rollback", False), (2, "command", False), (1, "boot", False)
        ]  # fmt: skip


async def test_a_rollback_to_what_the_files_say_holds_nothing() -> None:
    async with reloading(One, values={"one": {"level": 1}}) as scene:
        await scene.reloader.set("one.level", "2", None, actor=OPERATOR)
        await scene.reloader.rollback(1, actor=OPERATOR)
        assert (scene.section("one").level, scene.reloader.tree().held) == (1, False)


async def test_there_may_be_nothing_to_go_back_to() -> None:
    async with reloading(One) as scene:
        for version in (None, 7):
            with pytest.raises(NoFormerVersion):
                await scene.reloader.rollback(version, actor=OPERATOR)
        assert scene.told == []


async def test_secrets_are_read_on_record_or_not_at_all() -> None:
    async with reloading(One, values={"admin": {"token_sha256": "0" * 64}}) as scene:
        scene.files.secrets["token"] = "1" * 64
        await scene.reload({"admin": {"token_sha256": "vault:token"}})
        assert await scene.records("secret.read") == [
            {"reference": "vault:token", "version": 1, "setting": "admin.token_sha256"}
        ]
        scene.files.secrets["token"] = "2" * 64
        outcome = await scene.reloader.secrets_changed(["token"], actor=OPERATOR)
        assert [one.key for one in outcome.plan.changes] == ["admin.token_sha256"]
        assert outcome.plan.changes[0].new == "***"
        assert scene.kernel.config.section("admin").token_sha256.reveal() == "2" * 64
        await scene.kernel.services.audit.close()
        scene.files.secrets["token"] = "3" * 64
        with pytest.raises(AuditUnavailable):
            await scene.reloader.secrets_changed(["token"], actor=OPERATOR)
        assert scene.kernel.config.section("admin").token_sha256.reveal() == "2" * 64


async def test_secrets_of_the_first_settings_are_on_record_once() -> None:
    values = {"admin": {"token_sha256": "vault:token"}}
    async with reloading(One, values=values, secrets={"token": "1" * 64}) as scene:
        await scene.kernel.reset()
        assert await scene.records("secret.read") == [
            {"reference": "vault:token", "version": 1, "setting": "admin.token_sha256"}
        ]


async def test_a_kernel_without_a_source_keeps_its_settings(tmp_path: Any) -> None:
    kernel = make_kernel(One, data_dir=tmp_path)
    await kernel.boot()
    try:
        with pytest.raises(Unavailable):
            _ = kernel.reloader
        assert kernel.config.section("one") == Section()
    finally:
        await kernel.shutdown()


async def test_figures_tell_of_reloads() -> None:
    async with reloading(One) as scene:
        await scene.reload({"one": {"level": 1}})
        text = scene.kernel.services.metrics.exposition()[1].decode()
        assert 'mag_config_reloads_total{result="applied"} 1.0' in text
        assert 'mag_config_version_info{version="2"} 1.0' in text


def test_a_commit_that_is_a_coroutine_is_refused() -> None:
    from magmobo.kernel.errors import BadDeclaration
    from magmobo.kernel.registry import declare

    class Late(Witness):
        name = "late"

        async def commit_reload(self) -> None:  # type: ignore[override]
            """Would never run."""

    with pytest.raises(BadDeclaration, match="commit_reload"):
        declare(Late)
