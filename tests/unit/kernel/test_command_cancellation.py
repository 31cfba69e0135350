"""A command cancelled, once or twice, at every single turn of the loop: nothing half done, nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from tests.unit.kernel.command_fakes import DESPERATE, OPERATOR, VIEWER, Broken, Order, Ping, Pong, Room

from magmobo.contracts.capabilities import Actor
from magmobo.contracts.errors import MagError
from magmobo.kernel.commands.errors import EarlierFailure

Ask = Callable[[Room], Awaitable[Any]]


def asking(command: Any, actor: Actor, key: str = "") -> Ask:
    return lambda room: room.bus.call(command, actor=actor, idempotency_key=key)


WAYS: dict[str, Ask] = {
    "plain": asking(Ping(value=1), VIEWER),
    "audited": asking(Order(value=1), OPERATOR),
    "keyed": asking(Ping(value=1), VIEWER, "k"),
    "audited and keyed": asking(Order(value=1), OPERATOR, "k"),
    "break-glass": asking(Order(value=1), DESPERATE, "k"),
    "denied": asking(Order(value=1), VIEWER, "k"),
    "bytes": lambda room: room.bus.run("test:order", b'{"value":1}', actor=OPERATOR, idempotency_key="k"),
}


async def cancelled_at(room: Room, ask: Ask, turn: int, second: int | None) -> bool:
    """Ask, cancel after `turn` turns of the loop and again `second` turns later; whether it was over before."""
    task = asyncio.ensure_future(ask(room))
    for _ in range(turn):
        await asyncio.sleep(0)
    over = task.done()
    task.cancel()
    if second is not None:
        for _ in range(second):
            await asyncio.sleep(0)
        task.cancel()
    with suppress(asyncio.CancelledError, MagError):
        await task
    await room.settled()
    return over


def check_records(room: Room) -> None:
    """Each intent has its outcome under the same trace, and only what was entered says that it acted."""
    intents = [record["trace_id"] for record in room.audit.records if record["action"] == "test.order"][::2]
    ours = [record for record in room.audit.records if record["action"] == "test.order"]
    for trace_id in intents:
        phases = [record["phase"] for record in ours if record["trace_id"] == trace_id]
        assert phases in (["intent", "outcome"], ["outcome"]), phases
    acted = [record for record in ours if record.get("acted")]
    if ours:
        assert len(acted) == len(room.calls)


@pytest.mark.parametrize("second", [None, 0, 1, 2, 3, 5])
@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_at_every_turn_it_is_done_once_or_not_and_says_which(way: str, second: int | None) -> None:
    ask, over, turn = WAYS[way], False, 0
    while not over:
        room = Room()
        over = await cancelled_at(room, ask, turn, second)
        check_records(room)
        acted = len(room.calls)
        assert acted <= 1
        if not acted:
            assert room.state.values == {}, "a key whose command never began is not kept, not even over a restart"
        if way != "denied":
            [answer] = await asyncio.gather(ask(room), return_exceptions=True)
            if isinstance(answer, EarlierFailure):
                assert answer.code == "MAG-CMD-012"
                assert acted == 1, "only what began has an answer"
            else:
                assert answer in (Pong(1), b'{"value":1,"note":"","seen":[]}')
            if way not in ("plain", "audited"):
                assert len(room.calls) == 1, "one key, one act"
        await room.settled()
        turn += 1
        assert turn < 200
    assert turn > 3, "the test stepped through the command"


@pytest.mark.parametrize("way", ["keyed", "audited and keyed", "bytes"])
async def test_while_one_of_two_duplicates_is_cancelled_at_every_turn_the_other_is_served(way: str) -> None:
    ask, over, turn = WAYS[way], False, 0
    while not over:
        room = Room()
        first = asyncio.ensure_future(ask(room))
        await asyncio.sleep(0)
        follower = asyncio.ensure_future(ask(room))
        for _ in range(turn):
            await asyncio.sleep(0)
        over = first.done()
        first.cancel()
        results = await asyncio.gather(first, follower, return_exceptions=True)
        assert len(room.calls) == 1
        assert isinstance(results[1], (Pong, bytes, EarlierFailure)), results
        await room.settled()
        turn += 1
    assert turn > 3


@pytest.mark.parametrize("way", ["plain", "audited", "audited and keyed"])
async def test_an_owner_that_stops_at_every_turn_leaves_nothing(way: str) -> None:
    ask, over, turn = WAYS[way], False, 0
    while not over:
        room = Room()
        task = asyncio.ensure_future(ask(room))
        for _ in range(turn):
            await asyncio.sleep(0)
        over = task.done()
        await room.bus.close_owner("tests")
        with suppress(MagError):
            assert await task == Pong(1)
        await room.settled()
        assert room.bus.handler_count() == 0
        check_records(room)
        turn += 1
    assert turn > 3


async def test_a_handler_that_fails_at_the_moment_it_is_cancelled_is_recorded_once() -> None:
    room = Room()

    async def act() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise Broken from None

    room.act = act  # type: ignore[method-assign]
    task = asyncio.create_task(room.bus.call(Order(), actor=OPERATOR, idempotency_key="k"))
    await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await room.settled()
    assert [record["phase"] for record in room.audit.records] == ["intent", "outcome"]
