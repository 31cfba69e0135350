"""Table channels: what is delivered, what is refused, and resuming without a hole."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.magws.support import FLIGHTS, World, events, hello, ids, world

from magmobo.components.magws import resume
from magmobo.components.magws.config import AppConfig, TableConfig
from magmobo.contracts.errors import Unavailable
from magmobo.contracts.planes import TableName
from magmobo.contracts.secret import Secret
from magmobo.testing.websocket import MemoryConnection

CHANNEL = "db.public.flights"


async def follower(w: World, *entries: dict[str, object], channel: str = CHANNEL) -> MemoryConnection:
    client = w.connect()
    client.send(hello(*entries))
    await w.subscribe(client, channel)
    return client


async def test_a_change_arrives_with_all_its_fields() -> None:
    async with world("flights") as w:
        client = w.connect()
        await w.subscribe(client, CHANNEL)
        change = w.stream.commit({"id": 1, "note": 'quote " \\ \n é'}, {"id": 1}, op="update")
        await w.settle()
        last = client.read()[-1]
        assert (last["event"], last["channel"]) == ("update", CHANNEL)
        assert last["data"] == {
            "op": "update",
            "schema": "public",
            "table": "flights",
            "record": {"id": 1, "note": 'quote " \\ \n é'},
            "old_record": {"id": 1},
            "commit_time": "2026-01-01T00:00:00Z",
            "epoch": "epoch-1",
            "serial": change.position,
        }


async def test_filters_see_old_and_new_rows_and_every_truncate() -> None:
    async with world("full") as w:
        table = TableName("public", "full")
        names = ["db.public.full;dest=SEA", "db.public.full;id=2", "db.public.full;note=a@22b", "db.public.full"]
        clients = {}
        for name in names:
            clients[name] = w.connect()
            await w.subscribe(clients[name], name)
            clients[name].read()
        w.stream.commit({"id": 1, "dest": "SEA", "note": 'a"b'}, table=table)
        w.stream.commit({"id": 2, "dest": "LAX"}, {"id": 2, "dest": "SEA"}, op="update", table=table)
        w.stream.commit({"id": "2", "dest": "LAX"}, table=table)
        w.stream.commit(None, {"id": 3, "dest": "LAX"}, op="delete", table=table)
        w.stream.commit(None, op="truncate", table=table)
        await w.settle()
        got = {name: events(client.read()) for name, client in clients.items()}
        assert got == {
            names[0]: ["insert", "update", "truncate"],
            names[1]: ["update", "insert", "truncate"],
            names[2]: ["insert", "truncate"],
            names[3]: ["insert", "update", "insert", "delete", "truncate"],
        }


@pytest.mark.parametrize(
    ("channel", "code"),
    [
        ("db.public.secrets", "MAG-WS-015"),
        ("db.public.absent", "MAG-WS-015"),
        ("db.public", "MAG-WS-012"),
        ("private-db.public.flights", "MAG-WS-016"),
        ("db.public.hidden", "MAG-WS-016"),
        ("db.public.flights;nope=1", "MAG-WS-017"),
        ("db.public.flights;note=1", "MAG-WS-017"),
    ],
)
async def test_refusals_name_a_code(channel: str, code: str) -> None:
    hidden = TableConfig(table="hidden")
    async with world("flights", "absent", hidden) as w:
        client = w.connect()
        await w.subscribe(client, channel, "private-db.public.hidden")
        refused = [m["data"] for m in client.read() if m["event"] == "pusher:subscription_error"]
        assert [one["code"] for one in refused] == [code]
        assert code in refused[0]["error"]


async def test_private_tables_need_a_signature_before_anything_is_told() -> None:
    async with world(TableConfig(table="flights")) as w:
        client = w.connect()
        for name in ("private-db.public.flights", "private-db.public.nothing"):
            client.read()
            client.send({"event": "pusher:subscribe", "data": {"channel": name}})
            [refusal] = client.read()
            assert refusal["data"]["code"] == "MAG-WS-011"


async def test_inserts_only_tables_may_be_filtered_on_any_column() -> None:
    async with world("log") as w:
        client = w.connect()
        await w.subscribe(client, "db.public.log;note=x")
        assert events(client.read())[-1] == "pusher_internal:subscription_succeeded"


async def test_a_row_too_large_carries_its_keys() -> None:
    small = AppConfig(id="7", key="key7", secret=Secret("secret7"), max_row_bytes=1024)
    async with world("flights", app=small) as w:
        client = w.connect()
        await w.subscribe(client, CHANNEL)
        w.stream.commit({"id": 5, "note": "x" * 2000})
        w.stream.commit({"id": "y" * 2000})
        await w.settle()
        first, second = (m["data"] for m in client.read()[-2:])
        assert (first["record"], first["keys"], first["refetch"]) == (None, {"id": 5}, True)
        assert (second["keys"], second["refetch"]) == (None, True)


async def test_nothing_is_acknowledged_before_the_stream_has_caught_up() -> None:
    async with world("flights") as w:
        w.stream.ready.clear()
        client = w.connect()
        await w.subscribe(client, CHANNEL)
        w.stream.commit({"id": 1}, replayed=True)
        assert events(client.read()) == ["pusher:connection_established"]
        w.stream.ready.set()
        await w.settle()
        w.stream.commit({"id": 2})
        await w.settle()
        assert ids(client.read()) == [2]


async def test_a_server_without_changes_refuses_with_its_reason() -> None:
    async with world("flights") as w:
        w.stream.unavailable = Unavailable("the change stream")
        client = w.connect()
        await w.subscribe(client, CHANNEL)
        [refusal] = [m["data"] for m in client.read() if m["event"] == "pusher:subscription_error"]
        assert refusal["code"] == "MAG-CORE-001"
        assert "not available right now" in refusal["error"]
        assert refusal["status"] == 503
        w.stream.unavailable = None
        await w.clock.advance(1)
        await w.subscribe(client, CHANNEL)
        assert events(client.read()) == ["pusher_internal:subscription_succeeded"]


async def test_unsubscribing_while_waiting_leaves_nothing() -> None:
    async with world("flights") as w:
        w.stream.ready.clear()
        client = w.connect()
        await w.subscribe(client, CHANNEL)
        client.send({"event": "pusher:unsubscribe", "data": {"channel": CHANNEL}})
        await w.subscribe(client, CHANNEL)
        w.stream.ready.set()
        await w.settle()
        assert events(client.read()).count("pusher_internal:subscription_succeeded") == 1
        client.leave()
        assert list(w.plane.registry) == []
        assert len(w.plane.feed.followers) == 0


async def test_resume_gives_succeeded_missed_resumed_live_in_this_order() -> None:
    async with world("flights") as w:
        first = await follower(w)
        position = next(m["data"] for m in first.read() if m["event"] == "mag:position")
        first.leave()
        for number in range(3):
            w.stream.commit({"id": number})
        again = await follower(w, position)
        w.stream.commit({"id": 3})
        await w.settle()
        got = again.read()[1:]
        assert events(got) == [
            "pusher_internal:subscription_succeeded", "insert", "insert", "insert", "mag:resumed", "insert",
        ]  # fmt: skip
        assert ids(got) == [0, 1, 2, 3]
        assert got[4]["data"] == {"channel": CHANNEL, "epoch": "epoch-1", "serial": got[3]["data"]["serial"]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"epoch": "x"}, "epoch_changed"), ({"serial": ""}, "malformed"), ({"serial": "f" * 16 + ".ffffffff"}, "ahead")],
)
async def test_a_position_that_cannot_be_resumed_is_answered_by_a_gap(change: dict[str, str], reason: str) -> None:
    async with world("flights") as w:
        entry = {"channel": CHANNEL, "epoch": "epoch-1", "serial": w.stream.position}
        client = await follower(w, entry | change)
        w.stream.commit({"id": 1})
        await w.settle()
        got = client.read()[1:]
        assert events(got) == ["pusher_internal:subscription_succeeded", "mag:gap", "mag:position", "insert"]
        gap = got[1]["data"]
        assert gap["reason"] == reason
        assert gap["from"] == change.get("serial", entry["serial"])
        assert gap["refetch"] == {"schema": "public", "table": "flights"}
        assert got[2]["data"]["serial"] == gap["to"]


async def test_resuming_a_channel_one_may_not_have_tells_nothing() -> None:
    async with world(TableConfig(table="flights")) as w:
        name = "private-db.public.flights"
        client = w.connect()
        client.send(hello({"channel": name, "epoch": "epoch-1", "serial": w.stream.position}))
        w.stream.commit({"id": 1})
        client.read()
        client.send({"event": "pusher:subscribe", "data": {"channel": name, "auth": "key7:forged"}})
        await w.settle()
        assert events(client.read()) == ["pusher:subscription_error"]


async def test_hello_on_a_live_channel_gives_position_or_what_came_after_it() -> None:
    async with world("flights") as w:
        client = w.connect()
        await w.subscribe(client, CHANNEL)
        start = w.stream.position
        w.stream.commit({"id": 1})
        await w.settle()
        client.read()
        client.send(hello())
        assert events(client.read()) == ["mag:position"]
        client.send(hello({"channel": CHANNEL, "epoch": "epoch-1", "serial": start}))
        await w.settle()
        w.stream.commit({"id": 2})
        await w.settle()
        assert events(client.read()) == ["insert", "mag:resumed", "insert"]


async def test_lost_changes_are_told_to_everybody() -> None:
    async with world("flights") as w:
        knows, plain = await follower(w), w.connect()
        await w.subscribe(plain, CHANNEL)
        knows.read(), plain.read()
        w.stream.commit({"id": 1})
        w.stream.lose()
        w.stream.commit({"id": 2})
        await w.clock.advance(1)
        got = knows.read()
        assert events(got) == ["insert", "mag:gap", "mag:position", "insert"]
        assert got[1]["data"]["reason"] == "lost"
        assert got[2]["data"]["epoch"] == got[3]["data"]["epoch"] == w.stream.epoch
        assert plain.closed_with == 4200


async def test_another_epoch_without_a_word_is_noticed() -> None:
    async with world("flights") as w:
        client = await follower(w)
        w.stream.epoch = "epoch-9"
        client.read()
        w.plane.tick(10.0)
        assert "mag:gap" in events(client.read())


async def test_a_storage_plane_that_comes_back_fills_the_hole() -> None:
    async with world("flights") as w:
        client = w.connect()
        await w.subscribe(client, CHANNEL)
        seen = w.stream.commit({"id": 1})
        await w.settle()
        w.bus.emit(type(seen)(**{f: getattr(seen, f) for f in seen.__struct_fields__} | {"replayed": True}))
        w.stream.commit({"id": 2}, replayed=True)
        await w.settle()
        assert ids(client.read()) == [1, 2]


async def test_row_security_keeps_a_table_out_and_takes_it_out_later() -> None:
    open_table = TableConfig(table="open", access="public", rls="ignore")
    async with world("flights", open_table) as w:
        client = await follower(w)
        client.read()
        w.catalogue.row_security.update({FLIGHTS, TableName("public", "open")})
        assert await w.book.refresh()
        w.plane.feed.recheck()
        w.stream.commit({"id": 1})
        await w.settle()
        got = client.read()
        assert events(got) == ["mag:gap", "pusher:subscription_error"]
        assert got[1]["data"]["code"] == "MAG-WS-018"
        assert w.book.channels() == ["db.public.open"]
        await w.subscribe(client, CHANNEL, "db.public.open")
        assert events(client.read())[:2] == ["pusher:subscription_error", "pusher_internal:subscription_succeeded"]
        assert not await w.book.refresh()


async def test_row_security_takes_a_table_out_before_anything_is_waited_for() -> None:
    async with world("flights") as w:
        client = await follower(w)
        client.read()
        w.catalogue.row_security.add(FLIGHTS)
        w.stream.may_publish.clear()
        refreshing = asyncio.create_task(w.book.refresh(w.plane.feed.recheck))
        await w.settle()
        w.stream.commit({"id": 1})
        await w.settle()
        assert events(client.read()) == ["mag:gap", "pusher:subscription_error"]
        w.stream.may_publish.set()
        assert await refreshing


async def test_a_table_the_stream_begins_to_carry_is_noticed() -> None:
    async with world("flights", "absent") as w:
        assert not w.book.is_stale()
        published = w.stream.tables.pop(FLIGHTS)
        assert w.book.is_stale()
        w.stream.tables[FLIGHTS] = published
        assert not w.book.is_stale()


# ------------------------------------------------------------ pace


async def test_a_long_replay_to_a_slow_client_stays_bounded_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "PAGE_BYTES", 8_192)
    async with world("flights", send_buffer_bytes=65_536) as w:
        start = w.stream.position
        for number in range(400):
            w.stream.commit({"id": number, "note": "x" * 1000})
        client = w.connect(take_bytes=2_000)
        client.send(hello({"channel": CHANNEL, "epoch": "epoch-1", "serial": start}))
        await w.subscribe(client, CHANNEL)
        got: list[int] = []
        most = 0
        for number in range(400, 520):
            w.stream.commit({"id": number, "note": "x" * 1000})
            most = max(most, client.unsent_bytes)
            got += ids(client.read())
            client.drain()
            await w.clock.advance(0.05)
        assert got == list(range(len(got)))
        got += ids(client.read())
        assert got == list(range(520))
        assert most <= 65_536 + 8_192 + 2_000


async def test_a_replay_that_history_overtakes_ends_in_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "PAGE_BYTES", 4_096)
    monkeypatch.setattr(resume, "BATCH_CHANGES", 4)
    monkeypatch.setattr(resume, "PAGE_CHANGES", 4)
    async with world("flights", send_buffer_bytes=65_536, history_bytes=200_000) as w:
        start = w.stream.position
        for number in range(100):
            w.stream.commit({"id": number, "note": "x" * 1000})
        client = w.connect(take_bytes=0)
        client.send(hello({"channel": CHANNEL, "epoch": "epoch-1", "serial": start}))
        await w.subscribe(client, CHANNEL)
        for number in range(100, 400):
            w.stream.commit({"id": number, "note": "x" * 1000})
        client.drain()
        await w.clock.advance(1)
        got = client.read()
        assert events(got)[-2:] == ["mag:gap", "mag:position"]
        assert ids(got) == list(range(len(ids(got))))


@pytest.mark.parametrize("says_hello", [True, False])
async def test_a_live_client_that_falls_behind_is_brought_back_without_loss(says_hello: bool) -> None:
    async with world("flights", send_buffer_bytes=65_536) as w:
        client = w.connect(take_bytes=1_000)
        if says_hello:
            client.send(hello())
        await w.subscribe(client, CHANNEL)
        for number in range(300):
            w.stream.commit({"id": number, "note": "x" * 1000})
            if number % 50 == 0:
                await w.settle()
        assert client.unsent_bytes < 65_536 + 300_000
        for _ in range(20):
            client.drain()
            await w.clock.advance(0.05)
        w.stream.commit({"id": 300})
        await w.settle()
        assert ids(client.read()) == list(range(301))
        assert client.closed_with is None
        assert w.plane.traffic.slow >= 1


async def test_falling_behind_on_the_first_change_after_joining_repeats_nothing() -> None:
    async with world("flights", "full", send_buffer_bytes=65_536) as w:
        client = w.connect(take_bytes=0)
        await w.subscribe(client, CHANNEL)
        w.stream.commit({"id": 0, "note": "x" * 70_000})
        w.stream.commit({"id": 1}, table=TableName("public", "full"))
        await w.settle()
        client.send(hello())
        await w.subscribe(client, "db.public.full")
        w.stream.commit({"id": 2}, table=TableName("public", "full"))
        await w.settle()
        client.drain()
        await w.clock.advance(1)
        got = client.read()
        assert ids(got) == [0, 2]
        assert "mag:gap" not in events(got)


async def test_a_client_that_reads_nothing_is_closed() -> None:
    async with world("flights", send_buffer_bytes=65_536) as w:
        client = w.connect(take_bytes=0)
        await w.subscribe(client, CHANNEL)
        for number in range(300):
            w.stream.commit({"id": number, "note": "x" * 1000})
            await w.settle()
        await w.clock.advance(resume.STALLED_S + 1)
        assert client.closed_with == 4100
        assert len(w.plane.feed.followers) == 0


STEP = st.sampled_from(["commit", "settle", "drop", "return", "slow", "drain", "lose", "restart"])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(STEP, max_size=40), st.booleans())
async def test_every_change_arrives_once_in_order_or_inside_a_gap(steps: list[str], filtered: bool) -> None:
    """Whatever happens, a client that keeps its position sees each committed row once, unless a gap covers it."""
    channel = f"{CHANNEL};id=1" if filtered else CHANNEL
    async with world("flights", send_buffer_bytes=65_536) as w:
        committed: list[str] = []
        got: list[str] = []
        entry: dict[str, object] | None = None
        client: MemoryConnection | None = None
        gaps: list[tuple[str, str]] = []

        def read() -> None:
            nonlocal entry
            for message in client.read() if client is not None else ():
                data = message["data"]
                if message["event"] == "insert":
                    got.append(data["serial"])
                if message["event"] == "mag:gap":
                    gaps.append((data["from"], data["to"]))
                if message["event"] in ("insert", "mag:position", "mag:resumed"):
                    entry = {"channel": channel, "epoch": data["epoch"], "serial": data["serial"]}

        for step in [*steps, "drain", "return", "commit", "drain"]:
            if step == "commit":
                for _ in range(30):
                    committed.append(w.stream.commit({"id": 1, "note": "x" * 900}).position)
                    w.stream.commit({"id": 2})
            elif step == "return" and (client is None or client.closed_with is not None):
                client = w.connect()
                client.send(hello(*([entry] if entry else [])))
                await w.subscribe(client, channel)
                if entry is None:
                    committed.clear()
            elif step == "drop" and client is not None:
                read()
                client.leave()
            elif step == "slow" and client is not None:
                client.take_bytes = 0
            elif step == "drain" and client is not None:
                for _ in range(30):
                    client.drain()
                    await w.clock.advance(0.05)
                client.take_bytes = None
            elif step == "lose":
                w.stream.lose()
            elif step == "restart":
                w.plane.tick(w.clock.monotonic_s() + 10)
            await w.settle()
            read()
        assert [s for s in got if not filtered] == [s for s in sorted(set(got)) if not filtered]
        assert got == sorted(set(got)), "twice or out of order"
        missing = [p for p in committed if p not in set(got)]
        covered = [p for p in missing if any(start < p <= end for start, end in gaps)]
        assert missing == covered, "a row is missing and no gap says so"
