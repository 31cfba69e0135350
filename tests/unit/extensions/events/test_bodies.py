"""Events as extensions see them: whatever a row holds, a body is made, small enough and readable."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from magmobo.contracts.events import DatabaseChange, Envelope, Event, SecurityBreakglass
from magmobo.extensions.events import bodies
from magmobo.extensions.events.log import Logged


class Secretive(Event, frozen=True, gc=False):
    """A component's own kind, with a field that is not for everybody."""

    topic = "testing.secretive"
    private = ("inner",)
    name: str
    inner: str


def change(record: bytes | None, old: bytes | None = None) -> DatabaseChange:
    def row(text: bytes | None) -> Raw | None:
        return None if text is None else Raw(text)

    return DatabaseChange("db", "public", "t", "insert", "0" * 25, "2025-01-01T00:00:00Z", row(record), row(old))


def logged(entry: Any) -> Logged:
    return Logged(1, entry.id, entry.topic, entry.about, entry.depth, entry.time_s, entry.data)


def test_an_event_of_the_bus_has_its_fields_and_an_id_of_this_life() -> None:
    envelope = Envelope("security.breakglass", SecurityBreakglass("ann", "chaos.run", "why"), 5.0, 7, "node")
    entry = bodies.of_envelope(envelope, "node.3")
    assert entry.id == "node.3/security.breakglass/7"
    assert bodies.unpack(entry.data) == {"actor": "ann", "capability": "chaos.run", "justification": "why"}


def test_private_fields_of_other_kinds_stay_here() -> None:
    entry = bodies.of_envelope(Envelope(Secretive.topic, Secretive("a", "hush"), 5.0, 1), "n")
    assert bodies.unpack(entry.data) == {"name": "a", "inner": None}
    assert b"hush" not in entry.data


def test_what_is_too_large_is_left_out_the_old_row_first() -> None:
    big = b'{"x":"' + b"y" * 150_000 + b'"}'
    data = bodies.unpack(bodies.of_change(change(big, big), "e", 0.0).data)
    assert len(data["record"]["x"]) == 150_000
    assert (data["old_record"], data["omitted"]) == (None, ["old_record"])


def test_bodies_that_are_no_bodies() -> None:
    for text in (b"[1]", b"nul", b'{"a":', b"\xff\xfe", b"{" * 5000, b'{"a":1e999}', b""):
        data = bodies.unpack(bodies.of_change(change(text), "e", 0.0).data)
        assert data["record"] is None or isinstance(data["record"], dict)
        assert data["table"] == "t"


def test_a_retried_event_is_as_it_was() -> None:
    entry = bodies.of_change(change(b'{"id":1}'), "e", 5.0)
    row, data = bodies.opened(logged(bodies.of_retried("ext/sub", entry.topic, entry.id, 5.0, entry.data)))
    assert (row.topic, row.about, row.id) == ("database.change", "public.t", entry.id)
    assert data == bodies.unpack(entry.data)
    published = bodies.of_published("x/1", {"extension_id": "x", "payload": 1}, 2, 5.0)
    row, _ = bodies.opened(logged(bodies.of_retried("ext/sub", published.topic, "x/1", 5.0, published.data)))
    assert (row.topic, row.about) == ("extension.published", "x")
    gap = bodies.of_gap("g", "node", bodies.gap_facts("node_ended", 1.0, 2.0), 2.0)
    row, data = bodies.opened(logged(bodies.of_retried("ext/sub", gap.topic, "g", 2.0, gap.data)))
    assert (row.topic, row.about, data["reason"]) == ("extension.gap", "ext/sub", "node_ended")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=5))
def test_any_row_becomes_a_body(row: dict[str, Any]) -> None:
    import json

    text = json.dumps(row, allow_nan=False, default=str) if _finite(row) else "{}"
    data = bodies.unpack(bodies.of_change(change(text.encode()), "e", 0.0).data)
    assert len(bodies.of_change(change(text.encode()), "e", 0.0).data) <= bodies.MAX_BODY_BYTES
    assert set(data) >= {"schema", "table", "op", "record", "old_record", "position", "epoch"}
    msgspec.msgpack.encode(data)


@given(st.binary(max_size=200))
def test_any_bytes_for_a_row_become_a_body(text: bytes) -> None:
    bodies.unpack(bodies.of_change(change(text), "e", 0.0).data)


@given(st.dictionaries(st.text(), st.integers() | st.text(st.characters()) | st.lists(st.integers()), max_size=6))
def test_any_fields_are_packed(fields: dict[str, Any]) -> None:
    assert isinstance(bodies.unpack(bodies.pack(fields, ())), dict)


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return value - value == 0
    if isinstance(value, dict):
        return all(_finite(one) for one in value.values())
    return all(_finite(one) for one in value) if isinstance(value, list) else True
