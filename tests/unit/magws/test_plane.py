from __future__ import annotations

import msgspec
import pytest
from tests.unit.magws.support import APP, events, hello, socket_id, world

from magmobo.components.magws import signing
from magmobo.components.magws.config import AppConfig
from magmobo.components.magws.protocol import frames
from magmobo.contracts.events import RealtimeConnectionClosed, RealtimeSubscriptionCreated
from magmobo.contracts.secret import Secret
from magmobo.testing.websocket import MemoryConnection


def message(name: str, data: str = "{}", event: str = "said") -> bytes:
    return frames.message_frame(event, data, name)


async def test_a_connection_is_greeted_with_its_socket_id() -> None:
    async with world() as w:
        client = w.connect()
        [greeting] = client.read()
        assert greeting["event"] == "pusher:connection_established"
        assert greeting["data"] == {"socket_id": socket_id(client), "activity_timeout": 120}
        client.send({"event": "pusher:ping", "data": {}})
        assert events(client.read()) == ["pusher:pong"]


@pytest.mark.parametrize(
    ("path", "query", "code"),
    [
        ("/app/nobody", {"protocol": "7"}, 4001),
        ("/app/", {"protocol": "7"}, 4005),
        ("/app/key7/more", {"protocol": "7"}, 4005),
        ("/app/key7", {}, 4008),
        ("/app/key7", {"protocol": "seven"}, 4006),
        ("/app/key7", {"protocol": "٧"}, 4006),
        ("/app/key7", {"protocol": "4"}, 4007),
        ("/app/key7", {"protocol": "8"}, 4007),
    ],
)
async def test_unwanted_connections_are_told_and_closed(path: str, query: dict[str, str], code: int) -> None:
    async with world() as w:
        client = MemoryConnection().open(w.plane.open, path, query)
        assert client.closed_with == code
        [error] = client.read()
        assert error["data"]["code"] == code
        assert "[MAG-WS-00" in error["data"]["message"]
        assert len(w.plane) == 0


@pytest.mark.parametrize("version", ["5", "6", "7"])
async def test_versions_five_to_seven_are_spoken(version: str) -> None:
    async with world() as w:
        assert w.connect(protocol=version).closed_with is None


async def test_quotas() -> None:
    small = AppConfig(id="7", key="key7", secret=Secret("s"), max_connections=1)
    async with world(app=small) as w:
        first = w.connect()
        assert w.connect().closed_with == 4004
        first.leave()
        assert w.connect().closed_with is None
    async with world(max_connections=1) as w:
        w.connect()
        assert w.connect().closed_with == 4100


@pytest.mark.parametrize("payload", [b"[" * 100_000, b"\xff", b"{}", b'{"event":"pusher:subscribe"}', b"1"])
async def test_a_bad_frame_closes_only_its_own_connection(payload: bytes) -> None:
    async with world() as w:
        bad, good = w.connect(), w.connect()
        await w.subscribe(bad, "room")
        await w.subscribe(good, "room")
        bad.send(payload)
        assert bad.closed_with == 4200
        w.plane.publish("7", "room", message("room"))
        await w.settle()
        assert events(good.read())[-1] == "said"
        assert len(w.plane) == 1


async def test_public_and_private_channels() -> None:
    async with world() as w:
        a, b = w.connect(), w.connect()
        await w.subscribe(a, "room", "private-room")
        stolen = signing.channel_auth(APP.key, APP.secret, socket_id(a), "private-room")
        for auth in (stolen, "key7:00", "", None):
            b.read()
            b.send({"event": "pusher:subscribe", "data": {"channel": "private-room", "auth": auth}})
            [refusal] = b.read()
            assert refusal["event"] == "pusher:subscription_error"
            assert refusal["data"]["type"] == "AuthError"
            assert refusal["data"]["status"] == 401
        w.plane.publish("7", "private-room", message("private-room", '{"a":1}'))
        await w.settle()
        assert b.read() == []
        assert a.read()[-1] == {"event": "said", "channel": "private-room", "data": {"a": 1}}


@pytest.mark.parametrize(
    ("channel", "code"),
    [
        ("presence-x", "MAG-WS-013"),
        ("cache-x", "MAG-WS-013"),
        ("a b", "MAG-WS-012"),
        ("#server-to-user-1", "MAG-WS-012"),
    ],
)
async def test_other_channels_are_refused_and_the_connection_stays(channel: str, code: str) -> None:
    async with world() as w:
        client = w.connect()
        await w.subscribe(client, channel, "room")
        replies = client.read()
        assert replies[1]["data"]["code"] == code
        assert events(replies)[2:] == ["pusher_internal:subscription_succeeded"]


async def test_refused_channels_take_no_place() -> None:
    async with world(max_channels=2) as w:
        client = w.connect()
        for number in range(9):
            await w.subscribe(client, f"{number}" * 300, "presence-x", "db.public.nothing")
        await w.subscribe(client, "a", "b", "c")
        got = client.read()
        assert events(got).count("pusher_internal:subscription_succeeded") == 2
        assert got[-1]["data"]["code"] == "MAG-WS-014"


async def test_unsubscribing_and_leaving_free_the_channel() -> None:
    async with world() as w:
        a, b = w.connect(), w.connect()
        await w.subscribe(a, "room", "hall")
        await w.subscribe(b, "room")
        a.send({"event": "pusher:unsubscribe", "data": {"channel": "room"}})
        a.read()
        w.plane.publish("7", "room", message("room"))
        await w.settle()
        assert a.read() == []
        assert events(b.read())[-1] == "said"
        a.leave()
        b.leave()
        assert list(w.plane.registry) == []
        assert len(w.plane) == 0


async def test_client_events_reach_the_others_only() -> None:
    async with world() as w:
        a, b = w.connect(), w.connect()
        await w.subscribe(a, "private-room")
        await w.subscribe(b, "private-room")
        a.read(), b.read()
        a.send({"event": "client-typing", "channel": "private-room", "data": {"who": 1}})
        await w.settle()
        assert a.read() == []
        assert b.read() == [{"event": "client-typing", "channel": "private-room", "data": {"who": 1}}]


async def test_order_exclusion_and_late_joiners_in_one_loop_turn() -> None:
    async with world() as w:
        a, b, late = w.connect(), w.connect(), w.connect()
        await w.subscribe(a, "room")
        await w.subscribe(b, "room")
        a.read(), b.read(), late.read()
        w.plane.publish("7", "room", message("room", "1"))
        w.plane.publish("7", "room", message("room", "2"), exclude=socket_id(a))
        late.send({"event": "pusher:subscribe", "data": {"channel": "room"}})
        w.plane.publish("7", "room", message("room", "3"))
        await w.settle()
        assert [m["data"] for m in a.read()] == [1, 3]
        assert [m["data"] for m in b.read()] == [1, 2, 3]
        assert [m["data"] for m in late.read()][1:] == [3]


async def test_a_large_channel_is_served_in_portions_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magmobo.components.magws.channels.PORTION", 3)
    async with world() as w:
        clients = [w.connect() for _ in range(10)]
        for client in clients:
            await w.subscribe(client, "room")
            client.read()
        w.plane.publish("7", "room", message("room", "1"))
        await _turns(2)
        w.plane.publish("7", "room", message("room", "2"))
        clients[9].leave()
        late = w.connect()
        late.send({"event": "pusher:subscribe", "data": {"channel": "room"}})
        await w.settle()
        assert all([m["data"] for m in client.read()] == [1, 2] for client in clients[:9])
        assert [m["data"] for m in late.read() if m["event"] == "said"] == []


async def _turns(count: int) -> None:
    import asyncio

    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_slow_client_of_an_ordinary_channel_is_asked_to_come_back() -> None:
    async with world(send_buffer_bytes=65_536) as w:
        slow, quick = w.connect(take_bytes=1_000), w.connect()
        await w.subscribe(slow, "room")
        await w.subscribe(quick, "room")
        for _ in range(12):
            w.plane.publish("7", "room", message("room", '"' + "x" * 10_000 + '"'))
            await w.settle()
        assert slow.closed_with == 4100
        assert len(slow.received) < 65_536 + 20_000
        assert events(quick.read()).count("said") == 12
        assert w.plane.traffic.slow == 1


async def test_one_loop_turn_cannot_pile_up_frames_without_bound() -> None:
    async with world() as w:
        client = w.connect()
        await w.subscribe(client, "room")
        for _ in range(100):
            w.plane.publish("7", "room", message("room", '"' + "x" * 10_000 + '"'))
        channel = w.plane.registry.find("7", "room")
        assert channel is not None
        assert channel.pending_bytes < 300_000


async def test_silent_clients_are_pinged_then_closed() -> None:
    async with world(activity_timeout_s=10) as w:
        silent, alive = w.connect(), w.connect()
        for _ in range(9):
            await w.clock.advance(5)
            alive.send({"event": "pusher:pong"})
            w.plane.tick(w.clock.monotonic_s())
        assert silent.closed_with == 4201
        assert "pusher:ping" in events(silent.read())
        assert alive.closed_with is None


async def test_a_shutdown_closes_everybody_with_4200_at_a_pace() -> None:
    async with world() as w:
        clients = [w.connect() for _ in range(100)]
        w.plane.close_all()
        await w.settle()
        closed = [client.closed_with for client in clients]
        assert 0 < closed.count(4200) < 100
        await w.clock.advance(1)
        assert [client.closed_with for client in clients] == [4200] * 100
        assert w.connect().closed_with == 4100


async def test_events_are_emitted_for_those_who_listen() -> None:
    async with world() as w:
        seen: list[object] = []
        w.bus.on("realtime.**", lambda envelope: seen.append(envelope.data))
        client = w.connect()
        await w.subscribe(client, "room")
        own_id = socket_id(client)
        client.leave()
        assert RealtimeSubscriptionCreated(own_id, "room") in seen
        assert isinstance(seen[-1], RealtimeConnectionClosed)
        assert msgspec.structs.asdict(seen[-1])["connection_id"] == own_id


# ------------------------------------------------------------ resume on ordinary channels


async def test_plain_clients_see_no_word_of_ours() -> None:
    async with world("flights") as w:
        client = w.connect()
        await w.subscribe(client, "room", "db.public.flights")
        w.plane.publish("7", "room", message("room"))
        w.stream.commit({"id": 1})
        await w.settle()
        await w.clock.advance(61)
        w.plane.tick(w.clock.monotonic_s())
        assert not [name for name in events(client.read()) if name.startswith("mag:")]


async def test_an_ordinary_channel_is_resumed_by_serial_count_and_socket() -> None:
    async with world() as w:
        a, other = w.connect(), w.connect()
        a.send(hello())
        await w.subscribe(a, "room")
        await w.subscribe(other, "room")
        [position] = [m for m in a.read() if m["event"] == "mag:position"]
        former = socket_id(a)
        for number in range(1, 4):
            w.plane.publish("7", "room", message("room", str(number)))
        await w.settle()
        assert len(a.read()) == 3
        w.plane.publish("7", "room", message("room", "4"), exclude=former)
        a.leave()
        for number in range(5, 7):
            w.plane.publish("7", "room", message("room", str(number)))
        again = w.connect()
        again.read()
        entry = position["data"] | {"count": 3, "socket_id": former}
        again.send(hello(entry))
        await w.subscribe(again, "room")
        w.plane.publish("7", "room", message("room", "7"))
        await w.settle()
        got = again.read()
        assert events(got) == ["pusher_internal:subscription_succeeded", "said", "said", "mag:resumed", "said"]
        assert [m["data"] for m in got if m["event"] == "said"] == [5, 6, 7]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epoch": "other"}, "epoch_changed"),
        ({"serial": "zz"}, "malformed"),
        ({"serial": "-1"}, "malformed"),
        ({"serial": "ffffff"}, "ahead"),
        ({"count": 9}, "ahead"),
        ({}, "too_old"),
    ],
)
async def test_an_ordinary_channel_says_gap(change: dict[str, object], reason: str) -> None:
    async with world(history_messages=2) as w:
        a = w.connect()
        a.send(hello())
        await w.subscribe(a, "room")
        entry = next(m["data"] for m in a.read() if m["event"] == "mag:position")
        for number in range(2 if change else 3):
            w.plane.publish("7", "room", message("room", str(number)))
        again = w.connect()
        again.send(hello(entry | change))
        await w.subscribe(again, "room")
        got = [m for m in again.read() if m["event"].startswith("mag:")]
        assert events(got) == ["mag:gap", "mag:position"]
        assert got[0]["data"]["reason"] == reason


async def test_positions_follow_deliveries_and_come_every_minute() -> None:
    async with world() as w:
        client = w.connect()
        client.send(hello())
        await w.subscribe(client, "room")
        client.read()
        w.plane.publish("7", "room", message("room"))
        w.plane.publish("7", "room", message("room"))
        w.plane.tick(2.0)
        got = client.read()
        assert events(got) == ["said", "said", "mag:position"]
        assert int(got[-1]["data"]["serial"], 16) == 2
        w.plane.tick(3.0)
        assert client.read() == []
        w.plane.tick(62.0)
        assert events(client.read()) == ["mag:position"]


async def test_histories_are_bounded_and_forgotten() -> None:
    async with world(history_s=10) as w:
        client = w.connect()
        client.send(hello())
        await w.subscribe(client, "room")
        w.plane.publish("7", "room", message("room"))
        client.leave()
        assert w.plane._histories.size_bytes > 0
        await w.clock.advance(30)
        w.plane.tick(w.clock.monotonic_s())
        assert list(w.plane.registry) == []
        assert w.plane._histories.size_bytes == 0
