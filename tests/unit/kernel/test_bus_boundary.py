"""Bytes that become events, and events that leave as CloudEvents."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from magmobo.contracts.errors import MagError
from magmobo.contracts.events import ComponentStarted, DatabaseChange, Envelope, Event, HealthDegraded
from magmobo.kernel.bus.boundary import EVENT_LIMIT_BYTES, decode_event
from magmobo.kernel.bus.cloudevents import cloudevent
from magmobo.kernel.bus.errors import EventRefused, EventTooLarge, UnknownTopic


class Chosen(Event, frozen=True, gc=False):
    topic = "bus_boundary_tests.chosen"
    way: Literal["left", "right"]
    count: int = 0


def test_an_event_comes_back_as_it_went() -> None:
    event = HealthDegraded(name="magds", metrics={"lag": "3 s"}, action="report")
    assert decode_event("health.degraded", msgspec.json.encode(event)) == event


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a JSON object"),
        (b"{", "not a JSON object"),
        (b"[]", "object"),
        (b"null", "object"),
        (b'{"way":"left","way', "not a JSON object"),
        (b"\xff\xfe", "not a JSON object"),
        (b"[" * 100_000, "object"),
        (b'{"way":"left","x":' + b"[" * 100_000, "not a JSON object"),
        (b"{}", "way"),
        (b'{"way":"left","cuont":1}', "unknown field 'cuont'"),
        (b'{"way":"left","count":"1"}', r"\$\.count"),
        (b'{"way":"left","count":1.5}', r"\$\.count"),
        (b'{"way":"secret-token-123"}', r"\$\.way"),
    ],
)
def test_what_is_no_event_of_its_topic_is_refused_without_repeating_it(data: bytes, says: str) -> None:
    with pytest.raises(EventRefused, match=says) as refused:
        decode_event(Chosen.topic, data)
    assert refused.value.code == "MAG-BUS-005"
    assert "secret-token" not in str(refused.value)


def test_an_unknown_topic_is_refused() -> None:
    for topic in ("no.such", "", "component.*", "component.started\n"):
        with pytest.raises(UnknownTopic) as refused:
            decode_event(topic, b"{}")
        assert refused.value.code == "MAG-BUS-003"


def test_ten_megabytes_are_refused_before_they_are_read() -> None:
    with pytest.raises(EventTooLarge, match="10,485,760") as refused:
        decode_event("component.started", b"x" * (10 << 20))
    assert refused.value.code == "MAG-BUS-004"
    text = "x" * (EVENT_LIMIT_BYTES - len(b'{"name":""}'))
    largest = msgspec.json.encode({"name": text})
    assert decode_event("component.started", largest) == ComponentStarted(name=text)
    with pytest.raises(EventTooLarge):
        decode_event("component.started", largest + b" ")


@settings(deadline=None)  # a busy machine is not a failure
@given(st.sampled_from([Chosen.topic, "database.change", "health.degraded"]), st.binary() | st.text().map(str.encode))
def test_any_bytes_give_an_event_or_a_coded_error(topic: str, data: bytes) -> None:
    with suppress(MagError):
        assert decode_event(topic, data).topic == topic


def test_a_cloudevent_says_what_the_envelope_says() -> None:
    event = ComponentStarted(name="magds")
    told = cloudevent(
        Envelope("component.started", event, 1_700_000_000.25, 7, "n", "trace", "n/system.boot/1"), "/nodes/n"
    )
    assert told == {
        "specversion": "1.0",
        "id": "n/component.started/7",
        "source": "/nodes/n",
        "type": "dev.magmobo.component.started.v1",
        "time": "2023-11-14T22:13:20.250000Z",
        "datacontenttype": "application/json",
        "traceid": "trace",
        "causationid": "n/system.boot/1",
        "data": {"name": "magds"},
    }
    alone = cloudevent(Envelope("component.started", event, 0.0, 7, "n"), "/nodes/n")
    assert (alone["traceid"], "causationid" in alone) == ("n/component.started/7", False)


def test_json_in_an_event_passes_through_unread() -> None:
    record = b'{"big": 12345678901234567890123.50, "dup":1,"dup":2}'
    event = DatabaseChange("magds", "public", "t", "insert", "0", "2026-01-01T00:00:00Z", Raw(record))
    told = msgspec.json.encode(cloudevent(Envelope(event.topic, event, 0.0, 1, "n"), "/nodes/n"))
    assert record in told
