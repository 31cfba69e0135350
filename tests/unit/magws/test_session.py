from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import json

from magmobo.components.magws.errors import ProtocolError
from magmobo.components.magws.protocol.messages import ClientEvent, Hello, Subscribe, Unsubscribe
from magmobo.components.magws.protocol.session import PONG_TIMEOUT_S, Limits, Liveness, Session

EVENTS = st.sampled_from(
    [
        "pusher:ping",
        "pusher:pong",
        "pusher:subscribe",
        "pusher:unsubscribe",
        "pusher:signin",
        "mag:hello",
        "client-x",
        "x",
    ]
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)


def session(**limits: object) -> Session:
    made = Session("1.1", Limits(**limits), now_s=0.0)  # type: ignore[arg-type]
    made.outgoing()
    return made


def frame(event: str, data: object = None, channel: str | None = None) -> bytes:
    return json.encode({"event": event, "data": data} | ({"channel": channel} if channel else {}))


def state(one: Session) -> object:
    return (set(one.channels), one.hello, dict(one._resume), one._outbox, one._tokens, one._seen_s, one._pinged_s)


@given(st.binary() | st.text().map(str.encode) | st.builds(frame, EVENTS, ANY_JSON, st.none() | st.text(max_size=9)))
@example(b"[" * 100_000)
@example(b'{"event":"client-x","channel":"private-a","data":' + b"[" * 100_000)
@example(b'{"event":"pusher:subscribe","data":"' + b"[" * 100_000 + b'"}')
@example(b'{"event":"client-x","channel":"private-a","data":"\xff"}')
@example(frame("mag:hello", {"resume": [{"channel": "a", "epoch": "e", "serial": "s", "count": -1}]}))
@example(frame("mag:hello", {"resume": [{"channel": "a", "epoch": "e", "serial": "s"}] * 1001}))
@example(frame("pusher:subscribe", '{"channel":"\\ud800"}'))
def test_any_message_is_taken_or_refused_whole(payload: bytes) -> None:
    one = session(client_events=True)
    one.receive(frame("pusher:subscribe", {"channel": "private-a"}), 0.0)
    before = state(one)
    try:
        action = one.receive(payload, 1.0)
    except ProtocolError:
        assert state(one) == before, "a refused message changed the session"
    else:
        assert action is None or isinstance(action, Subscribe | Unsubscribe | ClientEvent | Hello)


def test_ten_megabytes_are_refused_or_taken_without_an_exception() -> None:
    with pytest.raises(ProtocolError):
        session().receive(b'{"event":"' + b"x" * 10_000_000, 0.0)


def test_data_may_be_an_object_or_a_string() -> None:
    one = session()
    assert one.receive(frame("pusher:subscribe", {"channel": "a"}), 0.0) == Subscribe("a")
    assert one.receive(frame("pusher:subscribe", '{"channel":"b","auth":"k:s"}'), 0.0) == Subscribe("b", "k:s")


def test_subscribing_twice_is_left_to_the_server_and_counts_once() -> None:
    one = session(max_channels=1)
    one.outgoing()
    for _ in range(2):
        assert one.receive(frame("pusher:subscribe", {"channel": "a"}), 0.0) is not None
    assert one.outgoing() == b""  # whether the first has been admitted yet is not known here
    assert one.channels == {"a"}


def test_channels_are_bounded() -> None:
    one = session(max_channels=2)
    for name in "ab":
        one.receive(frame("pusher:subscribe", {"channel": name}), 0.0)
    assert one.receive(frame("pusher:subscribe", {"channel": "c"}), 0.0) is None
    assert b"MAG-WS-014" in one.outgoing()
    assert one.channels == {"a", "b"}


@pytest.mark.parametrize(
    ("enabled", "channel", "size", "reason"),
    [
        (False, "private-a", 1, b"not enabled"),
        (True, "a", 1, b"private channel"),
        (True, "private-b", 1, b"subscribed to"),
        (True, "private-db.public.t", 1, b"only the node"),
        (True, "private-a", 10_300, b"may hold"),
    ],
)
def test_client_events_are_refused_without_closing(enabled: bool, channel: str, size: int, reason: bytes) -> None:
    one = session(client_events=enabled)
    for name in ("a", "private-a", "private-db.public.t"):
        one.receive(frame("pusher:subscribe", {"channel": name}), 0.0)
    assert one.receive(frame("client-x", "x" * size, channel), 0.0) is None
    reply = one.outgoing()
    assert reason in reply
    assert b"4301" in reply


def test_client_events_have_a_rate() -> None:
    one = session(client_events=True, client_events_per_s=2)
    one.receive(frame("pusher:subscribe", {"channel": "private-a"}), 0.0)
    sent = [one.receive(frame("client-x", {}, "private-a"), 0.1) is not None for _ in range(4)]
    assert sent == [True, True, False, False]
    assert one.receive(frame("client-x", {}, "private-a"), 0.7) is not None


def test_silence_is_pinged_then_given_up() -> None:
    one = session(activity_timeout_s=10)
    assert one.liveness(9.0) is Liveness.ALIVE
    assert one.liveness(10.0) is Liveness.PING
    assert b"pusher:ping" in one.outgoing()
    assert one.liveness(10.0 + PONG_TIMEOUT_S - 1) is Liveness.ALIVE
    assert one.liveness(10.0 + PONG_TIMEOUT_S) is Liveness.DEAD
    one.receive(frame("pusher:pong"), 50.0)
    assert one.liveness(51.0) is Liveness.ALIVE


def test_signin_and_unknown_events_are_answered_politely() -> None:
    one = session()
    assert one.receive(frame("pusher:signin", {"auth": "x"}), 0.0) is None
    assert one.receive(frame("pusher:new-thing", {}), 0.0) is None
    assert one.outgoing().count(b"4303") == 2


def test_hello_again_replaces_entries_and_leaving_forgets_them() -> None:
    one = session()
    entry = {"channel": "a", "epoch": "e", "serial": "1"}
    one.receive(frame("mag:hello", {"resume": [entry]}), 0.0)
    one.receive(frame("mag:hello", {"resume": [entry | {"serial": "2"}]}), 0.0)
    taken = one.take_resume("a")
    assert taken is not None
    assert taken.serial == "2"
    assert one.take_resume("a") is None
