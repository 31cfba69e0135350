"""The harness finds what a careless component leaves behind, and the fake clock keeps time."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Protocol

import pytest

from magmobo.contracts.component import Component, Context, Needs
from magmobo.kernel.errors import BootFailed
from magmobo.kernel.supervision.errors import ComponentFailure
from magmobo.testing.clock import FakeClock
from magmobo.testing.harness import check_component, running_kernel


class Store(Protocol):
    async def get(self) -> int: ...


class Storage(Component):
    name = "storage"
    provides = (Store,)

    async def get(self) -> int:
        return 1


class Tidy(Component):
    name = "tidy"

    def __init__(self, context: Context, store: Needs[Store]) -> None:
        self._context, self._store = context, store

    async def boot(self) -> None:
        self._file = (self._context.data_dir / "notes").open("w")
        self._context.bus.on("component.*", lambda _: None)
        self._context.spawn(self._work(), name="work")

    async def _work(self) -> None:
        while True:
            await self._store.get()
            await self._context.clock.sleep(60)

    async def shutdown(self, timeout_s: float) -> None:
        self._file.close()


async def test_a_tidy_component_passes() -> None:
    await check_component(Tidy, beside=(Storage,))


async def test_tasks_left_behind_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[asyncio.Task[None]] = []

    class Careless(Component):
        name = "careless"

        async def start(self) -> None:
            left.append(asyncio.create_task(asyncio.sleep(3600), name="stray"))

    monkeypatch.setattr("magmobo.testing.harness.SETTLE_S", 0.01)
    with pytest.raises(AssertionError, match=r"left tasks behind: \['stray'"):
        await check_component(Careless)
    for task in left:
        task.cancel()


async def test_files_left_open_are_found(tmp_path: Path) -> None:
    descriptors: list[int] = []

    class Careless(Component):
        name = "careless"

        async def boot(self) -> None:
            descriptors.append(os.open(tmp_path, os.O_RDONLY))

    with pytest.raises(AssertionError, match="left open files behind"):
        await check_component(Careless)
    os.close(descriptors[0])


async def test_what_a_start_subscribes_and_spawns_ends_with_its_stop_without_any_help() -> None:
    class Relaxed(Component):
        name = "relaxed"

        def __init__(self, context: Context) -> None:
            self._context = context

        async def start(self) -> None:
            self._context.bus.on("component.*", lambda _: None)
            self._context.state.watch("", lambda entry, key: None)
            self._context.spawn(asyncio.Event().wait(), name="background")

    await check_component(Relaxed)


async def test_a_component_that_cannot_start_again_is_found() -> None:
    class Once(Component):
        name = "once"
        started = False

        async def start(self) -> None:
            if self.started:
                raise RuntimeError("only once")
            self.started = True

    with pytest.raises(ComponentFailure, match="only once"):
        await check_component(Once)


async def test_a_kernel_ends_with_its_block_whatever_happens_in_it() -> None:
    stopped: list[str] = []

    class Watcher(Component):
        name = "watcher"

        async def stop(self) -> None:
            stopped.append("stopped")

    with pytest.raises(LookupError):
        async with running_kernel(Watcher):
            raise LookupError
    assert stopped == ["stopped"]
    with pytest.raises(BootFailed):
        async with running_kernel(Tidy):
            raise AssertionError("must not get here")


async def test_the_fake_clock_wakes_sleepers_in_order_at_their_times() -> None:
    clock = FakeClock(time_s=1000.0)
    woken: list[tuple[str, float]] = []

    async def beat(name: str, every_s: float) -> None:
        while True:
            await clock.sleep(every_s)
            woken.append((name, clock.monotonic_s()))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(beat("fast", 2)), group.create_task(beat("slow", 3))]
        await clock.advance(6.5)
        for task in tasks:
            task.cancel()
    # at 6 both are due: slow fell asleep first
    assert woken == [("fast", 2), ("slow", 3), ("fast", 4), ("slow", 6), ("fast", 6)]
    assert (clock.monotonic_s(), clock.time_s()) == (6.5, 1006.5)
    clock.step_wall_time(-3600)
    assert (clock.monotonic_s(), clock.time_s()) == (6.5, -2593.5)
