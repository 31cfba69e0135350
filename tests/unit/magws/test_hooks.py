"""Extensions beside realtime: subscriptions and messages that wait for them, in order, and leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.magws.support import APP, World, events, hello, ids, socket_id, world

from magmobo.components.magws import broadcasts, connection, signing
from magmobo.components.magws.broadcasts import Broadcast
from magmobo.components.magws.config import AppConfig, MagWSConfig
from magmobo.contracts.errors import HookDenied, HookUnavailable
from magmobo.contracts.events import RealtimeMessageSent
from magmobo.contracts.hooks import BroadcastContext, ChannelContext
from magmobo.contracts.secret import Secret
from magmobo.testing.websocket import MemoryConnection

SUCCEEDED, REFUSED = "pusher_internal:subscription_succeeded", "pusher:subscription_error"


class Chain:
    """What a test puts into a point. `gates` hold a channel's questions until they are opened."""

    def __init__(self, answer: Callable[[Any], Any] = lambda context: context) -> None:
        self._answer = answer
        self.asked: list[Any] = []
        self.told: list[Any] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.cancelled = 0

    def gate(self, channel: str) -> asyncio.Event:
        return self.gates.setdefault(channel, asyncio.Event())

    async def before(self, context: Any) -> Any:
        self.asked.append(context)
        if context.channel in self.gates:
            try:
                await self.gates[context.channel].wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return self._answer(context)

    def after(self, context: Any) -> None:
        self.told.append(context)


def put(w: World, point: str, answer: Callable[[Any], Any] = lambda context: context) -> Chain:
    chain = Chain(answer)
    w.hooks.point(f"realtime.{point}").chain = chain  # type: ignore[assignment]
    return chain


def raising(error: Exception) -> Callable[[Any], Any]:
    def answer(_: Any) -> Any:
        raise error

    return answer


def denying(point: str = "realtime.subscribe_to_channel") -> Callable[[Any], Any]:
    return raising(HookDenied(point, "doorman", "not on the list"))


def ask(client: MemoryConnection, channel: str) -> None:
    auth = signing.channel_auth(APP.key, APP.secret, socket_id(client), channel)
    client.send({"event": "pusher:subscribe", "data": {"channel": channel, "auth": auth}})


def say(w: World, channel: str, data: str, **more: Any) -> None:
    w.plane.broadcast(Broadcast("7", channel, "said", data, **more))


def said(client: MemoryConnection) -> list[Any]:
    return [message["data"] for message in client.read() if message["event"] == "said"]


PATH: ContextVar[int] = ContextVar("path", default=0)
"""Stands for what the mediation plane keeps in a context: how deep in hooks somebody is."""


async def test_a_message_is_asked_about_in_the_context_of_whoever_sent_it() -> None:
    async with world() as w:
        client = w.connect()
        await w.subscribe(client, "room")
        client.read()
        depths: list[int] = []

        def answer(context: BroadcastContext) -> BroadcastContext:
            depths.append(PATH.get())
            if len(depths) < 4:
                PATH.set(PATH.get() + 1)
                say(w, "room", f"because of {context.data}")
            return context

        put(w, "before_broadcast", answer)
        for text in ("one", "two"):
            say(w, "room", text)
        while len(w.plane.broadcasts):
            await asyncio.sleep(0)
        assert depths == [0, 0, 1, 1, 2], "each hook is one deeper than what led to it, whoever waits before it"


# ---------------------------------------------------------------- subscriptions


async def test_an_extension_is_told_who_asks_for_what() -> None:
    async with world() as w:
        chain = put(w, "subscribe_to_channel")
        client = w.connect()
        await w.subscribe(client, "room")
        assert chain.asked == [ChannelContext(app="7", channel="room", connection_id=socket_id(client))]
        assert events(client.read())[-1] == SUCCEEDED


@pytest.mark.parametrize(
    ("answer", "status", "code", "kind"),
    [
        (denying(), 403, "MAG-WS-020", "AuthError"),
        (raising(HookUnavailable("p", "doorman", "gone")), 503, "MAG-WS-021", "SubscriptionError"),
        (raising(RuntimeError("a defect of a chain")), 503, "MAG-WS-021", "SubscriptionError"),
    ],
)
async def test_who_is_not_allowed_is_told_and_stays_connected(answer: Any, status: int, code: str, kind: str) -> None:
    async with world() as w:
        put(w, "subscribe_to_channel", answer)
        client = w.connect()
        await w.subscribe(client, "room")
        *_, refusal = client.read()
        assert refusal["event"] == REFUSED
        assert (refusal["data"]["status"], refusal["data"]["code"], refusal["data"]["type"]) == (status, code, kind)
        assert "defect" not in refusal["data"]["error"]
        assert list(w.plane.registry) == []
        w.hooks.point("realtime.subscribe_to_channel").chain = None
        await w.subscribe(client, "room")
        assert events(client.read()) == [SUCCEEDED]


async def test_a_waiting_client_is_served_in_order_and_holds_up_nobody() -> None:
    async with world() as w:
        chain = put(w, "subscribe_to_channel")
        gate = chain.gate("private-slow")
        slow, quick = w.connect(), w.connect()
        await w.subscribe(quick, "private-slow2", "private-room")
        ask(slow, "private-slow")
        slow.send({"event": "client-first", "channel": "private-slow", "data": 1})
        ask(slow, "private-room")
        slow.send({"event": "client-second", "channel": "private-room", "data": 2})
        slow.send({"event": "pusher:ping", "data": {}})
        slow.send({"event": "pusher:unsubscribe", "data": {"channel": "private-slow"}})
        ask(slow, "private-slow")
        await w.settle()
        assert events(slow.read()) == ["pusher:connection_established"]
        quick.send({"event": "pusher:ping", "data": {}})
        assert events(quick.read())[-1] == "pusher:pong"

        gate.set()
        await w.settle()
        assert events(slow.read()) == [SUCCEEDED, SUCCEEDED, "pusher:pong", SUCCEEDED]
        assert events(quick.read()) == ["client-second"]
        mine = [context.channel for context in chain.asked if context.connection_id == socket_id(slow)]
        assert mine == ["private-slow", "private-room", "private-slow"]
        slow.send({"event": "pusher:ping", "data": {}})
        assert events(slow.read()) == ["pusher:pong"]


async def test_a_client_that_leaves_meanwhile_leaves_nothing() -> None:
    async with world() as w:
        chain = put(w, "subscribe_to_channel")
        chain.gate("room")
        client = w.connect()
        ask(client, "room")
        ask(client, "other")
        await w.settle()
        client.leave()
        await w.settle()
        assert chain.cancelled == 1
        assert [context.channel for context in chain.asked] == ["room"]
        assert list(w.plane.registry) == []
        assert len(w.plane) == 0


async def test_the_plane_ends_with_questions_open() -> None:
    async with world() as w:
        chain = put(w, "subscribe_to_channel")
        chain.gate("room")
        ask(client := w.connect(), "room")
        await w.settle()
        await w.plane.forget_waiting()
        assert chain.cancelled == 1
        client.leave()


async def test_too_much_behind_a_question_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_HELD", 3)
    async with world() as w:
        gate = put(w, "subscribe_to_channel").gate("room")
        client = w.connect()
        ask(client, "room")
        for _ in range(3):
            client.send({"event": "pusher:ping", "data": {}})
        await w.settle()
        assert client.closed_with is None
        client.send({"event": "pusher:ping", "data": {}})
        assert client.closed_with == 4100
        gate.set()
        await w.settle()
        assert list(w.plane.registry) == []


async def test_a_bad_message_behind_a_question_closes_when_its_turn_comes() -> None:
    async with world() as w:
        gate = put(w, "subscribe_to_channel").gate("room")
        client = w.connect()
        ask(client, "room")
        client.send(b"not json")
        ask(client, "after")
        await w.settle()
        assert client.closed_with is None
        gate.set()
        await w.settle()
        assert client.closed_with == 4200
        assert list(w.plane.registry) == []


async def test_a_right_that_ends_during_the_question_ends_it() -> None:
    async with world() as w:
        gate = put(w, "subscribe_to_channel").gate("private-room")
        client = w.connect()
        ask(client, "private-room")
        await w.settle()
        other = AppConfig(id="7", key="key7", secret=Secret("another"))
        w.plane.adopt(MagWSConfig(apps=(other,)))
        gate.set()
        await w.settle()
        assert client.read()[-1]["data"]["code"] == "MAG-WS-011"
        assert list(w.plane.registry) == []


async def test_only_those_who_may_have_the_channel_are_asked_about() -> None:
    async with world("flights") as w:
        chain = put(w, "subscribe_to_channel")
        client = w.connect()
        for channel in ("private-room", "presence-room", "db.public.absent", "private-db.public.flights", "bad name"):
            client.send({"event": "pusher:subscribe", "data": {"channel": channel, "auth": "key7:00"}})
            await w.settle()
        await w.subscribe(client, "db.public.absent")
        assert chain.asked == []
        assert events(client.read())[1:] == [REFUSED] * 6


async def test_a_table_is_followed_once_the_extensions_agree() -> None:
    async with world("flights") as w:
        gate = put(w, "subscribe_to_channel").gate("db.public.flights")
        client = w.connect()
        ask(client, "db.public.flights")
        await w.settle()
        w.stream.commit({"id": 1})
        gate.set()
        await w.settle()
        w.stream.commit({"id": 2})
        await w.settle()
        messages = client.read()
        assert events(messages) == ["pusher:connection_established", SUCCEEDED, "insert"]
        assert ids(messages) == [2]


async def test_asking_again_for_a_channel_one_is_on_is_no_question() -> None:
    async with world() as w:
        chain = put(w, "subscribe_to_channel")
        client = w.connect()
        await w.subscribe(client, "room", "room")
        assert len(chain.asked) == 1
        assert events(client.read())[1:] == [SUCCEEDED, SUCCEEDED]


async def test_a_channel_is_registered_by_its_first_subscriber_who_may_be_refused() -> None:
    async with world() as w:
        chain = put(w, "register_channel")
        first, second = w.connect(), w.connect()
        await w.subscribe(first, "room")
        await w.subscribe(second, "room")
        first.leave()
        second.leave()
        await w.subscribe(third := w.connect(), "room")
        assert [context.connection_id for context in chain.asked] == [socket_id(first), socket_id(third)]

        put(w, "register_channel", denying("realtime.register_channel"))
        subscribing = put(w, "subscribe_to_channel")
        await w.subscribe(third, "new")
        assert third.read()[-1]["data"]["code"] == "MAG-WS-020"
        assert subscribing.asked == []


async def test_who_leaves_a_channel_is_told_of_once() -> None:
    async with world("flights") as w:
        chain = put(w, "unsubscribe_from_channel")
        client = w.connect()
        await w.subscribe(client, "room", "db.public.flights")
        client.send({"event": "pusher:unsubscribe", "data": {"channel": "room"}})
        client.send({"event": "pusher:unsubscribe", "data": {"channel": "room"}})
        client.leave()
        assert [(context.app, context.channel) for context in chain.told] == [("7", "room"), ("7", "db.public.flights")]
        assert {context.connection_id for context in chain.told} == {socket_id(client)}


async def test_hello_is_heard_in_its_place() -> None:
    async with world() as w:
        gate = put(w, "subscribe_to_channel").gate("room")
        client = w.connect()
        ask(client, "room")
        client.send(hello())
        gate.set()
        await w.settle()
        assert events(client.read())[1:] == [SUCCEEDED, "mag:position"]


# ---------------------------------------------------------------- messages


async def test_a_message_goes_out_as_the_extension_left_it() -> None:
    async with world() as w:
        chain = put(w, "before_broadcast", lambda c: msgspec.structs.replace(c, data="***", event="x", channel="y"))
        client = w.connect()
        await w.subscribe(client, "room")
        say(w, "room", "secret")
        await w.settle()
        assert said(client) == ["***"]
        assert chain.asked == [BroadcastContext(app="7", channel="room", event="said", data="secret", origin="api")]


@pytest.mark.parametrize(
    "answer",
    [denying("realtime.before_broadcast"), raising(HookUnavailable("p", "x", "y")), raising(RuntimeError("x"))],
)
async def test_a_message_that_is_not_allowed_reaches_nobody(answer: Any) -> None:
    async with world() as w:
        put(w, "before_broadcast", answer)
        after = put(w, "after_broadcast")
        client = w.connect()
        await w.subscribe(client, "room")
        say(w, "room", "1")
        await w.settle()
        assert said(client) == []
        assert after.told == []
        assert w.plane.broadcasts.denied + w.plane.broadcasts.dropped == 1
        assert len(w.plane.broadcasts) == 0


async def test_a_channel_keeps_its_order_and_waits_for_no_other() -> None:
    async with world() as w:
        gate = put(w, "before_broadcast").gate("slow")
        client = w.connect()
        await w.subscribe(client, "slow", "quick")
        for number in range(5):
            say(w, "slow", f"{number}")
        say(w, "quick", "9")
        await w.settle()
        assert said(client) == [9]
        w.hooks.point("realtime.before_broadcast").chain = None
        say(w, "slow", "5")
        say(w, "quick", "10")
        await w.settle()
        assert said(client) == [10]
        gate.set()
        await w.settle()
        assert said(client) == [0, 1, 2, 3, 4, 5]
        say(w, "slow", "6")
        await w.settle()
        assert said(client) == [6]


async def test_a_publisher_is_still_excluded_and_late_joiners_hear_what_waited() -> None:
    async with world() as w:
        gate = put(w, "before_broadcast").gate("room")
        sender, other = w.connect(), w.connect()
        await w.subscribe(sender, "room")
        say(w, "room", "1", exclude=socket_id(sender))
        await w.settle()
        await w.subscribe(other, "room")
        gate.set()
        await w.settle()
        assert (said(sender), said(other)) == ([], [1])


async def test_what_waits_is_bounded_and_the_newest_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcasts, "MAX_WAITING", 3)
    monkeypatch.setattr(broadcasts, "MAX_WAITING_CHARS", 100)
    async with world() as w:
        gate = put(w, "before_broadcast").gate("room")
        client = w.connect()
        await w.subscribe(client, "room")
        say(w, "room", "0" * 101)
        for number in range(5):
            say(w, "room", str(number))
        await w.settle()
        assert (len(w.plane.broadcasts), w.plane.broadcasts.dropped) == (3, 3)
        gate.set()
        await w.settle()
        assert said(client) == [0, 1, 2]
        say(w, "room", "5")
        await w.settle()
        assert said(client) == [5]
        assert len(w.plane.broadcasts) == 0


async def test_an_extension_cannot_make_a_message_larger_than_its_app_allows() -> None:
    async with world() as w:
        put(w, "before_broadcast", lambda c: msgspec.structs.replace(c, data="ü" * 6_000))
        client = w.connect()
        await w.subscribe(client, "room")
        say(w, "room", "small")
        say(w, "room", "x" * 20_000)
        await w.settle()
        assert said(client) == ["ü" * 6_000]
        assert w.plane.broadcasts.dropped == 1


@given(
    data=st.text(max_size=80) | st.sampled_from(['1,"event":"pusher:error"', '1}{"event":"x"', '{"a":', "[" * 9_000])
)
def test_whatever_becomes_of_a_client_event_it_stays_one_event(data: str) -> None:
    message = Broadcast("7", "private-room", "client-x", "1", origin="client")
    room = broadcasts.Broadcasts(None, lambda _: None, lambda _: 100_000, None)  # type: ignore[arg-type]
    changed = room._changed(message, data)
    assert changed is not None
    frame = changed.frame()
    payload = frame[2:] if frame[1] < 126 else frame[4:]
    read = msgspec.json.decode(payload)
    assert (read["event"], read["channel"], read.keys()) == ("client-x", "private-room", {"event", "channel", "data"})


async def test_a_client_event_is_asked_about_with_its_json() -> None:
    async with world() as w:
        chain = put(w, "before_broadcast", lambda c: msgspec.structs.replace(c, data='{"a": 2}'))
        sender, other = w.connect(), w.connect()
        await w.subscribe(sender, "private-room")
        await w.subscribe(other, "private-room")
        sender.send({"event": "client-x", "channel": "private-room", "data": {"a": 1}})
        await w.settle()
        assert [(c.data, c.origin, c.event) for c in chain.asked] == [('{"a":1}', "client", "client-x")]
        assert other.read()[-1]["data"] == {"a": 2}
        assert events(sender.read())[-1] == SUCCEEDED


async def test_nobody_on_a_channel_is_no_question() -> None:
    async with world("flights") as w:
        chain = put(w, "before_broadcast")
        client = w.connect()
        await w.subscribe(client, "db.public.flights")
        say(w, "empty", "1")
        w.stream.commit({"id": 1})
        await w.settle()
        assert chain.asked == []
        assert ids(client.read()) == [1]


async def test_what_went_out_is_told_and_emitted_while_somebody_listens() -> None:
    async with world() as w:
        heard: list[RealtimeMessageSent] = []
        one, two = w.connect(), w.connect()
        await w.subscribe(one, "room")
        await w.subscribe(two, "room")
        say(w, "room", "1")
        after = put(w, "after_broadcast")
        subscription = w.bus.on(RealtimeMessageSent, lambda envelope: heard.append(envelope.data))
        say(w, "room", "2", origin="extension:greeter")
        subscription.cancel()
        w.hooks.point("realtime.after_broadcast").chain = None
        say(w, "room", "3")
        await w.settle()
        assert heard == [RealtimeMessageSent("room", 2, "said")]
        assert [(c.data, c.origin) for c in after.told] == [("2", "extension:greeter")]
        assert said(one) == said(two) == [1, 2, 3]


async def test_what_waits_is_forgotten_at_the_end() -> None:
    async with world() as w:
        chain = put(w, "before_broadcast")
        chain.gate("room")
        client = w.connect()
        await w.subscribe(client, "room")
        say(w, "room", "1")
        say(w, "room", "2")
        await w.settle()
        await w.plane.forget_waiting()
        assert chain.cancelled == 1
        assert len(w.plane.broadcasts) == 0
        assert said(client) == []
