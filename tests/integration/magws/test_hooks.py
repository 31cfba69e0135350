"""Extensions beside realtime on a whole node: over real sockets, from every publisher, through a restart."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pusher import Pusher
from pusher.errors import PusherBadStatus, PusherForbidden
from tests.integration.magws.support import APP_ID, KEY, SECRET, Node, connected, running_node

from magmobo.components.magws import broadcasts, http_api
from magmobo.components.magws.errors import BroadcastDropped
from magmobo.contracts.errors import HookDenied, HookUnavailable, Unavailable
from magmobo.contracts.hooks import HookPoint

NO = {"n": "no"}
PASSWORD = "correct-horse-battery-77"


class Chain:
    """Keeps what it is asked; `gate` holds every question until it is set."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.has_asked = asyncio.Event()

    async def before(self, context: Any) -> Any:
        self.asked.append(context)
        self.has_asked.set()
        await self.gate.wait()
        data = getattr(context, "data", "")
        if '"no"' in data:
            raise HookDenied("realtime.before_broadcast", "night-guard", "not after dark", 2.5)
        if '"leak"' in data:
            raise HookDenied("realtime.before_broadcast", "night-guard", f"the key is {PASSWORD}")
        if '"dead"' in data:
            raise HookUnavailable("realtime.before_broadcast", "night-guard", "its breaker is open")
        return context


def put(node: Node, name: str, chain: Chain) -> None:
    point: HookPoint[Any] = node.component._context.hooks.point(name)
    point.chain = chain  # type: ignore[assignment]


async def test_every_publisher_is_asked_about_under_its_own_name(dsn: str) -> None:
    chain = Chain()
    async with running_node(dsn) as node, connected(node.url) as one, connected(node.url) as two:
        await one.subscribe("private-a")
        await two.subscribe("private-a")
        put(node, "realtime.before_broadcast", chain)
        api = Pusher(app_id=APP_ID, key=KEY, secret=SECRET, ssl=False, host="127.0.0.1", port=node.port)
        await asyncio.to_thread(api.trigger, "private-a", "said", {"n": 1})
        node.component.publish(["private-a"], "said", '{"n":2}')
        node.component.publish(["private-a"], "said", '{"n":3}', origin="extension:greeter")
        await two.send("client-said", {"n": 4}, "private-a")
        messages = await one.until("client-said")

    assert [message["data"] for message in messages] == [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}]
    assert [context.origin for context in chain.asked] == ["api", "component", "extension:greeter", "client"]
    assert {(context.app, context.channel) for context in chain.asked} == {(APP_ID, "private-a")}


async def test_no_message_waits_longer_than_the_component_runs(dsn: str) -> None:
    chain = Chain()
    async with running_node(dsn) as node:
        async with connected(node.url) as client, asyncio.timeout(20):
            await client.subscribe("room")
            put(node, "realtime.before_broadcast", chain)
            chain.gate.clear()
            node.component.publish(["room"], "said", "1")
            await chain.has_asked.wait()
            await node.component.stop()
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "magws broadcasts"]
        await node.component.start()


async def test_a_restart_forgets_who_waits_and_asks_again(dsn: str) -> None:
    chain = Chain()
    async with running_node(dsn) as node:
        put(node, "realtime.subscribe_to_channel", chain)
        chain.gate.clear()
        async with connected(node.url) as client, asyncio.timeout(20):
            await client.send("pusher:subscribe", {"channel": "room"})
            await chain.has_asked.wait()
            await node.component.stop()
            assert await client.closed() == 4200
        chain.gate.set()
        await node.component.start()
        async with connected(node.url) as client:
            await client.subscribe("room")

    assert [context.channel for context in chain.asked] == ["room", "room"]


async def test_who_publishes_over_http_is_told_what_did_not_go_out(dsn: str) -> None:
    async with running_node(dsn) as node, connected(node.url) as client:
        await client.subscribe("room")
        put(node, "realtime.before_broadcast", Chain())
        api = Pusher(app_id=APP_ID, key=KEY, secret=SECRET, ssl=False, host="127.0.0.1", port=node.port)
        with pytest.raises(PusherForbidden) as denied:
            await asyncio.to_thread(api.trigger, ["room", "empty"], "said", NO)
        said = json.loads(str(denied.value))
        assert said == {
            "error": "room: night-guard denied it: not after dark",
            "code": "MAG-WS-036",
            "channels": {"room": "night-guard denied it: not after dark"},
        }
        with pytest.raises(PusherBadStatus, match="MAG-WS-037"):
            await asyncio.to_thread(api.trigger, "room", "said", {"n": "dead"})
        batch = [{"channel": "room", "name": "said", "data": data} for data in ({"n": 1}, NO, {"n": 3})]
        with pytest.raises(PusherForbidden):
            await asyncio.to_thread(api.trigger_batch, batch)
        assert await asyncio.to_thread(api.trigger, "room", "end", {}) == {}
        messages = await client.until("end")

    assert [message["data"] for message in messages if message["event"] == "said"] == [{"n": 1}, {"n": 3}]


async def test_a_caller_waits_for_extensions_only_so_long(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_api, "VERDICT_S", 0.05)
    chain = Chain()
    async with running_node(dsn) as node, connected(node.url) as client:
        await client.subscribe("room")
        put(node, "realtime.before_broadcast", chain)
        chain.gate.clear()
        api = Pusher(app_id=APP_ID, key=KEY, secret=SECRET, ssl=False, host="127.0.0.1", port=node.port)
        with pytest.raises(PusherBadStatus, match="MAG-WS-038"):
            await asyncio.to_thread(api.trigger, "room", "late", {"n": 1})
        chain.gate.set()
        assert (await client.until("late"))[-1]["data"] == {"n": 1}


async def test_nobody_is_told_a_secret_of_the_node(dsn: str) -> None:
    async with running_node(dsn) as node, connected(node.url) as client:
        await client.subscribe("private-a")
        node.kernel.services.known.add(PASSWORD)
        put(node, "realtime.before_broadcast", Chain())
        api = Pusher(app_id=APP_ID, key=KEY, secret=SECRET, ssl=False, host="127.0.0.1", port=node.port)
        with pytest.raises(PusherForbidden, match="the key is") as refused:
            await asyncio.to_thread(api.trigger, "private-a", "said", {"n": "leak"})
        assert PASSWORD not in str(refused.value)
        await client.send("client-said", "leak", "private-a")
        message = (await client.until("pusher:error"))[-1]["data"]["message"]
        assert ("the key is" in message, PASSWORD in message) == (True, False)


async def test_a_client_is_told_that_its_event_did_not_go_out(dsn: str) -> None:
    chain = Chain()
    async with running_node(dsn) as node, connected(node.url) as one, connected(node.url) as two:
        await one.subscribe("private-a")
        await two.subscribe("private-a")
        put(node, "realtime.before_broadcast", chain)
        await two.send("client-said", "no", "private-a")
        error = (await two.until("pusher:error"))[-1]
        assert error["data"] == {"code": 4301, "message": "night-guard denied it: not after dark"}
        await two.send("client-said", "yes", "private-a")
        assert [message["data"] for message in await one.until("client-said")] == ["yes"]


async def test_a_client_that_left_is_told_nothing(dsn: str) -> None:
    chain = Chain()
    async with running_node(dsn) as node, connected(node.url) as one:
        await one.subscribe("private-a")
        async with connected(node.url) as two:
            await two.subscribe("private-a")
            put(node, "realtime.before_broadcast", chain)
            chain.gate.clear()
            await two.send("client-said", "no", "private-a")
            async with asyncio.timeout(30):
                await chain.has_asked.wait()
        async with asyncio.timeout(30):
            while len(node.component._plane) > 1:
                await asyncio.sleep(0.01)
        chain.gate.set()
        await node.component.deliver(["private-a"], "said", "1")
        assert [message["data"] for message in await one.until("said")] == [1]


async def test_a_component_is_told_and_what_is_dropped_is_told_too(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain()
    async with running_node(dsn) as node, connected(node.url) as client:
        await client.subscribe("room")
        deliver = node.component.deliver
        await deliver(["room", "nobody"], "said", '"no"')  # nobody is asked
        put(node, "realtime.before_broadcast", chain)
        async with asyncio.timeout(30):
            with pytest.raises(HookDenied) as denied:
                await deliver(["nobody", "room"], "said", '"no"')
            assert denied.value.retry_s == 2.5
            with pytest.raises(HookUnavailable):
                await deliver(["room"], "said", '"dead"')
            monkeypatch.setattr(broadcasts, "MAX_WAITING", 1)
            chain.gate.clear()
            waiting = asyncio.ensure_future(deliver(["room"], "said", "1"))
            await asyncio.sleep(0)
            with pytest.raises(BroadcastDropped, match="too many"):
                await deliver(["room"], "said", "2")
            await node.component.stop()
            with pytest.raises(Unavailable):
                await waiting
        await node.component.start()
