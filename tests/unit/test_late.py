"""The plugin that delays input: what it promises about order and loss; without, its findings would mean nothing."""

from __future__ import annotations

import asyncio
import socket
from itertools import count
from random import Random

import pytest
from tests.late import Delays, delay


@pytest.mark.parametrize("seed", range(20))
def test_what_is_late_is_read_once_its_time_has_come(seed: int) -> None:
    delays, late_s = Delays(seed, 0.5, 0.1), Random(seed)
    seen = []
    for step in range(1000):
        now_s = step * 0.001
        seen.append(delays.is_late(3, now_s))
        if late_s.random() < 0.1:
            delays.is_late(4, now_s)
    lengths = [len(run) for run in "".join("x" if one else " " for one in seen).split(" ") if run]
    assert lengths
    assert max(lengths) <= 101, "no longer than the longest delay"
    assert not all(seen[100:])
    assert [Delays(seed, 0.0, 1.0).is_late(3, now_s / 10) for now_s in range(100)] == [False] * 100


async def _order_in_which_two_are_read() -> str:
    order, loop = [], asyncio.get_running_loop()
    pairs = [socket.socketpair() for _ in range(2)]

    async def read(name: str, end: socket.socket) -> None:
        end.setblocking(False)
        found = b""
        while len(found) < 2:
            found += await loop.sock_recv(end, 100)
        assert found == b"12"
        order.append(name)

    readers = [asyncio.create_task(read(name, end)) for name, (end, _) in zip("ab", pairs, strict=True)]
    for text in (b"1", b"2"):
        await asyncio.sleep(0)
        for _, theirs in pairs:
            theirs.send(text)
        await asyncio.sleep(0.001)
    await asyncio.gather(*readers)
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
    return "".join(order)


@pytest.mark.parametrize(("share", "orders"), [(0.5, {"ab", "ba"}), (0.0, {"ab"})])
async def test_nothing_is_lost_and_either_may_be_first(
    monkeypatch: pytest.MonkeyPatch, share: float, orders: set[str]
) -> None:
    seeds = count()
    delay(monkeypatch, lambda: Delays(next(seeds), share, 0.02))
    found = {await asyncio.to_thread(asyncio.run, _order_in_which_two_are_read()) for _ in range(60)}
    assert found == orders
