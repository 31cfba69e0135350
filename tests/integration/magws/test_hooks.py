"""Extensions beside realtime on a whole node: over real sockets, from every publisher, through a restart."""

from __future__ import annotations

import asyncio
from typing import Any

from pusher import Pusher
from tests.integration.magws.support import APP_ID, KEY, SECRET, Node, connected, running_node

from magmobo.contracts.hooks import HookPoint


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
