"""A hook is bounded whatever it does, and the error says where it hung."""

from __future__ import annotations

import asyncio

import pytest

from magmobo.kernel.deadline import Overrun, run_bounded, waiting_at
from magmobo.kernel.supervision.errors import HookEscaped


async def innermost() -> None:
    await asyncio.Event().wait()


async def outer() -> None:
    await innermost()


async def test_results_and_errors_pass() -> None:
    async def answer() -> int:
        return 42

    async def broken() -> None:
        raise LookupError("broken on purpose")

    assert await run_bounded(answer(), timeout_s=5, name="x") == 42
    with pytest.raises(LookupError):
        await run_bounded(broken(), timeout_s=5, name="x")


async def test_an_overrun_names_the_innermost_line_and_the_hook_is_cancelled() -> None:
    with pytest.raises(Overrun) as caught:
        await run_bounded(outer(), timeout_s=0.01, name="x")
    assert caught.value.where.endswith("in innermost")
    assert "test_deadline.py:" in caught.value.where
    assert caught.value.ended


async def test_a_hook_that_ignores_cancellation_does_not_hold_the_caller() -> None:
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with asyncio.timeout(30):
        with pytest.raises(Overrun) as caught:
            await run_bounded(stubborn(), timeout_s=0.01, grace_s=0.01, name="stubborn")
    assert not caught.value.ended
    release.set()
    await asyncio.wait({task for task in asyncio.all_tasks() if task.get_name() == "stubborn"}, timeout=5)


async def test_cancelling_the_caller_ends_the_hook() -> None:
    ended = asyncio.Event()

    async def hook() -> None:
        try:
            await innermost()
        finally:
            ended.set()

    caller = asyncio.create_task(run_bounded(hook(), timeout_s=60, name="x"))
    while caller.done() or "innermost" not in "".join(waiting_at(task) for task in asyncio.all_tasks() - {caller}):
        await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()


async def test_a_hook_that_cancels_itself_is_an_error_not_a_cancellation() -> None:
    async def suicidal() -> None:
        raise asyncio.CancelledError

    with pytest.raises(HookEscaped, match="cancelled itself"):
        await run_bounded(suicidal(), timeout_s=5, name="x")
