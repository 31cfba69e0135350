"""The codec's own rules; agreement with other implementations is in tests/conformance/websocket."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magmobo.components.listener.codec import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    FrameDecoder,
    ProtocolViolation,
    close_code_of,
    close_frame,
    unmask,
)

LIMIT_BYTES = 1_000


def client_frame(opcode: int, payload: bytes, *, fin: bool = True, key: bytes = b"\x01\x02\x03\x04") -> bytes:
    size = len(payload)
    first = opcode | (0x80 if fin else 0)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65_536:
        head = struct.pack("!BBH", first, 0xFE, size)
    else:
        head = struct.pack("!BBQ", first, 0xFF, size)
    return head + key + unmask(payload, key)


def decode(*chunks: bytes, limit_bytes: int = LIMIT_BYTES) -> list[tuple[int, bytes]]:
    """Events of the stream; a violation is the last entry, as (close code, b"")."""
    decoder = FrameDecoder(limit_bytes)
    events: list[tuple[int, bytes]] = []
    try:
        for chunk in chunks:
            for event in decoder.receive(chunk):
                events.append(event)
    except ProtocolViolation as violation:
        events.append((violation.close_code, b""))
    return events


def test_messages_and_control_frames_come_out_in_order() -> None:
    stream = (
        client_frame(TEXT, b"one")
        + client_frame(TEXT, b"tw", fin=False)
        + client_frame(PING, b"?")
        + client_frame(CONTINUATION, b"o")
        + client_frame(BINARY, b"\xff")
        + client_frame(PONG, b"")
        + client_frame(CLOSE, b"\x03\xe8bye")
    )
    assert decode(stream) == [
        (TEXT, b"one"),
        (PING, b"?"),
        (TEXT, b"two"),
        (BINARY, b"\xff"),
        (PONG, b""),
        (CLOSE, b"\x03\xe8bye"),
    ]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_every_length_form_is_read(size: int) -> None:
    payload = bytes(index % 100 for index in range(size))
    assert decode(client_frame(TEXT, payload), limit_bytes=70_000) == [(TEXT, payload)]


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (b"\x81\x00", 1002),  # not masked
        (b"\xc1\x80", 1002),  # RSV1: permessage-deflate was not agreed
        (b"\x83\x80", 1002),  # reserved data opcode
        (b"\x8b\x80", 1002),  # reserved control opcode
        (b"\x80\x80", 1002),  # continuation of nothing
        (b"\x09\x80", 1002),  # fragmented ping
        (b"\x89\xfe", 1002),  # long ping
        (b"\x81\xfe\x00\x7d", 1002),  # 125 written in two bytes
        (b"\x81\xff" + (65_535).to_bytes(8, "big"), 1002),  # 65535 written in eight
        (b"\x81\xff" + (1 << 63).to_bytes(8, "big"), 1002),  # sign bit
        (b"\x81\xfe" + (LIMIT_BYTES + 1).to_bytes(2, "big"), 1009),
        (b"\x81\xff" + (1 << 40).to_bytes(8, "big"), 1009),
        (client_frame(TEXT, b"\xff"), 1007),
        (client_frame(TEXT, b"\xed\xa0\x80"), 1007),  # a lone surrogate
        (client_frame(TEXT, b"\xc3", fin=False) + client_frame(CONTINUATION, b"\x28"), 1007),
        (client_frame(TEXT, b"a", fin=False) + b"\x81\x80", 1002),  # a new message inside another
        (client_frame(TEXT, b"a" * 600, fin=False) + client_frame(CONTINUATION, b"a" * 401), 1009),
    ],
)
def test_violations_have_the_close_code_of_the_rfc(stream: bytes, code: int) -> None:
    assert decode(stream) == [(code, b"")]


def test_a_character_split_over_fragments_is_whole_again() -> None:
    euro = "€".encode()
    stream = client_frame(TEXT, euro[:1], fin=False) + client_frame(CONTINUATION, euro[1:])
    assert decode(stream) == [(TEXT, euro)]


def test_an_oversized_frame_is_refused_before_its_payload_comes() -> None:
    head = client_frame(TEXT, b"a" * (LIMIT_BYTES + 1))[:4]
    assert decode(head) == [(1009, b"")]


def test_messages_before_a_violation_are_delivered() -> None:
    assert decode(client_frame(TEXT, b"fine") + b"\x81\x00") == [(TEXT, b"fine"), (1002, b"")]


@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"", 1005), (b"\x03\xe8", 1000), (b"\x10\x68why", 4200), (b"\x03\xf6", 1014)],
)
def test_close_codes(payload: bytes, code: int) -> None:
    assert close_code_of(payload) == code


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\x03", 1002),
        (b"\x03\xed", 1002),  # 1005
        (b"\x03\xee", 1002),  # 1006
        (b"\x03\xec", 1002),  # 1004
        (b"\x03\xf7", 1002),  # 1015
        (b"\x00\x00", 1002),
        (b"\x13\x88", 1002),  # 5000
        (b"\x03\xe8\xff", 1007),
    ],
)
def test_bad_close_payloads(payload: bytes, code: int) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        close_code_of(payload)
    assert caught.value.close_code == code


def test_a_long_close_reason_is_cut_between_characters() -> None:
    frame = close_frame(4000, "é" * 100)
    assert frame[1] <= 125
    assert len(frame) == 2 + frame[1]
    assert frame[4:].decode() == "é" * 61
    assert close_frame(1005, "unused") == b"\x88\x00"


frames = st.builds(
    client_frame,
    st.sampled_from([CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG]),
    st.one_of(st.text(max_size=60).map(str.encode), st.binary(max_size=300), st.just(b"x" * 1_100)),
    fin=st.booleans(),
    key=st.binary(min_size=4, max_size=4),
)
streams = st.one_of(st.lists(frames, max_size=8).map(b"".join), st.binary(max_size=200))


@given(streams)
def test_fed_byte_by_byte_equals_fed_whole(stream: bytes) -> None:
    assert decode(*(stream[index : index + 1] for index in range(len(stream)))) == decode(stream)


@given(streams, st.lists(st.integers(1, 50), max_size=20))
def test_fed_in_any_pieces_equals_fed_whole(stream: bytes, sizes: list[int]) -> None:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(stream[at : at + size])
        at += size
    assert decode(*pieces, stream[at:]) == decode(stream)


@given(st.binary(max_size=2_000))
def test_any_bytes_give_events_or_a_violation(stream: bytes) -> None:
    for opcode, payload in decode(stream):
        assert len(payload) <= LIMIT_BYTES
        assert opcode in {TEXT, BINARY, CLOSE, PING, PONG} or 1002 <= opcode <= 1009


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_unmask_is_the_xor_of_the_rfc_and_its_own_inverse(payload: bytes, key: bytes) -> None:
    masked = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    assert unmask(payload, key) == masked
    assert unmask(masked, key) == payload
