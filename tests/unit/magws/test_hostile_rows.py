"""Rows that cannot be read and clients that ask at awkward moments: nobody's change may go missing in silence."""

from __future__ import annotations

import pytest
from tests.unit.magws.support import World, events, hello, ids, world

from magmobo.components.magws import resume
from magmobo.contracts.planes import TableName
from magmobo.testing.websocket import MemoryConnection

CHANNEL = "db.public.flights"
FULL = TableName("public", "full")
UNREADABLE = [
    pytest.param(b'{"id":1,"note":' + b"[" * 5000 + b"]" * 5000 + b"}", id="nested"),
    pytest.param(b'{"id":1,"note":"\\ud800"}', id="half a surrogate pair"),
    pytest.param(b'{"id":1,"note":"\xff"}', id="not UTF-8"),
]


async def follow(w: World, channel: str, *, take_bytes: int | None = None) -> MemoryConnection:
    client = w.connect(take_bytes=take_bytes)
    client.send(hello())
    await w.subscribe(client, channel)
    client.read()
    return client


@pytest.mark.parametrize("row", UNREADABLE)
async def test_a_row_that_cannot_be_read_reaches_everybody_live_and_in_a_replay(row: bytes) -> None:
    async with world("full") as w:
        start = {"epoch": "epoch-1", "serial": w.stream.position}
        names = ["db.public.full", "db.public.full;note=x", "db.public.full;id=1"]
        clients = [await follow(w, name) for name in names]
        w.stream.commit_raw(row, table=FULL)
        w.stream.commit({"id": 1, "note": "x"}, table=FULL)
        await w.settle()
        for client in clients:
            assert events(client.read())[:2] == ["insert", "insert"]
        for name in names:
            again = w.connect()
            again.send(hello({"channel": name} | start))
            await w.subscribe(again, name)
            assert events(again.read())[2:] == ["insert", "insert", "mag:resumed"]


async def test_asking_again_for_a_channel_that_waits_is_not_an_acknowledgement() -> None:
    async with world("flights") as w:
        w.stream.ready.clear()
        client = w.connect()
        await w.subscribe(client, CHANNEL, CHANNEL)
        assert events(client.read()) == ["pusher:connection_established"]
        w.stream.ready.set()
        await w.settle()
        assert events(client.read()) == ["pusher_internal:subscription_succeeded"]
        client.send({"event": "pusher:subscribe", "data": {"channel": CHANNEL, "auth": "forged"}})
        assert events(client.read()) == ["pusher_internal:subscription_succeeded"]
        w.stream.commit({"id": 1})
        await w.settle()
        assert ids(client.read()) == [1]


async def test_a_new_member_does_not_hide_another_epoch_from_the_old_ones() -> None:
    async with world("flights") as w:
        old = await follow(w, CHANNEL)
        w.stream.epoch = "epoch-9"
        await follow(w, CHANNEL)
        assert events(old.read()) == ["mag:gap", "mag:position"]


async def test_a_position_is_not_told_before_a_silent_change_of_epoch() -> None:
    async with world("flights") as w:
        client = await follow(w, CHANNEL)
        w.stream.epoch = "epoch-9"
        w.stream.commit({"id": 1})
        await w.settle()
        w.plane.tick(1.0)
        await w.settle()
        got = events(client.read())
        assert got.index("mag:gap") < got.index("mag:position")


async def test_a_hello_while_a_slow_client_is_brought_back_goes_back_to_its_position() -> None:
    async with world("flights", send_buffer_bytes=65_536) as w:
        start = w.stream.position
        w.stream.commit({"id": 0})
        client = w.connect(take_bytes=0)
        await w.subscribe(client, CHANNEL)
        w.stream.commit({"id": 1, "note": "x" * 70_000})
        await w.settle()
        w.stream.commit({"id": 2})
        await w.settle()
        assert len(w.plane.feed.followers) == 1
        client.send(hello({"channel": CHANNEL, "epoch": "epoch-1", "serial": start}))
        client.drain()
        await w.clock.advance(1)
        client.drain()
        w.stream.commit({"id": 3})
        await w.settle()
        got = client.read()
        assert ids(got) == [1, 0, 1, 2, 3]
        assert events(got)[-2:] == ["mag:resumed", "insert"]


async def test_a_client_too_slow_for_its_hello_is_told_no_position_it_has_not_reached() -> None:
    async with world("flights", send_buffer_bytes=65_536) as w:
        client = w.connect(take_bytes=0)
        await w.subscribe(client, CHANNEL)
        w.stream.commit({"id": 1, "note": "x" * 70_000})
        await w.settle()
        w.stream.commit({"id": 2})
        client.send(hello())  # in the same turn: change 2 still waits
        assert events(client.read())[-1] == "insert"
        client.drain()
        await w.clock.advance(1)
        assert events(client.read()) == ["insert", "mag:position"]


async def test_the_words_kept_for_replays_are_bounded_in_bytes() -> None:
    async with world("flights", send_buffer_bytes=67_108_864) as w:
        start = w.stream.position
        for number in range(300):
            w.stream.commit({"id": number, "note": "x" * 90_000})
        client = w.connect()
        client.send(hello({"channel": CHANNEL, "epoch": "epoch-1", "serial": start}))
        await w.subscribe(client, CHANNEL)
        followers, most = w.plane.feed.followers, 0
        while len(followers):
            most = max(most, sum(map(len, followers._words.values())))
            await w.settle()
        assert ids(client.read()) == list(range(300))
        assert resume.KEPT_BYTES // 2 < most <= resume.KEPT_BYTES
