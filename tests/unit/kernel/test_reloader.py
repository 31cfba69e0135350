"""Reloads of a real kernel: who takes what, in which order, and what is told of it."""

from __future__ import annotations

from tests.unit.kernel.reloads import reloading, witness

from magmobo.contracts.events import ConfigReloaded

One, Two = witness("one"), witness("two")


async def test_a_live_key_is_taken_by_the_component_that_serves() -> None:
    async with reloading(One, Two, values={"one": {"level": 1}}) as scene:
        before = scene.kernel.assembly.board.slot("one").component
        scene.files.values["one"] = {"level": 2}
        outcome = await scene.reload()
        assert (outcome.version, outcome.applied) == (2, True)
        assert (outcome.plan.live, outcome.plan.restarts, outcome.plan.waiting) == (["one"], [], [])
        assert scene.kernel.assembly.board.slot("one").component is before
        assert scene.section("one").level == scene.kernel.config.section("one").level == 2
        assert scene.hooks("one") == ["configure 1", "boot 1", "start 1", "prepare 2", "commit 2"]
        assert scene.hooks("two") == ["configure 0", "boot 0", "start 0"]
        assert scene.told == [ConfigReloaded(version=2, changed_keys=["one.level"], trigger="command")]


async def test_a_key_without_a_mark_makes_the_component_anew() -> None:
    async with reloading(One, Two, values={"one": {"level": 1}}) as scene:
        former = scene.kernel.assembly.board.slot("one").component
        scene.files.values["one"] = {"level": 1, "place": 5}
        outcome = await scene.reload()
        assert (outcome.plan.live, outcome.plan.restarts) == ([], ["one"])
        assert former.hooks[-2:] == ["stop 1", "shutdown 1"]  # type: ignore[attr-defined]
        assert scene.hooks("one") == ["configure 1", "boot 1", "start 1"]
        assert scene.section("one").place == 5
        assert scene.state("one") == "running"
