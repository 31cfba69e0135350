"""Our codec against two independent implementations: for any stream a client may send, all three agree.

Where they differ by design is written down here: the others report a message per fragment or buffer a whole one, and
name reasons differently; compared are whole messages, control frames, and the close code of a violation.
"""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.utilities import RemoteProtocolError

from magmobo.components.listener.codec import (
    BINARY,
    CLOSE,
    CONTINUATION,
    NO_STATUS,
    PING,
    PONG,
    TEXT,
    FrameDecoder,
    ProtocolViolation,
    close_code_of,
    close_frame,
    control_frame,
)
from magmobo.contracts.websocket import text_frame

Events = list[tuple[object, ...]]
MAX_BYTES = 4_096

silent = logging.getLogger("oracle")
silent.setLevel(logging.CRITICAL)


def ours(stream: bytes) -> Events:
    events: Events = []
    try:
        for opcode, payload in FrameDecoder(MAX_BYTES).receive(stream):
            if opcode == CLOSE:
                events.append(("close", close_code_of(payload)))
                break
            events.append((opcode, payload))
    except ProtocolViolation as violation:
        # The oracles accept lengths that do not take their shortest form, which RFC 6455 section 5.2 forbids.
        stricter = violation.reason in ("a length must take its shortest form", "a control frame must be short")
        events.append(("stricter",) if stricter else ("violation", violation.close_code))
    return events


def from_websockets(stream: bytes) -> Events:
    protocol = ServerProtocol(state=OPEN, max_size=MAX_BYTES, logger=silent)
    protocol.receive_data(stream)
    events: Events = []
    parts: list[bytes] = []
    kind = 0
    for frame in protocol.events_received():
        assert isinstance(frame, Frame)
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            kind = kind if frame.opcode is Opcode.CONT else int(frame.opcode)
            parts.append(bytes(frame.data))
            if frame.fin:
                message, parts = b"".join(parts), []
                if kind == TEXT:
                    try:
                        message.decode()
                    except UnicodeDecodeError:
                        # this layer leaves UTF-8 to its caller
                        return [*events, ("violation", 1007)]
                events.append((kind, message))
        elif frame.opcode is not Opcode.CLOSE:
            events.append((int(frame.opcode), bytes(frame.data)))
    if "incomplete fragmented message" in str(protocol.parser_exc):
        events.append(("close inside a message",))
    elif protocol.parser_exc is not None and protocol.close_sent is not None:
        events.append(("violation", protocol.close_sent.code))
    elif protocol.close_rcvd is not None:
        events.append(("close", protocol.close_rcvd.code))
    return events


def from_wsproto(stream: bytes) -> Events:
    connection = Connection(ConnectionType.SERVER)
    events: Events = []
    parts: list[bytes] = []
    connection.receive_data(stream)
    try:
        for event in connection.events():
            if isinstance(event, TextMessage | BytesMessage):
                text = isinstance(event, TextMessage)
                parts.append(event.data.encode() if isinstance(event.data, str) else bytes(event.data))
                if event.message_finished:
                    message, parts = b"".join(parts), []
                    events.append((TEXT if text else BINARY, message))
            elif isinstance(event, Ping | Pong):
                events.append((PING if isinstance(event, Ping) else PONG, bytes(event.payload)))
            elif isinstance(event, CloseConnection):
                # wsproto reports its own refusal as a close with the same code
                events.append(("close", int(event.code)))
                break
    except RemoteProtocolError as error:
        events.append(("violation", str(error)))
    return events


def client_frame(opcode: int, payload: bytes, fin: bool, key: bytes) -> bytes:
    frame = bytearray(Frame(Opcode(opcode), payload, fin).serialize(mask=False))
    head = len(frame) - len(payload)
    masked = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    return bytes(frame[:1]) + bytes((frame[1] | 0x80,)) + bytes(frame[2:head]) + key + masked


keys = st.binary(min_size=4, max_size=4)
payloads = st.one_of(st.text(max_size=50).map(str.encode), st.binary(max_size=140), st.just(b"y" * 300))
close_payloads = st.one_of(
    st.just(b""),
    st.builds(
        lambda code, reason: code.to_bytes(2, "big") + reason.encode(),
        st.one_of(st.integers(990, 1020), st.integers(2_990, 5_010)),
        st.text(max_size=20),
    ),
)
data_frames = st.builds(client_frame, st.sampled_from([CONTINUATION, TEXT, BINARY]), payloads, st.booleans(), keys)
whole_frames = st.builds(client_frame, st.sampled_from([TEXT, BINARY]), payloads, st.just(True), keys)
control_frames = st.builds(client_frame, st.sampled_from([PING, PONG]), st.binary(max_size=125), st.just(True), keys)
close_frames = st.builds(client_frame, st.just(CLOSE), close_payloads, st.just(True), keys)
mutations = st.tuples(st.integers(0, 1), st.integers(0, 255))
streams = st.lists(st.one_of(whole_frames, data_frames, control_frames, close_frames), min_size=1, max_size=6)


@settings(max_examples=300)
@given(streams)
def test_websockets_sees_the_same(frames: list[bytes]) -> None:
    stream = b"".join(frames)
    assert_same_as_websockets(stream)


@settings(max_examples=300)
@given(streams, st.integers(0, 5), mutations)
def test_websockets_sees_the_same_in_broken_heads(frames: list[bytes], index: int, mutation: tuple[int, int]) -> None:
    """One header byte of one frame is replaced by any other."""
    at, value = mutation
    broken = bytearray(frames[index % len(frames)])
    broken[at] = value
    frames[index % len(frames)] = bytes(broken)
    stream = b"".join(frames)
    assert_same_as_websockets(stream, several_faults=True)


def assert_same_as_websockets(stream: bytes, *, several_faults: bool = False) -> None:
    mine, theirs = ours(stream), from_websockets(stream)
    if theirs and theirs[-1] == ("close inside a message",):
        # RFC 6455 section 5.4 lets control frames stand between fragments; this oracle refuses a close there.
        assert mine[-1][0] in ("close", "violation")
        mine, theirs = mine[:-1], theirs[:-1]
    elif mine and mine[-1] == ("stricter",):
        mine, theirs = mine[:-1], theirs[: len(mine) - 1]
    elif len(mine) == len(theirs) + 1 and mine[-1][0] == "violation":
        # We refuse by the head of a frame; the oracle still waits for the rest of that frame.
        mine = mine[:-1]
    if several_faults and mine and theirs and mine[-1][0] == theirs[-1][0] == "violation":
        # A frame may be too big and out of order and not UTF-8: which fault is named is a matter of taste.
        mine, theirs = mine[:-1], theirs[:-1]
    assert mine == theirs


@settings(max_examples=200)
@given(st.lists(st.one_of(whole_frames, control_frames), min_size=1, max_size=6))
def test_wsproto_sees_the_same(frames: list[bytes]) -> None:
    stream = b"".join(frames)
    mine, theirs = ours(stream), from_wsproto(stream)
    if mine and mine[-1] == ("violation", 1007):  # wsproto hands out what it could decode before the bad byte
        assert theirs[-1] == ("close", 1007)
        return
    assert mine == theirs


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_our_frames_are_read_by_a_client(size: int) -> None:
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(text_frame(b"a" * size) + control_frame(PING, b"p") + close_frame(4_200, "later"))
    text, close = "", 0
    for event in client.events():
        if isinstance(event, TextMessage):
            text += event.data
        elif isinstance(event, CloseConnection):
            close = int(event.code)
    assert (len(text), close) == (size, 4_200)


def test_a_close_without_a_code() -> None:
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(close_frame(NO_STATUS))
    assert [int(event.code) for event in client.events() if isinstance(event, CloseConnection)] == [1005]
