"""The walk through the stages: deadlines, what they name, and a rollback that nothing cuts short."""

from __future__ import annotations

import asyncio
import pickle
import re
from collections.abc import Awaitable, Callable

import pytest

from magmobo.contracts.events import Envelope, SystemBootFailed
from magmobo.kernel.boot import BootSequence, Stage
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.clock import SystemClock
from magmobo.kernel.deadline import run_bounded
from magmobo.kernel.errors import BootFailed, StageTimeout
from magmobo.kernel.slot import PhaseFailed
from magmobo.kernel.timeline import Timeline

Step = Callable[[], Awaitable[None]]


class Scene:
    """A boot of the given stages, and what it told."""

    def __init__(
        self, *steps: Step, undo: Step | None = None, stage_timeout_s: float = 5, rollback_timeout_s: float = 5
    ) -> None:
        self.told: list[SystemBootFailed] = []
        self.stages: list[str] = []
        self.undone = 0
        self._undo = undo
        bus = EventBus(origin="test")
        bus.on(SystemBootFailed, self._hear)
        bus.on("system.boot_stage", lambda envelope: self.stages.append(envelope.data.stage))
        clock = SystemClock()
        self.timeline = Timeline(clock.monotonic_s)
        self.sequence = BootSequence(
            [Stage(f"stage{number}", step) for number, step in enumerate(steps)],
            self._take_back,
            bus,
            clock,
            self.timeline,
            stage_timeout_s=stage_timeout_s,
            rollback_timeout_s=rollback_timeout_s,
        )

    def _hear(self, envelope: Envelope[SystemBootFailed]) -> None:
        self.told.append(envelope.data)

    async def _take_back(self) -> None:
        if self._undo is not None:
            await self._undo()
        self.undone += 1


async def fine() -> None:
    await asyncio.sleep(0)


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_stages_follow_each_other_and_are_timed() -> None:
    here = Scene(fine, fine)
    await here.sequence.run()
    assert here.stages == list(here.sequence.timeline_s) == ["stage0", "stage1"]
    assert here.undone == 0
    assert here.timeline.stage == ""


async def test_a_failure_takes_back_and_is_told() -> None:
    async def fail() -> None:
        raise ValueError("no")

    here = Scene(fine, fail, fine)
    with pytest.raises(BootFailed) as caught:
        await here.sequence.run()
    assert (caught.value.stage, caught.value.component, here.undone) == ("stage1", "", 1)
    assert isinstance(caught.value.__cause__, ValueError)
    assert here.stages == ["stage0"]
    [(stage, told)] = [(one.stage, one.error) for one in here.told]
    assert stage == "stage1"
    assert re.fullmatch(r"ValueError: no, raised at .*test_boot\.py:\d+ in fail", told)


async def test_a_failed_hook_names_component_and_phase() -> None:
    async def fail() -> None:
        raise PhaseFailed("magic", "boot", OSError("gone"))

    with pytest.raises(BootFailed, match='component "magic", boot') as caught:
        await Scene(fail).sequence.run()
    assert isinstance(caught.value.cause, OSError)


async def test_a_late_stage_names_each_component_that_is_not_done_and_where_it_waits() -> None:
    here: Scene

    async def hook(component: str) -> None:
        with here.timeline.span(component, "boot"):
            await run_bounded(for_ever(), timeout_s=60, name=f"{component}.boot")

    async def load() -> None:
        with here.timeline.span("quick", "boot"):
            await fine()
        async with asyncio.TaskGroup() as group:
            group.create_task(hook("left"))
            group.create_task(hook("right"))

    here = Scene(load, stage_timeout_s=0.05)
    before = asyncio.all_tasks()
    with pytest.raises(BootFailed) as caught:
        await here.sequence.run()
    cause = caught.value.cause
    assert isinstance(cause, StageTimeout)
    assert [(component, phase) for component, phase, _ in cause.waiting] == [("left", "boot"), ("right", "boot")]
    assert all("test_boot.py:" in where and where.endswith("in for_ever") for _, _, where in cause.waiting)
    assert '"left" waits at' in str(caught.value)
    assert "quick" not in str(caught.value)
    assert (caught.value.exit_code, here.undone) == (7, 1)
    assert asyncio.all_tasks() == before
    assert str(pickle.loads(pickle.dumps(cause))) == str(cause)


async def test_a_late_stage_without_components_names_the_kernels_own_line() -> None:
    with pytest.raises(BootFailed, match=r"the kernel waits at .*test_boot.py:.* in for_ever"):
        await Scene(for_ever, stage_timeout_s=0.02).sequence.run()


async def test_a_cancellation_ends_the_stage_and_takes_back() -> None:
    ended = asyncio.Event()

    async def interrupted() -> None:
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0)
            ended.set()

    async def undo() -> None:
        assert ended.is_set(), "the stage still ran when the rollback began"

    here = Scene(interrupted, undo=undo)
    boot = asyncio.create_task(here.sequence.run())
    await asyncio.sleep(0.01)
    boot.cancel()
    await asyncio.wait([boot])
    assert boot.cancelled()
    assert here.undone == 1
    assert here.told[0].error == "InterruptedError: the boot was interrupted"


async def test_a_cancellation_when_the_stage_has_just_ended_is_not_lost() -> None:
    here = Scene(fine)
    boot = asyncio.create_task(here.sequence.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the stage is done, who waits for it has not run yet
    boot.cancel()
    await asyncio.wait([boot])
    assert boot.cancelled()
    assert here.undone == 1


@pytest.mark.parametrize("cancellations", [1, 2, 20])
async def test_no_number_of_cancellations_cuts_the_rollback_short(cancellations: int) -> None:
    entered = asyncio.Event()

    async def fail() -> None:
        raise ValueError("no")

    async def undo() -> None:
        entered.set()
        for _ in range(cancellations + 5):
            await asyncio.sleep(0)

    here = Scene(fail, undo=undo)
    boot = asyncio.create_task(here.sequence.run())
    await entered.wait()
    for _ in range(cancellations):
        boot.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([boot])
    assert boot.cancelled(), "who cancels a boot hears that it was cancelled"
    assert here.undone == 1


async def test_a_rollback_that_hangs_is_given_up_and_said() -> None:
    async def fail() -> None:
        raise ValueError("no")

    here = Scene(fail, undo=for_ever, rollback_timeout_s=0.02)
    before = asyncio.all_tasks()
    with pytest.raises(BootFailed, match=r"the rollback did not end within 0.02 s, waiting at .* in for_ever"):
        await here.sequence.run()
    assert "the rollback did not end" in here.told[0].error
    assert asyncio.all_tasks() == before


async def test_a_rollback_that_fails_does_not_hide_why_the_boot_failed() -> None:
    async def fail() -> None:
        raise ValueError("no")

    async def undo() -> None:
        raise OSError("nor this")

    with pytest.raises(
        BootFailed, match=r"ValueError: no, raised at .* in fail; the rollback failed: OSError: nor this"
    ):
        await Scene(fail, undo=undo).sequence.run()
