"""Places of a window: nobody overtakes, hooks always find one that others leave, nothing is lost or given twice."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magmobo.extensions.workers.window import MAX_WAITING, Window, WindowFull

STEPS = st.lists(st.tuples(st.sampled_from(["hook", "other", "give", "cancel"]), st.integers(0, 20)), max_size=60)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 5), STEPS)
def test_places_are_neither_lost_nor_given_twice(size: int, steps: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        window = Window(size, asyncio.get_running_loop())
        waiting: list[tuple[bool, asyncio.Task[None]]] = []
        held: list[bool] = []
        for action, number in steps:
            if action in ("hook", "other"):
                hook = action == "hook"
                waiting.append((hook, asyncio.get_running_loop().create_task(window.take(hook=hook))))
            elif action == "give" and held:
                window.give(hook=held.pop(number % len(held)))
            elif action == "cancel" and waiting:
                waiting[number % len(waiting)][1].cancel()
            if number % 3:  # sometimes a place is handed on and left in the same turn
                await settle()
            done = [pair for pair in waiting if pair[1].done()]
            waiting = [pair for pair in waiting if not pair[1].done()]
            held += [hook for hook, task in done if not task.cancelled()]
            assert window.used <= size
        await settle()
        held += [hook for hook, task in waiting if task.done() and not task.cancelled()]
        waiting = [pair for pair in waiting if not pair[1].done()]
        assert window.used == len(held)
        assert sum(not hook for hook in held) <= window.others_size
        assert window.others_size < size or size == 1
        for hook, _ in waiting:
            assert window.used == size or (not hook and sum(not one for one in held) == window.others_size)
        for hook in held:
            window.give(hook=hook)
        await settle()
        for _, task in waiting:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    asyncio.run(scenario())


async def test_first_come_first_served() -> None:
    window = Window(1, asyncio.get_running_loop())
    await window.take(hook=True)
    served: list[int] = []

    async def wait(number: int) -> None:
        await window.take(hook=True)
        served.append(number)
        window.give(hook=True)

    tasks = [asyncio.create_task(wait(number)) for number in range(5)]
    await settle()
    assert not window.take_now(hook=True)
    window.give(hook=True)
    async with asyncio.timeout(30):
        await asyncio.gather(*tasks)
    assert served == [0, 1, 2, 3, 4]


async def test_hooks_find_a_place_that_others_leave() -> None:
    window = Window(64, asyncio.get_running_loop())
    while window.take_now(hook=False):
        pass
    assert window.used == 48
    assert window.take_now(hook=True)


async def test_a_single_place_serves_both() -> None:
    window = Window(1, asyncio.get_running_loop())
    assert window.take_now(hook=False)
    window.give(hook=False)
    assert window.take_now(hook=True)


async def test_the_queue_is_bounded() -> None:
    window = Window(1, asyncio.get_running_loop())
    await window.take(hook=True)
    tasks = [asyncio.create_task(window.take(hook=True)) for _ in range(MAX_WAITING)]
    await settle()
    with pytest.raises(WindowFull):
        await window.take(hook=True)
    window.close(ConnectionError("gone"))
    async with asyncio.timeout(30):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, ConnectionError) for result in results)
