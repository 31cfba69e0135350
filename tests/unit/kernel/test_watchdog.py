"""A loop that does not turn is noticed while it does not turn, and the line that holds it is named."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from magmobo.contracts.component import Component, Context
from magmobo.contracts.events import Envelope, Event
from magmobo.contracts.health import HealthReport
from magmobo.kernel.stages import Stages
from magmobo.kernel.watchdog import LoopWatchdog
from magmobo.testing.harness import make_kernel

STALL_S, LIMIT_S = 0.05, 20.0


class Reports:
    """What the watchdog said. `hold` blocks the loop until it has said something."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.stalls_s: list[float] = []
        self.told = threading.Event()

    def __call__(self, stalled_s: float, text: str) -> None:
        self.texts.append(text)
        self.stalls_s.append(stalled_s)
        self.told.set()

    @property
    def named(self) -> list[str]:
        """Those about `hold`: a busy machine may hold the loop up, too."""
        return [text for text in self.texts if "test_watchdog.py" in text and " in hold" in text]

    def hold(self, *, longer_s: float = 0.0) -> None:
        self.told.clear()
        assert self.told.wait(LIMIT_S), "nothing was reported"
        time.sleep(longer_s)


@asynccontextmanager
async def watching(reports: Callable[[float, str], None], **packages: str) -> AsyncIterator[LoopWatchdog]:
    watchdog = LoopWatchdog(STALL_S, reports, lambda: packages)
    watchdog.start()
    try:
        yield watchdog
    finally:
        watchdog.stop()


async def turned(watchdog: LoopWatchdog) -> None:
    """Return when the loop has answered since."""
    watchdog.lag_s = -1.0
    async with asyncio.timeout(LIMIT_S):
        while watchdog.lag_s == -1.0:
            await asyncio.sleep(0.001)


async def test_a_stall_is_reported_once_with_the_line_that_holds_the_loop() -> None:
    reports = Reports()
    async with watching(reports) as watchdog:
        await turned(watchdog)
        reports.hold(longer_s=4 * STALL_S)  # all of it is one stall
        [text] = reports.named
        line = Reports.hold.__code__.co_firstlineno + 2
        assert re.match(rf"\S+/test_watchdog.py:{line} in hold, task .*; stack: ", text)
        assert "test_a_stall_is_reported_once" in text.partition("stack: ")[2]
        assert min(reports.stalls_s) >= STALL_S
        await turned(watchdog)
        reports.hold()
        assert len(reports.named) == 2
        assert watchdog.stalls == len(reports.texts)
        assert watchdog.worst_lag_s >= 5 * STALL_S


async def test_a_loop_that_turns_is_left_alone_and_its_lag_is_known() -> None:
    reports = Reports()
    async with watching(reports) as watchdog:
        for _ in range(3):
            await turned(watchdog)
        assert 0 <= watchdog.lag_s < LIMIT_S
        assert watchdog.stalls == len(reports.texts)  # none, unless this machine stood still


async def test_the_thread_ends_with_stop_and_never_watches_two() -> None:
    before = threading.active_count()
    async with watching(Reports()) as watchdog:
        assert threading.active_count() == before + 1
        with pytest.raises(RuntimeError):
            watchdog.start()
    watchdog.stop()
    assert threading.active_count() == before
    LoopWatchdog(1.0, Reports()).stop()


def test_it_ends_when_the_loop_is_closed_and_reports_a_loop_that_never_returns() -> None:
    reports = Reports()
    watchdogs: list[LoopWatchdog] = []

    async def story() -> None:
        watchdogs.append(LoopWatchdog(STALL_S, reports))
        watchdogs[0].start()
        reports.hold()

    asyncio.run(story())
    [watchdog] = watchdogs
    assert watchdog._thread is not None
    watchdog._thread.join(LIMIT_S)
    assert not watchdog._thread.is_alive()
    watchdog.stop()


async def test_a_report_that_raises_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    reports = Reports()

    def broken(stalled_s: float, text: str) -> None:
        reports(stalled_s, text)
        raise LookupError("no log")

    async with watching(broken) as watchdog:
        for _ in range(2):
            await turned(watchdog)
            reports.hold()
        await turned(watchdog)
    assert capsys.readouterr().err.count("LookupError: no log") == 2


async def test_local_variables_are_never_shown() -> None:
    reports = Reports()

    def sign(secret: str) -> None:
        assert secret
        reports.hold()

    async with watching(reports) as watchdog:
        await turned(watchdog)
        sign("hunter2")
    assert "in sign" in reports.named[0]
    assert "hunter2" not in reports.named[0]


@pytest.mark.parametrize(
    ("task", "component"),
    [("magds.start", "magds"), ("magds:reader", "magds"), ("bus:magds:a.*", "magds"), ("bus:magds/boot:a", "magds")],
)
async def test_the_component_is_known_by_the_name_of_its_task(task: str, component: str) -> None:
    reports = Reports()
    async with watching(reports, magds="nowhere", other="elsewhere") as watchdog:
        await turned(watchdog)

        async def block() -> None:
            reports.hold()

        await asyncio.create_task(block(), name=task)
    assert f'component "{component}", task "{task}"' in reports.named[0]


async def test_the_code_that_blocks_counts_more_than_the_task_it_runs_in() -> None:
    """A handler of one component runs inside the emit of another."""
    reports = Reports()
    async with watching(reports, magds="nowhere", tests=__name__) as watchdog:
        await turned(watchdog)

        async def block() -> None:
            reports.hold()

        await asyncio.create_task(block(), name="magds:reader")
        await turned(watchdog)
        asyncio.get_running_loop().call_soon(reports.hold)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert len(reports.named) == 2
    assert all('component "tests"' in text for text in reports.named)
    assert "task" not in reports.named[1].partition(";")[0]


# ---------------------------------------------------------------- a whole kernel

HOOKS = ["configure", "boot", "start", "health", "task", "handler", "async handler", "stop", "shutdown"]


class Poke(Event, frozen=True, gc=False):
    topic = "watchdog_tests.poke"


class Blocking(Component):
    """Holds the loop in one place."""

    name = "blocking"
    where = ""
    reports: Reports

    def __init__(self, context: Context) -> None:
        self.context = context

    def _visit(self, place: str) -> None:
        if place == self.where:
            self.reports.hold()

    def configure(self, config: Any) -> None:
        self._visit("configure")

    async def boot(self) -> None:
        self._visit("boot")

    async def start(self) -> None:
        self._visit("start")
        self.context.bus.on(Poke, lambda _: self._visit("handler"))
        self.context.bus.on(Poke, self._handle)
        self.context.spawn(self._work(), name="work")

    async def stop(self) -> None:
        self._visit("stop")

    async def shutdown(self, timeout_s: float) -> None:
        self._visit("shutdown")

    async def health(self) -> HealthReport:
        self._visit("health")
        return HealthReport.of()

    async def _work(self) -> None:
        self._visit("task")

    async def _handle(self, _: Envelope[Poke]) -> None:
        self._visit("async handler")


@pytest.mark.parametrize("place", HOOKS)
async def test_whichever_hook_of_a_component_blocks_the_loop_is_named(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = Reports()
    monkeypatch.setattr(Stages, "_loop_stalled", lambda _, stalled_s, where: reports(stalled_s, where))

    class Here(Blocking):
        where = place

    Here.reports = reports
    kernel = make_kernel(Here, data_dir=tmp_path, config={"observability": {"loop_stall_s": STALL_S}})
    await kernel.boot()
    kernel.bus.emit(Poke())
    async with asyncio.timeout(LIMIT_S):
        while kernel.status().components[0].health == "unknown":  # the first round of questions has ended
            await asyncio.sleep(0.001)
    assert kernel.status().components[0].state == "running"
    await kernel.shutdown()
    [text] = reports.named
    assert 'component "blocking"' in text
