"""`realtime.broadcast`: to granted channels, never to what is the node's own."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.unit.extensions.api.support import Denials, installed

from magmobo.components.magws.protocol import names
from magmobo.contracts.errors import HookDenied, MagError
from magmobo.extensions.adapters.errors import ChannelNotGranted, ChannelReserved, MessageTooLarge
from magmobo.extensions.adapters.magws import MAX_DATA_BYTES, BroadcastArgs, RealtimeMethods
from magmobo.extensions.installed import Caller, Grant, Installed
from magmobo.extensions.package.manifest import CapabilityRequest, Limits


class Realtime:
    """Keeps what is published."""

    app_key = "key"

    def __init__(self) -> None:
        self.published: list[tuple[Any, ...]] = []
        self.delivered = 0
        self.refusal: MagError | None = None

    def publish(self, channels: Any, event: str, data: str, *, exclude_socket_id: Any = None, origin: str = "") -> None:
        self.published.append((list(channels), event, data, origin))

    async def deliver(self, channels: Any, event: str, data: str, *, origin: str = "") -> None:
        self.publish(channels, event, data, origin=origin)
        self.delivered += 1
        if self.refusal is not None:
            raise self.refusal

    def authorise(self, socket_id: str, channel: str) -> str:
        raise AssertionError

    def table_channels(self) -> Any:
        raise AssertionError


def greeter(*channels: str, granted: Any = None) -> Installed:
    request = CapabilityRequest(name="realtime.broadcast", reason="to greet", channels=channels)
    made = installed("greeter", capabilities=[request])
    scope = {} if granted is None else {"channels": granted}
    made.grants = {
        "realtime.broadcast": Grant(capability="realtime.broadcast", scope=scope, rate_per_minute=100)
    }  # fmt: skip
    return made


class Stage:
    def __init__(self, extension: Installed) -> None:
        self.realtime, self.denials, self.extension = Realtime(), Denials(), extension
        self.methods = RealtimeMethods(self.realtime, denied=self.denials)

    async def send(
        self, channels: list[str], event: str = "said", data: Any = "d", chain: tuple[str, ...] = ()
    ) -> None:
        args = msgspec.convert({"channels": channels, "event": event, "data": data}, BroadcastArgs)
        await self.methods.broadcast(Caller(self.extension, chain, 0.0), args)


async def test_a_guards_no_is_told_but_never_to_a_hook_that_the_guard_may_wait_for() -> None:
    stage = Stage(greeter("room"))
    stage.realtime.refusal = HookDenied("realtime.before_broadcast", "night-guard", "not after dark", 3.0)
    with pytest.raises(HookDenied, match="night-guard denied it: not after dark"):
        await stage.send(["room"])
    await stage.send(["room"], chain=("greeter/realtime.before_broadcast",))
    assert (len(stage.realtime.published), stage.realtime.delivered) == (2, 1)


async def test_nor_to_one_that_does_one_thing_at_a_time_and_may_be_the_guard_itself() -> None:
    stage = Stage(greeter("room"))
    stage.extension.manifest = structs.replace(stage.extension.manifest, limits=Limits(concurrency=1))
    stage.realtime.refusal = HookDenied("realtime.before_broadcast", "greeter", "not after dark", 3.0)
    await stage.send(["room"])
    assert (len(stage.realtime.published), stage.realtime.delivered) == (1, 0)


@pytest.mark.parametrize(
    ("data", "text"),
    [("as it is", "as it is"), ({"a": [1, None]}, '{"a":[1,null]}'), (None, "null"), (b"\0", '"AA=="')],
)
async def test_a_message_goes_to_all_its_channels_under_the_extensions_name(data: Any, text: str) -> None:
    stage = Stage(greeter("room", "private-ops.*"))
    await stage.send(["room", "private-ops.1", "room"], data=data)
    assert stage.realtime.published == [(["room", "private-ops.1"], "said", text, "extension:greeter")]


async def test_one_channel_that_is_not_granted_refuses_the_whole_call() -> None:
    stage = Stage(greeter("room"))
    for channels in (["room", "lobby"], ["rooms"], ["roo"], ["private-room"]):
        with pytest.raises(ChannelNotGranted):
            await stage.send(channels)
    assert stage.realtime.published == []
    assert stage.denials.noted == [("greeter", "realtime.broadcast", "realtime.broadcast", "channel")] * 4


async def test_the_grant_counts_not_the_manifest_and_from_the_next_call() -> None:
    stage = Stage(greeter("*", granted=["room"]))
    with pytest.raises(ChannelNotGranted):
        await stage.send(["lobby"])
    await stage.send(["room"])
    stage.extension.grants = {}
    with pytest.raises(ChannelNotGranted):
        await stage.send(["room"])


@pytest.mark.parametrize(
    "channel", ["db.public.flights", "private-db.public.flights", "db.", "private-db.x", "mag.status", "private-mag.x"]
)
async def test_channels_of_tables_and_of_the_node_are_never_an_extensions(channel: str) -> None:
    stage = Stage(greeter("*", channel, granted=["*", channel]))
    with pytest.raises(ChannelReserved):
        await stage.send(["room", channel])
    assert stage.realtime.published == []
    assert len(stage.denials.noted) == 1


@pytest.mark.parametrize("event", ["pusher:error", "pusher_internal:subscription_succeeded", "mag:gap", "client-x"])
async def test_events_of_the_protocol_are_never_an_extensions(event: str) -> None:
    stage = Stage(greeter("*"))
    with pytest.raises(ChannelReserved):
        await stage.send(["room"], event)
    assert stage.realtime.published == []


@pytest.mark.parametrize(
    "data", ["x" * (MAX_DATA_BYTES + 1), "é" * MAX_DATA_BYTES, {"a": "x" * MAX_DATA_BYTES}, object()]
)
async def test_data_is_bounded(data: Any) -> None:
    stage = Stage(greeter("*"))
    with pytest.raises(MessageTooLarge):
        await stage.methods.broadcast(
            Caller(stage.extension, (), 0.0), BroadcastArgs(channels=["room"], event="said", data=data)
        )
    await stage.send(["room"], data="x" * MAX_DATA_BYTES)


@pytest.mark.parametrize(
    "args",
    [
        {"channels": []}, {"channels": ["a b"]}, {"channels": [""]}, {"channels": ["a\n"]}, {"channels": ["x"] * 101},
        {"channels": ["x" * 201]}, {"channels": "room"}, {"event": ""}, {"event": "e" * 201}, {"origin": "component"},
    ],
)  # fmt: skip
def test_arguments_are_bounded(args: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"channels": ["room"], "event": "said", "data": 1} | args, BroadcastArgs)


@given(st.text(alphabet="-privatedbmg.x", max_size=20), st.text(alphabet="-pusher:_mag", max_size=16))
def test_what_passes_is_never_reserved_for_the_realtime_plane(channel: str, event: str) -> None:
    stage = Stage(greeter("*"))
    try:
        asyncio.run(stage.send([channel], event))
    except (ChannelReserved, msgspec.ValidationError):
        return
    assert not names.is_reserved(channel)
    assert not names.is_reserved_event(event)
