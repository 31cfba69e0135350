"""What belongs to a component: tasks and subscriptions in two generations, and its restart budget in numbers."""

from __future__ import annotations

import asyncio
import gc
import warnings
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magmobo.contracts.errors import Unavailable
from magmobo.contracts.events import Envelope, Event
from magmobo.kernel.budget import Budget
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.config.core import RecoveryConfig
from magmobo.kernel.subscriptions import ComponentBus
from magmobo.kernel.supervision.errors import HookEscaped
from magmobo.kernel.tasks import TaskSet
from magmobo.testing.harness import footprint


class Ping(Event, frozen=True, gc=False):
    topic = "tasks_tests.ping"


async def forever() -> None:
    await asyncio.Event().wait()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_was_spawned_since_serving_ends_and_what_was_spawned_before_lives() -> None:
    failures: list[BaseException] = []
    tasks = TaskSet("magds", failures.append)
    of_boot = tasks.spawn(forever(), name="of boot")
    tasks.begin_serving()
    for _ in range(2):
        serving = tasks.spawn(forever(), name="serving")
        assert (serving.get_name(), len(tasks)) == ("magds:serving", 2)
        assert await tasks.end_serving() == []
        assert (serving.cancelled(), of_boot.done(), len(tasks)) == (True, False, 1)
    assert await tasks.close() == []
    assert (of_boot.cancelled(), failures) == (True, [])
    with pytest.raises(Unavailable, match="magds"):
        tasks.spawn(forever(), name="late")


async def test_a_task_spawned_by_one_that_is_cancelled_ends_too() -> None:
    tasks = TaskSet("magds", lambda _: None)
    tasks.begin_serving()

    async def hydra() -> None:
        try:
            await forever()
        finally:
            tasks.spawn(forever(), name="head")

    tasks.spawn(hydra(), name="hydra")
    await settled()
    assert await tasks.end_serving() == []
    assert len(tasks) == 0


async def test_a_task_cancelled_before_its_first_step_leaves_no_coroutine_unawaited() -> None:
    tasks = TaskSet("magds", lambda _: None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = tasks.spawn(forever(), name="unborn")
        task.cancel()
        await tasks.close()
        assert task.cancelled()
        del task
        gc.collect()
    assert [str(one.message) for one in caught] == []


@pytest.mark.parametrize("error", [SystemExit(2), KeyboardInterrupt(), GeneratorExit()])
async def test_nothing_that_a_task_raises_ends_the_loop(error: BaseException) -> None:
    failures: list[BaseException] = []
    tasks = TaskSet("magds", failures.append)

    async def leave() -> None:
        raise error

    tasks.spawn(leave(), name="leaving")
    await settled()
    [failure] = failures
    assert isinstance(failure, HookEscaped) or failure is error
    await tasks.close()


async def test_subscriptions_and_delayed_events_have_the_same_two_generations() -> None:
    bus, heard = EventBus(), list[str]()
    mine = ComponentBus(bus, "magds")
    mine.on(Ping, lambda _: heard.append("boot"))
    mine.begin_serving()
    mine.on(Ping, lambda _: heard.append("serving"))
    delayed = mine.queue(Ping(), delay_s=3600)
    assert len(mine) == 2
    mine.emit(Ping())
    assert heard == ["boot", "serving"]
    await mine.end_serving()
    await mine.publish(Ping())
    assert heard == ["boot", "serving", "boot"]
    assert (len(mine), bus.delayed_count()) == (1, 0)
    delayed.cancel()
    mine.on("tasks_tests.*", lambda _: heard.append("again"))
    bus.emit(Ping())
    assert heard[3:] == ["boot", "again"]
    await mine.close()
    assert (len(mine), bus.subscription_count(), bus.has_listeners(Ping)) == (0, 0, False)


async def test_a_handler_under_way_has_ended_when_serving_has() -> None:
    bus, entered = EventBus(), asyncio.Event()
    mine, before = ComponentBus(bus, "magds"), footprint().tasks
    mine.begin_serving()

    async def handle(_: Envelope[Ping]) -> None:
        entered.set()
        await forever()

    mine.on(Ping, handle)
    bus.emit(Ping())
    await entered.wait()
    await mine.end_serving()
    assert footprint().tasks == before


# ---------------------------------------------------------------- the budget


@given(st.lists(st.floats(0, 100), max_size=40), st.integers(0, 5))
def test_never_more_than_its_restarts_inside_any_window(gaps: list[float], restarts: int) -> None:
    config = RecoveryConfig(restarts=restarts, window_s=60.0, backoff_s=0.1, backoff_max_s=0.5)
    budget, now_s, made = Budget(config, Random(1)), 0.0, list[float]()
    for gap_s in gaps:
        now_s += gap_s
        if budget.left(now_s):
            budget.spend(now_s)
            made.append(now_s)
        assert sum(now_s - at_s <= 60.0 for at_s in made) == budget.spent(now_s) <= restarts
    assert budget.left(now_s + 60.1) == restarts
    budget.reset()
    assert budget.left(now_s) == restarts


@given(st.lists(st.floats(0.01, 5000), min_size=3, max_size=3))
def test_attempts_that_all_failed_count_however_long_they_took(durations: list[float]) -> None:
    budget, now_s = Budget(RecoveryConfig(), Random(1)), 0.0
    for duration_s in durations:
        assert budget.left(now_s) > 0
        budget.spend(now_s)
        now_s += duration_s
        budget.missed(now_s)
    assert budget.left(now_s) == 0


@given(st.integers(0, 3), st.integers(0, 10**6))
def test_pauses_double_within_the_jitter(spent: int, seed: int) -> None:
    budget = Budget(RecoveryConfig(), Random(seed))
    for _ in range(spent):
        budget.spend(0.0)
    assert 0.8 * 2**spent <= budget.pause_s(0.0) <= 1.2 * 2**spent
